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
    parser.add_argument("--probe", action="append", default=[], metavar="NAME", help="measure this new probe alone, on "
                        "the models that all others have scored; may be given again")  # fmt: skip
    parser.add_argument("-o", "--out", metavar="DIR", help="where to write (default: beside the probes; for a pool "
                        "calibrations-<its name>)")  # fmt: skip
    parser.add_argument("--work", default="runs/pools", metavar="DIR", help="where unfinished audits are kept")
    parser.add_argument("--workers", type=int, default=2, help="processes that score worlds (default: 2)")
    flags.add_settings(parser)


def act(args: Namespace) -> Answer:
    """Score models of known truth that are not scored yet, and write thresholds, ratios and error rates."""
    from audit.schema import AuditError

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
        return renew_zoo(out, args.quick, args.workers, Path(args.work), stack, tuple(args.probe))


def _from_images(args: Namespace) -> "Renewed":
    from audit.calibration import stored
    from audit.pools import renew_images

    with flags.progress(args) as progress:
        out = Path(args.out) if args.out else stored("image" if args.kind == "image_classifier" else "image+text")
        progress.say(f"worlds of images are scored where they are not; calibrations go to {out}")
        return renew_images(out, args.workers, Path(args.work), tuple(args.probe), args.kind)


def _from_pool(args: Namespace) -> "Renewed":
    from audit.pools import load_pool, renew_pool

    pool = load_pool(Path(args.pool))
    out = Path(args.out) if args.out else Path(f"calibrations-{pool.name}")
    with flags.progress(args) as progress:
        return renew_pool(pool, Path(args.pool), out, flags.settings(args), progress.watch)


def _answer(renewed: "Renewed") -> Answer:
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
    lines += [f"CPU-seconds by stage: {spent}", f"written to {renewed.folder}"]
    document: dict[str, JsonValue] = {
        "pool": subjects.name, "worlds": renewed.worlds, "quick": subjects.quick, "folder": str(renewed.folder),
        "rules": [dict[str, JsonValue](row._asdict()) for row in rules],
        "exceptions": list[JsonValue](fitted.joint.record.exceptions), "left_out": list[JsonValue](fitted.left_out),
        "stages_cpu_s": dict[str, JsonValue](renewed.stages_cpu_s),
    }  # fmt: skip
    return Answer(document, (table, *lines))
