# SPDX-License-Identifier: MIT
"""TLS 1.3 client: trust anchors, client certificate, names of failures."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

import urllib3
from urllib3.exceptions import InsecureRequestWarning

from hsm_core.errors import ConfigurationError, UnsafeFileModeError


def open_tls_context(
    *,
    ca_bundle: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    insecure: bool,
) -> ssl.SSLContext:
    """
    Return a context for TLS 1.3.

    Args:
        ca_bundle: PEM file of trusted CA certificates; None means the system's.

        client_cert: PEM file with the client certificate chain, or None.

        client_key: PEM file with its key; None means it is in *client_cert*.

        insecure: Skip verification of the server's certificate.

    Raises:
        ConfigurationError: A file can't be read, is not PEM, or its key is encrypted.
        UnsafeFileModeError: Other users may read the key file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        urllib3.disable_warnings(InsecureRequestWarning)
    else:
        _load_authorities(context, ca_bundle)
    if client_cert is not None:
        _load_identity(context, client_cert, client_key or client_cert)
    elif client_key is not None:
        raise ConfigurationError(
            "client_key requires client_cert (--client-cert).", field="client_key"
        )
    return context


def _load_authorities(context: ssl.SSLContext, ca_bundle: Path | None) -> None:
    if ca_bundle is None:
        context.load_default_certs()
        return
    try:
        context.load_verify_locations(cafile=ca_bundle)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"Can't read the CA bundle {ca_bundle}: {reason(error)}.",
            field="ca_bundle",
        ) from None


def _load_identity(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    _refuse_unsafe_mode(key)
    asked = False

    def refuse() -> str:
        nonlocal asked
        asked = True
        return ""

    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except (OSError, ValueError) as error:
        why = "encrypted keys are not supported" if asked else None
        raise ConfigurationError(
            f"Can't load the client certificate {certificate} with key {key}: "
            f"{why or reason(error)}.",
            field="client_cert",
        ) from None


def _refuse_unsafe_mode(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(
            f"Can't read the client key {path}: {reason(error)}.",
            field="client_key",
        ) from None
    if stat.S_ISREG(mode) and mode & 0o077:
        raise UnsafeFileModeError(
            f"The client key {path} has mode {stat.S_IMODE(mode):04o}, which gives "
            "other users access. Run chmod 600.",
            field="client_key",
        )


def innermost(error: BaseException) -> BaseException:
    """Return the socket error that urllib3 wrapped."""
    for _ in range(8):
        inner = error.__cause__ or next(
            (word for word in error.args if isinstance(word, BaseException)), None
        )
        if inner is None:
            return error
        error = inner
    return error


def reason(error: BaseException) -> str:
    """Return the reason of a failure in a few words, without data."""
    inner = innermost(error)
    if isinstance(inner, ssl.SSLError):
        return tls_words(inner.reason or "TLS failure")
    if isinstance(inner, OSError) and inner.errno is not None and inner.errno > 0:
        return os.strerror(inner.errno)
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return type(inner).__name__


def tls_words(word: str) -> str:
    """Return OpenSSL's name of a failure as lower-case words."""
    return word.lower().replace("_", " ")
