# SPDX-License-Identifier: MIT
"""What the server's tests share: tokens, certificates, a client over a memory HSM."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
from aiohttp import web
from yarl import URL

from hsm_core.factory import OpenHSM, open_async
from hsm_core.operations import Operation
from hsm_core.policies import Policy
from hsm_core.protocols import AsyncHSMGateway
from hsm_core.rest import API_PREFIX
from hsm_core.testing import memory_hsm
from hsm_server.app import create_app
from hsm_server.config.settings import LogFormat, LogLevel, ServerSettings
from hsm_server.http.listener import Listener
from hsm_server.http.state import METRICS
from hsm_server.identity.clock import FlooredClock
from hsm_server.identity.id_tokens import provider_trust_for
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.limits.guard import actor_limiter
from hsm_server.observability.logs import Logger, make_logger
from hsm_server.observability.metrics import Metrics
from hsm_server.observability.tracing import NO_TRACING, Tracing
from hsm_server.vault.access import VaultAccess
from hsm_server.vault.gatekeeper import Gatekeeper
from hsm_server.vault.local_vault import LocalVault
from tests.pki import CLIENT, SERVER, self_signed_root

Between: TypeAlias = Callable[[AsyncHSMGateway, Gatekeeper], VaultAccess]
"""Makes what an application asks, over an HSM and who guards it."""

SECRET = b"tests only: 32 bytes or more of it"
EVERYBODY = ("Administrator", "Operator", "Service", "Auditor")


PATIENCE = 60.0
"""How long a test waits for what must come, in seconds."""


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def has_connections() -> bool:
    """Return whether the event loop reads from more than its own pipe."""
    loop: Any = asyncio.get_running_loop()
    return len(loop._selector.get_map()) > 1  # noqa: SLF001


def b64(data: bytes) -> str:
    """Return standard base64."""
    return base64.b64encode(data).decode()


def b64url(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, changed; None takes a claim away."""
    now = int(time.time())
    good = {"sub": "alice", "roles": list(EVERYBODY), "iat": now, "exp": now + 300}
    return {k: v for k, v in {**good, **changes}.items() if v is not None}


def sign_parts(header: bytes, payload: bytes, secret: bytes = SECRET) -> str:
    """Return a token over these very bytes, signed with HS256."""
    head = f"{b64url(header)}.{b64url(payload)}"
    return f"{head}.{b64url(hmac.digest(secret, head.encode(), hashlib.sha256))}"


def mint(
    body: Mapping[str, Any] | None = None,
    header: Mapping[str, Any] | None = None,
    secret: bytes = SECRET,
) -> str:
    """Return a token, by default a good one."""
    return sign_parts(
        json.dumps(header or {"alg": "HS256", "typ": "JWT"}).encode(),
        json.dumps(claims() if body is None else body).encode(),
        secret,
    )


class SetClock(FlooredClock):
    """A clock that a test sets; it can also be called."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def now(self) -> float:
        """Return the time that was set."""
        return self.seconds

    def __call__(self) -> float:
        """Return it, too."""
        return self.seconds


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the problem."""
        assert self.headers["Content-Type"].startswith("application/problem+json")
        return str(self.json["code"])


