"""A calibration is named by behaviour: what moves a number makes it stale, and what moves none does not."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from numpy import ndarray

from audit.bench import Bench
from audit.calibration import read_library, sources, stored
from audit.calibration.behaviour import (
    Attested,
    Behaviour,
    InstalledBehaviours,
    Kind,
    Settings,
    attest,
    attested,
    moved,
    read_records,
    record_path,
    recorded,
    summary,
    write_record,
)
from audit.calibration.sources import Installed, sources_hash
from audit.case import content_rule
from audit.case.cohorts import prepare
from audit.probing import behaviour_scores, frozen_models, frozen_world
from audit.schema import AuditError, ExitCode
from audit.stats import randomisation
from tests.planted import planted_behaviour, planted_package, write_probe

HELPER = "def {name}(x):\n    return x + {more}\n"


def behaviour(**values: float) -> Behaviour:
    return Behaviour(probe="lens", version=1, settings={}, values=values)


class Computed:
    """Computes planted behaviours, and remembers of which probes."""

    def __init__(self) -> None:
        self.probes: list[str] = []

    def __call__(self, package: str, name: str, settings: Settings) -> Behaviour:
        self.probes.append(name)
        return planted_behaviour(package, name, settings)


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """Planted probes, of which one reads its number through a helper."""
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as folder:
        helped(folder, "told")
        yield folder


def helped(package: Path, helper: str, more: float = 0.0, comment: str = "") -> None:
    """Write the causal probe with a helper of this name in a shared module, imported where it is needed."""
    (package / "_shared.py").write_text(HELPER.format(name=helper, more=more) + comment)
    sys.modules.pop(f"{package.name}._shared", None)
    body = f"from {package.name}._shared import {helper}; self = self.model_copy(update={{'value': {helper}(1.0)}})"
    write_probe(package, "causal", value=1.0, body=body)


def stored_record(package: Path, computed: Computed, cache: Path) -> Attested:
    """The causal probe's behaviour as it is stored with a calibration."""
    return InstalledBehaviours(package.name, computed, cache).now("causal", {"value": 1.0})


# ---- what counts as the same ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("value", "tiny"), [(0.0, 9e-5), (0.0312, 9e-5), (250.0, 0.02), (-3.0, 3e-4)])
def test_values_within_a_ten_thousandth_are_the_same_and_beyond_are_not(value: float, tiny: float) -> None:
    before = behaviour(p=value)
    assert moved(before, behaviour(p=value + tiny)) == () == moved(before, behaviour(p=value - tiny))
    (told,) = moved(before, behaviour(p=value + 5 * tiny))
    assert told.startswith(f"p: {value:.5g} → ")


def test_a_number_that_comes_or_goes_and_another_version_are_changes() -> None:
    assert moved(behaviour(a=1.0), behaviour(a=1.0, b=2.0)) == ("b: no number → 2",)
    assert moved(behaviour(a=1.0, b=2.0), behaviour(a=1.0)) == ("b: 2 → no number",)
    assert moved(behaviour(a=1.0), behaviour(a=1.0).model_copy(update={"version": 2})) != ()
    assert moved(behaviour(a=1.0), behaviour(a=1.0).model_copy(update={"settings": {"k": 1}})) != ()
    assert moved(behaviour(), behaviour()) != (), "what gives no number shows nothing by giving none again"


def test_a_summary_shows_the_first_numbers_that_moved_and_counts_them() -> None:
    changed = moved(behaviour(a=1.0, b=2.0, c=3.0, d=4.0, e=5.0), behaviour(a=2.0, b=3.0, c=4.0, d=5.0, e=5.0))
    assert summary(changed, 5) == "a: 1 → 2; b: 2 → 3; c: 3 → 4 (4 of 5 numbers moved)"


# ---- other sources ----------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_the_same_sources_are_believed_and_nothing_is_computed(package: Path, tmp_path: Path) -> None:
    record = stored_record(package, Computed(), tmp_path / "there")
    computed = Computed()
    assert InstalledBehaviours(package.name, computed, tmp_path / "here").moved(record) == ()
    helped(package, "told", comment="\n\n# laid out otherwise\n")
    assert InstalledBehaviours(package.name, computed, tmp_path / "here").moved(record) == ()
    assert computed.probes == []


def test_a_record_of_another_kind_of_model_is_not_among_those_of_this_one(package: Path, tmp_path: Path) -> None:
    record = stored_record(package, Computed(), tmp_path / "there")
    own, *others = (InstalledBehaviours(package.name, Computed(), tmp_path, kind=kind) for kind in get_args(Kind))
    assert own.among([record], "causal", {"value": 1.0}) == record
    assert [other.among([record], "causal", {"value": 1.0}) for other in others] == [None] * len(others) != []


