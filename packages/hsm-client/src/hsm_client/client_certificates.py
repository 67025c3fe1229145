# SPDX-License-Identifier: MIT
"""Client certificates for mutual TLS: PEM files, and PKCS#12 with a password."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from hsm_client.failures import reason
from hsm_core.errors import ConfigurationError, UnsafeFileModeError

if TYPE_CHECKING:
    # Deferred: importing these takes longer than a short command.
    from cryptography.x509 import Certificate

_FIELD: Final = "client_cert"
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_MAX_BYTES: Final = 1024 * 1024
_SEQUENCE: Final = b"\x30"
"""First byte of every PKCS#12 file: ASN.1 in BER."""


class ClientCertificate(msgspec.Struct, frozen=True):
    """
    Client certificate with its key, from a PKCS#12 file.

    Attributes:
        certificate: The certificate.
        authorities: Other certificates of the file: of the CA that issued it.
        pem: Certificate, intermediate certificates and encrypted key.
        password: Password of the key in *pem*; it is made for this one use.
    """

    certificate: Certificate
    authorities: tuple[Certificate, ...]
    pem: bytes
    password: str

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def is_pkcs12(path: Path) -> bool:
    """
    Return whether a file is PKCS#12 rather than PEM.

    Raises:
        ConfigurationError: It can't be read.
    """
    return _read(path)[:1] == _SEQUENCE


def load_client_certificate(
    context: ssl.SSLContext, certificate: Path, key: Path | None, password: str
) -> None:
    """
    Use a client certificate in a TLS context.

    Args:
        context: The context.

        certificate: PEM chain, or PKCS#12.

        key: PEM file with the key; None means it is in *certificate*.

        password: Password of the key; empty for none.

    Raises:
        ConfigurationError: A file can't be read, or the password is wrong.
        UnsafeFileModeError: Other users may read a PEM file with the key, or a
            PKCS#12 file without a password.
    """
    if is_pkcs12(certificate):
        if key is not None:
            raise ConfigurationError(
                f"{certificate} is PKCS#12 and holds its key. Omit client_key "
                "(--client-key).",
                field="client_key",
            )
        # Loaded by the few commands that need it.
        import tempfile

        found = read_pkcs12(certificate, password)
        if not password:
            _refuse_unsafe_mode(certificate)
        # OpenSSL reads files only. The key in this one is encrypted, and the password
        # never leaves this process.
        with tempfile.NamedTemporaryFile(prefix="hsm-client-") as file:
            file.write(found.pem)
            file.flush()
            context.load_cert_chain(file.name, password=found.password)
        return
    text = _read(certificate)
    if key is None and _CERTIFICATE in text and b"PRIVATE KEY-----" not in text:
        raise ConfigurationError(
            f"{certificate} holds no private key. Pass the file of the key as "
            "client_key (--client-key).",
            field="client_key",
        )
    _load_pem(context, certificate, key or certificate, password)


def is_encrypted(certificate: Path, key: Path | None) -> bool:
    """
    Return whether the key of a client certificate needs a password.

    Args:
        certificate: PEM chain, or PKCS#12.

        key: PEM file with the key; None means it is in *certificate*.

    Raises:
        ConfigurationError: A file can't be read.
        UnsafeFileModeError: Other users may read a PEM file with the key, or a
            PKCS#12 file without a password.
    """
    if is_pkcs12(certificate):
        return not has_password(certificate, None, "")
    # The word may also be in a comment, beside a key in clear.
    says_so = b"ENCRYPTED" in _read(key or certificate)
    return says_so and not has_password(certificate, key, "")


def has_password(certificate: Path, key: Path | None, password: str) -> bool:
    """
    Return whether a password opens the key of a client certificate.

    Raises:
        ConfigurationError: A file can't be read.
        UnsafeFileModeError: Other users may read a PEM file with the key, or a
            PKCS#12 file without a password.
    """
    for path in {certificate, key or certificate}:
        _read(path)
    try:
        load_client_certificate(
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key, password
        )
    except UnsafeFileModeError:
        raise
    except ConfigurationError:
        return False
    return True


def read_pkcs12(path: Path, password: str) -> ClientCertificate:
    """
    Return the client certificate of a PKCS#12 file.

    Raises:
        ConfigurationError: It can't be read, is no PKCS#12 file with a key, or the
            password is wrong.

    Standard:
        RFC 7292.
    """
    import secrets

    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        pkcs12,
    )

    data = _read(path)
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(
            data, password.encode() or None
        )
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"Can't read the client certificate {path}: the password is wrong, or the "
            "file is damaged.",
            field=_FIELD,
        ) from None
    if key is None or certificate is None:
        raise ConfigurationError(
            f"{path} must hold a certificate and its private key.", field=_FIELD
        )
    once = secrets.token_hex(32)
    parts = [
        certificate.public_bytes(Encoding.PEM),
        *(c.public_bytes(Encoding.PEM) for c in others if c.subject != c.issuer),
        key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(once.encode())
        ),
    ]
    return ClientCertificate(certificate, tuple(others), b"".join(parts), once)


def _load_pem(
    context: ssl.SSLContext, certificate: Path, key: Path, password: str
) -> None:
    _refuse_unsafe_mode(key)
    asked = False

    def answer() -> str:
        nonlocal asked
        asked = True
        return password

    try:
        context.load_cert_chain(certificate, key, password=answer)
    except (OSError, ValueError) as error:
        why = "the key is encrypted; sign in with hsm-cli login" if asked else None
        if asked and password:
            why = "the password is wrong"
        raise ConfigurationError(
            f"Can't load the client certificate {certificate} with key {key}: "
            f"{why or reason(error)}.",
            field=_FIELD,
        ) from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"Can't read the client certificate {path}: {reason(error)}.", field=_FIELD
        ) from None


def _refuse_unsafe_mode(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(
            f"Can't read the client key {path}: {reason(error)}.", field="client_key"
        ) from None
    if stat.S_ISREG(mode) and mode & 0o077:
        raise UnsafeFileModeError(
            f"The client key {path} has mode {stat.S_IMODE(mode):04o}, which gives "
            f"other users access. Run: chmod 600 {path}",
            field="client_key",
        )
