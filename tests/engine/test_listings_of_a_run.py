"""What a probe quotes in a listing never stands in a run's report, and comes back in the document that shows texts."""

from pathlib import Path

import pytest

from audit.case import CaseFile
from audit.engine import run
from audit.planning import RunSettings
from audit.review import verify_run
from audit.runs import Mask, key_of, read_report, unmasked
from audit.schema import Report
from tests import planted_world
from tests.planted import planted_package, write_probe

QUOTED = "n3 lives in Quorbital"
LISTED = f"""floor=0.01, listings=(Listing(
    title="words that are written", columns=("block", "word", "gain"), quoted=("word",), of=9,
    rows=((0, {QUOTED!r}, 0.5), (1, None, 0.25), (2, "n4", 0.125)),
),),"""


def with_listing(package: Path) -> None:
    """One probe of the package that quotes words of the data."""
    write_probe(package, "context_words")
    path = package / "context_words.py"
    text = path.read_text().replace("floor=0.01,", LISTED)
    path.write_text("from audit.schema import Listing\n".join(text.partition("from typing")[::2]).replace(
        "from audit.schema import Listing\n", "from audit.schema import Listing\nfrom typing", 1
    ))  # fmt: skip


def said(report: Report) -> list[object]:
    return [row for e in report.evidence for listing in e.measurement.listings for row in listing.rows]


@pytest.mark.thorough
def test_a_run_masks_what_its_probes_quote_and_keeps_it_for_whoever_may_see_it(tmp_path: Path) -> None:
    case = CaseFile(planted_world.case("clean"), planted_world.root())
    out = tmp_path / "run"
    with planted_package(tmp_path, "planted_for_listings") as package:
        with_listing(package)
        report = run(case, out, RunSettings(package=package.name))
        again = run(case, out, RunSettings(package=package.name))
    mask = Mask(key_of(out))
    masked = [(0, str(mask(QUOTED)), 0.5), (1, None, 0.25), (2, str(mask("n4")), 0.125)]
    assert said(report) == masked == said(again) == said(read_report(out / "report.json"))
    for name in ("report.json", "report.html", "report.md", "junit.xml", "events.jsonl", "plan.json"):
        assert "Quorbital" not in (out / name).read_text(), name
    assert not [p for p in (out / "units").rglob("*") if p.is_file() and b"Quorbital" in p.read_bytes()]
    assert str(mask(QUOTED)) in (out / "report.html").read_text()
    assert said(unmasked(report, out)) == [(0, QUOTED, 0.5), (1, None, 0.25), (2, "n4", 0.125)]
    assert verify_run(out).accepted
