"""What the verdict says of every image classifier of known truth: held out, and on worlds that nothing was fitted on.

``python -m studies.vision_zoo.study`` reads the stored calibrations and the scores (``scores/``, ``fresh_scores/``) and
writes ``results.json`` and the tables in the README beside it. Nothing is trained or measured. A held-out decision is
by a rule that knew neither the model's world nor its mechanism; a fresh one by the stored rule, as an audit judges.
"""

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from audit.calibration import (
    Calibration,
    CalibrationLibrary,
    Roster,
    WorldScores,
    judged_apart,
    rate,
    read_library,
    read_pool,
    stated,
    stored,
    table_of,
    write,
    zoo_floors,
)
from audit.schema import AuditError, Missing, Rate
from audit.stats import significant
from audit.zoo import FRESH_IMAGE_WORLDS, images_of_kind, target_of
from studies.pages import with_section
from studies.provenance import Stamp, stamp
from studies.vision_zoo.page import Counts, FreshCounts, Line, VisionZoo, markdown
from studies.zoo.fresh_worlds import heard
from studies.zoo.spoken_words import CLEAN_WORD, TRACES, JudgedModel

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
README = HERE / "README.md"
COMMAND = "python -m studies.vision_zoo.study"
SINGLE, CLASS = "single images", "a class"
DIGITS = 4


class Zoo(NamedTuple):
    """Whose counts: the command that makes them, what its targets are called and how one is found by world and model,
    its fakes, and the worlds that nothing is fitted on."""

    command: str
    kind: str
    groups: tuple[str, ...]
    group_of: Callable[[int, str], str]
    fakes: tuple[str, ...]
    fresh: tuple[int, ...]


class _Judged(NamedTuple):
    """All models: names, what is forgotten, what the verdict states of each."""

    people: Roster
    name: ndarray
    of: ndarray
    stated: Bool[ndarray, " subject"]
    outputs: Float[ndarray, " subject"]


def kind_of_target(model: str) -> str:
    """Is a class forgotten, or single images?"""
    return CLASS if target_of(model).startswith("class_") else SINGLE


IMAGES = Zoo(
    COMMAND, "image_classifier", (CLASS, SINGLE), lambda _, model: kind_of_target(model), images_of_kind("fake"),
    FRESH_IMAGE_WORLDS,
)  # fmt: skip
"""The vision zoo."""


def _judge(shelf: CalibrationLibrary, zoo: Zoo, known: bool = False) -> _Judged:
    assert shelf.subjects is not None
    table = table_of(shelf.subjects, shelf.calibrations, None)
    held = stated(table.people, judged_apart(table, known))
    names = [subject.model for subject in shelf.subjects.subjects]
    groups = [zoo.group_of(subject.world, subject.model) for subject in shelf.subjects.subjects]
    return _Judged(
        table.people, np.array(names, dtype=object), np.array(groups, dtype=object),
        held.trace, _outputs(shelf.calibrations.values(), len(names)),
    )  # fmt: skip


def _outputs(calibrations: Iterable[Calibration], n: int) -> Float[ndarray, " subject"]:
    """The effect of the first measurement of outputs on every model; NaN where it has none."""
    effects = np.full(n, np.nan)
    for measured in (m for c in calibrations for m in c.measurements if m.kind == "output" and m.form == "trained"):
        column = next(column for column in measured.columns if column.feature == "effect")
        effects[list(column.subject)] = column.value
        break
    return effects


def _worlds(judged: _Judged, which: Bool[ndarray, " subject"]) -> int:
    return len(np.unique(judged.people.world[which]))


def _rate(judged: _Judged, wrong: Bool[ndarray, " subject"], of: Bool[ndarray, " subject"]) -> Rate:
    return rate(_worlds(judged, wrong & of), _worlds(judged, of))


