# SPDX-License-Identifier: MIT
"""When staples are fetched, kept and dropped; and what is told of it."""

import asyncio
import base64
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from cryptography.x509 import ocsp

from hsm_server.config.exit_codes import ListenError
from hsm_server.config.settings import LogFormat, LogLevel
from hsm_server.observability.logs import make_logger
from hsm_server.observability.metrics import Metrics
from hsm_server.tls.ocsp.request import Fault
from hsm_server.tls.ocsp.stapler import Stapler
from hsm_server.tls.ocsp.staples import Retries
from hsm_server.tls.state import ActiveState, Alarms, ServerPair, TLSState
from tests.server.ocsp_support import CA, HOUR, FakeClock, Responder, settle

CA_: Final = CA()
REVOKED: Final = ocsp.OCSPCertStatus.REVOKED
ECDSA: Final = "ECDSA"
DAY: Final = timedelta(days=1)
LONGEST: Final = 4 * HOUR


class Place:
    """A state with a stapler at work, whose time a test moves on."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        logger = make_logger(StringIO(), LogLevel.DEBUG, LogFormat.JSON)
        self._logger = logger
        self._alarms = Alarms(logger, self.metrics)
        self.responder = Responder(CA_, self.clock)
        self.published: list[TLSState] = []
        self.refuses = False

    def begin(
        self,
        *pairs: ServerPair,
        longest: timedelta = LONGEST,
        files: tuple[Path, ...] = (),
    ) -> None:
        """Put certificates in the active state, and make the stapler."""
        self.active = ActiveState(TLSState(generation=1, pairs=pairs), self._publish)
        self.stapler = Stapler(
            longest,
            files,
            self._alarms,
            self.metrics,
            self._logger,
            self.clock,
            lambda clock: self.responder,
        )

    @contextlib.asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Let the stapler run."""
        task = asyncio.create_task(self.stapler.run(self.active))
        await settle()
        try:
            yield
        finally:
            assert not task.done(), task
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def alarms(self) -> dict[str, str]:
        """What is wrong."""
        return self._alarms.reasons

    def value(self, metric: str, **labels: str) -> float | None:
        """Return what a metric shows."""
        registry = self.metrics.registry
        return registry.get_sample_value(f"ferrohsm_ocsp_{metric}", labels)

    @property
    def staple(self) -> bytes:
        """What the first certificate is shown with."""
        return self.active.state.pairs[0].staple

    async def use(self, *pairs: ServerPair) -> None:
        """Put other certificates in the active state."""
        await self.active.change(lambda state: with_pairs(state, pairs))
        await settle()

    async def _publish(self, state: TLSState) -> None:
        if self.refuses:
            raise ListenError("Not this one.")
        self.published.append(state)


