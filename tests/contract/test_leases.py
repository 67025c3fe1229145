# SPDX-License-Identifier: MIT
"""What every `Leases` promises, run over every implementation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.remote.leases import RemoteLeases
from hsm_core._internal.stores.remote.memory_vault import MemoryVault
from hsm_core.errors import (
    InvalidInputError,
    LeaseHeldError,
    LeaseLostError,
    StoreUnavailableError,
)
from hsm_core.protocols import Lease, Leases, RemoteKeyVault
from hsm_core.testing import FakeClock, FakeEntropy

NAME = "writer"
HOUR = 3600.0


class Row:
    """One vault: opens the same leases anew with each call."""

    def __init__(self, name: str) -> None:
        self.clock = FakeClock()
        self._vault: RemoteKeyVault = MemoryVault()
        if name == "s3":
            from tests.core.s3_server import shared_storage

            self._vault = shared_storage().new_vault()

    def open(self) -> Leases:
        """Open them."""
        return RemoteLeases(self._vault, self.clock, SystemEntropy())


@pytest.fixture(params=["memory", "s3"])
def row(request: pytest.FixtureRequest) -> Row:
    """Give one vault after the other."""
    return Row(request.param)


@pytest.fixture
def leases(row: Row) -> Leases:
    """Give leases of which none is taken."""
    return row.open()


class TestEveryImplementation:
    def test_life(self, row: Row, leases: Leases) -> None:
        """
        A name is taken, renewed and given up, and the next holder has the next epoch.
        """
        first = leases.acquire(NAME, "a", 10)
        row.clock.advance(5)
        renewed = leases.renew(first, 10)
        leases.release(renewed)
        second = leases.acquire(NAME, "b", 10)

        assert (1, 1, 2) == (first.epoch, renewed.epoch, second.epoch)
        assert ("writer", "a", "b") == (first.name, first.holder, second.holder)
        assert first.expires_at + 5_000_000 == renewed.expires_at
        assert row.clock.now() + 10_000_000 == second.expires_at

    @pytest.mark.parametrize("holder", ["a", "b"])
    def test_taken(self, row: Row, leases: Leases, holder: str) -> None:
        """
        A name that is taken is refused to others and to its holder, until when is told.
        """
        lease = leases.acquire(NAME, "a", 10)

        with pytest.raises(LeaseHeldError, match="held by a") as caught:
            leases.acquire(NAME, holder, 10)

        assert {"expires_at": lease.expires_at} == caught.value.facts
        assert "a" == leases.renew(lease, 1).holder

    def test_names_apart(self, leases: Leases) -> None:
        """
        One name says nothing about another.
        """
        leases.acquire("a", "x", 10)

        assert 1 == leases.acquire("a.b-1", "x", 10).epoch

    def test_crashed_holder(self, row: Row) -> None:
        """
        A name whose holder is gone is free at the instant when it expires, not before.
        """
        row.open().acquire(NAME, "a", 10)
        leases = row.open()
        row.clock.advance(9.999_999)
        with pytest.raises(LeaseHeldError):
            leases.acquire(NAME, "b", 10)
        row.clock.advance(0.000_001)

        assert 2 == leases.acquire(NAME, "b", 10).epoch

    def test_expired_is_lost(self, row: Row, leases: Leases) -> None:
        """
        An expired lease can't be renewed, even if nobody has taken the name.
        """
        lease = leases.acquire(NAME, "a", 10)
        row.clock.advance(10)

        with pytest.raises(LeaseLostError):
            leases.renew(lease, 10)

    def test_taken_over(self, row: Row, leases: Leases) -> None:
        """
        The holder before can neither renew nor give up what another has.
        """
        lost = leases.acquire(NAME, "a", 10)
        row.clock.advance(10)
        held = leases.acquire(NAME, "a", 10)

        with pytest.raises(LeaseLostError):
            leases.renew(lost, 10)
        leases.release(lost)

        assert held == replace(leases.renew(held, 10), expires_at=held.expires_at)

    def test_released(self, leases: Leases) -> None:
        """
        What was given up can't be renewed, and giving it up twice is no error.
        """
        lease = leases.acquire(NAME, "a", 10)
        leases.release(lease)
        leases.release(lease)

        with pytest.raises(LeaseLostError):
            leases.renew(lease, 10)

    def test_never_there(self, row: Row, leases: Leases) -> None:
        """
        A lease that these leases never gave is lost.
        """
        elsewhere = Row("memory").open().acquire(NAME, "a", 10)

        leases.release(elsewhere)
        with pytest.raises(LeaseLostError):
            leases.renew(elsewhere, 10)

    def test_clock_steps(self, row: Row, leases: Leases) -> None:
        """
        A clock set back never frees a name; one set forward does, for its holder too.
        """
        lease = leases.acquire(NAME, "a", 10)
        row.clock.step(-HOUR)
        with pytest.raises(LeaseHeldError):
            leases.acquire(NAME, "b", 10)
        row.clock.step(2 * HOUR)

        with pytest.raises(LeaseLostError):
            leases.renew(lease, 10)
        assert 2 == leases.acquire(NAME, "b", 10).epoch

    def test_epochs_last(self, row: Row) -> None:
        """
        Epochs count on over many holders and openings.
        """
        epochs = []
        for holder in "abcde":
            leases = row.open()
            lease = leases.acquire(NAME, holder, 10)
            epochs.append(lease.epoch)
            leases.release(lease)

        assert [1, 2, 3, 4, 5] == epochs

    def test_many_at_once(self, row: Row) -> None:
        """
        Of many who ask at once one gets the name, each time.
        """
        several = [row.open() for _ in range(4)]
        crowd = 16
        barrier = threading.Barrier(crowd)

        def ask(number: int) -> int:
            barrier.wait()
            try:
                return several[number % 4].acquire(NAME, f"h{number}", 10).epoch
            except LeaseHeldError:
                return 0

        with ThreadPoolExecutor(crowd) as pool:
            for turn in (1, 2, 3):
                epochs = sorted(pool.map(ask, range(crowd)))
                assert [0] * (crowd - 1) + [turn] == epochs
                row.clock.advance(10)

    @pytest.mark.parametrize(
        "name", ["", "A", "1a", ".", "..", "a/b", "a\n", "a" * 65, "ä", "lock\0"]
    )
    def test_names(self, leases: Leases, name: str) -> None:
        """
        What is no name reaches no store.
        """
        with pytest.raises(InvalidInputError) as caught:
            leases.acquire(name, "a", 10)

        assert "name" == caught.value.facts["field"]

    @pytest.mark.parametrize("holder", ["", "a b", "a\n", "ä", "a" * 129])
    def test_holders(self, leases: Leases, holder: str) -> None:
        """
        A holder is visible ASCII of bounded length.
        """
        with pytest.raises(InvalidInputError) as caught:
            leases.acquire(NAME, holder, 10)

        assert "holder" == caught.value.facts["field"]

    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e9])
    def test_seconds(self, leases: Leases, seconds: float) -> None:
        """
        A lease lasts for more than no time, and for 30 days at most.
        """
        lease = leases.acquire(NAME, "a", 10)
        asks: list[Callable[[], Lease]] = [
            lambda: leases.acquire("other", "a", seconds),
            lambda: leases.renew(lease, seconds),
        ]
        for ask in asks:
            with pytest.raises(InvalidInputError) as caught:
                ask()
            assert "seconds" == caught.value.facts["field"]


class TestRemote:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{}",
            b'{"format":2,"name":"writer","holder":"a","epoch":1,"expires_at":0}',
            b'{"format":1,"name":"other","holder":"a","epoch":1,"expires_at":0}',
            b'{"format":1,"name":"writer","holder":"a","epoch":0,"expires_at":0}',
            bytes(5000),
        ],
    )
    def test_unreadable(
        self, vault: MemoryVault, leases: RemoteLeases, content: bytes
    ) -> None:
        """
        An object that is no lease of this name is not taken for a free name.
        """
        vault.put("leases/writer", content)

        with pytest.raises(StoreUnavailableError, match="The lease writer"):
            leases.acquire(NAME, "a", 10)

        assert 1 == leases.acquire("other", "a", 10).epoch

    @pytest.fixture
    def vault(self) -> MemoryVault:
        """Give an empty vault."""
        return MemoryVault()

    @pytest.fixture
    def leases(self, vault: MemoryVault) -> RemoteLeases:
        """Give leases in it."""
        return RemoteLeases(vault, FakeClock(), FakeEntropy())

    @pytest.mark.parametrize("fail", [MemoryVault.lose_answers, MemoryVault.refuse])
    @pytest.mark.parametrize("times", [1, 2])
    def test_lost_answers(
        self,
        vault: MemoryVault,
        leases: RemoteLeases,
        fail: Callable[..., None],
        times: int,
    ) -> None:
        """
        An answer that got lost is found, and a request that got lost is repeated.
        """
        fail(vault, "put", times=times)
        lease = leases.acquire(NAME, "a", 10)
        fail(vault, "put", times=times)
        renewed = leases.renew(lease, 20)
        fail(vault, "put", times=times)
        leases.release(renewed)

        assert 1 == renewed.epoch
        assert 2 == leases.acquire(NAME, "b", 10).epoch

    def test_gone(self, vault: MemoryVault, leases: RemoteLeases) -> None:
        """
        A vault that stays away is told after three attempts.
        """
        vault.refuse("put", times=9)

        with pytest.raises(StoreUnavailableError):
            leases.acquire(NAME, "a", 10)

        assert 3 == [call for call, _ in vault.calls].count("put")

    @pytest.mark.parametrize("holder", ["a", "b"])
    def test_lost_to_another(
        self, vault: MemoryVault, leases: RemoteLeases, holder: str
    ) -> None:
        """
        A lease of another caller, even of the same name, isn't taken for a lost answer.
        """
        other = RemoteLeases(vault, FakeClock(), FakeEntropy(1))

        put = vault.put

        def overtaken(name: str, data: bytes, /, *, expected: str | None = None) -> str:
            vault.put = put  # type: ignore[method-assign]
            other.acquire(NAME, holder, 10)
            return put(name, data, expected=expected)

        vault.put = overtaken  # type: ignore[method-assign]
        vault.refuse("put", after=1)

        with pytest.raises(LeaseHeldError, match=f"held by {holder}"):
            leases.acquire(NAME, "a", 10)

    def test_late_arrival(self, vault: MemoryVault, leases: RemoteLeases) -> None:
        """
        A request that arrives after it was repeated changes nothing any more.
        """
        vault.hold("put")
        lease = leases.acquire(NAME, "a", 10)

        assert 0 == vault.deliver()
        assert lease == replace(leases.renew(lease, 10), expires_at=lease.expires_at)
