# SPDX-License-Identifier: MIT
"""What processes of the server have in common: their loop, and their collector."""

import gc
import weakref
from asyncio.sslproto import SSLProtocol
from collections.abc import Iterator

import pytest

from hsm_server.config.settings import EventLoop
from hsm_server.system.sockets import pass_over_what_stays, run


class Knot:
    """Something that only the collector can free."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_thawed")
def test_what_stays_is_passed_over() -> None:
    """Modules are looked at no more; what comes after is still collected."""
    pass_over_what_stays()
    tracked = len(gc.get_objects())
    knot = Knot()
    gone = weakref.ref(knot)
    del knot
    gc.collect()

    assert gc.get_freeze_count() > 10_000
    assert tracked < 1_000
    assert gone() is None


def test_a_tls_connection_has_room_for_two_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not for 256 KiB: strangers have as many as they have connections."""
    monkeypatch.setattr(SSLProtocol, "max_size", SSLProtocol.max_size)

    async def room() -> int:
        return SSLProtocol.max_size

    assert 32 * 1024 == run(room(), EventLoop.ASYNCIO)
