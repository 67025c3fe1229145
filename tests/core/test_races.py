# SPDX-License-Identifier: MIT
"""Many callers at once: nothing is done twice, lost, or mistaken for tampering."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.use_counters import Use, UseAccounts
from hsm_core._internal.lib.failpoints import install
from hsm_core.factory import OpenHSM, open_async
from hsm_core.model import Integrity, KeyState
from hsm_core.protocols import Request
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm
from tests.contract.hsm_ways import filesystem_hsm


def test_looking_while_it_changes(tmp_path: Path) -> None:
    """Descriptions and listings during rotations never take a new document for old."""
    with filesystem_hsm(tmp_path) as gateway, ThreadPoolExecutor(4) as pool:
        session = Session(gateway.act_as(caller()))
        key = session.create_key("ed25519").key_id
        stop = threading.Event()

        def look(how: Callable[[], object]) -> None:
            while not stop.is_set():
                how()

        looking = [
            pool.submit(look, lambda: session.describe(key)),
            pool.submit(look, lambda: session.versions(key)),
            pool.submit(look, lambda: list(session.keys())),
        ]
        try:
            for _ in range(60):
                session.rotate(key)
        finally:
            stop.set()
        for look_out in looking:
            look_out.result()

        assert Integrity.OK is session.describe(key).integrity
        assert 61 == session.describe(key).version


def test_using_while_it_is_destroyed(tmp_path: Path) -> None:
    """A use that meets the destruction of its key says so, and calls no one names."""
    with filesystem_hsm(tmp_path) as gateway, ThreadPoolExecutor(4) as pool:
        session = Session(gateway.act_as(caller()))
        for _ in range(15):
            key = session.create_key("aes").key_id
            gateway._services.inventory.materials._handles._items.clear()  # noqa: SLF001
            begin = threading.Barrier(4)

            def use(key: str = key, begin: threading.Barrier = begin) -> set[str]:
                begin.wait()
                seen = set()
                for _ in range(20):
                    try:
                        session.encrypt(key, b"m")
                        session.describe(key)
                    except errors.HSMError as error:
                        seen.add(error.code)
                return seen

            using = [pool.submit(use) for _ in range(3)]
            begin.wait()
            session.destroy(key)

            codes = set().union(*(user.result() for user in using))
            assert codes <= {"wrong_state"}
            assert Integrity.OK is session.describe(key).integrity
        assert "operational" == session.status().state


def test_a_use_between_a_destruction_and_its_end(
    gateway: OpenHSM, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored counts, even while the former document is still cached."""
    key = session.create_key("aes").key_id
    adopt, take = KeyRepository.adopt, UseAccounts.take
    is_stored, may_end = threading.Event(), threading.Event()

    def adopt_late(inventory: KeyRepository, *documents: Any) -> None:
        is_stored.set()
        assert may_end.wait(60)
        adopt(inventory, *documents)

    def take_late(accounts: UseAccounts, use: Use, **options: bool) -> None:
        if not is_stored.is_set():
            pool.submit(session.destroy, key)
            assert is_stored.wait(60)
        take(accounts, use, **options)

    monkeypatch.setattr(KeyRepository, "adopt", adopt_late)
    monkeypatch.setattr(UseAccounts, "take", take_late)
    with ThreadPoolExecutor(1) as pool:
        try:
            with pytest.raises(errors.KeyStateError):
                session.encrypt(key, b"m")
        finally:
            may_end.set()


def test_a_handle_that_was_opened_too_late_is_not_kept(
    gateway: OpenHSM, session: Session
) -> None:
    """What was opened while its version was revoked is dropped again."""
    key = session.create_key("ed25519").key_id
    inventory = gateway._services.inventory  # noqa: SLF001 (the race is in there)
    before = inventory.document(key)
    session.revoke(key)

    inventory.materials.handle(before, before.versions[0])

    assert {} == dict(inventory.materials._handles._items)  # noqa: SLF001


