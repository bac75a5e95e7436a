"""What each verb of the command line does. A verb returns an answer; :mod:`audit.cli` prints it.

Imports that load torch lie inside the verbs that need a model.
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

from audit import finished
from audit.answer import Answer, JsonValue
from audit.render import Progress
from audit.review import complete, exit_code
from audit.schema import AuditError, ExitCode, Report

if TYPE_CHECKING:
    from audit.planning import How
    from audit.pools import Renewed

CASE_TEMPLATE = Path(__file__).parent / "case_template.toml"


def _how(args: argparse.Namespace) -> "How":
    from audit.planning import How, parse_bytes, parse_time
    from audit.storage import cache_root

    store = None if args.store == "none" else Path(args.store) if args.store else cache_root() / "store"
    return How(
        backend=args.backend, device=args.device, dtype=args.dtype, attention=args.attention, threads=args.threads,
        store=store, online=args.online, force_new=getattr(args, "force_new", False),
        allow_undecided=getattr(args, "allow_undecided", False),
        calibrations=Path(args.calibrations) if getattr(args, "calibrations", None) else None,
        max_time=parse_time(args.max_time) if getattr(args, "max_time", None) else None,
        max_mem=parse_bytes(args.max_mem) if getattr(args, "max_mem", None) else None,
    )  # fmt: skip


def _progress(args: argparse.Namespace) -> Progress:
    level = logging.INFO if args.verbose else logging.WARNING
    # The stream is looked up anew: a caller in the same process may have put another one in place.
    logging.basicConfig(level=level, format="%(levelname)s %(message)s", force=True)
    return Progress(args.quiet, args.jsonl)


def _out(args: argparse.Namespace) -> Path:
    if args.out:
        return Path(args.out)
    from audit.case import load_case

    name = load_case(Path(args.case)).name
    if name in ("", "..") or name != Path(name).name:
        raise AuditError(f"{args.case}: `name` {name!r} cannot name a folder of its own", "change it, or use -o")
    return Path("runs") / name


def init(args: argparse.Namespace) -> Answer:
    """Write a commented case.toml; never over an existing file."""
    from audit.storage import write_atomic

    path = Path(args.path)
    path = path / "case.toml" if path.is_dir() or args.path.endswith("/") else path
    if path.exists():
        raise AuditError(f"{path} exists already", "name another file, or edit that one")
    write_atomic(path, CASE_TEMPLATE.read_bytes())
    told = (
        f"{path} is written: fill in the roles and the data, look with `residua plan {path}`, then `residua run {path}`"
    )
    return Answer({"case": str(path)}, (told,))


def plan(args: argparse.Namespace) -> Answer:
    """What would be done, what it costs, and what will not run and why. Writes nothing."""
    from audit.engine import prepare
    from audit.planned import priced

    out = _out(args)
    with _progress(args) as progress:
        progress.say(f"opening {args.case}")
        prepared = prepare(Path(args.case), out, _how(args))
        prices = prepared.pricer.prices(prepared.planner)
    return priced(prepared.planner.plan, prices, out)


def run(args: argparse.Namespace) -> Answer:
    """Audit one suspect."""
    if args.dry_run:
        return plan(args)
    from audit.engine import run as run_case
    from audit.render import summary

    gate = finished.gate_of(args)
    out = _out(args)
    with _progress(args) as progress:
        report = run_case(Path(args.case), out, _how(args), watch=progress.watch)
    code = exit_code(report, gate)
    document = {**_summary(report, out), "exit_code": code}
    return Answer(document, (summary(report), str(out / "report.html")), code)


def _summary(report: Report, out: Path) -> dict[str, JsonValue]:
    return {
        "name": report.plan.case.name,
        "report_id": report.report_id,
        "verdict": report.verdict.word,
        "sentence": report.verdict.sentence,
        "complete": complete(report),
        "report": str(out / "report.json"),
        "html": str(out / "report.html"),
    }


def demo(args: argparse.Namespace) -> Answer:
    """Train the world (or take it from the cache), audit every suspect with one bench, print one table."""
    from audit.demonstration import World, demonstrate
    from audit.render import table
    from audit.storage import cache_root

    with _progress(args) as progress:
        world = World(args.world, args.seed, cache_root(), args.workers)
        audits = demonstrate(world, Path(args.out), replace(_how(args), demo=True), progress)
    reports = [audit.report for audit in audits]
    listed: list[JsonValue] = [_summary(audit.report, audit.out) for audit in audits]
    paths = "\n".join(str(audit.out / "report.html") for audit in audits)
    code = ExitCode.OK if all(complete(report) for report in reports) else ExitCode.UNDECIDED
    document: dict[str, JsonValue] = {"world": args.world, "seed": args.seed, "audits": listed, "exit_code": code}
    return Answer(document, (table(reports), paths), code)


def report(args: argparse.Namespace) -> Answer:
    """Show a finished report, or write it elsewhere: as one file by its ending, or all of it into a folder."""
    from audit.render import foreign, summary, with_prior
    from audit.runs import Wanted, export, read_report, unmasked
    from audit.storage import write_atomic

    named = Path(args.run)
    folder = named.parent if named.is_file() else named
    found = read_report(folder / "report.json")
    if args.unmask:
        found = unmasked(found, folder)
    shown: list[RenderableType] = [summary(found)]
    if args.prior_odds is not None:
        shown.append(with_prior(found, args.prior_odds))
    if args.out:
        target = Path(args.out)
        other = foreign(found, folder, target)
        if other is not None:
            write_atomic(target, other.encode())
        written = 1 if other is not None else export(found, target, Wanted(args.interactive, args.prior_odds))
        shown.append(f"written to {target}" + (f" ({written} files)" if written > 1 else ""))
    return Answer(found.model_dump(mode="json"), tuple(shown), finished.gated(found, args))


def forecast(args: argparse.Namespace) -> Answer:
    """Which items of the forget set will be hard, before anything is unlearned."""
    from audit.case import load_forecast
    from audit.forecasting import forecast as forecast_of
    from audit.render import terminal_lines

    name = load_forecast(Path(args.case)).name
    if not args.out and name != Path(name).name:
        raise AuditError(f"{args.case}: `name` {name!r} cannot name a folder of its own", "change it, or use -o")
    out = Path(args.out) if args.out else Path("runs") / f"{name}-forecast"
    pilots = tuple(pilot.strip() for pilot in args.pilot.split(",") if pilot.strip())
    with _progress(args) as progress:
        progress.say(f"opening {args.case}")
        found = forecast_of(Path(args.case), out, _how(args), progress.watch, pilots)
    return Answer(found.model_dump(mode="json"), (*terminal_lines(found), f"written to {out}"))


def calibrate(args: argparse.Namespace) -> Answer:
    """Score models of known truth that are not scored yet, and write thresholds, ratios and error rates."""
    from audit.calibration import stored
    from audit.pools import renew_pool, renew_zoo

    if args.pool is None:
        from audit.zoo import device_for

        with _progress(args) as progress:
            out, stack = Path(args.out) if args.out else stored(), device_for("auto")
            made = "" if stack is None else f" (their models are trained together on {stack})"
            progress.say(f"worlds of the zoo are scored where they are not{made}; calibrations go to {out}")
            done = renew_zoo(out, args.quick, args.workers, Path(args.work), stack)
        return _calibrated(done)
    from audit.pools import load_pool

    pool = load_pool(Path(args.pool))
    out = Path(args.out) if args.out else Path(f"calibrations-{pool.name}")
    with _progress(args) as progress:
        done = renew_pool(pool, Path(args.pool), out, _how(args), progress.watch)
    return _calibrated(done)


def _calibrated(done: "Renewed") -> Answer:
    from audit.pools import Row, rows

    made = done.fitted
    listed, table = rows(made), Table(title=f"calibrations from {made.subjects.name}, {done.worlds} worlds")
    for heading in Row._fields:
        table.add_column(heading.replace("_", " "))
    for row in listed:
        table.add_row(*row)
    spent = ", ".join(f"{stage} {cpu_s:,.0f}" for stage, cpu_s in done.stages_cpu_s.items())
    named = [f"left out: {why}" for why in made.left_out]
    named += [f"joint rule, {exception}" for exception in made.joint.record.exceptions]
    shown = (table, *named, f"CPU-seconds by stage: {spent}", f"written to {done.folder}")
    exceptions, stages = list[JsonValue](made.joint.record.exceptions), dict[str, JsonValue](done.stages_cpu_s)
    document: dict[str, JsonValue] = {
        "pool": made.subjects.name, "worlds": done.worlds, "quick": made.subjects.quick, "folder": str(done.folder),
        "rules": [dict[str, JsonValue](row._asdict()) for row in listed], "exceptions": exceptions,
        "left_out": list[JsonValue](made.left_out), "stages_cpu_s": stages,
    }  # fmt: skip
    return Answer(document, shown)


def probes(args: argparse.Namespace) -> Answer:
    """What each probe asks, needs and can be set to, read from the files without importing them."""
    from audit.plugins import describe

    table = Table(title="probes", show_lines=True)
    for heading in ("probe", "question", "settings", "requires"):
        table.add_column(heading)
    listed: list[JsonValue] = []
    for found in describe("probes"):
        settings = [f"{s.name}: {s.annotation}" + (f" = {s.default}" if s.default else "") for s in found.settings]
        requires = [f"{name}={value}" for name, value in found.requires]
        table.add_row(found.name, found.question, "\n".join(settings), "\n".join(requires))
        listed.append(
            {
                "name": found.name, "question": found.question, "help": found.docstring, "version": found.version,
                "settings": list[JsonValue](settings), "requires": list[JsonValue](requires),
            }
        )  # fmt: skip
    return Answer({"probes": listed}, (table,))


def fingerprint(args: argparse.Namespace) -> Answer:
    """The hash that names the weights, configuration and tokenizer in a folder."""
    from audit.checkpoints import fingerprint as fingerprint_of

    found = fingerprint_of(Path(args.folder))
    lines = (found.total, *(f"  {sha}  {name}" for name, sha in sorted(found.files.items())))
    document: dict[str, JsonValue] = {
        "fingerprint": found.total, "size_bytes": found.size_bytes, "files": dict[str, JsonValue](found.files),
    }  # fmt: skip
    return Answer(document, lines)


def dashboard(args: argparse.Namespace) -> Answer:
    """Serve the dashboard of a folder of runs on this machine until it is interrupted."""
    from dashboards.serving import serve

    with _progress(args) as progress:
        serve(Path(args.runs), args.port, progress.say)


VERBS: dict[str, Callable[[argparse.Namespace], Answer]] = {
    "init": init, "demo": demo, "plan": plan, "run": run, "forecast": forecast, "report": report,
    "verify": finished.verify,
    "compare": finished.compare, "cache": finished.cache, "probes": probes,
    "calibrate": calibrate, "dashboard": dashboard,
    "fingerprint": fingerprint,
}  # fmt: skip
