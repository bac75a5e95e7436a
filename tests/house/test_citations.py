"""What docstrings, comments and pages cite is in the repository: files, pages, and pages by name and section."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("audit", "probes", "saes", "dashboards", "docs", "studies", "tests")
PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "studies").rglob("*.md"))
"""Pages of the documentation cite pages that are made: tests/house/test_documentation.py holds their links."""

FILE = re.compile(r"(?<![\w/<.-])(?:\.\./)*(?:[\w.-]+/)*[\w-]+\.(?:py|pyi|md|toml|cff)\b(?![\w/])")
SECTION = re.compile(r"\b([A-Z]{4,})(?: (?:section )?\d+\.\d+|, \")")
OTHERS = {
    "case.toml", "case.py", "report.md", "forecast.md", "__init__.py", "__init__.pyi", "__main__.py",
    "study.py", "template.toml",
}  # fmt: skip
"""Files that a user or a run makes, and names that many folders have."""


def shipped() -> set[str]:
    """Every file of the repository by its path, and the ends of that path."""
    folders = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    paths = [path.relative_to(ROOT).parts for path in (*folders, *ROOT.glob("*")) if path.is_file()]
    return {"/".join(parts[first:]) for parts in paths for first in range(len(parts))}


FILES = shipped()
STEMS = {Path(name).stem for name in FILES if name.endswith(".md")}


def cited_but_absent(text: str) -> list[str]:
    """The files and pages that a text cites and the repository does not hold."""
    named = [match.group().lstrip("./") for match in FILE.finditer(text)]
    pages = [match.group(1) for match in SECTION.finditer(text)]
    return [n for n in named if n not in FILES | OTHERS] + [page for page in pages if page not in STEMS]


def prose(source: str) -> Iterator[str]:
    """The docstrings and comments of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node, clean=False) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_and_comments_cite_what_is_here(folder: str) -> None:
    absent: list[str] = []
    paths = sorted((ROOT / folder).rglob("*.py"))
    for path in paths:
        missing = [name for text in prose(path.read_text(encoding="utf-8")) for name in cited_but_absent(text)]
        absent += [f"{path.relative_to(ROOT)}: {name}" for name in missing]
    assert paths and absent == [], "\n".join(absent)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_cite_what_is_here(path: Path) -> None:
    absent = cited_but_absent(path.read_text(encoding="utf-8"))
    assert absent == [], "\n".join(absent)


@pytest.mark.parametrize(
    "text", ["as in NOWHERE 4.2", '(NOWHERE, "What it allows")', "see nowhere/at_all.py", "NOWHERE.md has the page"]
)
def test_a_citation_of_nothing_is_found(text: str) -> None:
    assert len(cited_but_absent(text)) == 1


@pytest.mark.parametrize("text", ["ARCHITECTURE.md draws it", "tests/house/rooms.py", "TOFU, LLAMA 3", "`<name>.py`"])
def test_a_citation_of_what_is_here_is_not(text: str) -> None:
    assert cited_but_absent(text) == []
