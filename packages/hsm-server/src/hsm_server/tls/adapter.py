# SPDX-License-Identifier: MIT
"""
Adapter: pyOpenSSL with the interface of Python's ssl module, for event loops.

Event loops take an `ssl.SSLContext` and use the result of its `wrap_bio`. This class
overrides that method and supports what Python's cannot: OCSP staples, a choice of
groups, alerts to rejected clients, and replacement between connections.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final, NoReturn, Self, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hsm_server.tls.contexts import (
    ACME_PROTOCOL,
    NoCommonProtocolError,
    Staples,
    challenge_context,
    server_context,
)
from hsm_server.tls.handshakes import (
    MAX_HELLO_BYTES,
    Attempt,
    MalformedHelloError,
    Outcome,
    check_groups,
    group_label,
    read_hello,
)
from hsm_server.tls.openssl import SSL, reason_of
from hsm_server.tls.state import ClientRules, ServerPair, TLSState

T = TypeVar("T")

ATTEMPT: Final[ContextVar[Attempt | None]] = ContextVar("ATTEMPT", default=None)
"""Called with the outcome of handshakes in its context."""

_RECORD_BYTES: Final = 16 * 1024
_HEADER_BYTES: Final = 5
"""Header of a TLS record, which ends with its length (RFC 8446, section 5.1)."""

_CHUNK_BYTES: Final = 64 * 1024
"""Maximum plaintext per encryption: OpenSSL's buffers never shrink."""

_HARMLESS_ALERTS: Final = frozenset({0, 90})
"""close_notify and user_canceled."""


