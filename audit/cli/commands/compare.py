"""Say what differs between audits of one case beyond noise."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
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
    """The audits."""
    parser.add_argument("a", metavar="A", help="run folder, or its report.json")
    parser.add_argument("others", nargs="+", metavar="B", help="another of the same base and forget set; several are "
                        "each held against A")  # fmt: skip
    flags.add_unverified(parser)


def act(args: Namespace) -> Answer:
    """What differs between audits of one case beyond noise. It reports, and gates nothing: exit code 0."""
    from audit.review import compare, compare_with_first, read_side

    a, *others = (read_side(Path(path), not args.no_verify) for path in (args.a, *args.others))
    remarks = tuple(f"{letter(n)}: {side.remark}" for n, side in enumerate((a, *others)) if side.remark)
    if len(others) == 1:
        return _of_two(a, others[0], compare(a, others[0]), remarks)
    comparisons = compare_with_first(a, others)
    document: dict[str, JsonValue] = {
        "a": a.report.report_id, "verdicts": [side.report.verdict.word for side in (a, *others)],
        "remarks": [*remarks],
        "against_a": [
            {"b": side.report.report_id, **_document(comparison)}
            for side, comparison in zip(others, comparisons, strict=True)
        ],
    }  # fmt: skip
    return Answer(document, (_many([a, *others], comparisons), *_counts(comparisons)), remarks=remarks)


def letter(n: int) -> str:
    """What the n-th audit is called: A to Z, then A1, B1 ..."""
    again, place = divmod(n, 26)
    return f"{chr(ord('A') + place)}{again or ''}"


def _of_two(a: "Side", b: "Side", comparison: "Comparison", remarks: tuple[str, ...]) -> Answer:
    document: dict[str, JsonValue] = {
        "a": a.report.report_id, "b": b.report.report_id, "verdicts": _verdicts(a, b), "remarks": [*remarks],
        **_document(comparison),
    }  # fmt: skip
    return Answer(document, (_table(a, b, comparison), *_lines(a, b, comparison)), remarks=remarks)


def _many(sides: "Sequence[Side]", comparisons: "Sequence[Comparison]") -> "Table":
    """A row a measurement, a column an audit; what differs from A beyond noise is marked."""
    from rich.table import Table
    from rich.text import Text

    from audit.wording import number

    table = Table(title="every audit beside A; ≠ differs from A beyond noise")
    table.add_column("measurement", no_wrap=True)
    for n, side in enumerate(sides):
        report = side.report
        table.add_column(Text(f"{letter(n)} {report.plan.case.name}\n{report.verdict.word}"), justify="right")
    cells: dict[str, list[str]] = {}
    for place, comparison in enumerate(comparisons, 1):
        for d in comparison.differences:
            row = cells.setdefault(d.measurement, [number(d.a), *["–"] * (len(sides) - 1)])
            row[place] = f"{number(d.b)}{' ≠' if d.differs else ''}"
    for name in sorted(cells):
        table.add_row(name, *cells[name])
    return table


def _counts(comparisons: "Sequence[Comparison]") -> list[str]:
    """How many measurements differ in each, what could not be compared, and over what p are adjusted."""
    from audit.review import ALPHA

    lines = list[str]()
    for n, comparison in enumerate(comparisons, 1):
        line = (
            f"{letter(n)}: {len(_differing(comparison))} of {len(comparison.differences)} compared measurements differ"
        )
        left = [name for name, _ in comparison.uncompared] + [*comparison.only_a, *comparison.only_b]
        lines.append(line + (f"; not in both, or without a number: {', '.join(left)}" if left else ""))
    lines.append(f"p adjusted by Holm over all of them, below {ALPHA}; two audits alone: every number and its interval")
    return lines


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
        table.add_column(heading, no_wrap=heading == HEADINGS[0])
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
