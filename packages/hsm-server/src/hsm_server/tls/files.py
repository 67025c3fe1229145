# SPDX-License-Identifier: MIT
"""The listener's TLS: version 1.3 alone, from checked PEM files."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path
from typing import BinaryIO

from hsm_core.errors import UnsafeFileModeError
from hsm_core.secret_input import is_open_to_others
from hsm_server.exit_codes import ListenError
from hsm_server.settings import TLSFiles

__all__ = ["server_context"]


class _EncryptedKeyError(Exception):
    """Raised where OpenSSL would ask for a passphrase on the terminal."""


def server_context(files: TLSFiles) -> ssl.SSLContext:
    """
    Return the context of a listener.

    No session tickets are given out, so that each connection shows its certificate
    anew.

    Raises:
        UnsafeFileModeError: Others than its owner may read or write the private key.
        ListenError: A file can't be read or isn't PEM, or key and certificate are not
            a pair.

    Standard:
        RFC 8446 (TLS 1.3); client certificates by RFC 5280, strictly.
    """
    _check_key_file(files.key)
    _check_readable(files.cert, "certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, files)
    if files.client_ca is not None:
        _demand_certificates(context, files.client_ca)
    return context


def _refuse_passphrase() -> bytes:
    raise _EncryptedKeyError


def _load_pair(context: ssl.SSLContext, files: TLSFiles) -> None:
    try:
        context.load_cert_chain(files.cert, files.key, password=_refuse_passphrase)
    except _EncryptedKeyError:
        raise ListenError(
            f"The private key {files.key} is encrypted; give it unencrypted, in a file "
            "of mode 0600."
        ) from None
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ListenError(
                f"The private key {files.key} does not belong to the certificate "
                f"{files.cert}."
            ) from None
        raise ListenError(
            f"No certificate chain and private key in PEM form in {files.cert} and "
            f"{files.key}."
        ) from None


def _demand_certificates(context: ssl.SSLContext, client_ca: Path) -> None:
    _check_readable(client_ca, "client CA")
    try:
        context.load_verify_locations(client_ca)
    except (ssl.SSLError, OSError):
        raise ListenError(f"No certificates in PEM form in {client_ca}.") from None
    if not context.get_ca_certs():
        raise ListenError(f"No CA certificate in {client_ca}.")
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT


def _check_readable(path: Path, what: str) -> None:
    _open_readable(path, what).close()


def _open_readable(path: Path, what: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ListenError(
            f"The {what} {path} can't be read ({error.strerror})."
        ) from None


def _check_key_file(path: Path) -> None:
    with _open_readable(path, "private key") as file:
        is_open = is_open_to_others(file.fileno())
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    if is_open:
        raise UnsafeFileModeError(
            f"The private key {path} has mode {mode:04o}, but only its owner may read "
            "it; use mode 0600.",
            field="key",
        )
