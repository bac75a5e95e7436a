"""Flags that several commands share, and what is read from them: settings, the gate, the run folder, progress.

What adds flags imports nothing heavy; what reads them imports what it makes.
"""

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audit.cli.progress import Progress
    from audit.planning import RunSettings
    from audit.review import Gate

BACKENDS = ("native", "transformer_lens", "nnsight")


def count(text: str) -> int:
    """How many threads or processes: a whole number from 1 up."""
    from audit.planning import parse_count

    if not (number := parse_count(text)):
        raise argparse.ArgumentTypeError(f"{text[:99]!r} is no whole number from 1 up")
    return number


# ---- added ------------------------------------------------------------------------------------------------------
def add_output(parser: argparse.ArgumentParser) -> None:
    """How a command speaks: for programs, quietly, at length. Every command has these."""
    stdout = parser.add_mutually_exclusive_group()
    stdout.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")
    stdout.add_argument("--jsonl", action="store_true", help="print a JSON object a line on stdout: every step, "
                        "and the answer last")  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def add_case(parser: argparse.ArgumentParser) -> None:
    """Which case is audited, and into which run folder."""
    parser.add_argument("case", nargs="?", default="case.toml", help="the case file (default: case.toml)")
    parser.add_argument("-o", "--out", metavar="DIR", help="the run folder (default: runs/<name of the case>)")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """What :func:`settings` reads. A command without limits or ``--force-new`` of its own leaves those as they are."""
    parser.set_defaults(force_new=False, allow_undecided=False, max_time=None, max_mem=None)
    how = parser.add_argument_group("how (recorded in the report, outside the plan)")
    how.add_argument("--backend", choices=BACKENDS, default="native", help="what runs the model (default: native)")
    how.add_argument("--device", default="auto", help="any torch device (default: auto, CUDA or MPS, else the CPU)")
    dtypes, attentions = ("auto", "float32", "bfloat16", "float16"), ("default", "eager", "sdpa")
    how.add_argument("--dtype", choices=dtypes, default="auto", help="of the weights (default: auto, as they are "
                     "stored)")  # fmt: skip
    spread = parser.add_argument_group("models larger than one device")
    spread.add_argument("--device-map", metavar="MAP", help="auto, balanced, sequential, or a JSON file: module -> "
                        "device; what does not fit is read from its files")  # fmt: skip
    spread.add_argument("--max-memory", metavar="BYTES", help="what the weights of a model may take: such as 20G, or "
                        "0=20G,cpu=60G")  # fmt: skip
    spread.add_argument("--offload", metavar="DIR", help="for weights that must be written anew to be read from disk")
    how.add_argument("--attention", choices=attentions, default="default", help="default: the model family's own")
    how.add_argument("--threads", type=count, default=1, metavar="N", help="torch threads (default: 1)")
    how.add_argument("--store", metavar="DIR", help="cached activations ('none': keep nothing; default: in the cache)")
    how.add_argument("--store-limit", metavar="BYTES", default=os.environ.get("RESIDUA_CACHE_LIMIT") or None,
                     help="the most that they may take, such as 10G; what was used longest ago goes first (default: "
                     "$RESIDUA_CACHE_LIMIT, else 50G)")  # fmt: skip
    how.add_argument("--calibrations", metavar="DIR", help="calibrations that may judge (default: the probes' own)")
    how.add_argument("--online", action="store_true", help="fetch named commits from the hub (default: offline)")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """How long a run may take, and how much memory."""
    limits = parser.add_argument_group("limits (tests that do not fit are left out, and named in plan and report)")
    limits.add_argument("--max-time", metavar="TIME", help="of the whole run: seconds, or such as 15m or 2h")
    limits.add_argument("--max-mem", metavar="BYTES", help="of the process: such as 500M or 4G")


