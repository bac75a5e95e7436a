"""The door of the product: what ``import audit`` gives, that it costs nothing before it is used, and that it works."""

import inspect
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import audit
from audit import engine, forecasting
from audit.engine import runner
from audit.planning import RunSettings
from audit.zoo import Built
from tests.planted import planted_package

ROOT = Path(__file__).resolve().parents[2]
HANDED_OUT = {"run", "plan", "forecast", "Case", "Report", "Probe", "Edit", "Bench", "__version__"}


def test_door_hands_out_the_product_and_nothing_else() -> None:
    assert set(audit.__all__) == HANDED_OUT == set(dir(audit)) & HANDED_OUT
    assert (audit.run, audit.plan, audit.forecast) == (engine.run, engine.plan, forecasting.forecast)
    assert (audit.Case.__module__, audit.Report.__module__) == ("audit.schema.case", "audit.schema.report")
    assert {audit.Probe.__name__, audit.Edit.__name__, audit.Bench.__name__} == {"Probe", "Edit", "Bench"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", audit.__version__)
    with pytest.raises(AttributeError):
        audit.no_such_name  # noqa: B018  # type: ignore[attr-defined]


def test_importing_the_product_and_its_records_loads_nothing_heavy() -> None:
    code = "import sys, audit; audit.__version__, dir(audit)\n"
    code += "print([m for m in ('torch', 'pydantic', 'transformers', 'numpy') if m in sys.modules])\n"
    code += "audit.Case, audit.Report\nprint([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_run_plan_and_forecast_need_only_a_case_and_a_folder() -> None:
    for call in (audit.run, audit.plan, audit.forecast):
        inspect.signature(call).bind("case.toml", out="runs/mine")


@pytest.mark.thorough
def test_readme_runs_an_audit_from_python(zoo: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's own lines, with a case of the tiny world and planted probes in place of the real ones."""
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert "audit.run(" in block
    lines = block.replace('"case.toml"', repr(str(zoo.cases["base"])))
    monkeypatch.chdir(tmp_path)
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as package:
        monkeypatch.setattr(runner, "RunSettings", partial(RunSettings, package=package.name))
        shown: dict[str, object] = {}
        exec(lines, shown)  # noqa: S102
    report = shown["report"]
    assert isinstance(report, audit.Report) and report.verdict.sentence
    assert audit.Report.model_validate_json((tmp_path / "runs" / "mine" / "report.json").read_bytes()) == report