def _counts(judged: _Judged, zoo: Zoo, of: str) -> Counts:
    people, says = judged.people, judged.stated
    taken = np.ones(len(says), dtype=bool) if of == "all" else judged.of == of
    fakes = taken & np.isin(people.mechanism, zoo.fakes)
    clean, destroyed = taken & people.clean, taken & (people.pool == "destroyed")
    stopped = people.alone == "stopped"
    wrong = {
        "false alarm": clean & says, "a fake that was missed": fakes & ~says,
        "destroyed, and not INVALID": destroyed & ~stopped,
    }  # fmt: skip
    return Counts(
        of=of,
        clean_audits=rate(int((clean & says).sum()), int(clean.sum())),
        false_alarms=_rate(judged, says, clean),
        fakes_missed=_rate(judged, ~says, fakes),
        destroyed_not_invalid=_rate(judged, ~stopped, destroyed),
        exceptions=tuple(
            f"world {people.world[i]}, {judged.name[i]}: {label}"
            for label, which in wrong.items()
            for i in np.flatnonzero(which)
        ),
    )


def _lines(judged: _Judged) -> tuple[Line, ...]:
    people, lines = judged.people, list[Line]()
    keys = {(str(p), str(m), str(o)) for p, m, o in zip(people.pool, people.mechanism, judged.of, strict=True)}
    for pool, mechanism, of in sorted(keys):
        chosen = (people.pool == pool) & (people.mechanism == mechanism) & (judged.of == of)
        stopped = chosen & (people.alone == "stopped")
        says = chosen & (judged.stated if mechanism != "base" else people.alone == "shown")
        below = chosen & ~says & ~stopped & (people.alone == "below")
        n, counts = int(chosen.sum()), [int(x.sum()) for x in (says, stopped, below)]
        mistakes: Rate | Missing = Missing(missing="no mistake is defined of these")
        if pool in ("clean", "knowing") and mechanism != "base":
            mistakes = _rate(judged, says if pool == "clean" else ~says, chosen)
        lines.append(
            Line(
                pool=pool, mechanism=mechanism, of=of, models=n, stated=counts[0], stopped=counts[1], below=counts[2],
                silent=n - sum(counts), mistakes=mistakes, outputs=_mean(judged.outputs[chosen]),
            )
        )  # fmt: skip
    return tuple(lines)


def _mean(values: Float[ndarray, " model"]) -> float | Missing:
    seen = values[np.isfinite(values)]
    return significant(seen.mean(), DIGITS) if len(seen) else Missing(missing="not measured")


# ---- fresh worlds -----------------------------------------------------------------------------------------------
def _of_words(models: Sequence[JudgedModel], zoo: Zoo, word: Callable[[JudgedModel], str]) -> Counts:
    kinds: dict[str, tuple[list[JudgedModel], Callable[[str], bool]]] = {
        "false alarm": ([m for m in models if m.scored.pool == "clean"], TRACES.__contains__),
        "a fake that was missed": ([m for m in models if m.scored.mechanism in zoo.fakes], lambda w: w not in TRACES),
        "destroyed, and not INVALID": ([m for m in models if m.scored.pool == "destroyed"], lambda w: w != "INVALID"),
    }
    rates, exceptions = list[Rate](), list[str]()
    for label, (group, is_wrong) in kinds.items():
        wrong = [m for m in group if is_wrong(word(m))]
        rates.append(rate(len({m.scored.world for m in wrong}), len({m.scored.world for m in group})))
        exceptions += [f"world {m.scored.world}, {m.scored.model}: {label} ({word(m)})" for m in wrong]
    alarms, missed, destroyed = rates
    clean = [m for m in models if m.scored.pool == "clean"]
    return Counts(
        of="all", clean_audits=rate(sum(word(m) in TRACES for m in clean), len(clean)),
        false_alarms=alarms, fakes_missed=missed, destroyed_not_invalid=destroyed, exceptions=tuple(exceptions),
    )  # fmt: skip


