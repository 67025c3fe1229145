# SPDX-License-Identifier: MIT
"""Which clients are let in by what OCSP says, and how soon a revocation counts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import pytest
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from hsm_server.tls.ocsp import client_check
from hsm_server.tls.ocsp.client_check import ClientCheck, Ruling, subjects_of
from hsm_server.tls.ocsp.request import Fault, Subject
from tests.server.ocsp_support import CA, HOUR, URL, FakeClock, Responder, settle

CA_: Final = CA()
GOOD: Final = ocsp.OCSPCertStatus.GOOD
REVOKED: Final = ocsp.OCSPCertStatus.REVOKED
UNHEARD: Final = Ruling.UNKNOWN


def client(urls: tuple[str, ...] = (URL,)) -> tuple[Subject, ...]:
    """Issue a client's certificate, and return what is asked after."""
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    holder = CA_.issue("client", urls=urls, usage=usage)
    return subjects_of([holder.certificate, CA_.certificate])


class Place:
    """A check whose time and responder a test has in hand."""

    def __init__(self, *, is_hard: bool = True) -> None:
        self.clock = FakeClock()
        self.responder = Responder(CA_, self.clock)
        self.results: list[str] = []
        self.check = ClientCheck(
            self.responder, self.clock, is_hard=is_hard, count=self.results.append
        )

    async def judge(self, chain: tuple[Subject, ...]) -> Ruling:
        """Return what is known of a client, letting as much time pass as it takes."""
        task = asyncio.create_task(self.check.judge(chain))
        await self.clock.advance(self.responder.takes)
        return await task

    @contextlib.asynccontextmanager
    async def following(self, chain: tuple[Subject, ...]) -> AsyncIterator[list[str]]:
        """Give why the connection of a client was ended, while it is followed."""
        ended: list[str] = []
        running = asyncio.create_task(self.check.run())
        release = self.check.follow(chain, ended.append)
        try:
            yield ended
        finally:
            release()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


class TestRulings:
    async def test_nobody_to_ask(self) -> None:
        """Of a certificate without a responder nothing is known."""
        place = Place()

        assert UNHEARD is await place.judge(client(()))
        assert not place.responder.asked
        assert () == subjects_of([CA_.certificate]) == subjects_of([])

    def test_revoked_is_never_let_in(self) -> None:
        """Soft or hard."""
        assert not Place(is_hard=False).check.lets_in(Ruling.REVOKED)
        assert Place(is_hard=True).check.lets_in(Ruling.GOOD)

    async def test_responder_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client waits for a limited time, whatever the responder's clock says."""
        monkeypatch.setattr(client_check, "_CHECK_SECONDS", 0.05)
        place = Place()
        place.responder.takes = 1e9

        assert UNHEARD is await place.check.judge(client())


