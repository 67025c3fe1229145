# SPDX-License-Identifier: MIT
"""Credentials that the database of a cluster has to know, while it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from hsm_core._internal.stores.postgresql.database import ConnectionPool
from hsm_core.errors import AuthenticationError, StoreUnavailableError
from hsm_core.factory import open_async, open_hsm
from hsm_core.model import KeyId
from hsm_core.operations import CreateKey, DescribeKey, Operation, Sign, Status
from hsm_core.settings import Settings
from hsm_core.testing import caller
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.ipc.frames import MAX_WAITING
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from hsm_server.vault.local_vault import LocalVault
from tests.server.ipc_support import OverSockets
from tests.server.support import SECRET, SetClock, claims, mint

PATIENCE = 60.0
NOW = 2_000_000_000
POLICY = """version: 1
extends: default
rules:
  - {name: once, effect: deny, match: {operations: [Sign], single_use: false}}
"""


def nobody(principal: str) -> None:
    """Ignore who it was."""


class Place(NamedTuple):
    """A node, and one way to its vault."""

    url: str
    keeper: Gatekeeper
    vault: Any
    key_id: KeyId
    clock: SetClock

    def visitor(self, name: str) -> Visitor:
        """Return somebody with a token that was issued now."""
        now = int(self.clock.seconds)
        token = mint(claims(iat=now, exp=now + 300, jti=name))
        return Visitor(credential=token)

    def sign(self, name: str) -> Awaitable[object]:
        """Sign with a token that may be used once."""
        sign = Sign(key_id=self.key_id, message=b"m")
        found: Awaitable[object] = self.vault.execute(
            self.visitor(name), sign, idempotency_key=None, known=nobody
        )
        return found

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let nobody read or write what servers share."""
        with psycopg.connect(self.url) as connection:
            connection.execute("LOCK TABLE shared")
            yield


@pytest.fixture(params=["inline", "process"])
async def place(
    request: pytest.FixtureRequest, database: str, tmp_path: Path
) -> AsyncIterator[Place]:
    """Give a node."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    policy.chmod(0o600)
    settings = Settings(
        store=database, node_name="a", node_mark=tmp_path / "a", policy_config=policy
    )
    with ExitStack() as stack:
        hsm = stack.enter_context(
            open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32), test_all=False)
        )
        made = hsm.act_as(caller()).execute(CreateKey(algorithm="ed25519", name="only"))
        gateway, clock = open_async(hsm), SetClock(NOW)
        trust = TokenTrust.of_secret(SECRET, TokenRules())
        keeper = Gatekeeper(gateway, trust, lambda: None, clock, shared=hsm.shared)
        vault: Any = LocalVault(gateway, keeper)
        if request.param == "process":
            over = OverSockets()
            stack.callback(over.close)
            vault = over(gateway, keeper)
        clock.seconds += 1000.0
        yield Place(database, keeper, vault, made.key_id, clock)


async def test_nobody_waits_for_a_session(place: Place) -> None:
    """A request with a session fails in the end, and others are answered meanwhile."""
    signed_in = await place.vault.sign_in(place.visitor("one"), known=nobody)
    visitor = Visitor(session=signed_in.session)
    with place.hanging():
        asking = asyncio.create_task(place.vault.who(visitor, known=nobody))
        await asyncio.sleep(0)
        await place.vault.token_keys()
        assert not asking.done()
        with pytest.raises(StoreUnavailableError):
            await asking

    assert (await place.vault.who(visitor, known=nobody)).principal
    await place.vault.sign_out(visitor, known=nobody)


async def test_nobody_waits_for_a_clock_reset(place: Place) -> None:
    """Sessions end once the database answers, and others are answered meanwhile."""
    signed_in = await place.vault.sign_in(place.visitor("nine"), known=nobody)
    visitor = Visitor(session=signed_in.session)
    with place.hanging():
        place.keeper.on_clock_reset()
        await place.vault.token_keys()
        with pytest.raises(StoreUnavailableError):
            await place.vault.who(visitor, known=nobody)

    async def ask_again_and_again() -> None:
        while True:
            await place.vault.who(visitor, known=nobody)

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(AuthenticationError):
            await ask_again_and_again()


async def test_nobody_waits_for_a_token(place: Place) -> None:
    """The same holds for a token that may be used once."""
    await place.sign("two")
    with place.hanging():
        asking = asyncio.ensure_future(place.sign("three"))
        await asyncio.sleep(0)
        await place.vault.token_keys()
        assert not asking.done()
        with pytest.raises(StoreUnavailableError):
            await asking

    await place.sign("four")


@pytest.mark.parametrize(
    "operation",
    [DescribeKey(key_id="only"), Status(), Sign(key_id="only", message=b"")],
)
async def test_the_event_loop_asks_no_database(
    place: Place, operation: Operation[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever waits for the database does so in a thread, also what is quick."""
    lent, threads = ConnectionPool.lent, set[int]()

    def watched(pool: ConnectionPool) -> Any:
        threads.add(threading.get_ident())
        return lent(pool)

    monkeypatch.setattr(ConnectionPool, "lent", watched)
    for number in range(3):
        visitor = place.visitor(f"six-{number}")
        await place.vault.execute(
            visitor, operation, idempotency_key=None, known=nobody
        )

    assert threads
    assert threading.get_ident() not in threads


async def test_who_gives_up_leaves_nothing(place: Place) -> None:
    """Requests that were given up while the database was asked count no more."""
    signed_in = await place.vault.sign_in(place.visitor("five"), known=nobody)
    visitor = Visitor(session=signed_in.session)
    with place.hanging():
        for _ in range(MAX_WAITING // 256):
            asking = [
                asyncio.create_task(place.vault.who(visitor, known=nobody))
                for _ in range(300)
            ]
            await asyncio.sleep(0)
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)

    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(StoreUnavailableError):
                found = await place.vault.who(visitor, known=nobody)
                break
    assert found.principal
