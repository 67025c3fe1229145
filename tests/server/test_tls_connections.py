# SPDX-License-Identifier: MIT
"""Connections over TLS from the first byte to the last, on both loops."""

import asyncio
import contextlib
import gc
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hsm_server.http import connection as taking
from hsm_server.tls.state import Challenge, ClientRules
from tests.pki import SERVER, Issued, self_signed_root
from tests.server.support import mint
from tests.server.tls_support import (
    REQUEST,
    Server,
    answer,
    client_context,
    connected,
    curl,
    s_client,
    serving,
    state_of,
)

MIB = 1024 * 1024
ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
HOLD = b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n"
NAME = "hsm.example.com"


class People:
    """A server, a client, and who has certified them."""

    def __init__(self) -> None:
        self.root = self_signed_root("Root")
        self.pair = self.root.issue("server", use=SERVER).pair
        self.alice = self.root.issue("alice")

    @property
    def rules(self) -> ClientRules:
        """Rules that let in whom the root has certified."""
        return ClientRules(authorities=(self.root.der,))

    def rules_without(self, revoked: Issued) -> ClientRules:
        """Return the same without one of them."""
        lists = (self.root.revocation_list(revoked.certificate),)
        return ClientRules(authorities=(self.root.der,), revocation_lists=lists)


@pytest.fixture(scope="module")
def people() -> People:
    """Give them."""
    return People()


@pytest.fixture(params=["asyncio", "uvloop"])
def kind(request: pytest.FixtureRequest) -> str:
    """Give the name of an event loop."""
    return str(request.param)


@pytest.fixture
def server(people: People, kind: str) -> Iterator[Server]:
    """Give a server that demands no certificates."""
    with serving(state_of(people.pair), kind) as running:
        yield running


@pytest.fixture
def strict(people: People, kind: str) -> Iterator[Server]:
    """Give a server that demands them."""
    with serving(state_of(people.pair, client=people.rules), kind) as running:
        yield running


def test_finished_handshakes_are_not_kept(people: People, server: Server) -> None:
    """A connection keeps none of what its handshake needed, open or closed."""

    def finished() -> int:
        tasks = [o for o in gc.get_objects() if isinstance(o, asyncio.Task)]
        return sum(task.done() for task in tasks)

    context = client_context(people.root)
    gc.disable()
    try:
        before = finished()
        for _ in range(10):
            with connected(server, context) as tls:
                tls.sendall(REQUEST)
                answer(tls)
        assert finished() < before + 10
    finally:
        gc.enable()


def ends_in_order(tls: ssl.SSLSocket) -> bool:
    """Return whether the server closes, and says so by close_notify."""
    tls.settimeout(60)
    try:
        return tls.recv(1) == b""
    except ssl.SSLEOFError:
        return False


class Bare:
    """A client whose bytes are sent as a test likes, one by one if it must be."""

    def __init__(
        self, server: Server, context: ssl.SSLContext, name: str = "localhost"
    ) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self.ended_in_order = False
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Bare":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hello(self) -> bytes:
        """Return what begins a handshake."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._out.read()

    def shake(self) -> bytes:
        """Return what ends it, which is not sent yet."""
        while True:
            self._in.write(self.socket.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                return self._out.read()

    def sealed(self, data: bytes) -> bytes:
        """Encrypt."""
        self.tls.write(data)
        return self._out.read()

    def farewell(self) -> bytes:
        """Return a close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._out.read()

    def received(self) -> bytes:
        """Return all that the server sends until it closes."""
        got = b""
        while data := self.socket.recv(65536):
            self._in.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            while piece := self.tls.read(65536):
                got += piece
            self.ended_in_order = True
        return got


def test_every_byte_may_come_alone(server: Server, people: People) -> None:
    """Neither handshake nor request depend on how the network cuts them."""
    with Bare(server, client_context(people.root)) as client:
        for part in (client.hello, client.shake, lambda: client.sealed(REQUEST)):
            for byte in part():
                client.socket.sendall(bytes([byte]))

        assert client.received().startswith(b"HTTP/1.1 200")


