"""What the verdict says of every model of the pools, each by a rule that knew neither its world nor its mechanism.

``python -m studies.zoo.verdicts`` reads the scores (for the words) and the stored calibrations, and writes
``verdicts.json`` and the tables in the README beside it. Agreement with relearning is counted by a rule from which
relearning was left out.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import stats as scipy_stats

from audit.calibration import (
    Calibration,
    HeldOut,
    Roster,
    Subjects,
    Table,
    WorldScores,
    judged_apart,
    rate,
    read_library,
    read_pool,
    stated,
    stored,
    table_of,
    write,
)
from audit.schema import AuditError, Interval, Kind, Missing, Rate, Record
from audit.stats import significant
from audit.zoo import mechanisms
from studies.pages import with_section
from studies.provenance import Stamp, stamp
from studies.zoo.spoken_words import Spoken, spoken
from studies.zoo.spoken_words import markdown as tables_of_words

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
RESULTS, README = HERE / "verdicts.json", HERE / "README.md"
START, END = "<!-- verdicts: made by studies.zoo.verdicts -->", "<!-- end of verdicts -->"
RELEARNING = "relearning_recovery"
REFUSALS = ("refusal", "refusal_dpo")
UNSEEN = 126
"""The rule was shaped on the worlds before this one; those from here on were scored when it stood."""
DIGITS = 4


class Line(Record):
    """The models of one mechanism in one pool: in how many the verdict states a trace, and what the others are.

    ``stopped``: INVALID, or no gate. ``below``: over-suppressed. ``silent``: nothing of these. ``outputs``: the mean
    effect of the output probability on the trained rows (0 never trained, 1 base).
    """

    pool: str
    mechanism: str
    models: int
    stated: int
    stopped: int
    below: int
    silent: int
    outputs: float | Missing


class Agreement(Record):
    """Models that base became by one mechanism: does held-out relearning find knowledge, does the verdict?"""

    mechanism: str
    both: int
    relearning_only: int
    verdict_only: int
    neither: int


class Ordering(Record):
    """Spearman's correlation of the joint score with the audited people kept, within a world: mean over worlds.

    The interval is Student's over worlds, cut at 1.
    """

    mean: float
    ci95: Interval
    worlds: int
    each: dict[str, float]


class Counts(Record):
    """What is claimed of the verdict on models of known truth; every exception by name."""

    false_alarms: Rate
    fakes_missed: Rate
    destroyed_not_invalid: Rate
    edited_clean_alarms: Rate
    edited_clean_below: Rate
    refusals_known_and_missed: Rate
    one_alone_found: Rate
    exceptions: tuple[str, ...]


class Verdicts(Record):
    """The results file. ``later`` counts the worlds from ``unseen`` on, which did not shape the rule."""

    schema_version: Literal["1.1", "1.2"] = "1.2"
    stamp: Stamp
    command: str
    worlds: int
    unseen: int
    subjects: str
    spoken: Spoken | Missing = Missing(missing="no scores were read")
    counts: Counts
    later: Counts
    lines: tuple[Line, ...]
    agreement: tuple[Agreement, ...]
    doses: Ordering


class _Judged(NamedTuple):
    """All models, the names of each, what the verdict states of them, what the joint rule finds, and its scores."""

    people: Roster
    name: ndarray
    stated: Bool[ndarray, " subject"]
    joint: Bool[ndarray, " subject"]
    score: Float[ndarray, " subject"]

    def lines(self, which: Bool[ndarray, " subject"], label: str) -> list[str]:
        """These models, a line each."""
        return [f"world {self.people.world[i]}, {self.name[i]}: {label}" for i in np.flatnonzero(which)]

    def worlds(self, which: Bool[ndarray, " subject"]) -> int:
        """In how many worlds they are."""
        return len(np.unique(self.people.world[which]))

    def rate(self, wrong: Bool[ndarray, " subject"], of: Bool[ndarray, " subject"]) -> Rate:
        """Worlds in which any of these is wrong."""
        return rate(self.worlds(wrong & of), self.worlds(of))


class _Effect(NamedTuple):
    """A measurement's effect on every model, and its threshold."""

    value: Float[ndarray, " subject"]
    threshold: float


def _judge(subjects: Subjects, calibrations: Mapping[str, Calibration]) -> tuple[_Judged, Table]:
    table = table_of(subjects, calibrations, None)
    joint = judged_apart(table)
    held: HeldOut = stated(table.people, joint)
    names = np.array([s.model for s in subjects.subjects], dtype=object)
    return _Judged(table.people, names, held.trace, joint.trace, held.score), table


def _effect(calibrations: Mapping[str, Calibration], kind: Kind, n: int) -> _Effect:
    """The effect of the first measurement of this kind on trained rows; NaN where a model has none."""
    measured = [m for c in calibrations.values() for m in c.measurements if m.kind == kind and m.form == "trained"]
    effect = np.full(n, np.nan)
    if not measured:
        return _Effect(effect, np.inf)
    column = next(column for column in measured[0].columns if column.feature == "effect")
    effect[list(column.subject)] = column.value
    return _Effect(effect, measured[0].threshold)


