"""The pages are the files in ``pages/``: discovered, read from their syntax tree, listed flat, never by hand.

A page states ``ORDER`` (its place in the list) and asks its one question in the first line of its docstring; its name
is that of its file.
"""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

from audit.schema import AuditError, ExitCode

FOLDER = Path(__file__).parent / "pages"


class Leaf(NamedTuple):
    """A page: its place in the list, its name as an address and as a title, its question and its file."""

    order: int
    name: str
    title: str
    question: str
    path: Path


@cache
def leaves(folder: Path = FOLDER) -> tuple[Leaf, ...]:
    """All pages in their order. AuditError (code 3) names a file that states no order or asks no question."""
    return tuple(sorted(_leaf(path) for path in folder.glob("*.py") if not path.name.startswith("_")))


def _leaf(path: Path) -> Leaf:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    stated = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    question = (ast.get_docstring(tree) or "").partition("\n")[0]
    order = stated.get("ORDER")
    if not isinstance(order, int) or not question.endswith("?"):
        raise AuditError(
            f"{path.name} is not a page: it needs ORDER = <number> and a docstring that begins with a question",
            "see the page on pages in CONTRIBUTING.md",
            ExitCode.INTEGRITY,
        )
    return Leaf(order, path.stem, path.stem.replace("_", " ").capitalize(), question, path)
