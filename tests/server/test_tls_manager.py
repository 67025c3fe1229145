# SPDX-License-Identifier: MIT
"""Who looks after TLS: what is new is used, and what can't be used changes nothing."""

import asyncio
import contextlib
import io
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hsm_server.config.exit_codes import ListenError
from hsm_server.config.settings import LogFormat, LogLevel
from hsm_server.config.tls import ClientSettings, PairFiles, TLSSettings
from hsm_server.observability.logs import make_logger
from hsm_server.observability.metrics import Metrics
from hsm_server.system.background import keep_running
from hsm_server.tls.files import Contents, read_pair_files, read_stable
from hsm_server.tls.manager import Task, TLSManager
from hsm_server.tls.sources import (
    Edit,
    ExpiryWatch,
    FileSource,
    file_sources,
    first_state,
)
from hsm_server.tls.state import ActiveState, Alarms, TLSState
from tests.pki import Issued, Issuer, self_signed_root
from tests.server.ocsp_support import FakeClock
from tests.server.pem_files import pem, serve_by, write_pair
from tests.server.support import until

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


class World:
    """Files, a TLS manager of them, and what it has published."""

    def __init__(self, folder: Path, interval_seconds: float = 0.0) -> None:
        self.folder = folder
        self.issuer = self_signed_root("An authority")
        self.files = PairFiles(cert=folder / "cert.pem", key=folder / "key.pem")
        self.ca, self.crl = folder / "ca.pem", folder / "clients.crl"
        self.put(serve_by(self.issuer))
        self.ca.write_bytes(pem(self.issuer.certificate))
        self.put_list()
        self.settings = TLSSettings(
            pairs=(self.files,),
            client=ClientSettings(ca=self.ca, crls=(self.crl,)),
            reload_interval_seconds=interval_seconds,
        )
        self.metrics = Metrics()
        self.out = io.StringIO()
        self.logger = make_logger(self.out, LogLevel.DEBUG, LogFormat.JSON)
        self.alarms = Alarms(self.logger, self.metrics)
        self.published: list[TLSState] = []
        self.refusal = ""

    def put(self, issued: Issued) -> bytes:
        """Let the files hold a pair; return its certificate, DER."""
        write_pair(self.files.cert, self.files.key, issued)
        return issued.der

    def use_lists(self, *paths: Path) -> None:
        """Look at these revocation lists."""
        client = ClientSettings(ca=self.ca, crls=paths)
        self.settings = msgspec.structs.replace(self.settings, client=client)

    def put_list(self, **changes: Any) -> None:
        """Let the file of the revocation list hold another one."""
        self.crl.write_bytes(self.issuer.revocation_list(**changes))

    async def publish(self, state: TLSState) -> None:
        """Stand in for who serves."""
        if self.refusal:
            raise ListenError(self.refusal)
        self.published.append(state)

    def tls_manager(self, *tasks: Task) -> TLSManager:
        """Return a TLS manager of the files, or of other tasks."""
        chosen = tasks or file_sources(self.settings, self.alarms)
        return TLSManager(first_state(self.settings), chosen, self.publish, self.logger)

    @property
    def shown(self) -> bytes:
        """The certificate that was published last, DER."""
        return self.published[-1].pairs[0].chain[0]

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return what the log has of an event."""
        lines = map(json.loads, self.out.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]

    def alarm(self, part: str) -> float | None:
        """Return what the metric of alarms shows."""
        labels = {"part": part}
        return self.metrics.registry.get_sample_value("ferrohsm_tls_alarm", labels)


@contextlib.asynccontextmanager
async def kept(world: World, *tasks: Task) -> AsyncIterator[TLSManager]:
    """Have a TLS manager run."""
    tls_manager = world.tls_manager(*tasks)
    await tls_manager.begin()
    running = asyncio.create_task(tls_manager.run())
    # Its first look, which finds nothing new, is over when it knows what is there.
    found = tls_manager._tasks  # noqa: SLF001 (to wait for them)
    sources = [task for task in found if isinstance(task, FileSource)]
    await until(lambda: all(source._digest for source in sources))  # noqa: SLF001 (so)
    try:
        yield tls_manager
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give files that are looked at when a reload is asked for."""
    return World(tmp_path)


