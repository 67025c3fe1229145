# SPDX-License-Identifier: MIT
"""The fast path: the bytes, records, metrics and log lines of the normal path."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final, NamedTuple

import pytest
from aiohttp.http_parser import RawRequestMessage

from hsm_core.operations import Operation
from hsm_core.protocols import AsyncHSMGateway
from hsm_server.config.settings import HTTPLimits, RateLimits, ServerSettings
from hsm_server.http import connection
from hsm_server.http.fast_path import Head, read_head
from hsm_server.http.state import IN_FLIGHT, METRICS
from hsm_server.vault.access import CancelUse, Replied, VaultAccess, Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from hsm_server.vault.local_vault import LocalVault
from tests.server.ipc_support import OverSockets
from tests.server.support import (
    API,
    PATIENCE,
    Between,
    SetClock,
    b64,
    claims,
    mint,
    open_api,
    until,
)

MESSAGE: Final = {"message": b64(b"a message")}
AAD: Final = {"plaintext": b64(b"some text"), "aad": b64(b"more")}
NOW: Final = 2_000_000_000.0
VARYING: Final = re.compile(
    rb"(?<=\r\nDate: )[^\r]+|(?<=;r=)\d+|(?<=;t=)\d+"
    rb'|(?<="ciphertext":")[^"]+|(?<="nonce":")[^"]+|(?<="secret":")[^"]+'
    rb'|(?<="shared_secret":")[^"]+|(?<="signature":")[^"]+(?=","hash")'
)
"""What differs from one execution to the next: time, randomness and quota."""


class Case(NamedTuple):
    """
    A request.

    Attributes:
        path: Below ``/api/v1/keys/``.
        body: JSON, or bytes as they are.
        headers: More fields, in the place of those of the same name; None leaves out.
        token: A bearer token by its name.
    """

    path: str
    body: object = None
    headers: Mapping[str, str | None] = {}
    token: str = "alice"


class Server:
    """
    A server that tells which path its requests take.

    Attributes:
        is_fast: Whether there is a fast path.
        taken: Whether each request since the last look took it.
    """

    def __init__(self, api: API, tokens: Mapping[str, str]) -> None:
        self.api = api
        self.tokens = tokens
        self.is_fast = True
        self.taken: list[bool] = []

    async def open(self) -> None:
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection(*self.api.address)

    def close(self) -> None:
        """Disconnect."""
        self.writer.close()

    def bytes_of(self, case: Case) -> bytes:
        """Return a request as it is sent."""
        body = case.body
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields: dict[str, str | None] = {
            "Host": "localhost",
            "Authorization": f"Bearer {self.tokens[case.token]}",
            "X-Request-Id": "from-a-test",
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **case.headers,
        }
        lines = [f"{k}: {v}\r\n" for k, v in fields.items() if v is not None]
        head = f"POST /api/v1/keys/{case.path} HTTP/1.1\r\n{''.join(lines)}\r\n"
        return head.encode() + data

    async def ask(self, *sent: bytes) -> list[bytes]:
        """Send requests in one piece; return their answers."""
        self.writer.write(b"".join(sent))
        return [await self.answer() for _ in sent]

    async def answer(self) -> bytes:
        """Return the next answer."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\r\nContent-Length: (\d+)", head)
            assert length is not None
            return head + await self.reader.readexactly(int(length[1]))

    async def both(self, case: Case) -> tuple[bytes, bytes, list[bool]]:
        """Return the answers with and without the fast path, and the paths taken."""
        sent = self.bytes_of(case)
        self.taken.clear()
        (fast,) = await self.ask(sent)
        self.is_fast = False
        (normal,) = await self.ask(sent)
        self.is_fast = True
        return fast, normal, self.taken.copy()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Server], None]:
    """Give a function that lets a server choose and tell the path."""
    servers: list[Server] = []
    begin = connection.Connection._begin_fast  # noqa: SLF001 (to tell which path)

    def head(message: RawRequestMessage) -> Head | None:
        is_fast = not servers or servers[-1].is_fast
        return read_head(message) if is_fast else None

    def begun(self: connection.Connection) -> bool:
        took = begin(self)
        if servers:
            servers[-1].taken.append(took)
        return took

    monkeypatch.setattr(connection, "read_head", head)
    monkeypatch.setattr(connection.Connection, "_begin_fast", begun)
    return servers.append


