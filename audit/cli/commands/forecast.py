"""Before unlearning: which items will be hard, and what is tied to what must stay."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.cli import flags
from audit.cli.answer import Answer

ORDER = 50


def add_arguments(parser: ArgumentParser) -> None:
    """Which case, what is tried first, and how."""
    parser.add_argument("case", nargs="?", default="case.toml", help="the case file; it needs no suspect")
    parser.add_argument("-o", "--out", metavar="DIR", help="where to write (default: runs/<name of the case>-forecast)")
    parser.add_argument("--pilot", default="", metavar="NAMES", help="unlearners to try first, such as npo,grad_diff")
    parser.add_argument("--force-new", action="store_true", help="write over another forecast in the folder")
    flags.add_settings(parser)


def act(args: Namespace) -> Answer:
    """Which items of the forget set will be hard, before anything is unlearned."""
    from audit.case import CaseFile
    from audit.forecasting import forecast
    from audit.render import forecast_summary as in_words

    case_file = CaseFile.read_forecast(Path(args.case))
    out = flags.out_folder(args, case_file.case.name, "-forecast")
    pilots = tuple(pilot.strip() for pilot in args.pilot.split(",") if pilot.strip())
    with flags.progress(args) as progress:
        progress.say(f"opening {args.case}")
        report = forecast(case_file, out, flags.settings(args), progress.watch, pilots)
    return Answer(report.model_dump(mode="json"), (*in_words(report), f"written to {out}"))