class API:
    """A client of an application over a memory HSM."""

    def __init__(
        self,
        hsm: OpenHSM,
        app: web.Application,
        client: aiohttp.ClientSession,
        address: tuple[str, int],
        log: StringIO,
    ) -> None:
        self.hsm = hsm
        self.app = app
        self.client = client
        self.address = address
        self._log = log

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every line of the log."""
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    @property
    def unexpected(self) -> int:
        """How many unexpected exceptions were counted."""
        return self.app[METRICS].unexpected

    async def send(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        roles: Sequence[str] = EVERYBODY,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        data: Any = None,
        query: str = "",
    ) -> Answer:
        """
        Send a request and read the answer.

        Args:
            method: Verb.

            path: Below ``/api/v1``, or from the root with two slashes.

            token: Bearer token; empty sends none, None mints one.

            roles: Roles of the minted token.

            headers: Sent as they are.

            body: What is sent as JSON, where it is not None.

            data: What is sent as it is.

            query: Query string, encoded.
        """
        sent = dict(headers or {})
        if token is None:
            token = mint(claims(roles=list(roles)))
        if token:
            sent.setdefault("Authorization", f"Bearer {token}")
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            data = json.dumps(body).encode()
        target = path[1:] if path.startswith("//") else API_PREFIX + path
        url = URL(target + (f"?{query}" if query else ""), encoded=True)
        skip = () if "Content-Type" in sent else ("Content-Type",)
        async with self.client.request(
            method, url, headers=sent, data=data, skip_auto_headers=skip
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def create(self, algorithm: str, **fields: Any) -> dict[str, Any]:
        """Make a key and return what is known of it."""
        answer = await self.send(
            "POST", "/keys", body={"algorithm": algorithm, **fields}
        )
        assert 201 == answer.status, answer.body
        found: dict[str, Any] = answer.json
        return found

    async def events(self) -> list[dict[str, Any]]:
        """Return the newest events of the trail."""
        answer = await self.send("GET", "/audit/events", query="limit=1000")
        return [entry["event"] for entry in answer.json["items"]]


def local_app(
    gateway: AsyncHSMGateway,
    settings: ServerSettings,
    logger: Logger,
    clock: FlooredClock,
    secret: bytes = SECRET,
    between: Between = LocalVault,
    weigh: Callable[[Operation[Any]], int] = lambda _: 1,
    tracing: Tracing = NO_TRACING,
    issuers: Sequence[TokenTrust] = (),
) -> web.Application:
    """Build the application over an HSM of this process."""
    metrics = Metrics()
    provider_trust = provider_trust_for(settings.oidc, lambda problem: None, clock)
    gatekeeper = Gatekeeper(
        gateway,
        TokenTrust.of_secret(secret, settings.tokens),
        metrics.count_jwt_failure,
        clock,
        limiter=actor_limiter(settings.rates, weigh, metrics),
        console=settings.console,
        people=provider_trust.tokens if provider_trust else None,
        issuers=issuers,
    )
    vault = between(gateway, gatekeeper)
    return create_app(vault, settings, logger=logger, metrics=metrics, tracing=tracing)


@contextlib.asynccontextmanager
async def served(
    app: web.Application, settings: ServerSettings
) -> AsyncIterator[tuple[str, int]]:
    """Serve an application on loopback without TLS; give host and port."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        listener = Listener(app, [bound], None)
        await listener.start()
        try:
            yield bound.getsockname()
        finally:
            await listener.stop(settings.drain_timeout_seconds)


@contextlib.asynccontextmanager
async def open_api(
    settings: ServerSettings | None = None,
    *,
    gateway: AsyncHSMGateway | None = None,
    clock: FlooredClock | None = None,
    between: Between = LocalVault,
    tracing: Tracing = NO_TRACING,
    policy: Policy | None = None,
    issuers: Sequence[TokenTrust] = (),
) -> AsyncIterator[API]:
    """Serve a fresh memory HSM, or *gateway*, on loopback without TLS."""
    log = StringIO()
    with memory_hsm(policy=policy) as hsm:
        settings = settings or ServerSettings()
        app = local_app(
            gateway or open_async(hsm),
            settings,
            make_logger(log, LogLevel.DEBUG, LogFormat.JSON),
            clock or FlooredClock(),
            between=between,
            weigh=hsm.weight,
            tracing=tracing,
            issuers=issuers,
        )
        async with (
            served(app, settings) as (host, port),
            aiohttp.ClientSession(
                f"http://{host}:{port}", auto_decompress=False
            ) as client,
        ):
            yield API(hsm, app, client, (host, port), log)


class Authority:
    """A certificate authority for one test run, whose certificates lie in files."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self._folder = folder
        self._root = self_signed_root(name, below=0)
        self.certificate = self._root.certificate
        self.path = folder / f"{name.replace(' ', '-')}.pem"
        self.path.write_bytes(self._root.chain_pem)

    def issue(self, name: str, *, server: bool) -> tuple[Path, Path]:
        """Issue a certificate; return the paths of certificate and key."""
        issued = self._root.issue(name, use=SERVER if server else CLIENT)
        return issued.write(self._folder, name, is_alone=True)
