"""The command line: ``residua <verb>``. Human text and progress go to stderr, ``--json`` one object to stdout.

Nothing heavy is imported before a verb runs, so that ``--help`` answers at once.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from audit.version import __version__

if TYPE_CHECKING:
    from audit.answer import Answer
    from audit.schema import AuditError

BACKENDS = ("native", "transformer_lens", "nnsight")


def _count(text: str) -> int:
    """How many threads or processes."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def _odds(text: str) -> float:
    """Odds: above 0 and finite."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} are no odds: give a number above 0")
    return found


def _output_flags(parser: argparse.ArgumentParser) -> None:
    stdout = parser.add_mutually_exclusive_group()
    stdout.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")
    stdout.add_argument("--jsonl", action="store_true", help="print a JSON object a line on stdout: every step, "
                        "and the answer last")  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def _how_flags(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how (recorded in the report, outside the plan)")
    how.add_argument("--backend", choices=BACKENDS, default="native", help="what runs the model (default: native)")
    how.add_argument("--device", default="cpu", help="any torch device (default: cpu)")
    dtypes, attentions = ("float32", "bfloat16", "float16"), ("default", "eager", "sdpa")
    how.add_argument("--dtype", choices=dtypes, default="float32", help="of the weights (default: float32)")
    how.add_argument("--attention", choices=attentions, default="default", help="default: the model family's own")
    how.add_argument("--threads", type=_count, default=1, metavar="N", help="torch threads (default: 1)")
    how.add_argument("--store", metavar="DIR", help="cached activations ('none': keep nothing; default: in the cache)")
    how.add_argument("--calibrations", metavar="DIR", help="calibrations that may judge (default: the probes' own)")
    how.add_argument("--online", action="store_true", help="fetch named commits from the hub (default: offline)")


def _gate_flags(parser: argparse.ArgumentParser) -> None:
    gate = parser.add_argument_group("gate (changes the exit code, never what is reported)")
    gate.add_argument("--fail-on", metavar="GATE", help="exit 1 on a trace: any, p=0.01 or lr=10")
    gate.add_argument("--baseline", metavar="REPORT", help="fail only on traces that this report or run has not")
    gate.add_argument("--min-power", type=float, metavar="SHARE", help="exit 4 on a clean verdict whose detection "
                      "limit is unknown or was found less often")  # fmt: skip
    gate.add_argument("--allow-undecided", action="store_true", help="exit 0 also where the audit cannot decide")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="residua", description="What is left in a model of the thing it was asked to forget?",
        epilog="To begin: `residua demo` shows it at work; `residua init` writes a case file to fill in, `plan` says "
        "what an audit of it would do, `run` makes it.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"residua {__version__}")
    parser.add_argument("--help-exit-codes", action="store_true", help="print what the exit codes mean")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")

    def verb(name: str, about: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=about, description=about)
        _output_flags(added)
        return added

    init = verb("init", "write a commented case.toml")
    init.add_argument("path", nargs="?", default="case.toml", help="where (default: case.toml)")
    demo = verb("demo", "train a small world of known truth and audit every suspect in it")
    demo.add_argument("--world", choices=("demo", "tiny"), default="demo", help="tiny: to try the plumbing")
    demo.add_argument("--seed", type=int, default=0, help="which people are made up (default: 0)")
    demo.add_argument("-o", "--out", default="runs", metavar="DIR", help="where the reports go (default: runs)")
    demo.add_argument("--workers", type=_count, metavar="N", help="processes that train (default: 2)")
    _how_flags(demo)
    for name, about in (
        ("plan", "say what would be done and what it costs (run --dry-run)"),
        ("run", "audit a suspect"),
    ):
        added = verb(name, about)
        added.add_argument("case", nargs="?", default="case.toml", help="the case file (default: case.toml)")
        added.add_argument("-o", "--out", metavar="DIR", help="the run folder (default: runs/<name of the case>)")
        _how_flags(added)
        limits = added.add_argument_group("limits (tests that do not fit are left out, and named in plan and report)")
        limits.add_argument("--max-time", metavar="TIME", help="of the whole run: seconds, or such as 15m or 2h")
        limits.add_argument("--max-mem", metavar="BYTES", help="of the process: such as 500M or 4G")
        if name == "run":
            added.add_argument("--dry-run", action="store_true", help="plan only")
            added.add_argument("--force-new", action="store_true", help="start over; what is there is kept aside")
            _gate_flags(added)
    _forecast(verb("forecast", "before unlearning: which items will be hard, and what is tied to what must stay"))
    report = verb("report", "show a finished report, or write it elsewhere")
    report.add_argument("run", help="run folder, or a report in it")
    _report_flags(report)
    _gate_flags(report)
    check = verb("verify", "recompute hashes, schema, id, evidence and verdict of a finished run")
    check.add_argument("run", help="run folder, or a report: in it, or on its own (.json, or .html with its data)")
    check.add_argument("--log", action="store_true", help="write the outcome into the run's custody log")
    check.add_argument("--calibrations", metavar="DIR", help="calibrations it was judged by, if not the probes' own")
    _gate_flags(check)
    both = verb("compare", "say what differs between two audits of one case beyond noise")
    both.add_argument("a", metavar="A", help="run folder, or its report.json")
    both.add_argument("b", metavar="B", help="another of the same base and forget set")
    cache = verb("cache", "say how large the cache is, and make it smaller")
    cache.add_argument("--prune", nargs="?", const="0", metavar="SIZE", help="drop cached activations and fitted "
                       "models, used longest ago first, down to SIZE such as 10G (default: all)")  # fmt: skip
    _calibrate(verb("calibrate", "measure the mistakes of every rule on models of known truth"))
    board = verb("dashboard", "look at finished and running audits in a browser, and start new ones")
    board.add_argument("runs", nargs="?", default="runs", metavar="RUNS_DIR", help="folder of runs (default: runs)")
    board.add_argument("--port", type=int, metavar="N", help="of this machine (default: 8501, or any that is free)")
    verb("probes", "list the probes, what they ask and their settings")
    print_of = verb("fingerprint", "name the weights in a folder by their content")
    print_of.add_argument("folder", help="a checkpoint: plain, an adapter or an edited one")
    return parser


def _report_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", metavar="PATH", help="a file (.html, .md, .json, .xml: JUnit, _EVAL.json: "
                        "OpenUnlearning's shape, .model-index.yml: for a model card) or a folder for all")  # fmt: skip
    parser.add_argument("--interactive", action="store_true", help="figures that answer to a pointer (HTML, 5 MB)")
    parser.add_argument(
        "--unmask", action="store_true", help="quote the data in clear, in a derived document that warns"
    )
    parser.add_argument("--prior-odds", type=_odds, metavar="ODDS", help="your prior odds that it still knows, such as "
                        "0.1: the posterior is shown beside them")  # fmt: skip


def _forecast(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("case", nargs="?", default="case.toml", help="the case file; it needs no suspect")
    parser.add_argument("-o", "--out", metavar="DIR", help="where to write (default: runs/<name of the case>-forecast)")
    parser.add_argument("--pilot", default="", metavar="NAMES", help="unlearners to try first, such as npo,grad_diff")
    parser.add_argument("--force-new", action="store_true", help="write over another forecast in the folder")
    _how_flags(parser)


def _calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="8 of the 60 worlds: half a core-hour, wider bounds")
    parser.add_argument("--pool", metavar="FILE", help="a TOML file of checkpoints of known truth, instead of the zoo")
    parser.add_argument("-o", "--out", metavar="DIR", help="where to write (default: beside the probes; for a pool "
                        "calibrations-<its name>)")  # fmt: skip
    parser.add_argument("--work", default="runs/pools", metavar="DIR", help="where unfinished audits are kept")
    parser.add_argument("--workers", type=int, default=2, help="processes that score worlds (default: 2)")
    _how_flags(parser)


def _say_exit_codes() -> None:
    from audit.review import MEANINGS

    for code, meaning in MEANINGS:
        print(f"{code:>4}  {meaning}")


def _crash(debug: bool, as_json: bool) -> None:
    """From here on an error of our own ends in code 3 with an id; code 1 is the gate's."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        import hashlib
        import traceback

        what, do = f"{kind.__name__}: {error}", "run it again with --debug and report what it prints"
        error_id = hashlib.sha256(what.encode(errors="replace")).hexdigest()[:8]
        print(f"residua broke: {what}\n  what to do: {do}\n  error id: {error_id}", file=sys.stderr)
        if debug:
            traceback.print_exception(kind, error, trace)
        if as_json:
            print(json.dumps({"error": what, "do": do, "error_id": error_id, "exit_code": 3}, sort_keys=True))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(3)

    sys.excepthook = hook


