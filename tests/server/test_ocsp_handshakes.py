# SPDX-License-Identifier: MIT
"""What foreign clients see of staples; and that responders fail no handshake."""

import asyncio
import contextlib
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from hsm_server.config.settings import LogFormat, LogLevel
from hsm_server.config.tls import StatusCheck
from hsm_server.http.state import METRICS
from hsm_server.observability.logs import make_logger
from hsm_server.observability.metrics import Metrics
from hsm_server.tls.ocsp import client_check
from hsm_server.tls.ocsp.stapler import Stapler
from hsm_server.tls.state import ActiveState, Alarms, ClientRules, TLSState
from tests.pki import Issued
from tests.server.family import wait_until
from tests.server.ocsp_support import (
    CA,
    HOUR,
    Asked,
    Reply,
    Web,
    failure,
    http,
    now_utc,
)
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
from tests.support import free_port, require_program

CA_: Final = CA()
CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LOOPS: Final = ["asyncio", "uvloop"]
HANDSHAKES: Final = 8


class Stapled:
    """A server, the responder of its certificate, and what staples between them."""

    def __init__(self, server: Server, web: Web, holder: Issued) -> None:
        self.server = server
        self.web = web
        self.holder = holder
        self.metrics = Metrics()
        logger = make_logger(StringIO(), LogLevel.DEBUG, LogFormat.JSON)
        self.alarms = Alarms(logger, self.metrics)
        self.active = ActiveState(server.context.state, self._publish)
        self.stapler = Stapler(
            timedelta(hours=4), (), self.alarms, self.metrics, logger
        )

    async def _publish(self, state: TLSState) -> None:
        self.server.context.use(state)

    @property
    def asked(self) -> int:
        """How many questions have had an answer, or none."""
        return sum(
            int(sample.value)
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "ferrohsm_ocsp_questions_total"
        )

    def result(self, name: str) -> bool:
        """Return whether a question had this result."""
        labels = {"about": "server", "result": name}
        name = "ferrohsm_ocsp_questions_total"
        return bool(self.metrics.registry.get_sample_value(name, labels))

    @property
    def staple(self) -> bytes:
        """What the server shows now."""
        return self.server.context.state.pairs[0].staple

    def ask_again(self, reply: Reply) -> None:
        """Have the responder asked, which answers so."""
        self.web.reply = reply
        before = self.asked
        self.server.run(self.stapler.reload(self.active))
        wait_until(lambda: self.asked > before)
        self.server.run(asyncio.sleep(0.05))


@contextlib.contextmanager
def running(server: Server, coroutine: Any) -> Iterator[None]:
    """Run something on a server's loop for a while."""
    task = asyncio.run_coroutine_threadsafe(coroutine, server.loop)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(BaseException):
            task.result(10)


@contextlib.contextmanager
def answering(server: Server, web: Web) -> Iterator[None]:
    """Let a responder answer, on a server's loop."""

    async def serve() -> None:
        async with web.serve():
            await asyncio.Event().wait()

    with running(server, serve()):
        wait_until(lambda: web.is_up)
        yield


def good(holder: Issued, valid: timedelta = HOUR) -> Reply:
    """Return who says that all is well."""
    return lambda asked: http(
        CA_.answer(
            holder,
            nonce=asked.nonce if asked.method == "POST" else b"",
            this_update=now_utc(),
            valid=valid,
        )
    )


@contextlib.contextmanager
def stapled(kind: str, valid: timedelta = HOUR) -> Iterator[Stapled]:
    """Serve with a staple of a responder that is well."""
    web = Web(lambda asked: b"")
    web.port = free_port()
    holder = CA_.issue("localhost", urls=(web.url,))
    web.reply = good(holder, valid)
    with serving(state_of(CA_.pair(holder)), kind) as server:
        place = Stapled(server, web, holder)
        with (
            answering(server, web),
            running(server, place.stapler.run(place.active)),
        ):
            wait_until(lambda: bool(place.staple))
            yield place


