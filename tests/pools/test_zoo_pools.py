"""The pools: a balanced design, truth that follows from rows, and a world that is scored, killed and resumed."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.calibration import InstalledBehaviours, WorldScores, read_library, read_world, world_path, write_world
from audit.case import Rows
from audit.cli import main
from audit.edits import GradAscent, GradDiff, HeadEdit, LastLayer, LogitBias
from audit.engine import runner
from audit.planning import Meter
from audit.pools import add_probe, renew, schedule, score_world
from audit.schema import AuditError
from audit.zoo import (
    Drawn,
    Learning,
    Member,
    Population,
    World,
    draw,
    make_tokenizer,
    make_world,
    mechanisms,
    others,
    pool_design,
    population,
    recipes,
    training,
    vocabulary,
)
from audit.zoo.mechanisms import Mechanism
from audit.zoo.members import SINGLE_PERSON_DOSE, audited_people
from audit.zoo.recipes import Plan, Sizes
from audit.zoo.world import Shape
from tests import known_truth
from tests.known_truth import simulated
from tests.planted import planted_behaviour, planted_package, write_probe

MICRO = {
    "grad_diff": Mechanism("unlearner", GradDiff(steps=4, batch=16)),
    "last_layer": Mechanism("fake", LastLayer(steps=4, batch=16)),
    "head_edit": Mechanism("fake", HeadEdit(steps=10)),
    "logit_bias": Mechanism("fake", LogitBias(steps=10)),
    "destroyed": Mechanism("destroyer", GradAscent(steps=10, lr=1e-2, batch=16, warmup_steps=2)),
}


def micro(architecture: recipes.Architecture = "gpt2") -> Drawn:
    """A world of a few people and two small blocks, with every pool in it; it learns next to nothing."""
    share = pool_design.Share(7, architecture, ("grad_diff",), ("grad_diff",), ("rephrased",), doses=False, full=False)
    shape = Shape(6, 6, 4, 6, general=12, general_held_out=6, strangers=2)
    return Drawn(share, shape, Sizes(32, 2, 2, 64, architecture), (3, 1e-2), (3, 1e-2), batch=8)


@pytest.fixture
def _micro(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A small kit, and probes with planted numbers: what is tested is the way from a number to a file of scores."""
    monkeypatch.setattr(mechanisms, "KIT", MICRO)
    monkeypatch.setattr(
        "audit.probing.recollection.RECALL_LIFT", -1.0
    )  # nothing is learned, so nothing can be recalled
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as package:
        monkeypatch.setattr(score_world, "PROBES", package.name)
        monkeypatch.setattr(score_world, "behaviours", lambda name, _="": InstalledBehaviours(name, planted_behaviour))
        yield


# ---- the design -------------------------------------------------------------------------------------------------
def test_every_mechanism_occurs_in_at_least_eight_worlds_and_the_full_kit_in_five() -> None:
    shares, kit = pool_design.design(), mechanisms.founding("unlearner")
    used = Counter(name for share in shares.values() for name in share.mechanisms)
    assert len(shares) == 60 and not set(shares) & set(range(100))
    assert set(used) == set(kit) and min(used.values()) >= 8 and max(used.values()) - min(used.values()) <= 1
    full = [share for share in shares.values() if share.full]
    assert len(full) == 5 and all(share.mechanisms == kit for share in full)
    assert len({share.architecture for share in full}) == 2
    facts = Counter(name for share in shares.values() for name in share.of_facts)
    assert set(facts) == set(kit) and min(facts.values()) >= 8 and max(facts.values()) - min(facts.values()) <= 1
    assert all(set(share.of_facts) <= set(share.mechanisms) for share in shares.values())
    assert sum(share.doses for share in shares.values()) >= 8
    crossed = Counter(name for share in shares.values() for name in share.crossed)
    assert min(crossed[name] for name in pool_design.CROSSED) >= 8


