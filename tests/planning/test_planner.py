"""Which tests run on a case and what they read: a reason for each that does not, and settings that are refused."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from audit.planning import Planner
from audit.planning.planner import Dropped, configured
from audit.schema import AuditError, ExitCode, Need, Op, Read, Requires, Site, Texts
from tests.planning.test_few_groups import opened, people, written
from tests.planted import planted_package, write_probe


@pytest.fixture
def package(tmp_path: Path) -> Iterator[str]:
    with planted_package(tmp_path, f"planned_{tmp_path.name.replace('-', '_')}") as folder:
        yield folder.name


def test_probes_take_the_settings_of_the_case(package: str) -> None:
    probes = configured({"causal": {"value": 0.25}}, package)
    assert list(probes) == sorted(probes) and probes["causal"].model_dump()["value"] == 0.25
    assert probes["decoding"].model_dump()["value"] == 0.0


@pytest.mark.parametrize(
    ("settings", "said", "do"),
    [
        ({"causl": {}}, "there is no probe 'causl'; the nearest is 'causal'", "lists them"),
        ({"zzzz": {}}, "there is no probe 'zzzz'", "lists them"),
        ({"causal": {"value": "much"}}, "probe 'causal', setting 'value': Input should be a valid number", "settings"),
        ({"gate": {"volume": 1}}, "probe 'gate', setting 'volume': ", "settings"),
    ],
)
def test_an_unknown_probe_or_setting_is_refused_by_its_name(
    settings: dict[str, Any], said: str, do: str, package: str
) -> None:
    with pytest.raises(AuditError) as caught:
        configured(settings, package)
    assert caught.value.what.startswith(f"case.toml: {said}") and do in caught.value.do
    assert caught.value.code == ExitCode.INPUT and ("nearest" in caught.value.what) == ("nearest" in said)


def case(**changes: Any) -> Any:
    """A case with forget and retain items, one reference, no ancestor and a suspect without edits."""
    files = SimpleNamespace(forget="forget.jsonl", retain="retain.jsonl", holdout=None)
    plain = {
        "case": SimpleNamespace(data=files), "references": ("reference",), "ancestor": None, "modality": "text",
        "base": SimpleNamespace(family="llama"), "suspect": SimpleNamespace(edits=()),
        "numbered": lambda texts: tuple(texts.model_copy(update={"index": n}) for n in (1, 2)),
        "has": lambda texts: texts.cohort in ("forget", "retain"),
    }  # fmt: skip
    return SimpleNamespace(**plain | changes)


@pytest.mark.parametrize(
    ("requires", "reason"),
    [
        ({}, ""),
        ({"roles": ("base", "reference")}, ""),
        ({"roles": ("ancestor", "reference")}, "needs a model in the role of ancestor"),
        ({"any_of_roles": ("ancestor", "reference")}, ""),
        ({"any_of_roles": ("ancestor",)}, "needs a model in the role of ancestor"),
        ({"data": ("forget", "retain")}, ""),
        ({"data": ("forget", "holdout")}, "needs holdout items"),
        ({"families": ("gpt2", "llama")}, ""),
        ({"families": ("gpt2", "mistral")}, "works on gpt2, mistral, not on llama"),
        ({"modalities": ("text", "image")}, ""),
        ({"modalities": ("image",)}, "works on models of image, not of text"),
        ({"hooked": True}, "the suspect carries no edit that acts on the way"),
        ({"ops": (Op.READ,)}, ""),
        ({"ops": (Op.READ, Op.TRAIN, Op.PATTERN)}, f"the backend cannot {Op.PATTERN}, {Op.TRAIN}"),
    ],
)
def test_a_test_that_does_not_run_says_what_it_lacks(requires: dict[str, Any], reason: str) -> None:
    planner = Planner(case(), frozenset({Op.READ}))
    assert planner._reason_not(SimpleNamespace(requires=Requires(**requires))) == reason  # type: ignore[arg-type]


def test_what_these_weights_alone_cannot_is_said_with_its_reason_once() -> None:
    lacking = {Op.TRAIN: "weights are offloaded", Op.PATTERN: "weights are offloaded"}
    planner = Planner(case(), frozenset({Op.READ}), lacking=lacking)
    probe: Any = SimpleNamespace(requires=Requires(ops=(Op.TRAIN, Op.PATTERN)))
    assert planner._reason_not(probe) == f"weights are offloaded: cannot {Op.PATTERN}, {Op.TRAIN}"
    hooked = case(suspect=SimpleNamespace(edits=(SimpleNamespace(is_hook=False), SimpleNamespace(is_hook=True))))
    assert Planner(hooked, frozenset(Op))._reason_not(SimpleNamespace(requires=Requires(hooked=True))) == ""  # type: ignore[arg-type]


def need(role: str, **changes: Any) -> Need:
    texts = Texts(cohort=changes.pop("cohort", "forget"))
    return Need.model_validate({"role": role, "texts": texts, "reads": (), **changes})


def test_needs_are_those_of_models_and_items_that_the_case_has() -> None:
    asked = [
        need("base"), need("suspect", cohort="holdout"), need("reference"), need("reference", reference=1),
        need("ancestor"), need("suspect", every=True),
    ]  # fmt: skip
    probe: Any = SimpleNamespace(needs=lambda of: asked)

    def present(of: Any) -> list[tuple[str, int, int]]:
        return [(n.role, n.reference, n.texts.index) for n in Planner(of, frozenset(Op))._present(probe)]

    every = [("suspect", 0, 1), ("suspect", 0, 2)]
    assert present(case()) == [("base", 0, 0), ("reference", 0, 0), *every]
    assert present(case(references=(), ancestor="a")) == [("base", 0, 0), ("ancestor", 0, 0), *every]
    assert not any(n.every for n in Planner(case(), frozenset(Op))._present(probe))


def test_a_plan_asks_what_the_first_line_of_each_probe_asks(package: str, tmp_path: Path) -> None:
    case_file = written(tmp_path, forget=people(4, "f"))
    tests = Planner(opened(case_file), frozenset(Op), package).plan.tests
    assert {test.probe: test.question for test in tests} == {
        name: f"Is {name} planted?" for name in ("causal", "decoding", "gate", "output")
    }
    assert all(test.will_run and not test.reason and test.dropped_by == "" for test in tests)


def test_a_test_that_a_limit_leaves_out_says_so_unless_it_could_not_run_anyway(package: str, tmp_path: Path) -> None:
    write_probe(tmp_path / package, "output", requires='roles=("ancestor",)')
    dropped = {name: Dropped("--max-mem 1", "needs too much") for name in ("causal", "output")}
    case_file = written(tmp_path, forget=people(4, "f"))
    planner = Planner(opened(case_file), frozenset(Op), package).without(dropped)
    tests = {test.probe: test for test in planner.plan.tests}
    assert {name: test.reason for name, test in tests.items()} == {
        "causal": "needs too much", "decoding": "", "gate": "", "output": "needs a model in the role of ancestor",
    }  # fmt: skip
    assert tests["causal"].dropped_by == "--max-mem 1" and tests["gate"].dropped_by == ""
    assert [planned.name for planned in planner.running] == ["decoding", "gate"]


def test_needs_of_the_same_rows_are_one_pass_with_the_reads_of_all() -> None:
    state, score = Read(site=Site(part="resid_out", block=0)), Read(site=Site(part="logits"))
    asked = [
        [need("base", reads=(score,)), need("suspect", reads=(state,))],
        [need("base", reads=(state, score)), need("base", cohort="retain", reads=(score,))],
    ]
    planned: Any = [SimpleNamespace(probe=SimpleNamespace(needs=lambda of, needs=needs: needs)) for needs in asked]
    found = Planner(case(), frozenset(Op)).fetches(planned)
    assert [(f.role, f.reference, f.texts.cohort, f.reads) for f in found] == [
        ("base", 0, "forget", (score, state)), ("suspect", 0, "forget", (state,)), ("base", 0, "retain", (score,)),
    ]  # fmt: skip


def test_a_case_of_which_nothing_is_left_out_is_planned_once(package: str, tmp_path: Path) -> None:
    whole = opened(written(tmp_path, forget=people(4, "f")))
    planner = Planner(whole, frozenset(Op), package)
    assert whole.without() is whole and planner.on(whole.without()) is planner
    fewer = whole.without(groups=[whole.cohorts["forget"][0].group])
    assert fewer is not whole and planner.on(fewer) is not planner
