"""The dashboard's first page: every audit with its verdict, in the words and the order of `residua summary`."""

import re
from pathlib import Path

import pytest
from markupsafe import escape

from audit.render import verdict_row, worst_first
from audit.schema import Missing
from dashboards import app, audit_table, bar, catalogue
from dashboards.runs import Run
from tests import golden, run_store
from tests.dashboards.test_pages import opened, told
from tests.golden import HOSTILE
from tests.render.test_render import terminal

KINDS: tuple[golden.Variant, ...] = ("consistent", "suppressed", "invalid", "calibrated")


def names(shown: str) -> list[str]:
    """The checkpoints in the order of their rows."""
    return re.findall(r'<th scope="row"><a href="verdict\?[^"]*run=([^"&]+)"', shown)


def rows(*variants: golden.Variant) -> tuple[audit_table.Audited, ...]:
    runs = [Run(f"world/{v}", "final", report=golden.report(v), plan=golden.report(v).plan) for v in variants]
    return audit_table.audited(runs)


def test_the_first_page_lists_every_audit_worst_first_with_a_link_and_its_words(tmp_path: Path) -> None:
    run_store.fill(tmp_path, KINDS)
    shown = told(opened(tmp_path, "audits"))
    wanted = sorted(KINDS, key=lambda v: worst_first(golden.report(v)))
    assert names(shown) == wanted and "<section" not in shown
    text = terminal([golden.report(v) for v in KINDS], width=400)
    for variant in KINDS:
        row = verdict_row(golden.report(variant))
        for words in (row.verdict, row.reason, row.sure):
            assert str(escape(words)) in shown and words in text
        assert row.issued.split()[0] in shown and str(escape(row.untested)) in shown
    assert shown.count('class="r-invalid"') == 1 and "false alarms 0/60 worlds, missed fakes 1/60" in shown
    assert 'style="width:95%"' in shown and 'style="width:1%"' in shown


def test_a_run_without_a_result_keeps_its_row_and_says_why(tmp_path: Path) -> None:
    run_store.fill(tmp_path, ("consistent", "suppressed"))
    (tmp_path / "world" / "suppressed" / "manifest.sha256").unlink()
    shown = told(opened(tmp_path, "audits"))
    assert names(shown) == ["consistent", "suppressed"] and "– not finished" in shown
    assert "▣ SUPPRESSED</b>" not in shown


def test_words_a_search_and_an_order_choose_rows() -> None:
    every = rows("consistent", "suppressed", "invalid", "broken")
    assert audit_table.words(every) == {
        "SUPPRESSED": 1, "CONSISTENT WITH NEVER TRAINED": 1, "INCONCLUSIVE": 1, "INVALID": 1,
    }  # fmt: skip

    def kept(*only: str, search: str = "", order: str = "worst first") -> list[str]:
        return [each.run.name.removeprefix("world/") for each in audit_table.chosen(every, only, search, order)]

    assert kept("INVALID", "SUPPRESSED") == ["suppressed", "invalid"]
    assert kept(search="Compatibility gate") == ["broken"] and kept(search="nowhere") == []
    assert kept(order="by name") != kept()
    days = ["2026-01-02", "2026-01-04", "2026-01-03", "2026-01-01"]
    dated = [
        each._replace(row=None if each.row is None else each.row._replace(issued=day))
        for each, day in zip(every, days, strict=True)
    ]
    newest = [each.row.issued for each in audit_table.chosen(dated, (), "", "newest first") if each.row]
    assert newest == sorted(days, reverse=True)


def test_base_itself_is_marked_as_a_control_and_comes_last_in_both_tables(tmp_path: Path) -> None:
    report = golden.report("suppressed")
    fingerprints = {**report.plan.fingerprints, "base": "b" * 64, "suspect": "b" * 64}
    control = report.model_copy(update={"plan": report.plan.model_copy(update={"fingerprints": fingerprints})})
    run_store.issue(control, tmp_path / "w" / "a-control")
    run_store.issue(golden.report("consistent"), tmp_path / "w" / "z")
    assert names(told(opened(tmp_path, "audits"))) == ["z", "a-control"]
    assert worst_first(control) > worst_first(golden.report("invalid"))
    assert "base itself: the positive control" in terminal([control])


