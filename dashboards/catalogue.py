"""The pages are the files in ``pages/``: discovered, read from their syntax tree, listed flat, never by hand.

A page states ``ORDER`` (its place in the list) and asks its one question in the first line of its docstring; its name
is that of its file. It may state ``SECTION``, the head under which it and those after it stand, and ``WHOLE_FOLDER``
where it is about all runs and not about a chosen one.
"""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

from audit.schema import AuditError, ExitCode

FOLDER = Path(__file__).parent / "pages"


class Leaf(NamedTuple):
    """A page: its place in the list, its name as an address and as a title, its question and its file. ``section``:
    the head that begins with it, if one does; ``whole``: it is about all runs of the folder."""

    order: int
    name: str
    title: str
    question: str
    path: Path
    section: str = ""
    whole: bool = False


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
    section = str(stated.get("SECTION", ""))
    title = path.stem.replace("_", " ").capitalize()
    return Leaf(order, path.stem, title, question, path, section, stated.get("WHOLE_FOLDER") is True)
