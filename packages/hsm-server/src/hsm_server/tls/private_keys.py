# SPDX-License-Identifier: MIT
"""Private key formats, converted for OpenSSL."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes as PublicKeyTypes,
)

from hsm_server.config.exit_codes import ListenError
from hsm_server.config.settings import PairFiles
from hsm_server.tls.openssl import crypto

_FORM: Final = (
    serialization.Encoding.DER,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)
_PKCS8: Final = re.compile(
    rb"-----BEGIN PRIVATE KEY-----\s(.*?)\s?-----END PRIVATE KEY-----", re.DOTALL
)


def read_private_key(
    files: PairFiles, data: bytes, certificate: x509.Certificate
) -> bytes:
    """
    Return a private key as PKCS #8 in DER.

    The numbers of an RSA key are not proved here, which takes seconds: the trial of a
    state signs with it.

    Args:
        files: Where it and its certificate lie, to name them.

        data: PEM.

        certificate: Whose key it should be.

    Raises:
        ListenError: It is no private key, encrypted, or that of another certificate;
            or the certificate is for a key of a kind that can't be used.
    """
    try:
        key = serialization.load_pem_private_key(
            data, password=None, unsafe_skip_rsa_key_validation=True
        )
    except TypeError:
        raise ListenError(
            f"The private key {files.key} is encrypted. Pass it unencrypted, in "
            "a file with mode 0600."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # Its cause may quote the file.
        key = None
    public_key = _public_key(files, certificate)
    if key is None:
        return _as_openssl_writes_it(data, files.key)
    if key.public_key() != public_key:
        raise ListenError(
            f"The private key {files.key} does not match the certificate {files.cert}."
        )
    return key.private_bytes(*_FORM)


def _as_openssl_writes_it(data: bytes, path: Path) -> bytes:
    """
    Return a key that OpenSSL reads, and cryptography does not.

    Keys of ML-DSA are written with what is expanded from their seed. Whose key it is
    shows when it is put beside its certificate.
    """
    found = _PKCS8.search(data)
    try:
        crypto.load_privatekey(crypto.FILETYPE_PEM, data, b"")
        if found is not None:
            return base64.b64decode(b"".join(found[1].split()), validate=True)
    except (crypto.Error, ValueError, binascii.Error):
        pass
    raise ListenError(f"{path} contains no PEM private key.")


def _public_key(files: PairFiles, certificate: x509.Certificate) -> PublicKeyTypes:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ListenError(
            f"The certificate {files.cert} has an unsupported key type."
        ) from None
