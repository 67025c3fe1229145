# SPDX-License-Identifier: MIT
"""Responders are asked with limits, and nothing that they do does harm."""

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest
from cryptography.x509 import ocsp
from yarl import URL

from hsm_server.tls.ocsp.fetch import (
    BoundedResolver,
    Responders,
    allowed_url,
    redirected,
)
from hsm_server.tls.ocsp.request import Fault, UnusableError
from hsm_server.tls.ocsp.response import MAX_RESPONSE_BYTES, Status
from hsm_server.tls.state import SystemClock
from tests.pki import SERVER, Issued, self_signed_root
from tests.server.ocsp_support import CA, Asked, Reply, Web, failure, http

CA_: Final = CA()
PATIENT: Final = 10.0
HASTY: Final = 0.5
TRICKLE: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def responders() -> AsyncIterator[Responders]:
    """Give a client of responders."""
    client = Responders(SystemClock())
    yield client
    await client.close()


async def ask(
    responders: Responders, server: Issued, seconds: float = PATIENT
) -> Status:
    """Ask after a certificate, and return what is said."""
    return (await responders.ask(CA_.subject(server), seconds)).status


def good(server: Issued) -> Reply:
    """Return what answers that all is well, with the nonce that was sent."""
    return lambda asked: http(CA_.answer(server, nonce=asked.nonce))