class AdapterContext(ssl.SSLContext):
    """
    TLS context of a listener, with a replaceable state.

    Connections keep the state of their start, except for staples.

    Args:
        state: The initial state.

        allow_tls_1_2: Whether TLS 1.2 is allowed.

    Attributes:
        state: State of new connections.
        on_new_rules: Called after a change of the client rules.

    Raises:
        TLSStateError: *state* is not usable.
        ListenError: OpenSSL does not apply its configuration.
    """

    state: TLSState
    on_new_rules: Callable[[], None]
    _staples: Staples

    def __new__(cls, state: TLSState, *, allow_tls_1_2: bool = False) -> Self:
        """Make a context of Python's, of which no more is used."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, state: TLSState, *, allow_tls_1_2: bool = False) -> None:
        self.on_new_rules = lambda: None
        self._allow_tls_1_2 = allow_tls_1_2
        self._install(state)
        check_groups(self._answer)

    def use(self, state: TLSState) -> None:
        """
        Use another state for new connections.

        Raises:
            TLSStateError: It can't be used; the former one still is.
        """
        before = self.state
        self._install(state, before)
        if self.state.client != before.client:
            self.on_new_rules()

    def _install(self, state: TLSState, before: TLSState | None = None) -> None:
        challenges = {
            challenge.name: challenge_context(challenge)
            for challenge in state.challenges
        }
        if before is not None and state.client == before.client:
            # Connections keep these; they need not keep a copy each.
            state = msgspec.structs.replace(state, client=before.client)
        if before is not None and _differ_in_staples_alone(state, before):
            self._staples.put(state.pairs)
        else:
            staples = Staples(state.pairs)
            self._active = server_context(
                state,
                allow_tls_1_2=self._allow_tls_1_2,
                staples=staples,
                on_info=_note_alert,
            )
            self._staples = staples
        self.challenges = challenges
        self.state = state

    def wrap_bio(  # type: ignore[override]
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> TLSConnection:
        """Return the server's side of a connection that is about to begin."""
        if not server_side:
            raise ValueError("The TLS state of a listener is required.")
        attempt = ATTEMPT.get()
        return TLSConnection(
            self._active,
            self.challenges,
            incoming,
            outgoing,
            self.state.client,
            Attempt() if attempt is None else attempt,
        )

    def _answer(self, hello: bytes) -> bytes:
        """Return the response to a ClientHello."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(hello)
        connection = self.wrap_bio(incoming, outgoing, server_side=True)
        try:
            connection.do_handshake()
        except ssl.SSLError:
            return outgoing.read()
        raise AssertionError("One message makes no handshake.")


class TLSConnection:
    """
    Server side of one connection, with the interface of `ssl.SSLObject`.

    Data arrives through *incoming* and leaves through *outgoing*. Methods that need
    more input raise `ssl.SSLWantReadError`; other errors are `ssl.SSLError` too.

    Args:
        active: Context of the connection.

        challenges: Context for connections that request an ACME challenge.

        incoming: Input from the peer.

        outgoing: Output to the peer.

        rules: Client rules of *active*.

        attempt: Receives the outcome of the handshake.

    Attributes:
        rules: The same.
    """

    __slots__ = (
        "_active",
        "_attempt",
        "_begun",
        "_challenges",
        "_failure",
        "_header",
        "_incoming",
        "_is_challenge",
        "_is_drained",
        "_is_record",
        "_left",
        "_outgoing",
        "_peer",
        "_tls",
        "_undecrypted",
        "rules",
    )

    server_side: Final = True
    server_hostname: Final = None
    session: Final = None
    session_reused: Final = False

    def __init__(
        self,
        active: SSL.Context,
        challenges: dict[str, SSL.Context],
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        rules: ClientRules | None,
        attempt: Attempt,
    ) -> None:
        self.rules = rules
        self._challenges = challenges
        self._incoming = incoming
        self._outgoing = outgoing
        self._attempt = attempt
        self._begun = b""
        self._undecrypted = 0
        self._peer: bytes | None = None
        self._failure: ssl.SSLError | None = None
        self._is_challenge = False
        self._is_record = self._is_drained = False
        self._header, self._left = b"", 0
        self._tls = _server_side(active, attempt)

    def do_handshake(self) -> None:
        """Continue the handshake; an alert is sent before an error is raised."""
        if self._failure is not None:
            raise self._failure
        if self._challenges:
            self._choose()
        try:
            self._advance(self._shake)
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as error:
            self._fail(error)
        self._flush()
        name = "challenge" if self._is_challenge else "ok"
        self._attempt.outcome = Outcome(name, group_label(self.group()))

    def _choose(self) -> None:
        """Read what the client asks for, and begin with what answers that."""
        self._begun += self._incoming.read()
        try:
            hello = read_hello(self._begun)
        except MalformedHelloError:
            pass
        else:
            if hello is None and len(self._begun) <= MAX_HELLO_BYTES:
                raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "hello")
            if hello is not None and hello.protocols == (ACME_PROTOCOL,):
                challenge = self._challenges.get(hello.server_name)
                if challenge is not None:
                    self._is_challenge = True
                    self._tls = _server_side(challenge, self._attempt)
        self._tls.bio_write(self._begun)
        self._is_one_record(self._begun)
        self._undecrypted = len(self._begun)
        self._begun, self._challenges = b"", {}

    def _fail(self, error: ssl.SSLError) -> NoReturn:
        """
        Raise an error of the handshake, but only after its alert was sent.

        Event loops send nothing more after an error; so the first call reports
        that it needs more input, and the next one raises the error.
        """
        if self._attempt.outcome is None:
            self._attempt.outcome = Outcome("refused_other")
        self._attempt.on_failure()
        self._failure = error
        if self._outgoing.pending:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "alert") from None
        raise error from None

    def read(self, length: int = 1024, buffer: Any = None) -> Any:
        """
        Return decrypted bytes, at most one record of them; none are the end.

        Into a *buffer*, if there is one, of which at most *length* bytes are filled;
        then their number is returned.
        """
        if self._is_drained and not self._feed():
            # Loops ask after every read, and OpenSSL takes longer to find out.
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "more")
        try:
            if self._is_challenge:
                # The client has not authenticated.
                return b"" if buffer is None else 0
            if buffer is None:
                most = min(length, _RECORD_BYTES)
                found: Any = self._advance(lambda: self._tls.recv(most))
            else:
                found = self._advance(lambda: self._tls.recv_into(buffer, length))
            if self._is_record and not self._tls.pending():
                self._is_drained, self._undecrypted = True, 0
            return found
        except ssl.SSLZeroReturnError:
            return b"" if buffer is None else 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """
        Encrypt all of it, and return how much that is.

        Loops cut off what was taken from the front of the rest: that must not happen
        for each record of a large body.
        """
        view = memoryview(data).cast("B")
        if self._is_challenge:
            return len(view)
        for begin in range(0, len(view), _CHUNK_BYTES):
            try:
                self._tls.sendall(view[begin : begin + _CHUNK_BYTES])
            except SSL.Error as error:
                raise _as_ssl_error(error) from None
            self._flush()
        return len(view)

    def pending(self) -> int:
        """Return 0 if a read would surely give nothing."""
        return self._tls.pending() + self._undecrypted

    def unwrap(self) -> None:
        """
        Send a close_notify, and wait for the peer's.

        What the peer still sends before is thrown away: as an error it would keep our
        own farewell from being sent.
        """
        if not self._tls.get_shutdown() & SSL.SENT_SHUTDOWN:
            self._advance(self._tls.shutdown)
            self._flush()
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while True:
                self._advance(lambda: self._tls.recv(_RECORD_BYTES))

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except NoCommonProtocolError:
            # OpenSSL's own error must not stay in its queue, where it would be taken
            # for one of another connection.
            self._tls.do_handshake()

    def _advance(self, step: Callable[[], T]) -> T:
        """Take a step, fed with what has come in; send what it has to send."""
        if not self._undecrypted:
            self._feed()
        while True:
            try:
                return step()
            except SSL.WantReadError:
                self._undecrypted = 0
                if self._feed():
                    continue
                self._flush()
                raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "more") from None
            except SSL.Error as error:
                self._flush()
                raise _as_ssl_error(error) from None

    def _feed(self) -> bool:
        data = self._incoming.read(_CHUNK_BYTES)
        if data:
            self._tls.bio_write(data)
            self._is_record = self._is_one_record(data) and not self._undecrypted
            self._is_drained = False
            self._undecrypted += len(data)
        return bool(data)

    def _is_one_record(self, data: bytes) -> bool:
        """
        Return whether the next bytes of the client are exactly one record.

        All bytes must pass through here: within a record, some look like a header.
        """
        follows_record = not self._header and not self._left
        data, at, records = self._header + data, self._left, 0
        while len(data) - at >= _HEADER_BYTES:
            at += int.from_bytes(data[at + 3 : at + _HEADER_BYTES], "big")
            at += _HEADER_BYTES
            records += 1
        self._header, self._left = data[at:], max(0, at - len(data))
        return follows_record and records == 1 and at == len(data)

    def _flush(self) -> None:
        while True:
            try:
                data = self._tls.bio_read(_CHUNK_BYTES)
            except SSL.WantReadError:
                return
            self._outgoing.write(data)
            if len(data) < _CHUNK_BYTES:
                return

    def version(self) -> str:
        """Return the version of the protocol, such as ``TLSv1.3``."""
        return self._tls.get_protocol_version_name()

    def cipher(self) -> tuple[str, str, int] | None:
        """Return name, version and secret bits of the cipher suite."""
        name, bits = self._tls.get_cipher_name(), self._tls.get_cipher_bits()
        return (name, self.version(), bits or 0) if name is not None else None

    def compression(self) -> None:
        """Return None: there is none."""

    def selected_alpn_protocol(self) -> str | None:
        """Return the application protocol that was agreed on."""
        return self._tls.get_alpn_proto_negotiated().decode() or None

    def group(self) -> str:
        """Return the group of the key exchange, such as ``X25519MLKEM768``."""
        return self._tls.get_group_name() or ""

    def getpeercert(self, binary_form: bool = False) -> bytes | None:
        """Return the client's certificate, DER; there is no other form of it."""
        if not binary_form:
            return None
        if self._peer is None:
            found = self.peer_certificate()
            self._peer = found.public_bytes(Encoding.DER) if found is not None else b""
        return self._peer or None

    def peer_certificate(self) -> x509.Certificate | None:
        """Return the client's certificate; None if it has shown none."""
        return self._tls.get_peer_certificate(as_cryptography=True)

    def verified_chain(self) -> list[x509.Certificate]:
        """
        Return the client's chain as it was verified, its own certificate first.

        The last is one of the authorities; empty if the client has shown none.
        """
        return self._tls.get_verified_chain(as_cryptography=True) or []


