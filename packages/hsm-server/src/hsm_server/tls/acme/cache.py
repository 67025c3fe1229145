# SPDX-License-Identifier: MIT
"""
ACME cache: the account, and the certificate with its key.

Key and certificate are one file, so a crash cannot separate them. Files are replaced
atomically. A malformed file counts as missing and is replaced; one that can't be read
now does not. Before the first certificate, a self-signed one stands in for it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hsm_core.errors import HSMError, UnsafeFileModeError
from hsm_core.model import Record
from hsm_core.private_files import replace_file, sync_folder
from hsm_core.secret_input import is_open_to_others
from hsm_server.certificates import UNREADABLE
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.tls import ACMESettings
from hsm_server.tls.certificates import check_chain, der_of, readable_extension_of
from hsm_server.tls.files import NotRegularError, open_regular
from hsm_server.tls.state import ServerPair

_PLACEHOLDER_LIFE: Final = timedelta(days=365)
_TOLERANCE: Final = timedelta(hours=1)
"""Tolerated clock difference of clients."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key, of P-256: all CAs take it."""
    return ec.generate_private_key(ec.SECP256R1())


def key_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PKCS#8 in DER."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """Return names and addresses as certificates have them."""
    return [_general_name(name) for name in names]


def placeholder(names: Sequence[str]) -> ServerPair:
    """Return the self-signed certificate for the time before the first order."""
    return self_signed(names, life=_PLACEHOLDER_LIFE)


def self_signed(
    names: Sequence[str],
    *,
    life: timedelta,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> ServerPair:
    """
    Return a certificate with a key of its own, which has signed it.

    Args:
        names: DNS names and IP addresses.

        life: Validity period.

        extensions: More of them, and whether each is critical.
    """
    key, now = new_key(), datetime.now(UTC)
    subject = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _TOLERANCE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectAlternativeName(general_names(names)), critical=True)
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    certificate = builder.sign(key, hashes.SHA256())
    return ServerPair(chain=(certificate.public_bytes(Encoding.DER),), key=key_der(key))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass(frozen=True, slots=True, repr=False)
class Stored:
    """
    Stored certificate.

    Attributes:
        key: Its private key.
        chain: The chain, server certificate first.
    """

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def leaf(self) -> x509.Certificate:
        """The server's own certificate."""
        return self.chain[0]

    def has_names(self, names: Sequence[str]) -> bool:
        """Return whether it is for all of these names, and no others."""
        found = readable_extension_of(self.leaf, x509.SubjectAlternativeName)
        return found is not None and set(found) == set(general_names(names))

    def pair(self, now: datetime) -> ServerPair:
        """
        Return it as a listener takes it.

        Raises:
            ListenError: It can't be shown at this instant, UTC.
        """
        if self.key.public_key() != self.leaf.public_key():
            raise ListenError("The CA issued a certificate for another key.")
        chain = check_chain(list(self.chain), "the issued certificate", now)
        return ServerPair(
            chain=tuple(map(der_of, chain)),
            key=key_der(self.key),
            issuer=b"".join(map(der_of, self.chain[1:2])),
        )


_MOST_BYTES: Final = 256 * 1024
_SHARED: Final = 0o077
_SHARED_WRITING: Final = 0o022
_UNFINISHED: Final = re.compile(r"\.[a-z-]+\.(?:pem|json|txt)\.\w+")
"""Name of a file that `replace_file` did not write to its end."""

_NO_FILE: Final = (FileNotFoundError, PermissionError, NotRegularError)
_NO_KEY: Final = (*_NO_FILE, TypeError, UnsupportedAlgorithm, *UNREADABLE)
_NO_JSON: Final = (*_NO_FILE, msgspec.MsgspecError, UnicodeDecodeError)


class Account(Record, frozen=True, kw_only=True):
    """
    ACME account.

    Attributes:
        uri: URL of the account.
        contacts: Contact addresses.
        key_digest: SHA-256 of the account's public key, hexadecimal.
    """

    uri: str
    contacts: tuple[str, ...]
    key_digest: str