class TestMemory:
    async def test_asked_once(self) -> None:
        """Many connections at once, and later ones for a while, ask once."""
        place, chain = Place(), client()
        place.responder.takes = 1.0
        tasks = [asyncio.create_task(place.check.judge(chain)) for _ in range(50)]
        await place.clock.advance(1.0)
        await asyncio.gather(*tasks)
        await place.judge(chain)

        assert 1 == len(place.responder.asked)

    async def test_revocation_counts_within_a_minute(self) -> None:
        """A minute after the responder tells of it, a client is refused."""
        place, chain = Place(), client()
        assert Ruling.GOOD is await place.judge(chain)
        place.responder.status = REVOKED
        await place.clock.advance(50)

        assert Ruling.REVOKED is await place.judge(chain)
        assert ["good", "revoked"] == place.results

    async def test_revoked_is_remembered(self) -> None:
        """So is that a certificate is revoked."""
        place, chain = Place(), client()
        place.responder.status = REVOKED
        await place.judge(chain)
        await place.clock.advance(49)
        await place.judge(chain)

        assert 1 == len(place.responder.asked)

    async def test_older_good_answer(self) -> None:
        """A good answer of before the revocation does not undo it."""
        place, chain = Place(), client()
        place.responder.status = REVOKED
        await place.judge(chain)
        place.responder.status, place.responder.age = GOOD, HOUR
        await place.clock.advance(51)
        assert Ruling.REVOKED is await place.judge(chain)
        place.responder.age = timedelta(0)
        await place.clock.advance(51)

        assert Ruling.GOOD is await place.judge(chain)

    async def test_answer_that_expires(self) -> None:
        """An answer counts until its nextUpdate, even if that is soon."""
        place, chain = Place(), client()
        place.responder.valid = timedelta(seconds=10)
        await place.judge(chain)
        place.responder.fault = Fault.UNREACHABLE
        await place.clock.advance(10)

        assert UNHEARD is await place.judge(chain)

    async def test_failure_is_remembered_for_a_moment(self) -> None:
        """A responder that is down is not asked for each connection."""
        place, chain = Place(), client()
        place.responder.fault = Fault.UNREACHABLE
        for _ in range(10):
            await place.judge(chain)
        assert 1 == len(place.responder.asked)
        await place.clock.advance(5)
        place.responder.fault = None

        assert Ruling.GOOD is await place.judge(chain)

    async def test_bounded_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of so many certificates the least used are forgotten."""
        monkeypatch.setattr(client_check, "_MOST_REMEMBERED", 2)
        place, chains = Place(), [client() for _ in range(3)]
        for chain in (*chains[:2], chains[0], chains[2]):
            await place.judge(chain)
        assert 3 == len(place.responder.asked)
        await place.judge(chains[0])
        assert 3 == len(place.responder.asked)
        await place.judge(chains[1])

        assert 4 == len(place.responder.asked)

    async def test_bounded_questions(self) -> None:
        """A responder is asked so many things at a time, and the others wait."""
        place = Place()
        place.responder.takes = 1.0
        chains = [client() for _ in range(40)]
        tasks = [asyncio.create_task(place.check.judge(chain)) for chain in chains]
        await place.clock.advance(4.0)
        rulings = await asyncio.gather(*tasks)

        assert {Ruling.GOOD} == set(rulings)
        assert 16 == place.responder.most_at_once

    async def test_questions_that_come_too_late_are_not_asked(self) -> None:
        """Clients that came while a responder hung don't keep later ones waiting."""
        place = Place()
        place.responder.takes = 6
        waiting = [asyncio.create_task(place.check.judge(client())) for _ in range(50)]
        await settle()
        asked = len(place.responder.asked)
        await place.clock.advance(7)
        place.responder.takes = 0
        late = asyncio.create_task(place.check.judge(client()))
        await place.clock.advance(0)

        assert Ruling.GOOD is await late
        assert (16, 17) == (asked, len(place.responder.asked))
        await asyncio.gather(*waiting)


class TestFollowing:
    async def test_revoked_while_connected(self) -> None:
        """A connection ends within a minute after its certificate is revoked."""
        place, chain = Place(is_hard=False), client()
        await place.judge(chain)
        async with place.following(chain) as ended:
            await place.clock.advance(300)
            assert not ended
            place.responder.status = REVOKED
            await place.clock.advance(25)
            assert [Ruling.REVOKED] == ended
            await place.clock.advance(100)
        assert [Ruling.REVOKED] == ended

    async def test_asked_again_at_times(self) -> None:
        """One that stays is asked after each 20 seconds."""
        place, chain = Place(), client()
        await place.judge(chain)
        async with place.following(chain), place.following(chain):
            await place.clock.advance(205)

        assert 10 <= len(place.responder.asked) <= 11

    @pytest.mark.parametrize("is_hard", [True, False], ids=["hard", "soft"])
    async def test_responder_that_goes_away(self, is_hard: bool) -> None:
        """What was good counts for 50 seconds; then the setting says what happens."""
        place, chain = Place(is_hard=is_hard), client()
        await place.judge(chain)
        async with place.following(chain) as ended:
            place.responder.fault = Fault.UNREACHABLE
            await place.clock.advance(48)
            assert not ended
            await place.clock.advance(5)
            assert ([UNHEARD] if is_hard else []) == ended

    async def test_short_answers(self) -> None:
        """Answers that are good for a moment are renewed before they expire."""
        place, chain = Place(), client()
        place.responder.valid = timedelta(seconds=8)
        await place.judge(chain)
        async with place.following(chain) as ended:
            await place.clock.advance(100)
        assert not ended

    async def test_connection_that_has_ended(self) -> None:
        """Nobody asks after who has gone."""
        place, chain = Place(), client()
        await place.judge(chain)
        async with place.following(chain):
            pass
        await place.clock.advance(100)
        await settle()

        assert 1 == len(place.responder.asked)