@pytest.mark.thorough
def test_each_kind_of_model_has_a_cached_behaviour_of_its_own(package: Path, tmp_path: Path) -> None:
    computed, kinds = Computed(), get_args(Kind)
    for _ in range(2):
        for kind in kinds:
            InstalledBehaviours(package.name, computed, tmp_path, kind=kind).now("causal", {"value": 1.0})
    assert len(computed.probes) == len(list(tmp_path.glob("*.json"))) == len(kinds) == 3


@pytest.mark.thorough
def test_a_renamed_helper_is_computed_again_kept_and_no_change(package: Path, tmp_path: Path) -> None:
    record, computed = stored_record(package, Computed(), tmp_path / "there"), Computed()
    helped(package, "renamed")
    for _ in range(2):
        assert InstalledBehaviours(package.name, computed, tmp_path / "here").moved(record) == ()
    assert computed.probes == ["causal"], "computed once, and found in the cache then"


def test_a_helper_that_gives_another_number_is_a_change_that_is_named(package: Path, tmp_path: Path) -> None:
    record = stored_record(package, Computed(), tmp_path / "there")
    helped(package, "told", more=0.001)
    changed = InstalledBehaviours(package.name, Computed(), tmp_path / "here").moved(record)
    assert "effect, value: 1 → 1.001" in changed


