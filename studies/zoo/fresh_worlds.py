"""What the verdict says of worlds that no rule was ever fitted on or shaped by: `FRESH_WORLDS`.

``python -m studies.zoo.fresh_worlds`` reads their scores (``fresh_scores/``), judges every model as an audit would, by
the stored calibrations as they are, and writes ``fresh_worlds.json`` and the tables in the README beside it. The seeds
of these worlds were in the code before the rule was final.
"""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from audit.calibration import (
    Attested,
    CalibrationLibrary,
    ProbeIdentity,
    ScoredModel,
    WorldScores,
    rate,
    read_library,
    read_pool,
    stored,
    use_of,
    write,
    zoo_floors,
)
from audit.judging import ApplicableCalibrations, decide, judge
from audit.schema import AuditError, Rate, Record
from audit.zoo import FRESH_WORLDS, mechanisms
from studies.pages import with_section
from studies.provenance import Stamp, stamp
from studies.zoo.spoken_words import TRACES, JudgedModel, Spoken, by_case, summary
from studies.zoo.spoken_words import markdown as tables_of_words

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
SCORES, RESULTS, README = HERE / "fresh_scores", HERE / "fresh_worlds.json", HERE / "README.md"
START, END = "<!-- fresh worlds: made by studies.zoo.fresh_worlds -->", "<!-- end of fresh worlds -->"


class Mistakes(Record):
    """Worlds with a mistake of each kind, by one way of judging; every one by name."""

    false_alarms: Rate
    fakes_missed: Rate
    edited_clean_alarms: Rate
    destroyed_not_invalid: Rate
    exceptions: tuple[str, ...]


class FreshWorlds(Record):
    """The results file. ``outside``: probes whose calibration held for fewer than all models, and for how many."""

    schema_version: Literal["1.0"] = "1.0"
    stamp: Stamp
    command: str
    worlds: tuple[int, ...]
    models: int
    calibrations: dict[str, str]
    held_for: dict[str, int]
    calibrated: Mistakes
    in_case: Mistakes
    spoken: Spoken


class _Heard(NamedTuple):
    """A judged model, and the probes whose calibrations held for it."""

    model: JudgedModel
    holding: tuple[str, ...]


def _same_as(world: WorldScores) -> Callable[[Attested], tuple[str, ...]]:
    """Is a calibration's behaviour the one that scored this world?"""
    known = set(world.behaviours.values())

    def moved(record: Attested) -> tuple[str, ...]:
        return () if record.digest in known else ("its behaviour is not the one that scored this world",)

    return moved


def heard(world: WorldScores, shelf: CalibrationLibrary, floors: Mapping[str, float]) -> list[_Heard]:
    """Every model of a world, judged as an audit would judge it."""
    return [_heard(scored, world, shelf, floors) for scored in world.models]


def _heard(scored: ScoredModel, world: WorldScores, shelf: CalibrationLibrary, floors: Mapping[str, float]) -> _Heard:
    moved = _same_as(world)
    uses = tuple(
        use_of(shelf, probe, ProbeIdentity(world.versions[probe], world.settings[probe]), scored.domain, moved)
        for probe in sorted(world.versions)
    )
    holding = {use.probe: shelf.calibrations[use.probe] for use in uses if use.status == "holds"}
    reached, roles = by_case(scored, floors)
    evidence = tuple(judge(score.restored(), floors) for score in scored.scores)
    _, verdict = decide(evidence, roles, ApplicableCalibrations(shelf, holding, uses))
    return _Heard(JudgedModel(scored, reached, verdict.word), tuple(holding))