def test_requests_may_come_along_with_the_handshake(
    server: Server, people: People
) -> None:
    """Three in one piece with Finished are answered in order."""
    with Bare(server, client_context(people.root)) as client:
        client.socket.sendall(client.hello())
        client.socket.sendall(client.shake() + client.sealed(ASK + ASK + REQUEST))

        assert 3 == client.received().count(b"HTTP/1.1 200")


def test_a_record_may_be_cut_where_it_looks_like_a_header(
    server: Server, people: People
) -> None:
    """The record behind it, in the same piece, is read, too."""
    long = REQUEST.replace(b"Host:", b"X-Long: " + b"x" * 15000 + b"\r\nHost:")
    cut = None
    while cut is None:
        with Bare(server, client_context(people.root)) as client:
            client.socket.sendall(client.hello())
            client.socket.sendall(client.shake())
            first, last = client.sealed(long[:-20]), client.sealed(long[-20:])
            cut = misleading_cut(first, last)
            if cut is not None:
                client.socket.sendall(first[:cut])
                time.sleep(0.1)  # Otherwise both may arrive together.
                client.socket.sendall(first[cut:] + last)

                assert client.received().startswith(b"HTTP/1.1 200")


def misleading_cut(first: bytes, last: bytes) -> int | None:
    """Return where to cut so that the rest looks like one record, if anywhere."""
    whole = first + last
    for cut in range(6, len(first) - 5):
        if int.from_bytes(whole[cut + 3 : cut + 5], "big") == len(whole) - cut - 5:
            return cut
    return None


@pytest.mark.parametrize("sent", [0, 3, 200], ids=["silence", "header", "half"])
def test_a_handshake_that_does_not_come_ends(
    people: People, kind: str, sent: int
) -> None:
    """Who begins it and goes no further holds no connection."""
    state, context = state_of(people.pair), client_context(people.root)
    with serving(state, kind, handshake_timeout_seconds=0.4) as server:
        # The server's time begins when it accepts.
        began = time.monotonic()
        with Bare(server, context) as client:
            client.socket.sendall(client.hello()[:sent])
            with contextlib.suppress(ConnectionError):
                assert b"" == client.socket.recv(100)

        assert 0.3 < time.monotonic() - began < 60
        assert server.has_counted(1, "timeout")


def test_a_handshake_that_trickles_ends(people: People, kind: str) -> None:
    """Each byte wins no more time."""
    state = state_of(people.pair)
    with (
        serving(state, kind, handshake_timeout_seconds=0.4) as server,
        Bare(server, client_context(people.root)) as client,
    ):
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in client.hello():
                client.socket.sendall(bytes([byte]))
                time.sleep(0.02)

        assert time.monotonic() - began < 60
        assert server.has_counted(1, "timeout")


@pytest.mark.parametrize("sent", [b"", ASK[:20]], ids=["silence", "half"])
def test_a_request_that_does_not_come_ends_in_order(
    people: People, kind: str, sent: bytes
) -> None:
    """The head has a time of its own, after which there is a farewell."""
    state, context = state_of(people.pair), client_context(people.root)
    with serving(state, kind, head_timeout_seconds=0.4) as server:
        # The server's time begins when it has shaken hands.
        began = time.monotonic()
        with connected(server, context) as tls:
            tls.sendall(sent)

            assert ends_in_order(tls)
        assert 0.3 < time.monotonic() - began < 60


def test_who_goes_during_the_handshake_is_counted(
    server: Server, people: People
) -> None:
    """Half a hello and away."""
    with Bare(server, client_context(people.root)) as client:
        client.socket.sendall(client.hello()[:100])

    assert server.has_counted(1, "disconnected")


def test_who_is_refused_and_stays_is_closed(strict: Server, people: People) -> None:
    """There is time to read the alert, and not much more."""
    with Bare(strict, client_context(people.root)) as client:
        client.socket.sendall(client.hello())
        rest = client.shake()
        began = time.monotonic()
        client.socket.sendall(rest)
        with contextlib.suppress(ConnectionError):
            while client.socket.recv(65536):
                pass

        assert 0.5 < time.monotonic() - began < 60
        assert strict.has_counted(1, "refused_certificate_required")


