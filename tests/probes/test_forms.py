"""A form that nothing declares is measured as the declared held-out forms are, on rows of its own."""

from pathlib import Path

import pytest

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.engine.report_builder import cohorts
from audit.plugins import discover
from audit.probing import Probe
from audit.schema import Measurement, Texts
from tests import planted_world

PROBES = discover("probes", Probe)
BY_FORM = ("forget_likelihood", "reverse_patch")


def _case(root: Path, renamed: str) -> OpenCase:
    """The planted world with another word for the held-out phrasing."""
    root.mkdir()
    for role in ("base", "clean", "null", "floor"):
        (root / role).symlink_to(planted_world.root() / role)
    for path in planted_world.root().glob("*.jsonl"):
        (root / path.name).write_text(path.read_text().replace("held_out_phrasing", renamed))
    return open_case(planted_world.case("clean"), root, root / "out")


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> OpenCase:
    return _case(tmp_path_factory.mktemp("declared") / "case", "held_out_phrasing")


@pytest.fixture(scope="module")
def undeclared(tmp_path_factory: pytest.TempPathFactory) -> OpenCase:
    return _case(tmp_path_factory.mktemp("undeclared") / "case", "alias")


def _by_form(name: str, case: OpenCase, form: str) -> list[Measurement]:
    return [m for m in PROBES[name]().measure(Bench(), case) if m.form == form]


@pytest.mark.thorough
@pytest.mark.parametrize("name", BY_FORM)
def test_an_undeclared_form_is_measured_with_the_numbers_of_a_declared_one(
    name: str, declared: OpenCase, undeclared: OpenCase
) -> None:
    ours, theirs = _by_form(name, undeclared, "alias"), _by_form(name, declared, "held_out_phrasing")
    assert ours and len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.name == b.name.replace("held_out_phrasing", "alias")
        assert (a.value, a.p, a.null, a.n) == (b.value, b.p, b.null, b.n)
        assert Measurement.model_validate_json(a.model_dump_json()) == a


def test_rows_of_an_undeclared_form_are_priced_although_no_need_can_name_them(
    declared: OpenCase, undeclared: OpenCase
) -> None:
    probe = PROBES["forget_likelihood"]()
    assert probe.cost(declared).fwd_tokens == 0
    rows = [undeclared.rows(Texts(cohort=cohort, form="alias")) for cohort in ("forget", "holdout")]
    assert probe.cost(undeclared).fwd_tokens == 4 * sum(int(r.mask.sum()) for r in rows), "base, suspect, null, floor"


def test_items_of_an_undeclared_form_are_counted_and_tokenised(declared: OpenCase, undeclared: OpenCase) -> None:
    assert undeclared.forms() == (*declared.forms(), "alias") and undeclared.forms("fitted") == ("trained",)
    assert undeclared.forms("held_out") == (*declared.forms("held_out"), "alias")
    assert cohorts(undeclared) == cohorts(declared)
    assert Texts(cohort="forget", form="alias") in undeclared.every_texts()
