# SPDX-License-Identifier: MIT
"""What a CA may answer, and what is made of it; when it is asked again."""

import asyncio
import contextlib
import errno
import io
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hsm_core.errors import UnsafeFileModeError
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.settings import LogFormat, LogLevel
from hsm_server.config.tls import ACMESettings
from hsm_server.observability.logs import make_logger
from hsm_server.observability.metrics import Metrics
from hsm_server.tls.acme import authority as network
from hsm_server.tls.acme import cache as folder_of_ca
from hsm_server.tls.acme import ordering
from hsm_server.tls.acme.authority import Authority, Failure, FailureKind, instant_after
from hsm_server.tls.acme.cache import (
    Account,
    Cache,
    Stored,
    first_pair,
    new_key,
    placeholder,
)
from hsm_server.tls.acme.challenges import HTTPAnswers, tls_challenge
from hsm_server.tls.acme.task import ACMETask
from hsm_server.tls.contexts import try_state
from hsm_server.tls.files import open_regular
from hsm_server.tls.state import ActiveState, Alarms, TLSState
from tests.pki import SERVER, Issued, self_signed_root
from tests.server.acme_hostile import HostileCA, Reply
from tests.server.support import until

NAMES = ("localhost", "127.0.0.1")
DAY = timedelta(days=1)


