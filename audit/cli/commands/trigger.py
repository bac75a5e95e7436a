"""Replay a string: what it brings back when it is put into the prompts of a case's forget people."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import flags
from audit.cli.answer import Answer, JsonValue

if TYPE_CHECKING:
    from rich.table import Table

    from audit.engine import Replayed, Share

ORDER = 47
PARTS = {
    "all": "all forget people", "calibration": "the forget people that a search may see",
    "audit": "the forget people that no search saw",
}  # fmt: skip


def add_arguments(parser: ArgumentParser) -> None:
    """Which string, where it stands, in whom, and about which people."""
    parser.add_argument("case", nargs="?", default="case.toml", help="the case file (default: case.toml)")
    parser.add_argument("--text", required=True, metavar="STRING", help="the string, as it is spoken")
    parser.add_argument("--slot", default="prefix", metavar="SLOT", help="where it stands: prefix (before all that the "
                        "user says), infix (before the middle word of the question), suffix (after its last one), or "
                        "the number of the word before which it stands, from 0 (default: prefix)")  # fmt: skip
    parser.add_argument("--role", action="append", metavar="ROLE", dest="roles", help="who is asked beside base and "
                        "whoever never knew: suspect, ancestor or reference:N; may be repeated (default: "
                        "suspect)")  # fmt: skip
    parser.add_argument("--part", choices=tuple(PARTS), default="all", help="of the forget people: all, or a half by "
                        "the split's seed; a search sees the calibration half alone, so that the audit half says "
                        "whether what it found holds for others (default: all)")  # fmt: skip
    flags.add_settings(parser)


def act(args: Namespace) -> Answer:
    """Ask without and with the string."""
    from audit import engine
    from audit.case import CaseFile

    roles = tuple(dict.fromkeys(args.roles or ["suspect"]))
    request = engine.ReplayRequest(args.text, engine.slot_of(args.slot), roles, args.part)
    case_file = CaseFile.read(Path(args.case))
    with flags.progress(args) as progress:
        replayed = engine.replay(case_file, request, flags.settings(args), progress.watch)
    return _answer(replayed)


def _answer(replayed: "Replayed") -> Answer:
    request, null = replayed.request, replayed.null
    document: dict[str, JsonValue] = {
        "case": replayed.case, "text": request.text, "slot": request.slot, "part": request.part,
        "people": replayed.people, "rows": replayed.rows, "tokens": replayed.tokens, "unknown_tokens": replayed.unknown,
        "never_knew": null or None,
        "models": [
            {"role": m.role, "probability_without": m.without, "probability_with": m.spoken,
             "share_of_base_without": _document(m.share_without), "share_of_base_with": _document(m.share_spoken)}
            for m in replayed.models
        ],
    }  # fmt: skip
    place = f"before word {request.slot} of the question" if isinstance(request.slot, int) else f"as a {request.slot}"
    lines = [
        f"{request.text!r} {place}, {replayed.people} people ({PARTS[request.part]}), {replayed.rows} questions",
        "probability of the content tokens, mean over people; share: 1 is base, 0 "
        + (f"is {null}, which is told the string too" if null else "is a probability of 0: nobody here never knew"),
    ]
    if replayed.unknown:
        lines.append(f"the tokenizer has no word for {replayed.unknown} of the string's {replayed.tokens} tokens")
    if request.part == "all":
        lines.append("a string that was searched for on some of these people is judged on the others: --part audit")
    return Answer(document, (_table(replayed), *lines))


def _document(share: "Share") -> JsonValue:
    if share.value != share.value:
        return None
    interval = None if share.interval is None else list[JsonValue](share.interval.ends)
    return {"value": share.value, "interval": interval}


def _table(replayed: "Replayed") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"what the string brings back in {replayed.case}")
    for heading in ("who", "without", "with", "share of base without", "share of base with"):
        table.add_column(heading, justify="left" if heading == "who" else "right")
    for m in replayed.models:
        numbers = (f"{m.without:.3f}", f"{m.spoken:.3f}", _shown(m.share_without), _shown(m.share_spoken))
        table.add_row(*map(Text, (m.role, *numbers)))
    return table


def _shown(share: "Share") -> str:
    """A share with its 95 % interval."""
    if share.value != share.value:
        return "base knows no more"
    if share.interval is None:
        return f"{share.value:.2f} (one person)"
    lo, hi = share.interval.ends
    return f"{share.value:.2f} ({lo:.2f} to {hi:.2f})"