@pytest.fixture(params=["inline", "process"])
async def server(
    request: pytest.FixtureRequest, watch: Callable[[Server], None]
) -> AsyncIterator[Server]:
    """Give a server with keys, and with clients that have authenticated."""
    over = OverSockets()
    async with AsyncExitStack() as stack:
        between: Between = LocalVault
        if request.param == "process":
            between = over
            stack.callback(over.close)
        api = await stack.enter_async_context(open_api(between=between))
        yield await prepared(api, watch, stack)
        assert 0 == api.unexpected


async def prepared(
    api: API, watch: Callable[[Server], None], stack: AsyncExitStack
) -> Server:
    """Make keys, and let clients authenticate."""
    for name, algorithm in (
        ("signer", "Ed25519"),
        ("curve", "EC-P256"),
        ("mac", "HMAC-SHA-256"),
        ("sealer", "AES-256-GCM"),
        ("kem", "ML-KEM-768"),
        ("gone", "Ed25519"),
    ):
        await api.create(algorithm, name=name)
    assert 200 == (await api.send("POST", "/keys/gone/suspend", body={})).status
    tokens = {"alice": mint(), "auditor": mint(claims(sub="eve", roles=["Auditor"]))}
    for token in tokens.values():
        assert 200 == (await api.send("GET", "/algorithms", token=token)).status
    found = Server(api, tokens)
    watch(found)
    await found.open()
    stack.callback(found.close)
    return found


def same(fast: bytes, normal: bytes) -> None:
    """Compare two answers, byte for byte, but for what varies."""
    assert VARYING.sub(b"", normal) == VARYING.sub(b"", fast)


USES: Final = {
    "an empty body": Case("kem/encapsulate", b""),
    "no message": Case("signer/sign", b""),
    "sign": Case("signer/sign", MESSAGE),
    "sign by ECDSA, P1363": Case(
        "curve/sign", {**MESSAGE, "encoding": "p1363"}, {"traceparent": "nonsense"}
    ),
    "sign a batch": Case("signer/sign/batch", {"items": [MESSAGE] * 20}),
    "a batch with a fault": Case("signer/sign/batch", {"items": [MESSAGE, {}]}),
    "a revision": Case("signer/sign", MESSAGE, {"FerroHSM-Revision": "7"}),
    "MAC": Case("mac/mac", MESSAGE),
    "MAC batch": Case("mac/mac/batch", {"items": [MESSAGE] * 3}),
    "encrypt": Case("sealer/encrypt", AAD),
    "encrypt a batch": Case("sealer/encrypt/batch", {"items": [AAD] * 3}),
    "encapsulate": Case("kem/encapsulate", {}),
    "verify what is no signature": Case(
        "signer/verify", {**MESSAGE, "signature": b64(bytes(64))}
    ),
    "decrypt what is no ciphertext": Case(
        "sealer/decrypt", {"ciphertext": b64(bytes(64))}
    ),
    "an unknown key": Case("nobody/sign", MESSAGE),
    "a suspended key": Case("gone/sign", MESSAGE),
    "a key of another kind": Case("mac/sign", MESSAGE),
    "a wrong parameter": Case("signer/sign", {**MESSAGE, "hash": "SHA-256"}),
    "a wrong version": Case(
        "signer/verify", {**MESSAGE, "signature": b64(bytes(64)), "version": 99}
    ),
    "without a grant": Case("signer/sign", MESSAGE, token="auditor"),
    "lower case and other fields": Case(
        "signer/sign",
        MESSAGE,
        {
            "Host": None,
            "host": "localhost:1",
            "accept": "*/*",
            "user-agent": "a test",
            "accept-encoding": "gzip",
            "connection": "Keep-Alive",
            "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01",
            "ferrohsm-interface": "pkcs11: p11tool",
        },
    ),
}

