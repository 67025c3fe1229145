# SPDX-License-Identifier: MIT
"""A CA whose responder says what a test wants, also over HTTP and as nobody should."""

import asyncio
import contextlib
import heapq
import itertools
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from hsm_server.tls.ocsp.request import Fault, Subject, UnusableError, subject_of
from hsm_server.tls.ocsp.response import VerifiedResponse, check_response
from hsm_server.tls.state import ServerPair
from tests.pki import SERVER, Issued, Issuer, digest_for, self_signed_root

URL = "http://responder.test/"
HOUR = timedelta(hours=1)
SHA1 = hashes.SHA1()  # noqa: S303 (names certificates, signs nothing)


def now_utc() -> datetime:
    """Return the time, in whole seconds as responses have it."""
    return datetime.now(UTC).replace(microsecond=0)


class CA:
    """Issues certificates, and speaks of them."""

    def __init__(
        self,
        common_name: str = "test CA",
        key: Any = None,
        issuer: Issuer | None = None,
    ) -> None:
        self.root = issuer or self_signed_root(common_name, below=0, key=key)
        self.key: Any = self.root.key
        self.certificate = self.root.certificate

    @property
    def der(self) -> bytes:
        """Its certificate."""
        return self.root.der

    def issue(
        self,
        common_name: str = "server",
        *,
        urls: tuple[str, ...] = (URL,),
        usage: x509.ObjectIdentifier | None = SERVER,
        must_staple: bool = False,
        days: tuple[float, float] = (-1, 1),
        key: Any = None,
    ) -> Issued:
        """Issue a certificate, valid from and to some days from now."""
        more: list[x509.ExtensionType] = [_access(urls)] if urls else []
        if must_staple:
            more.append(x509.TLSFeature([x509.TLSFeatureType.status_request]))
        begin, end = (timedelta(days=number) for number in days)
        return self.root.issue(
            common_name, use=usage, begin=begin, end=end, key=key, more=more
        )

    def delegate(self, **changes: Any) -> Issued:
        """Issue the certificate of a responder."""
        changes.setdefault("usage", ExtendedKeyUsageOID.OCSP_SIGNING)
        return self.issue("responder", urls=(), **changes)

    def subject(self, holder: Issued) -> Subject:
        """Return a certificate of its as what is asked after."""
        subject = subject_of([holder.der, self.der])
        assert subject is not None
        return subject

    def pair(self, holder: Issued) -> ServerPair:
        """Return a certificate of its as what a listener shows."""
        chain = (holder.der, self.der)  # curl looks for the issuer in it
        return ServerPair(chain=chain, key=holder.key_der, issuer=self.der)

    def answer(
        self,
        holder: Issued,
        *,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        this_update: datetime | None = None,
        valid: timedelta | None = HOUR,
        nonce: bytes = b"",
        signer: Issued | None = None,
        shows: tuple[Issued, ...] = (),
        issuer: x509.Certificate | None = None,
        digest: hashes.HashAlgorithm | None = None,
        by_name: bool = False,
    ) -> bytes:
        """Say something of a certificate, right in all that isn't given."""
        signer = signer or self.root
        this_update = this_update or now_utc() - timedelta(minutes=1)
        is_revoked = status is ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            holder.certificate,
            issuer or self.certificate,
            digest or SHA1,
            status,
            this_update,
            this_update + valid if valid is not None else None,
            this_update if is_revoked else None,
            x509.ReasonFlags.key_compromise if is_revoked else None,
        )
        encoding = ocsp.OCSPResponderEncoding
        builder = builder.responder_id(
            encoding.NAME if by_name else encoding.HASH, signer.certificate
        )
        if shows:
            builder = builder.certificates([one.certificate for one in shows])
        if nonce:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        response = builder.sign(signer.key, digest_for(signer.key))
        return response.public_bytes(Encoding.DER)


def _access(urls: tuple[str, ...]) -> x509.AuthorityInformationAccess:
    return x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(
                AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url)
            )
            for url in urls
        ]
    )


