# SPDX-License-Identifier: MIT
"""A live view of the trail: server-sent events, in one process and over sockets."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest

from hsm_core import operations as ops
from hsm_core.factory import open_async
from hsm_core.model import AuditEntry, AuditEvent, Phase
from hsm_core.operations import AuditPage, ListAuditEvents
from hsm_core.protocols import AsyncHSMGateway
from hsm_core.testing import caller
from hsm_server.api import live_view
from hsm_server.config.settings import ServerSettings, TokenRules
from hsm_server.identity.clock import FlooredClock
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.limits.pacing import with_pauses
from hsm_server.vault.access import VaultAccess, Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from hsm_server.vault.local_vault import LocalVault
from tests.core.cluster_nodes import node
from tests.server.ipc_support import OverSockets
from tests.server.support import API, EVERYBODY, SECRET, Between, claims, mint, open_api

PATIENCE = 60.0
PATH = "/api/v1/audit/events"
MOST_VIEWS = 16


@dataclass(frozen=True)
class Block:
    """What stands between two empty lines; *data* is read as JSON."""

    id: str = ""
    event: str = ""
    data: Any = None
    comment: str = ""

    @property
    def seq(self) -> int:
        """Position of the entry."""
        return int(self.data["event"]["seq"])

    @property
    def kind(self) -> str:
        """Operation of the entry."""
        return str(self.data["event"]["kind"])

    @property
    def is_intent(self) -> bool:
        """Whether the entry says what is about to be done."""
        return bool("intent" == self.data["event"]["phase"])

    @property
    def name(self) -> str:
        """Name of the key of the entry."""
        return str(self.data["event"]["key"]["name"])


class View:
    """A client that reads one answer block by block."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last_id = ""

    async def block(self) -> Block | None:
        """Return the next block; None at the end of the answer."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE):
            while line := (await self.response.content.readline()).decode():
                if line == "\n":
                    break
                name, _, value = line.rstrip("\n").partition(":")
                assert name not in fields
                fields[name] = value.removeprefix(" ")
        if not fields:
            return None
        self.last_id = fields.get("id", self.last_id)
        data = json.loads(fields["data"]) if "data" in fields else None
        return Block(
            fields.get("id", ""), fields.get("event", ""), data, fields.get("", "")
        )

    async def event(self) -> Block:
        """Return the next block that holds an event."""
        async with asyncio.timeout(PATIENCE):
            while block := await self.block():
                if block.event:
                    return block
        raise AssertionError("The view has ended.")

    async def entries(self, last_kind: str) -> list[Block]:
        """Return the entries up to the outcome of this operation."""
        found: list[Block] = []
        while not found or last_kind != found[-1].kind or found[-1].is_intent:
            block = await self.event()
            assert "entry" == block.event, block
            found.append(block)
        return found

    def close(self) -> None:
        """Leave."""
        self.response.close()


class Viewer:
    """
    Opens views, each over a connection of its own.

    Args:
        api: Where.
    """

    def __init__(self, api: API) -> None:
        self.api = api
        self._responses: list[aiohttp.ClientResponse] = []
        self._client = aiohttp.ClientSession(
            f"http://{api.address[0]}:{api.address[1]}",
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        for response in self._responses:
            response.close()
        await self._client.close()

    async def get(
        self,
        query: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        roles: tuple[str, ...] = EVERYBODY,
    ) -> aiohttp.ClientResponse:
        """Ask for a view, and return the head of the answer."""
        token = mint(claims(roles=list(roles))) if token is None else token
        sent = {"Accept": "text/event-stream", "Authorization": f"Bearer {token}"}
        response = await self._client.get(
            f"{PATH}?{query}" if query else PATH, headers={**sent, **(headers or {})}
        )
        self._responses.append(response)
        return response

    async def view(self, query: str = "", **changes: Any) -> View:
        """Return a view that has begun."""
        response = await self.get(query, **changes)
        assert 200 == response.status, await response.text()
        return View(response)

    async def refused(self, query: str = "", **changes: Any) -> tuple[int, str]:
        """Return status and code of a view that does not begin."""
        response = await self.get(query, **changes)
        assert "application/problem+json" == response.headers["Content-Type"]
        return response.status, (await response.json(content_type=None))["code"]


@dataclass
class Steered:
    """A wall clock that tests set."""

    offset: float = 0.0

    def clock(self) -> FlooredClock:
        """Return it as the server's."""
        return FlooredClock(wall=lambda: time.time() + self.offset)


