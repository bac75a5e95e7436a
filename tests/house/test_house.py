"""The house rules as tests: style, types, layers, sizes, names and docstrings. There is no exemption list."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("audit", "probes", "saes", "dashboards", "studies")
STRICT = ("audit", "probes", "saes")
MODULE_LINES, FUNCTION_LINES, PARAMETERS = 500, 80, 6
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "handler", "base", "misc"}
PROBE_SECTIONS = ("Null:", "Positive control:", "Blind to:", "Cite:")
# Written in pieces, or this file would break its own rule.
UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"]))
SOMEONES_MACHINE = re.compile(r"(?<![\w.:/~])/(?:work|tmp|opt|root|home|Users)/|\.\./shared")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees_below(folder: str) -> dict[Path, ast.Module]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def trees(*folders: str) -> dict[Path, ast.Module]:
    """Parsed modules under the folders that exist, by path relative to the root."""
    return {path: tree for folder in folders for path, tree in trees_below(folder).items()}


@cache
def functions(tree: ast.Module) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def our_text() -> dict[Path, str]:
    """Every text file of ours: at the root, and under the folders of code, pages, tests and continuous integration."""
    below = [p for folder in (*SHIPPED, "docs", "tests", ".ci") for p in sorted((ROOT / folder).rglob("*"))]
    kinds = {".py", ".md", ".toml", ".txt", ".cfg", ".j2", ".html", ".css", ".cff", ".json", ".jsonl", ".sh", ""}
    paths = [p for p in (*sorted(ROOT.iterdir()), *below) if p.is_file() and p.suffix in kinds]
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8", errors="replace") for path in paths}
    texts.pop(Path(".git"), None)  # a worktree has a file of that name, which git writes
    return texts


def complain(violations: list[str]) -> None:
    assert not violations, "\n" + "\n".join(violations)


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "ruff", "check", "."],
        ["-m", "ruff", "format", "--check", "."],
        pytest.param(["-m", "basedpyright", "--pythonpath", sys.executable], marks=pytest.mark.slow),
        ["-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"],
    ],
    ids=["ruff_check", "ruff_format", "basedpyright", "import_contracts"],
)
def test_tools_are_content(command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_command_line_starts_without_torch() -> None:
    heavy = ("torch", "transformers", "streamlit", "sklearn", "pandas", "scipy")
    code = f"import sys, audit.cli; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_and_functions_stay_small() -> None:
    found = []
    for path, tree in trees(*SHIPPED, "tests").items():
        lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        if lines > MODULE_LINES:
            found.append(f"{path}: {lines} lines, at most {MODULE_LINES}")
        for node in functions(tree):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{path}:{node.lineno} {node.name}: {length} lines, at most {FUNCTION_LINES}")
    complain(found)


def test_functions_take_at_most_six_parameters() -> None:
    found = []
    for path, tree in trees(*SHIPPED, "tests").items():
        for node in functions(tree):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            if count > PARAMETERS:
                found.append(f"{path}:{node.lineno} {node.name}: {count} parameters, at most {PARAMETERS}")
    complain(found)


def test_modules_are_named_after_the_field() -> None:
    words = {path: {w for part in path.with_suffix("").parts for w in part.split("_")} for path in trees(*SHIPPED)}
    complain([f"{path}: {sorted(w & FORBIDDEN_NAMES)}" for path, w in words.items() if w & FORBIDDEN_NAMES])


def test_everything_is_caught_round_a_probe_and_round_a_librarys_call_only() -> None:
    """And in the studies that look for what is not a sentence of ours."""
    looking = {Path("studies/breaches/driver.py"), Path("studies/fuzz/study.py")}
    allowed_in = {Path("audit/engine/runner.py"), Path("audit/schema/errors.py")} | looking
    found = []
    for path, tree in trees(*SHIPPED).items():
        broad = [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.ExceptHandler)
            and (node.type is None or {"Exception", "BaseException"} & {ast.unparse(t) for t in ast.walk(node.type)})
        ]
        allowed = 1 if path in allowed_in else 0
        if len(broad) > allowed:
            found.append(f"{path}: broad except in lines {broad}, {allowed} allowed")
    complain(found)


def test_public_things_have_docstrings() -> None:
    everything = trees(*SHIPPED)
    classes = [node for tree in everything.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    declared = {  # an override is documented where it is declared
        method.name
        for node in classes
        if {"ABC", "Protocol"} & {ast.unparse(b).split(".")[-1] for b in node.bases}
        for method in node.body
        if isinstance(method, Function)
    }
    found = []
    for path, tree in everything.items():
        if not (ast.get_docstring(tree) or "").strip():
            found.append(f"{path}: no module docstring")
        for owner in [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_"))]:
            for node in owner.body:
                if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                    continue
                if not ast.get_docstring(node) and (owner is tree or node.name not in declared):
                    found.append(f"{path}:{node.lineno} {node.name}: no docstring")
    complain(found)


def test_probes_say_what_they_ask_and_what_they_cannot_see() -> None:
    found = []
    for path, tree in trees("probes").items():
        if path.name.startswith("_"):
            continue
        probes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
        probes = [n for n in probes if "Probe" in {ast.unparse(b).split(".")[-1] for b in n.bases}]
        if len(probes) != 1:
            found.append(f"{path}: {len(probes)} probes in one file, exactly one is needed")
        for node in probes:
            text = ast.get_docstring(node) or ""
            found += [f"{path}: {node.name} does not state {s!r}" for s in PROBE_SECTIONS if s not in text]
            if not text.splitlines()[:1] or not text.splitlines()[0].rstrip().endswith("?"):
                found.append(f"{path}: {node.name}: the first line of its docstring asks no question")
            if "requires" not in {ast.unparse(s.target) for s in node.body if isinstance(s, ast.AnnAssign)} | {
                ast.unparse(t) for s in node.body if isinstance(s, ast.Assign) for t in s.targets
            }:
                found.append(f"{path}: {node.name} has no literal `requires`")
    complain(found)


def test_probes_are_independent_of_one_another() -> None:
    found = []
    for path, tree in trees("probes").items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "probes":
                below = (node.module or "").split(".")[1:] or [alias.name for alias in node.names]
                found += [f"{path}:{node.lineno} imports probes.{b}" for b in below[:1] if not b.startswith("_")]
    complain(found)


def test_nothing_is_left_unfinished() -> None:
    complain([f"{p}:{n} {line.strip()[:80]}" for p, n, line in lines_matching(UNFINISHED, code_only=True)])


def test_no_file_names_a_place_on_someones_machine() -> None:
    complain([f"{p}:{n} {line.strip()[:80]}" for p, n, line in lines_matching(SOMEONES_MACHINE)])


def lines_matching(pattern: re.Pattern[str], code_only: bool = False) -> Iterator[tuple[Path, int, str]]:
    for path, text in our_text().items():
        if path == Path("tests/test_house.py") or path.name == "LICENSE" or (code_only and path.suffix != ".py"):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                yield path, number, line


def test_annotations_in_numerical_modules_are_real() -> None:
    found = []
    for path, tree in trees(*SHIPPED, "tests").items():
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
        if any(alias.name == "annotations" for node in imports for alias in node.names):
            found.append(f"{path}: annotations from __future__ are strings, so shapes go unchecked")
    complain(found)


def test_no_untyped_mapping_crosses_a_module_boundary() -> None:
    found = []
    for path, tree in trees(*STRICT).items():
        for node in functions(tree):
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            hints = [a.annotation for a in arguments if a.annotation] + [node.returns] * bool(node.returns)
            loose = [ast.unparse(h) for h in hints if h and re.search(r"(dict|Mapping)\[str, Any\]", ast.unparse(h))]
            if loose and not node.name.startswith("_"):
                found.append(f"{path}:{node.lineno} {node.name}: {loose[0]}")
    complain(found)


def test_every_module_of_the_kernel_has_a_layer() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(c for c in config["contracts"] if c["id"] == "layers")["layers"]
    placed = {name.strip(" ()") for layer in layers for name in re.split(r"[|:]", layer)}
    modules = {f"audit.{path.parts[1].removesuffix('.py')}" for path in trees("audit")} - {"audit.__init__"}
    complain([f"{name} is in no layer of pyproject.toml" for name in sorted(modules - placed)])


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for extra, names in project["optional-dependencies"].items() if extra != "dev" for name in names]
    named = [*project["dependencies"], *extras]
    declared = {distribution(re.split(r"[<>=\[ ]", name)[0]) for name in named}
    owners = importlib.metadata.packages_distributions()
    found = []
    for path, tree in trees(*SHIPPED).items():
        for node in ast.walk(tree):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names) - set(SHIPPED):
                if not declared & {distribution(owner) for owner in owners.get(top, [])}:
                    found.append(f"{path}:{node.lineno} imports {top}, which pyproject.toml does not declare")
    complain(found)


def distribution(name: str) -> str:
    """A distribution's name in its one canonical spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_pin_every_dependency_without_local_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    complain([f"constraints.txt: {pin}" for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pinned = {distribution(pin.split("==")[0]) for pin in pins}
    missing = {distribution(re.split(r"[<>=\[ ]", name)[0]) for name in named} - pinned
    complain([f"constraints.txt does not pin {name}" for name in sorted(missing)])
