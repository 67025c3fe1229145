# SPDX-License-Identifier: MIT
"""Many callers at once: nothing is done twice, nothing is lost, a revoke is final."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.factory import OpenHSM, open_async
from hsm_core.model import KeyState
from hsm_core.protocols import Request
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm


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


def test_a_revoke_is_final() -> None:
    """After a revoke was acknowledged no use succeeds, whoever was under way."""
    with memory_hsm() as gateway, ThreadPoolExecutor(4) as pool:
        session = Session(gateway.act_as(caller()))
        key = session.create_key("ed25519").key_id
        revoked = threading.Event()
        late: list[int] = []

        def use() -> None:
            while True:
                was_revoked = revoked.is_set()
                try:
                    session.sign(key, b"m")
                except errors.KeyStateError:
                    return
                if was_revoked:
                    late.append(1)

        users = [pool.submit(use) for _ in range(3)]
        session.revoke(key)
        revoked.set()
        for user in users:
            user.result()

        assert [] == late


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
            work = [hsm.execute(ops.ListKeys()) for _ in range(1500)]
            return await asyncio.gather(*work, return_exceptions=True)

        answers = asyncio.run(flood())

        kinds = Counter(type(answer).__name__ for answer in answers)
        assert {"KeyPage": 1024, "OverloadedError": 476} == kinds


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