class TestResponders:
    async def test_good(self, responders: Responders) -> None:
        """A responder is asked by POST, with a fresh nonce, and believed."""
        async with Web(lambda asked: b"").serve() as web:
            server = CA_.issue(urls=(web.url,))
            web.reply = good(server)
            status = await ask(responders, server)
            await ask(responders, server)
        asked, again = web.asked

        assert Status.GOOD is status
        assert ("POST", "/") == (asked.method, asked.target)
        assert "application/ocsp-request" in asked.headers
        assert 32 == len(asked.nonce)
        assert asked.nonce != again.nonce

    async def test_responder_with_https(
        self, responders: Responders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The CAs of the system are trusted, which the process has not loaded yet."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued = self_signed_root("Web").issue("web", use=SERVER)
        context.load_cert_chain(*issued.write(tmp_path, "web"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "web.pem"))
        async with Web(lambda asked: b"", context).serve() as web:
            server = CA_.issue(urls=(web.url,))
            web.reply = good(server)

            assert Status.GOOD is await ask(responders, server)

    @pytest.mark.parametrize("status", ["405 No", "404 No", "501 No", "malformed"])
    async def test_responder_without_post(
        self, responders: Responders, status: str
    ) -> None:
        """Who doesn't take that is asked by GET, without a nonce."""
        async with Web(lambda asked: b"").serve() as web:
            server = CA_.issue(urls=(web.url + "ocsp",))
            refusal = http(b"", status)
            if status == "malformed":
                refusal = http(failure(ocsp.OCSPResponseStatus.MALFORMED_REQUEST))

            def reply(asked: Asked) -> bytes:
                return refusal if asked.method == "POST" else http(CA_.answer(server))

            web.reply = reply
            found = await ask(responders, server)
        target = web.asked[1].target.removeprefix("/ocsp/")
        request = ocsp.load_der_ocsp_request(base64.b64decode(unquote(target)))

        assert Status.GOOD is found
        assert ["POST", "GET"] == [asked.method for asked in web.asked]
        assert server.certificate.serial_number == request.serial_number
        assert not list(request.extensions)
        assert not {"/", "+", "="} & set(target)

    @pytest.mark.parametrize(
        ("reply", "fault"),
        [
            pytest.param(b"", Fault.UNREACHABLE, id="closed"),
            pytest.param(b"no HTTP at all\r\n\r\n", Fault.UNREACHABLE, id="no-http"),
            pytest.param(http(b""), Fault.GARBAGE, id="empty"),
            pytest.param(http(b"<html>"), Fault.GARBAGE, id="garbage"),
            pytest.param(http(b"x", "500 Oh"), Fault.HTTP_STATUS, id="500"),
            pytest.param(http(b"x", "404 Oh"), Fault.HTTP_STATUS, id="404"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
                Fault.TOO_LARGE,
                id="huge",
            ),
            pytest.param(
                b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MAX_RESPONSE_BYTES + 1),
                Fault.TOO_LARGE,
                id="huge-unannounced",
            ),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
                Fault.UNREACHABLE,
                id="cut-off",
            ),
            pytest.param(
                TRICKLE + b"5\r\nabc", Fault.UNREACHABLE, id="chunked-without-end"
            ),
            pytest.param(
                http(b"", "302 Found", "Location: /\r\n"), Fault.REDIRECT, id="loop"
            ),
            pytest.param(
                http(b"", "302 Found", "Location: http://127.0.0.2/\r\n"),
                Fault.REDIRECT,
                id="elsewhere",
            ),
            pytest.param(
                http(b"", "302 Found", "Location: file:///etc/passwd\r\n"),
                Fault.ADDRESS,
                id="file",
            ),
            pytest.param(http(b"", "303 See"), Fault.HTTP_STATUS, id="see-other"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
                Fault.UNREACHABLE,
                id="endless-header",
            ),
            pytest.param(
                http(b"\x1f\x8b", headers="Content-Encoding: gzip\r\n"),
                Fault.GARBAGE,
                id="compressed",
            ),
        ],
    )
    async def test_bad_answer(
        self, responders: Responders, reply: bytes, fault: Fault
    ) -> None:
        """Whatever comes instead of a response is told as what it is, in time."""
        async with Web(lambda asked: reply).serve() as web:
            server = CA_.issue(urls=(web.url,))
            with pytest.raises(UnusableError) as caught:
                await ask(responders, server)

        assert fault is caught.value.fault
        assert len(web.asked) <= 4

    async def test_endless_trickle(self, responders: Responders) -> None:
        """An answer that goes on for ever is given up."""
        web = Web(lambda asked: TRICKLE)
        web.is_trickling = True
        began = time.monotonic()
        async with web.serve():
            server = CA_.issue(urls=(web.url,))
            with pytest.raises(UnusableError, match="slow"):
                await ask(responders, server, HASTY)
            web.is_trickling = False

        assert time.monotonic() - began < 20 * HASTY

    async def test_nobody_there(self, responders: Responders) -> None:
        """A port where nobody listens is unreachable."""
        async with Web(lambda asked: b"").serve() as web:
            server = CA_.issue(urls=(web.url,))
        with pytest.raises(UnusableError, match="unreachable"):
            await ask(responders, server)

    async def test_second_responder(self, responders: Responders) -> None:
        """They are asked in order; one that hangs leaves time for the next."""
        silent = Web(lambda asked: TRICKLE)
        silent.is_trickling = True
        async with silent.serve(), Web(lambda asked: b"").serve() as web:
            server = CA_.issue(urls=(silent.url, web.url))
            web.reply = good(server)

            assert Status.GOOD is await ask(responders, server, 2.0)
            assert silent.asked
            silent.is_trickling = False

    async def test_redirect(self, responders: Responders) -> None:
        """A redirect to another page of the same host is followed with the same."""

        def reply(asked: Asked) -> bytes:
            if asked.target == "/":
                return http(b"", "307 There", "Location: /there\r\n")
            return good(server)(asked)

        async with Web(reply).serve() as web:
            server = CA_.issue(urls=(web.url,))

            assert Status.GOOD is await ask(responders, server)

    async def test_other_nonce(self, responders: Responders) -> None:
        """A response to somebody else's request isn't ours."""
        async with Web(lambda asked: b"").serve() as web:
            server = CA_.issue(urls=(web.url,))
            web.reply = lambda asked: http(CA_.answer(server, nonce=bytes(32)))
            with pytest.raises(UnusableError, match="nonce"):
                await ask(responders, server)

    async def test_proxy_of_the_environment(
        self, responders: Responders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No proxy is asked, whatever the environment says."""
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
        async with Web(lambda asked: b"").serve() as web:
            server = CA_.issue(urls=(web.url,))
            web.reply = good(server)

            assert Status.GOOD is await ask(responders, server)


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        [
            "file:///etc/passwd",
            "ldap://ca.test/",
            "gopher://127.0.0.1:25/",
            "http://user@ca.test/",
            "http://169.254.169.254/latest/meta-data",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://224.0.0.1/",
            "http://ca.test:port/",
            "http://",
            "ca.test",
            "",
            "http://ca.test/" + "x" * 2048,
        ],
    )
    def test_refused_address(self, url: str) -> None:
        """An address of another kind, or of no responder, is not asked."""
        with pytest.raises(UnusableError, match="address"):
            allowed_url(url)

    @pytest.mark.parametrize(
        "url",
        ["http://ca.test/", "https://ca.test:8443/ocsp", "http://10.1.2.3/"],
    )
    def test_allowed_address(self, url: str) -> None:
        """HTTP and HTTPS are asked, in private networks too."""
        assert url == str(allowed_url(url))

    def test_redirect_to_https(self) -> None:
        """A redirect of the same host may change to the port of HTTPS."""
        there = redirected(URL("http://ca.test:8080/"), "https://ca.test/")

        assert "https://ca.test/" == str(there)
        with pytest.raises(UnusableError):
            redirected(URL("http://ca.test:8080/"), "http://ca.test:22/")

    async def test_resolver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name that leads to a refused address alone leads nowhere."""
        loop = asyncio.get_running_loop()

        async def getaddrinfo(*args: object, **kwargs: object) -> list[object]:
            return [(2, 1, 6, "", ("169.254.169.254", 80))]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        with pytest.raises(OSError, match="no allowed address"):
            await BoundedResolver().resolve("metadata.test", 80)
