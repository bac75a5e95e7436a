"""A report that an earlier version wrote is read, shown, held against its numbers and compared as one of today."""

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from audit.calibration import zoo_floors
from audit.judging import judge
from audit.render import html, junit, markdown, summary
from audit.review import compare, read_side, verify_run
from audit.runs import report_id
from audit.schema import EARLIER, SCHEMA_VERSION, Evidence, Missing, Report
from audit.schema.migration import migrated
from tests import golden

STORED = Path(__file__).parents[1] / "expected" / "report-1.2.json.gz"
"""The demo's audit of a refusal, as the code that wrote schema 1.2 left it."""
BEFORE_1_2 = ("excerpts", "masked", "parent", "published", "registered", "status")
LATER: dict[str, tuple[str, ...]] = {
    "1.0": (*BEFORE_1_2, "calibrations", "domain", "validation"), "1.1": BEFORE_1_2, "1.2": (),
}  # fmt: skip
"""What an earlier version did not have yet."""


def stored(version: str = "1.2") -> dict[str, Any]:
    document = json.loads(gzip.decompress(STORED.read_bytes()))
    return {k: v for k, v in document.items() if k not in LATER[version]} | {"schema_version": version}


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict | list):
        for name, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(below, f"{path}.{name}")
    else:
        yield path, value


@pytest.mark.parametrize("version", EARLIER)
def test_an_earlier_report_says_what_it_said(version: str) -> None:
    old = stored(version)
    report = Report.model_validate_json(json.dumps(old))
    assert report.schema_version == version
    shown = dict(leaves(report.model_dump(mode="json")))
    lost = {path: value for path, value in leaves(old) if shown.get(path, "gone") != value}
    assert lost == {".kind": "audit"}


def test_what_stood_in_words_is_the_field_that_the_judge_gives_today() -> None:
    report = Report.model_validate(stored())
    in_case = [e for e in report.evidence if e.basis == "in-case"]
    assert [e.status for e in in_case] == [judge(e.measurement, zoo_floors()).status for e in in_case]
    assert {e.status for e in in_case} >= {"gate_passed", "listed"}
    of_outcome = {"trace found": {"trace", "below"}, "no trace found": {"silent"}, "inconclusive": {"undecided"}}
    calibrated = [e for e in report.evidence if e.basis == "calibrated"]
    assert calibrated and all(e.status in of_outcome[e.outcome] for e in calibrated)
    by_name = {(e.measurement.probe, e.measurement.name): e.measurement for e in report.evidence}
    patch = by_name["reverse_patch", "depth_profile_all"]
    assert (patch.scale, patch.layer) == ("effect", int(patch.readings["layer_of_largest_effect"]))
    assert [c.scale for c in patch.curves] == ["probability"] * 4 + ["ratio"]
    assert by_name["utility", "retain"].scale == "ratio" and by_name["utility", "retain"].layer is None
    axes = {name: table.axis for name, m in by_name.items() if not isinstance(table := m.items, Missing)}
    assert axes["quantisation_recovery", "recovery"] == "precision" and axes["utility", "retain"] == ""
    assert {x.axis for x in report.excerpts} == {"", "layer", "site", "precision"}
    assert {a.attack: a.measurements for a in report.attacks if a.attack} == {
        "generation": 0, "prefix": 0, "relearning": 1, "quantisation": 2, "pruning": 0,
    }  # fmt: skip
    assert [(a.family, a.access, a.state) for a in report.attacks] == list(report.coverage)


IN_WORDS: list[tuple[str, dict[str, Any]]] = [
    ("gate_passed", {"kind": "gate", "because": "gate passed: the suspect keeps 0.98 of base (needs 0.5)"}),
    ("gate_failed", {"kind": "gate", "because": "gate failed: the suspect keeps 0.03 of base (needs 0.5)"}),
    ("gate_unmeasured", {"kind": "gate", "because": "gate not measured: no item could be scored"}),
    ("listed", {"kind": "recovery", "because": "listed for comparison; never enters the verdict"}),
    ("undecided", {"kind": "recovery", "basis": "calibrated", "because": "effect 0.02, not above the threshold"}),
    ("blind", {"kind": "causal", "value": {"missing": "no layer"}, "because": "no layer"}),
    ("blind", {"kind": "causal", "positive_control": {"missing": "none"}, "because": "no positive control: none"}),
    ("below", {"kind": "causal", "outcome": "trace found", "direction": "below", "because": "effect -0.2"}),
    ("within_floor", {"kind": "causal", "because": "effect 0.060: not above the floor of this case, 0.070"}),
    ("hint", {"kind": "decoding", "because": "effect 0.060, p = 0.03: a hint (p < 0.05), no finding"}),
    ("undecided", {"kind": "decoding", "because": "effect 0.060: no trace shown, but the bound is not below 0.10"}),
    ("silent", {"kind": "output", "outcome": "no trace found", "because": "effect 0.0: an effect of 0.10 would show"}),
    ("trace", {"kind": "output", "outcome": "trace found", "direction": "above", "because": "effect 0.4: shown"}),
]


