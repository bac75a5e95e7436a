"""A finished run tampered with: as whoever knows nothing of hashes does it, and as whoever makes every hash anew.

Of the second kind no hash can tell, only that the folder says one thing twice and says it differently. What it says
once alone is believed: those kinds are listed too, each with its reason, and a signature is what stands against them.
"""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from audit.cli import main
from audit.review import verify_run
from audit.runs import custody, manifest, plan_hash_of
from audit.schema import AuditError, Plan, Report
from tests import whole_run
from tests.whole_run import Document, edit

Tamper = Callable[[Path], None]
FORGET = "forget_likelihood"


def rejected(folder: Path) -> tuple[str, ...]:
    """Why verify rejects a run; nothing if it accepts it."""
    try:
        return verify_run(folder).problems
    except AuditError as error:
        assert error.code == 3
        return (error.what,)


@pytest.mark.thorough
def test_a_run_as_the_engine_leaves_it_is_accepted_and_so_is_one_signed_again(folder: Path) -> None:
    assert rejected(folder) == () and verify_run(folder).remarks == ()
    whole_run.write(folder, whole_run.read(folder))
    assert rejected(folder) == ()
    (folder / "mask.key").unlink()
    assert rejected(folder) == (), "a key may stay at home"


# ---- hashes left as they are ------------------------------------------------------------------------------------
def unit_of(folder: Path, probe: str = FORGET) -> Path:
    return next(p for p in (folder / "units").iterdir() if f'"probe": "{probe}"' in p.read_text())


def replaced(name: str, old: str, new: str) -> Tamper:
    def change(folder: Path) -> None:
        path = folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def lines(name: str, change: Callable[[list[str]], list[str]]) -> Tamper:
    def tamper(folder: Path) -> None:
        before = (folder / name).read_text().splitlines(keepends=True)
        after = change(list(before))
        assert after != before
        (folder / name).write_text("".join(after))

    return tamper


def table_of(folder: Path) -> Path:
    return folder / "tables" / f"{FORGET}.parquet"


PLAIN: dict[str, Tamper] = {
    "the verdict's word": replaced("report.json", '"word": "SUPPRESSED"', '"word": "PARTIAL"'),
    "a number of the report": replaced("report.json", '"value": 0.012', '"value": 0.011'),
    "the page": replaced("report.html", "SUPPRESSED", "INTACT"),
    "the Markdown": replaced("report.md", "SUPPRESSED", "INTACT"),
    "the JUnit file": replaced("junit.xml", "SUPPRESSED", "INTACT"),
    "the plan": replaced("plan.json", '"will_run": true', '"will_run": false'),
    "a unit's number": lambda f: edit(unit_of(f), lambda u: u["measurements"][0].update(value=0.3)),
    "a unit taken away": lambda f: unit_of(f).unlink(),
    "a unit slipped in": lambda f: (f / "units" / "x.json").write_text("{}"),
    "a byte of a table": lambda f: table_of(f).write_bytes(table_of(f).read_bytes() + b"x"),
    "a table taken away": lambda f: table_of(f).unlink(),
    "a file slipped in": lambda f: (f / "tables" / "more.parquet").write_bytes(b"x"),
    "a line of the manifest changed": lines("manifest.sha256", lambda ls: ["0" * 64 + ls[0][64:], *ls[1:]]),
    "a line of the manifest taken away": lines("manifest.sha256", lambda ls: ls[1:]),
    "the manifest taken away": lambda f: (f / "manifest.sha256").unlink(),
    "a line of custody changed": replaced(custody.NAME, '"role":"base"', '"role":"bose"'),
    "a line of custody taken away": lines(custody.NAME, lambda ls: [*ls[:2], *ls[3:]]),
    "two lines of custody exchanged": lines(custody.NAME, lambda ls: [ls[1], ls[0], *ls[2:]]),
    "the end of custody cut off": lines(custody.NAME, lambda ls: ls[:-1]),
    "custody taken away": lambda f: (f / custody.NAME).unlink(),
    "the event log cut": lines("events.jsonl", lambda ls: ls[:-1]),
    "the key of the masks replaced": lambda f: (f / "mask.key").write_text("1" * 64),
}


def test_so_many_plain_kinds_are_tried() -> None:
    assert len(PLAIN) == 22


