# SPDX-License-Identifier: MIT
"""Files of certificates, keys and client rules: read, and parsed into the TLS state."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from hsm_core.errors import HSMError, UnsafeFileModeError
from hsm_core.secret_input import is_open_to_others, others_may_change
from hsm_server.certificates import UNREADABLE, comparable_name, extension_of
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.tls import ClientSettings, PairFiles
from hsm_server.tls.certificates import (
    check_chain,
    der_of,
    kind_of,
    read_private_key,
    readable_extension_of,
)
from hsm_server.tls.state import ClientRules, ServerPair


class NotRegularError(OSError):
    """The path is not a regular file."""


def open_regular(path: Path, *, follows_links: bool = True) -> BinaryIO:
    """
    Open a file for reading without blocking.

    A pipe without a writer would block, and one without an end would be read forever.

    Raises:
        NotRegularError: It is no regular file.
        OSError: It can't be opened.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags if follows_links else flags | os.O_NOFOLLOW)
    # Of a folder no file is made, and nothing would close it.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError
    return open(descriptor, "rb")


_MOST_BYTES: Final = 1024 * 1024
_MOST_CRL_BYTES: Final = 16 * 1024 * 1024

Contents = Mapping[Path, bytes | str]
"""Content of each file, including private keys; text is the reason of a failure."""


def read_pair_files(pairs: Sequence[PairFiles]) -> Contents:
    """
    Read certificate and key files.

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
    """Read client certificate files, with the faults of unreadable ones."""
    return {
        settings.ca: _read_or_say(settings.ca, "client CA", _MOST_BYTES),
        **{
            path: _read_or_say(path, "revocation list", _MOST_CRL_BYTES)
            for path in settings.crls
        },
    }


def _read_or_say(path: Path, what: str, most: int) -> bytes | str:
    try:
        return _read(path, what, _check_writers, most)
    except ListenError as error:
        return str(error)


def digest_of(contents: Contents) -> bytes:
    """Return the SHA-256 digest of contents; reveals no key."""
    digest = hashlib.sha256()
    for path in sorted(contents):
        digest.update(hashlib.sha256(os.fsencode(path)).digest())
        held = contents[path]
        kind, data = (b"0", held) if isinstance(held, bytes) else (b"1", held.encode())
        digest.update(hashlib.sha256(kind + data).digest())
    return digest.digest()


def parse_pairs(
    pairs: Sequence[PairFiles], contents: Contents, now: datetime
) -> tuple[ServerPair, ...]:
    """
    Parse the certificates of the listener.

    Args:
        pairs: Paths of the files.

        contents: From `read_pair_files`.

        now: Instant at which they must be valid, UTC.

    Raises:
        ListenError: It is not PEM, no pair, no chain, not valid now, not for servers,
            or there are two of a kind.
    """
    parsed = []
    kinds: dict[str, Path] = {}
    for files in pairs:
        chain = _certificates(files.cert, _held(contents, files.cert))
        key = read_private_key(files, _held(contents, files.key), chain[0])
        issuer = chain[1] if len(chain) > 1 else None
        chain = check_chain(chain, str(files.cert), now)
        kind = kind_of(chain[0])
        if kind in kinds:
            raise ListenError(
                f"The certificates {kinds[kind]} and {files.cert} have the same "
                f"key type {kind}. Pass one certificate per key type."
            )
        kinds[kind] = files.cert
        parsed.append(
            ServerPair(
                chain=tuple(map(der_of, chain)),
                key=key,
                issuer=der_of(issuer) if issuer is not None else b"",
            )
        )
    return tuple(parsed)


def parse_client(
    settings: ClientSettings,
    contents: Contents,
    now: datetime,
    former: ClientRules | None = None,
) -> tuple[ClientRules, str]:
    """
    Return the rules for clients, and what is wrong with the files.

    Good files replace the former rules. Faulty ones only take trust away: CAs that the
    CA file no longer names are dropped and no other is added, and lists that can be
    used replace older ones of the same issuer, key and scope. Only a CA file that can't
    be read leaves the CAs as they were.

    A revocation list of an issuer that is no client CA stays in force: it says nothing
    of the others, and while there are lists, each issuer in a chain needs one.

    Args:
        settings: Paths of the files.

        contents: From `read_client_files`.

        now: Instant at which lists must be valid, UTC.

        former: Rules in force, if there are any.

    Returns:
        Rules, and sentences for people, or nothing.
    """
    problems: list[str] = []
    held = contents[settings.ca]
    if isinstance(held, str):
        problems.append(held)
        known = former.authorities if former is not None else ()
        authorities = list(map(x509.load_der_x509_certificate, known))
    else:
        authorities = _authorities(settings.ca, held, problems)
    lists = tuple(
        crl.public_bytes(serialization.Encoding.DER)
        for path in settings.crls
        for crl in _usable_lists(path, contents[path], authorities, now, problems)
    )
    named = tuple(map(der_of, authorities))
    if problems and former is not None:
        named = tuple(ca for ca in former.authorities if ca in named)
        both = sorted((*former.revocation_lists, *lists), key=_last_update)
        lists = tuple({_scope(der): der for der in both}.values())
    rules = ClientRules(
        is_required=settings.is_required,
        authorities=named,
        revocation_lists=lists,
        status_check=settings.status_check,
    )
    return rules, " ".join(problems)


def _authorities(
    path: Path, data: bytes, problems: list[str]
) -> list[x509.Certificate]:
    """Return the CAs of a file, each read by itself."""
    mark = b"-----BEGIN CERTIFICATE-----"
    found = []
    is_whole = mark in data
    for piece in data.split(mark)[1:]:
        try:
            found.append(x509.load_pem_x509_certificate(mark + piece))
        except UNREADABLE:
            is_whole = False
    if not is_whole:
        problems.append(
            f"{path} contains a certificate that is not PEM."
            if found
            else f"{path} contains no PEM certificates."
        )
    authorities = [certificate for certificate in found if _may_sign(certificate)]
    if found and not authorities:
        problems.append(
            f"{path} contains no CA certificate. A CA certificate has "
            "basicConstraints CA:TRUE, keyUsage keyCertSign and a "
            "subjectKeyIdentifier (RFC 5280, section 4.2.1)."
        )
    return authorities


def _usable_lists(
    path: Path,
    data: bytes | str,
    authorities: list[x509.Certificate],
    now: datetime,
    problems: list[str],
) -> Iterator[x509.CertificateRevocationList]:
    if isinstance(data, str):
        problems.append(data)
        return
    lists = _revocation_lists(path, data)
    while True:
        try:
            crl = next(lists, None)
            if crl is None:
                return
            _check_list(crl, path, authorities, now)
        except ListenError as error:
            problems.append(str(error))
        else:
            yield crl


def _last_update(der: bytes) -> datetime:
    return x509.load_der_x509_crl(der).last_update_utc


def _scope(der: bytes) -> tuple[bytes, ...]:
    """Return the scope of a list: its issuer, the issuer's key, and a part."""
    crl = x509.load_der_x509_crl(der)
    scope = [comparable_name(crl.issuer)]
    for kind in (
        x509.AuthorityKeyIdentifier,
        x509.IssuingDistributionPoint,
        x509.DeltaCRLIndicator,
    ):
        try:
            found = extension_of(crl, kind)
        except UNREADABLE:
            found = None
        scope.append(found.public_bytes() if found is not None else b"")
    return tuple(scope)


