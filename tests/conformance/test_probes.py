"""Every probe of the folder, held to the same promises on models of known truth. Nothing here knows which there are."""

import json
import re
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from audit import checkpoints
from audit.bench import Bench, LogitBias, RowObjective, Write
from audit.bench.passes import Job
from audit.bench.results import Grads, Pass
from audit.case import OpenCase, Rows, open_case
from audit.checkpoints import model_config, resolve, write_edited
from audit.planning import Planner
from audit.plugins import discover
from audit.probing import Probe
from audit.schema import Case, Checkpoint, DataFiles, Interval, Item, Measurement, Missing, Op, Roles, Site, Source
from audit.storage import Store
from tests import colour_world, planted_world, scene_case, toy

PROBES = discover("probes", Probe)
EFFECTS = ("output", "causal", "decoding")


@cache
def untrained(family: str) -> OpenCase:
    """A case of untrained models of one family: every number is noise, and every number must still be a number."""
    root = toy.root() / "random"
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for cohort in ("forget", "retain", "holdout"):
        words = rng.choice(toy.WORDS[:40], (8, 6))
        items = [
            Item(
                id=f"{cohort}{i}", group=f"{cohort}{i // 2}", question=" ".join(w[:3]), answer=" ".join(w[3:5]),
                key=str(w[4]), alternates=(f"{w[3]} {w[5]}",), alternate_keys=(str(w[5]),),
            )
            for i, w in enumerate(words)
        ]  # fmt: skip
        lines = [json.dumps(i.model_dump(mode="json", exclude_none=True)) for i in items]
        (root / f"{cohort}.jsonl").write_text("\n".join(lines) + "\n")
    base, suspect, reference = (Source(path=str(toy.folder(family, seed))) for seed in range(3))
    case = Case(
        name=f"random-{family}", roles=Roles(base=base, suspect=suspect, references=(reference,)),
        data=DataFiles(forget="forget.jsonl", retain="retain.jsonl", holdout="holdout.jsonl"),
    )  # fmt: skip
    return open_case(case, root, Path(tempfile.mkdtemp(dir=root)))


@cache
def hooked(family: str) -> OpenCase:
    """The same with a suspect behind a filter."""
    case = untrained(family)
    bias = torch.linspace(-1, 1, model_config(case.suspect).vocabulary or 0)
    out = Path(tempfile.mkdtemp(dir=case.root)) / "filtered"
    filtered = write_edited(out, case.suspect, "filter", {}, "logit_bias", LogitBias(bias).to_delta())
    roles = case.case.roles.model_copy(update={"suspect": Source(path=str(out), fingerprint=filtered.key)})
    return open_case(case.case.model_copy(update={"roles": roles}), case.root, case.out)


def makes_models(probe: Probe) -> bool:
    """Whether a probe says that it trains, that it takes steps of a search, or that it holds a second model and writes
    nothing of it into the first."""
    if "text" not in probe.requires.modalities:
        return Op.TRAIN in probe.requires.ops or Op.GRADIENT in probe.requires.ops
    cost = probe.cost(untrained(toy.FAMILIES[0]))
    second = cost.resident > 1 and Op.WRITE not in probe.requires.ops
    return second or cost.steps > 0 or Op.TRAIN in probe.requires.ops


each_probe = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if makes_models(probe()) else n for n, probe in PROBES.items()]
)
"""What makes models of its own, or searches, does so in every call, and has tests of its own in the default suite."""


class CountingBench(Bench):
    """A bench that adds up the real tokens of every pass that it has to compute, and of those with gradients."""

    tokens = 0
    backward = 0

    def _compute(self, ckpt: Checkpoint, job: Job) -> Pass:
        self.tokens += int(job.rows.mask.sum())
        return super()._compute(ckpt, job)

    def gradients(
        self, ckpt: Checkpoint, rows: Rows, at: Sequence[Site] | Literal["inputs", "pixels", "params"],
        objective: RowObjective, writes: Sequence[Write] = (),
    ) -> Grads:  # fmt: skip
        self.backward += int(rows.mask.sum())
        return super().gradients(ckpt, rows, at, objective, writes)


@cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(dir=planted_world.root()))


@cache
def bench() -> Bench:
    """Keeps what it read."""
    return Bench(store=Store(folder() / "store"))


@cache
def forgetful() -> Bench:
    """Computes everything anew; its models stay open."""
    return Bench()


def opened(name: str, suspect: str, **settings: Any) -> OpenCase:
    """The audit of a model by this probe: on people that words tell of, or on pictures where the probe reads nothing
    else; behind a filter, where it is asked of filters alone."""
    suspect = planted_world.filtered(suspect) if PROBES[name]().requires.hooked else suspect
    texts = "text" in PROBES[name].requires.modalities
    case, root = (planted_world.case, planted_world.root) if texts else (colour_world.case, colour_world.root)
    return open_case(case(suspect, **settings), root(), Path(tempfile.mkdtemp(dir=folder())))