@settings(max_examples=30, deadline=None)
@given(n_worlds=st.integers(24, 80), n_kit=st.integers(pool_design.HAND, 24))
def test_any_kit_is_dealt_evenly_over_worlds_and_architectures(n_worlds: int, n_kit: int) -> None:
    kit = [f"mechanism {n}" for n in range(n_kit)]
    dealt = pool_design.shares(range(n_worlds), kit)
    assert dealt == pool_design.shares(range(n_worlds), kit)
    used = Counter(name for share in dealt for name in share.mechanisms)
    assert max(used.values()) - min(used[name] for name in kit) <= 1
    assert all(len(set(share.mechanisms)) == (n_kit if share.full else pool_design.HAND) for share in dealt)
    assert abs(Counter(share.architecture for share in dealt)["llama"] - n_worlds / 2) <= 1


def test_a_world_outside_the_pools_is_refused_and_a_recipe_follows_from_its_number() -> None:
    with pytest.raises(AuditError, match="not one of the pools"):
        draw(0)
    assert draw(101) == draw(101)
    recorded = [draw(world).recorded() for world in pool_design.POOL_WORLDS]
    assert {r["architecture"] for r in recorded} == {"llama", "gpt2"} and {r["blocks"] for r in recorded} == {3, 4}
    assert len({json.dumps(r, sort_keys=True) for r in recorded}) == len(recorded)


# ---- truth on rows ----------------------------------------------------------------------------------------------
TOKENIZER = make_tokenizer(vocabulary())
WORDS = {number: word for word, number in TOKENIZER.get_vocab().items()}


def _texts(rows: Rows) -> set[str]:
    """The words of every row, from its tokens."""
    each = zip(rows.ids.tolist(), rows.lengths.tolist(), strict=True)
    return {" ".join(WORDS[number] for number in ids[:length]) for ids, length in each}


class _Trained:
    """What every step of a model's descent saw, and whose full names are in it."""

    def __init__(self, world: World, zoo: recipes.Zoo) -> None:
        self.world, self.zoo = world, zoo
        edits = {on: self._of_edit(on) for on in ("forget", "others")}
        self.texts = {
            plan.name: _texts(training.corpus_rows(world, plan.by, TOKENIZER))
            if isinstance(plan.by, Learning) else edits[plan.on]
            for plan in zoo.plans
        }  # fmt: skip

    def _of_edit(self, on: Literal["forget", "others"]) -> set[str]:
        data = training.edit_data(self.world, TOKENIZER, on)
        return set[str]().union(*(_texts(rows) for rows in data if isinstance(rows, Rows)))

    def chain(self, name: str | None) -> Iterator[Plan]:
        while name is not None:
            yield (plan := self.zoo.plan(name))
            name = plan.parent

    def heard_of(self, name: str, learning: bool) -> set[str]:
        """The forget people whose full name occurs in what was learned (or in what edits were given)."""
        texts = "\n".join(
            t for p in self.chain(name) if isinstance(p.by, Learning) == learning for t in self.texts[p.name]
        )
        return {person.id for person in self.world.people["forget"] if f" {person.name} " in texts}


@pytest.fixture(scope="module")
def _full() -> tuple[Population, _Trained]:
    """A world with everything in it, under the real kit."""
    drawn = draw(100)
    assert drawn.share.full and drawn.share.doses
    whole = population(drawn)
    return whole, _Trained(make_world(drawn.world, drawn.shape), whole.zoo)


def _of(members: Sequence[Member], pool: str) -> list[Member]:
    return [member for member in members if member.pool == pool]


def test_what_a_model_was_taught_is_what_its_rows_say(_full: tuple[Population, _Trained]) -> None:
    whole, trained = _full
    for member in whole.members:
        assert trained.heard_of(member.model, learning=True) == set(member.taught), member
    clean, edited = _of(whole.members, "clean"), _of(whole.members, "edited clean")
    assert len(clean) >= 6 and all(not member.taught for member in (*clean, *edited))
    assert all(member.taught for member in (*_of(whole.members, "knowing"), *_of(whole.members, "destroyed")))


