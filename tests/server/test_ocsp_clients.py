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
from hsm_server.tls.ocsp.request import Fault, Subject, UnusableError
from hsm_server.tls.ocsp.response import VerifiedResponse, check_response
from tests.pki import Issued
from tests.server.ocsp_support import CA, HOUR, URL, FakeClock, settle

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
        self.status = GOOD
        self.fault: Fault | None = None
        self.valid = timedelta(days=1)
        self.age = timedelta(0)
        self.takes = 0.0
        self.asked: list[Subject] = []
        self.at_once = self.most_at_once = 0
        self.results: list[str] = []
        self.check = ClientCheck(
            self, self.clock, is_hard=is_hard, count=self.results.append
        )

    async def ask(self, subject: Subject, seconds: float) -> VerifiedResponse:
        """Answer, as the responder that it stands for."""
        self.asked.append(subject)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.clock.sleep(self.takes)
        finally:
            self.at_once -= 1
        if self.fault:
            raise UnusableError(self.fault)
        der = CA_.answer(
            Issued(subject.certificate, None),
            status=self.status,
            this_update=self.clock.at.replace(microsecond=0) - self.age,
            valid=self.valid,
        )
        return check_response(der, subject, self.clock.at)

    async def judge(self, chain: tuple[Subject, ...]) -> Ruling:
        """Return what is known of a client, letting as much time pass as it takes."""
        task = asyncio.create_task(self.check.judge(chain))
        await self.clock.advance(self.takes)
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
    @pytest.mark.parametrize(
        ("status", "ruling"),
        [(GOOD, Ruling.GOOD), (REVOKED, Ruling.REVOKED)],
        ids=["good", "revoked"],
    )
    async def test_what_is_said(
        self, status: ocsp.OCSPCertStatus, ruling: Ruling
    ) -> None:
        """What the responder says is believed, and counted."""
        place = Place()
        place.status = status

        assert ruling is await place.judge(client())
        assert [str(ruling)] == place.results

    @pytest.mark.parametrize("is_hard", [True, False], ids=["hard", "soft"])
    async def test_nothing_learnt(self, is_hard: bool) -> None:
        """Who is not known is let in or not, by the setting."""
        place = Place(is_hard=is_hard)
        place.fault = Fault.TRY_LATER
        ruling = await place.judge(client())

        assert UNHEARD is ruling
        assert is_hard is not place.check.lets_in(ruling)

    async def test_nobody_to_ask(self) -> None:
        """Of a certificate without a responder nothing is known."""
        place = Place()

        assert UNHEARD is await place.judge(client(()))
        assert not place.asked
        assert () == subjects_of([CA_.certificate]) == subjects_of([])

    def test_revoked_is_never_let_in(self) -> None:
        """Soft or hard."""
        assert not Place(is_hard=False).check.lets_in(Ruling.REVOKED)
        assert Place(is_hard=True).check.lets_in(Ruling.GOOD)

    async def test_responder_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client waits for a limited time."""
        monkeypatch.setattr(client_check, "_CHECK_SECONDS", 0.05)
        place = Place()
        place.takes = 1e9

        assert UNHEARD is await place.check.judge(client())


class TestMemory:
    async def test_asked_once(self) -> None:
        """Many connections at once, and later ones for a while, ask once."""
        place, chain = Place(), client()
        place.takes = 1.0
        tasks = [asyncio.create_task(place.check.judge(chain)) for _ in range(50)]
        await place.clock.advance(1.0)
        await asyncio.gather(*tasks)
        await place.judge(chain)

        assert 1 == len(place.asked)

    async def test_revocation_counts_within_a_minute(self) -> None:
        """A minute after the responder tells of it, a client is refused."""
        place, chain = Place(), client()
        assert Ruling.GOOD is await place.judge(chain)
        place.status = REVOKED
        await place.clock.advance(50)

        assert Ruling.REVOKED is await place.judge(chain)

    async def test_revoked_is_remembered(self) -> None:
        """So is that a certificate is revoked."""
        place, chain = Place(), client()
        place.status = REVOKED
        await place.judge(chain)
        await place.clock.advance(49)
        await place.judge(chain)

        assert 1 == len(place.asked)

    async def test_older_good_answer(self) -> None:
        """A good answer of before the revocation does not undo it."""
        place, chain = Place(), client()
        place.status = REVOKED
        await place.judge(chain)
        place.status, place.age = GOOD, HOUR
        await place.clock.advance(51)
        assert Ruling.REVOKED is await place.judge(chain)
        place.age = timedelta(0)
        await place.clock.advance(51)

        assert Ruling.GOOD is await place.judge(chain)

    async def test_answer_that_expires(self) -> None:
        """An answer counts until its nextUpdate, even if that is soon."""
        place, chain = Place(), client()
        place.valid = timedelta(seconds=10)
        await place.judge(chain)
        place.fault = Fault.UNREACHABLE
        await place.clock.advance(10)

        assert UNHEARD is await place.judge(chain)

    async def test_failure_is_remembered_for_a_moment(self) -> None:
        """A responder that is down is not asked for each connection."""
        place, chain = Place(), client()
        place.fault = Fault.UNREACHABLE
        for _ in range(10):
            await place.judge(chain)
        assert 1 == len(place.asked)
        await place.clock.advance(5)
        place.fault = None

        assert Ruling.GOOD is await place.judge(chain)

    async def test_bounded_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of so many certificates the least used are forgotten."""
        monkeypatch.setattr(client_check, "_MOST_REMEMBERED", 2)
        place, chains = Place(), [client() for _ in range(3)]
        for chain in (*chains[:2], chains[0], chains[2]):
            await place.judge(chain)
        assert 3 == len(place.asked)
        await place.judge(chains[0])
        assert 3 == len(place.asked)
        await place.judge(chains[1])

        assert 4 == len(place.asked)

    async def test_bounded_questions(self) -> None:
        """A responder is asked so many things at a time, and the others wait."""
        place = Place()
        place.takes = 1.0
        chains = [client() for _ in range(40)]
        tasks = [asyncio.create_task(place.check.judge(chain)) for chain in chains]
        await place.clock.advance(4.0)
        rulings = await asyncio.gather(*tasks)

        assert {Ruling.GOOD} == set(rulings)
        assert 16 == place.most_at_once

    async def test_questions_that_come_too_late_are_not_asked(self) -> None:
        """Clients that came while a responder hung don't keep later ones waiting."""
        place = Place()
        place.takes = 6
        waiting = [asyncio.create_task(place.check.judge(client())) for _ in range(50)]
        await settle()
        asked = len(place.asked)
        await place.clock.advance(7)
        place.takes = 0
        late = asyncio.create_task(place.check.judge(client()))
        await place.clock.advance(0)

        assert Ruling.GOOD is await late
        assert (16, 17) == (asked, len(place.asked))
        await asyncio.gather(*waiting)


class TestFollowing:
    async def test_revoked_while_connected(self) -> None:
        """A connection ends within a minute after its certificate is revoked."""
        place, chain = Place(is_hard=False), client()
        await place.judge(chain)
        async with place.following(chain) as ended:
            await place.clock.advance(300)
            assert not ended
            place.status = REVOKED
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

        assert 10 <= len(place.asked) <= 11

    @pytest.mark.parametrize("is_hard", [True, False], ids=["hard", "soft"])
    async def test_responder_that_goes_away(self, is_hard: bool) -> None:
        """What was good counts for 50 seconds; then the setting says what happens."""
        place, chain = Place(is_hard=is_hard), client()
        await place.judge(chain)
        async with place.following(chain) as ended:
            place.fault = Fault.UNREACHABLE
            await place.clock.advance(48)
            assert not ended
            await place.clock.advance(5)
            assert ([UNHEARD] if is_hard else []) == ended

    async def test_short_answers(self) -> None:
        """Answers that are good for a moment are renewed before they expire."""
        place, chain = Place(), client()
        place.valid = timedelta(seconds=8)
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

        assert 1 == len(place.asked)
