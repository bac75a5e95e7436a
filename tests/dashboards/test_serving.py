"""How the dashboard is served: to this machine alone, silent, and with an answer for a wrong folder or port."""

import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from audit.cli import main
from audit.schema import AuditError
from dashboards import serving
from dashboards.entry.launch import answered
from dashboards.serving import ADDRESS, HOST, NAMES, RUNS, environment, flags, free_port, serve


def unheard(_: str) -> None:
    """Nobody listens."""


def test_the_flags_bind_to_this_machine_and_tell_nobody_anything() -> None:
    told = dict(zip(flags(1234)[::2], flags(1234)[1::2], strict=True))
    assert told["--server.address"] == HOST == "127.0.0.1" and told["--server.port"] == "1234"
    assert told["--browser.gatherUsageStats"] == "false"
    assert told["--client.showErrorDetails"] == "none" and told["--client.showErrorLinks"] == "false"
    assert told["--logger.hideWelcomeMessage"] == "true", "the address is said once, and by us"


def test_settings_of_streamlit_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLIT_SERVER_ENABLE_AGENT_API", "true")
    assert not [name for name in environment(Path("runs")) if name.startswith("STREAMLIT_")]


@pytest.mark.parametrize(("hosts", "names", "address"), [
    ([], "localhost 127.0.0.1 ::1", "127.0.0.1"),
    (["127.0.0.1", "lab7.example"], "127.0.0.1 lab7.example", "127.0.0.1"),
])  # fmt: skip
def test_the_server_listens_and_answers_as_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: list[str], names: str, address: str
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    monkeypatch.setattr(os, "execve", lambda _, command, environ: started.append((command, environ)))
    spoken: list[str] = []
    serve(tmp_path, 0, spoken.append, hosts)
    (command, environ) = started[0]
    assert environ[NAMES] == names and command[command.index("--server.address") + 1] == address
    assert command[command.index("--browser.serverAddress") + 1] == address and len(spoken) == 1


def test_who_serves_others_is_told_what_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken: list[str] = []
    environs: list[dict[str, str]] = []
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    monkeypatch.setattr(os, "execve", lambda *words: environs.append(words[2]))
    monkeypatch.setattr(serving, "listening", lambda _: "192.0.2.7")
    monkeypatch.setattr(serving, "free_port", lambda *_: 8501)
    serve(tmp_path, 0, spoken.append, ["lab7.example"])
    assert environs[0][ADDRESS] == "http://lab7.example:8501" and "start audits with your rights" in spoken[1]
    assert "http" not in spoken[0], "an address is said once it answers"


def test_the_address_is_said_once_it_answers() -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["Host"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is logged."""

    hosts: list[str] = []
    spoken: list[str] = []
    port = free_port(0)
    url = f"http://lab7.example:{port}"
    waiting = threading.Thread(target=answered, args=(url, HOST, spoken.append), daemon=True)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive() and not spoken, "nobody listens there yet"
    with HTTPServer((HOST, port), Answer) as server:
        server.timeout = 10
        server.handle_request()
        waiting.join(10)
    assert spoken == [f"the dashboard answers at {url} (Ctrl-C ends it)\n"] and hosts == [f"lab7.example:{port}"]


def test_the_server_is_told_its_folder_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert environment(Path("runs"))[RUNS] == str(tmp_path / "runs")


def test_a_port_that_is_taken_is_refused_and_none_asked_for_finds_one() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        with pytest.raises(AuditError, match="taken"):
            free_port(taken.getsockname()[1])
        assert free_port(None) != taken.getsockname()[1]
    for odd in (-1, 70_000):
        with pytest.raises(AuditError):
            free_port(odd)


def test_a_folder_that_is_not_there_is_input_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AuditError, match="there is no folder"):
        serve(tmp_path / "none", None, unheard)
    assert main(["dashboard", str(tmp_path / "none")]) == 2
    captured = capsys.readouterr()
    assert "residua demo" in captured.err and not captured.out