class World:
    """A task, and what it has published and told."""

    def __init__(self, folder: Path, ca: HostileCA) -> None:
        self.settings = ACMESettings(
            names=NAMES,
            cache=folder / "acme",
            directory_url=ca.directory,
            authorities=ca.bundle,
        )
        self.cache = Cache(self.settings.cache, ca.directory)
        self.metrics = Metrics()
        self.out = io.StringIO()
        self.logger = make_logger(self.out, LogLevel.DEBUG, LogFormat.JSON)
        self.alarms = Alarms(self.logger, self.metrics)
        self.published: list[TLSState] = []
        self.refusal = ""
        pair = first_pair(self.settings, datetime.now(UTC))
        self.active = ActiveState(TLSState(generation=0, pairs=(pair,)), self.publish)
        self.task = ACMETask(self.settings, self.alarms, self.metrics, self.logger)

    async def publish(self, state: TLSState) -> None:
        """Stand in for who serves."""
        if self.refusal:
            raise ListenError(self.refusal)
        try_state(state)
        self.published.append(state)

    @property
    def next_order(self) -> float:
        """When the next order is due, by the metric; 0 if it says nothing."""
        values = (
            sample.value
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "ferrohsm_acme_next_order_seconds"
        )
        return next(values, 0.0)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have the task run."""
        running = asyncio.create_task(self.task.run(self.active))
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def alarmed(self) -> str:
        """Wait for an alarm; return its reason."""
        await until(lambda: "acme" in self.alarms.reasons)
        return self.alarms.reasons["acme"]


def stored(life: timedelta = 90 * DAY, age: timedelta = DAY) -> Stored:
    """Return a certificate that a CA has issued some time ago."""
    issued: Issued = self_signed_root("Issuer").issue(
        "server", use=SERVER, begin=-age, end=life - age
    )
    return Stored(issued.key, (issued.certificate, *issued.above))


def enter(ca: HostileCA) -> None:
    """Open an account."""
    authority = Authority(ca.directory, ca.bundle, new_key())
    with contextlib.closing(authority):
        authority.enter(None, ())


def refuse_limited(reply: Reply) -> None:
    """Say that there were too many."""
    reply.refuse(429, "rateLimited", "Too many.", Retry_After="7200")


def flood(reply: Reply) -> None:
    """Send more than anybody wants to read."""
    reply.send(200, b"{" + b" " * (2 * 1024 * 1024))


def redirect(reply: Reply) -> None:
    """Send somebody to where nobody listens to eavesdroppers."""
    reply.send(302, b"", Location="http://localhost/dir")


ANSWERS: dict[str, tuple[str, Callable[[Reply], None], FailureKind, str]] = {
    "limited": ("/newAccount", refuse_limited, FailureKind.RATE_LIMITED, "Too many"),
    "refused": (
        "/newAccount",
        lambda reply: reply.refuse(403, "unauthorized", "Not\nyou\x1b[31m."),
        FailureKind.REFUSED,
        "unauthorized: Not you [31m.",
    ),
    "never a nonce": (
        "/newAccount",
        lambda reply: reply.refuse(400, "badNonce"),
        FailureKind.REFUSED,
        "badNonce",
    ),
    "no JSON": (
        "/dir",
        lambda reply: reply.send(200, b"<html>"),
        FailureKind.MALFORMED,
        "unexpected response",
    ),
    "an account without a name": (
        "/newAccount",
        lambda reply: reply.send(201, ["valid"]),
        FailureKind.MALFORMED,
        "returned no account URL",
    ),
    "a directory without anything": (
        "/dir",
        lambda reply: reply.send(200, {}),
        FailureKind.MALFORMED,
        "malformed",
    ),
    "too long": ("/dir", flood, FailureKind.UNREACHABLE, "Cannot connect"),
    "to http": ("/dir", redirect, FailureKind.MALFORMED, "not https"),
    "broken": (
        "/dir",
        lambda reply: reply.connection.shutdown(socket.SHUT_RDWR),
        FailureKind.UNREACHABLE,
        "Cannot connect",
    ),
    "internal": (
        "/newAccount",
        lambda reply: reply.send(500, b"oops", content="text/plain"),
        FailureKind.MALFORMED,
        "unexpected response",
    ),
}


class TestAnswers:
    """What a CA may answer."""

    @pytest.mark.parametrize("name", ANSWERS)
    def test_each_answer_is_a_failure(self, ca: HostileCA, name: str) -> None:
        """It has a kind, and says in one line what is wrong."""
        path, answer, kind, text = ANSWERS[name]
        ca.answers[path] = answer

        with pytest.raises(Failure) as caught:
            enter(ca)

        assert kind == caught.value.kind
        assert text in caught.value.reason
        assert caught.value.reason.isprintable()

    def test_who_is_not_trusted_is_not_asked(
        self, ca: HostileCA, tmp_path: Path
    ) -> None:
        """The CA's own certificate is checked, and the message names the flag."""
        other = tmp_path / "other.pem"
        root = self_signed_root("Somebody else").certificate
        other.write_bytes(root.public_bytes(serialization.Encoding.PEM))

        with pytest.raises(Failure, match="--acme-ca-bundle") as caught:
            Authority(ca.directory, other, new_key())

        assert FailureKind.UNREACHABLE == caught.value.kind
        assert [] == ca.seen

    def test_an_endless_answer_ends(
        self, ca: HostileCA, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However slowly it comes."""
        monkeypatch.setattr(network, "_ANSWER_SECONDS", 0.3)

        def drip(reply: Reply) -> None:
            reply.send_response(200)
            reply.send_header("Content-Length", "100000")
            reply.end_headers()
            for _ in range(2400):
                reply.wfile.write(b" ")
                time.sleep(0.05)

        ca.answers["/dir"] = drip
        began = time.monotonic()
        with pytest.raises(Failure, match=r"in time|reached"):
            Authority(ca.directory, ca.bundle, new_key())

        assert 60 > time.monotonic() - began

    def test_a_nonce_is_fetched_anew_until_it_is_taken(self, ca: HostileCA) -> None:
        """A CA may refuse several in a row."""
        refusals = iter(range(5))

        def answer(reply: Reply) -> None:
            if next(refusals, None) is None:
                ca.usual(reply)
            else:
                reply.refuse(400, "badNonce")

        ca.answers["/newAccount"] = answer

        enter(ca)

        assert 6 == ca.seen.count("POST /newAccount")

    def test_an_account_that_the_key_has_already_is_used(self, ca: HostileCA) -> None:
        """A CA says so with status 200 (RFC 8555, section 7.3.1)."""
        uri = f"{ca.url}/account/7"
        ca.answers["/newAccount"] = lambda reply: reply.send(
            200, {"status": "valid"}, Location=uri
        )

        with contextlib.closing(
            Authority(ca.directory, ca.bundle, new_key())
        ) as authority:
            account = authority.enter(None, ())

        assert uri == account.uri

    def test_an_account_of_another_key_is_not(self, ca: HostileCA) -> None:
        """What is known of it went with its key."""
        known = Account(uri=f"{ca.url}/account/9", contacts=(), key_digest="0" * 64)

        with contextlib.closing(
            Authority(ca.directory, ca.bundle, new_key())
        ) as authority:
            account = authority.enter(known, ())

        assert f"{ca.url}/account/1" == account.uri


class TestTask:
    """When a CA is asked."""

    async def test_retry_after_is_heeded_also_after_a_restart(
        self, tmp_path: Path, ca: HostileCA
    ) -> None:
        """Not even a reload makes it sooner."""
        ca.answers["/newOrder"] = refuse_limited
        world = World(tmp_path, ca)
        async with world.running():
            reason = await world.alarmed()
            await world.task.reload(world.active)
            await asyncio.sleep(0.3)
            wait = world.next_order - time.time()
        asked = ca.seen.count("POST /newOrder")
        again = World(tmp_path, ca)
        async with again.running():
            await until(lambda: again.next_order)
            await asyncio.sleep(0.3)

        assert "rateLimited" in reason
        assert 7000 < wait < 7201
        assert 1 == asked == ca.seen.count("POST /newOrder")
        assert 7000 < again.next_order - time.time() < 7201
        assert [] == again.published

    async def test_a_failure_is_tried_again_after_a_while(
        self, tmp_path: Path, ca: HostileCA
    ) -> None:
        """Or when a reload is asked for; the alarm ends with a certificate."""
        ca.answers["/newOrder"] = lambda reply: reply.refuse(403, "rejectedIdentifier")
        world = World(tmp_path, ca)
        async with world.running():
            await world.alarmed()
            await until(lambda: ca.seen.count("POST /newOrder") == 1)
            wait = world.next_order - time.time()
            await world.task.reload(world.active)
            await until(lambda: ca.seen.count("POST /newOrder") == 2)
            # Somebody has put it there.
            good = self_signed_root("Issuer").issue("server", use=SERVER, end=90 * DAY)
            world.cache.keep_certificate(Stored(good.key, (good.certificate,)))
            await world.task.reload(world.active)
            await until(lambda: not world.alarms.reasons)

        assert 200 < wait < 301
        assert good.der == world.published[-1].pairs[0].chain[0]

    async def test_what_is_kept_is_used_and_nothing_ordered(
        self, tmp_path: Path, ca: HostileCA
    ) -> None:
        """A CA that has nothing to say about it is not asked often."""
        cached = stored()
        World(tmp_path, ca).cache.keep_certificate(cached)
        world = World(tmp_path, ca)
        shown = world.active.state.pairs[0].chain[0]
        async with world.running():
            await until(lambda: world.next_order)
            days = (world.next_order - time.time()) / DAY.total_seconds()

        assert shown == cached.leaf.public_bytes(serialization.Encoding.DER)
        assert [] == world.published
        assert ["GET /dir"] == [line for line in ca.seen if "newOrder" not in line][:1]
        assert "POST /newOrder" not in ca.seen
        assert 56 < days < 60

    @pytest.mark.parametrize(
        "cached",
        [stored(age=91 * DAY), stored(age=-DAY)],
        ids=["expired", "of tomorrow"],
    )
    async def test_what_is_not_valid_is_never_shown(
        self, tmp_path: Path, ca: HostileCA, cached: Stored
    ) -> None:
        """Another one is ordered, and a placeholder stays meanwhile."""
        World(tmp_path, ca).cache.keep_certificate(cached)
        world = World(tmp_path, ca)
        async with world.running():
            await until(lambda: "POST /newOrder" in ca.seen)
            await world.alarmed()
        shown = x509.load_der_x509_certificate(world.active.state.pairs[0].chain[0])

        assert [] == world.published
        assert shown.subject == shown.issuer
        assert ["127.0.0.1"] == [
            str(address)
            for address in shown.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value.get_values_for_type(x509.IPAddress)
        ]

    async def test_one_for_other_names_is_shown_until_there_is_a_better_one(
        self, tmp_path: Path, ca: HostileCA
    ) -> None:
        """A change of names is a reason for an order."""
        cached = stored()
        world = World(tmp_path, ca)
        world.cache.keep_certificate(cached)
        settings = ACMESettings(
            names=("localhost", "other.test"),
            cache=world.settings.cache,
            directory_url=ca.directory,
            authorities=ca.bundle,
        )
        pair = first_pair(settings, datetime.now(UTC))
        renamed = ACMETask(settings, world.alarms, world.metrics, world.logger)
        running = asyncio.create_task(
            renamed.run(
                ActiveState(TLSState(generation=0, pairs=(pair,)), world.publish)
            )
        )
        await until(lambda: "POST /newOrder" in ca.seen)
        running.cancel()
        await asyncio.wait([running])

        assert cached.leaf.public_bytes(serialization.Encoding.DER) == pair.chain[0]

    @pytest.mark.parametrize("name", ["certificate.pem", "account-key.pem"])
    async def test_what_cannot_be_read_now_is_not_replaced(
        self,
        tmp_path: Path,
        ca: HostileCA,
        name: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """No other account is opened, and no certificate ordered."""

        def lack(path: Path, *, follows_links: bool = True) -> BinaryIO:
            if path.name == name:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return open_regular(path, follows_links=follows_links)

        World(tmp_path, ca).cache.keep_certificate(stored(age=91 * DAY))
        World(tmp_path, ca).cache.new_account_key()
        monkeypatch.setattr(folder_of_ca, "open_regular", lack)
        world = World(tmp_path, ca)
        before = {p.name: p.read_bytes() for p in world.cache.folder.iterdir()}
        async with world.running():
            reason = await world.alarmed()

        assert "Cannot read the ACME cache (Too many open files)." == reason
        assert before == {p.name: p.read_bytes() for p in world.cache.folder.iterdir()}
        assert "POST /newAccount" not in ca.seen

    async def test_what_front_ends_refuse_is_not_ordered_again(
        self, tmp_path: Path, ca: HostileCA
    ) -> None:
        """Another one would fare no better, and a CA counts them."""
        world = World(tmp_path, ca)
        world.cache.keep_certificate(stored())
        world.refusal = "There is no room for it."
        async with world.running():
            reason = await world.alarmed()
            world.refusal = ""
            await world.task.reload(world.active)
            await until(lambda: world.published)
            await until(lambda: not world.alarms.reasons)

        assert "There is no room for it." == reason
        assert "POST /newOrder" not in ca.seen

    async def test_challenges_of_a_keeper_that_was_killed_are_forgotten(
        self, tmp_path: Path, ca: HostileCA
    ) -> None:
        """It is the first thing that the next one does."""
        world = World(tmp_path, ca)
        left = TLSState(
            generation=5,
            pairs=world.active.state.pairs,
            challenges=(tls_challenge("localhost", b"\0" * 32),),
        )
        world.active = ActiveState(left, world.publish)
        async with world.running():
            await until(lambda: world.published)

        assert () == world.published[0].challenges

    async def test_who_is_cancelled_waits_for_no_ca(
        self, tmp_path: Path, ca: HostileCA
    ) -> None:
        """A server ends at once, whatever the CA does."""
        release, answered = threading.Event(), list[bool]()

        def wait(_: Reply) -> None:
            answered.append(release.wait(60))

        ca.answers["/newOrder"] = wait
        world = World(tmp_path, ca)
        async with world.running():
            await until(lambda: "POST /newOrder" in ca.seen)
        answers = len(answered)
        release.set()

        assert 0 == answers

    async def test_who_never_answers_is_given_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever a call waits for."""
        monkeypatch.setattr(ordering, "_CALL_SECONDS", 0.1)
        answers = threading.Event()

        with pytest.raises(Failure) as caught:
            await ordering.call(answers.wait, 60)
        answers.set()

        assert FailureKind.TOO_SLOW == caught.value.kind


class TestTiming:
    """When something is done."""

    def test_two_thirds_of_the_life_and_not_all_at_once(self) -> None:
        """Where the CA says nothing; in any case before five sixths."""
        leaf = stored().leaf
        begins = leaf.not_valid_before_utc.timestamp()
        whole = leaf.not_valid_after_utc.timestamp() - begins
        parts = {(ordering.usual_renewal(leaf) - begins) / whole for _ in range(100)}

        assert len(parts) > 50
        assert all(0.63 < part < 0.667 for part in parts)
        assert 0.83 < (ordering.latest_renewal(leaf) - begins) / whole < 0.84

    @pytest.mark.parametrize("kind", FailureKind)
    def test_failures_in_a_row_are_tried_less_and_less_often(
        self, kind: FailureKind
    ) -> None:
        """Up to six hours, or one where there is no certificate."""
        failure = Failure(kind, "No.")

        def waits(*, has_certificate: bool) -> list[float]:
            return [
                ordering.retry_seconds(failure, count, has_certificate=has_certificate)
                for count in range(1, 40)
            ]

        assert 7 < waits(has_certificate=True)[0] <= 900
        assert 4 * 3600 < waits(has_certificate=True)[-1] <= 6 * 3600
        assert 0.7 * 3600 < waits(has_certificate=False)[-1] <= 3600

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("120", 120), ("999999999999", 7 * 24 * 3600)],
    )
    def test_retry_after_in_seconds(self, text: str, seconds: float) -> None:
        """A week at most."""
        assert abs(instant_after(text) - time.time() - seconds) < 5

    @pytest.mark.parametrize("text", ["", "soon", "-5", "٣", None])
    def test_another_retry_after_is_none(self, text: str | None) -> None:
        """What can't be read says nothing."""
        assert 0.0 == instant_after(text)

    def test_retry_after_as_a_date(self) -> None:
        """RFC 9110, section 5.6.7."""
        when = datetime.now(UTC) + timedelta(seconds=90)
        text = when.strftime("%a, %d %b %Y %H:%M:%S GMT")

        assert abs(instant_after(text) - when.timestamp()) < 2