@pytest.fixture(scope="module", params=LOOPS)
def place(request: pytest.FixtureRequest) -> Iterator[Stapled]:
    """Give a server with a good staple, on either loop."""
    with stapled(request.param) as found:
        yield found


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the CA's certificate as a file."""
    return CA_.root.write(tmp_path_factory.mktemp("ca"), "ca")[0]


def faults(holder: Issued) -> dict[str, tuple[bytes, str]]:
    """Return answers that are wrong each in one way, and what that is called."""
    past = now_utc() - 2 * HOUR
    return {
        "stale": (http(CA_.answer(holder, this_update=past)), "stale"),
        "wrong signature": (
            http(CA_.answer(holder, signer=CA().root, by_name=True)),
            "signature",
        ),
        "chunks without end": (CHUNKED + b"5\r\nab", "unreachable"),
    }


def shake_hands(server: Server, count: int = HANDSHAKES) -> int:
    """Return how many of so many requests on new connections are answered."""
    context = client_context(CA_.root)

    def ask(_: int) -> bool:
        with connected(server, context) as tls:
            tls.sendall(REQUEST)
            return tls.recv(100).startswith(b"HTTP/1.1 200")

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(ask, range(count)))


class TestForeignClients:
    def test_s_client(self, place: Stapled, bundle: Path) -> None:
        """OpenSSL sees the staple, and finds it good."""
        sent = s_client(place.server, "-status", "-CAfile", str(bundle))

        assert "OCSP Response Status: successful" in sent.text
        assert "Cert Status: good" in sent.text

    def test_curl(self, place: Stapled, bundle: Path) -> None:
        """Curl demands a good staple, and gets it."""
        sent = curl(place.server, "--cert-status", "--cacert", str(bundle))

        assert 0 == sent.status, sent.text


class TestFaults:
    @pytest.mark.parametrize("kind", ["stale", "wrong signature", "chunks without end"])
    def test_fault(self, place: Stapled, kind: str) -> None:
        """
        A good staple stays, no handshake fails, and the fault is told.

        Which answers are wrong is the subject of the tests of responses and fetching.
        """
        reply, name = faults(place.holder)[kind]
        before = place.staple
        place.ask_again(lambda asked: reply)

        assert place.result(name)
        assert before == place.staple
        assert HANDSHAKES == shake_hands(place.server)

    def test_endless_trickle(self, place: Stapled) -> None:
        """Nor does one fail while an answer doesn't end."""
        place.web.is_trickling = True
        place.web.reply = lambda asked: CHUNKED
        try:
            place.server.run(place.stapler.reload(place.active))
            wait_until(lambda: place.web.asked[-1].method == "POST")
            assert HANDSHAKES == shake_hands(place.server)
        finally:
            place.web.is_trickling = False
        assert place.staple

    def test_good_again(self, place: Stapled) -> None:
        """After all that a new good answer is shown."""
        before = place.staple
        place.ask_again(good(place.holder))
        wait_until(lambda: place.staple not in (b"", before))


@pytest.mark.parametrize("kind", LOOPS)
def test_expired_and_revoked(kind: str, bundle: Path) -> None:
    """A staple is shown until it expires; one that says revoked never is."""
    with stapled(kind, timedelta(seconds=3)) as place:
        place.web.reply = lambda asked: b""
        wait_until(lambda: not place.staple)
        sent = s_client(place.server, "-status", "-CAfile", str(bundle))

        assert "OCSP response: no response sent" in sent.text
        assert "HTTP/1.1 200" in sent.output
        assert HANDSHAKES == shake_hands(place.server)

        revoked = CA_.answer(place.holder, status=ocsp.OCSPCertStatus.REVOKED)
        place.ask_again(lambda asked: http(revoked))
        wait_until(lambda: "revocation" in place.alarms.reasons)
        assert b"" == place.staple
        assert HANDSHAKES == shake_hands(place.server)


