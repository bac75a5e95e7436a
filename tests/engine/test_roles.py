"""The audit of roles in a run: who fails is named, takes no part, and the verdict is that of the roles that remain."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.case import CaseFile
from audit.engine import run
from audit.planning import RunSettings
from audit.review import verify_run
from audit.schema import Domain, Report
from tests import planted_world
from tests.planted import planted_package
from tests.probing.test_role_audit import noisy


@pytest.fixture
def how(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunSettings]:
    with planted_package(tmp_path, f"roles_{abs(hash(request.node.name)) % 10**8}") as package:
        yield RunSettings(package=package.name, store=tmp_path / "store")


def audited(references: tuple[str, ...], out: Path, how: RunSettings) -> Report:
    case = CaseFile(planted_world.case("destroyed", references=references), planted_world.root())
    return run(case, out, how)


def test_a_refused_reference_is_named_first_and_takes_no_part(how: RunSettings, tmp_path: Path) -> None:
    report = audited((noisy("destroyed"), "null", "ancestor"), tmp_path / "run", how)
    assert report.limits[0].startswith("Reference 0 was refused and took no part: its weights are those of suspect")
    assert isinstance(report.domain, Domain) and report.domain.references == 1
    assert [x.role for x in report.roles_audited if not x.takes_part] == ["reference 0"]
    assert [x.role for x in report.exhibits] == ["base", "suspect", "reference 0", "reference 1", "ancestor"]
    assert "2 references declared, 1 refused" in (tmp_path / "run" / "report.html").read_text()
    assert verify_run(tmp_path / "run").accepted


@pytest.mark.thorough
def test_without_any_reference_left_the_ancestor_or_holdout_people_stand_in(how: RunSettings, tmp_path: Path) -> None:
    copies = (noisy("destroyed"), noisy("base"))
    with_ancestor = audited((*copies, "ancestor"), tmp_path / "ancestor", how)
    assert isinstance(with_ancestor.domain, Domain) and with_ancestor.domain.null == "ancestor"
    alone = audited((noisy("destroyed"),), tmp_path / "alone", how)
    assert isinstance(alone.domain, Domain) and alone.domain.null == "holdout"


@pytest.mark.thorough
def test_references_that_disagree_leave_the_verdict_open(how: RunSettings, tmp_path: Path) -> None:
    case = planted_world.case("clean", references=(_knowing_reference(), "null"), holdout=False)
    report = run(CaseFile(case, planted_world.root()), tmp_path / "run", how)
    found = {x.role: x for x in report.roles_audited}
    assert not found["reference 0"].settled and not found["reference 1"].settled
    assert found["reference 0"].takes_part and found["reference 1"].takes_part
    assert (report.verdict.word, report.verdict.strength) == ("INCONCLUSIVE", "none")
    assert "disagree" in report.verdict.because[0]
    assert verify_run(tmp_path / "run").accepted


def test_a_reference_that_knows_is_refused_by_the_ancestor(how: RunSettings, tmp_path: Path) -> None:
    report = audited((_knowing_reference(), "null", "ancestor"), tmp_path / "run", how)
    assert [x.role for x in report.roles_audited if not x.takes_part] == ["reference 0"]
    only = audited((_knowing_reference("forget"), "null", "ancestor"), tmp_path / "only", how)
    refused = {x.role: x.because for x in only.roles_audited if not x.takes_part}
    assert set(refused) == {"reference 0"} and "it knows of the forget set" in refused["reference 0"][0]


@pytest.mark.thorough
def test_a_resumed_run_reuses_the_audit_of_roles(
    how: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    first = audited(("null", "floor"), out, how)
    (out / "manifest.sha256").unlink()
    units = [path for path in (out / "units").iterdir() if json.loads(path.read_text())["probe"] == "roles"]
    assert len(units) == 1

    def again(*_: object) -> None:
        raise AssertionError("the roles are audited a second time")

    monkeypatch.setattr("audit.engine.roles.audit_roles", again)
    assert audited(("null", "floor"), out, how).roles_audited == first.roles_audited


def _knowing_reference(*cohorts: str) -> str:
    """A model that was trained from the ancestor on the forget people too, as base was, with another order."""
    cohorts = cohorts or ("retain", "forget")
    name = f"knows_{'_'.join(cohorts)}"
    folder = planted_world.root() / name
    if not folder.exists():
        from transformers import LlamaForCausalLM

        ancestor = LlamaForCausalLM.from_pretrained(planted_world.root() / "ancestor")
        model = planted_world.fork(ancestor, cohorts, 9)
        model.save_pretrained(folder)
        planted_world.tokenizer().save_pretrained(folder)
    return name
