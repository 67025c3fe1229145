# SPDX-License-Identifier: MIT
"""Accounts of several nodes over the same counters: together below the limit."""

from __future__ import annotations

import contextlib
import gc
import threading
import tracemalloc
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.keyring.use_counters import UseAccounts, UseRules
from hsm_core._internal.stores.memory.records import MemoryUseCounters
from hsm_core.errors import KeyTamperedError, StoreUnavailableError, UseLimitError
from hsm_core.model import Integrity
from hsm_core.testing import FakeClock, Faults, faulty_use_counters
from tests.core.uses_support import KEY, MATERIAL, SMALL, accounts_over, stored, use

VERSION = KEY.current_version
NODE = st.integers(0, 2)
TAKE = st.tuples(st.just("take"), NODE, st.integers(0, 9))
OTHER = st.tuples(st.sampled_from(["crash", "close", "torn"]), NODE, st.just(0))
LOSS = st.tuples(st.just("lost"), NODE, st.just(0))


class SharedCounters(MemoryUseCounters):
    """Counters as a database of several nodes has them."""

    is_shared = True

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self.older: bytes | None = None

    def replace(self, material_id: str, before: bytes | None, after: bytes, /) -> bool:
        """Compare and set."""
        with self._lock:
            if self.get(material_id) != before:
                return False
            self.older = before
            self.put(material_id, after)
            return True


class TornCounters(SharedCounters):
    """Counters whose next replacement is made, and then reported as failed."""

    is_torn = False

    def replace(self, material_id: str, before: bytes | None, after: bytes, /) -> bool:
        """Compare and set, and perhaps fail."""
        done = super().replace(material_id, before, after)
        if self.is_torn:
            self.is_torn = False
            raise StoreUnavailableError
        return done


@given(st.lists(TAKE | TAKE | OTHER, max_size=60))
def test_any_life_of_three_nodes(steps: list[tuple[str, int, int]]) -> None:
    """
    Nodes that die, leave or lose an answer never use more together than is stored.
    """
    counters = TornCounters()
    nodes = [accounts_over(counters) for _ in range(3)]
    nodes[0].open(KEY, KEY.versions)
    made = 0
    for step, node, wanted in steps:
        if step == "take":
            with contextlib.suppress(UseLimitError, StoreUnavailableError):
                nodes[node].take(use(wanted, wanted))
                made += wanted
            counters.is_torn = False
        elif step == "torn":
            counters.is_torn = True
        else:
            if step == "close":
                counters.is_torn = False
                nodes[node].close(60)
            nodes[node] = accounts_over(counters)

        assert made <= stored(counters).uses <= 50
        assert made <= stored(counters).size


@given(st.lists(TAKE | TAKE | LOSS, max_size=40))
def test_a_standby_that_lacks_the_newest_block(
    steps: list[tuple[str, int, int]],
) -> None:
    """
    After a promotion that lost the newest block, all that was used is stored again.

    A node that has read a lost block of another refuses the key from then on.
    """
    counters = SharedCounters()
    nodes = [accounts_over(counters) for _ in range(3)]
    nodes[0].open(KEY, KEY.versions)
    made = 0
    for step, node, wanted in steps:
        if step == "take":
            with contextlib.suppress(UseLimitError, KeyTamperedError):
                nodes[node].take(use(wanted))
                made += wanted
        else:
            counters.put(MATERIAL, counters.older or counters.get(MATERIAL) or b"")
            for each in nodes:
                each.doubt_blocks()
            for each in nodes:
                with contextlib.suppress(UseLimitError, KeyTamperedError):
                    each.take(use(0))

        assert made <= stored(counters).uses <= 50


def test_two_nodes_and_many_threads() -> None:
    """
    Threads of two nodes get all uses but those reserved elsewhere, and never more.
    """
    counters = SharedCounters()
    rules = UseRules(limit_of=lambda _: 500, first_uses=2, most_uses=16)
    nodes = [accounts_over(counters, rules=rules) for _ in range(2)]
    nodes[0].open(KEY, KEY.versions)

    def work(number: int) -> int:
        done = 0
        for _ in range(100):
            with contextlib.suppress(UseLimitError):
                nodes[number % 2].take(use(1, 3))
                done += 1
        return done

    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(work, range(8)))

    assert 500 - 16 <= done <= 500
    for node in nodes:
        node.close(60)
    assert done == stored(counters).uses


def test_uses_given_back_serve_another_node() -> None:
    """
    A node that was refused at the limit uses what another gives back at its close.
    """
    counters = SharedCounters()
    one, two = (accounts_over(counters) for _ in range(2))
    one.open(KEY, KEY.versions)
    two.take(use(2))
    one.take(use(40))
    one.take(use(1))
    with pytest.raises(UseLimitError, match="at most 50"):
        two.take(use(8))
    shown, _ = two.info(KEY, VERSION)
    one.close(60)

    two.take(use(7))

    assert shown is not None
    assert shown.uses >= 43
    assert 50 == stored(counters).uses


def test_what_is_given_back_is_no_older_value() -> None:
    """
    A key that is described while its node stops was not tampered with.
    """
    accounts = accounts_over(SharedCounters())
    accounts.open(KEY, KEY.versions)
    accounts.take(use(3))
    accounts.take(use(1))

    accounts.close(10)
    shown, integrity = accounts.info(KEY, VERSION)

    assert integrity is Integrity.OK
    assert shown is not None
    assert shown.uses == 4


