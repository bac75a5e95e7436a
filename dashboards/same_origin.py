"""Who may ask the dashboard: pages of its own, under its own names, with the token that its first page was given.

It stands before Streamlit, on every request and on the websocket. A foreign ``Host`` is a name that somebody else
points at this machine (DNS rebinding), a foreign ``Origin`` another site's page; asked about one of those, Streamlit
would look up this machine's address elsewhere. A click is a message of the websocket, so that whoever opens that can
start an audit: it opens with the token alone, a cookie that no script reads and no other site's request carries
(SameSite, https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis). The browser is told to fetch nothing
from elsewhere, whatever stands in a page (Content Security Policy, https://www.w3.org/TR/CSP3/).
"""

import secrets
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
MISDIRECTED, FORBIDDEN = 421, 403
POLICY_VIOLATION: Final = 1008
"""How a websocket says that it is refused; before it is opened the answer is 403."""
POLICY: Final = "; ".join((
    "default-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval'", "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:", "font-src 'self' data:", "connect-src 'self' {sockets}", "worker-src 'self' blob:",
    "object-src 'none'", "base-uri 'self'", "form-action 'self'", "frame-ancestors 'none'",
))  # fmt: skip
"""Streamlit's own pages hold inline script and style, and charts are compiled in the page."""


class SameOrigin:
    """An ASGI application that hands on what its own pages ask under one of ``names``, and refuses everything else."""

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self.app = app
        self.names = frozenset(names)
        self.token = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, or refuse before anybody else has seen the request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal is None:
            await self.app(scope, receive, self._marked(scope, send) if scope["type"] == "http" else send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
        else:
            status, reason = refusal
            await PlainTextResponse(reason + "\n", status, {"Cache-Control": "no-store"})(scope, receive, send)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason of a refusal; None for a request of its own pages."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or name_in(hosts[0]) not in self.names:
            return MISDIRECTED, (f"This dashboard answers to its own names only: {', '.join(sorted(self.names))}. "
                                 "To give it another: residua dashboard --host NAME")  # fmt: skip
        if any(place_of(origin) != hosts[0].lower() for origin in origins):
            return FORBIDDEN, "This dashboard is not for pages of another site."
        opens = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if opens and not secrets.compare_digest(cookies(headers).get(cookie_name(scope), ""), self.token):
            return FORBIDDEN, "This dashboard takes orders from its own pages only: open it in a browser."
        return None

    def _marked(self, scope: Scope, send: Send) -> Send:
        """``send`` with the rules for the browser, and with the token where the browser does not have it yet."""
        headers = Headers(scope=scope)
        name, host = cookie_name(scope), headers["host"]
        has_token = cookies(headers).get(name) == self.token

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                out["Content-Security-Policy"] = POLICY.format(sockets=f"ws://{host} wss://{host}")
                out["X-Content-Type-Options"] = "nosniff"
                out["Referrer-Policy"] = "same-origin"
                out["Cross-Origin-Resource-Policy"] = "same-origin"
                if not has_token:
                    out.append("Set-Cookie", f"{name}={self.token}; Path=/; HttpOnly; SameSite=Strict")
            await send(message)

        return marked


def name_in(host: str) -> str | None:
    """The name in a ``Host`` header, in lower case and without its port; None where the header is no plain name."""
    try:
        parts = urlsplit(f"//{host}")
        plain = parts.netloc == host and "@" not in host and parts.port != 0
    except ValueError:
        return None
    return parts.hostname if plain else None


def place_of(origin: str) -> str | None:
    """Name and port of an origin as its page writes them into ``Host``; None for an opaque or a broken one."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None


def cookie_name(scope: Scope) -> str:
    """One name a port: browsers send the cookies of a host to every port of it."""
    return f"residua_{(scope.get('server') or ('', 0))[1]}"


def cookies(headers: Headers) -> Mapping[str, str]:
    """The cookies of a request; none where they cannot be read."""
    jar = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in jar.items()}
