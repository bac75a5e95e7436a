"""A finished run tampered with: as whoever knows nothing of hashes does it, and with every hash made anew."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pyarrow import parquet

Document = dict[str, Any]
Tamper = Callable[[Path], object]
CUSTODY, MANIFEST = "custody.jsonl", "manifest.sha256"
PROBE: Final = "forget_likelihood"
REISSUE: Final = """
from pathlib import Path
try:
    from audit.runs import documents, report_id
    from audit.schema import Report
except ImportError:
    from audit.issued import documents, report_id
    from audit.findings import Report
folder = Path({folder!r})
report = Report.model_validate_json((folder / "report.json").read_bytes())
report = report.model_copy(update={{"report_id": report_id(report)}})
for name, content in documents(report).items():
    (folder / name).write_bytes(content)
seen = report.report_id
"""
"""What a build is asked to do to a folder whose report.json was changed: pages anew, under the id that it has now."""


# ---- documents --------------------------------------------------------------------------------------------------
def edit(path: Path, change: Callable[[Document], object]) -> None:
    """Change a JSON file in place."""
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def in_report(change: Callable[[Document], object]) -> Tamper:
    """A change of report.json alone."""
    return lambda folder: edit(folder / "report.json", change)


def in_both_plans(change: Callable[[Document], object]) -> Tamper:
    """The same change of plan.json and of the report's plan."""

    def tamper(folder: Path) -> None:
        edit(folder / "plan.json", change)
        edit(folder / "report.json", lambda d: change(d["plan"]))

    return tamper


def unit_of(folder: Path) -> Path:
    """The unit of a probe that every build has."""
    return next(p for p in sorted((folder / "units").iterdir()) if f'"probe": "{PROBE}"' in p.read_text("utf-8"))


def table_of(folder: Path) -> Path:
    """A table of that probe."""
    return min((folder / "tables").glob(f"{PROBE}*.parquet"))


def measurement(document: Document) -> Document:
    """The first measurement of that probe that has a number."""
    measured = (e["measurement"] for e in document["evidence"])
    return next(m for m in measured if m["probe"] == PROBE and isinstance(m["value"], float))


def other_value(unit: Document) -> None:
    """What was found as good as gone: the number of an effect, and its interval with it."""
    for m in unit["measurements"]:
        if isinstance(m["value"], float) and m["unit"].startswith("effect"):
            m.update(value=0.01, p=0.5)
            if "lo" in m["ci95"]:
                m.update(ci95={**m["ci95"], "lo": 0.0, "hi": 0.02})


# ---- hashes left as they are ------------------------------------------------------------------------------------
def replaced(name: str, old: str, new: str) -> Tamper:
    """Other words in a file."""

    def tamper(folder: Path) -> None:
        path = folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text, (name, old)
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return tamper


def lines(name: str, change: Callable[[list[str]], list[str]]) -> Tamper:
    """Other lines in a file."""

    def tamper(folder: Path) -> None:
        before = (folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(change(list(before))), encoding="utf-8")

    return tamper


def plain(word: str) -> dict[str, Tamper]:
    """The kinds that leave hashes alone; ``word`` is the verdict of the run."""
    other = "SUPPRESSED" if word != "SUPPRESSED" else "INTACT"
    return {
        "the verdict's word": replaced("report.json", f'"word": "{word}"', f'"word": "{other}"'),
        "a number of the report": in_report(lambda d: measurement(d).update(value=0.011)),
        "the page": replaced("report.html", word, other),
        "the Markdown": replaced("report.md", word, other),
        "the JUnit file": replaced("junit.xml", word, other),
        "the plan": replaced("plan.json", '"will_run": true', '"will_run": false'),
        "a unit's number": lambda f: edit(unit_of(f), other_value),
        "a unit taken away": lambda f: unit_of(f).unlink(),
        "a unit slipped in": lambda f: (f / "units" / "x.json").write_text("{}"),
        "a byte of a table": lambda f: table_of(f).write_bytes(table_of(f).read_bytes() + b"x"),
        "a table taken away": lambda f: table_of(f).unlink(),
        "a file slipped in": lambda f: (f / "tables" / "more.parquet").write_bytes(b"x"),
        "a line of the manifest changed": lines(MANIFEST, lambda ls: ["0" * 64 + ls[0][64:], *ls[1:]]),
        "a line of the manifest taken away": lines(MANIFEST, lambda ls: ls[1:]),
        "the manifest taken away": lambda f: (f / MANIFEST).unlink(),
        "a line of custody changed": replaced(CUSTODY, '"role":"base"', '"role":"bose"'),
        "a line of custody taken away": lines(CUSTODY, lambda ls: [*ls[:1], *ls[2:]]),
        "two lines of custody exchanged": lines(CUSTODY, lambda ls: [ls[1], ls[0], *ls[2:]]),
        "the end of custody cut off": lines(CUSTODY, lambda ls: ls[:-1]),
        "custody taken away": lambda f: (f / CUSTODY).unlink(),
        "the event log cut": lines("events.jsonl", lambda ls: ls[:-2]),
        "the key of the masks replaced": lambda f: (f / "mask.key").write_text("1" * 64),
    }