def _mistakes(models: Sequence[JudgedModel], word: Callable[[JudgedModel], str]) -> Mistakes:
    """Worlds in which the word of any such model is wrong."""
    fakes = set(mechanisms.of_kind("fake"))
    kinds: dict[str, tuple[list[JudgedModel], Callable[[str], bool]]] = {
        "false alarm": ([m for m in models if m.scored.pool == "clean"], TRACES.__contains__),
        "a fake that was missed": ([m for m in models if m.scored.mechanism in fakes], lambda w: w not in TRACES),
        "edited clean, and a trace is stated": (
            [m for m in models if m.scored.pool == "edited clean"], TRACES.__contains__,
        ),
        "destroyed, and not INVALID": ([m for m in models if m.scored.pool == "destroyed"], lambda w: w != "INVALID"),
    }  # fmt: skip
    rates, exceptions = list[Rate](), list[str]()
    for label, (group, is_wrong) in kinds.items():
        wrong = [m for m in group if is_wrong(word(m))]
        rates.append(rate(len({m.scored.world for m in wrong}), len({m.scored.world for m in group})))
        exceptions += [f"world {m.scored.world}, {m.scored.model}: {label} ({word(m)})" for m in wrong]
    alarms, missed, edited, destroyed = rates
    return Mistakes(
        false_alarms=alarms, fakes_missed=missed, edited_clean_alarms=edited, destroyed_not_invalid=destroyed,
        exceptions=tuple(exceptions),
    )  # fmt: skip


def examine(worlds: Sequence[WorldScores], shelf: CalibrationLibrary, provenance: Stamp, command: str) -> FreshWorlds:
    """Every count. AuditError (code 2) where a world is one that the rule was fitted on."""
    if strangers := [w.world for w in worlds if w.world not in FRESH_WORLDS]:
        raise AuditError(f"worlds {strangers} are not fresh", f"score some of {FRESH_WORLDS[0]} to {FRESH_WORLDS[-1]}")
    floors = zoo_floors()
    all_heard = [h for world in worlds for h in heard(world, shelf, floors)]
    models = [h.model for h in all_heard]
    return FreshWorlds(
        stamp=provenance, command=command, worlds=tuple(w.world for w in worlds), models=len(models),
        calibrations={name: c.content_hash() for name, c in sorted(shelf.calibrations.items())},
        held_for={name: sum(name in h.holding for h in all_heard) for name in sorted(shelf.calibrations)},
        calibrated=_mistakes(models, lambda m: m.calibrated),
        in_case=_mistakes(models, lambda m: m.reached.rung.word),
        spoken=summary(models),
    )  # fmt: skip


# ---- the README's tables ----------------------------------------------------------------------------------------
LABELS = (
    ("false_alarms", "worlds with a false alarm on any clean model"),
    ("fakes_missed", "worlds with a fake in which no trace is stated"),
    ("edited_clean_alarms", "worlds with a trace stated of an edited clean model"),
    ("destroyed_not_invalid", "worlds with a destroyed model that is not INVALID"),
)


def _cell(counted: Rate) -> str:
    return f"{counted.k} of {counted.n} | {100 * counted.upper95:.2g} %"


def markdown(results: FreshWorlds) -> str:
    """The README's tables, from the results file alone."""
    rows = [
        f"| {words} | {_cell(getattr(results.calibrated, name))} | {_cell(getattr(results.in_case, name))} |"
        for name, words in LABELS
    ]
    ways = {"By the stored joint rule": results.calibrated, "By the case alone": results.in_case}
    exceptions = [f"- {way}: {x}" for way, counted in ways.items() for x in counted.exceptions]
    return "\n".join(
        [
            START,
            f"{results.models} models of {len(results.worlds)} fresh worlds; bounds are the exact one-sided 95 % ones.",
            "",
            "| count | by the stored joint rule | bound | by the case alone | bound |", "|---|---|---|---|---|", *rows,
            "",
            "Exceptions, all of them:",
            "",
            *(exceptions or ["- none"]),
            "",
            *tables_of_words(results.spoken),
            END,
        ]
    )  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Judge, count, and write the results and the README's tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrations", type=Path, default=stored(), help="the folder that holds them")
    parser.add_argument("--scores", type=Path, default=SCORES, help="the scores of the fresh worlds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    shelf = read_library(args.calibrations)
    if shelf.subjects is None:
        raise AuditError(f"{args.calibrations} holds no calibrations", "make them: residua calibrate")
    results = examine(read_pool(args.scores), shelf, stamp(0), "python -m studies.zoo.fresh_worlds")
    write(args.out, results)
    if args.out == RESULTS:
        README.write_text(with_section(README.read_text(encoding="utf-8"), markdown(results)), encoding="utf-8")
    log.info(markdown(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