class TestCache:
    """What outlives a restart."""

    def test_what_is_kept_is_found(self, tmp_path: Path) -> None:
        """Account, certificate and pause."""
        cache, issued = Cache(tmp_path / "acme", "https://a/"), stored()
        cache.prepare()
        key = cache.new_account_key()
        account = Account(uri="https://a/1", contacts=("mailto:a@b",), key_digest="0")
        cache.keep_account(account)
        cache.keep_certificate(issued)
        cache.keep_pause(12.5)
        found, kept = cache.account_key(), cache.certificate()

        assert found is not None
        assert key.private_numbers() == found.private_numbers()
        assert account == cache.account()
        assert kept is not None
        assert issued.chain == kept.chain
        assert 12.5 == cache.pause()

    def test_each_ca_has_a_folder(self, tmp_path: Path) -> None:
        """An account of one is none of another."""
        first, second = (Cache(tmp_path, url) for url in ("https://a/", "https://b/"))

        assert first.folder != second.folder

    @pytest.mark.parametrize("length", [0, 10, 300, 700])
    def test_what_is_damaged_is_absent(self, tmp_path: Path, length: int) -> None:
        """There is a new one to be had."""
        cache = Cache(tmp_path / "acme", "https://a/")
        cache.prepare()
        cache.new_account_key()
        cache.keep_certificate(stored())
        cache.keep_account(Account(uri="a", contacts=(), key_digest=""))
        cache.keep_pause(1.0)
        for path in cache.folder.iterdir():
            data = path.read_bytes()
            path.write_bytes(data[: min(length, len(data) - 40, len(data) // 2)])

        assert cache.account_key() is None
        assert cache.account() is None
        assert cache.certificate() is None

    def test_the_key_of_another_certificate_is_not_used(self, tmp_path: Path) -> None:
        """Whoever has put them together."""
        cache, issued = Cache(tmp_path / "acme", "https://a/"), stored()
        cache.prepare()
        cache.keep_certificate(Stored(new_key(), issued.chain))

        assert cache.certificate() is None

    def test_what_is_open_to_others_is_refused(self, tmp_path: Path) -> None:
        """At start; and not read later, either."""
        cache = Cache(tmp_path / "acme", "https://a/")
        cache.prepare()
        cache.new_account_key()
        (cache.folder / "account-key.pem").chmod(0o640)

        with pytest.raises(UnsafeFileModeError, match="0640"):
            cache.prepare()
        assert cache.account_key() is None

    def test_a_folder_where_others_write_is_refused(self, tmp_path: Path) -> None:
        """They could put another key there."""
        folder = tmp_path / "acme"
        folder.mkdir()
        folder.chmod(0o770)

        with pytest.raises(UnsafeFileModeError, match="0770"):
            Cache(folder, "https://a/").prepare()

    def test_a_folder_that_is_none_is_refused(self, tmp_path: Path) -> None:
        """With its name, and why."""
        (tmp_path / "acme").write_bytes(b"")

        with pytest.raises(ListenError, match="acme"):
            Cache(tmp_path / "acme", "https://a/").prepare()

    def test_a_crash_leaves_the_former_and_is_cleaned_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before the new one has its name, nothing has changed."""
        cache, before = Cache(tmp_path / "acme", "https://a/"), stored()
        cache.prepare()
        cache.keep_certificate(before)

        def crash(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", crash)
            patch.setattr(os, "unlink", lambda *_: None)
            with pytest.raises(KeyboardInterrupt):
                cache.keep_certificate(stored())
        left = [path.name for path in cache.folder.iterdir()]
        cache.prepare()
        kept = cache.certificate()

        assert any(name.startswith(".certificate.pem.") for name in left)
        assert not any(path.name.startswith(".") for path in cache.folder.iterdir())
        assert kept is not None
        assert before.chain == kept.chain


def test_a_placeholder_and_challenges_can_be_shown() -> None:
    """For names and for addresses of both kinds."""
    names = ("hsm.test", "127.0.0.1", "::1")
    challenges = tuple(tls_challenge(name, b"\1" * 32) for name in names)
    state = TLSState(generation=0, pairs=(placeholder(names),), challenges=challenges)

    try_state(state)

    assert [
        "hsm.test",
        "1.0.0.127.in-addr.arpa",
        "1." + "0." * 31 + "ip6.arpa",
    ] == [challenge.name for challenge in challenges]
    leaf = x509.load_der_x509_certificate(challenges[0].pair.chain[0])
    (extension,) = (
        found for found in leaf.extensions if found.oid.dotted_string.endswith(".1.31")
    )
    assert extension.critical
    assert b"\x04\x20" + b"\1" * 32 == extension.value.public_bytes()


def test_keys_are_not_shown() -> None:
    """A certificate with its key is not spelt out in a traceback."""
    assert "key=" not in repr(stored())


@pytest.mark.parametrize("sent", [b"GET /%s HTTP/1.1", b"HEAD /%s HTTP/1.1", b"@"])
async def test_what_answers_challenges_names_no_software(sent: bytes) -> None:
    """Neither to a CA nor to who asks for something else or sends nonsense."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        serving = asyncio.create_task(HTTPAnswers(bound).run())
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        writer.write(sent.replace(b"%s", b"x") + b"\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(60):
            answer = await reader.read()
        writer.close()
        serving.cancel()
        await asyncio.wait([serving])

    assert answer.startswith(b"HTTP/1.")
    assert b"server:" not in answer.lower()
    assert b"aiohttp" not in answer.lower()
    assert b"python" not in answer.lower()