NORMAL: Final = {
    "no JSON": Case("signer/sign", b"{"),
    "a repeated name": Case("signer/sign", b'{"message": "", "message": ""}'),
    "an unknown field": Case("signer/sign", {**MESSAGE, "more": 1}),
    "a missing field": Case("sealer/decrypt", {}),
    "base64 that is none": Case("signer/sign", {"message": "AB="}),
    "the key in the body": Case("signer/sign", {**MESSAGE, "key_id": "signer"}),
    "a query": Case("signer/sign?version=1", MESSAGE),
    "a percent sign": Case("s%69gner/sign", MESSAGE),
    "a slash at the end": Case("signer/sign/", MESSAGE),
    "an unknown route": Case("signer/sing", MESSAGE),
    "a key that is no name": Case("Signer/sign", MESSAGE),
    "a change": Case("signer/rotate", {}),
    "raw bytes": Case(
        "signer/sign", b"abc", {"Content-Type": "application/octet-stream"}
    ),
    "a parameter of the type": Case(
        "signer/sign", MESSAGE, {"Content-Type": "application/json; charset=utf-8"}
    ),
    "no type": Case("signer/sign", MESSAGE, {"Content-Type": None}),
    "raw answers": Case("sealer/encrypt", AAD, {"Accept": "application/octet-stream"}),
    "an idempotency key": Case("signer/sign", MESSAGE, {"Idempotency-Key": "one"}),
    "an approval": Case("signer/sign", MESSAGE, {"FerroHSM-Approval": "no UUID"}),
    "a condition": Case("signer/sign", MESSAGE, {"If-Match": '"1"'}),
    "from a page": Case("signer/sign", MESSAGE, {"Origin": "https://else.where"}),
    "a cookie": Case("signer/sign", MESSAGE, {"Cookie": "a=b"}),
    "a coding": Case("signer/sign", MESSAGE, {"Content-Encoding": "gzip"}),
    "credentials of another kind": Case(
        "signer/sign", MESSAGE, {"Authorization": "Basic abc"}
    ),
    "no credentials": Case("signer/sign", MESSAGE, {"Authorization": ""}),
    "credentials that are new": Case(
        "signer/sign", MESSAGE, {"Authorization": "Bearer forged"}
    ),
    "a claim that is none": Case(
        "signer/sign", MESSAGE, {"FerroHSM-Interface": "a" * 129}
    ),
    "a revision that is none": Case(
        "signer/sign", MESSAGE, {"FerroHSM-Revision": "-1"}
    ),
    "a faulty host": Case("signer/sign", MESSAGE, {"Host": "a b"}),
    "an unknown field of the head": Case("signer/sign", MESSAGE, {"X-Else": "1"}),
}


async def test_same_bytes(server: Server) -> None:
    """Results and errors of the vault have the bytes that the normal path sends."""
    for name, case in USES.items():
        fast, normal, taken = await server.both(case)

        assert [True, False] == taken, name
        same(fast, normal)
        lines = [line for line in server.api.log if line["event"] == "request"][-2:]
        for line in lines:
            del line["timestamp"], line["milliseconds"]
        assert lines[0] == lines[1], name


async def test_normal_path(server: Server) -> None:
    """A request with anything unusual, or a fault, takes the normal path."""
    for name, case in NORMAL.items():
        server.taken.clear()
        (answer,) = await server.ask(server.bytes_of(case))

        assert True not in server.taken, name
        assert answer.startswith(b"HTTP/1.1 "), name
        if b"Connection: close" in answer:
            server.close()
            await server.open()


async def test_same_records(server: Server) -> None:
    """Every use and refusal leaves the record and the counts of the normal path."""
    api, counts = server.api, []
    for is_fast in (True, False):
        server.is_fast = is_fast
        for case in USES.values():
            await server.ask(server.bytes_of(case))
        counts.append(counted(api))
        api.app[METRICS].count_request("between", "ok", 0.0)
    events = [event for event in await api.events() if event["kind"] in KINDS]
    half = len(events) // 2

    assert len(USES) * 2 == len(events)
    assert [told(e) for e in events[:half]] == [told(e) for e in events[half:]]
    assert {name: 2 * n for name, n in counts[0].items()} == {
        name: counts[1][name] for name in counts[0]
    }


