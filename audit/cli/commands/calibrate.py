"""Measure the mistakes of every rule on models of known truth."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import flags
from audit.cli.answer import Answer, JsonValue

if TYPE_CHECKING:
    from audit.pools import Renewed

ORDER = 100


def add_arguments(parser: ArgumentParser) -> None:
    """Which models, which probes, and where the calibrations go."""
    parser.add_argument("--quick", action="store_true", help="8 of the 60 worlds: half a core-hour, wider bounds")
    parser.add_argument("--kind", choices=("causal_lm", "image_classifier", "vision_language"), default="causal_lm",
                        help="whose zoo: language models (default), classifiers of images, or models that are asked "
                        "about images")  # fmt: skip
    parser.add_argument("--pool", metavar="FILE", help="a TOML file of checkpoints of known truth, instead of the zoo")
    parser.add_argument("--on", metavar="CASE", help="a case file: error rates for its own kind of model, from "
                        "decoys that its base is taught; `residua run` then uses them by itself")  # fmt: skip
    parser.add_argument("--worlds", type=flags.count, metavar="N", help="how many worlds of decoys (with --on; "
                        "default: 19, or as many as --max-time gives)")  # fmt: skip
    parser.add_argument("--max-time", dest="time_limit", metavar="TIME", help="of the whole call (with --on): such as "
                        "30m or 2h")  # fmt: skip
    parser.add_argument("--decoys", metavar="FILE", help="decoys of your own, as a data file of the case's form (with "
                        "--on; default: made from the case's own questions)")  # fmt: skip
    parser.add_argument("--form", choices=("full", "adapter"), help="what is taught decoys (with --on): whole copies "
                        "of base (the default), or adapters over it, for large ones")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be made and what it can support (with "
                        "--on)")  # fmt: skip
    parser.add_argument("--probe", action="append", default=[], metavar="NAME", help="measure this new probe alone, on "
                        "the models that all others have scored; may be given again. With --on: "
                        "calibrate this test too, beside those that train nothing")  # fmt: skip
    parser.add_argument("-o", "--out", metavar="DIR", help="where to write (default: beside the probes; for a pool "
                        "calibrations-<its name>)")  # fmt: skip
    parser.add_argument("--work", metavar="DIR", help="where unfinished work is kept (default: runs/pools; with --on "
                        "beside the calibrations)")  # fmt: skip
    parser.add_argument("--workers", type=int, default=2, help="processes that score worlds (default: 2)")
    flags.add_settings(parser)


def act(args: Namespace) -> Answer:
    """Score models of known truth that are not scored yet, and write thresholds, ratios and error rates."""
    from audit.schema import AuditError

    own = [name for name in ("worlds", "time_limit", "decoys", "form", "dry_run") if getattr(args, name)]
    if args.on is not None:
        return _from_case(args)
    if own:
        raise AuditError(f"--{own[0].replace('time_limit', 'max-time').replace('_', '-')} is of worlds of decoys",
                         "name the case whose base they are taught to with --on")  # fmt: skip
    if args.kind != "causal_lm":
        if args.pool is not None or args.quick:
            raise AuditError(f"--kind {args.kind} is calibrated on its whole zoo", "leave --pool and --quick out")
        return _answer(_from_images(args))
    if args.pool is None:
        return _answer(_from_zoo(args))
    if args.probe:
        raise AuditError("--probe adds to the scores of the zoo, and --pool names other models",
                         "leave one of them out: a pool is scored by every probe")  # fmt: skip
    return _answer(_from_pool(args))


def _from_case(args: Namespace) -> Answer:
    """Error rates for the kind of model of one case."""
    from audit.case import CaseFile
    from audit.planning import parse_time
    from audit.pools import OwnRequest, calibrate_own, own_tests, prepare_own
    from audit.schema import AuditError

    if args.pool is not None or args.quick or args.out is not None or args.kind != "causal_lm":
        raise AuditError("--on makes its own models, of a language model, and keeps them beside the case",
                         "leave --pool, --quick, --kind and --out out")  # fmt: skip
    limit = None if args.time_limit is None else parse_time(args.time_limit)
    request = OwnRequest(
        worlds=args.worlds, max_time=limit, decoys=None if args.decoys is None else Path(args.decoys),
        work=None if args.work is None else Path(args.work), tests=own_tests(args.probe),
        form=args.form,
    )  # fmt: skip
    path = Path(args.on)
    with flags.progress(args) as progress:
        progress.say(f"opening {path}")
        prepared = prepare_own(CaseFile.read_unedited(path), request, flags.settings(args))
        if args.dry_run:
            plan = prepared.plan
            document: dict[str, JsonValue] = {
                "worlds": plan.worlds, "people": plan.people, "questions": plan.questions,
                "seconds": list[JsonValue](plan.seconds.ends), "folder": str(plan.folder), "form": plan.form,
            }  # fmt: skip
            return Answer(document, plan.lines())
        for line in prepared.plan.lines():
            progress.say(line)
        renewed = calibrate_own(prepared, request, progress.watch, f"residua calibrate --on {path.name}")
    return _answer(renewed, ("`residua run` uses it from now on; a run that is finished stays as it was judged: give "
                             "another folder with -o",))  # fmt: skip


def _from_zoo(args: Namespace) -> "Renewed":
    from audit.calibration import stored
    from audit.pools import renew_zoo
    from audit.zoo import device_for

    with flags.progress(args) as progress:
        out = Path(args.out) if args.out else stored()
        # Added scores are of the very models that are scored, which are not trained again together.
        stack = None if args.probe else device_for("auto")
        together = "" if stack is None else f" (their models are trained together on {stack})"
        scored = f"worlds of the zoo are scored where they are not{together}"
        added = f"{', '.join(args.probe)} alone: measured on the models of the worlds that all others have scored"
        progress.say(f"{added if args.probe else scored}; calibrations go to {out}")
        return renew_zoo(out, args.quick, args.workers, _work(args), stack, tuple(args.probe))


def _from_images(args: Namespace) -> "Renewed":
    from audit.calibration import stored
    from audit.pools import renew_images

    with flags.progress(args) as progress:
        out = Path(args.out) if args.out else stored("image" if args.kind == "image_classifier" else "image+text")
        progress.say(f"worlds of images are scored where they are not; calibrations go to {out}")
        return renew_images(out, args.workers, _work(args), tuple(args.probe), args.kind)


def _from_pool(args: Namespace) -> "Renewed":
    from audit.pools import load_pool, renew_pool

    pool = load_pool(Path(args.pool))
    out = Path(args.out) if args.out else Path(f"calibrations-{pool.name}")
    with flags.progress(args) as progress:
        return renew_pool(pool, Path(args.pool), out, flags.settings(args), progress.watch)


def _work(args: Namespace) -> Path:
    return Path(args.work or "runs/pools")


def _answer(renewed: "Renewed", more: tuple[str, ...] = ()) -> Answer:
    from rich.table import Table

    from audit.pools import Row, rows

    fitted, subjects = renewed.fitted, renewed.fitted.subjects
    rules, table = rows(fitted), Table(title=f"calibrations from {subjects.name}, {renewed.worlds} worlds")
    for heading in Row._fields:
        table.add_column(heading.replace("_", " "))
    for row in rules:
        table.add_row(*row)
    spent = ", ".join(f"{stage} {cpu_s:,.0f}" for stage, cpu_s in renewed.stages_cpu_s.items())
    lines = [f"left out: {reason}" for reason in fitted.left_out]
    lines += [f"joint rule, {exception}" for exception in fitted.joint.record.exceptions]
    lines += [f"CPU-seconds by stage: {spent}", f"written to {renewed.folder}", *more]
    document: dict[str, JsonValue] = {
        "pool": subjects.name, "worlds": renewed.worlds, "quick": subjects.quick, "folder": str(renewed.folder),
        "rules": [dict[str, JsonValue](row._asdict()) for row in rules],
        "exceptions": list[JsonValue](fitted.joint.record.exceptions), "left_out": list[JsonValue](fitted.left_out),
        "stages_cpu_s": dict[str, JsonValue](renewed.stages_cpu_s),
    }  # fmt: skip
    return Answer(document, (table, *lines))