def _held(contents: Contents, path: Path) -> bytes:
    """Return the content of a file that was read."""
    data = contents[path]
    if isinstance(data, str):
        raise ListenError(data)
    return data


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
        raise ListenError(f"The {what} {path} is not a regular file.") from None
    except OSError as error:
        raise ListenError(
            f"Cannot read the {what} {path} ({error.strerror})."
        ) from None
    if len(data) > most:
        raise ListenError(f"The {what} {path} must be at most {most} bytes.")
    return data


def _check_key_file(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if is_open_to_others(descriptor):
        raise UnsafeFileModeError(
            f"The private key {path} has mode "
            f"{stat.S_IMODE(status.st_mode):04o}. Set its mode to 0600.",
            field="key",
        )
    if status.st_uid not in (0, os.geteuid()):
        raise UnsafeFileModeError(
            f"The private key {path} belongs to user {status.st_uid}. It must "
            "belong to the user of the server or to root.",
            field="key",
        )


def _check_writers(descriptor: int, path: Path) -> None:
    if others_may_change(descriptor):
        raise ListenError(
            f"{path} is writable by other users. It must be owned by root or this user "
            "and writable by its owner only."
        )


def _certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except UNREADABLE:
        raise ListenError(f"{path} contains no PEM certificates.") from None


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
        raise ListenError(
            f"{path} contains no revocation list in PEM or DER form."
        ) from None


def _check_list(
    crl: x509.CertificateRevocationList,
    path: Path,
    authorities: list[x509.Certificate],
    now: datetime,
) -> None:
    try:
        name = comparable_name(crl.issuer)
        issuers = [ca for ca in authorities if comparable_name(ca.subject) == name]
        begins, ends = crl.last_update_utc, crl.next_update_utc
    except UNREADABLE:
        raise ListenError(f"The revocation list {path} is malformed.") from None
    if issuers and not any(_has_signed(ca, crl) for ca in issuers):
        raise ListenError(f"The signature of the revocation list {path} is not valid.")
    if begins > now:
        raise ListenError(
            f"The revocation list {path} is not valid before {begins.isoformat()}."
        )
    if issuers and ends is not None and ends <= now:
        raise ListenError(f"The revocation list {path} expired at {ends.isoformat()}.")


def _has_signed(ca: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    try:
        return crl.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm, InvalidSignature):
        return False


def _may_sign(certificate: x509.Certificate) -> bool:
    """Return whether OpenSSL will take it for a CA; it is strict about that."""
    constraints = readable_extension_of(certificate, x509.BasicConstraints)
    usage = readable_extension_of(certificate, x509.KeyUsage)
    identifier = readable_extension_of(certificate, x509.SubjectKeyIdentifier)
    if constraints is None or usage is None or identifier is None:
        return False
    return constraints.ca and usage.key_cert_sign


_PAUSE_SECONDS: Final = 0.02
_MOST_READINGS: Final = 50


def read_stable(
    read: Callable[[], Contents],
    known: bytes = b"",
    pause: Callable[[float], object] = time.sleep,
) -> Contents:
    """
    Return the content of files after two identical reads.

    What is there twice in a row counts as written, and so does an error.

    Args:
        read: Returns what they hold now, or raises `HSMError`.

        known: Digest of what they may hold at once, for it is no news.

        pause: Waits for so many seconds.

    Raises:
        HSMError: They can't be read.
        ListenError: They change all the time.
    """
    before: Contents | str | None = None
    for _ in range(_MOST_READINGS):
        try:
            found = read()
            if found == before or digest_of(found) == known:
                return found
            before = found
        except HSMError as error:
            if before == str(error):
                raise
            before = str(error)
        pause(_PAUSE_SECONDS)
    raise ListenError("The certificate and key files changed while they were read.")
