# SPDX-License-Identifier: MIT
"""Accounts of key material: what is answered is counted before, whatever breaks."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core._internal.keyring.use_counters import (
    NoRoomError,
    UseAccount,
    UseRules,
    UseValue,
    decode_value,
    encode_value,
    serial_of,
)
from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core._internal.stores.memory.records import MemoryUseCounters
from hsm_core.errors import (
    KeyTamperedError,
    StorageFullError,
    StoreUnavailableError,
    UnavailableError,
    UseLimitError,
)
from hsm_core.testing import Faults, faulty_use_counters
from tests.core.key_support import RING
from tests.core.uses_support import KEY, MATERIAL, SMALL, accounts_over, stored, use
from tests.support import REPOSITORY

VERSION = KEY.current_version
TAKE = st.tuples(st.just("take"), st.integers(0, 12), st.integers(0, 60))
OTHER = st.tuples(st.sampled_from(["crash", "close", "full"]), st.just(0), st.just(0))


@given(st.lists(TAKE | TAKE | OTHER, max_size=40))
def test_any_life(steps: list[tuple[str, int, int]]) -> None:
    """
    Whatever happens, stored counts are not below those made, nor above the limit.
    """
    faults = Faults()
    counters = MemoryUseCounters()
    accounts = accounts_over(faulty_use_counters(counters, faults))
    accounts.open(KEY, KEY.versions)
    made, size = 0, 0
    for step, wanted, wanted_size in steps:
        if step == "take":
            with contextlib.suppress(UseLimitError, StorageFullError):
                accounts.take(use(wanted, wanted_size))
                made, size = made + wanted, size + wanted_size
        elif step == "full":
            faults.plan("counters.put", StorageFullError())
        else:
            if step == "close":
                faults.clear()
                shown, _ = accounts.info(KEY, VERSION)
                accounts.close(1)
                assert shown is not None
                assert (shown.uses, shown.bytes) == stored(counters)[:2]
            accounts = accounts_over(faulty_use_counters(counters, faults))

        assert made <= stored(counters).uses <= 50
        assert size <= stored(counters).size


def test_nothing_but_refused_at_the_limit() -> None:
    """
    Exactly the limit can be used; what is too much is refused wholly, less is not.
    """
    accounts = accounts_over(MemoryUseCounters())
    accounts.open(KEY, KEY.versions)
    accounts.take(use(48))

    with pytest.raises(
        UseLimitError, match=r"48 times of at most 50.*Rotate"
    ) as caught:
        accounts.take(use(3))
    accounts.take(use(2))
    with pytest.raises(UseLimitError):
        accounts.take(use(1))

    assert {"version": 1, "uses": 48, "limit": 50} == caught.value.facts
    accounts.take(use(0))


def test_busy_keys_seldom_ask_the_disk() -> None:
    """
    Blocks double: a million uses need about ten writes, and a single one costs 1,023.
    """
    writes: list[str] = []

    class Noting(Faults):
        """Faults that only note the calls."""

        def strike(self, call: str) -> None:
            writes.append(call)

    counters = MemoryUseCounters()
    accounts = accounts_over(faulty_use_counters(counters, Noting()), rules=UseRules())
    accounts.open(KEY, KEY.versions)
    accounts.take(use())
    assert 1024 == stored(counters).uses
    writes.clear()
    for _ in range(1000):
        accounts.take(use(1000, 10))

    assert writes.count("counters.put") <= 10


def test_at_once_never_waits_for_the_disk() -> None:
    """
    Who can't wait is told so, whether anything is reserved or not, and counts nothing.
    """
    faults = Faults()
    accounts = accounts_over(faulty_use_counters(MemoryUseCounters(), faults))
    accounts.open(KEY, KEY.versions)
    faults.plan("counters.get", AssertionError("read"), times=10**6)
    with pytest.raises(NoRoomError):
        accounts.take(use(), at_once=True)
    faults.clear()
    accounts.take(use())

    faults.plan("counters.put", AssertionError("written"), times=10**6)
    accounts.take(use(), at_once=True)
    with pytest.raises(NoRoomError):
        accounts.take(use(), at_once=True)


def test_many_threads() -> None:
    """
    Threads that use one key at once get what is reserved, and exactly the limit.
    """
    counters = MemoryUseCounters()
    rules = UseRules(limit_of=lambda _: 500, first_uses=2, most_uses=16)
    near: list[int] = []
    accounts = accounts_over(counters, rules=rules, near=near)
    accounts.open(KEY, KEY.versions)
    answered, low, lock = [0], [], threading.Lock()

    def work(_: int) -> int:
        done = 0
        for _ in range(100):
            try:
                accounts.take(use(1, 3))
            except UseLimitError:
                continue
            done += 1
            with lock:
                answered[0] += 1
                if stored(counters).uses < answered[0]:
                    low.append(answered[0])
        return done

    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(work, range(8)))

    assert 500 == done == answered[0] == stored(counters).uses
    assert [] == low
    assert 1 == len(near)


def test_a_warning_that_fails_stops_the_use() -> None:
    """
    If nobody can be told that the limit is near, nothing is used; later it works.
    """
    counters, told = MemoryUseCounters(), []

    def tell(use: object, uses: int, limit: int) -> None:
        told.append(uses)
        if len(told) == 1:
            raise StoreUnavailableError

    accounts = accounts_over(counters)
    accounts._on_near_limit = tell  # noqa: SLF001
    accounts.open(KEY, KEY.versions)
    accounts.take(use(39))
    with pytest.raises(StoreUnavailableError):
        accounts.take(use(1))
    assert 39 == accounts.info(KEY, VERSION)[0].uses  # type: ignore[union-attr]

    accounts.take(use(1))
    accounts.take(use(1))

    assert [40, 40] == told
    assert stored(counters).warned


def test_warned_once_over_restarts() -> None:
    """
    A key that came near once is not warned of again after a restart or a crash.
    """
    counters = MemoryUseCounters()
    near: list[int] = []
    accounts = accounts_over(counters, near=near)
    accounts.open(KEY, KEY.versions)
    accounts.take(use(41))
    accounts_over(counters, near=near).take(use(1))
    accounts.close(1)
    accounts_over(counters, near=near).take(use(1))

    assert [41] == near


def test_nothing_after_closing() -> None:
    """
    After closing nothing is counted any more, so nothing is used uncounted.
    """
    counters = MemoryUseCounters()
    accounts = accounts_over(counters)
    accounts.open(KEY, KEY.versions)
    accounts.take(use())
    accounts.close(1)

    with pytest.raises(UnavailableError):
        accounts.take(use())
    assert 1 == stored(counters).uses


def test_a_late_close_keeps_what_was_reserved() -> None:
    """
    What can't be stored in time keeps its reservation: too much, never too little.
    """
    counters = MemoryUseCounters()
    accounts = accounts_over(counters)
    accounts.open(KEY, KEY.versions)
    accounts.take(use())
    accounts.close(-1)

    assert 2 == stored(counters).uses


@given(st.integers(0, 61), st.integers(1, 255))
@settings(max_examples=30)
def test_a_changed_value(place: int, change: int) -> None:
    """
    A value with any byte changed is not believed.
    """
    value = bytearray(encode_value(MATERIAL, UseValue(3, 4, 5, True), RING.counter_mac))
    assert 62 == len(value)
    value[place] ^= change
    counters = MemoryUseCounters()
    counters.put(MATERIAL, bytes(value))

    with pytest.raises(KeyTamperedError):
        accounts_over(counters).take(use())


@pytest.mark.parametrize("size", [0, 31, 32, 61, 63])
def test_a_value_of_another_length(size: int) -> None:
    """
    A value that is cut short or longer is not believed.
    """
    value = encode_value(MATERIAL, UseValue(), RING.counter_mac) + b"\0"

    assert decode_value(MATERIAL, value[:size], RING.counter_mac) is None


def test_a_serial_number() -> None:
    """
    A value of a cluster has a serial number, and is not believed without it.
    """
    value = UseValue(3, 4, 5)
    stored = encode_value(MATERIAL, value, RING.counter_mac, 7)

    assert 7 == serial_of(stored)
    assert value == decode_value(MATERIAL, stored, RING.counter_mac)
    first = encode_value(MATERIAL, value, RING.counter_mac)
    assert 0 == serial_of(first) == serial_of(None)
    swapped = stored[:30] + RING.counter_mac(MATERIAL, stored[:30])
    assert decode_value(MATERIAL, swapped, RING.counter_mac) is None


def is_older(account: UseAccount, form: bytes) -> bool:
    """Return whether a stored form is older than what an account knows."""
    value = decode_value(MATERIAL, form, RING.counter_mac)
    return value is not None and account.is_older(value, form)


class TestOlderValue:
    """Values that a node has written or read, and older ones that come back."""

    FORMS = tuple(
        encode_value(MATERIAL, UseValue(uses), RING.counter_mac, uses)
        for uses in range(5)
    )

    def account(self) -> UseAccount:
        """Return an account that has written the third value."""
        account = UseAccount(0, SMALL)
        account.load(UseValue(2), self.FORMS[2])
        account.adopt(UseValue(3), self.FORMS[3])
        return account

    def test_an_older_one(self) -> None:
        """
        An older value, and another one of the same number, are told from newer ones.
        """
        account = self.account()
        other = encode_value(MATERIAL, UseValue(9), RING.counter_mac, 3)

        found = [is_older(account, form) for form in (*self.FORMS, other)]
        assert [True, True, True, False, False, True] == found

    def test_the_newest_block_is_lost(self) -> None:
        """
        A fail-over may lose the value that was written here last, and none before it.
        """
        account = self.account()
        account.doubt()

        found = [is_older(account, form) for form in self.FORMS]
        assert [True, True, False, False, False] == found

    def test_a_block_of_another_is_lost(self) -> None:
        """
        A fail-over that loses a value of another node is noticed.
        """
        account = self.account()
        account.follow(UseValue(4), self.FORMS[4])
        account.doubt()

        assert is_older(account, self.FORMS[3])


def test_unknown_flags() -> None:
    """
    A value of a later format is not half understood.
    """
    value = encode_value(MATERIAL, UseValue(), RING.counter_mac)[:-32]
    changed = value[:5] + b"\x02" + value[6:]

    stored = changed + RING.counter_mac(MATERIAL, changed)
    assert decode_value(MATERIAL, stored, RING.counter_mac) is None


def test_killed_at_every_call(tmp_path: Path) -> None:
    """
    SIGKILL before each call that changes the disk: all that was answered is counted.
    """
    answer = subprocess.run(
        [sys.executable, "-m", "tests.core.uses_child", str(tmp_path)],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    answered = []
    for nth in range(1, int(answer.stdout) + 1):
        store = FilesystemKeyStore(tmp_path / f"store-{nth}")
        found = stored(store.uses)
        count = len((tmp_path / f"answers-{nth}").read_bytes())
        assert count <= found.uses <= count + SMALL.most_uses
        assert 5 * count <= found.size
        accounts_over(store.uses).take(use())
        store.close()
        answered.append(count)

    assert answered == sorted(answered)
    assert 8 == answered[-1]
    assert len(set(answered)) >= 4