@pytest.fixture
def steered() -> Steered:
    """Give the time by which tokens expire."""
    return Steered()


both = pytest.mark.parametrize("viewer", ["inline", "sockets"], indirect=True)
"""Runs tests in one process, and with sockets between front end and vault."""


@pytest.fixture
async def viewer(
    request: pytest.FixtureRequest, steered: Steered
) -> AsyncIterator[Viewer]:
    """Give a viewer of a fresh HSM, behind sockets unless something else is said."""
    is_inline = getattr(request, "param", "sockets") == "inline"
    sockets = None if is_inline else OverSockets()
    between: Between = sockets or LocalVault
    async with (
        open_api(clock=steered.clock(), between=between) as api,
        Viewer(api) as opened,
    ):
        yield opened
    if sockets is not None:
        sockets.close()


def fill(api: API, records: int) -> None:
    """Make records in the trail."""
    hsm = api.hsm.act_as(caller())
    for _ in range(records):
        hsm.execute(ops.GenerateRandom(length=1))


async def come_true(condition: Any) -> None:
    """Wait until something that is awaited is so."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("make", [lambda: LocalVault, OverSockets])
async def test_the_records_of_a_cluster(
    database: str, tmp_path: Path, make: Callable[[], Between]
) -> None:
    """Each node shows those of both; a view resumes on the other one."""
    async with contextlib.AsyncExitStack() as stack:
        viewers = []
        for name in ("a", "b"):
            opened = stack.enter_context(node(database, tmp_path, name))
            between = make()
            if isinstance(between, OverSockets):
                stack.callback(between.close)
            served = open_api(gateway=open_async(opened), between=between)
            api = await stack.enter_async_context(served)
            viewers.append(await stack.enter_async_context(Viewer(api)))
        first, second = viewers
        await first.api.create("Ed25519", name="before")
        kinds = "kind=CreateKey,RotateKey"
        view = await first.view(kinds)
        begun = await view.block()
        created = await second.api.create("Ed25519", name="after")
        seen = await view.entries("CreateKey")
        view.close()
        rotated = await first.api.send("POST", f"/keys/{created['key_id']}/rotate")
        last_id = seen[-1].id
        again = await second.view(kinds, headers={"Last-Event-ID": last_id})
        resumed = await again.entries("RotateKey")
        one = await second.view(f"{kinds}&start_seq=0")
        alone = await one.entries("CreateKey")
        refused = await first.refused("cursor=abc")

        assert 200 == rotated.status, rotated.body
        assert begun is not None
        assert ("", True) == (begun.event, "," in begun.id)
        assert {"b"} == {event.data["node"] for event in seen}
        assert "after" == seen[-1].name
        assert ["RotateKey"] * 2 == [event.kind for event in resumed]
        assert {"a"} == {event.data["node"] for event in resumed}
        assert alone[-1].id.isdigit()
        assert (422, "invalid_input") == refused


@both
class TestEvents:
    async def test_what_is_recorded_arrives(self, viewer: Viewer) -> None:
        """A view begins with its own record, and goes on with all that follows."""
        await viewer.api.create("Ed25519", name="before")
        view = await viewer.view()
        await viewer.api.create("Ed25519", name="after")
        own, *_, last = await view.entries("CreateKey")

        assert "ListAuditEvents" == own.kind
        assert 1 == own.data["event"]["parameters"]["follow"]
        assert "after" == last.name

    async def test_an_event_is_an_item_of_the_list(self, viewer: Viewer) -> None:
        """Whoever reads pages can read events."""
        await viewer.api.create("Ed25519", name="signer")
        view = await viewer.view("start_seq=0&kind=CreateKey")
        events = await view.entries("CreateKey")
        query = "kind=CreateKey&ascending=true"
        listed = await viewer.api.send("GET", "/audit/events", query=query)

        assert listed.json["items"] == [event.data for event in events]

    async def test_headers(self, viewer: Viewer) -> None:
        """Nothing keeps, compresses or collects what is sent."""
        view = await viewer.view(headers={"Accept-Encoding": "gzip, deflate"})
        headers = view.response.headers

        assert "text/event-stream" == headers["Content-Type"]
        assert "no-store" == headers["Cache-Control"]
        assert "no" == headers["X-Accel-Buffering"]
        assert "Content-Encoding" not in headers
        assert headers["X-Request-Id"]

    async def test_filters(self, viewer: Viewer) -> None:
        """Only what passes arrives, also of what is recorded later."""
        view = await viewer.view("kind=CreateKey&principal=alice")
        fill(viewer.api, 5)
        await viewer.api.create("Ed25519", name="signer")
        events = await view.entries("CreateKey")

        assert {"CreateKey"} == {event.kind for event in events}

    async def test_one_record_for_each_view(self, viewer: Viewer) -> None:
        """However long it is watched, the trail says so once."""
        view = await viewer.view(headers={"X-Request-Id": "the-view"})
        for name in ("one", "two", "three"):
            await viewer.api.create("Ed25519", name=name)
            await view.entries("CreateKey")
        records = [
            e["kind"]
            for e in await viewer.api.events()
            if "the-view" == e.get("request_id")
        ]

        assert ["ListAuditEvents"] == records

    async def test_silence_is_filled(
        self, viewer: Viewer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Comments keep the connection alive, and what comes after is not lost."""
        monkeypatch.setattr(live_view, "_KEEP_ALIVE_SECONDS", 0.05)
        view = await viewer.view("kind=CreateKey")
        comments = 0
        while comments < 3:
            block = await view.block()
            assert block is not None
            comments += bool(block.comment)
        await viewer.api.create("Ed25519", name="signer")

        assert "CreateKey" == (await view.event()).kind


