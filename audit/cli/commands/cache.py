"""Say how large the cache is, and make it smaller."""

from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path

from audit.cli.answer import Answer, JsonValue

ORDER = 90


def add_arguments(parser: ArgumentParser) -> None:
    """How small it is to be."""
    parser.add_argument("--prune", nargs="?", const="0", metavar="SIZE", help="drop cached activations, fitted "
                        "models and float copies of quantised releases, used longest ago first, down to SIZE such as "
                        "10G (default: all)")  # fmt: skip


def act(args: Namespace) -> Answer:
    """What the cache holds, and how large that is. The store and float copies of quantised releases are pruned: the
    rest is trained worlds and records."""
    from audit.checkpoints import copies
    from audit.planning import parse_bytes
    from audit.storage import Store, cache_root
    from audit.wording import told_bytes

    root = cache_root()
    freed = Store(root / "store").prune(parse_bytes(args.prune), copies()) if args.prune is not None else 0
    sizes = {path.name: _bytes_of(path) for path in sorted(root.iterdir())} if root.is_dir() else {}
    lines = [f"{root}: {told_bytes(sum(sizes.values()))}"]
    lines += [f"  {name}: {told_bytes(size)}" for name, size in sizes.items()]
    lines += [f"freed: {told_bytes(freed)}"] if args.prune is not None else []
    document: dict[str, JsonValue] = {
        "root": str(root), "bytes": sum(sizes.values()), "parts": dict[str, JsonValue](sizes), "freed": freed,
    }  # fmt: skip
    return Answer(document, tuple(lines))


def _bytes_of(path: Path) -> int:
    """A file's size, or that of all files below a folder but for what the store notes of its users; what another
    process deletes meanwhile counts as nothing."""
    from audit.storage import IN_USE, LEDGER

    size = 0
    for below in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            size += below.stat().st_size if below.is_file() and not {IN_USE, LEDGER} & set(below.parts) else 0
    return size
