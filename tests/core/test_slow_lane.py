# SPDX-License-Identifier: MIT
"""Slow work has threads of its own, and holds up nobody who is quicker."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.crypto.libcrypto.provider import LibcryptoSignaturePrivateHandle
from hsm_core._internal.crypto.registry import CryptoRegistry, GeneratedKey
from hsm_core._internal.handlers.base import Speed
from hsm_core._internal.pipeline.asynchronous import Lane, Pools
from hsm_core._internal.pipeline.pipeline import Pipeline
from hsm_core.algorithms import Algorithm
from hsm_core.factory import OpenHSM, open_async, open_hsm
from hsm_core.model import KeyState
from hsm_core.protocols import Request
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.contract.hsm_ways import disk_session
from tests.core.hsm_support import require_algorithm

SLOW = Algorithm.SLH_DSA_SHA2_128S


def pipeline_of(gateway: OpenHSM) -> Pipeline:
    """Return what decides where work runs."""
    return gateway._pipeline  # noqa: SLF001 (is asked directly)


def before_generating(
    monkeypatch: pytest.MonkeyPatch, note: Callable[[Algorithm], object]
) -> None:
    """Have a function called before a key is generated, in the same thread."""
    generate = CryptoRegistry.generate

    def noted(
        self: CryptoRegistry, algorithm: Algorithm, *, agrees: bool = True
    ) -> GeneratedKey:
        note(algorithm)
        return generate(self, algorithm, agrees=agrees)

    monkeypatch.setattr(CryptoRegistry, "generate", noted)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let RSA keys be generated only once what is given was called."""
    release = threading.Event()

    def wait(algorithm: Algorithm) -> None:
        assert algorithm is not Algorithm.RSA_2048 or release.wait(30)

    before_generating(monkeypatch, wait)
    yield release.set
    release.set()


def test_which_is_slow(gateway: OpenHSM, session: Session) -> None:
    """
    What makes RSA and SLH-DSA keys is slow, and what signs with SLH-DSA.
    """
    require_algorithm(session, SLOW)
    slow = session.create_key("slh-dsa-sha2-128f").key_id
    rsa, fast = (session.create_key(name).key_id for name in ("rsa2048", "p256"))
    item = ops.SignItem(message=b"m")
    wanted = {
        ops.CreateKey(algorithm="rsa4096"): True,
        ops.CreateKey(algorithm="slh-dsa-shake-256s"): True,
        ops.CreateKey(algorithm="ed25519"): False,
        ops.CreateKey(algorithm="nonsense"): False,
        ops.ImportKey(algorithm="rsa2048", wrapping_key_id=rsa, wrapped=b"w"): True,
        ops.ImportKey(algorithm="aes", wrapping_key_id=rsa, wrapped=b"w"): False,
        ops.DeriveKey(algorithm="aes", base_key_id=fast): False,
        ops.RotateKey(key_id=rsa): True,
        ops.RotateKey(key_id=slow): True,
        ops.RotateKey(key_id=fast): False,
        ops.Rollback(key_id=slow, version=1): False,
        ops.RevokeKey(key_id=slow): False,
        ops.DestroyKey(key_id=slow): False,
        ops.Sign(key_id=slow, message=b"m"): True,
        ops.SignBatch(key_id=slow, items=(item,)): True,
        ops.Verify(key_id=slow, message=b"m", signature=b"s"): False,
        ops.Sign(key_id=rsa, message=b"m"): False,
        ops.Sign(key_id="nobody", message=b"m"): False,
        ops.DescribeKey(key_id=slow): False,
        ops.GetPublicKey(key_id=slow): False,
        ops.SelfTest(): False,
    }

    pipeline = pipeline_of(gateway)
    assert wanted == {sent: pipeline.speed_of(sent) is Speed.SLOW for sent in wanted}


def test_the_first_test_of_a_slow_algorithm(tmp_path: Path) -> None:
    """
    Until an algorithm has been tested even its checks are slow; then they are not.
    """
    with disk_session(tmp_path) as session:
        require_algorithm(session, Algorithm.SLH_DSA_SHA2_128F)
        key = session.create_key("slh-dsa-sha2-128f").key_id
        signature = session.sign(key, b"m").signature
    settings = Settings(key_dir=tmp_path / "keys", audit_log=tmp_path / "audit.log")
    root, hmac_key = b"\x01" * 32, b"\x02" * 32
    # With a registry of its own, in which nothing slow was tested yet.
    with open_hsm(settings, master_key=root, hmac_key=hmac_key) as gateway:
        session, pipeline = Session(gateway.act_as(caller())), pipeline_of(gateway)
        check = ops.Verify(key_id=key, message=b"m", signature=signature)
        assert Speed.SLOW is pipeline.speed_of(check)
        session.verify(key, b"m", signature)
        assert Speed.QUICK is pipeline.speed_of(check)
        assert Speed.SLOW is pipeline.speed_of(ops.Sign(key_id=key, message=b"m"))