def examine(
    subjects: Subjects,
    calibrations: Mapping[str, Calibration],
    provenance: Stamp,
    command: str,
    unseen: int = UNSEEN,
    scores: Sequence[WorldScores] = (),
) -> Verdicts:
    """Every count, from stored features alone; words from ``scores``, where they are given.

    AuditError (code 2) where relearning is not calibrated.
    """
    if RELEARNING not in calibrations:
        raise AuditError("relearning is not calibrated here", "make the calibrations again: residua calibrate")
    full, _ = _judge(subjects, calibrations)
    without_relearning, _ = _judge(subjects, {name: c for name, c in calibrations.items() if name != RELEARNING})
    n = len(full.name)
    recovery = _effect({RELEARNING: calibrations[RELEARNING]}, "recovery", n)
    relearned, tried = np.nan_to_num(recovery.value, nan=-np.inf) > recovery.threshold, np.isfinite(recovery.value)
    outputs = _effect(calibrations, "output", n).value
    counts, later = (
        _counts(full, without_relearning, relearned & tried, full.people.world >= first) for first in (-1, unseen)
    )  # fmt: skip
    words = spoken(scores, subjects, full.people, full.joint) if scores else Missing(missing="no scores were read")
    return Verdicts(
        spoken=words,
        stamp=provenance, command=command, worlds=subjects.worlds, unseen=unseen, subjects=subjects.content_hash(),
        counts=counts, later=later, lines=_lines(full, outputs),
        agreement=_agreement(without_relearning, relearned, tried), doses=_ordering(full),
    )  # fmt: skip


def _single(names: ndarray) -> str:
    """The model that knows one person, drawn from all; in pools before there was one, the one of the audit's half."""
    return "some_1" if (names == "some_1").any() else "dose_one_audited"


def _counts(
    full: _Judged, without_relearning: _Judged, relearned: Bool[ndarray, " subject"], taken: Bool[ndarray, " subject"]
) -> Counts:
    """The counts of the models ``taken``."""
    people, says = full.people, full.stated
    fakes = taken & np.isin(people.mechanism, mechanisms.of_kind("fake"))
    clean, destroyed, edited = (taken & (people.pool == pool) for pool in ("clean", "destroyed", "edited clean"))
    refusals = taken & np.isin(people.mechanism, REFUSALS) & (people.pool == "described") & relearned
    stopped, single_person = people.alone == "stopped", taken & (full.name == _single(full.name))
    return Counts(
        false_alarms=full.rate(says, clean),
        fakes_missed=full.rate(~says, fakes),
        destroyed_not_invalid=full.rate(~stopped, destroyed),
        edited_clean_alarms=full.rate(says, edited),
        edited_clean_below=full.rate(people.alone == "below", edited),
        refusals_known_and_missed=full.rate(~without_relearning.stated, refusals),
        one_alone_found=full.rate(says, single_person),
        exceptions=(
            *full.lines(says & clean, "false alarm"),
            *full.lines(~says & fakes, "a fake that was missed"),
            *full.lines(~stopped & destroyed, "destroyed, and not INVALID"),
            *full.lines(says & edited, "edited clean, and a trace is stated"),
            *full.lines(
                ~without_relearning.stated & refusals, "a refusal that relearning shows to know, and no trace is stated"
            ),
        ),
    )


def _lines(judged: _Judged, outputs: Float[ndarray, " subject"]) -> tuple[Line, ...]:
    people, lines = judged.people, list[Line]()
    for pool, mechanism in sorted({(str(p), str(m)) for p, m in zip(people.pool, people.mechanism, strict=True)}):
        chosen = (people.pool == pool) & (people.mechanism == mechanism)
        stopped = chosen & (people.alone == "stopped")
        says = chosen & (judged.stated if mechanism != "base" else people.alone == "shown")
        below = chosen & ~says & (people.alone == "below")
        n, counts = int(chosen.sum()), [int(x.sum()) for x in (says, stopped, below)]
        lines.append(
            Line(
                pool=pool,
                mechanism=mechanism,
                models=n,
                stated=counts[0],
                stopped=counts[1],
                below=counts[2],
                silent=n - sum(counts),
                outputs=_mean(outputs[chosen]),
            )  # fmt: skip
        )
    return tuple(lines)


def _mean(effects: Float[ndarray, " model"]) -> float | Missing:
    seen = effects[np.isfinite(effects)]
    return significant(seen.mean(), DIGITS) if len(seen) else Missing(missing="not measured")


def _agreement(
    without_relearning: _Judged, relearned: Bool[ndarray, " subject"], tried: Bool[ndarray, " subject"]
) -> tuple[Agreement, ...]:
    rows: list[Agreement] = []
    usable = (without_relearning.people.pool == "described") & tried & (without_relearning.people.alone != "stopped")
    for mechanism in mechanisms.of_kind("unlearner"):
        chosen = usable & (without_relearning.people.mechanism == mechanism)
        pairs = [(bool(r), bool(s)) for r, s in zip(relearned[chosen], without_relearning.stated[chosen], strict=True)]
        rows.append(
            Agreement(
                mechanism=mechanism,
                both=pairs.count((True, True)),
                relearning_only=pairs.count((True, False)),
                verdict_only=pairs.count((False, True)),
                neither=pairs.count((False, False)),
            )  # fmt: skip
        )
    return tuple(rows)