class TestReload:
    """What happens when somebody asks."""

    async def test_content_counts_and_not_time(self, world: World) -> None:
        """The same once more is no news; a change within the same tick is."""
        async with kept(world) as tls_manager:
            cert = world.files.cert
            before = cert.stat()
            cert.write_bytes(cert.read_bytes())
            await tls_manager.reload()
            untouched = len(world.published)
            new = world.put(serve_by(world.issuer))
            os.utime(cert, ns=(before.st_atime_ns, before.st_mtime_ns))
            await tls_manager.reload()

        assert 1 == untouched
        assert new == world.shown

    async def test_staples_stay_with_their_certificates(self, world: World) -> None:
        """What is new has none yet."""

        class Stapler:
            async def run(self, active: ActiveState, /) -> None:
                def staple(state: TLSState) -> TLSState:
                    (pair,) = state.pairs
                    pair = msgspec.structs.replace(pair, staple=b"staple")
                    return msgspec.structs.replace(state, pairs=(pair,))

                await active.change(staple)
                await asyncio.Event().wait()

            async def reload(self, active: ActiveState, /) -> None:
                """Do nothing."""

        tasks: list[Task] = [*file_sources(world.settings, world.alarms), Stapler()]
        async with kept(world, *tasks) as tls_manager:
            await until(lambda: len(world.published) == 2)
            world.put_list(end=2 * DAY)
            await tls_manager.reload()
            kept_staple = world.published[-1].pairs[0].staple
            world.put(serve_by(world.issuer))
            await tls_manager.reload()

        assert b"staple" == kept_staple
        assert b"" == world.published[-1].pairs[0].staple


def _mismatched(world: World) -> None:
    world.files.key.write_bytes(serve_by(world.issuer).key_pem)


def _expired(world: World) -> None:
    world.put(serve_by(world.issuer, begin=-2 * DAY, end=-DAY))


def _early(world: World) -> None:
    world.put(serve_by(world.issuer, begin=DAY, end=2 * DAY))


def _open(world: World) -> None:
    world.put(serve_by(world.issuer))
    world.files.key.chmod(0o644)


def _half(world: World) -> None:
    new = serve_by(world.issuer)
    world.files.cert.write_bytes(new.chain_pem[:300])


def _gone(world: World) -> None:
    world.files.key.unlink()


class TestWhatCanNotBeUsed:
    """It changes nothing, begins an alarm, and is looked at again."""

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (_mismatched, "does not match the certificate"),
            (_expired, "expired at"),
            (_early, "is not valid before"),
            (_open, "has mode 0644"),
            (_half, "PEM"),
            (_gone, "key.pem (No such file"),
        ],
        ids=["mismatched", "expired", "early", "open", "half", "gone"],
    )
    async def test_the_old_pair_stays(
        self, world: World, spoil: Callable[[World], None], words: str
    ) -> None:
        """The answer, the log and the metric tell; they end with a good pair."""
        async with kept(world) as tls_manager:
            spoil(world)
            answer = await tls_manager.reload()
            await tls_manager.reload()
            during = (len(world.published), world.alarm("certificate"))
            new = world.put(serve_by(world.issuer))
            await tls_manager.reload()

        assert words in answer
        assert (1, 1.0) == during
        (told,) = world.log("tls alarm")
        assert ("certificate", answer) == (told["part"], told["reason"])
        assert new == world.shown
        assert 0.0 == world.alarm("certificate")
        assert 1 == len(world.log("tls alarm over"))

    async def test_parts_are_apart(self, world: World) -> None:
        """An outdated list keeps no new certificate out."""
        async with kept(world) as tls_manager:
            new = world.put(serve_by(world.issuer))
            world.put_list(begin=-2 * DAY, end=-DAY)
            answer = await tls_manager.reload()
            lists = {state.client for state in world.published}

        assert "expired at" in answer
        assert new == world.shown
        assert 1 == len(lists)
        assert (0.0, 1.0) == (world.alarm("certificate"), world.alarm("clients"))

    @pytest.mark.parametrize("which", ["ca", "crl"])
    async def test_a_file_that_others_may_write_says_nothing_of_clients(
        self, world: World, which: str
    ) -> None:
        """Neither new authorities nor a new list come from it; it is told."""
        other = self_signed_root("Another")
        async with kept(world) as tls_manager:
            world.ca.write_bytes(world.ca.read_bytes() + pem(other.certificate))
            world.put_list(end=2 * DAY)
            getattr(world, which).chmod(0o666)
            answer = await tls_manager.reload()
            former, rules = (world.published[n].client for n in (0, -1))

        assert f"{getattr(world, which)} is writable by other users." in answer
        assert former is not None
        assert rules is not None
        assert former.authorities == rules.authorities
        is_same = former.revocation_lists == rules.revocation_lists
        assert is_same == (which == "crl")
        assert 1.0 == world.alarm("clients")

    async def test_what_nobody_can_serve_with_is_tried_again(
        self, world: World
    ) -> None:
        """That a front end refused it says nothing about the next time."""
        async with kept(world) as tls_manager:
            new = world.put(serve_by(world.issuer))
            world.refusal = "No room."
            refused = await tls_manager.reload()
            world.refusal = ""
            accepted = await tls_manager.reload()

        assert ("No room.", "") == (refused, accepted)
        assert new == world.shown

    async def test_what_is_read_holds_nobody_up(self, world: World) -> None:
        """The supervisor ends a TLS manager that does not answer, whatever it reads."""
        threads = []

        def parse(contents: Contents, state: TLSState) -> tuple[Edit, str]:
            threads.append(threading.get_ident())
            return lambda state: state, ""

        source = FileSource("x", lambda: {Path("x"): b"x"}, parse, 0, world.alarms)
        await source.reload(ActiveState(first_state(world.settings), world.publish))

        assert [threading.get_ident()] != threads
        assert 1 == len(threads)

    def test_no_key_is_in_what_is_told(self, world: World) -> None:
        """Neither state nor error shows what the files hold."""
        state = first_state(world.settings)

        assert "<TLSState>" == repr(state)
        assert "<ServerPair>" == repr(state.pairs[0])