@pytest.mark.parametrize(("status", "said"), IN_WORDS)
def test_every_sentence_of_an_earlier_judge_has_its_status(status: str, said: dict[str, Any]) -> None:
    document = golden.report("suppressed").model_dump(mode="json")
    evidence = document["evidence"][3]
    del evidence["status"]
    for name, value in said.items():
        (evidence if name in Evidence.model_fields else evidence["measurement"])[name] = value
    evidence["outcome"] = said.get("outcome", "inconclusive")
    evidence["direction"] = said.get("direction", "none")
    assert migrated(document | {"schema_version": "1.2"})["evidence"][3]["status"] == status


def test_a_layer_that_no_reading_states_is_where_the_suspects_curve_has_the_value() -> None:
    document = golden.report("suppressed").model_dump(mode="json") | {"schema_version": "1.0"}
    m = document["evidence"][3]["measurement"]
    del m["layer"], m["readings"]["layer_of_largest_effect"]
    for value, layer in ((0.82, 0), (0.98, 1), (1.0, 2), ({"missing": "no layer is eligible"}, None)):
        m["value"] = value
        assert migrated(document)["evidence"][3]["measurement"]["layer"] == layer


def test_a_document_of_today_is_read_as_it_is() -> None:
    document = golden.report("suppressed").model_dump(mode="json")
    assert document["schema_version"] == SCHEMA_VERSION and migrated(document) is document
    with pytest.raises(ValidationError, match="kind"):
        Report.model_validate(document | {"kind": "audit"})


def _without(document: Any, draw: Callable[[Any], Any]) -> None:
    """Lose or break something, anywhere below."""
    names = list(document) if isinstance(document, dict) else list(range(len(document)))
    name = draw(st.sampled_from(names))
    if isinstance(document[name], dict | list) and document[name] and draw(st.booleans()):
        _without(document[name], draw)
    else:
        document[name] = draw(st.sampled_from([None, 1, "x", [], {}, [1], {"x": 1}, float("inf")]))


@given(data=st.data())
def test_a_broken_document_of_an_earlier_version_is_refused_by_the_types_and_never_a_crash(data: st.DataObject) -> None:
    document = golden.report("suppressed").model_dump(mode="json") | {"schema_version": "1.1"}
    for _ in range(data.draw(st.integers(1, 3))):
        _without(document, data.draw)
    with suppress(ValidationError):
        Report.model_validate(document)


# ---- the rest of the house --------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", EARLIER)
def test_an_earlier_report_is_shown_by_every_view(version: str) -> None:
    report = Report.model_validate(stored(version))
    console = Console(width=120, record=True)
    console.print(summary(report))
    for text in (html(report), markdown(report), junit(report), console.export_text()):
        assert report.verdict.word in text
    assert "at precision 4 of the table" in markdown(report) or version != "1.2"
    assert "not tested" in html(report) and "tested (2 measurements)" in html(report)


def test_an_earlier_report_that_stands_alone_is_accepted_and_a_changed_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "sent.json"
    path.write_text(json.dumps(stored()))
    found = verify_run(path)
    assert found.accepted and any("made by code" in remark for remark in found.remarks)
    document = stored()
    document["evidence"][0]["measurement"]["value"] = 0.5
    path.write_text(json.dumps(document))
    (problem,) = verify_run(path).problems
    assert problem.startswith("report.json, report_id: states ")


def test_an_earlier_report_is_compared_with_one_of_today(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(stored()))
    today = Report.model_validate(stored()).model_copy(update={"schema_version": SCHEMA_VERSION})
    new.write_text(today.model_copy(update={"report_id": report_id(today)}).model_dump_json())
    found = compare(read_side(old), read_side(new))
    assert len(found.differences) > 5 and not any(row.differs for row in found.differences)
    assert found.outcomes == found.only_a == found.only_b == ()