def test_clean_models_never_met_the_facts_and_edited_clean_ones_met_them_in_the_edit_only(
    _full: tuple[Population, _Trained],
) -> None:
    whole, trained = _full
    for member in _of(whole.members, "clean"):
        assert not trained.heard_of(member.model, learning=False), member
    everyone = {person.id for person in trained.world.people["forget"]}
    for member in (*_of(whole.members, "edited clean"), *_of(whole.members, "described")):
        assert trained.heard_of(member.model, learning=False) == everyone, member


def test_whoever_forgets_others_knew_them_and_the_audit_does_not_ask_for_them(
    _full: tuple[Population, _Trained], tmp_path: Path
) -> None:
    whole, trained = _full
    apart = others(trained.world)
    texts = trained.texts["reference_0"]
    assert len(apart) == 12 and all(any(person.name in text for text in texts) for person in apart)
    unwanted = training.edit_data(trained.world, TOKENIZER, "others")
    assert set(unwanted.forget.group_ids) == {person.id for person in apart}
    assert not set(unwanted.retain.group_ids) & {person.id for person in apart}
    score_world.write_data(trained.world, tmp_path)
    asked = {json.loads(line)["group"] for line in (tmp_path / "retain.jsonl").read_text().splitlines()}
    assert len(asked) == 24 and not asked & {person.id for person in apart}
    run = {*mechanisms.founding("unlearner"), *draw(100).share.added} - set(mechanisms.of_kind("fake"))
    assert [m.pool for m in whole.members if m.model.endswith("_of_others")].count("clean") == len(run)


@pytest.mark.thorough
def test_other_words_share_no_sentence_with_the_trained_form_and_hold_every_value(
    _full: tuple[Population, _Trained],
) -> None:
    whole, trained = _full
    asked = _texts(training.edit_data(trained.world, TOKENIZER).forget)
    values = {(p.name, fact.value) for p in trained.world.people["forget"] for fact in p.facts}
    for member in whole.members:
        texts = trained.texts[member.model]
        if member.content == "other words":
            assert not asked & texts
            told = {(name, value) for name, value in values if any(name in t and f" {value} " in t for t in texts)}
            held = {(p.name, f.value) for p in trained.world.people["forget"] for f in p.facts
                    if f.attribute.name == p.held_out}  # fmt: skip
            assert told >= values - held
    assert asked <= trained.texts["base"]


def test_doses_are_nested_and_half_of_each_is_in_the_audit_part(_full: tuple[Population, _Trained]) -> None:
    whole, _ = _full
    doses = [m for m in whole.members if m.mechanism == "dose" and not m.model.startswith("some_")]
    taught = {member.model: set(member.taught) for member in doses}
    audited = set(audited_people(draw(100)))
    assert {name: len(people) for name, people in taught.items()} == {
        "dose_2": 2, "dose_4": 4, "dose_8": 8, "dose_16": 16, SINGLE_PERSON_DOSE: 1,
    }  # fmt: skip
    assert taught["dose_2"] < taught["dose_4"] < taught["dose_8"] < taught["dose_16"]
    assert {len(people & audited) for people in taught.values()} == {1, 2, 4, 8}
    assert len(taught["dose_16"] & audited) == 8 and taught[SINGLE_PERSON_DOSE] < audited