def fresh_counts(worlds: Sequence[WorldScores], shelf: CalibrationLibrary, zoo: Zoo = IMAGES) -> FreshCounts | Missing:
    """What the stored rule says of worlds that nothing was fitted on. AuditError (code 2) where one is not fresh."""
    if not worlds:
        return Missing(missing="no fresh world is scored")
    if strangers := [w.world for w in worlds if w.world not in zoo.fresh]:
        raise AuditError(f"worlds {strangers} are not fresh", f"score some of {zoo.fresh[0]} and on")
    judged = [h for world in worlds for h in heard(world, shelf, zoo_floors(shelf.folder))]
    models = [h.model for h in judged]
    clean = [m for m in models if m.scored.pool == "clean"]
    return FreshCounts(
        worlds=tuple(w.world for w in worlds), models=len(models),
        held_for={name: sum(name in h.holding for h in judged) for name in sorted(shelf.calibrations)},
        calibrated=_of_words(models, zoo, lambda m: m.calibrated),
        in_case=_of_words(models, zoo, lambda m: m.reached.rung.word),
        clean_consistent=rate(sum(m.calibrated == CLEAN_WORD for m in clean), len(clean)),
    )  # fmt: skip


# ---- all --------------------------------------------------------------------------------------------------------
def examine(
    shelf: CalibrationLibrary,
    pool: Sequence[WorldScores],
    fresh: Sequence[WorldScores],
    provenance: Stamp,
    zoo: Zoo = IMAGES,
) -> VisionZoo:
    """Every count, from stored calibrations and scores alone. AuditError (code 2) where none are stored."""
    if shelf.subjects is None:
        raise AuditError(f"{shelf.folder} holds no calibrations", f"make them: residua calibrate --kind {zoo.kind}")
    judged, elsewhere = _judge(shelf, zoo), _judge(shelf, zoo, known=True)
    every = ("all", *zoo.groups)
    stages = {name for world in pool for name in world.stages_cpu_s}
    means = {name: sum(w.stages_cpu_s.get(name, 0.0) for w in pool) / max(len(pool), 1) for name in sorted(stages)}
    audits = sum(len(world.models) for world in pool)
    return VisionZoo(
        stamp=provenance, command=zoo.command, worlds=shelf.subjects.worlds, models=len(judged.name),
        subjects=shelf.subjects.content_hash(), counts=tuple(_counts(judged, zoo, of) for of in every),
        of_other_worlds=tuple(_counts(elsewhere, zoo, of) for of in every),
        lines=_lines(judged), fresh=fresh_counts(fresh, shelf, zoo),
        stages_cpu_s={name: significant(seconds, DIGITS) for name, seconds in means.items()},
        audit_cpu_s=significant(means.get("audit", 0.0) * len(pool) / audits, DIGITS) if audits else 0.0,
    )  # fmt: skip


def publish(zoo: Zoo, folder: Path, calibrations: Path, words: Sequence[str] | None = None) -> int:
    """Count a zoo, and write the results and the README's tables in its folder."""
    parser = argparse.ArgumentParser(prog=zoo.command)
    parser.add_argument("--calibrations", type=Path, default=calibrations, help="the folder that holds them")
    parser.add_argument("--scores", type=Path, default=folder / "scores", help="the scores that they were made from")
    parser.add_argument("--fresh", type=Path, default=folder / "fresh_scores", help="the scores of fresh worlds")
    parser.add_argument("--out", type=Path, default=folder / "results.json")
    args = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    results = examine(read_library(args.calibrations), read_pool(args.scores), read_pool(args.fresh), stamp(0), zoo)
    write(args.out, results)
    page = folder / "README.md"
    if args.out == folder / "results.json":
        page.write_text(with_section(page.read_text(encoding="utf-8"), markdown(results)), encoding="utf-8")
    log.info(markdown(results))
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Count the vision zoo."""
    return publish(IMAGES, HERE, stored("image"), words)


if __name__ == "__main__":
    raise SystemExit(main())