def test_the_warning_of_one_node_serves_all() -> None:
    """
    Nodes that use a key in turn warn once, and show the count of all of them.
    """
    counters, near = SharedCounters(), list[int]()
    one, two = (accounts_over(counters, near=near) for _ in range(2))
    one.open(KEY, KEY.versions)
    for _ in range(22):
        one.take(use())
        two.take(use())

    assert 1 == len(near)
    shown, _ = one.info(KEY, VERSION)
    assert shown is not None
    assert 44 <= shown.uses <= 50
    assert shown.near_limit


def test_a_counter_removed_by_another_node() -> None:
    """
    A node stops once its block is used up, if the counter is gone meanwhile.
    """
    counters = SharedCounters()
    one, two = (accounts_over(counters) for _ in range(2))
    one.open(KEY, KEY.versions)
    two.take(use())
    one.forfeit(KEY)

    with pytest.raises(KeyTamperedError, match="use counter"):
        two.take(use(20))


@pytest.mark.parametrize("counters", [MemoryUseCounters(), SharedCounters()])
def test_destroyed_keys_leave_nothing(counters: MemoryUseCounters) -> None:
    """
    A program that makes, uses and destroys keys does not grow by their number.
    """
    accounts = accounts_over(counters)

    def live(number: int) -> None:
        names = [str(uuid.UUID(int=number + n, version=4)) for n in range(2)]
        version = msgspec.structs.replace(KEY.current_version, material_id=names[0])
        key = msgspec.structs.replace(KEY, key_id=names[1], versions=(version,))
        accounts.open(key, key.versions)
        accounts.account_of(key, version)
        accounts.discard(key.key_id, names[:1])

    def left() -> int:
        tracemalloc.start()
        try:
            for _ in range(100):
                live(next(numbers))
            gc.collect()
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    numbers = count(0, 1000)
    live(next(numbers))
    # Threads that other tests have left may take memory, but not each time.
    assert any(left() < 100 * 100 for _ in range(10))


@pytest.mark.parametrize("limit", [0, 50])
def test_a_material_destroyed_by_another_node(limit: int) -> None:
    """
    A node that stops gives nothing back to a counter that is gone.
    """
    counters = SharedCounters()
    rules = UseRules(limit_of=lambda _: limit)
    one, two = (accounts_over(counters, rules=rules) for _ in range(2))
    one.open(KEY, KEY.versions)
    two.take(use(1, 5))
    one.take(use())
    one.discard(KEY.key_id, [MATERIAL])

    two.close(60)
    assert counters.get(MATERIAL) is None


def test_a_lost_counter_without_a_limit() -> None:
    """
    A node goes on counting from the beginning where there is no limit to exceed.
    """
    counters = SharedCounters()
    rules = UseRules(limit_of=lambda _: 0, first_uses=2, most_uses=2)
    accounts = accounts_over(counters, rules=rules)
    accounts.take(use(2))
    counters.discard(MATERIAL)
    accounts.take(use(2))
    accounts.take(use(2))

    assert 4 == stored(counters).uses


def test_an_older_counter_without_a_limit_that_was_accepted() -> None:
    """
    What an operator accepts is counted on from, not compared with what was known.
    """
    counters = SharedCounters()
    rules = msgspec.structs.replace(SMALL, limit_of=lambda _: 0)
    accounts = accounts_over(counters, rules=rules)
    accounts.take(use(1))
    older = counters.get(MATERIAL)
    accounts.take(use(9))
    counters.put(MATERIAL, older or b"")

    accounts.forfeit(KEY)
    accounts.take(use(1))

    assert accounts.info(KEY, VERSION)[1] is Integrity.OK


def test_a_counter_removed_behind_an_open_block() -> None:
    """
    After a change of its key, a node uses nothing more of a counter that is gone.
    """
    counters = SharedCounters()
    one, two = (accounts_over(counters) for _ in range(2))
    one.open(KEY, KEY.versions)
    two.take(use())
    two.reread(KEY.key_id)
    two.take(use())
    one.forfeit(KEY)
    two.reread("another key")
    two.reread(KEY.key_id)

    for _ in range(2):
        with pytest.raises(KeyTamperedError):
            two.take(use(0))


def test_first_values_of_another_node_are_left_alone() -> None:
    """
    A value without a key is one of a change under way elsewhere, for an hour.
    """
    counters, clock = SharedCounters(), FakeClock()
    here = accounts_over(counters, clock=clock)
    accounts_over(counters).open(KEY, KEY.versions)
    first = here.orphans()
    clock.advance(seconds=3599)
    second = here.orphans()
    clock.advance(seconds=2)

    assert set() == first == second
    assert {MATERIAL} == here.orphans()


def test_a_promotion_without_the_database() -> None:
    """
    A block that can't be added again yet serves nothing, and is added later.
    """
    counters, faults = SharedCounters(), Faults()
    accounts: UseAccounts = accounts_over(faulty_use_counters(counters, faults))
    accounts.open(KEY, KEY.versions)
    accounts.take(use())
    accounts.doubt_blocks()
    faults.plan("counters.get", StoreUnavailableError())
    with pytest.raises(StoreUnavailableError):
        accounts.take(use())
    faults.plan("counters.put", StoreUnavailableError())
    with pytest.raises(StoreUnavailableError):
        accounts.take(use())
    accounts.take(use())

    assert SMALL.first_uses + 2 <= stored(counters).uses
