"""From the scores of a pool to calibrations: every probe's thresholds, ratios and errors, and the joint rule.

Generated files only: the same scores give the same bytes.
"""

import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from pydantic import ValidationError

from audit.calibration import (
    FOLDER,
    JOINT,
    JUDGED,
    SEED,
    SPANS,
    SUBJECTS,
    Attested,
    Calibrated,
    Calibration,
    Column,
    Decision,
    HeldOut,
    Joint,
    OwnKind,
    Roster,
    Rule,
    Scope,
    Score,
    ScoredModel,
    Subject,
    Subjects,
    WorldScores,
    exceeds,
    features,
    fit_joint,
    held_out,
    labelled,
    record,
    record_path,
    reliability,
    roster,
    threshold,
    write,
    write_record,
    zoo_floors,
)
from audit.judging import in_case_state, judge
from audit.schema import AuditError, Interval, Missing
from audit.stats import likelihood_ratio

PACKAGES = ("numpy", "scipy", "torch", "transformers")


DRAWS = 400
"""Bootstrap draws behind every interval of a calibration."""


class Pooled(NamedTuple):
    """What a pool is called, the command that makes it and its calibrations again, and how often to resample.

    Probes ``single`` are calibrated each for itself and stay out of the joint rule. ``records`` are those of the
    behaviours by which the pool was scored, by digest. ``floors``: by which its audits judge where they measure none
    (None: the language zoo's). ``own``: of whose own kind the models are, where one case's base had them all.
    """

    name: str
    command: str
    quick: bool
    draws: int = DRAWS
    single: tuple[str, ...] = ()
    floors: Mapping[str, float] | None = None
    records: Mapping[str, Attested] = {}
    own: OwnKind | None = None


class CalibrationSet(NamedTuple):
    """A folder of calibrations, not written yet."""

    subjects: Subjects
    calibrations: dict[str, Calibration]
    joint: Joint
    left_out: tuple[str, ...]
    records: tuple[Attested, ...] = ()


def made_with() -> dict[str, str]:
    """Versions and machine: the same ones reproduce every digit."""
    machine = f"{platform.system()} {platform.machine()}"
    return {"python": platform.python_version(), "machine": machine, **{name: version(name) for name in PACKAGES}}


def calibrate(worlds: Sequence[WorldScores], pool: Pooled) -> CalibrationSet:
    """All calibrations of a pool. AuditError (code 2) where it is too small, or its worlds were scored differently.

    Measurements that too few models have are left out, with the reason.
    """
    if not worlds:
        raise AuditError(f"the pool {pool.name} holds no worlds", f"make some: {pool.command}")
    by_probe = _one_code(worlds, pool.single)
    models = [model for world in worlds for model in world.models]
    floors = zoo_floors() if pool.floors is None else pool.floors
    people, scope = roster([_subject(model, (), floors) for model in models]), scope_of(models)
    measured: dict[str, list[_Measured]] = {}
    left_out: list[str] = []
    for probe in sorted(by_probe):
        for name in _names(models, probe):
            scores = [_score(model, probe, name) for model in models]
            try:
                measured.setdefault(probe, []).append(_calibrated(people, scores, pool.draws))
            except AuditError as error:
                left_out.append(f"{probe}, {name}: {error.what}")
    above = [
        [
            (probe, m.calibrated.name)
            for probe, measurements in measured.items()
            for m in measurements
            if m.held.trace[i]
        ]
        for i in range(len(models))
    ]
    every = [[(s.probe, s.name) for s in model.scores if s.probe in measured] for model in models]
    with_states = tuple(
        _subject(model, names, floors, set(scored) - set(names))
        for model, names, scored in zip(models, above, every, strict=True)
    )
    subjects = Subjects(
        name=pool.name, command=pool.command, quick=pool.quick, draws=pool.draws, worlds=len(worlds),
        made_with=made_with(), subjects=with_states, own=pool.own,
    )  # fmt: skip
    calibrations = {
        probe: Calibration(
            probe=probe, version=by_probe[probe].versions.get(probe, 1),
            settings=by_probe[probe].settings.get(probe, {}), behaviour=by_probe[probe].behaviours[probe],
            subjects=subjects.content_hash(), scope=scope,
            joins=probe not in pool.single,
            measurements=tuple(m.calibrated for m in measurements),
        )
        for probe, measurements in measured.items()
    }  # fmt: skip
    digests = {calibration.behaviour for calibration in calibrations.values()}
    records = tuple(pool.records[digest] for digest in sorted(digests & pool.records.keys()))
    return CalibrationSet(subjects, calibrations, fit_joint(subjects, calibrations), tuple(left_out), records)


def largest_floors(worlds: Sequence[WorldScores]) -> dict[str, float]:
    """The largest floor, over all models, of every test that may find a trace inside: for cases that measure none."""
    measured: dict[str, list[float]] = {}
    for score in (score for world in worlds for model in world.models for score in model.scores):
        inside = score.kind in ("causal", "decoding") and score.mode == "controlled"
        if inside and not isinstance(score.floor, Missing):
            measured.setdefault(f"{score.probe}.{score.name}", []).append(score.floor)
    return {name: round(max(floors), 4) for name, floors in sorted(measured.items())}


