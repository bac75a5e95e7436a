"""How many of the names that the code binds are everyday words, which say nothing of what they name.

Bound names: every assigned name, parameter, function and class. A word counts where it is the name by itself: ``found``
does, ``found_rows`` does not. Run as ``python -m tests.house.names [--root DIR]``.
"""

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.house.imports import sources
from tests.house.rooms import ROOT

PACKAGES = ("audit", "probes", "saes", "dashboards", "studies")
EVERYDAY = {
    "found", "told", "said", "one", "some", "kept", "made", "asked", "named", "apart", "alone", "gone", "whole",
    "here", "there", "how", "why", "what",
}  # fmt: skip


class Count(NamedTuple):
    """Everyday words among all bound names, and which words how often."""

    everyday: int
    names: int
    words: Counter[str]

    @property
    def share(self) -> float:
        """Everyday words as a share of all names; 0 where nothing is bound."""
        return self.everyday / self.names if self.names else 0.0

    def __str__(self) -> str:
        listed = ", ".join(f"{word} {times}" for word, times in self.words.most_common())
        return f"{self.everyday:,} of {self.names:,} bound names are everyday words, {self.share:.2%}: {listed}"


def bound(tree: ast.AST) -> Iterator[str]:
    """Every name that is bound in a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def count(root: Path) -> Count:
    """The count for the packages under ``root``."""
    names = [name for source in sources(root, PACKAGES).values() for name in bound(source.tree)]
    words = Counter(name for name in names if name in EVERYDAY)
    return Count(words.total(), len(names), words)


def main() -> None:
    """Print the count."""
    parser = argparse.ArgumentParser(description="everyday words among the names that the code binds")
    parser.add_argument("--root", type=Path, default=ROOT)
    sys.stdout.write(f"{count(parser.parse_args().root)}\n")


if __name__ == "__main__":
    main()
