"""Write a commented case.toml, filled in from a release where one is named (--from)."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli.answer import Answer, JsonValue

if TYPE_CHECKING:
    from audit.case import Draft, DraftText

ORDER = 10
TEMPLATE = Path(__file__).parent.parent / "case_template.toml"


def add_arguments(parser: ArgumentParser) -> None:
    """Where, and from what."""
    parser.add_argument("path", nargs="?", default="case.toml", help="where (default: case.toml)")
    parser.add_argument("--from", dest="releases", nargs="+", metavar="RELEASE", help="a model folder, a file or hub "
                        "id (owner/name[@commit]): roles, prompt and data are filled in as far as they are known; of "
                        "two the first is base, which knew, and the second the suspect. A folder with the files of "
                        "TOFU, MUSE or RWKU, or a file of one TOFU split, fills in the data alone")  # fmt: skip
    parser.add_argument("--data", action="append", default=[], metavar="DIR", help="with --from: a folder in which the "
                        "benchmark's files may lie (may be given again)")  # fmt: skip
    parser.add_argument("--online", action="store_true", help="with --from: ask the hub (default: offline)")


def act(args: Namespace) -> Answer:
    """Write the template, or the case of a release; never over an existing file."""
    from audit.schema import AuditError
    from audit.storage import write_atomic

    given = args.releases or []
    if len(given) > 1 and given[-1].endswith(".toml") and args.path == "case.toml":
        args.path = given.pop()  # `init --from RELEASE FILE`: the file comes last
    path = Path(args.path)
    path = path / "case.toml" if path.is_dir() or args.path.endswith("/") else path
    if path.exists():
        raise AuditError(f"{path} exists already", "name another file, or edit that one")
    if args.releases is not None:
        return _from_release(args, path)
    if args.data or args.online:
        raise AuditError("--data and --online say where a release is looked up, and none is named", "name it: --from X")
    write_atomic(path, TEMPLATE.read_bytes())
    advice = f"fill in the roles and the data, look with `residua plan {path}`, then `residua run {path}`"
    return Answer({"case": str(path)}, (f"{path} is written: {advice}",))


def _from_release(args: Namespace, path: Path) -> Answer:
    """The case of a release: what was recognised, what was filled in and why, and what is left."""
    from audit.case import draft_of, draft_text, load_case
    from audit.schema import AuditError
    from audit.storage import write_atomic

    folders = [Path(os.path.expanduser(folder)) for folder in args.data]
    *knew, suspect = args.releases
    if len(knew) > 1:
        raise AuditError(f"--from names {len(args.releases)} models", "name a release, or base and suspect; references "
                         "are filled in by hand")  # fmt: skip
    draft = draft_of(suspect, folders, args.online, *knew)
    case = draft_text(draft, path.parent)
    write_atomic(path, case.text.encode())
    if not _needed(draft):
        load_case(path)
    return Answer(_document(suspect, path, draft, case), tuple(_shown(path, draft, case)))


def _needed(draft: "Draft") -> list[str]:
    """Keys without which there is no case."""
    return [entry.key for entry in draft.left if entry.key.startswith(("roles.", "data."))]


def _document(given: str, path: Path, draft: "Draft", case: "DraftText") -> dict[str, JsonValue]:
    filled: list[JsonValue] = [{"key": key, "value": value, "why": reason} for key, value, reason in case.filled]
    left: list[JsonValue] = [
        {"key": entry.key, "what": entry.description, "needed": entry.key in _needed(draft)} for entry in draft.left
    ]
    return {"case": str(path), "from": given, "recognised": list(draft.recognised), "filled": filled, "left": left}


def _shown(path: Path, draft: "Draft", case: "DraftText") -> list[str]:
    lines = [f"recognised {recognised}" for recognised in draft.recognised]
    lines += [f"filled in {key} = {value}" + (f" ({reason})" if reason else "") for key, value, reason in case.filled]
    lines += [f"LEFT TO FILL IN {entry.key}: {entry.description}" for entry in draft.left]
    needed = _needed(draft)
    first = f"fill in {', '.join(needed)}, " if needed else ""
    fetching = " --online" if draft.of_hub else ""
    verbs = " and then ".join(f"`residua {verb} {path}{fetching}`" for verb in ("plan", "run"))
    return [*lines, f"{path} is written: {first}look with {verbs}"]
