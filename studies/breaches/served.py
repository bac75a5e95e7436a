"""What a dashboard answers to a foreign name, and whom it asks when a page of another site knocks."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

FOREIGN: Final = "audits.example"
PATIENCE_S: Final = 90.0
WATCH: Final = """
import os, socket
_ask = socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    with open(os.environ["ASKED"], "a") as file:
        file.write(f"{host}\\n")
    return _ask(host, *args, **kwargs)
socket.getaddrinfo = getaddrinfo
"""
"""Written down by the server's own process: every host whose address it looks for."""


class Served(NamedTuple):
    """The status of a page asked for by a foreign name, that of a connection that a foreign page opens, and the hosts
    outside this machine that the server looked for."""

    page: str
    connection: str
    outside: tuple[str, ...]


def served(build: Path, runs: Path) -> Served:
    """What the dashboard of a build does; nothing leaves this machine unless the build sends it."""
    with tempfile.TemporaryDirectory(prefix="residua-served-") as temp:
        requests = Path(temp) / "asked"
        (Path(temp) / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
        port = _free_port()
        env = {**os.environ, "PYTHONPATH": f"{temp}{os.pathsep}{build}", "ASKED": str(requests), "RESIDUA_CACHE": temp}
        words = [sys.executable, "-P", "-m", "audit.cli", "dashboard", str(runs), "--port", str(port)]
        with _process(words, env, temp):
            _wait(port)
            page = _status(port, f"GET / HTTP/1.1\r\nHost: {FOREIGN}\r\nConnection: close\r\n\r\n")
            handshake = (
                f"GET /_stcore/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
                f"Origin: http://{FOREIGN}\r\n\r\n"
            )
            connection = _status(port, handshake)
        hosts = requests.read_text(encoding="utf-8").split() if requests.is_file() else []
    inside = {"127.0.0.1", "localhost", "::1", "None", "", socket.gethostname()}
    return Served(page, connection, tuple(sorted(set(hosts) - inside)))


@contextmanager
def _process(words: list[str], env: dict[str, str], folder: str) -> Generator[None]:
    server = subprocess.Popen(words, env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.terminate()
        server.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int) -> None:
    """Until somebody listens there. TimeoutError if nobody does."""
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE_S:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.5)
    raise TimeoutError(f"nobody listens at port {port}")


def _status(port: int, request: str) -> str:
    """The status that a request is answered with; what it ended with where it is not."""
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as line:
            line.sendall(request.encode())
            first = line.recv(4096).split(b"\r\n", 1)[0].decode(errors="replace")
    except OSError as error:
        return type(error).__name__
    return first.split(" ")[1] if " " in first else "closed"
