# SPDX-License-Identifier: MIT
"""What decides about handshakes: certificates, lists, OCSP responses, first words."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from hsm_core.errors import AuthenticationError
from hsm_server.certificates import certificate_facts
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.tls import ClientSettings, PairFiles
from hsm_server.tls.acme.cache import Account, Cache, Stored
from hsm_server.tls.files import parse_client, parse_pairs
from hsm_server.tls.handshakes import MalformedHelloError, read_hello
from hsm_server.tls.ocsp.fetch import allowed_url, redirected
from hsm_server.tls.ocsp.request import UnusableError, is_must_staple, responders_of
from hsm_server.tls.ocsp.response import check_response
from hsm_server.tls.ocsp.staples import read_staples
from hsm_server.tls.state import TLSState, pack_state, read_state
from tests.fuzzing.stored_forms import NothingReadError, wanted
from tests.fuzzing.target import Target, own_folder
from tests.pki import CLIENT, SERVER, self_signed_root
from tests.server.ocsp_support import CA, now_utc
from tests.server.test_tls_hello import REAL

_PAIR: Final = PairFiles(cert=Path("cert.pem"), key=Path("key.pem"))
_CLIENTS: Final = ClientSettings(ca=Path("ca.pem"), crls=(Path("crl.pem"),))


def targets() -> list[Target]:
    """Return a target for each form."""
    return [
        *_ocsp(),
        _addresses(),
        *_server_files(),
        *_client_files(),
        _client_certificate(),
        _acme_cache(),
        _hello(),
        _state(),
    ]


def _ocsp() -> list[Target]:
    authority = CA()
    server, delegate = authority.issue(), authority.delegate()
    subject, now = authority.subject(server), now_utc()
    answers = [
        authority.answer(server),
        authority.answer(server, nonce=b"n" * 16, valid=None),
        authority.answer(server, signer=delegate, shows=(delegate,)),
    ]
    path = own_folder() / "staple"

    def read_file(data: bytes) -> object:
        path.write_bytes(data)
        return wanted(read_staples([path], [subject], now).answers)

    lines = x509.ocsp.load_der_ocsp_response(answers[0]).public_bytes(Encoding.DER)
    return [
        Target(
            name="ocsp-response",
            readers=(
                lambda data: check_response(data, subject, now),
                lambda data: check_response(data, subject, now, b"n" * 16),
            ),
            seeds=answers,
            refusals=(UnusableError,),
        ),
        Target(
            name="staple-file",
            readers=(read_file,),
            seeds=(answers[0], _pem("OCSP RESPONSE", lines)),
            refusals=(NothingReadError,),
        ),
    ]


def _pem(label: str, der: bytes) -> bytes:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()


def _addresses() -> Target:
    asked = allowed_url("http://ocsp.example.com/a/b?c=d")

    def text_of(data: bytes) -> str:
        return data.decode("utf-8", "replace")

    return Target(
        name="ocsp-address",
        readers=(
            lambda data: allowed_url(text_of(data)),
            lambda data: redirected(asked, text_of(data)),
        ),
        seeds=(b"http://ocsp.example.com/", b"/other", b"https://[2001:db8::1]:8/x"),
        refusals=(UnusableError,),
        longest=3000,
    )


def _server_files() -> list[Target]:
    issued = self_signed_root("root").authority("middle").issue("server", use=SERVER)
    above = [c.public_bytes(Encoding.PEM) for c in issued.above[:1]]
    cert = b"".join([issued.certificate.public_bytes(Encoding.PEM), *above])
    pkcs8 = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    older = issued.key.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    now = datetime.now(UTC)

    def read(cert: bytes, key: bytes) -> object:
        return parse_pairs([_PAIR], {_PAIR.cert: cert, _PAIR.key: key}, now)

    return [
        Target(
            name="server-certificate",
            readers=(lambda data: read(data, pkcs8),),
            seeds=(cert,),
            refusals=(ListenError,),
        ),
        Target(
            name="server-key",
            readers=(lambda data: read(cert, data),),
            seeds=(pkcs8, older),
            refusals=(ListenError,),
            longest=1024,
        ),
    ]


def _client_files() -> list[Target]:
    root = self_signed_root("root")
    revoked = root.issue("client", use=CLIENT)
    listed = root.revocation_list(revoked.certificate)
    ca = root.certificate.public_bytes(Encoding.PEM)
    now = datetime.now(UTC) + timedelta(seconds=1)

    def read(ca: bytes, crl: bytes) -> object:
        contents = {_CLIENTS.ca: ca, _CLIENTS.crls[0]: crl}
        rules, problem = parse_client(_CLIENTS, contents, now)
        if problem:
            raise ListenError(problem)
        return rules

    return [
        Target(
            name="client-authorities",
            readers=(lambda data: read(data, listed),),
            seeds=(ca,),
            refusals=(ListenError,),
        ),
        Target(
            name="revocation-list",
            readers=(lambda data: read(ca, data),),
            seeds=(listed, _pem("X509 CRL", listed)),
            refusals=(ListenError,),
        ),
    ]


def _client_certificate() -> Target:
    names: list[x509.GeneralName] = [
        x509.DNSName("Host.example.com"),
        x509.RFC822Name("A@Example.com"),
        x509.UniformResourceIdentifier("spiffe://a/b"),
    ]
    issued = self_signed_root("root").issue("client", names=names)
    responder = CA().issue(must_staple=True)

    def read(data: bytes) -> object:
        certificate_facts.cache_clear()
        facts = certificate_facts(data)
        if not data:
            raise NothingReadError
        found = x509.load_der_x509_certificate(data)
        return facts, responders_of(found), is_must_staple(found)

    return Target(
        name="client-certificate",
        readers=(read,),
        seeds=(issued.der, responder.der),
        refusals=(AuthenticationError, NothingReadError),
    )


def _acme_cache() -> Target:
    """Return the target of what is kept of a CA; what is no good counts as absent."""
    folder = own_folder()
    cache = Cache(folder, "https://ca.example.com/directory")
    cache.prepare()
    cache.new_account_key()
    cache.keep_account(
        Account(uri="https://ca/1", contacts=("a@b",), key_digest="ab" * 32)
    )
    cache.keep_pause(9.5)
    issued = self_signed_root("root").issue("server", use=SERVER)
    cache.keep_certificate(Stored(issued.key, (issued.certificate,)))
    names = ("account-key.pem", "account.json", "pause.json", "certificate.pem")
    paths = [cache.folder / name for name in names]

    def read(data: bytes) -> object:
        for path in paths:
            path.write_bytes(data)
        found = (cache.account_key(), cache.account(), cache.certificate())
        return wanted(cache.pause() or any(found))

    return Target(
        name="acme-cache",
        readers=(read,),
        seeds=[path.read_bytes() for path in paths],
        refusals=(NothingReadError,),
        longest=2048,
    )


def _hello() -> Target:
    return Target(
        name="client-hello",
        readers=(lambda data: wanted(read_hello(data)),),
        seeds=(REAL,),
        refusals=(MalformedHelloError, NothingReadError),
    )


def _state() -> Target:
    root = self_signed_root("root")
    state = TLSState(generation=3, pairs=(root.issue("s", use=SERVER).pair,))
    return Target(
        name="tls-state",
        readers=(read_state,),
        seeds=(pack_state(state),),
        refusals=(msgspec.MsgspecError, ValueError),
    )