class Cache:
    """
    Files of one CA.

    What reads one raises `OSError` if it is there and can't be read now.

    Args:
        folder: Folder of all CAs; created with mode 0700 if missing.

        directory: URL of the CA.
    """

    def __init__(self, folder: Path, directory: str) -> None:
        self._top = folder
        name = hashlib.sha256(directory.encode()).hexdigest()[:16]
        self.folder = folder / name
        self._account_key = self.folder / "account-key.pem"
        self._account = self.folder / "account.json"
        self._certificate = self.folder / "certificate.pem"
        self._pause = self.folder / "pause.json"
        self._directory = directory

    def prepare(self) -> None:
        """
        Create the directory, and check that it is writable.

        Raises:
            ListenError: There is none, and it can't be made.
            UnsafeFileModeError: Other users can write to it or read its files.
        """
        try:
            for folder in (self._top, self.folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_folder(folder)
            for path in self.folder.iterdir():
                self._check_file(path)
            if not os.access(self.folder, os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise ListenError(
                f"Cannot write to the ACME cache {self._top} ({error.strerror})."
            ) from None
        # For people. A disk may be full, and all that matters be there already.
        with contextlib.suppress(OSError):
            replace_file(
                self.folder / "directory.txt", self._directory.encode() + b"\n"
            )
            sync_folder(self._top)

    def _check_file(self, path: Path) -> None:
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
            return
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & _SHARED:
            raise UnsafeFileModeError(
                f"The file {path} has mode {mode:04o}. Set its mode to 0600.",
                field="acme-cache-dir",
            )

    def account_key(self) -> ec.EllipticCurvePrivateKey | None:
        """Return the key of the account, if there is one."""
        with contextlib.suppress(*_NO_KEY):
            key = load_pem_private_key(_read(self._account_key), password=None)
            if isinstance(key, ec.EllipticCurvePrivateKey):
                return key
        return None

    def new_account_key(self) -> ec.EllipticCurvePrivateKey:
        """
        Make the key of an account, and keep it.

        Raises:
            OSError: It can't be kept.
        """
        key = new_key()
        replace_file(self._account_key, _pem(key))
        return key

    def account(self) -> Account | None:
        """Return the stored account."""
        with contextlib.suppress(*_NO_JSON):
            return msgspec.json.decode(_read(self._account), type=Account)
        return None

    def keep_account(self, account: Account) -> None:
        """
        Keep what is known of the account.

        Raises:
            OSError: It can't be kept.
        """
        replace_file(self._account, msgspec.json.encode(account))

    def forget_account(self) -> None:
        """Forget what the CA called us; the key of the account stays."""
        self._account.unlink(missing_ok=True)

    def certificate(self) -> Stored | None:
        """Return the newest certificate that was issued, if there is one."""
        with contextlib.suppress(*_NO_KEY):
            data = _read(self._certificate)
            key = load_pem_private_key(data, password=None)
            chain = x509.load_pem_x509_certificates(data)
            is_pair = key.public_key() == chain[0].public_key()
            if isinstance(key, ec.EllipticCurvePrivateKey) and is_pair:
                return Stored(key, tuple(chain))
        return None

    def keep_certificate(self, stored: Stored) -> None:
        """
        Keep a certificate, in the place of the one before.

        Raises:
            OSError: It can't be kept; the one before is.
        """
        chain = b"".join(c.public_bytes(Encoding.PEM) for c in stored.chain)
        replace_file(self._certificate, _pem(stored.key) + chain)

    def pause(self) -> float:
        """Return until when the CA wants to hear nothing of us, in Unix time."""
        with contextlib.suppress(*_NO_JSON):
            return msgspec.json.decode(_read(self._pause), type=float)
        return 0.0

    def keep_pause(self, until: float) -> None:
        """
        Keep until when the CA wants to hear nothing of us.

        Raises:
            OSError: It can't be kept.
        """
        replace_file(self._pause, msgspec.json.encode(until))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> bytes:
    """
    Return the content of a file of the cache.

    Raises:
        OSError: It can't be read, or others could have.
    """
    with open_regular(path, follows_links=False) as file:
        if is_open_to_others(file.fileno()):
            raise PermissionError(f"{path} is accessible to other users.")
        return file.read(_MOST_BYTES)


def _check_folder(folder: Path) -> None:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & _SHARED_WRITING:
        raise UnsafeFileModeError(
            f"The ACME cache {folder} has mode {mode:04o}. Set its mode to 0700.",
            field="acme-cache-dir",
        )


def first_pair(settings: ACMESettings, now: datetime) -> ServerPair:
    """
    Return the certificate that is kept, else one that stands in for it.

    One for other names than asked for is better than none.

    Raises:
        ListenError: Nothing can be kept, or *authorities* can't be read.
        UnsafeFileModeError: What is kept is open to others.
    """
    _check_authorities(settings)
    cache = Cache(settings.cache, settings.directory)
    cache.prepare()
    # What has expired or can't be read now is left to the task, which says so.
    with contextlib.suppress(HSMError, OSError):
        stored = cache.certificate()
        if stored is not None:
            return stored.pair(now)
    return placeholder(settings.names)


def _check_authorities(settings: ACMESettings) -> None:
    path = settings.authorities
    if path is None:
        return
    try:
        x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ListenError(
            f"Cannot read the ACME CA bundle {path} ({error.strerror})."
        ) from None
    except UNREADABLE:
        raise ListenError(f"{path} contains no PEM certificates.") from None
