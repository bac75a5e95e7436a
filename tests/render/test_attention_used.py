"""The method says by which attention the models were computed, and whose wish was not followed."""

import json
from pathlib import Path

import pytest

from audit.render import html, markdown
from audit.render.sections.blocks import Facts
from audit.render.sections.provenance import method
from audit.runs import read_issued
from audit.schema import Report
from tests.golden import report

FOUND = report("suppressed")


def saying(**flags: str) -> Report:
    environment = FOUND.environment
    return FOUND.model_copy(update={"environment": environment.model_copy(update={"flags": environment.flags | flags})})


def said(of: Report) -> str | None:
    (facts,) = [block for block in method(of) if isinstance(block, Facts)]
    return dict(facts.rows).get("Attention")


def test_a_report_that_does_not_say_it_shows_no_row() -> None:
    assert said(FOUND) is None


@pytest.mark.parametrize(
    ("asked", "used", "words"),
    [
        ("default", "sdpa", "sdpa, chosen by the models' classes; patterns, where a test reads them, by eager"),
        ("eager", "eager", "eager, as --attention says"),
        ("default", "eager", "eager, chosen by the models' classes"),
    ],
)
def test_what_default_stood_for_is_in_the_method_of_every_view(asked: str, used: str, words: str) -> None:
    of = saying(attention=asked, attention_used=used)
    assert said(of) == words
    assert used in html(of) and words in markdown(of)


def test_a_wish_of_a_checkpoint_that_was_not_followed_is_named_beside_it() -> None:
    first, *others = FOUND.exhibits
    wish = {"eager asked for by config.json": "not followed, computed as --attention says"}
    first = first.model_copy(update={"files": first.files | wish})
    of = saying(attention_used="sdpa").model_copy(update={"exhibits": (first, *others)})
    assert "not as settings of the checkpoints ask" in (said(of) or "")
    assert "not as settings" not in (said(saying(attention_used="sdpa")) or "")


def test_a_run_says_what_was_used_and_its_command_what_was_asked(finished: Path) -> None:
    of = read_issued(finished).report
    assert of.environment.flags["attention"] == "default" and of.environment.flags["attention_used"] == "sdpa"
    assert (
        "--attention default" in of.reproduce
        and "attention_used" in json.loads((finished / "report.json").read_text())["environment"]["flags"]
    )