@cache
def measured(name: str, suspect: str) -> tuple[Measurement, ...]:
    return PROBES[name]().measure(bench(), opened(name, suspect))


def verdict_parts(found: tuple[Measurement, ...]) -> list[Measurement]:
    """The measurements that may carry a verdict; the first of a probe that no case alone judges."""
    if all(m.kind in ("context", "recovery") for m in found):
        return [m for m in found if not isinstance(m.p, Missing)][:1] or list(found[:1])
    return [m for m in found if m.kind in EFFECTS and m.mode == "controlled" and m.form == "trained"]


def refused(measurement: Measurement) -> bool:
    """Does it say that it cannot judge this suspect, whose states its own instrument does not describe?"""
    return isinstance(measurement.value, Missing) and "not valid on the suspect" in measurement.value.missing


def describes(name: str) -> bool:
    """Does it ask no model anything, or say where to look alone? Then it tests nothing, and no number of its may look
    as if it did."""
    return not PROBES[name]().requires.ops or PROBES[name].screening


def check_describes(found: tuple[Measurement, ...]) -> None:
    assert found and all(m.kind == "context" and isinstance(m.value, float) for m in found)
    assert all(isinstance(number, Missing) for m in found for number in (m.p, m.p_below, m.positive_control, m.items))


def gates(found: tuple[Measurement, ...]) -> list[Measurement]:
    return [m for m in found if m.kind == "gate"]


@each_probe
def test_probe_says_what_it_asks_and_what_it_cannot_see(name: str) -> None:
    text = PROBES[name].__doc__ or ""
    assert text.split("\n")[0].endswith("?")
    for part in ("Null:", "Positive control:", "Blind to:", "Cite:"):
        assert part in text


@pytest.mark.sampled
@each_probe
def test_probe_tells_planted_from_clean(name: str) -> None:
    """Base in the suspect's place holds everything, a model that never knew nothing; a gate stops a destroyed one."""
    if describes(name):
        base, clean = (measured(name, suspect) for suspect in ("base", "clean"))
        check_describes(base)
        assert [m.notes for m in base] != [m.notes for m in clean], "it tells them apart in words"
        return
    found = {suspect: measured(name, suspect) for suspect in ("base", "clean", "destroyed")}
    for base, clean in zip(verdict_parts(found["base"]), verdict_parts(found["clean"]), strict=True):
        assert isinstance(base.value, float) and base.value > 0.9
        assert refused(clean) or (isinstance(clean.value, float) and clean.value < 0.3)
        assert isinstance(base.p, float) and base.p < 0.01
        assert not isinstance(base.positive_control, type(base.items)) and base.positive_control.found
    for base, broken in zip(gates(found["base"]), gates(found["destroyed"]), strict=True):
        assert isinstance(base.value, float) and base.value > 0.9
        assert isinstance(broken.value, float) and broken.value < 0.5
    assert verdict_parts(found["base"]) or gates(found["base"]), "a probe measures something"


@each_probe
def test_clean_model_lies_within_the_null(name: str) -> None:
    measurements = measured(name, "clean")
    if describes(name):
        check_describes(measurements)
        return
    assert verdict_parts(measurements) or gates(measurements)
    for m in verdict_parts(measurements):
        if refused(m):
            continue
        assert isinstance(m.p, float) and m.p >= 0.01
        # a probe that never calls a suspect suppressed below a model that never knew says why
        assert isinstance(m.p_below, Missing) or m.p_below >= 0.01
        assert isinstance(m.ci95, Interval) and m.ci95.lo <= 0.05 and m.ci95.hi >= -0.05
    for m in gates(measurements):
        assert isinstance(m.value, float) and m.value > 0.9


@pytest.mark.sampled
@each_probe
def test_same_seed_gives_the_same_number_without_any_cache(name: str) -> None:
    again = PROBES[name]().measure(forgetful(), opened(name, "clean"))
    assert [m.canonical() for m in again] == [m.canonical() for m in measured(name, "clean")]


@pytest.mark.thorough
@each_probe
def test_batch_size_does_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetful(), "token_budget", 60)
    small = PROBES[name]().measure(forgetful(), opened(name, "clean"))
    pairs: list[tuple[float, float]] = []
    for one, other in zip(small, measured(name, "clean"), strict=True):
        numbers = [(m.value, m.floor, *m.readings.values()) for m in (one, other)]
        pairs += [(a, b) for a, b in zip(*numbers, strict=True) if isinstance(a, float) and isinstance(b, float)]
    assert pairs
    for a, b in pairs:
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


