# SPDX-License-Identifier: MIT
"""Signatures of decisions with a local private key."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
)

from hsm_cli.io.files import Source
from hsm_cli.io.output import print_note
from hsm_core.errors import InvalidInputError
from hsm_core.secret_input import read_secret_text

_SSH: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_FORMS: Final = (
    "it must be an Ed25519 or ECDSA P-256 private key in PEM or OpenSSH format."
)


def sign_with(path: str, message: bytes, passphrase: Callable[[], bytes]) -> bytes:
    """
    Return a raw signature: Ed25519, or ECDSA P-256 with SHA-256 in DER.

    Args:
        path: File of the private key.

        message: Bytes to sign.

        passphrase: Returns the passphrase; called only if the key is encrypted.

    Raises:
        InvalidInputError: The file holds no such key, or the passphrase is wrong.
    """
    source = Source(what="key", path=path)
    if source.is_shared:
        print_note("warning: other users can read the key file (chmod 600).")
    key = _load(source.read(), passphrase)
    match key:
        case Ed25519PrivateKey():
            return key.sign(message)
        case EllipticCurvePrivateKey() if isinstance(key.curve, SECP256R1):
            return key.sign(message, ECDSA(hashes.SHA256()))
        case _:
            raise InvalidInputError(f"The key can't be used: {_FORMS}", field="key")


def _load(data: bytes, passphrase: Callable[[], bytes]) -> object:
    load = (
        load_ssh_private_key if data.lstrip().startswith(_SSH) else load_pem_private_key
    )
    try:
        try:
            return load(data, None)
        except TypeError:
            # It is encrypted.
            return load(data, passphrase())
    except UnsupportedAlgorithm as error:
        if "bcrypt" in str(error):
            raise InvalidInputError(
                "Encrypted OpenSSH keys require the package bcrypt. Install it, or use "
                "ssh-keygen -Y sign and pass --signature.",
                field="key",
            ) from None
        raise InvalidInputError(
            f"The key can't be used: {_FORMS}", field="key"
        ) from None
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"The key can't be read, or its passphrase is wrong: {_FORMS}", field="key"
        ) from None


def passphrase_source(given: str | None) -> Callable[[], bytes]:
    """
    Return a function that reads a passphrase, by default from the terminal.

    Args:
        given: ``@FILE``, ``fd:N``, or a literal passphrase from the environment.
    """
    return lambda: _passphrase(given)


def _passphrase(given: str | None) -> bytes:
    if given is not None:
        text = read_secret_text(given, field="passphrase")
        return text.partition("\n")[0].encode()
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(
            "The key is encrypted. Pass --passphrase @FILE, or run the command on a "
            "terminal."
        )
    answer: str = click.prompt("Passphrase", hide_input=True, err=True)
    return answer.encode()