def write_all(folder: Path, fitted: CalibrationSet) -> tuple[Path, ...]:
    """Write the folder, records of behaviours first; what belongs to no calibration any more goes, and goes last."""
    files = {folder / SUBJECTS: fitted.subjects, folder / JOINT: fitted.joint}
    files |= {folder / f"{probe}.json": calibration for probe, calibration in fitted.calibrations.items()}
    current = {record_path(folder, attested.behaviour.probe, attested.digest) for attested in fitted.records}
    for attested in fitted.records:
        write_record(folder, attested)
    for path in folder.glob("*.json"):
        if path not in files and _is_calibration(path):
            path.unlink()
    for path, noun in files.items():
        write(path, noun)
    for path in set((folder / FOLDER).glob("*.json")) - current:
        path.unlink()
    return tuple(sorted(files))


def _is_calibration(path: Path) -> bool:
    try:
        return Calibration.model_validate_json(path.read_bytes()).probe == path.stem
    except ValidationError:
        return False


def _one_code(worlds: Sequence[WorldScores], single: Collection[str]) -> dict[str, WorldScores]:
    """A world that each probe was measured in: all of them, or, for those that stay out of the joint rule, some.

    AuditError (code 2) where worlds were scored by different code.
    """
    first: dict[str, WorldScores] = {}
    for world in worlds:
        for probe in world.behaviours:
            first.setdefault(probe, world)
    for world in worlds:
        differs = sorted(
            probe
            for probe, other in first.items()
            if _identity(other, probe) != _identity(world, probe) and (probe in world.behaviours or probe not in single)
        )
        if differs:
            raise AuditError(
                f"worlds {first[differs[0]].world} and {world.world} were scored by {', '.join(differs)} of "
                "different behaviour, version or settings",
                "delete the older of the two, so that it is scored again",
            )
    return first


def _identity(world: WorldScores, probe: str) -> tuple[object, ...]:
    return world.behaviours.get(probe), world.versions.get(probe), world.settings.get(probe)


# ---- what the pool spans ----------------------------------------------------------------------------------------
def _subject(
    model: ScoredModel, above: Collection[tuple[str, str]], floors: Mapping[str, float],
    denied: Collection[tuple[str, str]] = (),
) -> Subject:  # fmt: skip
    """``above``: the measurements that exceed a threshold set without this world and mechanism, ``denied`` those that
    do not; ``floors`` the zoo's, by which every audit judges."""
    return Subject(
        world=model.world, model=model.model, mechanism=model.mechanism, pool=model.pool, kept=model.kept,
        audited=model.audited, content=model.content,
        alone=in_case_state([judge(score.restored(), floors) for score in model.scores], above, denied),
    )  # fmt: skip


def scope_of(models: Sequence[ScoredModel]) -> Scope:
    """The audits that a pool's models span."""
    domains = [model.domain for model in models]

    def span(values: Iterable[float]) -> Interval:
        listed = list(values)
        return Interval(lo=min(listed), hi=max(listed))

    spans: Mapping[str, Interval] = {name: span(float(getattr(d, name)) for d in domains) for name in SPANS}
    return Scope(
        architectures=tuple(sorted({d.architecture for d in domains})), nulls=tuple(sorted({d.null for d in domains})),
        **spans,
    )  # fmt: skip


# ---- one measurement --------------------------------------------------------------------------------------------
def _names(models: Sequence[ScoredModel], probe: str) -> list[str]:
    scored = [s for model in models for s in model.scores if s.probe == probe]
    return list(dict.fromkeys(s.name for s in scored if s.kind in JUDGED and s.mode == "controlled"))


def _score(model: ScoredModel, probe: str, name: str) -> Score | None:
    return next((s for s in model.scores if (s.probe, s.name, s.mode) == (probe, name, "controlled")), None)


class _Measured(NamedTuple):
    """A calibrated measurement, and what it says of every model by a threshold set without it."""

    calibrated: Calibrated
    held: HeldOut


def _calibrated(people: Roster, scores: Sequence[Score | None], draws: int) -> _Measured:
    """Threshold, ratios and errors of one measurement, by its effect."""
    rows = [features(score) if score is not None else {} for score in scores]
    first = next(score for score in scores if score is not None)
    effect = np.array([row.get("effect", np.nan) for row in rows])
    usable = np.isfinite(effect)
    effect = np.where(usable, effect, 0.0)
    data = labelled(people, effect, usable)

    def fit(seen: Bool[ndarray, " subject"]) -> Rule:
        clean = seen & people.clean
        bar = threshold(effect[clean], people.world[clean])
        above = np.array(["effect" in row and exceeds(row, bar) for row in rows])
        return lambda which: Decision(above[which], effect[which])

    held = held_out(people, usable, fit)
    clean = usable & people.clean
    calibrated = Calibrated(
        name=first.name, kind=first.kind, form=first.form,
        threshold=threshold(effect[clean], people.world[clean]),
        scale=likelihood_ratio.fit_scale(data, SEED, draws), record=record(people, held),
        reliability=reliability(data, SEED, draws),
        columns=_columns(rows),
    )  # fmt: skip
    return _Measured(calibrated, held)


def _columns(rows: Sequence[Mapping[str, float]]) -> tuple[Column, ...]:
    names = dict.fromkeys(name for row in rows for name in row)
    return tuple(
        Column(
            feature=name,
            subject=tuple(i for i, row in enumerate(rows) if name in row),
            value=tuple(row[name] for row in rows if name in row),
        )
        for name in names
    )