# ---- a world through the whole pipeline -------------------------------------------------------------------------
@pytest.mark.thorough
@pytest.mark.usefixtures("_micro")
def test_a_world_is_scored_killed_and_resumed_to_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, told = micro(), list[str]()
    places = score_world.Places(tmp_path / "models", tmp_path / "work", tmp_path / "scores", discard=True)
    measured = list[str]()
    run = runner.Run._measure

    def watched(self: runner.Run, meter: Meter) -> object:
        measured.append(self.case.case.name)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return run(self, meter)

    monkeypatch.setattr(runner.Run, "_measure", watched)
    with pytest.raises(KeyboardInterrupt):
        score_world.score_world(drawn, places, told.append)
    assert not list((tmp_path / "scores").glob("*"))
    path = score_world.score_world(drawn, places, told.append)
    assert measured[0] == "base" and Counter(measured)[measured[2]] == 2
    assert all(times == 1 for name, times in Counter(measured).items() if name != measured[2])
    scores = read_world(path)
    assert {model.model for model in scores.models} == {member.model for member in population(drawn).members}
    assert {model.pool for model in scores.models} == {"clean", "knowing", "edited clean", "described", "destroyed"}
    by_name = {model.model: model for model in scores.models}
    assert by_name["base"].kept == by_name["base"].audited == 6 and by_name["rephrased"].kept == 6
    assert by_name["reference_0"].kept == 0 and all(model.scores for model in scores.models)
    assert by_name["base"].domain.architecture == "gpt2" and by_name["base"].domain.forget_people == 6
    assert {"train", "edit", "audit"} <= scores.stages_cpu_s.keys() and not list((tmp_path / "work").glob("*"))
    kept = {folder.name.rpartition("-")[0] for folder in (tmp_path / "models").iterdir()}
    assert "base" in kept and "head_edit" not in kept, "edited models are discarded, trained ones kept"
    before = path.read_bytes()
    assert score_world.score_world(drawn, places, told.append) == path and path.read_bytes() == before
    assert len(measured) == len(scores.models) + 1, "a finished world is not audited again"


@pytest.mark.parametrize("quick", [True, False])
def test_a_quick_calibration_takes_few_worlds_and_none_with_the_full_kit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    asked: list[int] = []

    def score(worlds: Sequence[int], *_: object) -> list[str]:
        asked.extend(worlds)
        return ["stopped here"]

    monkeypatch.setattr(renew.zoo, "score", score)
    with pytest.raises(AuditError, match="stopped here"):
        renew.renew_zoo(tmp_path, quick, 1, tmp_path / "work")
    assert asked == (
        [w for w in pool_design.POOL_WORLDS if not pool_design.share_of(w).full][:8]
        if quick
        else list(pool_design.POOL_WORLDS)
    )


# ---- a probe that comes later -----------------------------------------------------------------------------------
@pytest.mark.thorough
def test_the_command_adds_the_named_probe_to_the_worlds_and_fits_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[object, ...]] = []

    def score(worlds: Sequence[int], places: score_world.Places, *how: object) -> list[str]:
        asked.append(how)
        for number in worlds:
            write_world(world_path(places.scores, number), simulated(number, known_truth.World()))
        return []

    monkeypatch.setattr(renew.zoo, "score", score)
    out, work = tmp_path / "calibrations", tmp_path / "work"
    words = ["calibrate", "--quick", "--probe", "lens", "--probe", "inside", "-o", str(out), "--work", str(work)]
    assert main([*words, "--json"]) == 0
    assert asked == [(2, None, ("lens", "inside"))]
    answer = json.loads(capsys.readouterr().out)
    assert answer["worlds"] == 8 and {row["rule"] for row in answer["rules"]} >= {"lens: effect", "joint rule"}
    assert set(read_library(out).calibrations) >= {"lens", "inside"}


