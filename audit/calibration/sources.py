"""Which source can change a plug-in's numbers, as one hash: the import closure of its module within this project.

Imports count wherever they stand, in functions too; docstrings, comments and layout do not. A name that a door hands
out (``__init__.pyi``) leads to the module behind it. A name that is imported dynamically, from a string, is not
followed. Nothing is imported to find out.
"""

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from audit.schema import AuditError, Record

OURS = ("audit", "probes", "saes")
PACKAGES = ("torch", "transformers", "numpy", "scipy", "scikit-learn")


class Installed(Record):
    """What is installed: a hash of the sources behind a plug-in, and the versions of the libraries that compute.

    Local parts of a version (``+cpu``) do not count.
    """

    sources: str
    packages: dict[str, str]


def installed(package: str, plugin: str, *beside: str) -> Installed:
    """The sources behind a plug-in and behind modules ``beside`` it, and the libraries, as they are now."""
    return Installed(sources=sources_hash(package, plugin, *beside), packages=packages())


def packages() -> dict[str, str]:
    """Versions of the libraries that compute, without their local parts."""
    return {name: _version(name).partition("+")[0] for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


# ---- one module -------------------------------------------------------------------------------------------------
def _plain(node: ast.AST) -> list[object]:
    """A syntax tree as nested lists: no positions, no docstrings, no empty fields (they differ between Pythons)."""
    fields: list[object] = [type(node).__name__]
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
        if value is None or value == []:
            continue
        parts = value if isinstance(value, list) else [value]
        fields.append([name, *(_plain(part) if isinstance(part, ast.AST) else repr(part) for part in parts)])
    return fields


def _imports(tree: ast.Module, within: str) -> Iterator[tuple[str, str]]:
    """What a module of package ``within`` imports: module, and the name taken from it or an empty string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = within.split(".")[: len(within.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


class _Parsed(NamedTuple):
    """A module by its syntax tree, and what it imports."""

    sha256: str
    imports: tuple[tuple[str, str], ...]


@lru_cache(maxsize=1024)
def _parsed(source: str, within: str) -> _Parsed:
    tree = ast.parse(source)
    plain = json.dumps(_plain(tree), sort_keys=True)
    return _Parsed(hashlib.sha256(plain.encode()).hexdigest(), tuple(dict.fromkeys(_imports(tree, within))))


@lru_cache(maxsize=64)
def _door(stub: Path) -> dict[str, str]:
    """What a door hands out: name -> the module below the package that it comes from."""
    if not stub.is_file():
        return {}
    nodes = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return {
        alias.name: ".".join(filter(None, (node.module, alias.name if not node.module else "")))
        for node in nodes for alias in node.names
    }  # fmt: skip


# ---- all of them ------------------------------------------------------------------------------------------------
class _Tree:
    """The modules of some top-level packages, found by path."""

    def __init__(self, tops: tuple[str, ...]) -> None:
        specs = {top: importlib.util.find_spec(top) for top in tops}
        places = {top: list(spec.submodule_search_locations or ()) for top, spec in specs.items() if spec is not None}
        self.folders = {top: Path(found[0]) for top, found in places.items() if found}

    def path(self, module: str) -> Path | None:
        """The file of a module, or None where this is no module of ours."""
        top, *below = module.split(".")
        if top not in self.folders:
            return None
        place = self.folders[top].joinpath(*below)
        if (place / "__init__.py").is_file():
            return place / "__init__.py"
        file = place.with_name(f"{place.name}.py")
        return file if below and file.is_file() else None

    def behind(self, package: str, name: str) -> list[str]:
        """The module from which a package's door hands out ``name``; without a name, all that it hands out of."""
        path = self.path(package)
        door = {} if path is None else _door(path.with_suffix(".pyi"))
        return [
            f"{package}.{module}" for module in ([door[name]] if name in door else [] if name else {*door.values()})
        ]

    def reached(self, module: str) -> list[str]:
        """A module and the packages that it lies in, whose code runs with it.

        But for ``audit`` itself: it is a door that imports what is asked of it, and holds no numbers.
        """
        parts = module.split(".")
        above = [".".join(parts[:n]) for n in range(1, len(parts))]
        return [module, *(package for package in above if package != "audit")]


def sources_hash(package: str, plugin: str, *beside: str) -> str:
    """sha256 (hex) of everything of ours that a plug-in (and modules ``beside`` it) imports, however deep.

    AuditError (code 2) if there is no such plug-in.
    """
    tree = _Tree(tuple(dict.fromkeys((*OURS, package))))
    first = f"{package}.{plugin}"
    if tree.path(first) is None:
        raise AuditError(f"there is no plug-in {plugin!r} in {package}", "name one that `residua probes` lists")
    assert all(tree.path(module) is not None for module in beside), f"no modules of ours: {beside}"
    digests: dict[str, str] = {}
    waiting = [name for module in (first, *beside) for name in tree.reached(module)]
    while waiting:
        module = waiting.pop()
        path = tree.path(module)
        if module in digests or path is None:
            continue
        within = module if path.name == "__init__.py" else module.rpartition(".")[0]
        digests[module], imports = _parsed(path.read_text(encoding="utf-8"), within)
        for source, name in imports:
            taken = f"{source}.{name}" if name else source
            if tree.path(taken) is not None:
                targets = [taken, *tree.behind(taken, "")]
            else:
                targets = [source, *tree.behind(source, name)]
            waiting += [reached for target in targets for reached in tree.reached(target)]
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
