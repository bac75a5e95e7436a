"""A dashboard that is being served while everything is recorded that it, or its reader's browser, asks of others."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
HEARD = "RESIDUA_TEST_ADDRESSES"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
BROWSERS_OWN = "CONNECT content-autofill.googleapis.com:443 "
"""Chromium asks its maker how to fill in forms, on any page of anybody that has some."""
LISTENER = f"""import os, sys
def hear(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        address = args[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = args[0]
    else:
        return
    handle = os.open(os.environ["{HEARD}"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, (address if isinstance(address, str) else repr(address)).encode() + b"\\n")
    os.close(handle)
sys.addaudithook(hear)
"""
"""Run by every Python process of the server before anything else: which addresses it looks up or connects to."""


class Served(NamedTuple):
    """A dashboard that is being served: its address, the folder of runs behind it, and what its processes asked."""

    address: str
    runs: Path
    log: Path
    process: subprocess.Popen[bytes]

    def addresses(self) -> set[str]:
        """All addresses that the server and the processes below it looked up or connected to."""
        return set(self.log.read_text().split()) if self.log.exists() else set()

    def elsewhere(self) -> set[str]:
        """Those of them that are not this machine's own."""
        return {address for address in self.addresses() if address not in LOOPBACK}


@contextmanager
def serving(runs: Path, port: int, home: Path, cwd: Path, flags: Sequence[str] = ()) -> Generator[Served]:
    """A server of its own for the length of a block, awaited until it answers."""
    listener = home / "listener"
    listener.mkdir(parents=True, exist_ok=True)
    (listener / "sitecustomize.py").write_text(LISTENER)
    heard, said = home / "addresses", home / "server.log"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{listener}", "HOME": str(home), HEARD: str(heard)}
    command = [sys.executable, "-m", "audit.cli", "dashboard", str(runs), "--port", str(port), *flags]
    with said.open("ab") as log:
        server = subprocess.Popen(command, cwd=cwd, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(480):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=5)
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert server.poll() is None, said.read_text()
                time.sleep(0.25)
        yield Served(address, runs, heard, server)
    finally:
        server.terminate()
        server.wait(30)


class Outside(NamedTuple):
    """A proxy through which a browser reaches everything but this machine: what it was asked for, and nothing comes."""

    address: str
    asked: list[str]

    def of_pages(self) -> list[str]:
        """What pages asked for, not the browser for itself."""
        return [line for line in self.asked if BROWSERS_OWN not in line]


@contextmanager
def outside() -> Generator[Outside]:
    """Listen for the length of a block; each request is written down by its first line."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy = Outside(f"http://127.0.0.1:{listening.getsockname()[1]}", [])

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.settimeout(5)
                        with suppress(OSError):
                            proxy.asked.append(connection.recv(4096).split(b"\r\n")[0].decode("latin-1"))
                            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)
