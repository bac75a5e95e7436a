"""What came out under which attack, on the pages of the dashboard and in the report: its table and its figure."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.bench import Bench
from audit.case import open_case
from audit.render import html
from audit.schema import Measurement, Missing
from dashboards import show
from probes.elicitation import Elicitation
from tests import golden, planted_world, run_store
from tests.dashboards.test_pages import opened, told


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "runs"


def measured(out: Path) -> Measurement:
    """The worst attack on a clean model, without the item table that the run of this test has not."""
    case = open_case(planted_world.case("clean"), planted_world.root(), out)
    worst = Elicitation(families=("forms", "sampling"), samples=8, k=4).measure(Bench(), case)[0]
    return worst.model_copy(update={"items": Missing(missing="of another run")})


@pytest.mark.thorough
@pytest.mark.parametrize("page", ["evidence", "test_detail"])
def test_attacks_stand_on_the_page_with_their_table_and_the_report_draws_them(
    runs: Path, tmp_path: Path, page: str
) -> None:
    worst, report = measured(tmp_path / "out"), golden.report("suppressed")
    first = next(e for e in report.evidence if e.measurement.kind == "context")
    evidence = tuple(e.model_copy(update={"measurement": worst}) if e is first else e for e in report.evidence)
    issued = run_store.issue(report.model_copy(update={"evidence": evidence}), runs / "a")
    state = {"test": show.test_label("elicitation.worst_attack")} if page == "test_detail" else {}
    at = opened(runs, page, run="a", **state)
    shown, written = told(at), html(issued)
    for text in (shown, written):
        assert "Effect by attack" in text and "What came out, how much a clean model gives" in text
        assert "sampling/temperature_1" in text and "blind here: base does not know the facts" in text
    assert "model across, attack down" in written and "<svg" in written
    if page == "test_detail":
        assert "Colour: came out" in shown