def test_nothing_waits_for_slow_work(
    gateway: OpenHSM, session: Session, held: Callable[[], None]
) -> None:
    """
    While key generations hang, all else goes on: uses, reads, changes, the same key.
    """
    wrapping = session.create_key("aes-256-kw").key_id
    exported = session.create_key("aes", exportable=True).key_id
    wrapped = session.export_key(exported, wrapping).wrapped
    signer = session.create_key("p256").key_id
    hsm = open_async(gateway).act_as(caller())

    async def work() -> None:
        slow = [
            asyncio.ensure_future(hsm.execute(ops.CreateKey(algorithm="rsa2048")))
            for _ in range(12)
        ]
        await asyncio.sleep(0.05)
        for _ in range(8):
            await hsm.execute(ops.Sign(key_id=signer, message=b"m"))
            await hsm.execute(ops.DescribeKey(key_id=signer))
            await hsm.execute(ops.RotateKey(key_id=signer))
            await hsm.execute(
                ops.ImportKey(
                    algorithm="aes", wrapping_key_id=wrapping, wrapped=wrapped
                )
            )
        assert not any(one.done() for one in slow)
        held()
        made = await asyncio.gather(*slow)
        assert 12 == len({info.key_id for info in made})

    asyncio.run(work())


def test_a_key_that_is_being_rotated(
    gateway: OpenHSM,
    session: Session,
    held: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A key can be revoked while new material for it is made; the rotation comes after.
    """
    held()
    key = session.create_key("rsa2048").key_id
    release, began = threading.Event(), threading.Event()

    def wait(_: Algorithm) -> None:
        began.set()
        assert release.wait(30)

    before_generating(monkeypatch, wait)
    hsm = open_async(gateway).act_as(caller())

    async def work() -> None:
        rotation = asyncio.ensure_future(hsm.execute(ops.RotateKey(key_id=key)))
        await asyncio.to_thread(began.wait, 30)
        await hsm.execute(ops.RevokeKey(key_id=key))
        assert not rotation.done()
        release.set()
        assert 2 == (await rotation).version

    asyncio.run(work())
    states = [version.state for version in session.versions(key)]
    assert [KeyState.REVOKED, KeyState.ACTIVE] == states


def test_an_import_that_takes_long(
    gateway: OpenHSM, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A slow import leaves its wrapping key free, and is done anew if that changes.
    """
    wrapping = session.create_key("aes-256-kw").key_id
    exported = session.create_key("rsa2048", exportable=True).key_id
    wrapped = session.export_key(exported, wrapping).wrapped
    release, tries = threading.Event(), threading.Semaphore(0)
    adopt = CryptoRegistry.adopt

    def wait(self: CryptoRegistry, *args: Any) -> GeneratedKey:
        tries.release()
        assert release.wait(30)
        return adopt(self, *args)

    monkeypatch.setattr(CryptoRegistry, "adopt", wait)
    hsm = open_async(gateway).act_as(caller())

    async def work() -> None:
        sent = ops.ImportKey(
            algorithm="rsa2048",
            wrapping_key_id=wrapping,
            wrapping_version=1,
            wrapped=wrapped,
        )
        slow = asyncio.ensure_future(hsm.execute(sent))
        assert await asyncio.to_thread(tries.acquire, timeout=30)
        await hsm.execute(ops.RotateKey(key_id=wrapping))
        release.set()
        assert await asyncio.to_thread(tries.acquire, timeout=30)
        made = await slow
        one = await hsm.execute(ops.GetPublicKey(key_id=exported))
        two = await hsm.execute(ops.GetPublicKey(key_id=made.key_id))
        assert one.der == two.der

    asyncio.run(work())


def test_a_key_that_never_rests(session: Session) -> None:
    """
    Slow changes of one key at once all come about, whatever they get in the way of.
    """
    key = session.create_key("rsa2048").key_id
    threads = [threading.Thread(target=session.rotate, args=(key,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert list(range(1, 8)) == [version.version for version in session.versions(key)]


def test_a_full_lane() -> None:
    """
    Too much slow work is refused at once, while the other lanes have room.
    """
    pools = Pools(1, most_slow=2, most_waiting=2)
    release = threading.Event()

    async def work() -> None:
        slow = [
            asyncio.ensure_future(pools.run(release.wait, Lane.SLOW)) for _ in range(2)
        ]
        await asyncio.sleep(0)
        with pytest.raises(errors.OverloadedError):
            await pools.run(release.wait, Lane.SLOW)
        for lane in (Lane.CHANGES, Lane.READS):
            name = await pools.run(lambda: threading.current_thread().name, lane)
            assert name.startswith(f"hsm-core-{lane.value}")
        release.set()
        assert [True, True] == await asyncio.gather(*slow)
        await pools.run(release.wait, Lane.SLOW)

    asyncio.run(work())
    pools.close()


def test_closing_does_not_wait_for_a_queue() -> None:
    """
    What runs is finished; what still waits is told that the HSM is closed.
    """
    pools = Pools(1)
    release, began = threading.Event(), threading.Event()

    def slow() -> str:
        began.set()
        assert release.wait(30)
        return "done"

    async def work() -> list[str | BaseException]:
        first = asyncio.ensure_future(pools.run(slow, Lane.SLOW))
        await asyncio.to_thread(began.wait, 30)
        rest = [asyncio.ensure_future(pools.run(slow, Lane.SLOW)) for _ in range(9)]
        await asyncio.sleep(0)
        closing = threading.Thread(target=pools.close)
        closing.start()
        answers = await asyncio.gather(*rest[1:], return_exceptions=True)
        release.set()
        closing.join()
        await asyncio.gather(rest[0], return_exceptions=True)
        return [await first, *answers]

    done, *refused = asyncio.run(work())
    assert "done" == done
    assert {errors.UnavailableError} == {type(error) for error in refused}


def test_together(gateway: OpenHSM, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Requests that are executed together have their lanes as well.
    """
    names: dict[str, str] = {}

    def note(algorithm: Algorithm) -> None:
        names[algorithm.value] = threading.current_thread().name

    before_generating(monkeypatch, note)
    me = caller()
    requests = [
        Request(me, ops.CreateKey(algorithm="rsa2048")),
        Request(me, ops.CreateKey(algorithm="ed25519")),
        Request(me, ops.GenerateRandom(length=8)),
    ]

    async def work() -> None:
        await asyncio.gather(*open_async(gateway).execute_many(requests))

    asyncio.run(work())

    assert names["RSA-2048"].startswith("hsm-core-slow")
    assert names["Ed25519"].startswith("hsm-core-changes")


def test_signatures_that_take_long(gateway: OpenHSM, session: Session) -> None:
    """
    Beside an SLH-DSA signature many P-256 signatures are made.
    """
    require_algorithm(session, SLOW)
    slow, fast = (session.create_key(name).key_id for name in (SLOW, "p256"))
    hsm = open_async(gateway).act_as(caller())

    async def work() -> None:
        signing = asyncio.ensure_future(hsm.execute(ops.Sign(key_id=slow, message=b"")))
        made = 0
        while not signing.done():
            await hsm.execute(ops.Sign(key_id=fast, message=b"m"))
            made += 1
        await signing
        assert made > 3

    asyncio.run(work())


def test_closing_does_not_wait_for_a_long_batch(
    gateway: OpenHSM, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A batch that nobody waits for any more ends with the item that is being computed.
    """
    require_algorithm(session, SLOW)
    key = session.create_key(SLOW).key_id
    batch = ops.SignBatch(key_id=key, items=(ops.SignItem(message=b"m"),) * 100)
    begun, computed = threading.Event(), list[bytes]()
    sign = LibcryptoSignaturePrivateHandle.sign

    def noted(handle: LibcryptoSignaturePrivateHandle, *given: Any) -> bytes:
        begun.set()
        computed.append(sign(handle, *given))
        return computed[-1]

    monkeypatch.setattr(LibcryptoSignaturePrivateHandle, "sign", noted)

    async def work() -> None:
        hsm = open_async(gateway).act_as(caller())
        running = asyncio.ensure_future(hsm.execute(batch))
        assert await asyncio.to_thread(begun.wait, 60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(work())
    gateway.close()

    assert 0 < len(computed) < len(batch.items)


async def test_cancelled_work_is_let_go() -> None:
    """What is cancelled while it waits for a thread is neither done nor kept."""

    class Work:
        """Something whose end can be seen."""

        def __call__(self) -> None:
            done.append("never")

    done: list[str] = []
    pools, release = Pools(1), threading.Event()
    first = asyncio.ensure_future(pools.run(release.wait, Lane.READS))
    work = Work()
    kept = weakref.ref(work)
    second = asyncio.ensure_future(pools.run(work, Lane.READS))
    await asyncio.sleep(0)

    del work
    second.cancel()
    await asyncio.wait([second])
    del second
    gc.collect()
    is_kept = kept() is not None
    release.set()
    await first
    pools.close()

    assert not is_kept
    assert [] == done