@pytest.mark.sampled
@pytest.mark.parametrize("what", PLAIN)
def test_what_was_changed_without_its_hashes_is_rejected_and_shown_by_no_command(
    folder: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    PLAIN[what](folder)
    assert rejected(folder)
    capsys.readouterr()
    for command in (["report", str(folder)], ["report", str(folder), "--fail-on", "any"],
                    ["report", str(folder), "-o", str(folder.parent / "x.md")],
                    ["compare", str(folder), str(folder)], ["summary", str(folder)]):  # fmt: skip
        assert main(command) == 3, command
    shown = capsys.readouterr()
    assert "is not what was issued" in shown.err and not shown.out
    assert main(["verify", str(folder)]) == 3
    assert not (folder.parent / "x.md").exists()


def test_a_table_whose_footer_was_damaged_is_rejected_and_breaks_nothing(folder: Path) -> None:
    data = table_of(folder).read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    table_of(folder).write_bytes(data[: -8 - footer] + b"\xff" * footer + data[-8:])
    assert any(table_of(folder).name in problem for problem in rejected(folder))


def _vast(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


@pytest.mark.sampled
@pytest.mark.parametrize("put", [os.mkfifo, _vast])
@pytest.mark.parametrize("of", [lambda f: f / "plan.json", unit_of, table_of], ids=["plan", "unit", "table"])
def test_what_cannot_be_read_in_a_run_folder_is_rejected_and_keeps_nobody_waiting(
    folder: Path, of: Callable[[Path], Path], put: Callable[[Path], None]
) -> None:
    path = of(folder)
    path.unlink()
    put(path)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)
    try:
        assert rejected(folder)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_key_larger_than_memory_is_rejected(folder: Path) -> None:
    _vast(folder / "mask.key")
    assert "more than can be read at once" in rejected(folder)[0]


def test_an_event_that_came_after_the_report_is_no_fault(folder: Path) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.write("{}\n")
    assert rejected(folder) == ()


# ---- hashes made anew -------------------------------------------------------------------------------------------
def in_report(change: Callable[[Document], Any]) -> Tamper:
    def tamper(folder: Path) -> None:
        document = whole_run.read(folder)
        change(document)
        whole_run.write(folder, document)

    return tamper


def measurement(document: Document, place: int = 1) -> Document:
    return document["evidence"][place]["measurement"]


def in_unit(folder: Path) -> None:
    edit(unit_of(folder), lambda u: u["measurements"][0].update(value=0.3))
    whole_run.write(folder, whole_run.read(folder))


def in_plan(folder: Path) -> None:
    edit(folder / "plan.json", lambda plan: plan["tests"][0].update(question="Is it well?"))
    whole_run.write(folder, whole_run.read(folder))


def with_both_plans(change: Callable[[Document], None]) -> Tamper:
    """The plan changed in both documents, under the hash that it then has."""

    def tamper(folder: Path) -> None:
        edit(folder / "plan.json", change)
        plan = Plan.model_validate_json((folder / "plan.json").read_bytes())
        edit(folder / "plan.json", lambda document: document.update(plan_hash=plan_hash_of(plan)))
        document = whole_run.read(folder)
        change(document["plan"])
        document["plan"]["plan_hash"] = plan_hash_of(plan)
        whole_run.write(folder, document)

    return tamper


def rows_gone(folder: Path) -> None:
    """The hashes of the table are made anew wherever they stand; how many rows it has is not."""
    path = table_of(folder)
    table = parquet.read_table(path)
    parquet.write_table(table.slice(0, table.num_rows - 6), path)
    renewed(folder, lambda stated: None)


def rows_gone_and_counted(folder: Path) -> None:
    path = table_of(folder)
    table = parquet.read_table(path)
    parquet.write_table(table.slice(0, table.num_rows - 6), path)
    renewed(folder, lambda stated: stated.update(rows=table.num_rows - 6))


def renewed(folder: Path, change: Callable[[Document], None]) -> None:
    sha = custody.sha256_of(table_of(folder))

    def renew(document: Document) -> None:
        for stated in whole_run.tables(document):
            if stated["path"].endswith(f"{FORGET}.parquet"):
                stated["sha256"] = sha
                change(stated)

    edit(unit_of(folder), renew)
    document = whole_run.read(folder)
    renew(document)
    whole_run.write(folder, document)


def other_conclusion(document: Document) -> None:
    document["evidence"][1].update(outcome="trace found", status="trace", direction="above")


ANEW: dict[str, tuple[Tamper, str]] = {
    "the verdict's word": (
        in_report(lambda d: d["verdict"].update(word="PARTIAL")), r'verdict\.word: states "PARTIAL", its numbers give'),
    "the verdict's sentence": (in_report(lambda d: d["verdict"].update(sentence="All well.")), r"verdict\.sentence"),
    "an outcome": (in_report(other_conclusion), r"evidence\.forget_likelihood\.probability\.outcome: states"),
    "a number of the report": (in_report(lambda d: measurement(d).update(value=0.3)), r"measurements\..*value: states"),
    "a number of a unit": (in_unit, r"measurements\..*value: states 0\.012.* gives 0\.3"),
    "a point of a curve": (
        in_report(lambda d: measurement(d, 4)["curves"][0]["y"].__setitem__(0, 9.0)), r"curves\[0\]\.y\[0\]"),
    "how many items a number rests on": (
        in_report(lambda d: measurement(d)["n"].update(scored=9999)), r"n\.scored: states 9999"),
    "a finding taken away": (in_report(lambda d: d["evidence"].pop()), r"states nothing"),
    "a removed limit": (in_report(lambda d: d["limits"].pop(1)), r"limits\[1\]: states"),
    "the decision rule": (in_report(lambda d: d.update(decision_rule=["INTACT if it suits."])), r"decision_rule\[0\]"),
    "an attack said to be tested": (in_report(lambda d: d["coverage"][4].__setitem__(2, "tested")), r"coverage\[4\]"),
    "a test said never to have been asked": (in_report(lambda d: d["skips"].pop()), r"skips\[1\]: states nothing"),
    "who was audited": (in_report(lambda d: d["roles_audited"][1].update(takes_part=True)), r"roles_audited\[1\]"),
    "plan.json against the report's plan": (in_plan, r"plan\.tests\[0\]\.question: states"),
    "the plan's fingerprint against the exhibits'": (
        with_both_plans(lambda plan: plan["fingerprints"].update(suspect="f" * 64)), r"plan\.fingerprints\.suspect"),
    "the hash of a data file": (
        with_both_plans(lambda plan: plan["data_sha256"].update(forget="f" * 64)), r"plan\.data_sha256\.forget"),
    "an exhibit's fingerprint": (
        in_report(lambda d: d["exhibits"][1].update(fingerprint="f" * 64)), r"no line received suspect ffffffffffff"),
    "rows missing from a table": (rows_gone, r"items\.rows: states 288, what the folder holds gives 282"),
    "an excerpt's score": (
        in_report(lambda d: d["excerpts"][0]["items"][0]["scores"].update(suspect=0.001)), r"\.scores\.suspect: "),
    "the mark of an excerpt": (
        in_report(lambda d: d["excerpts"][0]["items"][0]["prompt"].update(mark="0" * 12)), r"prompt\.mark"),
    "a time": (in_report(lambda d: d["timings"][1].update(cpu_s=0.1)), r"timings\[1\]\.cpu_s: states 0\.1"),
    "the command that makes it again": (in_report(lambda d: d.update(reproduce="residua run")), r"reproduce: states"),
    "rows missing, and counted anew wherever they count": (rows_gone_and_counted, r"excerpts\[0\]\.of: states 24"),
}  # fmt: skip
"""Kinds that are rejected, and what is said of them."""
STATED_ONCE: dict[str, tuple[Tamper, str]] = {
    "the version of a package": (
        in_report(lambda d: d["environment"]["packages"].update(torch="1.0")),
        "by what it ran is written down in the report alone; a rerun in the stated environment is the check",
    ),
    "how many items were received": (
        in_report(lambda d: d["cohorts"]["forget"].update(items=9)),
        "the data are not in the folder; their hashes are, and counting their lines is the check",
    ),
}
"""Kinds that are accepted, and why."""


def test_of_twenty_kinds_with_all_hashes_made_anew_eighteen_would_be_enough() -> None:
    assert len(ANEW) >= 18 and len(ANEW) >= 0.9 * (len(ANEW) + len(STATED_ONCE))


@pytest.mark.sampled
@pytest.mark.parametrize("what", ANEW)
def test_what_contradicts_the_rest_is_rejected_although_every_hash_was_made_anew(folder: Path, what: str) -> None:
    tamper, told = ANEW[what]
    tamper(folder)
    problems = rejected(folder)
    assert any(re.search(told, problem) for problem in problems), problems
    of_hashes = [p for p in problems if re.search("changed|missing$|: extra|was kept|states UA-|does not hash", p)]
    assert not of_hashes, "every hash was made anew, so none of them tells"


@pytest.mark.parametrize("what", STATED_ONCE)
def test_what_is_said_once_alone_is_believed_and_that_is_known(folder: Path, what: str) -> None:
    tamper, why = STATED_ONCE[what]
    tamper(folder)
    assert rejected(folder) == (), why


ONCE = {"cohorts", "created", "demo", "domain", "environment", "exhibits", "failures", "masked", "parent", "published",
        "registered", "report_id", "schema_version", "status", "calibrations"}  # fmt: skip
"""Fields of a report that no other file of its run says."""


def test_every_field_of_a_report_is_compared_unless_it_is_known_to_be_said_once(folder: Path) -> None:
    """A field that is added to a report and derived is compared by itself; one that is not must be named above."""
    whole_run.write(folder, whole_run.read(folder))
    from audit.review import rederivation

    report = Report.model_validate(whole_run.read(folder))
    parts = rederivation._parts(folder, report, [])
    compared = {"evidence", *rederivation.copied(parts), *rederivation.concluded(parts, whole_run.judges(folder))}
    assert compared | ONCE == set(Report.model_fields)


@pytest.mark.thorough
def test_the_manifest_alone_would_accept_every_one_of_them(folder: Path) -> None:
    for tamper, _ in ANEW.values():
        tamper(folder)
    assert manifest.check(folder) == []
