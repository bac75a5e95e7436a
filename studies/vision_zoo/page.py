"""What is counted of the vision zoo, and the README's tables of it."""

from audit.schema import Missing, Rate, Record
from studies.provenance import Stamp
from studies.zoo.spoken_words import CLEAN_WORD

END = "<!-- end of counts -->"


class Counts(Record):
    """Worlds with a mistake of each kind, every one by name; ``of``: all targets, classes, or single images.

    ``clean_audits``: clean models of which a trace is stated; its bound takes models of one world as independent.
    """

    of: str
    clean_audits: Rate
    false_alarms: Rate
    fakes_missed: Rate
    destroyed_not_invalid: Rate
    exceptions: tuple[str, ...]


class Line(Record):
    """The models of one mechanism in one pool, of classes or of single images: what is stated of how many.

    ``upper95`` bounds, for clean models, the rate of worlds with a trace stated; for knowing ones that of worlds with
    one missed. ``outputs`` is the mean effect of the output probability: 0 never trained, 1 base.
    """

    pool: str
    mechanism: str
    of: str
    models: int
    stated: int
    stopped: int
    below: int
    silent: int
    mistakes: Rate | Missing
    outputs: float | Missing


class FreshCounts(Record):
    """Counts of worlds that nothing was fitted on, by the stored rule and by the case alone."""

    worlds: tuple[int, ...]
    models: int
    held_for: dict[str, int]
    calibrated: Counts
    in_case: Counts
    clean_consistent: Rate


class VisionZoo(Record):
    """The results file. ``counts``: by a rule that knew neither world nor mechanism; ``of_other_worlds``: by one that
    knew the mechanism from other worlds. ``stages_cpu_s`` are means a world, ``audit_cpu_s`` the mean of one audit."""

    schema_version: str = "1.0"
    stamp: Stamp
    command: str
    worlds: int
    models: int
    subjects: str
    counts: tuple[Counts, ...]
    of_other_worlds: tuple[Counts, ...]
    lines: tuple[Line, ...]
    fresh: FreshCounts | Missing
    stages_cpu_s: dict[str, float]
    audit_cpu_s: float


LABELS = (
    ("clean_audits", "clean models of which a trace is stated"),
    ("false_alarms", "worlds with a false alarm on any clean model"),
    ("fakes_missed", "worlds with a fake in which no trace is stated"),
    ("destroyed_not_invalid", "worlds with a destroyed model that is not INVALID"),
)


def _cell(counted: Rate) -> str:
    return f"{counted.k} of {counted.n} | {100 * counted.upper95:.2g} %"


def _two(value: float | Missing) -> str:
    return "–" if isinstance(value, Missing) else f"{value:.2f}"


def _exceptions(counts: Counts) -> list[str]:
    return [f"- {name}" for name in counts.exceptions] or ["- none"]


def markdown(results: VisionZoo) -> str:
    """The README's tables, from the results file alone."""
    every, elsewhere = (
        [f"| {words} | " + " | ".join(_cell(getattr(c, name)) for c in counts) + " |" for name, words in LABELS]
        for counts in (results.counts, results.of_other_worlds)
    )
    heads = " | ".join(f"{counts.of} | bound" for counts in results.counts)
    lines = [
        f"| {x.pool} | `{x.mechanism}` | {x.of} | {x.models} | {x.stated} | {x.stopped} | {x.below} | {x.silent} | "
        f"{'– | –' if isinstance(x.mistakes, Missing) else _cell(x.mistakes)} | {_two(x.outputs)} |"
        for x in results.lines
    ]
    spent = ", ".join(f"{name} {seconds:.3g}" for name, seconds in results.stages_cpu_s.items())
    return "\n".join(
        [
            f"<!-- counts: made by {results.command.removeprefix('python -m ')} -->",
            f"{results.models} models of {results.worlds} worlds; bounds are the exact one-sided 95 % ones. Each is",
            "judged by a rule that knew neither its world nor its mechanism.",
            "",
            f"| count | {heads} |", "|---|" + "---|---|" * len(results.counts), *every,
            "",
            "The same by a rule that knew the mechanism from other worlds, and not the world:",
            "",
            f"| count | {heads} |", "|---|" + "---|---|" * len(results.counts), *elsewhere,
            "",
            "Exceptions of the second table, all of them:",
            "",
            *_exceptions(results.of_other_worlds[0]),
            "",
            "Models by pool, mechanism and what is forgotten. A mistake is a trace stated of a clean model, or none of",
            "a knowing one, in worlds:",
            "",
            "| pool | mechanism | of | models | trace stated | stopped by the gate | below | silent | mistakes | bound "
            "| mean output effect |",
            "|---|---|---|---|---|---|---|---|---|---|---|", *lines,
            "",
            *_fresh_tables(results.fresh),
            "",
            f"CPU-seconds a world, mean: {spent}. One audit: {results.audit_cpu_s:.3g}.",
            END,
        ]
    )  # fmt: skip


def _fresh_tables(fresh: FreshCounts | Missing) -> list[str]:
    if isinstance(fresh, Missing):
        return [f"Fresh worlds: {fresh.missing}."]
    rows = [
        f"| {words} | {_cell(getattr(fresh.calibrated, name))} | {_cell(getattr(fresh.in_case, name))} |"
        for name, words in LABELS
    ]
    ways = {"by the stored joint rule": fresh.calibrated, "by the case alone": fresh.in_case}
    exceptions = [f"- {way}: {name}" for way, counts in ways.items() for name in counts.exceptions]
    return [
        f"Fresh worlds ({fresh.models} models of {len(fresh.worlds)}), on which nothing was fitted:",
        "",
        "| count | by the stored joint rule | bound | by the case alone | bound |", "|---|---|---|---|---|", *rows,
        "",
        *(exceptions or ["- no exception"]),
        "",
        f"Clean models that are called {CLEAN_WORD}: {fresh.clean_consistent.k} of {fresh.clean_consistent.n}.",
    ]  # fmt: skip
