"""Say what differs between two audits of one case beyond noise."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import flags
from audit.cli.answer import Answer, JsonValue

if TYPE_CHECKING:
    from rich.table import Table

    from audit.review import Comparison, Difference, Side

ORDER = 80
HEADINGS = ("measurement", "number", "A", "B", "B less A (95 %)", "p, Holm", "how", "beyond noise")


def add_arguments(parser: ArgumentParser) -> None:
    """The two audits."""
    parser.add_argument("a", metavar="A", help="run folder, or its report.json")
    parser.add_argument("b", metavar="B", help="another of the same base and forget set")
    flags.add_unverified(parser)


def act(args: Namespace) -> Answer:
    """What differs between two audits of one case beyond noise. It reports, and gates nothing: exit code 0."""
    from audit.review import compare, read_side

    a, b = read_side(Path(args.a), not args.no_verify), read_side(Path(args.b), not args.no_verify)
    comparison = compare(a, b)
    remarks = tuple(f"{name}: {side.remark}" for name, side in (("A", a), ("B", b)) if side.remark)
    document: dict[str, JsonValue] = {
        "a": a.report.report_id, "b": b.report.report_id, "verdicts": _verdicts(a, b), "remarks": [*remarks],
        **_document(comparison),
    }  # fmt: skip
    return Answer(document, (_table(a, b, comparison), *_lines(a, b, comparison)), remarks=remarks)


def _verdicts(a: "Side", b: "Side") -> list[JsonValue]:
    return [a.report.verdict.word, b.report.verdict.word]


def _differing(comparison: "Comparison") -> list[str]:
    return [difference.measurement for difference in comparison.differences if difference.differs]


def _document(comparison: "Comparison") -> dict[str, JsonValue]:
    listed: list[JsonValue] = [
        {**d._asdict(), "ci95": {"lo": d.ci95.lo, "hi": d.ci95.hi}, "differs": d.differs}
        for d in comparison.differences
    ]
    return {
        "differences": listed, "differing": list[JsonValue](_differing(comparison)),
        "outcomes": [{"measurement": name, "a": was, "b": now} for name, was, now in comparison.outcomes],
        "findings": [{"finding": name, "a": was, "b": now} for name, was, now in comparison.findings],
        "uncompared": [{"measurement": name, "because": why} for name, why in comparison.uncompared],
        "only_a": list(comparison.only_a), "only_b": list(comparison.only_b), "plans": list(comparison.plans),
    }  # fmt: skip


def _table(a: "Side", b: "Side", comparison: "Comparison") -> "Table":
    from rich.table import Table

    titles = (f"{label} {side.report.plan.case.name} {side.report.report_id}" for label, side in (("A", a), ("B", b)))
    table = Table(title=", ".join(titles))
    for heading in HEADINGS:
        table.add_column(heading)
    for difference in comparison.differences:
        table.add_row(*_cells(difference))
    return table


def _cells(difference: "Difference") -> tuple[str, ...]:
    from audit.wording import number

    d, ci95 = difference, difference.ci95
    change = f"{number(d.change)} ({number(ci95.lo)} to {number(ci95.hi)})"
    how = f"paired over {d.groups} groups" if d.how == "paired" else "approximate, from the intervals"
    differs = "differs" if d.differs else "no"
    p = f"< {number(d.holm)}" if d.bounded and d.holm < 1 else number(d.holm)
    return d.measurement, d.number, number(d.a), number(d.b), change, p, how, differs


def _lines(a: "Side", b: "Side", comparison: "Comparison") -> list[str]:
    """Everything beside the numbers: verdicts, outcomes, what could not be compared, and the plans."""
    from audit.review import ALPHA

    was, now = _verdicts(a, b)
    lines = [f"verdict: A {was}, B {now}{'' if was != now else ' (the same)'}"]
    lines += [f"outcome of {name}: A {was}, B {now}" for name, was, now in comparison.outcomes]
    lines += [f"finding {name}: A {was}, B {now}" for name, was, now in comparison.findings]
    lines += [f"{name}: not compared, {why}" for name, why in comparison.uncompared]
    lines += [f"only in A: {name}" for name in comparison.only_a]
    lines += [f"only in B: {name}" for name in comparison.only_b]
    lines += [f"plans: {line}" for line in comparison.plans] or ["plans: the same"]
    lines.append(
        f"{len(_differing(comparison))} of {len(comparison.differences)} compared measurements differ beyond noise "
        f"(p adjusted by Holm over all of them, below {ALPHA})"
    )
    return lines
