# SPDX-License-Identifier: MIT
"""Conversion of a TLS state to OpenSSL contexts, and a trial handshake with them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NoReturn

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hsm_server.config.exit_codes import ListenError
from hsm_server.tls.certificates import der_of
from hsm_server.tls.openssl import SSL, crypto, reason_of
from hsm_server.tls.state import Challenge, ClientRules, ServerPair, TLSState

ACME_PROTOCOL: Final = b"acme-tls/1"
"""ALPN protocol of TLS-ALPN-01 (RFC 8737, section 3)."""

MAX_INTERMEDIATES: Final = 4
"""Maximum number of intermediate CAs."""

_MOST_NAME_BYTES: Final = 16 * 1024
"""Most CA names sent to clients; with more a handshake can fail."""

_HTTP: Final = b"http/1.1"
_SESSION_ID_CONTEXT: Final = b"ferrohsm"

Info = Callable[[SSL.Connection, int, int], None]


class TLSStateError(ListenError):
    """The TLS state is not usable; the previous one stays in use."""


class NoCommonProtocolError(Exception):
    """The client offers no supported application protocol."""


class Staples:
    """
    Staples of the certificates; contexts use the latest.

    Args:
        pairs: Certificates with their staples.
    """

    def __init__(self, pairs: Sequence[ServerPair]) -> None:
        self.put(pairs)

    def put(self, pairs: Sequence[ServerPair]) -> None:
        """Let these be shown from the next handshake on."""
        self._by_certificate = {pair.chain[0]: pair.staple for pair in pairs}

    def staple(self, connection: SSL.Connection, data: object) -> bytes:
        """Return the staple of the certificate that a connection shows, or nothing."""
        if len(self._by_certificate) == 1:
            return next(iter(self._by_certificate.values()))
        shown = connection.get_certificate(as_cryptography=True)
        if shown is None:
            return b""
        return self._by_certificate.get(der_of(shown), b"")


def server_context(
    state: TLSState,
    *,
    allow_tls_1_2: bool = False,
    staples: Staples | None = None,
    on_info: Info | None = None,
) -> SSL.Context:
    """
    Return the context of ordinary connections.

    Args:
        state: Certificates and client rules.

        allow_tls_1_2: Whether TLS 1.2 is spoken too.

        staples: ServerCertificate instead of those in *state*.

        on_info: Callback of OpenSSL (SSL_CTX_set_info_callback(3)).

    Raises:
        TLSStateError: Something in *state* can't be used.

    Standard:
        RFC 8446; RFC 9325, section 3; client certificates by RFC 5280, strictly.
    """
    context = _context(state.pairs, _HTTP, allow_tls_1_2=allow_tls_1_2)
    context.set_ocsp_server_callback((staples or Staples(state.pairs)).staple)
    if state.client is not None:
        _demand_certificates(context, state.client)
    if on_info is not None:
        context.set_info_callback(on_info)
    return context


def challenge_context(challenge: Challenge) -> SSL.Context:
    """
    Return the context of connections that want to see a challenge, and no more.

    Raises:
        TLSStateError: Its pair can't be used.

    Standard:
        RFC 8737, section 3; its provers may speak TLS 1.2.
    """
    return _context([challenge.pair], ACME_PROTOCOL, allow_tls_1_2=True)


def _context(
    pairs: Sequence[ServerPair], protocol: bytes, *, allow_tls_1_2: bool
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(
        SSL.TLS1_2_VERSION if allow_tls_1_2 else SSL.TLS1_3_VERSION
    )
    # In TLS 1.2 forward secrecy and authenticated encryption are a choice.
    context.set_cipher_list(b"ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_options(
        SSL.OP_NO_RENEGOTIATION
        | SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_TICKET
        | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(_SESSION_ID_CONTEXT)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_alpn_select_callback(_chooser(protocol))
    for pair in pairs:
        _use_pair(context, pair)
    return context


def _chooser(protocol: bytes) -> Callable[[SSL.Connection, list[bytes]], bytes]:
    def choose(connection: SSL.Connection, offered: list[bytes]) -> bytes:
        if protocol not in offered:
            # The alert is no_application_protocol (RFC 7301, section 3.2).
            raise NoCommonProtocolError
        return protocol

    return choose


def _use_pair(context: SSL.Context, pair: ServerPair) -> None:
    """
    Show a certificate, with its chain and its key.

    What OpenSSL takes from memory has one chain for all certificates, and no key of
    ML-DSA; so it is given files, which are in memory too.
    """
    try:
        chain = [x509.load_der_x509_certificate(der) for der in pair.chain]
    except ValueError:
        _refuse("A certificate is malformed.")
    try:
        with _file(b"".join(c.public_bytes(Encoding.PEM) for c in chain)) as path:
            context.use_certificate_chain_file(path)
    except SSL.Error as error:
        _refuse(f"Cannot use a certificate or its chain ({reason_of(error)}).")
    try:
        with _file(pair.key) as path:
            context.use_privatekey_file(path, crypto.FILETYPE_ASN1)
        context.check_privatekey()
    except SSL.Error:
        # OpenSSL's message about a key is not disclosed.
        _refuse("A private key is malformed or does not match its certificate.")


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Yield the path of an anonymous file."""
    descriptor = os.memfd_create("ferrohsm-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _demand_certificates(context: SSL.Context, rules: ClientRules) -> None:
    store = context.get_cert_store()
    if store is None:
        raise AssertionError("A context has a store.")
    try:
        authorities = list(map(x509.load_der_x509_certificate, rules.authorities))
        for authority in authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
        _tell_names(context, authorities)
        for der in rules.revocation_lists:
            store.add_crl(x509.load_der_x509_crl(der))
    except (ValueError, SSL.Error, crypto.Error):
        _refuse("Cannot use a CA certificate or CRL for client certificates.")
    flags = crypto.X509StoreFlags.X509_STRICT | crypto.X509StoreFlags.PARTIAL_CHAIN
    if rules.revocation_lists:
        flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
    store.set_flags(flags)
    context.set_verify_depth(MAX_INTERMEDIATES)
    mode = SSL.VERIFY_PEER
    if rules.is_required:
        mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    context.set_verify(mode)


def _tell_names(context: SSL.Context, authorities: list[x509.Certificate]) -> None:
    """Let clients know whose certificates count, if that is not too much to send."""
    if sum(len(one.subject.public_bytes()) for one in authorities) <= _MOST_NAME_BYTES:
        for authority in authorities:
            context.add_client_ca(authority)


def _refuse(message: str) -> NoReturn:
    raise TLSStateError(message) from None


_MOST_TURNS: Final = 10
_RECORD_BYTES: Final = 64 * 1024


def try_state(state: TLSState) -> None:
    """
    Show each certificate of a state to a client, in memory.

    Raises:
        ListenError: The state can't be used, or no connection comes of it.
    """
    server_context(state)
    for challenge in state.challenges:
        challenge_context(challenge)
    rules = state.client
    if rules is not None:
        rules = msgspec.structs.replace(rules, is_required=False, revocation_lists=())
    for pair in state.pairs:
        alone = msgspec.structs.replace(state, pairs=(pair,), client=rules)
        if _shake_hands(server_context(alone)) != pair.chain[0]:
            raise ListenError(
                "The new certificate is not the one that a client receives."
            )


def _shake_hands(context: SSL.Context) -> bytes:
    """Return the certificate that a client without verification receives."""
    server = SSL.Connection(context, None)
    server.set_accept_state()
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_connect_state()
    waiting = [client, server]
    for _ in range(_MOST_TURNS):
        for side, other in ((client, server), (server, client)):
            if side in waiting and _is_done(side):
                waiting.remove(side)
            _carry(side, other)
        if not waiting:
            seen = client.get_peer_certificate(as_cryptography=True)
            return der_of(seen) if seen is not None else b""
    raise ListenError("A test connection with the new certificate did not complete.")


def _is_done(side: SSL.Connection) -> bool:
    try:
        side.do_handshake()
    except SSL.WantReadError:
        return False
    except SSL.Error as error:
        raise ListenError(
            f"A test connection with the new certificate failed ({reason_of(error)})."
        ) from None
    return True


def _carry(side: SSL.Connection, other: SSL.Connection) -> None:
    """Let one side have what the other has said."""
    try:
        other.bio_write(side.bio_read(_RECORD_BYTES))
    except SSL.WantReadError:
        return