def add_gate(parser: argparse.ArgumentParser) -> None:
    """What :func:`gate` reads."""
    gates = parser.add_argument_group("gate (changes the exit code, never what is reported)")
    gates.add_argument(
        "--fail-on",
        metavar="GATE",
        help="exit 1 on a trace: any, p=0.01 or lr=10; or where a finding holds: finding=backdoored",
    )
    gates.add_argument("--baseline", metavar="REPORT", help="fail only on traces that this report or run has not")
    gates.add_argument("--min-power", type=float, metavar="SHARE", help="exit 4 on a clean verdict whose detection "
                       "limit is unknown or was found less often")  # fmt: skip
    gates.add_argument("--allow-undecided", action="store_true", help="exit 0 also where the audit cannot decide")


def add_unverified(parser: argparse.ArgumentParser) -> None:
    """Whether a run folder is shown as it is found."""
    parser.add_argument("--no-verify", action="store_true", help="do not check first that nothing in the run folder "
                        "changed since the report was issued (the output says so)")  # fmt: skip


def add_audit(parser: argparse.ArgumentParser) -> None:
    """How audits are made, within which limits, whether anew, and what would fail them."""
    add_settings(parser)
    add_limits(parser)
    parser.add_argument("--dry-run", action="store_true", help="plan only")
    parser.add_argument("--force-new", action="store_true", help="start over; what is there is kept aside")
    add_gate(parser)


# ---- read -------------------------------------------------------------------------------------------------------
def settings(args: argparse.Namespace, demo: bool = False) -> "RunSettings":
    """How an audit is made. AuditError (code 2) for a limit that is none. What is made from here on leaves nothing in
    the folder for temporary files, even if it is killed."""
    from audit.planning import RunSettings, parse_bytes, parse_time
    from audit.storage import USUAL, cache_root, hold_temporary_folder

    hold_temporary_folder()
    limit = parse_bytes(args.store_limit) if args.store_limit else USUAL
    store = None if args.store == "none" else Path(args.store) if args.store else cache_root() / "store"
    return RunSettings(
        backend=args.backend, device=args.device, dtype=args.dtype, attention=args.attention, threads=args.threads,
        store=store, store_limit=limit, online=args.online, force_new=args.force_new, demo=demo,
        allow_undecided=args.allow_undecided,
        calibrations=Path(args.calibrations) if args.calibrations else None,
        max_time=parse_time(args.max_time) if args.max_time else None,
        max_mem=parse_bytes(args.max_mem) if args.max_mem else None,
        device_map=args.device_map, max_memory=args.max_memory, offload=Path(args.offload) if args.offload else None,
        profile=getattr(args, "profile", False),
    )  # fmt: skip


def gate(args: argparse.Namespace) -> "Gate":
    """The gate that the flags ask for, read before anything is done. AuditError (code 2) if it makes no sense."""
    from audit.review import Gate, parse_threshold
    from audit.schema import AuditError

    threshold = parse_threshold(args.fail_on) if args.fail_on else None
    if args.baseline and threshold is None:
        raise AuditError("--baseline says which traces are known, but no gate was given", "add --fail-on")
    if args.min_power is not None and not 0 < args.min_power <= 1:
        raise AuditError(f"--min-power {args.min_power:g} is no power", "give a share above 0, at most 1, such as 0.8")
    baseline = None
    if args.baseline:
        from audit.runs import read_issued

        baseline = read_issued(Path(args.baseline), not getattr(args, "no_verify", False)).report
    return Gate(threshold, args.min_power, baseline, args.allow_undecided)


def out_folder(args: argparse.Namespace, name: str, suffix: str = "") -> Path:
    """Where results go: ``--out``, else a folder in ``runs`` by the name of the case. AuditError (code 2) if none."""
    from audit.schema import AuditError

    if args.out:
        return Path(args.out)
    if f"{name}{suffix}" in ("", "..") or name != Path(name).name:
        raise AuditError(f"{args.case}: `name` {name!r} cannot name a folder of its own", "change it, or use -o")
    return Path("runs") / f"{name}{suffix}"


def progress(args: argparse.Namespace) -> "Progress":
    """What shows the steps of a command, with the logging that was asked for."""
    from audit.cli.progress import Progress

    level = logging.INFO if args.verbose else logging.WARNING
    # The stream is looked up anew: a caller in the same process may have put another one in place.
    logging.basicConfig(level=level, format="%(levelname)s %(message)s", force=True)
    return Progress(args.quiet, args.jsonl)