@pytest.mark.sampled
@each_probe
def test_measurement_survives_json_and_its_table_is_there(name: str) -> None:
    case = opened(name, "clean")
    measurements = PROBES[name]().measure(bench(), case)
    assert describes(name) or any(not hasattr(m.items, "missing") for m in measurements)
    for m in measurements:
        assert Measurement.model_validate_json(m.model_dump_json()) == m
        if not hasattr(m.items, "missing"):
            assert (case.out / m.items.path).is_file()
            assert {"item", "group", "role", "prompt", "target", "output", "score"} <= set(m.items.columns)


@pytest.mark.sampled
@each_probe
def test_weights_are_as_found(name: str) -> None:
    case, own = opened(name, "clean"), forgetful()
    models = [case.base, case.suspect, *case.references]
    before = [{k: v.clone() for k, v in own.open(m).parameters().items()} for m in models]
    PROBES[name]().measure(own, case)
    for model, tensors in zip(models, before, strict=True):
        now = own.open(model).parameters()
        assert all(torch.equal(now[k], tensors[k]) for k in tensors)
        checkpoints.verify(model)


@pytest.mark.sampled
@each_probe
def test_declared_needs_and_cost_cover_what_is_computed(name: str) -> None:
    case, probe = opened(name, "clean"), PROBES[name]()
    own = CountingBench(store=Store(Path(tempfile.mkdtemp(dir=folder()))))
    for need in probe.needs(case.case):
        for texts in case.numbered(need.texts) if need.every else (need.texts,):
            if case.has(texts):
                own.run(case.checkpoint(need.role, need.reference), case.rows(texts), need.reads)
    fetched, own.tokens = own.tokens, 0
    probe.measure(own, case)
    cost = probe.cost(case)
    assert own.tokens + own.backward <= cost.fwd_tokens and own.backward <= cost.bwd_tokens
    assert describes(name) or fetched + own.tokens + own.backward, "what it measures, it reads, as a need or at a cost"


@pytest.mark.sampled
@each_probe
@pytest.mark.parametrize("references", [(), ("ancestor",), ("null",)])
@pytest.mark.parametrize("holdout", [False, True])
def test_fewer_roles_give_fewer_numbers_and_never_a_crash(
    name: str, references: tuple[str, ...], holdout: bool
) -> None:
    for suspect in ("base", "clean"):
        case = opened(name, suspect, references=references, holdout=holdout)
        measurements = PROBES[name]().measure(bench(), case)
        assert measurements, "what cannot be measured is a missing number, with its reason"
        for m in measurements:
            assert Measurement.model_validate_json(m.model_dump_json()) == m
            if m.kind in EFFECTS and not references:
                assert not isinstance(m.floor, float)
            if m.kind in EFFECTS and suspect == "base" and isinstance(m.value, float):
                assert m.value == pytest.approx(1.0, abs=1e-6)


@pytest.mark.sampled
@each_probe
@pytest.mark.parametrize(
    "family", [toy.FAMILIES[0], *(pytest.param(f, marks=pytest.mark.slow) for f in toy.FAMILIES[1:])]
)
def test_probe_runs_on_every_family_and_finds_nothing_in_untrained_models(name: str, family: str) -> None:
    probe = PROBES[name]()
    if probe.requires.families and family not in probe.requires.families or "text" not in probe.requires.modalities:
        pytest.skip(f"{name} does not claim {family}")
    measurements = probe.measure(bench(), hooked(family) if probe.requires.hooked else untrained(family))
    assert measurements
    for m in measurements:
        assert Measurement.model_validate_json(m.model_dump_json()) == m
        if m.kind in EFFECTS and not hasattr(m.positive_control, "missing"):
            assert not m.positive_control.found, "nothing was taught, so nothing can be found in base"


def test_a_probe_is_refused_where_the_family_is_not_one_that_it_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    case = untrained(toy.FAMILIES[0])
    for probe in PROBES.values():
        monkeypatch.setattr(probe, "requires", probe.requires.model_copy(update={"families": ("llava",)}))
    tests = Planner(case, frozenset(Op)).plan.tests
    assert {test.probe for test in tests} == set(PROBES)
    for test in tests:
        assert not test.will_run and test.reason == f"works on llava, not on {case.base.family}"


@each_probe
def test_what_names_a_group_or_an_item_stands_where_it_is_masked(name: str) -> None:
    """Group ids may be people's names: neither notes nor the cells of columns that are not quoted hold one."""
    case = opened(name, "clean")
    ids = {text for items in case.cohorts.values() for item in items for text in (item.id, item.group)}
    for m in measured(name, "clean"):
        cells = [
            cell for listing in m.listings for row in listing.rows
            for column, cell in zip(listing.columns, row, strict=True) if column not in listing.quoted
        ]  # fmt: skip
        assert not ids.intersection(cells)
        assert not any(ids.intersection(re.findall(r"[\w-]+", note)) for note in m.notes)