def _its_list_stays(world: World) -> str:
    return ""


def _another_list_is_garbage(world: World) -> str:
    world.crl.write_text("garbage")
    return "contains no revocation list in PEM or DER"


def _another_list_is_cut_off(world: World) -> str:
    world.crl.write_text("-----BEGIN X509 CRL-----\nAA")
    return "contains no revocation list in PEM or DER"


def _another_list_is_gone(world: World) -> str:
    world.crl.unlink()
    return "(No such file"


def _another_list_has_ended(world: World) -> str:
    world.put_list(begin=-2 * DAY, end=-DAY)
    return "expired at"


def _a_block_is_garbage(world: World) -> str:
    with world.ca.open("ab") as file:
        file.write(b"-----BEGIN CERTIFICATE-----\nAA\n")
    return "contains a certificate that is not PEM"


class TestWithdrawnTrust:
    """What takes trust away takes effect, whatever else is wrong with the files."""

    @pytest.fixture
    def partner(self, world: World) -> Issuer:
        """Give a second client CA with a list of its own, both in force."""
        partner = self_signed_root("A partner")
        world.ca.write_bytes(pem(world.issuer.certificate, partner.certificate))
        more = world.folder / "partner.crl"
        more.write_bytes(partner.revocation_list())
        world.use_lists(world.crl, more)
        return partner

    @pytest.mark.parametrize(
        "spoil",
        [
            _its_list_stays,
            _another_list_is_garbage,
            _another_list_is_cut_off,
            _another_list_is_gone,
            _another_list_has_ended,
            _a_block_is_garbage,
        ],
    )
    async def test_a_withdrawn_ca_is_dropped(
        self, world: World, partner: Issuer, spoil: Callable[[World], str]
    ) -> None:
        """At once, though its own list is still configured or another one is bad."""
        async with kept(world) as tls_manager:
            world.ca.write_bytes(pem(world.issuer.certificate))
            words = spoil(world)
            answer = await tls_manager.reload()
            rules = world.published[-1].client

        assert words in answer
        assert bool(words) == bool(answer)
        assert rules is not None
        assert (world.issuer.der,) == rules.authorities
        # Lists in force go on counting.
        assert 2 == len(rules.revocation_lists)

    async def test_the_former_file_comes_back(
        self, world: World, partner: Issuer
    ) -> None:
        """A file that lost trust, and is as it was before, gives that trust again."""
        async with kept(world) as tls_manager:
            whole = world.ca.read_bytes()
            world.ca.write_bytes(whole[:250])
            cut = await tls_manager.reload()
            lost = world.published[-1].client
            world.ca.write_bytes(whole)
            answer = await tls_manager.reload()
            rules = world.published[-1].client

        assert cut
        assert lost is not None
        assert () == lost.authorities
        assert "" == answer
        assert rules is not None
        assert {world.issuer.der, partner.der} == set(rules.authorities)
        assert 0.0 == world.alarm("clients")

    async def test_the_last_ca_is_dropped(self, world: World) -> None:
        """A file that names none lets nobody in; one that is gone says nothing."""
        async with kept(world) as tls_manager:
            world.ca.unlink()
            gone = await tls_manager.reload()
            states = len(world.published)
            world.ca.write_bytes(b"")
            empty = await tls_manager.reload()
            rules = world.published[-1].client

        assert "(No such file" in gone
        assert 1 == states
        assert "contains no PEM certificates" in empty
        assert rules is not None
        assert () == rules.authorities

    @pytest.mark.parametrize("is_ca_there", [True, False])
    async def test_a_revoked_certificate_is_refused(
        self, world: World, partner: Issuer, is_ca_there: bool
    ) -> None:
        """By a list beside another that is garbage, or a CA file that is gone."""
        lost = partner.issue("lost").certificate
        listed = partner.revocation_list(lost, begin=-HOUR)
        async with kept(world) as tls_manager:
            (world.folder / "partner.crl").write_bytes(listed)
            if is_ca_there:
                world.crl.write_text("garbage")
            else:
                world.ca.unlink()
            answer = await tls_manager.reload()
            rules = world.published[-1].client

        assert answer
        assert rules is not None
        assert 2 == len(rules.authorities)
        assert listed in rules.revocation_lists
        assert 2 == len(rules.revocation_lists)

    async def test_an_older_list_replaces_none_beside_a_fault(
        self, world: World
    ) -> None:
        """Nor does one of another CA with the same name."""
        twin = self_signed_root("An authority")
        world.ca.write_bytes(pem(world.issuer.certificate, twin.certificate))
        newer = world.issuer.revocation_list(
            world.issuer.issue("lost").certificate, begin=-HOUR
        )
        older = world.issuer.revocation_list()
        lists = [newer, older, twin.revocation_list(), older]
        paths = [world.folder / f"{number}.crl" for number in range(4)]
        for path, data in zip(paths, lists, strict=True):
            path.write_bytes(data)
        world.use_lists(*paths)
        async with kept(world) as tls_manager:
            paths[0].write_bytes(older)
            paths[3].write_text("garbage")
            assert await tls_manager.reload()
            rules = world.published[-1].client

        assert rules is not None
        assert {newer, lists[2]} == set(rules.revocation_lists)

    async def test_a_fault_adds_no_trust(self, world: World) -> None:
        """A CA that is new beside a bad list waits until that is mended."""
        before = world.crl.read_bytes()
        other = self_signed_root("Another")
        async with kept(world) as tls_manager:
            world.ca.write_bytes(pem(world.issuer.certificate, other.certificate))
            world.crl.write_text("garbage")
            await tls_manager.reload()
            states = len(world.published)
            world.crl.write_bytes(before)
            answer = await tls_manager.reload()
            rules = world.published[-1].client

        assert (1, "") == (states, answer)
        assert rules is not None
        assert (world.issuer.der, other.der) == rules.authorities


