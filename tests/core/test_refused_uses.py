"""Uses of a node whose groups are refused, as callers of the HSM see them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from hsm_core import operations as ops
from hsm_core._internal.assembly.assembly import Parts, assemble
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.keyring.key_ring import RootKey
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.memory.records import MemoryKeyStore, MemoryUseCounters
from hsm_core.errors import (
    AuthenticationError,
    GenerationConflictError,
    KeyNotFoundError,
)
from hsm_core.model import KeyId, Phase
from hsm_core.protocols import Request
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import FakeClock, caller
from tests.core.audit_support import KEY, stored
from tests.core.shared_log_support import FakeDatabase, FakeView, open_shared_log
from tests.self_tests import shared_registry


class Node:
    """An HSM over the log of a cluster's node."""

    def __init__(self) -> None:
        self.database = FakeDatabase()
        self.view = FakeView(self.database)
        entropy = SystemEntropy()
        log = open_shared_log(self.database, self.view)
        parts = Parts(
            store=MemoryKeyStore(),
            counters=MemoryUseCounters(),
            audit=log,
            ring=None,
            root=RootKey(bytes(32), entropy=entropy),
            hmac_key=KEY,
            clock=FakeClock(),
            entropy=entropy,
            registry=shared_registry(),
        )
        self.hsm = assemble(Settings(key_store="memory"), parts)
        cells = self.hsm._services.inventory.tampered.cells  # noqa: SLF001
        self.view.on_change = lambda key_id: cells.of(key_id or "").bump()
        self.session = Session(self.hsm.act_as(caller()))
        self.key = self.session.create_key("Ed25519", name="k").key_id
        self.other = self.session.create_key("Ed25519", name="other").key_id

    def change_next(self, times: int = 1) -> None:
        """Let another node change the key before the next groups are written."""
        left = times

        def change() -> None:
            nonlocal left
            if left:
                left -= 1
                self.database.change(self.key)

        self.database.before_write = change

    def uses(self) -> list[tuple[str, str, int]]:
        """Return key, code and revision of the records of uses, in their order."""
        events = [event_of(stored(x), n) for n, x in enumerate(self.database.records)]
        return [
            (event.key_id, event.code, event.revision)
            for event in events
            if event.phase is Phase.SINGLE and event.kind == "Sign"
        ]


@pytest.fixture
def node() -> Iterator[Node]:
    """Give a node."""
    found = Node()
    yield found
    found.hsm.close()


def sign(key_id: str) -> ops.Sign:
    """Return a use."""
    return ops.Sign(key_id=key_id, message=b"m")


async def _answers(node: Node, requests: list[Request]) -> list[Any]:
    futures = node.hsm.act_as_async().execute_many(requests)
    return await asyncio.gather(*futures, return_exceptions=True)


def test_use_is_decided_again(node: Node) -> None:
    """By the long way and by plan, it is recorded once, at the new revision."""
    for revision in (1, 2, 3):
        node.change_next()
        node.session.sign(node.key, b"m")
        assert node.uses() == [(node.key, "ok", r) for r in range(1, revision + 1)]


def test_use_of_a_key_that_changes_often(node: Node) -> None:
    """A use is decided again and again, up to a limit."""
    node.change_next(times=4)
    node.session.sign(node.key, b"m")
    assert node.uses() == [(node.key, "ok", 4)]


@pytest.mark.parametrize("key_exists", [True, False])
def test_use_of_a_key_that_never_rests(node: Node, key_exists: bool) -> None:
    """A use ends however often its key changes, and so does its refusal."""
    if not key_exists:
        node.key = KeyId("00000000-0000-4000-8000-000000000000")
    node.change_next(times=1000)
    expected = GenerationConflictError if key_exists else KeyNotFoundError
    with pytest.raises(expected):
        node.hsm.act_as(caller()).execute(sign(node.key))
    assert [expected.code] == [code for _, code, _ in node.uses()]


def test_cancelled_use_is_decided_again_in_silence(node: Node) -> None:
    """What becomes of a use that nobody waits for is not reported by the loop."""
    reported: list[dict[str, Any]] = []

    async def cancel() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        gateway = node.hsm.act_as_async()
        await asyncio.gather(*gateway.execute_many([Request(caller(), sign(node.key))]))
        node.change_next(times=1000)
        (answer,) = gateway.execute_many([Request(caller(), sign(node.key))])
        answer.cancel()
        while len(node.uses()) < 2:
            await asyncio.sleep(0.01)
        while asyncio.all_tasks(loop) != {asyncio.current_task()}:
            await asyncio.sleep(0.01)
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(cancel())
    assert not reported


def test_refusal_of_a_use_is_decided_again(node: Node) -> None:
    """What is said of a key is said of it as it is after the change."""
    missing = KeyId("00000000-0000-4000-8000-000000000000")
    node.key = missing
    node.change_next()
    with pytest.raises(KeyNotFoundError):
        node.hsm.act_as(caller()).execute(sign(missing))
    assert node.uses() == [(missing, "key_not_found", 1)]


@pytest.mark.parametrize("planned", [False, True])
def test_batch_under_an_event_loop(node: Node, planned: bool) -> None:
    """Each answer of a refused group is decided again, and each is recorded once."""
    requests = [Request(caller(), sign(key)) for key in (node.key, node.other)]
    requests.append(Request(caller(), ops.ListAuditEvents(limit=1)))
    if planned:
        asyncio.run(_answers(node, requests[:2]))
    before = len(node.uses())
    node.change_next()
    first, second, page = asyncio.run(_answers(node, requests))
    assert (first.key_id, second.key_id) == (node.key, node.other)
    assert page.items
    found = {key_id: (code, at) for key_id, code, at in node.uses()[before:]}
    assert len(node.uses()) == before + 2
    assert found[node.key] == ("ok", 1)
    assert found[node.other] in {("ok", 0), ("ok", 1)}
    kinds = [event_of(stored(x), n).kind for n, x in enumerate(node.database.records)]
    assert kinds.count("ListAuditEvents") == 1


def test_credential_that_ends_meanwhile(node: Node) -> None:
    """A credential that another node withdrew is asked for again."""
    withdrawn = False

    def check() -> None:
        if withdrawn:
            raise AuthenticationError

    def change(_: object) -> None:
        nonlocal withdrawn
        withdrawn = True

    node.view.on_change = change
    node.change_next()
    (answer,) = asyncio.run(
        _answers(node, [Request(caller(), sign(node.key), check=check)])
    )
    assert isinstance(answer, AuthenticationError)
    assert [code for _, code, _ in node.uses()] == [AuthenticationError.code]
