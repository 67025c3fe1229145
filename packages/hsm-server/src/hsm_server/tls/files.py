# SPDX-License-Identifier: MIT
"""
Certificates, private keys and revocation lists as files hold them: read, then checked.

Reading and checking are apart, so that what was read can be compared with what was read
before: files are written in their time, and not all at one time.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from hsm_core.errors import UnsafeFileModeError
from hsm_core.secret_input import is_open_to_others
from hsm_server.certificates import UNREADABLE
from hsm_server.exit_codes import ListenError
from hsm_server.settings import ClientSettings, PairFiles
from hsm_server.tls.certificates import check_chain, kind_of
from hsm_server.tls.private_keys import read_private_key
from hsm_server.tls.regular import NotRegularError, open_regular
from hsm_server.tls.state import ClientRules, ServerPair

__all__ = [
    "Contents",
    "digest_of",
    "parse_client",
    "parse_pairs",
    "read_client_files",
    "read_pair_files",
]

_MOST_BYTES: Final = 1024 * 1024
_MOST_CRL_BYTES: Final = 16 * 1024 * 1024

Contents = Mapping[Path, bytes]
"""What each file holds; private keys are in it."""


def read_pair_files(pairs: Sequence[PairFiles]) -> Contents:
    """
    Return what files of certificates and keys hold.

    Raises:
        UnsafeFileModeError: A private key is not its owner's alone.
        ListenError: A file can't be read, is none, or is too long.
    """
    contents = {}
    for pair in pairs:
        contents[pair.cert] = _read(pair.cert, "certificate")
        contents[pair.key] = _read(pair.key, "private key", _check_key_file)
    return contents


def read_client_files(settings: ClientSettings) -> Contents:
    """
    Return what files about clients hold.

    Raises:
        ListenError: A file can't be read, is none, or is too long.
    """
    contents = {settings.ca: _read(settings.ca, "client CA")}
    for path in settings.crls:
        contents[path] = _read(path, "revocation list", most=_MOST_CRL_BYTES)
    return contents


def digest_of(contents: Contents) -> bytes:
    """Return what tells contents from others, SHA-256, and does not give keys away."""
    digest = hashlib.sha256()
    for path in sorted(contents):
        digest.update(hashlib.sha256(os.fsencode(path)).digest())
        digest.update(hashlib.sha256(contents[path]).digest())
    return digest.digest()


def parse_pairs(
    pairs: Sequence[PairFiles], contents: Contents, now: datetime
) -> tuple[ServerPair, ...]:
    """
    Return what the listener shows.

    Args:
        pairs: Where each lies.

        contents: From `read_pair_files`.

        now: Instant at which they must be valid, UTC.

    Raises:
        ListenError: It is not PEM, no pair, no chain, not valid now, not for servers,
            or there are two of a kind.
    """
    parsed = []
    kinds: dict[str, Path] = {}
    for files in pairs:
        chain = _certificates(files.cert, contents[files.cert])
        key = read_private_key(files, contents[files.key], chain[0])
        issuer = chain[1] if len(chain) > 1 else None
        chain = check_chain(chain, str(files.cert), now)
        kind = kind_of(chain[0])
        if kind in kinds:
            raise ListenError(
                f"The certificates {kinds[kind]} and {files.cert} are both for keys of "
                f"the kind {kind}; one of a kind can be shown."
            )
        kinds[kind] = files.cert
        parsed.append(
            ServerPair(
                chain=tuple(map(_der, chain)),
                key=key,
                issuer=_der(issuer) if issuer is not None else b"",
            )
        )
    return tuple(parsed)


def parse_client(
    settings: ClientSettings, contents: Contents, now: datetime
) -> ClientRules:
    """
    Return which clients are let in.

    Raises:
        ListenError: There is no CA, or a revocation list is not PEM or DER, is of
            nobody here, is not signed as it says, or is out of date.
    """
    found = _certificates(settings.ca, contents[settings.ca])
    authorities = [certificate for certificate in found if _may_sign(certificate)]
    if not authorities:
        raise ListenError(
            f"No CA certificate in {settings.ca}: one has basicConstraints CA:TRUE, "
            "keyUsage keyCertSign and a subjectKeyIdentifier (RFC 5280, section 4.2.1)."
        )
    lists = [
        crl
        for path in settings.crls
        for crl in _revocation_lists(path, contents[path])
        if _check_list(crl, path, authorities, now)
    ]
    return ClientRules(
        is_required=settings.is_required,
        authorities=tuple(map(_der, authorities)),
        revocation_lists=tuple(
            crl.public_bytes(serialization.Encoding.DER) for crl in lists
        ),
        status_check=settings.status_check,
    )


def _read(
    path: Path,
    what: str,
    check: Callable[[int, Path], None] = lambda descriptor, path: None,
    most: int = _MOST_BYTES,
) -> bytes:
    try:
        with open_regular(path) as file:
            check(file.fileno(), path)
            data = file.read(most + 1)
    except NotRegularError:
        raise ListenError(f"The {what} {path} is no regular file.") from None
    except OSError as error:
        raise ListenError(
            f"The {what} {path} can't be read ({error.strerror})."
        ) from None
    if len(data) > most:
        raise ListenError(f"The {what} {path} is longer than {most} bytes.")
    return data


def _check_key_file(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if is_open_to_others(descriptor):
        raise UnsafeFileModeError(
            f"The private key {path} has mode {stat.S_IMODE(status.st_mode):04o}, but "
            "only its owner may read it; use mode 0600.",
            field="key",
        )
    if status.st_uid not in (0, os.geteuid()):
        raise UnsafeFileModeError(
            f"The private key {path} belongs to user {status.st_uid}, but only the "
            "one who reads it, or root, may have it.",
            field="key",
        )


def _certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except UNREADABLE:
        raise ListenError(f"No certificates in PEM form in {path}.") from None


def _revocation_lists(
    path: Path, data: bytes
) -> Iterator[x509.CertificateRevocationList]:
    mark = b"-----BEGIN X509 CRL-----"
    try:
        if mark not in data:
            yield x509.load_der_x509_crl(data)
            return
        for piece in data.split(mark)[1:]:
            yield x509.load_pem_x509_crl(mark + piece)
    except UNREADABLE:
        raise ListenError(f"No revocation list in PEM or DER form in {path}.") from None


def _check_list(
    crl: x509.CertificateRevocationList,
    path: Path,
    authorities: list[x509.Certificate],
    now: datetime,
) -> bool:
    """Return that a list can be used."""
    try:
        issuers = [ca for ca in authorities if ca.subject == crl.issuer]
        name = crl.issuer.rfc4514_string()
        begins, ends = crl.last_update_utc, crl.next_update_utc
    except UNREADABLE:
        raise ListenError(f"The revocation list {path} can't be read.") from None
    if not issuers:
        raise ListenError(
            f"The revocation list {path} is of {name}, who is no client CA."
        )
    if not any(_has_signed(ca, crl) for ca in issuers):
        raise ListenError(f"The revocation list {path} is not signed by its issuer.")
    if begins > now:
        raise ListenError(
            f"The revocation list {path} is not valid before {begins.isoformat()}."
        )
    if ends is not None and ends <= now:
        raise ListenError(
            f"The revocation list {path} should have been renewed by "
            f"{ends.isoformat()}."
        )
    return True


def _has_signed(ca: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    try:
        return crl.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm, InvalidSignature):
        return False


def _may_sign(certificate: x509.Certificate) -> bool:
    """Return whether OpenSSL will take it for a CA; it is strict about that."""
    try:
        found = certificate.extensions
        constraints = found.get_extension_for_class(x509.BasicConstraints)
        usage = found.get_extension_for_class(x509.KeyUsage)
        found.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False
    return constraints.value.ca and usage.value.key_cert_sign


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