def test_hostile_names_are_text_and_their_links_lead_to_their_runs(tmp_path: Path) -> None:
    report = golden.report("hostile")
    name = "a&run=b #?%20\"'"
    run_store.issue(report, tmp_path / "w" / name)
    shown = told(opened(tmp_path, "audits"))
    assert HOSTILE not in shown and "<script" not in shown.partition("</style>")[2]
    assert audit_table.address(Run(f"w/{name}", "final")) == ("verdict?set=w&run=a%26run%3Db+%23%3F%2520%22%27")


def test_a_share_that_was_not_measured_has_a_reason_and_no_bar() -> None:
    line = audit_table.line(rows("consistent")[0], place=False)
    assert [width for *_, width in line.shares] == [None, None] and all(missing for _, _, missing, _ in line.shares)
    assert isinstance(golden.report("consistent").verdict.outputs, Missing)


@pytest.mark.parametrize(
    ("page", "title"), [("audits", "Audits · Residua"), ("evidence", "Evidence of received · Residua")]
)
def test_the_browser_calls_a_page_by_its_name_and_its_checkpoint(tmp_path: Path, page: str, title: str) -> None:
    run_store.fill(tmp_path, ("consistent",))
    at = opened(tmp_path, page)
    leaf = next(leaf for leaf in catalogue.leaves() if leaf.name == page)
    assert app.tab_title(leaf, at.session_state[bar.VIEW]) == title


def test_what_was_chosen_stays_chosen_while_the_whole_folder_is_looked_at(tmp_path: Path) -> None:
    run_store.fill(tmp_path, ("consistent", "suppressed"))
    at = opened(tmp_path, "verdict")
    next(box for box in at.selectbox if box.label == "Suspect checkpoint").set_value("suppressed").run()
    at.switch_page("../pages/audits.py").run()
    at.switch_page("../pages/evidence.py").run()
    assert next(box.value for box in at.selectbox if box.label == "Suspect checkpoint") == "suppressed"


def test_words_of_the_glossary_say_what_they_mean_where_they_stand_over_a_column(tmp_path: Path) -> None:
    run_store.fill(tmp_path, ("calibrated",))
    at = opened(tmp_path, "evidence")
    shown = told(at)
    for word in ("Detection limit", "What decides", "Likelihood ratio", "Holm p"):
        assert re.search(rf'<th scope="col"><abbr title="[A-Z][^"]+">{word}</abbr>', shown), word
    assert re.search(r'<dt><abbr title="[A-Z][^"]+">What it says \(outputs\)', shown)
    suspect = next(box for box in at.selectbox if box.label == "Suspect checkpoint")
    assert "under audit" in suspect.help
    assert shown.index("findings") < shown.index("How strongly each speaks")


def test_every_page_stands_under_a_head_of_the_list(tmp_path: Path) -> None:
    leaves = catalogue.leaves()
    heads = {place: leaf.section for place, leaf in enumerate(leaves, 1) if leaf.section}
    assert 1 in heads and len(heads) >= 4
    styled = told(opened(tmp_path, "audits"))
    for place, head in heads.items():
        assert f'li:nth-child({place})::before{{content:"{head}"}}' in styled


def test_evidence_is_a_table_and_its_sentences_are_folded(tmp_path: Path) -> None:
    run_store.fill(tmp_path, ("calibrated",))
    at = opened(tmp_path, "evidence")
    folded = {part.label: [element.proto.body for element in part.get("html")] for part in at.expander}
    in_words = "".join(folded["Each finding in words"])
    open_part = "".join(each for each in told(at).split("\n") if each not in "\n".join(sum(folded.values(), [])))
    evidence = golden.report("calibrated").evidence
    assert in_words.count("Measured: ") == len(evidence) and "Measured: " not in open_part
    assert len(re.findall(r"<th scope=\"row\"", open_part)) >= sum(e.status != "listed" for e in evidence)
