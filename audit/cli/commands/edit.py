"""Unlearn, fake or attack: make an edited checkpoint of a case's model, which `run` audits like any other."""

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import flags
from audit.cli.answer import Answer, JsonValue

if TYPE_CHECKING:
    from rich.table import Table

    from audit.edits import Choice, ListedEdit
    from audit.engine import Edited
    from audit.schema import EditSummary

ORDER = 45
ROLES = ("base", "suspect", "reference", "ancestor")


def add_arguments(parser: ArgumentParser) -> None:
    """Which edit of whom, on which rows, and where it goes."""
    parser.add_argument("case", nargs="?", default="case.toml", help="the case file; it needs no suspect (default: "
                        "case.toml)")  # fmt: skip
    parser.add_argument("--list", action="store_true", dest="listing", help="say what each edit does, needs, costs "
                        "and fits, and its settings; needs no case")  # fmt: skip
    parser.add_argument("--edit", metavar="NAME", help="which edit; with --list, that one at length")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], dest="stated", help="one of its "
                        "settings; may be repeated")  # fmt: skip
    parser.add_argument("-o", "--out", metavar="DIR", help="where the edited checkpoint goes")
    parser.add_argument("--on", choices=ROLES, default="base", help="whose model is edited (default: base)")
    parser.add_argument("--merge", action="store_true", help="write a whole model with plain weights, not the change")
    rows = parser.add_argument_group("rows")
    rows.add_argument("--part", choices=("all", "calibration", "audit"), default="all", help="of the forget groups: "
                      "all, or a half by the split's seed, for attacks that are shown some (default: all)")  # fmt: skip
    rows.add_argument("--refusals", metavar="FILE", help="refusing answers, one a line (default: a few of the house)")
    rows.add_argument("--keep-general", action="store_true", help="keep half of the general texts beside the retain "
                      "items")  # fmt: skip
    flags.add_settings(parser)


def act(args: Namespace) -> Answer:
    """Make the edit, or list them."""
    from audit.schema import AuditError

    if args.listing:
        return _listed(args.edit)
    if not args.edit:
        raise AuditError("--edit names no edit", "`residua edit --list` says which there are")
    if not args.out:
        raise AuditError("-o names no folder", "say where the edited checkpoint goes, such as -o edited")
    from audit import engine
    from audit.case import CaseFile

    case_file = CaseFile.read_unedited(Path(args.case))
    request = engine.EditRequest(args.edit, tuple(args.stated), args.on, _choice(args), args.merge)
    with flags.progress(args) as progress:
        edited = engine.edit(case_file, request, Path(args.out), flags.settings(args), progress.watch)
    return _made(edited)


def _choice(args: Namespace) -> "Choice":
    """What of the case the edit sees. AuditError (code 2) for a file of refusals that has none."""
    from audit.edits import Choice
    from audit.schema import AuditError

    if args.refusals is None:
        return Choice(part=args.part, keep_general=args.keep_general)
    path = Path(args.refusals)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError(f"{path}: cannot be read ({error})", "give a text file, one refusing answer a line") from None
    if not lines:
        raise AuditError(f"{path}: no refusing answers in it", "write one a line")
    return Choice(args.part, tuple(lines), args.keep_general)


# ---- the list ---------------------------------------------------------------------------------------------------
def _listed(name: str | None) -> Answer:
    """Every edit in a line, or one at length; read from the files, without importing them."""
    import difflib

    from audit.edits import listed_edits
    from audit.schema import AuditError

    edits = listed_edits()
    if name is None:
        return Answer({"edits": list[JsonValue](map(_described, edits))}, (_table(edits), _AT_LENGTH))
    by_name = {edit.name: edit for edit in edits}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.5)
        raise AuditError(f"there is no edit {name!r}", f"did you mean {near[0]!r}?" if near else "leave the name out")
    edit = by_name[name]
    settings = (f"{s.name}={s.default}" if s.default else s.name for s in edit.settings)
    facts = (f"needs: {edit.needs_in_words}", f"costs: {_costs(edit)}", f"fits: {edit.fits}",
             f"settings: {', '.join(settings) or 'none'}")  # fmt: skip
    return Answer({"edits": [_described(edit)]}, (f"{edit.name}\n\n{edit.help}\n", *facts))


_AT_LENGTH = "one of them at length, with its settings: residua edit --list --edit NAME"


def _described(edit: "ListedEdit") -> JsonValue:
    return {
        "name": edit.name, "does": edit.does, "help": edit.help, "needs": list[JsonValue](edit.needs),
        "cost": edit.cost, "fits": edit.fits, "plays": edit.plays, "can_be_merged": edit.folds,
        "settings": [{"name": s.name, "type": s.annotation, "default": s.default} for s in edit.settings],
    }  # fmt: skip


def _table(edits: "Sequence[ListedEdit]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{len(edits)} edits: residua edit CASE --edit NAME -o DIR", show_lines=True, expand=True)
    for heading, share in (("edit", None), ("what it does", 5), ("needs", 2), ("costs", 3), ("fits", 2)):
        table.add_column(heading, ratio=share)
    for edit in edits:
        table.add_row(*map(Text, (edit.name, edit.does, edit.needs_in_words, _costs(edit), edit.fits)))
    return table


def _costs(edit: "ListedEdit") -> str:
    return edit.cost if edit.folds else f"{edit.cost}; a hook: cannot be merged"


# ---- what was made ----------------------------------------------------------------------------------------------
def _made(edited: "Edited") -> Answer:
    from audit.cli.listing_table import listing_table

    summary, following = edited.summary, shlex.join(["residua", "run", str(edited.case)])
    document: dict[str, JsonValue] = {
        **summary.model_dump(mode="json"), "folder": str(edited.folder), "reused": edited.reused,
        "case_file": str(edited.case), "next": following,
    }  # fmt: skip
    settings = ", ".join(f"{name}={value}" for name, value in summary.settings.items())
    again = "it was there already, made by the same request: " if edited.reused else ""
    lines = (
        f"{again}{edited.folder} holds {summary.edit} of {summary.case}'s {summary.role}, {_form(summary)}",
        f"settings: {settings or 'none'}",
        f"rows: {', '.join(f'{name} {n}' for name, n in summary.rows.items())}{_general(summary)}",
        f"changed: {_change(summary)}",
        f"cost: {summary.cpu_s:.1f} CPU-seconds, {summary.wall_s:.1f} s by the clock, {summary.steps} training steps",
        f"audit it: {following}",
    )
    return Answer(document, (listing_table(summary.changed), *lines))


def _general(summary: "EditSummary") -> str:
    """What can be done for the language of the model, where nothing was."""
    needed = "retain" in summary.rows and summary.general == "left out"
    return "; the general texts are not among them, and --keep-general would keep half of them" if needed else ""


def _form(summary: "EditSummary") -> str:
    if summary.form == "merged":
        return f"as a whole model with plain weights in {summary.dtype}"
    return "as its change alone: it needs the parent where it lies"


def _change(summary: "EditSummary") -> str:
    """How much changed, and what rounding cost."""
    if summary.change is None:
        return f"no weight; {summary.changed.of} arrays of a hook ({summary.plays}) act on every run"
    share = f"{summary.tensors} of {summary.of_tensors} tensors, by {summary.change:.3g} of their norm"
    if summary.of_blocks is not None:
        share += f", in {100 * summary.of_blocks:.3g} % of the weights of the blocks"
    if summary.form == "edited":
        return f"{share}; kept in {summary.dtype}, nothing is rounded"
    return f"{share}; rounding to {summary.dtype} moved {summary.rounding:.2g} of the change"