@pytest.mark.parametrize("size", [64 * MIB, 0], ids=["64 MiB", "empty"])
def test_large_bodies_go_both_ways(
    server: Server, people: People, tmp_path: Path, size: int
) -> None:
    """64 MiB up and 64 MiB down, whole, in seconds."""
    root, _ = people.root.write(tmp_path, "root")
    body, got = tmp_path / "body", tmp_path / "got"
    body.write_bytes(b"\x5a" * size)
    began = time.monotonic()
    sent = curl(
        server,
        *("--cacert", str(root), "--data-binary", f"@{body}", "-o", str(got)),
        *("-D", "-", "-H", "Expect:"),
        path=f"/echo?answer={size}",
    )

    assert 0 == sent.status, sent.text
    assert f"X-Length: {size}" in sent.output
    assert hashlib.sha256(b"\x5a" * size).hexdigest() in sent.output
    assert b"\xa5" * size == got.read_bytes()
    assert time.monotonic() - began < 200


def ask_much(tls: ssl.SSLSocket, times: int, *, ends: bool = False) -> None:
    """Ask for 4 MiB, so many times in one piece."""
    end = "Connection: close\r\n" if ends else ""
    ask = f"POST /echo?answer={4 * MIB} HTTP/1.1\r\nHost: localhost\r\n{end}\r\n"
    tls.sendall(ask.encode() * times)


def take(tls: ssl.SSLSocket, *, pause: float = 0.0) -> Iterator[int]:
    """Give how many bytes of answers have come, until the connection ends."""
    tls.settimeout(60)
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        while data := tls.recv(65536):
            yield data.count(b"\xa5")
            time.sleep(pause)


@contextlib.contextmanager
def reached(people: People, kind: str) -> Iterator[tuple[Server, ssl.SSLSocket]]:
    """Give a server of this test alone, and a connection to it."""
    with (
        serving(state_of(people.pair), kind) as server,
        connected(server, client_context(people.root)) as tls,
    ):
        yield server, tls


