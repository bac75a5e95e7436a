"""Say how large the cache is, and make it smaller."""

from argparse import ArgumentParser, Namespace
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
    sizes = {path.name: _held(path) for path in sorted(root.iterdir())} if root.is_dir() else {}
    lines = [f"{root}: {told_bytes(sum(sizes.values()))}"]
    lines += [f"  {name}: {told_bytes(size)}" for name, size in sizes.items()]
    lines += [f"freed: {told_bytes(freed)}"] if args.prune is not None else []
    document: dict[str, JsonValue] = {
        "root": str(root), "bytes": sum(sizes.values()), "parts": dict[str, JsonValue](sizes), "freed": freed,
    }  # fmt: skip
    return Answer(document, tuple(lines))


def _held(path: Path) -> int:
    """The bytes of what lies there, but for what the store notes of its users."""
    from audit.storage import IN_USE, bytes_of

    return bytes_of(path) - bytes_of(path / IN_USE)