def with_pairs(state: TLSState, pairs: tuple[ServerPair, ...]) -> TLSState:
    """Return a state with other certificates."""
    return msgspec.structs.replace(state, pairs=pairs)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    """Give a place with nothing in it, where threads take no time."""

    async def call(function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    monkeypatch.setattr(asyncio, "to_thread", call)
    return Place()


class TestTimes:
    async def test_staple_is_put_up(self, place: Place) -> None:
        """A certificate that names a responder gets its staple at once."""
        place.begin(CA_.pair(CA_.issue()))
        async with place.work():
            assert place.staple
            assert not place.alarms
            assert 1 == place.value("questions_total", about="server", result="good")
            end = place.clock.at + DAY
            assert end.timestamp() == place.value("staple_expires_seconds", kind=ECDSA)

    @pytest.mark.parametrize(
        ("valid", "longest", "seconds"),
        [(HOUR, LONGEST, 1800), (7 * DAY, LONGEST, 4 * 3600), (DAY, HOUR, 3600)],
        ids=["half-of-an-hour", "four-hours", "one-hour"],
    )
    async def test_refresh(
        self, place: Place, valid: timedelta, longest: timedelta, seconds: float
    ) -> None:
        """It is fetched again at half of its time, or as often as is asked for."""
        place.responder.valid = valid
        place.begin(CA_.pair(CA_.issue()), longest=longest)
        async with place.work():
            first = place.staple
            await place.clock.advance(seconds * 0.79)
            assert 1 == len(place.responder.asked)
            await place.clock.advance(seconds * 0.22)
            assert 2 == len(place.responder.asked)
            assert place.staple not in (b"", first)

    async def test_last_good_one_is_kept_until_it_expires(self, place: Place) -> None:
        """Failures change nothing but how often is asked; at its end it is dropped."""
        place.responder.valid = HOUR
        place.begin(CA_.pair(CA_.issue()))
        async with place.work():
            good = place.staple
            place.responder.fault = Fault.TRY_LATER
            await place.clock.advance(3599)
            assert good == place.staple
            assert not place.alarms
            await place.clock.advance(1.01)
            assert b"" == place.staple
            assert "try_later" in place.alarms["staple"]
            place.responder.fault = None
            await place.clock.advance(3600.01)
            assert place.staple
            assert not place.alarms

    async def test_dropped_while_a_question_is_under_way(self, place: Place) -> None:
        """A responder that hangs keeps no staple alive."""
        place.responder.valid = HOUR
        place.begin(CA_.pair(CA_.issue()))
        async with place.work():
            place.responder.hangs = True
            await place.clock.advance(3600.01)
            assert b"" == place.staple

    async def test_backoff(self, place: Place) -> None:
        """After a failure it is asked after half a minute, and ever more seldom."""
        place.responder.fault = Fault.UNREACHABLE
        place.begin(CA_.pair(CA_.issue()))
        async with place.work():
            await place.clock.advance(24 * 3600)
        asked = place.responder.asked
        gaps = [after - before for before, after in itertools.pairwise(asked)]

        assert 24 <= gaps[0] <= 36
        assert 48 <= gaps[1] <= 72
        assert all(0.79 * 3600 <= gap <= 1.21 * 3600 for gap in gaps[8:]), gaps

    def test_jitter(self) -> None:
        """No two servers of a hundred wait equally long."""
        waits = {Retries().after_failure(LONGEST) for _ in range(100)}

        assert 100 == len(waits)

    async def test_never_asked(self, place: Place) -> None:
        """Where the interval is 0, nobody is asked, and nothing is missing."""
        place.begin(CA_.pair(CA_.issue()), longest=timedelta(0))
        async with place.work():
            await place.clock.advance(3600.01)
        assert not place.responder.asked
        assert not place.alarms

    async def test_wall_clock_that_is_set_forward(self, place: Place) -> None:
        """A staple that has expired by the wall clock is dropped within a minute."""
        place.begin(CA_.pair(CA_.issue()))
        async with place.work():
            place.responder.fault = Fault.UNREACHABLE
            place.clock.at += 2 * DAY
            await place.clock.advance(60)
            assert b"" == place.staple


class TestChanges:
    async def test_new_certificate(self, place: Place) -> None:
        """It has no staple until its own is there."""
        old, new = CA_.pair(CA_.issue()), CA_.pair(CA_.issue())
        place.begin(old)
        async with place.work():
            await place.use(new)
            first, last = place.published[-2:]
            assert (b"", True) == (first.pairs[0].staple, bool(last.pairs[0].staple))
            assert first.pairs[0].chain == last.pairs[0].chain == new.chain

    async def test_same_certificate_again(self, place: Place) -> None:
        """Who puts a certificate up once more needs not know its staple."""
        pair = CA_.pair(CA_.issue())
        place.begin(pair)
        async with place.work():
            staple = place.staple
            await place.use(pair)
            assert staple == place.staple
            assert 1 == len(place.responder.asked)

    async def test_two_certificates(self, place: Place) -> None:
        """Each has its own staple; one without responder has none and needs none."""
        place.begin(
            CA_.pair(CA_.issue()), CA_.pair(CA_.issue(urls=())), CA_.pair(CA_.issue())
        )
        async with place.work():
            one, none, other = (pair.staple for pair in place.active.state.pairs)
            assert b"" == none
            assert one not in (other, b"")
            assert not place.alarms

    async def test_issuer_not_known(self, place: Place) -> None:
        """Without its issuer no response can be checked, and that is told."""
        pair = CA_.pair(CA_.issue())
        pair = msgspec.structs.replace(pair, chain=pair.chain[:1], issuer=b"")
        place.begin(pair)
        async with place.work():
            assert "issuer certificate is unknown" in place.alarms["staple"]
            assert not place.responder.asked

    async def test_who_serves_refuses(self, place: Place) -> None:
        """A staple that is not taken is offered again."""
        place.begin(CA_.pair(CA_.issue()))
        place.refuses = True
        async with place.work():
            assert b"" == place.staple
            place.refuses = False
            await place.clock.advance(60)
            assert place.staple

    async def test_reload(self, place: Place) -> None:
        """A reload asks at once."""
        place.begin(CA_.pair(CA_.issue()))
        async with place.work():
            await place.stapler.reload(place.active)
            await settle()
            assert 2 == len(place.responder.asked)

    async def test_stapler_that_begins_again(self, place: Place) -> None:
        """What is shown already is kept while it is good, and asked after at once."""
        server = CA_.issue()
        staple = CA_.answer(server)
        place.responder.fault = Fault.UNREACHABLE
        place.begin(msgspec.structs.replace(CA_.pair(server), staple=staple))
        async with place.work():
            assert staple == place.staple
            assert 1 == len(place.responder.asked)
            assert not place.alarms
            await place.clock.advance(3600.01)
            assert b"" == place.staple

    @pytest.mark.parametrize(
        "staple", [b"x", CA_.answer(CA_.issue())], ids=["garbage", "another's"]
    )
    async def test_staple_that_is_none(self, place: Place, staple: bytes) -> None:
        """What is shown already and should not be is taken away."""
        place.responder.fault = Fault.UNREACHABLE
        place.begin(msgspec.structs.replace(CA_.pair(CA_.issue()), staple=staple))
        async with place.work():
            assert b"" == place.staple


class TestStatus:
    async def test_revoked(self, place: Place) -> None:
        """A revoked certificate alarms at once, and is not shown as good any more."""
        place.responder.valid = HOUR
        place.begin(CA_.pair(CA_.issue()))
        async with place.work():
            assert place.staple
            place.responder.status = REVOKED
            await place.clock.advance(1800)
            assert b"" == place.staple
            assert 0.0 == place.value("staple_expires_seconds", kind=ECDSA)
            assert "is revoked" in place.alarms["revocation"]
            assert "staple" not in place.alarms

    async def test_kept_answer_after_a_revocation(self, place: Place) -> None:
        """A good answer of before does not undo a revocation; one of after does."""
        place.begin(CA_.pair(CA_.issue()))
        place.responder.status = REVOKED
        async with place.work():
            place.responder.status = ocsp.OCSPCertStatus.GOOD
            place.responder.age = timedelta(minutes=30)
            await place.clock.advance(1000)
            assert 3 <= len(place.responder.asked)
            assert b"" == place.staple
            assert "revocation" in place.alarms
            place.responder.age = timedelta(0)
            await place.clock.advance(1000)
            assert place.staple
            assert not place.alarms

    async def test_older_good_answer(self, place: Place) -> None:
        """Nor does an older one take the place of a newer."""
        place.begin(CA_.pair(CA_.issue()), longest=HOUR)
        async with place.work():
            good = place.staple
            place.responder.age = timedelta(hours=3)
            await place.clock.advance(3700)
            assert 2 == len(place.responder.asked)
            assert good == place.staple

    async def test_must_staple(self, place: Place) -> None:
        """A certificate that requires an OCSP staple and gets none alarms."""
        place.begin(CA_.pair(CA_.issue(must_staple=True, urls=())))
        async with place.work():
            assert "requires an OCSP staple" in place.alarms["staple"]


def as_pem(der: bytes) -> bytes:
    """Return a response as some tools write it."""
    text = base64.encodebytes(der)
    return b"-----BEGIN OCSP RESPONSE-----\n" + text + b"-----END OCSP RESPONSE-----\n"


class TestFiles:
    @pytest.mark.parametrize("form", [bytes, as_pem], ids=["der", "pem"])
    async def test_file(
        self, place: Place, tmp_path: Path, form: Callable[[bytes], bytes]
    ) -> None:
        """What lies in a file is shown, and nobody is asked while it is good."""
        server, path = CA_.issue(), tmp_path / "staple"
        der = CA_.answer(server)
        path.write_bytes(form(der))
        place.begin(CA_.pair(server), files=(path,))
        async with place.work():
            assert der == place.staple
            await place.clock.advance(1800)
            assert not place.responder.asked
            await place.clock.advance(1800)
            assert place.responder.asked
            assert place.staple not in (b"", der)

    async def test_file_that_changes(self, place: Place, tmp_path: Path) -> None:
        """Another response is shown within a minute, whatever the file's times say."""
        server, path = CA_.issue(urls=()), tmp_path / "staple"
        path.write_bytes(CA_.answer(server))
        place.begin(CA_.pair(server), files=(path,))
        async with place.work():
            other = CA_.answer(server, this_update=place.clock.at)
            path.write_bytes(other)
            await place.clock.advance(60)
            assert other == place.staple

    async def test_file_that_goes_bad(self, place: Place, tmp_path: Path) -> None:
        """A file of no use alarms, and what was in it before is kept to its end."""
        server, path = CA_.issue(urls=()), tmp_path / "staple"
        good = CA_.answer(server)
        path.write_bytes(good)
        place.begin(CA_.pair(server), files=(path,))
        async with place.work():
            path.write_bytes(good[:100])
            await place.clock.advance(60)
            assert good == place.staple
            assert "garbage" in place.alarms["staple_file"]
            with pytest.raises(ListenError, match="not usable"):
                await place.stapler.reload(place.active)
            path.unlink()
            await place.clock.advance(60)
            assert "unreadable" in place.alarms["staple_file"]
            await place.clock.advance(3600.01)
            assert b"" == place.staple
            assert "expired" in place.alarms["staple"]

    @pytest.mark.parametrize(
        ("put", "words"),
        [
            # Nobody may ever write into a pipe.
            (os.mkfifo, "unreadable"),
            (lambda path: path.write_bytes(bytes(200_000)), "too_large"),
            (
                lambda path: path.write_bytes(CA_.answer(CA_.issue())),
                "other_certificate",
            ),
        ],
        ids=["pipe", "huge", "about another"],
    )
    async def test_file_of_no_use(
        self, place: Place, tmp_path: Path, put: Callable[[Path], object], words: str
    ) -> None:
        """It is not waited for, read or shown; a responder is asked in its place."""
        path = tmp_path / "staple"
        put(path)
        place.begin(CA_.pair(CA_.issue()), files=(path,))
        async with place.work():
            assert words in place.alarms["staple_file"]
            assert 1 == len(place.responder.asked)
            assert place.staple

    async def test_revoked_by_file(self, place: Place, tmp_path: Path) -> None:
        """A file that says that the certificate is revoked is believed, too."""
        server, path = CA_.issue(), tmp_path / "staple"
        path.write_bytes(CA_.answer(server, status=REVOKED))
        place.begin(CA_.pair(server), files=(path,))
        async with place.work():
            assert b"" == place.staple
            assert "revocation" in place.alarms
