# SPDX-License-Identifier: MIT
"""A browser without a window: what the tests of the console's pages share."""

import asyncio
import contextlib
import html
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy
from yarl import URL

from hsm_core.factory import OpenHSM, open_async
from hsm_core.model import Role
from hsm_core.operations import Operation
from hsm_core.policies import Policy
from hsm_core.protocols import HSM, AsyncHSMGateway
from hsm_core.settings import Settings
from hsm_core.testing import Faults, caller, memory_hsm
from hsm_server.config.settings import LogFormat, LogLevel, ServerSettings
from hsm_server.identity.clock import FlooredClock
from hsm_server.observability.logs import make_logger
from hsm_server.vault.local_vault import LocalVault
from tests.server.support import (
    EVERYBODY,
    PATIENCE,
    Between,
    claims,
    local_app,
    mint,
    served,
)

SESSION = "__Host-ferrohsm"
BEFORE = "__Host-ferrohsm-before"

_HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')


@dataclass
class Shown:
    """What a browser got."""

    status: int
    headers: CIMultiDictProxy[str]
    text: str = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def location(self) -> str:
        """Where it is sent to."""
        return self.headers.get("Location", "")

    @property
    def words(self) -> str:
        """The text without markup, white space and entities."""
        without = re.sub(r"<[^>]*>", " ", self.text)
        return " ".join(html.unescape(without).split())

    def hidden(self, name: str) -> str:
        """Return the value of the first hidden field of this name."""
        found = [value for key, value in _HIDDEN.findall(self.text) if key == name]
        assert found, f"There is no hidden field {name}."
        return html.unescape(found[0])


class Browser:
    """
    Keeps cookies and sends forms, as a browser does without scripts.

    Attributes:
        app: The application.
        hsm: The HSM behind it, if it is one of this process.
        cookies: Names and values.
        base: Scheme, host and port.
        log: What the service has logged.
    """

    def __init__(
        self,
        app: web.Application,
        hsm: OpenHSM,
        client: aiohttp.ClientSession,
        base: str,
        log: StringIO,
    ) -> None:
        self.app = app
        self.hsm = hsm
        self.base = base
        self.cookies: dict[str, str] = {}
        self.log = log
        self._client = client

    def act_as(self, *roles: Role, principal: str = "alice") -> HSM:
        """Return the HSM itself as somebody with these roles sees it."""
        return self.hsm.act_as(caller(*roles, principal=principal))

    def execute(self, operation: Operation[Any], principal: str = "alice") -> Any:
        """Execute an operation past the console, with every role."""
        return self.act_as(*Role, principal=principal).execute(operation)

    async def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Shown:
        """Send a request with the cookies; nothing is followed."""
        sent = dict(headers or {})
        if self.cookies:
            held = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
            sent.setdefault("Cookie", held)
        url = URL(path, encoded=True)
        async with self._client.request(
            method, url, headers=sent, data=data, allow_redirects=False
        ) as response:
            for morsel in response.cookies.values():
                if morsel["max-age"] == "0" or not morsel.value:
                    self.cookies.pop(morsel.key, None)
                else:
                    self.cookies[morsel.key] = morsel.value
            body = await response.read()
            text = body.decode(errors="replace")
            return Shown(response.status, response.headers, text, body)

    @contextlib.asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[AsyncIterator[str]]:
        """Give the lines of a stream of events, as they come."""
        held = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        async with (
            asyncio.timeout(PATIENCE),
            self._client.get(path, headers={"Cookie": held}) as response,
        ):
            assert 200 == response.status
            assert "text/event-stream" == response.content_type
            yield (line.decode().rstrip("\n") async for line in response.content)

    async def get(self, path: str, **headers: str) -> Shown:
        """Look at a page; ``HX_Request="true"`` asks for a part of it."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send("GET", path, headers=named)

    async def post(
        self,
        path: str,
        fields: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        **headers: str,
    ) -> Shown:
        """Send a form with these fields and no others."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("Content-Type", "application/x-www-form-urlencoded")
        data = urlencode(
            list(fields.items() if isinstance(fields, Mapping) else fields)
        )
        return await self.send("POST", path, headers=named, data=data.encode())

    async def submit(
        self,
        page: Shown,
        path: str,
        fields: Mapping[str, str] | None = None,
        **headers: str,
    ) -> Shown:
        """Send a form of a page: its first hidden fields, and these fields."""
        hidden = dict(reversed(_HIDDEN.findall(page.text)))
        whole = {name: html.unescape(value) for name, value in hidden.items()}
        return await self.post(path, {**whole, **(fields or {})}, **headers)

    async def follow(self, shown: Shown) -> Shown:
        """Go where an answer sends the browser."""
        assert 303 == shown.status, shown.text
        return await self.get(shown.location)

    async def sign_in(
        self, roles: Sequence[str] = EVERYBODY, *, token: str | None = None, **more: Any
    ) -> Shown:
        """Sign in with a token, by default one of somebody with these roles."""
        page = await self.get("/ui/sign-in")
        token = mint(claims(roles=list(roles), **more)) if token is None else token
        return await self.submit(page, "/ui/sign-in", {"token": token})


@contextlib.asynccontextmanager
async def open_browser(
    settings: ServerSettings | None = None,
    *,
    gateway: AsyncHSMGateway | None = None,
    clock: FlooredClock | None = None,
    between: Between = LocalVault,
    core: Settings | None = None,
    policy: Policy | None = None,
    faults: Faults | None = None,
) -> AsyncIterator[Browser]:
    """Serve the console over a fresh memory HSM on loopback, without TLS."""
    log = StringIO()
    settings = settings or ServerSettings()
    with memory_hsm(settings=core, policy=policy, faults=faults) as hsm:
        app = local_app(
            gateway or open_async(hsm),
            settings,
            make_logger(log, LogLevel.DEBUG, LogFormat.JSON),
            clock or FlooredClock(),
            between=between,
        )
        jar = aiohttp.DummyCookieJar()
        async with served(app, settings) as (host, port):
            base = f"http://{host}:{port}"
            async with aiohttp.ClientSession(base, cookie_jar=jar) as client:
                yield Browser(app, hsm, client, base, log)