class OpenSSLResponder:
    """The responder of OpenSSL, with an index of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder
        self._index = folder / "index.txt"
        CA_.root.write(folder, "ca")
        CA_.delegate().write(folder, "signer", is_alone=True)

    def know(self, certificate: x509.Certificate, *, revoked: bool = False) -> None:
        """Write down a certificate, in OpenSSL's form."""
        serial = f"{certificate.serial_number:X}"
        serial = serial if len(serial) % 2 == 0 else f"0{serial}"
        end = certificate.not_valid_after_utc.strftime("%y%m%d%H%M%SZ")
        when = datetime.now(UTC).strftime("%y%m%d%H%M%SZ") if revoked else ""
        state = "R" if revoked else "V"
        line = f"{state}\t{end}\t{when}\t{serial}\tunknown\t/CN=localhost\n"
        self._index.write_text(line)

    @contextlib.contextmanager
    def serve(self) -> Iterator[None]:
        """Answer, until the context ends."""
        openssl = require_program("openssl")
        with subprocess.Popen(
            [
                *(openssl, "ocsp", "-port", str(self.port), "-index", "index.txt"),
                *("-rsigner", "signer.pem", "-rkey", "signer-key.pem", "-CA", "ca.pem"),
                *("-nmin", "5"),
            ],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as program:
            try:
                # It is asked nothing to see whether it listens: it would wait for more.
                assert program.stdout is not None
                assert any("waiting for" in line for line in program.stdout)
                yield
            finally:
                program.terminate()


def test_responder_of_openssl(tmp_path: Path, bundle: Path) -> None:
    """What OpenSSL's own responder says, with its nonce and its delegate, is shown."""
    port = free_port()
    responder = OpenSSLResponder(tmp_path, port)
    holder = CA_.issue("localhost", urls=(f"http://127.0.0.1:{port}/",))
    responder.know(holder.certificate)
    with serving(state_of(CA_.pair(holder)), "asyncio") as server:
        place = Stapled(server, Web(lambda asked: b""), holder)
        with (
            responder.serve(),
            running(server, place.stapler.run(place.active)),
        ):
            wait_until(lambda: bool(place.staple))
            sent = s_client(server, "-status", "-CAfile", str(bundle))
            assert "Cert Status: good" in sent.text
            assert 0 == curl(server, "--cert-status", "--cacert", str(bundle)).status
            response = ocsp.load_der_ocsp_response(place.staple)
            assert any(
                isinstance(extension.value, x509.OCSPNonce)
                for extension in response.extensions
            )
    responder.know(holder.certificate, revoked=True)
    with serving(state_of(CA_.pair(holder)), "asyncio") as server:
        place = Stapled(server, Web(lambda asked: b""), holder)
        with responder.serve(), running(server, place.stapler.run(place.active)):
            wait_until(lambda: "revocation" in place.alarms.reasons)
            assert b"" == place.staple


class Guarded:
    """A server that asks after its clients, and a client with a certificate."""

    def __init__(self, server: Server, web: Web, client: Issued, folder: Path) -> None:
        self.server = server
        self.web = web
        self.client = client
        self.paths = client.write(folder, "client", is_alone=True)

    def curl(self) -> int:
        """Ask for a page, and return curl's status."""
        cert, key = map(str, self.paths)
        sent = curl(self.server, "--insecure", "--cert", cert, "--key", key)
        return sent.status

    def say(self, status: ocsp.OCSPCertStatus) -> Reply:
        """Return who says that of the client."""
        return lambda asked: http(
            CA_.answer(self.client, status=status, this_update=now_utc())
        )

    def context(self) -> ssl.SSLContext:
        """Return a context of Python's client."""
        context = client_context(CA_.root)
        context.load_cert_chain(*self.paths)
        return context


@contextlib.contextmanager
def guarded(kind: str, check: StatusCheck, folder: Path) -> Iterator[Guarded]:
    """Serve clients with certificates, which name a responder."""
    web = Web(lambda asked: b"")
    web.port = free_port()
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    client = CA_.issue("client", urls=(web.url,), usage=usage)
    rules = ClientRules(authorities=(CA_.der,), status_check=check)
    state = state_of(CA_.pair(CA_.issue("localhost", urls=())), client=rules)
    with serving(state, kind) as server, answering(server, web):
        yield Guarded(server, web, client, folder)


@pytest.fixture(params=LOOPS)
def kind(request: pytest.FixtureRequest) -> str:
    """Give an event loop of each kind."""
    return str(request.param)


CLOSED: Final = {52, 56}
"""Curl's statuses for an empty answer, and for a connection that is closed."""

HURRY: Final = {
    "_REFRESH_SECONDS": 0.1,
    "_HOLD_SECONDS": 1.0,
    "_FAILURE_SECONDS": 0.1,
    "_TICK_SECONDS": 0.05,
    "_CHECK_SECONDS": 1.0,
}


class TestClients:
    def test_good(self, kind: str, tmp_path: Path) -> None:
        """Who is good is served, and what it sends at once isn't lost."""
        with guarded(kind, StatusCheck.HARD, tmp_path) as place:
            say = place.say(ocsp.OCSPCertStatus.GOOD)

            def slowly(asked: Asked) -> bytes:
                time.sleep(0.3)
                return say(asked)

            place.web.reply = slowly
            assert 0 == place.curl()
            assert 0 == place.curl()
            assert 1 == len(place.web.asked)

    def test_revoked(self, kind: str, tmp_path: Path) -> None:
        """Who is revoked gets no answer, and is counted."""
        with guarded(kind, StatusCheck.SOFT, tmp_path) as place:
            place.web.reply = place.say(ocsp.OCSPCertStatus.REVOKED)
            assert place.curl() in CLOSED
            registry = place.server.app[METRICS].registry
        name, labels = "ferrohsm_ocsp_clients_refused_total", {"reason": "revoked"}

        assert 1 == registry.get_sample_value(name, labels)

    def test_nothing_learnt(self, kind: str, tmp_path: Path) -> None:
        """If nothing can be learnt, hard refuses and soft doesn't."""
        tries = http(failure(ocsp.OCSPResponseStatus.TRY_LATER))
        found = []
        for check in (StatusCheck.HARD, StatusCheck.SOFT):
            with guarded(kind, check, tmp_path) as place:
                place.web.reply = lambda asked: tries
                found.append(place.curl())

        assert found[0] in CLOSED
        assert 0 == found[1]

    def test_responder_that_hangs(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A client waits for a limited time, and the others are served meanwhile."""
        for name, value in HURRY.items():
            monkeypatch.setattr(client_check, name, value)
        with guarded(kind, StatusCheck.HARD, tmp_path) as place:
            place.web.reply, place.web.is_trickling = (lambda asked: CHUNKED), True
            assert place.curl() in CLOSED
            place.web.is_trickling = False

    def test_revoked_while_connected(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that is open is closed, and no new one let in."""
        for name, value in HURRY.items():
            monkeypatch.setattr(client_check, name, value)
        request = REQUEST.replace(b"Connection: close\r\n", b"")
        with guarded(kind, StatusCheck.SOFT, tmp_path) as place:
            place.web.reply = place.say(ocsp.OCSPCertStatus.GOOD)
            with connected(place.server, place.context()) as tls:
                tls.sendall(request)
                answer(tls)
                place.web.reply = place.say(ocsp.OCSPCertStatus.REVOKED)
                assert b"" == tls.recv(1)
            assert place.curl() in CLOSED

    def test_client_without_certificate(self, kind: str, tmp_path: Path) -> None:
        """Where none is required, who shows none is asked after by nobody."""
        rules = ClientRules(
            is_required=False, authorities=(CA_.der,), status_check=StatusCheck.HARD
        )
        state = state_of(CA_.pair(CA_.issue("localhost", urls=())), client=rules)
        with serving(state, kind) as server:
            assert 0 == curl(server, "--insecure").status
