"""The dashboard as a process: this one becomes the server, bound to this machine, so that signals reach it.

The flags hold whatever the user's own Streamlit settings say: no other machine is served, nothing is told to anyone.
"""

import importlib.util
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from audit.schema import AuditError

HOST: Final = "127.0.0.1"
USUAL_PORT: Final = 8501
RUNS: Final = "RESIDUA_RUNS"
"""The environment variable that names the folder of runs to the dashboard."""


def serve(folder: Path, port: int | None, say: Callable[[str], None]) -> NoReturn:
    """Serve the dashboard of a folder of runs until interrupted. AuditError (code 2): no such folder, no such port."""
    if not folder.is_dir():
        raise AuditError(f"there is no folder {folder}", "`residua demo` makes runs in ./runs, or name another folder")
    chosen = free_port(port)
    say(f"{folder.resolve()} at http://{HOST}:{chosen} (Ctrl-C ends it)")
    # From here on standard output belongs to the server, and nothing of it is an answer.
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    command = [sys.executable, "-m", "streamlit", "run", str(_script()), *flags(chosen)]
    os.execve(sys.executable, command, environment(folder))


def flags(port: int) -> list[str]:
    """What the server is told: here only, silent, and without a look at its own files."""
    settings = {
        "server.address": HOST, "server.port": str(port), "server.headless": "true", "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false", "client.showErrorDetails": "none", "client.showErrorLinks": "false",
        "runner.magicEnabled": "false",
    }  # fmt: skip
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def environment(folder: Path) -> dict[str, str]:
    """The server finds this Residua, wherever it is started from."""
    home = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, RUNS: str(folder.resolve())}


def free_port(port: int | None) -> int:
    """The port asked for, else the usual one or any that is free. AuditError (code 2) if the one asked for is not."""
    for candidate in [USUAL_PORT, 0] if port is None else [port]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, candidate))
            except (OSError, OverflowError):
                continue
            return int(probe.getsockname()[1])
    raise AuditError(f"port {port} is taken or cannot be used", "name another with --port, or 0 for any that is free")


def _script() -> Path:
    spec = importlib.util.find_spec("dashboards")
    if spec is None or spec.origin is None:
        raise AuditError("the dashboard is not installed", "install Residua as a whole")
    return Path(spec.origin).parent / "entry" / "server.py"