KINDS: Final = {
    *("Sign", "SignBatch", "ComputeMac", "ComputeMacBatch", "Encrypt", "EncryptBatch"),
    *("Encapsulate", "Verify", "Decrypt"),
}


def counted(api: API) -> dict[tuple[str, str], float]:
    """Return how many requests were counted, by operation and code."""
    (family,) = [
        found
        for found in api.app[METRICS].registry.collect()
        if found.name == "ferrohsm_requests"
    ]
    return {
        (sample.labels["operation"], sample.labels["code"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_total") and sample.labels["operation"] in KINDS
    }


def told(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is the same in the records of two equal requests."""
    names = ("kind", "code", "outcome", "caller", "key_id", "request_id", "rule")
    return {name: event.get(name) for name in names}


async def test_pipelined(server: Server) -> None:
    """Requests on one connection are answered in order, whatever their path."""
    cases = [
        *(USES["sign"], USES["encrypt"], NORMAL["raw answers"], USES["MAC"]),
        *(NORMAL["no JSON"], USES["a suspended key"], USES["sign a batch"]),
    ]
    sent = [
        server.bytes_of(
            Case(case.path, case.body, {**case.headers, "X-Request-Id": f"n{n}"})
        )
        for n, case in enumerate(cases)
    ]
    answers = await server.ask(*sent, *sent)

    ids = [re.search(rb"X-Request-Id: (\w+)", answer) for answer in answers]
    assert [f"n{n % 7}".encode() for n in range(14)] == [i and i[1] for i in ids]
    assert True in server.taken


async def test_request_in_pieces(server: Server) -> None:
    """A head in pieces changes nothing; a body that comes soon is waited for."""
    sent = server.bytes_of(USES["sign"])
    (whole,) = await server.ask(sent)
    for size in (1, sent.index(b"\r\n\r\n") + 4, len(sent) - 5):
        server.taken.clear()
        server.writer.write(sent[:size])
        await asyncio.sleep(0.05)
        server.writer.write(sent[size:])
        same(await server.answer(), whole)
        assert set(server.taken) == {True}


async def test_body_that_comes_late(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose body is not there soon takes the normal path."""
    monkeypatch.setattr(connection, "_BODY_SECONDS", 0.01)
    sent = server.bytes_of(USES["sign"])
    (whole,) = await server.ask(sent)
    busy = server.api.app[IN_FLIGHT]
    server.taken.clear()
    server.writer.write(sent[:-5])
    await until(lambda: server.taken)
    await asyncio.sleep(0.1)
    assert busy._busy  # noqa: SLF001 (a drain waits for it)
    server.writer.write(sent[-5:])
    same(await server.answer(), whole)
    await until(lambda: not busy._busy)  # noqa: SLF001 (a drain waits no more)
    await server.ask(sent)

    assert [True, True] == server.taken


async def test_client_that_leaves_before_its_body(server: Server) -> None:
    """Its request is logged and counted, as on the normal path."""
    server.taken.clear()
    server.writer.write(server.bytes_of(USES["sign"])[:-5])
    await until(lambda: server.taken)
    server.writer.transport.abort()
    await until(lambda: ("Sign", "cancelled") in counted(server.api))

    line = next(line for line in server.api.log if line.get("code") == "cancelled")
    assert ("Sign", "from-a-test", 0) == (
        line["operation"],
        line["request_id"],
        line["status"],
    )
    assert 1.0 == counted(server.api)["Sign", "cancelled"]
    assert not server.api.app[IN_FLIGHT]._busy  # noqa: SLF001 (a drain waits no more)


class HeldVault(LocalVault):
    """
    A vault whose replies to uses are held back.

    Attributes:
        held: What passes them on.
        cancelled: How many were cancelled.
    """

    def __init__(self, gateway: AsyncHSMGateway, gatekeeper: Gatekeeper) -> None:
        super().__init__(gateway, gatekeeper)
        self.held: list[Callable[[], None]] = []
        self.cancelled = 0

    def begin(
        self, visitor: Visitor, operation: Operation[Any], /, replied: Replied
    ) -> CancelUse | None:
        """Begin a use, and hold its reply back."""
        cancel = super().begin(
            visitor, operation, lambda reply: self.held.append(partial(replied, reply))
        )

        def counted() -> None:
            self.cancelled += 1
            if cancel is not None:
                cancel()

        return counted


@pytest.fixture
async def held(
    watch: Callable[[Server], None],
) -> AsyncIterator[tuple[Server, HeldVault]]:
    """Give a server with a request on the fast path, and its vault."""
    vaults: list[HeldVault] = []

    def between(gateway: AsyncHSMGateway, gatekeeper: Gatekeeper) -> VaultAccess:
        vaults.append(HeldVault(gateway, gatekeeper))
        return vaults[-1]

    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(open_api(between=between))
        server = await prepared(api, watch, stack)
        server.writer.write(server.bytes_of(USES["sign"]))
        await until(lambda: vaults[0].held)
        yield server, vaults[0]


async def test_client_that_leaves(held: tuple[Server, HeldVault]) -> None:
    """A request whose client has gone is cancelled, logged and counted."""
    server, vault = held
    server.writer.transport.abort()
    await until(lambda: vault.cancelled)

    (line,) = [line for line in server.api.log if line.get("operation") == "Sign"]
    assert ("cancelled", 0) == (line["code"], line["status"])
    assert {("Sign", "cancelled"): 1.0} == counted(server.api)


async def test_drain(held: tuple[Server, HeldVault]) -> None:
    """What is under way when the server stops is answered, and the connection ends."""
    server, vault = held
    server.api.app[IN_FLIGHT].begin_drain()
    for reply in vault.held:
        reply()
    answer = await server.answer()
    async with asyncio.timeout(PATIENCE):
        rest = await server.reader.read()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert b"" == rest


async def test_idle_connection_ends(watch: Callable[[Server], None]) -> None:
    """After an answer of the fast path a connection is kept only for its time."""
    settings = ServerSettings(limits=HTTPLimits(keepalive_seconds=1.0))
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(open_api(settings))
        server = await prepared(api, watch, stack)
        await server.ask(server.bytes_of(USES["sign"]))
        async with asyncio.timeout(PATIENCE):
            rest = await server.reader.read()

    assert [True] == server.taken
    assert b"" == rest


async def test_expired_token(watch: Callable[[Server], None]) -> None:
    """A token that was good a moment ago is refused once it has expired."""
    clock = SetClock(NOW)
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(open_api(clock=clock))
        token = mint(claims(iat=int(NOW), exp=int(NOW) + 300))
        body = {"algorithm": "Ed25519", "name": "signer"}
        await api.send("POST", "/keys", body=body, token=token)
        server = Server(api, {"alice": token})
        watch(server)
        await server.open()
        stack.callback(server.close)
        (good,) = await server.ask(server.bytes_of(USES["sign"]))
        clock.seconds = NOW + 3600
        refused, again = [
            (await server.ask(server.bytes_of(USES["sign"])))[0] for _ in range(2)
        ]

    assert good.startswith(b"HTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 401 ")
    same(refused, again)


async def test_rate_limit(watch: Callable[[Server], None]) -> None:
    """Callers over their limit get the response of the normal path."""
    rates = RateLimits(per_second=0.001, burst=40, address_per_second=1000)
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(open_api(ServerSettings(rates=rates)))
        server = await prepared(api, watch, stack)
        fast, normal, _ = await server.both(USES["sign"])
        same(fast, normal)
        assert b"RateLimit: " in fast
        while not fast.startswith(b"HTTP/1.1 429 "):
            (fast,) = await server.ask(server.bytes_of(USES["sign"]))
        fast, normal, taken = await server.both(USES["sign"])

    wait = re.compile(rb"(?<=Retry-After: )\d+|(?<=seconds\":)\d+|in \d+ seconds")
    assert [True, False] == taken
    same(wait.sub(b"", fast), wait.sub(b"", normal))