@pytest.mark.parametrize("change", ["rotate", "revoke"])
def test_a_change_during_a_use(
    gateway: OpenHSM, session: Session, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A use stands if its version was retired meanwhile, and not if it was revoked."""
    key = session.create_key("hmac-sha256").key_id
    inventory = gateway._services.inventory  # noqa: SLF001 (to meddle in between)
    real, left = inventory.materials.handle, [getattr(session, change)]

    def meddling(*arguments: Any) -> object:
        if left:
            left.pop()(key)
        return real(*arguments)

    monkeypatch.setattr(inventory.materials, "handle", meddling)
    if change == "rotate":
        made = session.mac(key, b"m")
        assert (1, 1) == (
            made.version,
            session.verify_mac(key, b"m", made.mac).version,
        )
    else:
        with pytest.raises(errors.KeyStateError):
            session.mac(key, b"m")

    assert [] == left


class TestClosing:
    def test_waits_for_what_runs(self, tmp_path: Path) -> None:
        """A change that is under way is finished before the stop is recorded."""
        gateway = filesystem_hsm(tmp_path)
        session = Session(gateway.act_as(caller()))
        reached, go_on = threading.Event(), threading.Event()

        def pause(name: str) -> None:
            if name == "mutation.after_store":
                reached.set()
                go_on.wait()

        with ThreadPoolExecutor(2) as pool, install(pause):
            creating = pool.submit(session.create_key, "ed25519")
            reached.wait()
            closing = pool.submit(gateway.close)
            while not gateway._gate._is_closed:  # noqa: SLF001 (to wait for it)
                time.sleep(0.001)
            with pytest.raises(errors.UnavailableError, match="closed"):
                session.status()
            go_on.set()
            key = creating.result().key_id
            closing.result()

        with filesystem_hsm(tmp_path) as again:
            events = [
                e.event for e in Session(again.act_as(caller())).audit_events(limit=4)
            ]
            assert ["system.start", "system.stop", "CreateKey", "CreateKey"] == [
                event.kind for event in events
            ]
            assert key == events[2].key_id

    def test_nothing_goes_on_afterwards(self) -> None:
        """A closed HSM answers with one clear error."""
        gateway = memory_hsm()
        session = Session(gateway.act_as(caller()))
        gateway.close()
        gateway.close()

        for use in (session.status, lambda: session.create_key("aes")):
            with pytest.raises(errors.UnavailableError):
                use()


def together(gateway: OpenHSM, *requests: Request) -> list[object]:
    """Execute requests as one batch; return their results and errors."""

    async def work() -> list[object]:
        answers = open_async(gateway).execute_many(requests)
        return list(await asyncio.gather(*answers, return_exceptions=True))

    return asyncio.run(work())


def test_one_idempotency_key_in_many_threads() -> None:
    """Sixteen equal requests at once make one key and get one answer."""
    with memory_hsm() as gateway, ThreadPoolExecutor(16) as pool:
        session = Session(gateway.act_as(caller()))
        barrier = threading.Barrier(16)

        def create(_: int) -> object:
            barrier.wait()
            return session.create_key("p256", name="one", idempotency_key="same")

        answers = list(pool.map(create, range(16)))

        assert 1 == len({repr(a) + str(a.key_id) for a in answers})  # type: ignore[attr-defined]
        assert 1 == len(list(session.keys()))


def test_rotations_at_once() -> None:
    """Forty rotations from eight threads make forty versions, one of them active."""
    with memory_hsm() as gateway, ThreadPoolExecutor(8) as pool:
        session = Session(gateway.act_as(caller()))
        key = session.create_key("ed25519").key_id

        made = [
            info.version for info in pool.map(lambda _: session.rotate(key), range(40))
        ]

        states = [version.state for version in session.versions(key)]
        assert list(range(2, 42)) == sorted(made)
        assert [KeyState.RETIRED] * 40 + [KeyState.ACTIVE] == states


def test_uses_during_rotations() -> None:
    """Every signature and ciphertext made during rotations is good for ever."""
    with memory_hsm() as gateway, ThreadPoolExecutor(5) as pool:
        session = Session(gateway.act_as(caller()))
        signer = session.create_key("ed25519").key_id
        sealer = session.create_key("aes").key_id
        stop = threading.Event()

        def rotate() -> None:
            while not stop.is_set():
                session.rotate(signer)
                session.rotate(sealer)

        rotating = pool.submit(rotate)
        made = list(
            pool.map(
                lambda n: (
                    session.sign(signer, b"%d" % n),
                    session.encrypt(sealer, b"%d" % n),
                ),
                range(200),
            )
        )
        stop.set()
        rotating.result()

        for number, (signature, ciphertext) in enumerate(made):
            found = session.verify(signer, b"%d" % number, signature.signature)
            assert signature.version == found.version
            assert b"%d" % number == session.decrypt(sealer, ciphertext)
        assert session.verify_audit().verified > 400


def test_one_bad_item_does_not_spoil_a_batch() -> None:
    """What can't be written down fails alone."""
    with memory_hsm() as gateway:
        me = caller()
        good, bad = together(
            gateway,
            Request(me, ops.GenerateRandom(length=5)),
            Request(me, ops.Verify(key_id="k", signature=b"", salt_bytes=2**70)),
        )

        assert isinstance(good, ops.RandomBytes)
        assert 5 == len(good.random)
        assert isinstance(bad, errors.InvalidInputError)


def test_an_event_loop_refuses_more_than_it_can_hold() -> None:
    """Above a bound of waiting work the answer is an error, not a longer queue."""
    with memory_hsm() as gateway:
        hsm = open_async(gateway).act_as(caller())

        async def flood() -> list[object]:
            work = [hsm.execute(ops.ListKeys(search="a")) for _ in range(1500)]
            return await asyncio.gather(*work, return_exceptions=True)

        answers = asyncio.run(flood())

        kinds = Counter(type(answer).__name__ for answer in answers)
        assert {"KeyPage": 1024, "OverloadedError": 476} == kinds


def test_a_page_from_memory_waits_for_no_thread() -> None:
    """More pages at once than may wait for a thread are all answered."""
    with memory_hsm() as gateway:
        Session(gateway.act_as(caller())).create_key("ed25519", name="key")
        hsm = open_async(gateway).act_as(caller())

        async def flood() -> list[ops.KeyPage]:
            work = [hsm.execute(ops.ListKeys()) for _ in range(1500)]
            return await asyncio.gather(*work)

        pages = asyncio.run(flood())

    assert {("key",)} == {tuple(key.name for key in page.items) for page in pages}


def test_a_batch_keeps_its_order() -> None:
    """Outcomes stand in the order of their requests, good and bad, quick and slow."""
    with memory_hsm() as gateway:
        me = caller()
        session = Session(gateway.act_as(me))
        key = session.create_key("ed25519").key_id
        head = session.status().audit.head_seq

        answers = together(
            gateway,
            Request(me, ops.Sign(key_id=key, message=b"m")),
            Request(me, ops.RotateKey(key_id=key)),
            Request(me, ops.Sign(key_id="missing", message=b"m")),
            Request(me, ops.DescribeKey(key_id=key)),
            Request(caller(principal="other"), ops.GenerateRandom(length=5)),
        )

        assert [
            "Signature",
            "KeyInfo",
            "KeyNotFoundError",
            "KeyInfo",
            "RandomBytes",
        ] == [type(answer).__name__ for answer in answers]
        assert head + 5 == session.status().audit.head_seq
