"""Name the weights in a folder by their content."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.cli.answer import Answer, JsonValue

ORDER = 130


def add_arguments(parser: ArgumentParser) -> None:
    """The folder."""
    parser.add_argument("folder", help="a checkpoint: plain, an adapter or an edited one")


def act(args: Namespace) -> Answer:
    """The hash that names the weights, configuration and tokenizer in a folder."""
    from audit.checkpoints import fingerprint

    hashed = fingerprint(Path(args.folder))
    lines = (hashed.total, *(f"  {sha}  {name}" for name, sha in sorted(hashed.files.items())))
    document: dict[str, JsonValue] = {
        "fingerprint": hashed.total, "size_bytes": hashed.size_bytes, "files": dict[str, JsonValue](hashed.files),
    }  # fmt: skip
    return Answer(document, lines)