class TestLooking:
    """What happens when nobody asks."""

    async def test_a_change_is_found(self, tmp_path: Path) -> None:
        """Within the interval, and once."""
        world = World(tmp_path, 0.05)
        async with kept(world):
            new = world.put(serve_by(world.issuer))
            await until(lambda: len(world.published) == 2)
            await asyncio.sleep(0.3)

        assert new == world.shown
        assert 2 == len(world.published)

    async def test_a_good_pair_after_a_bad_one_is_found(self, tmp_path: Path) -> None:
        """Nobody has to ask."""
        world = World(tmp_path, 0.05)
        async with kept(world):
            _mismatched(world)
            await until(lambda: world.alarm("certificate"))
            new = world.put(serve_by(world.issuer))
            await until(lambda: not world.alarm("certificate"))

        assert new == world.shown

    async def test_with_an_interval_of_0_nobody_looks(self, world: World) -> None:
        """The files may be anything."""
        async with kept(world):
            world.put(serve_by(world.issuer))
            await asyncio.sleep(0.3)

        assert 1 == len(world.published)

    async def test_what_changed_before_the_first_look_is_found(
        self, world: World
    ) -> None:
        """A TLS manager that begins with a former state looks at once."""
        tls_manager = world.tls_manager()
        new = world.put(serve_by(world.issuer))
        running = asyncio.create_task(tls_manager.run())
        await until(lambda: world.published)
        running.cancel()

        assert new == world.shown

    def test_a_file_that_is_being_written_is_waited_for(self, world: World) -> None:
        """What is there twice in a row counts."""
        whole = serve_by(world.issuer).chain_pem
        pieces = iter([whole[:100], whole[:400], whole, whole])
        found = read_stable(
            lambda: read_pair_files(world.settings.pairs),
            pause=lambda _: world.files.cert.write_bytes(next(pieces)),
        )

        assert whole == found[world.files.cert]
        assert [] == list(pieces)

    def test_a_file_that_is_gone_for_a_moment_is_waited_for(self, world: World) -> None:
        """Some put another file in its place in two steps."""
        whole = world.files.cert.read_bytes()
        world.files.cert.unlink()
        found = read_stable(
            lambda: read_pair_files(world.settings.pairs),
            pause=lambda _: world.files.cert.write_bytes(whole),
        )

        assert whole == found[world.files.cert]

    def test_files_that_never_settle_are_refused(self, world: World) -> None:
        """Nobody knows which of it was meant."""
        numbers = iter(range(1000))

        with pytest.raises(ListenError, match="changed while they were read"):
            read_stable(
                lambda: read_pair_files(world.settings.pairs),
                pause=lambda _: (
                    world.files.cert.write_text(str(next(numbers))) and None
                ),
            )