# ---- questions about pictures -----------------------------------------------------------------------------------
OF_SCENES = [
    pytest.param(name, marks=pytest.mark.slow) if makes_models(probe()) else name
    for name, probe in PROBES.items() if "image+text" in probe.requires.modalities
]  # fmt: skip
each_of_scenes = pytest.mark.parametrize("name", OF_SCENES)


@cache
def scene(name: str) -> OpenCase:
    """Untrained models and questions about made-up pictures; behind a filter where filters alone are asked."""
    plain = scene_case.opened("llava_clip")
    if not PROBES[name]().requires.hooked:
        return plain
    vocabulary = bench().open(plain.suspect).vocab_size
    out = Path(tempfile.mkdtemp(dir=plain.root)) / "filtered"
    delta = LogitBias(torch.linspace(-1, 1, vocabulary)).to_delta()
    filtered = write_edited(out, plain.suspect, "filter", {}, "logit_bias", delta)
    return scene_case.opened("llava_clip", Source(path=str(out), fingerprint=filtered.key))


@pytest.mark.sampled
@each_of_scenes
def test_probe_of_scenes_runs_finds_nothing_in_untrained_models_and_names_nobody(name: str) -> None:
    case = scene(name)
    measurements = PROBES[name]().measure(bench(), case)
    ids = {text for items in case.cohorts.values() for item in items for text in (item.id, item.group)}
    assert measurements
    for m in measurements:
        assert Measurement.model_validate_json(m.model_dump_json()) == m
        if m.kind in EFFECTS and not hasattr(m.positive_control, "missing"):
            assert not m.positive_control.found, "nothing was taught, so nothing can be found in base"
        assert not any(ids.intersection(re.findall(r"[\w-]+", note)) for note in m.notes)


@pytest.mark.sampled
@each_of_scenes
def test_probe_of_scenes_costs_what_it_says_and_leaves_the_weights(name: str) -> None:
    case, probe = scene(name), PROBES[name]()
    own = CountingBench(store=Store(Path(tempfile.mkdtemp(dir=folder()))))
    models = [case.base, case.suspect, *case.references]
    for need in probe.needs(case.case):
        for texts in case.numbered(need.texts) if need.every else (need.texts,):
            if case.has(texts):
                own.run(case.checkpoint(need.role, need.reference), case.rows(texts), need.reads)
    before = [{k: v.clone() for k, v in own.open(m).parameters().items()} for m in models]
    own.tokens = 0
    probe.measure(own, case)
    assert own.tokens <= probe.cost(case).fwd_tokens
    for model, tensors in zip(models, before, strict=True):
        now = own.open(model).parameters()
        assert all(torch.equal(now[k], tensors[k]) for k in tensors)


@cache
def seen_by(name: str, suspect: str) -> tuple[Measurement, ...]:
    """What a probe measures of a small model that names the colours of squares."""
    if PROBES[name]().requires.hooked:
        parent = resolve(Source(path=suspect), colour_world.root())
        bias = torch.zeros(bench().open(parent).vocab_size)
        bias[colour_world.tokenizer().convert_tokens_to_ids(list(colour_world.COLOURS))] = -6.0
        out = colour_world.root() / f"{suspect}-biased"
        write_edited(out, parent, "filter", {}, "logit_bias", LogitBias(bias).to_delta())
        suspect = out.name
    case = open_case(colour_world.case(suspect), colour_world.root(), Path(tempfile.mkdtemp(dir=folder())))
    assert case.modality == "image+text"
    return PROBES[name]().measure(bench(), case)


@pytest.mark.thorough
@each_of_scenes
def test_probe_of_scenes_tells_planted_from_clean(name: str) -> None:
    """As of texts: base in the suspect's place holds everything, a model that never knew nothing."""
    if describes(name):
        check_describes(seen_by(name, "base"))
        return
    found = {suspect: seen_by(name, suspect) for suspect in ("base", "clean", "destroyed")}
    for base, clean in zip(verdict_parts(found["base"]), verdict_parts(found["clean"]), strict=True):
        if isinstance(base.value, Missing):  # pictures of one concept teach one another, and it says so
            assert "teaches the others" in base.value.missing
            continue
        # a class that a model never saw can be read of its states to some extent: context, and no finding
        assert isinstance(base.value, float) and base.value > 0.9
        assert isinstance(clean.value, float) and clean.value < (0.5 if clean.kind == "context" else 0.3)
        assert base.kind == "context" or (isinstance(base.p, float) and base.p < 0.01)
    for base, broken in zip(gates(found["base"]), gates(found["destroyed"]), strict=True):
        assert isinstance(base.value, float) and base.value > 0.9
        assert isinstance(broken.value, float) and broken.value < 0.5
