"""A probe has one door: of ours it imports ``audit.probing``, its own shared files, the dictionaries of ``saes``, and
the edit it attacks with."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "probes").glob("*.py"))
DOOR, DICTIONARIES, ATTACKS = "audit.probing", "saes", "audit.edits"
OURS = ("audit", "probes", "saes", "dashboards", "studies", "tests")


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Every import of ours, wherever it is written: the module, and the name taken from it or an empty string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] in OURS)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if node.level or module.split(".")[0] in OURS:
                yield from ((module, alias.name) for alias in node.names)


def attacks(tree: ast.Module) -> bool:
    """Does a class of this file name the attack that it makes?"""
    return any(
        isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "attack" and node.value is not None
        for node in ast.walk(tree)
    )


def breaches(text: str) -> list[str]:
    """The imports that a file of the folder may not make."""
    tree = ast.parse(text)
    doors = {DOOR, DICTIONARIES, *([ATTACKS] if attacks(tree) else [])}
    found: list[str] = []
    for module, name in imported(tree):
        shared = module.startswith("probes._") and module.count(".") == 1
        if not shared and (module not in doors or not name or name.startswith("_")):
            found.append(f"{module} {name}".strip())
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_of_a_probe_imports_ours_through_the_one_door(path: Path) -> None:
    assert breaches(path.read_text(encoding="utf-8")) == []


def test_most_files_use_the_door_and_attacks_alone_use_an_edit() -> None:
    trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
    modules = {name: {module for module, _ in imported(tree)} for name, tree in trees.items()}
    without = [name for name, taken in modules.items() if DOOR not in taken]
    pure = ["__init__", "_bag_of_words", "_concept_pictures", "_trigger_budgets"]
    assert without == pure, "a package's page, counts of words, arrays of pixels, a table of settings"
    attacking = {name for name, tree in trees.items() if attacks(tree)}
    editing = {name for name, taken in modules.items() if ATTACKS in taken}
    assert editing <= attacking
    assert attacking - editing == {"concept_erasure", "filter_removal", "trigger_search"}, (
        "what is done to a picture, taking edits off, or a prompt, is no edit"
    )


@pytest.mark.parametrize(
    "line",
    [
        "from audit.schema import Case", "import audit", "from audit import stats", "import audit.probing",
        "from audit.probing import _hidden", "from audit.probing.effects import assess", "from probes import _pairs",
        "from audit.edits import Quantise", "def f():\n    from audit.bench import Bench", "from ._pairs import Pairs",
        "from probes.utility import Utility", "from audit.edits._edit import Edit\nattack: str = 'x'",
        "from saes.training import train", "import saes",
    ],
)  # fmt: skip
def test_every_other_way_in_is_a_breach(line: str) -> None:
    assert len(breaches(line)) == 1


def test_the_door_the_shared_files_dictionaries_and_an_attack_with_its_edit_are_none() -> None:
    assert breaches("from saes import SparseCoder") == []
    assert breaches("import torch\nfrom audit.probing import Bench, stats\nfrom probes._pairs import Pairs") == []
    assert breaches("from audit.edits import Quantise\nclass A:\n    attack: str = 'quantisation'") == []