@pytest.mark.thorough
def test_another_version_of_a_library_is_computed_again_and_never_assumed(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, computed, version = stored_record(package, Computed(), tmp_path / "there"), Computed(), sources.version
    monkeypatch.setattr(sources, "version", lambda name: version(name) + "+cu130")
    assert InstalledBehaviours(package.name, computed, tmp_path / "here").moved(record) == ()
    assert computed.probes == [], "a local part is the same version, built otherwise"
    monkeypatch.setattr(sources, "version", lambda name: "99.0" if name == "torch" else version(name))
    assert InstalledBehaviours(package.name, computed, tmp_path / "here").moved(record) == ()
    assert computed.probes == ["causal"]


def test_a_probe_that_cannot_be_measured_any_more_is_another_one(package: Path, tmp_path: Path) -> None:
    record = stored_record(package, Computed(), tmp_path / "there")
    helped(package, "renamed")

    def refuse(*_: object) -> Behaviour:
        raise AuditError("it broke on the frozen world", "read the log")

    assert InstalledBehaviours(package.name, refuse, tmp_path / "here").moved(record) == (
        "it broke on the frozen world",
    )


# ---- files ------------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_a_half_written_or_altered_cache_is_computed_again(package: Path, tmp_path: Path) -> None:
    computed, cache = Computed(), tmp_path / "cache"
    record = stored_record(package, computed, cache)
    (path,) = cache.glob("*.json")
    whole = path.read_bytes()
    altered = whole.replace(b'"effect, value":1.0', b'"effect, value":1.5')
    assert altered != whole
    for number, broken in enumerate((b"", whole[:40], whole[:-1], altered), 2):
        path.write_bytes(broken)
        assert stored_record(package, computed, cache) == record
        assert len(computed.probes) == number and path.read_bytes() == whole
    assert not [left for left in cache.iterdir() if left != path]


def test_a_cache_that_cannot_be_read_is_computed_again(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = Computed()
    record = stored_record(package, computed, tmp_path)

    def refused(self: Path) -> bytes:
        raise PermissionError(str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refused)
        assert stored_record(package, computed, tmp_path) == record
    assert len(computed.probes) == 2


def test_a_record_that_is_none_is_an_integrity_error(tmp_path: Path) -> None:
    record = attested(behaviour(a=1.0), Installed(sources="0" * 64, packages={}))
    path = write_record(tmp_path, record)
    assert path == record_path(tmp_path, "lens", record.digest) and read_records(tmp_path) == {record.digest: record}
    path.write_text(path.read_text().replace('"a":1.0', '"a":2.0'))
    with pytest.raises(AuditError, match="no record of a probe's behaviour") as raised:
        read_records(tmp_path)
    assert raised.value.code == ExitCode.INTEGRITY


@pytest.mark.thorough
def test_a_folder_knows_one_behaviour_by_one_digest_and_says_which_sources_gave_it(
    package: Path, tmp_path: Path
) -> None:
    scores, settings = tmp_path / "scores", {"value": 1.0}
    first = recorded(scores, InstalledBehaviours(package.name, Computed(), tmp_path / "cache"), "causal", settings)
    before = read_records(scores)[first]
    near = before.behaviour.model_copy(update={"values": {k: v + 3e-5 for k, v in before.behaviour.values.items()}})
    helped(package, "renamed")
    elsewhere = InstalledBehaviours(package.name, lambda *_: near, tmp_path / "elsewhere")
    assert recorded(scores, elsewhere, "causal", settings) == first, "another processor's last digits are no other name"
    assert read_records(scores)[first] == before
    assert attest(scores, elsewhere) == ()
    after = read_records(scores)[first]
    assert after.behaviour == before.behaviour and after.installed != before.installed
    far = near.model_copy(update={"values": {k: v + 1 for k, v in near.values.items()}})
    helped(package, "again")
    changed = InstalledBehaviours(package.name, lambda *_: far, tmp_path / "changed")
    assert attest(scores, changed) == ("causal",) and read_records(scores)[first] == after
    assert recorded(scores, changed, "causal", settings) != first and len(read_records(scores)) == 2


# ---- which sources ----------------------------------------------------------------------------------------------
def _edited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, more: str = "\nEDITED = 1\n") -> str:
    """The sources hash of `answer_lens` with a line more in a module."""
    path = sources._Tree.path

    def redirected(self: sources._Tree, name: str) -> Path | None:
        real = path(self, name)
        if name != module or real is None:
            return real
        copy = tmp_path / real.name
        copy.write_text(real.read_text() + more)
        if real.with_suffix(".pyi").is_file():  # a door goes with its package
            copy.with_suffix(".pyi").write_bytes(real.with_suffix(".pyi").read_bytes())
        return copy

    with monkeypatch.context() as patched:
        patched.setattr(sources._Tree, "path", redirected)
        return sources_hash("probes", "answer_lens", "audit.probing.behaviour_scores")


@pytest.mark.thorough
def test_whatever_can_change_a_number_counts_among_the_sources_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = sources_hash("probes", "answer_lens", "audit.probing.behaviour_scores")
    counted = (
        "audit.stats.randomisation", "audit.case.content_rule", "audit.bench.reads.scores", "audit.bench",
        "audit.wrappers.native", "audit.probing.frozen_world", "audit.probing.behaviour_scores",
        "audit.calibration.scores", "audit.probing.effects", "probes.answer_lens", "audit.bench.training.descent",
    )  # fmt: skip
    for module in counted:
        assert _edited(monkeypatch, tmp_path, module) != now, module
        assert _edited(monkeypatch, tmp_path, module, "\n# a comment\n") == now, module
    for module in (
        "audit",
        "audit.render.formats.html",
        "audit.engine.runner",
        "audit.cli",
        "probes.utility",
        "probes._taught",
    ):
        assert _edited(monkeypatch, tmp_path, module) == now, module


@pytest.mark.parametrize(
    ("text", "imports"),
    [
        ("import a.b, c", [("a.b", ""), ("c", "")]), ("from a.b import c, d as e", [("a.b", "c"), ("a.b", "d")]),
        ("from . import x", [("top.mid", "x")]), ("from .x import y", [("top.mid.x", "y")]),
        ("from .. import x", [("top", "x")]), ("from ..x import y", [("top.x", "y")]),
        ("def f():\n    from a import b", [("a", "b")]),
    ],
)  # fmt: skip
def test_imports_are_read_wherever_they_stand_and_relative_ones_from_the_package(
    text: str, imports: list[tuple[str, str]]
) -> None:
    assert list(sources._imports(ast.parse(text), "top.mid")) == imports


def test_a_door_leads_to_the_module_that_a_name_comes_from(tmp_path: Path) -> None:
    door = tmp_path / "__init__.pyi"
    assert sources._door(door) == {}
    other = tmp_path / "other.pyi"
    other.write_text("from . import whole as whole\nfrom .part import One as One, two as two\n")
    assert sources._door(other) == {"whole": "whole", "One": "part", "two": "part"}


def test_a_library_that_is_not_installed_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PACKAGES", ("numpy", "no-such-library-of-a-test"))
    assert sources.packages() == {
        "numpy": np.__version__.partition("+")[0], "no-such-library-of-a-test": "not installed"
    }  # fmt: skip


# ---- the frozen world -------------------------------------------------------------------------------------------
@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One family is enough to see that a number moves, and trains in seconds."""
    monkeypatch.setattr(behaviour_scores, "FAMILIES", ("gpt2",))


def of(*names: str) -> dict[str, Behaviour]:
    """Behaviours on the frozen world by the code as it is now, changes by a test included."""
    prepare.cache_clear()
    randomisation._labels.cache_clear()
    return {name: behaviour_scores.behaviour_of("probes", name, {}) for name in names}


def changes(before: dict[str, Behaviour], now: dict[str, Behaviour]) -> dict[str, tuple[str, ...]]:
    return {name: moved(before[name], now[name]) for name in before}


@pytest.mark.thorough
@pytest.mark.usefixtures("small")
def test_changed_statistics_and_data_rules_move_the_probes_that_they_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("answer_lens", "utility", "reverse_patch")
    before = of(*names)
    assert changes(before, of("answer_lens") | {n: before[n] for n in names[1:]}) == dict.fromkeys(names, ())
    labels = randomisation._labels.__wrapped__

    def fewer(n: int, k: int, draws: int, seed: int) -> tuple[ndarray, bool]:
        return labels(n, k, draws // 10, seed)

    fewer.cache_clear = lambda: None  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        patched.setattr(randomisation, "_labels", fewer)
        only_labels = changes(before, of(*names))
    assert only_labels["answer_lens"] and only_labels["reverse_patch"] and only_labels["utility"] == ()
    assert all(", p" in told or "p_below" in told for told in only_labels["reverse_patch"]), "no other number moves"

    with monkeypatch.context() as patched:
        patched.setattr(content_rule, "FUNCTION_WORDS", frozenset())
        patched.setattr(content_rule, "_differing", lambda item, answer: ())
        without_rule = changes(before, of(*names))
    assert all(without_rule.values()), "every one of them reads content tokens"
    assert changes(before, of(*names)) == dict.fromkeys(names, ()), "nothing is left of the changes"


def test_every_calibrated_probe_has_a_positive_control_and_a_tail_that_shows_its_permutations() -> None:
    """By the committed records: in each family the number that the probe is calibrated by is there and undecided."""
    records = [record.behaviour for record in read_records(stored()).values()]
    assert {record.probe for record in records} == set(read_library(stored()).calibrations) and len(records) >= 6
    first = {
        "answer_lens": "lens_lift", "concept_vectors": "restoration", "cross_sequence": "shared_direction",
        "forget_likelihood": "probability", "quantisation_recovery": "after_rounding",
        "relearning_recovery": "recall_of_others", "remind_landscape": "rise", "reverse_patch": "depth_profile_all",
        "trigger_search": "recovery",
    }  # fmt: skip
    for record in records:
        for family in frozen_models.FAMILIES:
            at = f"{family}: {first[record.probe]}, "
            assert record.values[at + "control_found"] == 1.0, (record.probe, family)
            assert record.values[at + "units"] == 28 and 2**28 > 9999, "too many people to enumerate"
            assert 0.001 < record.values[at + "p"] < 0.998, (record.probe, family)
            assert {at + "value", at + "ci95 lo", at + "floor"} <= record.values.keys()
            # whoever holds coefficients never calls a suspect suppressed below a model that never knew
            assert (at + "p_below" in record.values) == (record.probe != "concept_vectors")


def test_the_world_draws_from_raw_bits_and_trains_where_rounding_does_not_matter() -> None:
    """The first numbers of a stream; and eight steps of a lesson from weights that differ in their last bit."""
    assert np.allclose(frozen_models.uniform(5, 2), [0.8050029, 0.8079408], atol=1e-7)
    number = {word: i for i, word in enumerate(frozen_world._words())}
    lesson = frozen_world._lesson(frozen_world.facts()["old"], number)
    for family in frozen_models.FAMILIES:
        begun = frozen_models.fresh(family, len(number), frozen_world.SEED)
        nudged = {name: w * (1 + 2e-16) for name, w in begun.items()}
        a, b = (frozen_models.taught(family, w, lesson, 8, 1) for w in (begun, nudged))
        assert max(float((a[n] - b[n]).abs().max()) for n in a) < 1e-9
        assert all(w.dtype == torch.float64 for w in a.values())


@pytest.mark.slow
@pytest.mark.parametrize("change", ["none", "weights", "attention", "budget"])
def test_the_committed_behaviours_come_out_again_whatever_computes_them(
    monkeypatch: pytest.MonkeyPatch, change: str, tmp_path: Path
) -> None:
    """Nudged weights (1e-7 of each), another attention and another batching move no number of any probe."""
    if change == "weights":
        trained, rng = frozen_world.trained, np.random.default_rng(0)

        def nudged(family: frozen_models.Family) -> dict[str, frozen_models.Weights]:
            return {
                role: {n: w * (1 + 1e-7 * torch.from_numpy(rng.standard_normal(w.shape))) for n, w in weights.items()}
                for role, weights in trained(family).items()
            }

        behaviour_scores.world.cache_clear()
        monkeypatch.setattr(frozen_world, "trained", nudged)
    settings = {"attention": {"attention": "eager"}, "budget": {"token_budget": 600}}.get(change, {})
    monkeypatch.setattr(behaviour_scores, "Bench", lambda: Bench(**settings))
    for record in read_records(stored()).values():
        now = behaviour_scores.behaviour_of("probes", record.behaviour.probe, record.behaviour.settings)
        assert moved(record.behaviour, now) == (), record.behaviour.probe
    if change == "weights":
        behaviour_scores.world.cache_clear()


def test_a_record_says_what_gave_it() -> None:
    for record in read_records(stored()).values():
        assert set(record.installed.packages) == set(sources.PACKAGES)
        assert all("+" not in version for version in record.installed.packages.values())
        assert json.loads(record.canonical())["behaviour"]["kind"] == "causal_lm"