def test_who_takes_nothing_is_cut_off(
    people: People, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for more and more, and reads none of it, holds no connection."""
    monkeypatch.setattr(taking, "_SECONDS", 0.3)
    with reached(people, kind) as (server, tls):
        ask_much(tls, 8)
        open_ = server.listener._connections  # noqa: SLF001 (no other view of them)
        end = time.monotonic() + 60
        while server.call(len, open_) and time.monotonic() < end:
            time.sleep(0.05)

        assert 0 == server.call(len, open_)
        assert sum(take(tls)) < 8 * 4 * MIB


def test_who_takes_it_slowly_gets_it(
    people: People, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take any time in which some of it is taken."""
    monkeypatch.setattr(taking, "_SECONDS", 2.0)
    with reached(people, kind) as (_, tls):
        ask_much(tls, 2)
        ask_much(tls, 1, ends=True)
        began = time.monotonic()

        assert 3 * 4 * MIB == sum(take(tls, pause=0.006))
        assert time.monotonic() - began > 3.0


def test_a_last_answer_is_waited_for(people: People, kind: str) -> None:
    """Who begins to read it late gets all of it: until then the connection stays."""
    ask = ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with reached(people, kind) as (server, tls):
        tls.sendall(ask.replace(b"GET /healthz", b"POST /echo?answer=300000"))
        time.sleep(1.5)  # longer than a farewell is waited for
        open_ = server.listener._connections  # noqa: SLF001 (no other view of them)

        assert 1 == server.call(len, open_)
        assert 300_000 == sum(take(tls))


def test_a_last_answer_that_nobody_takes_is_cut_off(
    people: People, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can hold the end of a server up for ever either."""
    monkeypatch.setattr(taking, "_SECONDS", 0.3)
    with reached(people, kind) as (server, tls):
        ask_much(tls, 3)
        ask_much(tls, 1, ends=True)
        time.sleep(0.2)

        assert server.stop(20)
        assert sum(take(tls)) < 4 * 4 * MIB


def test_half_a_close_ends_the_connection(server: Server, people: People) -> None:
    """Who says farewell after asking gets no answer, and harms nobody."""
    with Bare(server, client_context(people.root)) as client:
        client.socket.sendall(client.hello())
        client.socket.sendall(client.shake())
        client.socket.sendall(client.sealed(HOLD))
        client.socket.sendall(client.farewell())
        client.socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while client.socket.recv(65536):
                pass

    assert "HTTP/1.1 200" in s_client(server).output


def test_other_rules_close_who_is_idle(
    strict: Server, people: People, tmp_path: Path
) -> None:
    """Connections that the former rules let in end in order, at once."""
    context = client_context(people.root, people.alice, tmp_path)
    with connected(strict, context) as asked, connected(strict, context) as silent:
        asked.sendall(ASK)
        answer(asked)
        strict.use(state_of(people.pair, client=people.rules_without(people.alice)))

        assert ends_in_order(asked)
        assert ends_in_order(silent)


def test_the_same_rules_close_nobody(
    strict: Server, people: People, tmp_path: Path
) -> None:
    """A new certificate of ours is no reason to."""
    context = client_context(people.root, people.alice, tmp_path)
    other = people.root.issue("other", use=SERVER).pair
    with connected(strict, context) as tls:
        tls.sendall(ASK)
        answer(tls)
        strict.use(state_of(other, client=people.rules))
        tls.sendall(ASK)

        assert answer(tls).startswith(b"HTTP/1.1 200")


def test_other_rules_close_nobody_without_a_certificate(
    people: People, kind: str, tmp_path: Path
) -> None:
    """Who has a token alone stays, where certificates are optional."""
    optional = msgspec.structs.replace(people.rules, is_required=False)
    later = msgspec.structs.replace(
        people.rules_without(people.alice), is_required=False
    )
    with (
        serving(state_of(people.pair, client=optional), kind) as server,
        connected(server, client_context(people.root, None, tmp_path)) as bare,
        connected(server, client_context(people.root, people.alice, tmp_path)) as shown,
    ):
        for tls in (bare, shown):
            tls.sendall(ASK)
            answer(tls)
        server.use(state_of(people.pair, client=later))

        assert ends_in_order(shown)
        bare.sendall(ASK)
        assert answer(bare).startswith(b"HTTP/1.1 200")


def test_what_was_asked_is_answered_before(
    strict: Server, people: People, tmp_path: Path
) -> None:
    """A request in flight is finished; that it was the last one is said."""
    context = client_context(people.root, people.alice, tmp_path)
    with connected(strict, context) as tls:
        tls.sendall(HOLD)
        assert strict.held.wait(60)
        strict.use(state_of(people.pair, client=people.rules_without(people.alice)))
        strict.call(strict.release.set)
        got = answer(tls)

        assert got.endswith(b"released")
        assert b"connection: close" in got.lower()
        assert ends_in_order(tls)


def test_a_body_on_its_way_arrives_before(
    strict: Server, people: People, tmp_path: Path
) -> None:
    """An upload that has begun goes on."""
    context = client_context(people.root, people.alice, tmp_path)
    head = (
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    with connected(strict, context) as tls:
        tls.sendall(ASK)
        answer(tls)
        tls.sendall(head)
        # It has begun when the server asks for its body.
        assert tls.recv(65536).startswith(b"HTTP/1.1 100")
        tls.sendall(b"12345")
        strict.use(state_of(people.pair, client=people.rules_without(people.alice)))
        time.sleep(0.1)
        tls.sendall(b"67890")

        assert b"X-Length: 10" in answer(tls)
        assert ends_in_order(tls)


def test_a_view_without_end_is_ended(
    strict: Server, people: People, tmp_path: Path
) -> None:
    """Who is let in no more looks on no longer."""
    context = client_context(people.root, people.alice, tmp_path)
    request = (
        b"GET /api/v1/audit/events HTTP/1.1\r\nHost: localhost\r\n"
        b"Accept: text/event-stream\r\nAuthorization: Bearer " + mint().encode()
    )
    with connected(strict, context) as tls:
        tls.sendall(request + b"\r\n\r\n")
        assert tls.recv(65536).startswith(b"HTTP/1.1 200")
        strict.use(state_of(people.pair, client=people.rules_without(people.alice)))
        tls.settimeout(60)
        while tls.recv(65536):
            pass


def test_rules_count_that_come_during_the_handshake(
    strict: Server, people: People, tmp_path: Path
) -> None:
    """Who began by the former ones is not served by them."""
    context = client_context(people.root, people.alice, tmp_path)
    with Bare(strict, context) as client:
        client.socket.sendall(client.hello())
        rest = client.shake()
        strict.use(state_of(people.pair, client=people.rules_without(people.alice)))
        client.socket.sendall(rest + client.sealed(REQUEST))

        assert b"" == client.received()


def test_a_drain_says_farewell(server: Server, people: People) -> None:
    """Idle connections at once, busy ones after their answer."""
    context = client_context(people.root)
    with connected(server, context) as idle, connected(server, context) as busy:
        idle.sendall(ASK)
        answer(idle)
        busy.sendall(HOLD)
        assert server.held.wait(60)
        stopping = threading.Thread(target=server.stop)
        began = time.monotonic()
        stopping.start()

        assert ends_in_order(idle)
        assert time.monotonic() - began < 30
        server.call(server.release.set)
        assert answer(busy).endswith(b"released")
        assert ends_in_order(busy)
        stopping.join()
        assert time.monotonic() - began < 60


@pytest.fixture
def challenged(people: People, kind: str) -> Iterator[Server]:
    """Give a server that demands certificates, while a challenge is pending."""
    proof = people.root.issue("proof", use=SERVER).pair
    state = state_of(
        people.pair,
        client=people.rules,
        challenges=(Challenge(name=NAME, pair=proof),),
    )
    with serving(state, kind) as running:
        yield running


@pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
def test_a_challenge_is_answered_and_nothing_else(
    challenged: Server, version: str
) -> None:
    """Its prover sees the proof without a certificate of its own, and no service."""
    sent = s_client(
        challenged, version, "-alpn", "acme-tls/1", "-servername", NAME.upper()
    )

    assert "subject=CN=proof" in sent.output, sent.text
    assert "ALPN protocol: acme-tls/1" in sent.output
    assert "HTTP/1.1" not in sent.output
    assert "unexpected eof" not in sent.errors
    assert not [
        True
        for group in ("X25519MLKEM768", "x25519")
        if challenged.handshakes("ok", group)
    ]


def test_a_prover_that_asks_for_more_gets_a_farewell(
    challenged: Server, people: People
) -> None:
    """Whatever comes along with its Finished reaches nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["acme-tls/1"])
    with Bare(challenged, context, NAME) as client:
        client.socket.sendall(client.hello())
        client.socket.sendall(client.shake() + client.sealed(REQUEST))

        assert b"" == client.received()
        assert client.ended_in_order
        assert challenged.has_counted(1, "challenge", "X25519MLKEM768")


@pytest.mark.parametrize(
    "options",
    [
        ("-alpn", "acme-tls/1", "-servername", "other.example.com"),
        ("-alpn", "acme-tls/1", "-noservername"),
    ],
    ids=["other-name", "no-name"],
)
def test_a_challenge_that_is_not_pending_is_refused(
    challenged: Server, options: tuple[str, ...]
) -> None:
    """By the alert of RFC 8737, section 3."""
    assert "SSL alert number 120" in s_client(challenged, *options).errors


def test_others_are_served_meanwhile(
    challenged: Server, people: People, tmp_path: Path
) -> None:
    """With the same name, too, and byte by byte."""
    chain, key = people.alice.write(tmp_path, "client")
    shown = ("-cert", str(chain), "-key", str(key), "-servername", NAME)
    for protocols in ("http/1.1", "acme-tls/1,http/1.1"):
        sent = s_client(challenged, *shown, "-alpn", protocols)
        assert "subject=CN=server" in sent.output
        assert "HTTP/1.1 200" in sent.output

    context = client_context(people.root, people.alice, tmp_path)
    with Bare(challenged, context) as client:
        for byte in client.hello():
            client.socket.sendall(bytes([byte]))
        client.socket.sendall(client.shake() + client.sealed(REQUEST))
        assert client.received().startswith(b"HTTP/1.1 200")


def test_what_is_no_hello_is_openssls_to_refuse(challenged: Server) -> None:
    """While challenges are pending, too."""
    with socket.create_connection(("127.0.0.1", challenged.port), timeout=60) as plain:
        plain.sendall(REQUEST)
        with contextlib.suppress(ConnectionError):
            assert not plain.recv(100).startswith(b"HTTP")

    assert challenged.has_counted(1, "refused_other")