def _say_error(args: argparse.Namespace, error: "AuditError") -> None:
    """What happened, what to do and an id; the traceback before it only if it was asked for."""
    if args.debug:
        import traceback

        traceback.print_exception(error)
    print(f"residua {args.verb}: {error}\n  error id: {error.error_id}", file=sys.stderr)
    if args.json or args.jsonl:
        said = {"error": error.what, "do": error.do, "error_id": error.error_id, "exit_code": error.code}
        print(json.dumps(said, sort_keys=True))


def _show(answer: "Answer", as_json: bool, as_lines: bool) -> None:
    if as_json or as_lines:
        event = {"event": "answer"} if as_lines else {}
        print(json.dumps({**answer.document, **event}, ensure_ascii=False, sort_keys=True))
    else:
        from rich.console import Console

        # Piped output has no width of its own: wide enough for the table, and nothing is cut.
        console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
        for renderable in answer.shown:
            console.print(renderable, markup=False, highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the process exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.help_exit_codes:
        _say_exit_codes()
        return 0
    if args.verb is None:
        parser.print_help(sys.stderr)
        return 2
    _crash(args.debug, args.json or args.jsonl)
    if not getattr(args, "online", False):
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Progress is ours to show: a library's bar would break into it.
    os.environ["TQDM_DISABLE"] = "1"

    from audit.schema import AuditError, ExitCode
    from audit.verbs import VERBS

    try:
        answer = VERBS[args.verb](args)
    except AuditError as error:
        _say_error(args, error)
        return error.code
    except KeyboardInterrupt:
        told = "interrupted: finished units are kept, the same command resumes"
        print(told, file=sys.stderr)
        if args.json or args.jsonl:
            print(json.dumps({"error": told, "exit_code": ExitCode.INTERRUPTED}, sort_keys=True))
        return ExitCode.INTERRUPTED
    _show(answer, args.json, args.jsonl)
    return answer.exit_code


if __name__ == "__main__":
    sys.exit(main())
