"""The door of the product: what ``import audit`` gives, that it costs nothing before it is used, and that it works."""

import inspect
import re
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest

import audit
from audit import engine, forecasting
from audit.case import load_case
from audit.engine import auditing, runner
from audit.planning import RunSettings
from audit.zoo import Built
from tests.house.test_readme import blocks
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


def own_case(tiny: Path) -> str:
    """The README's own case file, with the files of a case of the tiny world in the places of its own."""
    (text,) = blocks("README.md", "toml")
    case, place = load_case(tiny), tiny.parent.joinpath
    own = tomllib.loads(text)
    files = {own["roles"][role]["path"]: getattr(case.roles, role).path for role in ("base", "suspect")}
    files |= {mine["path"]: x.path for mine, x in zip(own["roles"]["references"], case.roles.references, strict=True)}
    files |= {own["data"][cohort]: str(getattr(case.data, cohort)) for cohort in ("forget", "retain", "holdout")}
    for mine, theirs in files.items():
        text = text.replace(f'"{mine}"', f'"{place(theirs)}"')
    return text.replace(f'"{own["data"]["group"]}"', f'"{case.data.group}"')


@pytest.mark.thorough
def test_readme_runs_an_audit_of_its_own_case_from_python(
    zoo: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's own lines, of Python and of TOML, with the tiny world's files and planted probes."""
    (lines,) = blocks("README.md", "python")
    assert "residua.plan(" in lines and "residua.run(" in lines and len(lines.split("\n")) <= 12
    assert len(blocks("README.md", "toml")[0].splitlines()) == 10
    (tmp_path / "case.toml").write_text(own_case(zoo.cases["base"]))
    monkeypatch.chdir(tmp_path)
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as package:
        for module in (auditing, runner):
            monkeypatch.setattr(module, "RunSettings", partial(RunSettings, package=package.name))
        shown: dict[str, object] = {}
        exec(lines, shown)  # noqa: S102
    report = shown["report"]
    assert isinstance(report, audit.Report) and report.verdict.sentence
    assert audit.Report.model_validate_json((tmp_path / "runs" / "mine" / "report.json").read_bytes()) == report