class TestKeeper:
    """It goes on, whatever its tasks do."""

    async def test_a_task_that_fails_is_begun_again(self, world: World) -> None:
        """The log says where, and not what."""

        class Failing:
            runs = 0

            async def run(self, active: ActiveState, /) -> None:
                self.runs += 1
                raise RuntimeError("S3CRET")

            async def reload(self, active: ActiveState, /) -> None:
                raise RuntimeError("S3CRET")

        failing = Failing()
        async with kept(
            world, failing, *file_sources(world.settings, world.alarms)
        ) as k:
            world.put(serve_by(world.issuer))
            answer = await k.reload()
            await until(lambda: failing.runs == 2)

        assert "unexpected RuntimeError." == answer
        assert 2 == len(world.published)
        assert 3 == len(world.log("unexpected"))
        assert "S3CRET" not in world.out.getvalue()

    async def test_a_long_run_ends_the_row_of_failures(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What fails once an hour is begun again soon; what fails at once, later."""
        runs = iter([1.0, 59.0, 3600.0, 0.0])
        clock = [0.0]
        pauses: list[float] = []

        async def run() -> None:
            if seconds := next(runs):
                clock[0] += seconds
                raise RuntimeError

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
        monkeypatch.setattr(asyncio, "sleep", sleep)
        await keep_running(run, lambda error: None)

        assert [1.0, 2.0, 1.0] == pauses

    async def test_a_first_state_that_nobody_can_use_is_an_error(
        self, world: World
    ) -> None:
        """There is nothing to go back to."""
        world.refusal = "No room."

        with pytest.raises(ListenError, match="No room"):
            await world.tls_manager().begin()


class TestExpiry:
    """Certificates that are about to expire begin an alarm."""

    @pytest.mark.parametrize(
        ("days", "left", "words"),
        [
            (365, 15 * DAY, ""),
            (365, 13 * DAY, "The ECDSA certificate expires at"),
            (10, 1.5 * DAY, ""),
            (10, 0.5 * DAY, "The ECDSA certificate expires at"),
            (10, -DAY, "The ECDSA certificate expired at"),
        ],
        ids=["year-good", "year-near", "short-good", "short-near", "over"],
    )
    async def test_the_alarm(
        self, world: World, days: int, left: timedelta, words: str
    ) -> None:
        """It says until when."""
        issued = serve_by(world.issuer, begin=timedelta(), end=timedelta(days=days))
        # What has signed it lives for a day, and so is not shown.
        own = Issued(issued.certificate, issued.key)
        world.put(own)
        ends = own.certificate.not_valid_after_utc
        watch = ExpiryWatch(world.alarms, world.logger, FakeClock(ends - left))
        settings = msgspec.structs.replace(world.settings, client=None)
        active = ActiveState(first_state(settings), world.publish)
        await watch.reload(active)
        await watch.reload(active)

        assert bool(words) == bool(world.alarm("expiry"))
        told = [line["reason"] for line in world.log("tls alarm")]
        assert bool(words) == len(told)
        assert [] == [reason for reason in told if not reason.startswith(words)]

    async def test_client_cas(self, world: World) -> None:
        """Nobody is told by his alert that it is the CA that has expired."""
        state = first_state(world.settings)
        ends = world.issuer.certificate.not_valid_after_utc
        clock = FakeClock(ends - timedelta(seconds=1))
        watch = ExpiryWatch(world.alarms, world.logger, clock)
        # The server's own, of the same age, is left out of this.
        active = ActiveState(msgspec.structs.replace(state, pairs=()), world.publish)
        await watch.reload(active)
        assert not world.alarm("expiry")
        clock.at = ends
        await watch.reload(active)

        assert 1.0 == world.alarm("expiry")
        assert "All client CAs have expired" in world.log("tls alarm")[0]["reason"]
