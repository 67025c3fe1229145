"""Waits of event loops for the records of a group: one callback for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from hsm_core._internal.audit.medium import Ticket
from hsm_core._internal.pipeline.durability import DurabilityWaits
from hsm_core.errors import AuditUnavailableError


class CountedTicket(Ticket):
    """A ticket that counts who asks for a callback."""

    callbacks = 0

    def add_done_callback(
        self, callback: Callable[[BaseException | None], None], /
    ) -> None:
        """Count, and ask."""
        self.callbacks += 1
        super().add_done_callback(callback)


def _waiting(
    waits: DurabilityWaits, ticket: Ticket, told: list[AuditUnavailableError | None]
) -> None:
    waits.add(ticket, told.append, lambda: None)


async def _until(told: list[AuditUnavailableError | None], count: int) -> None:
    while len(told) < count:
        await asyncio.sleep(0.001)


def test_a_group_wakes_its_loop_once() -> None:
    """All who append to a group are told by the callback of the first."""
    told: list[AuditUnavailableError | None] = []
    first, second = CountedTicket(60), CountedTicket(60)

    async def wait() -> None:
        waits = DurabilityWaits(60)
        for _ in range(3):
            _waiting(waits, first, told)
        _waiting(waits, second, told)
        first.complete()
        await _until(told, 3)
        assert 3 == len(told)
        second.complete(AuditUnavailableError("The disk is full."))
        await _until(told, 4)

    asyncio.run(asyncio.wait_for(wait(), 60))

    assert (1, 1) == (first.callbacks, second.callbacks)
    assert [None] * 3 == told[:3]
    assert "The disk is full." == str(told[3])


def test_a_late_group_is_refused_and_who_joins_it_has_its_own_time() -> None:
    """Nobody waits longer than the time-out, and a late end changes nothing."""
    told: list[AuditUnavailableError | None] = []
    ticket = Ticket(60)

    async def wait() -> None:
        waits = DurabilityWaits(0.05)
        _waiting(waits, ticket, told)
        await _until(told, 1)
        _waiting(waits, ticket, told)
        await _until(told, 2)

    asyncio.run(asyncio.wait_for(wait(), 60))
    ticket.complete()

    assert all(isinstance(error, AuditUnavailableError) for error in told)


def test_a_loop_that_is_gone_is_left() -> None:
    """The writing thread abandons whoever waited there."""
    ticket, abandoned = Ticket(60), list[str]()

    async def wait() -> None:
        waits = DurabilityWaits(60)
        for name in ("a", "b"):
            waits.add(ticket, lambda _: None, partial(abandoned.append, name))

    asyncio.run(wait())
    ticket.complete()

    assert ["a", "b"] == abandoned
