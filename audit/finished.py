"""The verbs on what is there already: verify and compare finished runs, ask a gate of them, look after the cache."""

import argparse
from contextlib import suppress
from pathlib import Path

from rich.table import Table

from audit.answer import Answer, JsonValue
from audit.review import Gate, exit_code, parse_threshold
from audit.schema import AuditError, ExitCode, Report
from audit.wording import number


def gate_of(args: argparse.Namespace) -> Gate:
    """The gate that the flags ask for. AuditError (code 2) for one that makes no sense."""
    from audit.review import read_side

    threshold = parse_threshold(args.fail_on) if args.fail_on else None
    if args.baseline and threshold is None:
        raise AuditError("--baseline says which traces are known, but no gate was given", "add --fail-on")
    if args.min_power is not None and not 0 < args.min_power <= 1:
        raise AuditError(f"--min-power {args.min_power:g} is no power", "give a share above 0, at most 1, such as 0.8")
    baseline = read_side(Path(args.baseline)).report if args.baseline else None
    return Gate(threshold, args.min_power, baseline, args.allow_undecided)


def gated(report: Report, args: argparse.Namespace) -> int:
    """The exit code of looking at a finished report: 0, unless a gate was asked for."""
    gate = gate_of(args)
    return exit_code(report, gate) if gate.is_set else ExitCode.OK


def verify(args: argparse.Namespace) -> Answer:
    """Recompute everything that can be recomputed; exit code 3 if it does not stand. Writes only if asked to log."""
    from audit.review import verify_run
    from audit.runs import code_version, custody

    gate = gate_of(args)
    found = verify_run(Path(args.run), Path(args.calibrations) if args.calibrations else None)
    word = "accepted" if found.accepted else "REJECTED"
    lines = [f"{found.subject}: {word}", *(f"  {problem}" for problem in found.problems)]
    lines += [f"  remark: {remark}" for remark in found.remarks]
    if args.log:
        if not Path(found.subject).is_dir():
            raise AuditError(f"{found.subject} stands alone: it has no custody log", "leave out --log")
        line = custody.append(Path(found.subject), "verified", {"outcome": word.lower()}, code_version())
        lines.append(f"  written down: {custody.NAME}, line {line.n}")
    code = ExitCode.OK if found.accepted else ExitCode.INTEGRITY
    if found.report is not None and found.accepted and gate.is_set:
        code = exit_code(found.report, gate)
    document: dict[str, JsonValue] = {
        "subject": found.subject, "accepted": found.accepted, "problems": list(found.problems),
        "remarks": list(found.remarks), "exit_code": code,
    }  # fmt: skip
    return Answer(document, tuple(lines), code)


def compare(args: argparse.Namespace) -> Answer:
    """What differs between two audits of one case beyond noise. It reports, and gates nothing: exit code 0."""
    from audit.review import ALPHA, compare, read_side

    a, b = read_side(Path(args.a)), read_side(Path(args.b))
    found = compare(a, b)
    table = Table(title=f"A {a.report.plan.case.name} {a.report.report_id}, B {b.report.plan.case.name} "
                  f"{b.report.report_id}")  # fmt: skip
    for heading in ("measurement", "A", "B", "B less A (95 %)", "p, Holm", "how", "beyond noise"):
        table.add_column(heading)
    listed: list[JsonValue] = []
    for one in found.differences:
        change = f"{number(one.change)} ({number(one.ci95.lo)} to {number(one.ci95.hi)})"
        how = f"paired over {one.groups} groups" if one.how == "paired" else "approximate, from the intervals"
        cells = (one.measurement, number(one.a), number(one.b), change, number(one.holm), how)
        table.add_row(*cells, "▲ differs" if one.differs else "● no")
        listed.append({**one._asdict(), "ci95": {"lo": one.ci95.lo, "hi": one.ci95.hi}, "differs": one.differs})
    differing = [one.measurement for one in found.differences if one.differs]
    words = [a.report.verdict.word, b.report.verdict.word]
    lines = [f"verdict: A {words[0]}, B {words[1]}{'' if words[0] != words[1] else ' (the same)'}"]
    lines += [f"outcome of {name}: A {was}, B {now}" for name, was, now in found.outcomes]
    lines += [f"{name}: not compared, {why}" for name, why in found.uncompared]
    lines += [f"only in {side}: {name}" for side, names in (("A", found.only_a), ("B", found.only_b)) for name in names]
    lines += [f"plans: {line}" for line in found.plans] or ["plans: the same"]
    lines.append(
        f"{len(differing)} of {len(found.differences)} compared measurements differ beyond noise (p adjusted by Holm "
        f"over all of them, below {ALPHA})"
    )
    document: dict[str, JsonValue] = {
        "a": a.report.report_id, "b": b.report.report_id, "verdicts": list[JsonValue](words), "differences": listed,
        "differing": list[JsonValue](differing),
        "outcomes": [{"measurement": n, "a": was, "b": now} for n, was, now in found.outcomes],
        "uncompared": [{"measurement": name, "because": why} for name, why in found.uncompared],
        "only_a": list(found.only_a), "only_b": list(found.only_b), "plans": list(found.plans),
    }  # fmt: skip
    return Answer(document, (table, *lines))


def cache(args: argparse.Namespace) -> Answer:
    """What the cache holds, and how large that is. Only the store is pruned: the rest is trained worlds and records."""
    from audit.planning import parse_bytes
    from audit.storage import Store, cache_root
    from audit.wording import told_bytes

    root = cache_root()
    freed = Store(root / "store").prune(parse_bytes(args.prune)) if args.prune is not None else 0
    sizes = {path.name: _bytes_of(path) for path in sorted(root.iterdir())} if root.is_dir() else {}
    lines = [f"{root}: {told_bytes(sum(sizes.values()))}"]
    lines += [f"  {name}: {told_bytes(size)}" for name, size in sizes.items()]
    lines += [f"freed: {told_bytes(freed)}"] if args.prune is not None else []
    document: dict[str, JsonValue] = {
        "root": str(root), "bytes": sum(sizes.values()), "parts": dict[str, JsonValue](sizes), "freed": freed,
    }  # fmt: skip
    return Answer(document, tuple(lines))


def _bytes_of(path: Path) -> int:
    """A file's size, or that of all files below a folder; what another process deletes meanwhile counts as nothing."""
    found = 0
    for below in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            found += below.stat().st_size if below.is_file() else 0
    return found
