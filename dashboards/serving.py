"""The dashboard as a process: this one becomes the server, bound to this machine, so that signals reach it.

The flags hold whatever the user's own Streamlit settings say: nothing is told to anyone, and no other machine is served
unless the user names an address for it.
"""

import errno
import importlib.util
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from audit.schema import AuditError
from audit.wording import NAME, visible
from dashboards.same_origin import name_in

HOST: Final = "127.0.0.1"
LOOPBACK: Final = ("localhost", HOST, "::1")
LAUNCH: Final = "dashboards.entry.launch"
NAMES: Final = "RESIDUA_DASHBOARD_NAMES"
"""The environment variable that names to the dashboard the names that it answers to."""
ADDRESS: Final = "RESIDUA_DASHBOARD_ADDRESS"
"""The environment variable that tells the server under which address it is read, for it to say so once it answers."""
USUAL_PORT: Final = 8501
RUNS: Final = "RESIDUA_RUNS"
"""The environment variable that names the folder of runs to the dashboard."""


def serve(folder: Path, port: int | None, say: Callable[[str], None], hosts: Sequence[str] = ()) -> NoReturn:
    """Serve the dashboard of a folder of runs until interrupted. AuditError (code 2): no such folder, port or name.

    ``hosts``: the names that it answers to in place of this machine's own; the first is the address that it listens at.
    """
    if not folder.is_dir():
        raise AuditError(f"there is no folder {folder}", "`residua demo` makes runs in ./runs, or name another folder")
    address = listening(hosts)
    chosen = free_port(port, address)
    shown = hosts[0] if hosts else HOST
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{chosen}"
    say(f"starting the dashboard of {folder.resolve()}")
    if not ipaddress.ip_address(address).is_loopback:
        say("whoever reaches this address can read these runs and start audits with your rights; an SSH tunnel to a "
            "dashboard without --host lets in you alone")  # fmt: skip
    # From here on standard output belongs to the server, and nothing of it is an answer.
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    command = [sys.executable, "-m", LAUNCH, "run", str(_script()), *flags(chosen, address)]
    os.execve(sys.executable, command, {**environment(folder), NAMES: " ".join(hosts or LOOPBACK), ADDRESS: url})


def flags(port: int, address: str = HOST) -> list[str]:
    """What the server is told: here only, silent, and without a look at its own files."""
    settings = {
        "server.address": address, "server.port": str(port), "server.headless": "true", "server.baseUrlPath": "",
        "server.fileWatcherType": "none", "browser.serverAddress": address, "browser.gatherUsageStats": "false",
        "client.showErrorDetails": "none", "client.showErrorLinks": "false", "runner.magicEnabled": "false",
        "logger.hideWelcomeMessage": "true",
    }  # fmt: skip
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def environment(folder: Path) -> dict[str, str]:
    """The server finds this Residua, wherever it is started from; settings of Streamlit are not handed on."""
    home = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    handed_on = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIT_")}
    return {**handed_on, "PYTHONPATH": path, RUNS: str(folder.resolve())}


def own_names() -> tuple[str, ...]:
    """The names that the dashboard answers to, in lower case: those that it was started with, else this machine's."""
    return tuple(os.environ.get(NAMES, " ".join(LOOPBACK)).lower().split())


def listening(hosts: Sequence[str]) -> str:
    """The address to listen at. AuditError (code 2) for a name that cannot be one, or that stands for no address."""
    for name in hosts:
        if name_in(f"[{name}]" if ":" in name else name) != name.lower():
            raise AuditError(f"--host {visible(name, NAME)} is no name of a machine", "give a name or an address alone")
    if not hosts:
        return HOST
    try:
        address = str(socket.getaddrinfo(hosts[0], None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise AuditError(
            f"--host {hosts[0]} is no address of this machine ({error.strerror})", "give one that it has"
        ) from None
    if ipaddress.ip_address(address).is_unspecified:
        raise AuditError(
            f"--host {hosts[0]} stands for every address, and a dashboard answers to its own names only",
            "give the name or the address by which its readers reach it",
        )
    return address


def free_port(port: int | None, address: str = HOST) -> int:
    """The port asked for, else the usual one or any that is free. AuditError (code 2) if the one asked for is not."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for candidate in [USUAL_PORT, 0] if port is None else [port]:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, candidate))
            except (OSError, OverflowError) as error:
                if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
                    raise AuditError(
                        f"{address} is no address of this machine", "give --host one that it has"
                    ) from None
                continue
            return int(probe.getsockname()[1])
    raise AuditError(f"port {port} is taken or cannot be used", "name another with --port, or 0 for any that is free")


def _script() -> Path:
    spec = importlib.util.find_spec("dashboards")
    if spec is None or spec.origin is None:
        raise AuditError("the dashboard is not installed", "install Residua as a whole")
    return Path(spec.origin).parent / "entry" / "server.py"
