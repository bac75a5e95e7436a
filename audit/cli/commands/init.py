"""Write a commented case.toml."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.cli.answer import Answer

ORDER = 10
TEMPLATE = Path(__file__).parent.parent / "case_template.toml"


def add_arguments(parser: ArgumentParser) -> None:
    """Where."""
    parser.add_argument("path", nargs="?", default="case.toml", help="where (default: case.toml)")


def act(args: Namespace) -> Answer:
    """Write the template; never over an existing file."""
    from audit.schema import AuditError
    from audit.storage import write_atomic

    path = Path(args.path)
    path = path / "case.toml" if path.is_dir() or args.path.endswith("/") else path
    if path.exists():
        raise AuditError(f"{path} exists already", "name another file, or edit that one")
    write_atomic(path, TEMPLATE.read_bytes())
    advice = f"fill in the roles and the data, look with `residua plan {path}`, then `residua run {path}`"
    return Answer({"case": str(path)}, (f"{path} is written: {advice}",))