def _ordering(judged: _Judged) -> Ordering:
    """Within each world with doses: the joint score of the audited reference and of every dose against people kept."""
    people, each = judged.people, dict[str, float]()
    taken = (people.mechanism == "dose") | (judged.name == "reference_0")
    for world in np.unique(people.world[people.mechanism == "dose"]):
        chosen = taken & (people.world == world)
        ranks = [scipy_stats.rankdata(values[chosen]) for values in (people.kept, judged.score)]
        rho = float(np.corrcoef(ranks)[0, 1])
        each[str(world)] = significant(rho, DIGITS)
    rhos = np.array(list(each.values()))
    half = float(scipy_stats.t.ppf(0.975, len(rhos) - 1) * rhos.std(ddof=1) / np.sqrt(len(rhos)))
    mean = float(rhos.mean())
    ends = Interval(lo=significant(max(mean - half, -1.0), DIGITS), hi=significant(min(mean + half, 1.0), DIGITS))
    return Ordering(mean=significant(mean, DIGITS), ci95=ends, worlds=len(rhos), each=each)


# ---- the README's tables ----------------------------------------------------------------------------------------
COUNT_WORDS = (
    ("false_alarms", "worlds with a false alarm on any clean model"),
    ("fakes_missed", "worlds with a fake in which no trace is stated"),
    ("destroyed_not_invalid", "worlds with a destroyed model that is not INVALID"),
    ("refusals_known_and_missed", "worlds with a refusal that held-out relearning shows to know, and no trace stated"),
    ("edited_clean_alarms", "worlds with a trace stated of an edited clean model"),
    ("edited_clean_below", "worlds with an edited clean model below the never-trained level"),
    ("one_alone_found", "worlds in which one person alone, of all forget people, is found"),
)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.095 else f"{100 * share:.0f} %"


def _tally_cell(counts: Counts, name: str) -> str:
    tally: Rate = getattr(counts, name)
    return f"{tally.k} of {tally.n} | {_percent(tally.upper95)}"


def _two(value: float | Missing) -> str:
    return "–" if isinstance(value, Missing) else f"{value:.2f}"


def markdown(verdicts: Verdicts) -> str:
    """The README's tables, from the results file alone."""
    counts = [
        f"| {words} | {_tally_cell(verdicts.counts, name)} | {_tally_cell(verdicts.later, name)} |"
        for name, words in COUNT_WORDS
    ]
    lines = [
        f"| {x.pool} | `{x.mechanism}` | {x.models} | {x.stated} | {x.stopped} | {x.below} | {x.silent} "
        f"| {_two(x.outputs)} |"
        for x in verdicts.lines
    ]
    agreed = [
        f"| `{x.mechanism}` | {x.both} | {x.relearning_only} | {x.verdict_only} | {x.neither} |"
        for x in verdicts.agreement
    ]
    ordering = verdicts.doses
    return "\n".join(
        [
            START,
            f"{verdicts.worlds} worlds; bounds are the exact one-sided 95 % ones.",
            "",
            f"| count | worlds | bound | from world {verdicts.unseen} on | bound |", "|---|---|---|---|---|", *counts,
            "",
            f"Within a world the joint score orders reference and doses with Spearman's rho {ordering.mean:.2f} on",
            f"average ({ordering.ci95.lo:.2f} to {ordering.ci95.hi:.2f} over {ordering.worlds} worlds).",
            "",
            "Exceptions, all of them:",
            "",
            *([f"- {name}" for name in verdicts.counts.exceptions] or ["- none"]),
            "",
            "Models by pool and mechanism, and what the verdict says of them:",
            "",
            "| pool | mechanism | models | trace stated | stopped by the gate | below | silent | mean output effect |",
            "|---|---|---|---|---|---|---|---|", *lines,
            "",
            "Base after each unlearner: held-out relearning (R) and the verdict of a rule without it (V):",
            "",
            "| mechanism | R and V | R only | V only | neither |", "|---|---|---|---|---|", *agreed,
            *(() if isinstance(verdicts.spoken, Missing) else ("", *tables_of_words(verdicts.spoken))),
            END,
        ]
    )  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Count, and write the results and the README's tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrations", type=Path, default=stored(), help="the folder that holds them")
    parser.add_argument("--scores", type=Path, default=HERE / "scores", help="the scores that they were made from")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    shelf = read_library(args.calibrations)
    if shelf.subjects is None:
        raise AuditError(f"{args.calibrations} holds no calibrations", "make them: residua calibrate")
    verdicts = examine(
        shelf.subjects, shelf.calibrations, stamp(0), "python -m studies.zoo.verdicts", scores=read_pool(args.scores)
    )
    write(args.out, verdicts)
    if args.out == RESULTS:
        README.write_text(with_section(README.read_text(encoding="utf-8"), markdown(verdicts)), encoding="utf-8")
    log.info(markdown(verdicts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