class TestResuming:
    async def test_without_gap_or_repetition(self, viewer: Viewer) -> None:
        """The id of the last event leads to the one after it."""
        view = await viewer.view("start_seq=0")
        await viewer.api.create("Ed25519", name="one")
        seen = await view.entries("CreateKey")
        view.close()
        await viewer.api.create("Ed25519", name="two")
        again = await viewer.view(headers={"Last-Event-ID": seen[-1].id})
        seen += await again.entries("CreateKey")
        again.close()
        await viewer.api.create("RSA-2048", name="three")
        # The query is that of the beginning, as browsers send it.
        third = await viewer.view("start_seq=0", headers={"Last-Event-ID": seen[-1].id})
        seen += await third.entries("CreateKey")
        seqs = [entry.seq for entry in seen]

        assert list(range(len(seqs))) == seqs

    async def test_a_view_that_showed_nothing_can_be_resumed(
        self, viewer: Viewer
    ) -> None:
        """Where it stands is told from the beginning on."""
        await viewer.api.create("Ed25519", name="before")
        view = await viewer.view("kind=CreateKey")
        first = await view.block()
        view.close()
        await viewer.api.create("Ed25519", name="meanwhile")
        again = await viewer.view(
            "kind=CreateKey", headers={"Last-Event-ID": view.last_id}
        )
        event = (await again.entries("CreateKey"))[-1]

        assert first is not None
        assert ("", True) == (first.event, first.id.isdigit())
        assert "meanwhile" == event.name

    async def test_a_long_trail(self, viewer: Viewer) -> None:
        """What is already there arrives in order and once, over many pages."""
        fill(viewer.api, 1200)
        view = await viewer.view("start_seq=0")
        seqs = [entry.seq for entry in await view.entries("ListAuditEvents")]

        assert list(range(seqs[-1] + 1)) == seqs
        assert 1200 < len(seqs)