def _differ_in_staples_alone(state: TLSState, before: TLSState) -> bool:
    """Return whether what OpenSSL is given for ordinary connections is the same."""
    return state.client == before.client and _bare(state.pairs) == _bare(before.pairs)


def _bare(pairs: Sequence[ServerPair]) -> list[ServerPair]:
    return [msgspec.structs.replace(pair, staple=b"") for pair in pairs]


def _server_side(context: SSL.Context, attempt: Attempt) -> SSL.Connection:
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    connection.set_app_data(attempt)
    return connection


def _note_alert(connection: SSL.Connection, where: int, value: int) -> None:
    """Record the alert of a handshake; called by OpenSSL at each step."""
    if not where & SSL.SSL_CB_ALERT:
        return
    attempt, number = connection.get_app_data(), value & 0xFF
    if attempt.outcome is None and number not in _HARMLESS_ALERTS:
        is_ours = bool(where & SSL.SSL_CB_WRITE)
        attempt.outcome = Outcome.by_alert(number, is_ours=is_ours)


def _as_ssl_error(error: SSL.Error) -> ssl.SSLError:
    """Return an error as event loops know it, with OpenSSL's words."""
    if isinstance(error, SSL.ZeroReturnError):
        return ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "closed")
    return ssl.SSLError(ssl.SSL_ERROR_SSL, reason_of(error))
