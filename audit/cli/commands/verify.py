"""Recompute hashes, schema, id, evidence and verdict of a finished run."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.cli import flags
from audit.cli.answer import Answer, JsonValue

ORDER = 70


def add_arguments(parser: ArgumentParser) -> None:
    """Which run, whether its custody log is to know, and what would fail it."""
    parser.add_argument("run", help="run folder, or a report: in it, or on its own (.json, or .html with its data)")
    parser.add_argument("--log", action="store_true", help="write the outcome into the run's custody log")
    parser.add_argument("--calibrations", metavar="DIR", help="calibrations it was judged by, if not the probes' own")
    parser.add_argument("--signed-by", metavar="KEY", help="reject it unless it is signed with this public key "
                        "(minisign)")  # fmt: skip
    flags.add_gate(parser)


def act(args: Namespace) -> Answer:
    """Recompute everything that can be recomputed; exit code 3 if it does not stand. Writes only if asked to log."""
    from audit.review import exit_code, verify_run
    from audit.runs import code_version, custody
    from audit.schema import AuditError, ExitCode

    gate = flags.gate(args)
    calibrations, signer = (Path(given) if given else None for given in (args.calibrations, args.signed_by))
    outcome = verify_run(Path(args.run), calibrations, signer)
    word = "accepted" if outcome.accepted else "REJECTED"
    lines = [f"{outcome.subject}: {word}", *(f"  {problem}" for problem in outcome.problems)]
    lines += [f"  remark: {remark}" for remark in outcome.remarks]
    if args.log:
        if not Path(outcome.subject).is_dir():
            raise AuditError(f"{outcome.subject} stands alone: it has no custody log", "leave out --log")
        line = custody.append(Path(outcome.subject), "verified", {"outcome": word.lower()}, code_version())
        lines.append(f"  written down: {custody.NAME}, line {line.n}")
    code = ExitCode.OK if outcome.accepted else ExitCode.INTEGRITY
    if outcome.report is not None and outcome.accepted and gate.is_set:
        code = exit_code(outcome.report, gate)
    document: dict[str, JsonValue] = {
        "subject": outcome.subject, "accepted": outcome.accepted, "problems": list(outcome.problems),
        "remarks": list(outcome.remarks), "exit_code": code,
    }  # fmt: skip
    return Answer(document, tuple(lines), code)