def twice(der: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a response whose one entry is in it twice, signed again."""
    response = ocsp.load_der_ocsp_response(der)
    responder, produced, entries = _members(response.tbs_response_bytes)
    entry = _members(entries)[0]
    tbs = _tlv(0x30, responder + produced + _tlv(0x30, entry + entry))
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    algorithm = _tlv(0x30, bytes.fromhex("06082a8648ce3d040302"))
    basic = _tlv(0x30, tbs + algorithm + _tlv(0x03, b"\0" + signature))
    kind = bytes.fromhex("06092b0601050507300101")
    inner = _tlv(0x30, kind + _tlv(0x04, basic))
    return _tlv(0x30, bytes.fromhex("0a0100") + _tlv(0xA0, inner))


def _tlv(tag: int, content: bytes) -> bytes:
    """Return a DER element, shorter than 64 KiB."""
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    coded = size.to_bytes(1 if size < 256 else 2)
    return bytes([tag, 0x80 | len(coded)]) + coded + content


def _members(element: bytes) -> list[bytes]:
    """Return what is in a DER element."""
    content, found = element[_head_bytes(element) :], []
    while content:
        head = _head_bytes(content)
        coded = content[2:head]
        end = head + (int.from_bytes(coded) if coded else content[1])
        found.append(content[:end])
        content = content[end:]
    return found


def _head_bytes(element: bytes) -> int:
    return 2 + (element[1] & 0x7F if element[1] & 0x80 else 0)


def failure(status: ocsp.OCSPResponseStatus) -> bytes:
    """Return a response that says only why there is none."""
    response = ocsp.OCSPResponseBuilder.build_unsuccessful(status)
    return response.public_bytes(Encoding.DER)


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """Return an answer of a web server."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


@dataclass
class Asked:
    """A request as it came."""

    method: str
    target: str
    headers: str
    body: bytes

    @property
    def nonce(self) -> bytes:
        """The nonce in it, or nothing."""
        for extension in self.request.extensions:
            if isinstance(extension.value, x509.OCSPNonce):
                return extension.value.nonce
        return b""

    @property
    def request(self) -> ocsp.OCSPRequest:
        """What is asked, if by POST."""
        return ocsp.load_der_ocsp_request(self.body)


Reply = Callable[[Asked], bytes]


class Web:
    """
    A web server on loopback that answers with any bytes.

    Args:
        reply: Gives the bytes.

        tls: Its certificate; None serves HTTP.

    Attributes:
        reply: Gives the bytes.
        is_trickling: Whether a byte of garbage follows twice in a second, for ever.
        is_up: Whether it listens.
        asked: What has come.
    """

    def __init__(self, reply: Reply, tls: ssl.SSLContext | None = None) -> None:
        self.reply = reply
        self._tls = tls
        self.is_trickling = False
        self.asked: list[Asked] = []
        self.port = 0
        self.is_up = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/"

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator["Web"]:
        """Answer, until the context ends."""
        server = await asyncio.start_server(
            self._answer, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = server.sockets[0].getsockname()[1]
        self.is_up = True
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._talk(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asked = await _read_request(reader)
            self.asked.append(asked)
            writer.write(self.reply(asked))
            await writer.drain()
            while self.is_trickling:
                await asyncio.sleep(0.5)
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
            writer.close()
            await writer.wait_closed()


async def _read_request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, _, headers = head.partition("\r\n")
    method, target, _ = line.split()
    length = 0
    for header in headers.splitlines():
        field_name, _, value = header.partition(":")
        if field_name.lower() == "content-length":
            length = int(value)
    return Asked(method, target, headers, await reader.readexactly(length))


@dataclass
class FakeClock:
    """Time that a test moves on."""

    at: datetime = field(default_factory=now_utc)
    run: float = 1000.0
    _sleepers: list[tuple[float, int, asyncio.Future[None]]] = field(
        default_factory=list
    )
    _order: Any = field(default_factory=itertools.count)

    def now(self) -> datetime:
        """Return the wall time."""
        return self.at

    def seconds(self) -> float:
        """Return the seconds of the other clock."""
        return self.run

    async def sleep(self, seconds: float) -> None:
        """Wait until a test has moved the clock that far."""
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.run + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everybody do what they do in it."""
        await settle()
        end = self.run + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._move(max(0.0, due - self.run))
            if not future.done():
                future.set_result(None)
                await settle()
        self._move(end - self.run)
        await settle()

    def _move(self, seconds: float) -> None:
        self.run += seconds
        self.at += timedelta(seconds=seconds)


async def settle() -> None:
    """Let everything run that can, without time passing."""
    for _ in range(30):
        await asyncio.sleep(0)


class Responder:
    """
    Answers by a test's clock, by default that all is well for a day.

    Attributes:
        fault: Why there is no answer, if there is none.
        status: What is said.
        valid: For how long.
        age: How old that is.
        takes: Seconds until there is an answer; for ever, if it hangs.
        asked: When it was asked.
        most_at_once: How many questions there were at one time, at most.
    """

    def __init__(self, ca: CA, clock: FakeClock) -> None:
        self._ca = ca
        self._clock = clock
        self.fault: Fault | None = None
        self.status = ocsp.OCSPCertStatus.GOOD
        self.valid = timedelta(days=1)
        self.age = timedelta(0)
        self.takes = 0.0
        self.hangs = False
        self.asked: list[float] = []
        self._at_once = self.most_at_once = 0

    async def ask(self, subject: Subject, seconds: float) -> VerifiedResponse:
        """Answer."""
        self.asked.append(self._clock.run)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.hangs:
                await self._clock.sleep(seconds)
                raise UnusableError(Fault.SLOW)
            if self.takes:
                await self._clock.sleep(self.takes)
        finally:
            self._at_once -= 1
        if self.fault:
            raise UnusableError(self.fault)
        der = self._ca.answer(
            Issued(subject.certificate, None),
            status=self.status,
            this_update=self._clock.at.replace(microsecond=0) - self.age,
            valid=self.valid,
        )
        return check_response(der, subject, self._clock.at)

    async def close(self) -> None:
        """Do nothing."""
