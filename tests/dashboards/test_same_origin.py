"""Who may ask the dashboard: its own names, its own pages, and nobody without their token."""

from collections.abc import Iterator
from http.cookies import SimpleCookie

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from audit.schema import AuditError
from dashboards.same_origin import SameOrigin
from dashboards.serving import LOOPBACK, NAMES, listening, own_names

HERE = "http://127.0.0.1:8501"
FOREIGN_HOSTS = ["rebound.example", "127.0.0.1.example:8501", "localhost.example", "0.0.0.0:8501", "user@127.0.0.1", "",
                 "127.0.0.1:x", "127.0.0.1/path", "[::1", "127.0.0.1 ", "localhost,rebound.example"]  # fmt: skip
FOREIGN_ORIGINS = ["http://rebound.example", "null", "", "http://127.0.0.1:9999", "http://localhost:8501",
                   "file://127.0.0.1:8501", "http://127.0.0.1:8501.example", "http://127.0.0.1:8501@rebound.example",
                   "http://[::1"]  # fmt: skip


class Reached(list[str]):
    """Which requests came through to what stands behind."""

    async def page(self, request: Request) -> PlainTextResponse:
        self.append(request.method)
        return PlainTextResponse("a run")

    async def stream(self, socket: WebSocket) -> None:
        self.append("stream")
        await socket.accept()
        await socket.send_text("a click was heard")
        await socket.close()


@pytest.fixture
def reached() -> Reached:
    return Reached()


@pytest.fixture
def client(reached: Reached) -> Iterator[TestClient]:
    """A visitor of an application behind the door, who has not opened its first page yet."""
    routes = [Route("/", reached.page, methods=["GET", "POST"]), WebSocketRoute("/stream", reached.stream)]
    app = Starlette(routes=routes, middleware=[Middleware(SameOrigin, names=LOOPBACK)])
    with TestClient(app, base_url=HERE) as visitor:
        yield visitor


def heard(client: TestClient, headers: dict[str, str]) -> bool:
    """Does the websocket open?"""
    try:
        with client.websocket_connect(f"ws{HERE[4:]}/stream", headers=headers) as socket:
            return socket.receive_text() == "a click was heard"
    except WebSocketDisconnect:
        return False


@pytest.mark.parametrize("host", ["127.0.0.1:8501", "localhost:8501", "LOCALHOST", "[::1]:8501", "127.0.0.1:9000"])
def test_its_own_names_are_answered_at_whatever_port_they_are_forwarded(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).text == "a run"


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_foreign_name_is_refused_before_anything_is_asked(client: TestClient, reached: Reached, host: str) -> None:
    client.get("/")
    refused = client.get("/", headers={"Host": host})
    assert refused.status_code == 421 and "its own names only" in refused.text and "set-cookie" not in refused.headers
    assert "rebound.example" not in refused.text
    assert not heard(client, {"Host": host}) and reached == ["GET"]


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_page_of_another_site_is_refused_even_with_the_token(
    client: TestClient, reached: Reached, origin: str
) -> None:
    client.get("/")
    for method in ("GET", "POST", "OPTIONS"):
        assert client.request(method, "/", headers={"Origin": origin}).status_code == 403
    assert not heard(client, {"Origin": origin}) and reached == ["GET"]


def test_orders_are_taken_with_the_token_of_the_first_page_alone(client: TestClient, reached: Reached) -> None:
    own = {"Origin": HERE}
    for name, token in (("", ""), ("residua_8501", ""), ("residua_8501", "guessed"), ("other", "guessed")):
        client.cookies.clear()
        client.cookies.set(name, token)
        assert client.post("/", headers=own).status_code == 403 and not heard(client, own)
    client.cookies.clear()
    assert client.post("/", headers={**own, "Cookie": '\x7f=;\\"= residua_8501'}).status_code == 403
    assert reached == []
    first = client.get("/")
    assert client.post("/", headers=own).text == "a run" and heard(client, own) and heard(client, {})
    assert "set-cookie" not in client.get("/").headers
    ((name, morsel),) = SimpleCookie(first.headers["set-cookie"]).items()
    assert name.startswith("residua_") and len(morsel.value) >= 43
    assert morsel["httponly"] and morsel["samesite"] == "Strict" and morsel["path"] == "/" and not morsel["domain"]


def test_every_server_has_a_token_of_its_own_and_an_old_page_is_given_the_new_one(client: TestClient) -> None:
    client.cookies.set(next(iter(dict(client.get("/").cookies))), "that of the server before", domain="127.0.0.1")
    assert "set-cookie" in client.get("/").headers
    assert SameOrigin(client.app, LOOPBACK).token != SameOrigin(client.app, LOOPBACK).token


def test_the_browser_is_told_to_ask_nobody_else_and_to_be_framed_by_nobody(client: TestClient) -> None:
    rules = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in rules and "frame-ancestors 'none'" in rules and "*" not in rules
    assert "http" not in rules.replace("ws://127.0.0.1:8501 wss://127.0.0.1:8501", "")


def test_two_host_headers_are_refused() -> None:
    door = SameOrigin(None, LOOPBACK)  # type: ignore[arg-type]
    scope = {"type": "http", "method": "GET", "headers": [(b"host", b"localhost"), (b"host", b"rebound.example")]}
    assert (door.refusal(scope) or (0,))[0] == 421
    assert (door.refusal({**scope, "headers": []}) or (0,))[0] == 421


# ---- names that the user gives -----------------------------------------------------------------------------------
def test_a_name_of_the_users_own_stands_in_place_of_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_names() == LOOPBACK
    monkeypatch.setenv(NAMES, "Lab7.example 10.1.2.3")
    assert own_names() == ("lab7.example", "10.1.2.3")
    assert listening([]) == "127.0.0.1" and listening(["localhost"]) in ("127.0.0.1", "::1")
    assert listening(["127.0.0.1", "lab7.example"]) == "127.0.0.1" and listening(["::1"]) == "::1"


@pytest.mark.parametrize(
    "name", ["0.0.0.0", "::", "a b", "http://lab7", "lab7:80", "", "127.0.0.1/x", "no.such.invalid"]
)
def test_a_name_that_is_no_address_or_every_address_is_input(name: str) -> None:
    with pytest.raises(AuditError) as refused:
        listening([name])
    assert refused.value.code == 2 and refused.value.do
