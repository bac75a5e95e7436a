"""The documentation: built strictly and without a network; its fields are the schema's, its reasons the judge's."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import residua
from audit.cli import commands
from audit.edits import listed_edits
from audit.judging import decision_rule
from audit.plugins import describe
from audit.schema import Case, Columns, DataFiles, Item, Roles, Source, Template
from docs import _pages
from tests.house.test_readme import PAGES, blocks

ROOT = Path(__file__).resolve().parents[2]
OF_ROWS_ALONE = {"text", "messages", "choices", "input"}
"""Columns of a data file that are read into question and answer."""
OF_ITEMS_ALONE = {"alternates_from"}
MOST_WORDS = 25
SECTIONS = {
    "Data files": {*Item.model_fields, *OF_ROWS_ALONE} - OF_ITEMS_ALONE,
    "Top of the file": set(Case.model_fields), "[roles]": set(Roles.model_fields),
    "[roles.base], [roles.suspect], [[roles.references]], [roles.ancestor]": set(Source.model_fields),
    "[data]": set(DataFiles.model_fields), "[data.fields]": set(Columns.model_fields),
    "[template]": set(Template.model_fields),
}  # fmt: skip


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def documented(section: str) -> set[str]:
    """The first cells of the first table below a heading of the page on data."""
    (body,) = re.findall(rf"^#+ {re.escape(section)}\n(.*?)(?=^#|\Z)", page("data.md"), re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_of_the_schema_is_documented_and_no_other(section: str) -> None:
    assert documented(section) == SECTIONS[section]


def test_columns_that_the_case_can_name_are_those_that_a_row_may_have() -> None:
    assert set(Columns.model_fields) < SECTIONS["Data files"]
    assert SECTIONS["Data files"] - set(Columns.model_fields) == {"group", "of", "paraphrased_question"}


def reasons() -> set[str]:
    """What the ladder gives as a reason for INCONCLUSIVE, as far as it is written out, from its syntax tree."""
    tree = ast.parse((ROOT / "audit" / "judging" / "ladder.py").read_text(encoding="utf-8"))
    rungs = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Rung"]
    given = [word.value for rung in rungs for word in rung.keywords if word.arg == "reason"]
    given += [rung.args[4] for rung in rungs if len(rung.args) > 4]
    (named,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "_reason")
    given += [node.value for node in ast.walk(named) if isinstance(node, ast.Return) and node.value is not None]
    heads = [node.values[0] if isinstance(node, ast.JoinedStr) else node for node in given]
    return {node.value for node in heads if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_reason_of_the_judge_has_a_cure() -> None:
    given = reasons()
    assert {"over-suppressed", "no utility gate", "open: "} <= given
    silence = (ROOT / "audit" / "judging" / "silence.py").read_text(encoding="utf-8")
    given |= set(re.findall(r'"(no sharp [\w ]+)"', silence))
    rows = re.findall(r"^\| `([^|]*?)`", page("inconclusive.md"), re.MULTILINE)
    assert not {reason for reason in given if not any(reason.strip() in row for row in rows)}


def sentences(name: str) -> list[str]:
    """The sentences of a page outside code, each cell, item and paragraph by itself, links as their words."""
    text = re.sub(r"^```.*?^```|<!--.*?-->", "", (ROOT / name).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    parts = re.split(r"\n\s*\n|\n(?=[-|#]|\d+\. )", text)
    cells = [cell for part in parts for cell in (part.split("|") if part.lstrip().startswith("|") else [part])]
    return [each for cell in cells for each in re.split(r"(?<=[.!?])[*)]*\s+", " ".join(cell.split()))]


@pytest.mark.parametrize("name", ["README.md", *PAGES])
def test_sentences_of_the_pages_are_short(name: str) -> None:
    assert sentences(name) and not [x for x in sentences(name) if len(re.findall(r"\S*\w\S*", x)) > MOST_WORDS]


def test_lists_hold_every_probe_edit_and_verb() -> None:
    titles = {name: re.findall(r"^## (\w+)$", made(), re.MULTILINE) for name, made in _pages.GENERATED.items()}
    assert titles["probes.md"] == [probe.name for probe in describe("probes")]
    assert titles["edits.md"] == [edit.name for edit in listed_edits()]
    assert titles["commands.md"] == [command.name for command in commands.discover()]
    shown = _pages.commands_page()
    assert "### sae train" in shown and "<code>--fail-on GATE</code>" in shown and "usage:" not in shown


def test_rule_on_the_page_is_that_of_the_code() -> None:
    assert _pages.RULE in page("judging.md") and len(decision_rule()) > 8


def test_python_of_the_pages_uses_names_of_the_door() -> None:
    text = "\n".join(block for name in ("README.md", *PAGES) for block in blocks(name, "python"))
    used = set(re.findall(r"residua\.(\w+)", text + page("api.md")))
    assert {"run", "plan"} <= used <= set(residua.__all__)
    assert set(residua.__all__) - {"__version__"} <= used


@pytest.mark.parametrize("name", PAGES)
def test_links_of_the_documentation_lead_to_a_file_or_to_a_page_that_is_made(name: str) -> None:
    made = {*_pages.GENERATED, *_pages.repository_pages().values()}
    text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert not [x for x in targets if x not in made and not (ROOT / "docs" / x).exists()]


def test_links_into_the_repository_lead_to_the_site_and_others_become_words() -> None:
    text = "[a](../CONTRIBUTING.md#x) [b](../pyproject.toml) ![c](../studies/screenshots/where.png) [d](data.md)\n"
    shown, images = _pages.relinked(text, "docs/a.md", "a.md", _pages.repository_pages())
    assert shown == (
        "[a](contributing.md#x) b (`pyproject.toml`) ![c](studies/screenshots/where.png) [d](data.md)\n"
    )  # fmt: skip
    assert images == {"studies/screenshots/where.png"}
    fenced = f"```md\n{text}```\n"
    assert _pages.relinked(fenced, "docs/a.md", "a.md", _pages.repository_pages())[0] == fenced


@pytest.mark.thorough
def test_documentation_builds_strictly_and_without_a_network(tmp_path: Path) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")):
        pytest.skip("mkdocs-material and mkdocstrings are not installed: the extra `docs`")
    # Not quietly: what is not logged is no warning, and strictness counts warnings.
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    named = [*(Path(name).name for name in PAGES), *_pages.GENERATED, *_pages.repository_pages().values()]
    assert {re.sub(r"md$", "html", name) for name in named} <= set(pages)
    fetched = r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(?:https?:)?//[^\" >]+"
    assert not [(name, found) for name, text in pages.items() for found in re.findall(fetched, text)]
    assert 'id="residua.run"' in pages["api.html"] or 'id="audit.engine.auditing.run"' in pages["api.html"]
    assert decision_rule()[0][:60] in pages["judging.html"]