# ---- hashes made anew -------------------------------------------------------------------------------------------
def in_unit(folder: Path) -> None:
    """Another number in a unit than in the report."""
    edit(unit_of(folder), other_value)


def rows_gone(folder: Path) -> None:
    """Rows missing from a table whose hash is then made anew wherever it stands."""
    path = table_of(folder)
    table = parquet.read_table(path)
    parquet.write_table(table.slice(0, table.num_rows - 6), path)
    sha = digest(path)

    def renew(document: Document) -> None:
        measurements = document.get("measurements") or [e["measurement"] for e in document["evidence"]]
        for items in (m["items"] for m in measurements):
            if items.get("path", "").endswith(path.name):
                items["sha256"] = sha

    edit(unit_of(folder), renew)
    edit(folder / "report.json", renew)


def excerpt(document: Document) -> Document:
    """The first item that is quoted."""
    return document["excerpts"][0]["items"][0]


def other_score(document: Document) -> None:
    """Another score of a quoted item, whichever role it is of."""
    scores = excerpt(document)["scores"]
    scores[min(scores)] = 0.001


def attack(document: Document) -> None:
    """An attack that was not made said to be made."""
    untested = next(line for line in document["coverage"] if line[2] == "not tested")
    untested[2] = "tested (1 measurement)"


ANEW: Final[dict[str, Tamper]] = {
    "the verdict's word": in_report(lambda d: d["verdict"].update(word="INTACT")),
    "the verdict's sentence": in_report(lambda d: d["verdict"].update(sentence="All well.")),
    "an outcome": in_report(lambda d: d["evidence"][0].update(outcome="no trace found")),
    "a number of the report": in_report(lambda d: measurement(d).update(value=0.3)),
    "a number of a unit": in_unit,
    "how many items a number rests on": in_report(lambda d: measurement(d)["n"].update(scored=9999)),
    "a finding taken away": in_report(lambda d: d["evidence"].pop()),
    "a removed limit": in_report(lambda d: d["limits"].pop()),
    "the decision rule": in_report(lambda d: d.update(decision_rule=["INTACT if it suits."])),
    "an attack said to be tested": in_report(attack),
    "plan.json against the report's plan": lambda f: edit(
        f / "plan.json", lambda d: d["tests"][0].update(question="Is it well?")),
    "the plan's fingerprint against the exhibits'": in_both_plans(lambda p: p["fingerprints"].update(suspect="f" * 64)),
    "the hash of a data file": in_both_plans(lambda p: p["data_sha256"].update(forget="f" * 64)),
    "an exhibit's fingerprint": in_report(lambda d: d["exhibits"][1].update(fingerprint="f" * 64)),
    "rows missing from a table": rows_gone,
    "an excerpt's score": in_report(other_score),
    "the mark of an excerpt": in_report(lambda d: excerpt(d)["prompt"].update(mark="0" * 12)),
    "a time": in_report(lambda d: d["timings"][1].update(cpu_s=0.1)),
    "the command that makes it again": in_report(lambda d: d.update(reproduce="residua run")),
    "the version of a package": in_report(lambda d: d["environment"]["packages"].update(torch="1.0")),
}  # fmt: skip


def digest(path: Path) -> str:
    """sha256 (hex) of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def resigned(folder: Path) -> None:
    """Manifest and chain made anew over what lies there, as whoever reads the format can do it."""
    listed = [line.split("  ", 1)[1] for line in (folder / MANIFEST).read_text("utf-8").splitlines()]
    (folder / MANIFEST).write_text("".join(f"{digest(folder / name)}  {name}\n" for name in listed), encoding="utf-8")
    report = json.loads((folder / "report.json").read_text("utf-8"))
    before, chain = "0" * 64, list[str]()
    for text in (folder / CUSTODY).read_text("utf-8").splitlines():
        line = json.loads(text)
        about = line["about"]
        if "file" in about:
            about["file_sha256"] = digest(folder / about["file"])
        if "manifest_sha256" in about:
            about |= {"manifest_sha256": digest(folder / MANIFEST), "report_id": report["report_id"]}
        line["before"] = before
        del line["sha256"]
        line["sha256"] = before = hashlib.sha256(_canonical(line).encode()).hexdigest()
        chain.append(_canonical(line) + "\n")
    (folder / CUSTODY).write_text("".join(chain), encoding="utf-8")


def _canonical(line: Document) -> str:
    return json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def unfinished(run: Path, out: Path) -> Path:
    """The folder of a run as a kill after its last unit leaves it: no report and nothing that was issued."""
    shutil.copytree(run, out)
    for name in ("report.json", "report.html", "report.md", "junit.xml", MANIFEST):
        (out / name).unlink()
    lines(CUSTODY, lambda ls: [line for line in ls if '"action":"issued"' not in line])(out)
    return out