class TestRefusals:
    @both
    @pytest.mark.parametrize("query", ["", "start_seq=0", "limit=5"])
    async def test_a_stranger(self, viewer: Viewer, query: str) -> None:
        """No view without a good token, and no word on what else was wrong."""
        found = await viewer.refused(query, token="forged")
        log = [e["code"] for e in await viewer.api.events()]

        assert (401, "authentication_failed") == found
        assert 1 == log.count("authentication_failed")

    async def test_another_role(self, viewer: Viewer) -> None:
        """Who may not read the trail may not follow it."""
        assert (403, "access_denied") == await viewer.refused(roles=("Service",))

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=5", "limit"),
            ("ascending=true", "ascending"),
            ("follow=true", "follow"),
            ("start_seq=-1", "start_seq"),
            ("start_seq=9007199254740992", "start_seq"),
            ("start_seq=x", "start_seq"),
            ("since=5", "since"),
            ("before=5", "query"),
        ],
    )
    async def test_query(self, viewer: Viewer, query: str, field: str) -> None:
        """What a live view can't heed is refused rather than ignored."""
        response = await viewer.get(query)
        problem = await response.json(content_type=None)

        assert (422, field) == (response.status, problem["facts"]["field"])

    @pytest.mark.parametrize("given", ["", "x", "-1", "1.5", "9007199254740992"])
    async def test_last_event_id(self, viewer: Viewer, given: str) -> None:
        """An id that no event had is refused."""
        found = await viewer.refused(headers={"Last-Event-ID": given})

        assert (422, "invalid_input") == found

    async def test_too_many(self, viewer: Viewer) -> None:
        """The one too many is told to come later; who leaves makes room at once."""
        views = [await viewer.view() for _ in range(MOST_VIEWS)]
        refused = await viewer.get()
        views.pop().close()

        async def has_room() -> bool:
            response = await viewer.get()
            return 200 == response.status

        await come_true(has_room)
        assert 503 == refused.status
        assert "1" == refused.headers["Retry-After"]
        assert "overloaded" == (await refused.json(content_type=None))["code"]

    @pytest.mark.parametrize(
        "accept",
        [
            "",
            "*/*",
            "text/*",
            "text/event-stream;q=0",
            "application/json, text/event-stream;q=0.5",
        ],
    )
    async def test_only_where_it_is_asked_for(
        self, viewer: Viewer, accept: str
    ) -> None:
        """Everybody else gets a page, as ever."""
        response = await viewer.get("limit=1", headers={"Accept": accept})

        assert "application/json" == response.headers["Content-Type"]
        assert {"items", "next_seq"} < (await response.json()).keys()

    async def test_only_of_the_trail(self, viewer: Viewer) -> None:
        """Other routes have no live view."""
        headers = {"Accept": "text/event-stream"}
        answer = await viewer.api.send("GET", "/status", headers=headers)

        assert "application/json" == answer.headers["Content-Type"]


class TestEnds:
    @both
    async def test_when_the_token_expires(
        self, viewer: Viewer, steered: Steered
    ) -> None:
        """A view lasts no longer than the credential; its last event says so."""
        view = await viewer.view()
        await view.entries("ListAuditEvents")
        steered.offset = 3600.0
        event = await view.event()
        count = len(await _failures(viewer.api, steered))

        assert ("problem", "authentication_failed") == (event.event, event.data["code"])
        assert 401 == event.data["status"]
        assert view.response.headers["X-Request-Id"] == event.data["request_id"]
        assert (None, "") == (await view.block(), event.id)
        assert 0 == count

    async def test_when_the_server_drains(self) -> None:
        """Nobody waits for a view, and it ends as a whole answer does."""
        sockets = OverSockets()
        settings = ServerSettings(drain_timeout_seconds=300.0)
        async with contextlib.AsyncExitStack() as stack:
            async with open_api(settings, between=sockets) as api:
                viewer = await stack.enter_async_context(Viewer(api))
                view = await viewer.view()
                await view.entries("ListAuditEvents")
                began = time.monotonic()
            seconds = time.monotonic() - began
            rest = [block async for block in _rest(view)]
            (line,) = [e for e in api.log if e.get("operation") == "live_view"]

        assert 60.0 > seconds
        assert all(not block.event for block in rest)
        assert ("ok", 200) == (line["code"], line["status"])
        sockets.close()

    async def test_when_the_vault_is_lost(self) -> None:
        """The last event says that the vault does not answer."""
        sockets = OverSockets()
        async with open_api(between=sockets) as api, Viewer(api) as viewer:
            view = await viewer.view()
            await view.entries("ListAuditEvents")
            sockets.service.close()
            event = await view.event()

            assert ("problem", "unavailable") == (event.event, event.data["code"])
            assert await view.block() is None
            assert (503, "unavailable") == await viewer.refused()

    async def test_when_the_client_leaves(self, viewer: Viewer) -> None:
        """It is no fault; the log says that it was cut off, and whose it was."""
        # Where a start is named, the view itself is what tells who asks.
        view = await viewer.view("start_seq=0")
        await view.entries("ListAuditEvents")
        view.close()

        async def is_noted() -> bool:
            return any(e.get("operation") == "live_view" for e in viewer.api.log)

        await come_true(is_noted)
        (line,) = [e for e in viewer.api.log if e.get("operation") == "live_view"]
        assert ("cancelled", "alice") == (line["code"], line["principal"])
        assert 0 == viewer.api.unexpected

    async def test_when_the_token_secret_is_replaced(self) -> None:
        """A reload ends the views of all tokens that are good no more."""
        keepers: list[Gatekeeper] = []

        def between(gateway: AsyncHSMGateway, keeper: Gatekeeper) -> VaultAccess:
            keepers.append(keeper)
            return LocalVault(gateway, keeper)

        async with open_api(between=between) as api, Viewer(api) as viewer:
            view = await viewer.view()
            await view.entries("ListAuditEvents")
            keepers[0].use(
                TokenTrust.of_secret(
                    b"another secret of 32 bytes or more", TokenRules()
                )
            )
            event = await view.event()

        assert ("problem", 401) == (event.event, event.data["status"])