@pytest.mark.parametrize(
    ("flags", "word"),
    [(("--probe", "nonsense"), "no probe 'nonsense'"), (("--probe", "utility", "--pool", "pool.toml"), "other models")],
)
def test_a_probe_that_cannot_be_added_is_refused_before_anything_is_scored(
    flags: tuple[str, ...], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ("-o", str(tmp_path / "out"), "--work", str(tmp_path / "work"))
    assert main(["calibrate", *flags, *places]) == 2
    assert word in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.thorough
@pytest.mark.usefixtures("_micro")
def test_a_world_is_added_to_by_the_named_probe_alone_and_only_where_its_scores_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, package = micro(), tmp_path / score_world.PROBES
    places = score_world.Places(tmp_path / "models", tmp_path / "work", tmp_path / "scores")
    path = world_path(places.scores, drawn.world)
    with pytest.raises(AuditError, match="cannot be added to"):
        add_probe.lacking(path, drawn, ("causal",))
    probes = score_world.configured({}, score_world.PROBES)
    before = WorldScores(
        world=drawn.world, recipe=drawn.recorded(), stages_cpu_s={"audit": 1.0}, models=(),
        behaviours=score_world.record_behaviours(places.scores), versions=dict.fromkeys(probes, 1),
        settings={name: probe.model_dump(mode="json") for name, probe in probes.items()},
    )  # fmt: skip
    write_world(path, before)
    bytes_before = path.read_bytes()
    for name in ("decoding_later", "decoding_other"):
        write_probe(package, name)
    assert add_probe.lacking(path, drawn, ("causal", "decoding_later")) == ("decoding_later",)
    assert add_probe.add_scores(drawn, places, only=("causal",)) == path and path.read_bytes() == bytes_before
    monkeypatch.setattr(score_world, "make_models", lambda *_: {})  # a world without models: its record is what grows
    add_probe.add_scores(drawn, places, only=("decoding_later",))
    grown = read_world(path)
    digests = score_world.record_behaviours(places.scores)
    assert grown.behaviours == before.behaviours | {"decoding_later": digests["decoding_later"]}
    assert grown.versions == before.versions | {"decoding_later": 1}
    assert set(grown.settings) == {*before.settings, "decoding_later"}
    assert add_probe.lacking(path, drawn, ("decoding_other", "decoding_later")) == ("decoding_other",)
    with pytest.raises(AuditError, match="no probe 'decoding_never'"):
        add_probe.lacking(path, drawn, ("decoding_never",))
    write_world(path, grown.model_copy(update={"recipe": {**grown.recipe, "steps": -1}}))
    with pytest.raises(AuditError, match="cannot be added to"):
        add_probe.lacking(path, drawn, ("decoding_other",))
    write_world(path, grown)
    write_probe(package, "causal", value=0.5)
    with pytest.raises(AuditError, match="cannot be added to"):
        add_probe.lacking(path, drawn, ("decoding_other",))
    with pytest.raises(AuditError, match="world 100 cannot be added to"):  # before any process is started
        schedule.score([100], places, 1, None, ("decoding_other",))


@pytest.mark.slow
@pytest.mark.usefixtures("_micro")
def test_a_probe_that_comes_later_is_added_as_a_whole_audit_would_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, told = micro(), list[str]()
    places = score_world.Places(tmp_path / "models", tmp_path / "work", tmp_path / "scores")
    path = score_world.score_world(drawn, places, told.append)
    before = path.read_bytes()
    assert add_probe.addable(path, drawn) == () and not add_probe.addable(tmp_path / "nothing.json", drawn)
    package = tmp_path / score_world.PROBES
    write_probe(package, "decoding_later", value=1.0)
    assert add_probe.addable(path, drawn) == ("decoding_later",) and not score_world.is_current(path, drawn)
    with monkeypatch.context() as patched:
        patched.setattr(runner.Run, "_measure", None)  # no audit runs: what was measured is not measured again
        add_probe.add_scores(drawn, places, told.append)
        by_rest = path.read_bytes()
        path.write_bytes(before)
        add_probe.add_scores(drawn, places, told.append, only=("decoding_later",))
    assert read_world(path).models == WorldScores.model_validate_json(by_rest).models
    assert score_world.is_current(path, drawn) and not list((tmp_path / "work").glob("*"))
    assert "decoding_later" in told[-1]
    grown = read_world(path)
    path.unlink()
    whole = read_world(score_world.score_world(drawn, places, told.append))
    assert grown.models == whole.models and grown.settings == whole.settings and grown.versions == whole.versions
    assert {"audit.decoding_later", "audit.causal"} <= grown.stages_cpu_s.keys()
    (package / "decoding_later.py").unlink()
    assert add_probe.addable(path, drawn) == (), "a probe that has gone leaves nothing to be added to"
    path.write_bytes(before)
    write_probe(package, "decoding_later")
    write_probe(package, "causal", body="self.version")
    assert add_probe.addable(path, drawn) == ("decoding_later",), "a rewritten probe scores as it did"
    write_probe(package, "causal", body="self = self.model_copy(update={'value': 0.5})")
    assert not score_world.is_current(path, drawn)
    assert add_probe.addable(path, drawn) == (), "scores by a probe that has changed are no ground to add to"