class TestSlowReaders:
    async def test_hold_up_nobody(self, viewer: Viewer) -> None:
        """Who reads nothing delays neither answers nor views of others."""
        fill(viewer.api, 6000)
        with contextlib.closing(await _deaf(viewer.api)):
            view = await viewer.view()
            await viewer.api.create("Ed25519", name="signer")
            events = await view.entries("CreateKey")

        assert "signer" == events[-1].name

    async def test_are_cut_off(
        self, viewer: Viewer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who takes nothing for long is gone, and makes room for others."""
        monkeypatch.setattr(live_view, "_WRITE_SECONDS", 0.2)
        fill(viewer.api, 10_000)

        async def is_over() -> bool:
            return any(e.get("operation") == "live_view" for e in viewer.api.log)

        with contextlib.closing(await _deaf(viewer.api)):
            await come_true(is_over)

        assert 0 == viewer.api.unexpected


class TestPauses:
    async def test_the_generator_is_closed(self) -> None:
        """However it ends, what was opened is closed at once."""
        closed: list[str] = []

        async def endless(name: str) -> AsyncGenerator[int, None]:
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                closed.append(name)

        async with contextlib.aclosing(with_pauses(endless("left"), lambda: 60)) as p:
            await anext(p)
        ends: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ended = with_pauses(endless("ended"), lambda: 60, ends=ends)
        await anext(ended)
        asyncio.get_running_loop().call_soon(ends.set_result, None)
        assert [] == [item async for item in ended]
        with pytest.raises(ZeroDivisionError):
            [item async for item in with_pauses(endless("failed"), lambda: 1 // 0)]

        assert ["left", "ended"] == closed


class Fixed:
    """A gateway whose trail is one page."""

    revision = 0

    def __init__(self, page: AuditPage) -> None:
        self._page = page

    def act_as(self, who: object, /) -> Self:
        """Return the same for everybody."""
        return self

    def asks_for_single_use(self) -> bool:
        """Return that nobody asks for it."""
        return False

    async def follow(
        self, operation: ListAuditEvents, /
    ) -> AsyncGenerator[AuditPage, None]:
        """Give the page twice."""
        yield self._page
        yield self._page


async def test_a_page_longer_than_a_frame() -> None:
    """Between the processes it travels in pieces."""
    event = AuditEvent(
        format=2,
        seq=0,
        prev="0" * 64,
        time=0,
        phase=Phase.OUTCOME,
        kind="x" * 3_000_000,
        code="ok",
    )
    entry = AuditEntry(event=event, leaf_hash="0" * 64)
    page = AuditPage(items=(entry,), next_seq=1, head_seq=0, head_hash="0" * 64)
    gateway: Any = Fixed(page)
    sockets = OverSockets()
    vault = sockets(
        gateway,
        Gatekeeper(gateway, TokenTrust.of_secret(SECRET, TokenRules()), lambda: None),
    )
    pages = vault.follow(
        Visitor(credential=mint()),
        ListAuditEvents(ascending=True),
        known=lambda _: None,
    )

    assert [page, page] == [found async for found in pages]
    sockets.close()


async def _failures(api: API, steered: Steered) -> list[dict[str, Any]]:
    """Return what the trail says of failed authentications."""
    now = int(time.time() + steered.offset)
    token = mint(claims(iat=now, exp=now + 60))
    answer = await api.send("GET", "/audit/events", token=token, query="limit=1000")
    events = [entry["event"] for entry in answer.json["items"]]
    return [event for event in events if event["code"] == "authentication_failed"]


async def _rest(view: View) -> AsyncIterator[Block]:
    while block := await view.block():
        yield block


async def _deaf(api: API) -> socket.socket:
    """Ask for all of the trail over a connection that nobody reads."""
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, api.address)
    head = (
        f"GET {PATH}?start_seq=0 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {mint()}\r\n\r\n"
    )
    await loop.sock_sendall(deaf, head.encode())
    return deaf


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["lf", "cr", "crlf"])
def test_lines_of_data_stay_data(end: bytes) -> None:
    """Whatever ends a line in what is sent, no field of the stream begins after it."""
    sent = live_view.event("entry", b"a" + end + b"event: problem" + end + b"b")

    assert b"event: entry\ndata: a\ndata: event: problem\ndata: b\n\n" == sent
