# SPDX-License-Identifier: MIT
"""Signatures with a private key of one's own, which never leaves this machine."""

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
    "it must be a private key of Ed25519 or ECDSA P-256, as PEM or as OpenSSH has it."
)


def sign_with(path: str, message: bytes, passphrase: Callable[[], bytes]) -> bytes:
    """
    Return a bare signature: of Ed25519, or of ECDSA P-256 with SHA-256 as DER.

    Args:
        path: File of the private key.

        message: What to sign.

        passphrase: Gives that of an encrypted key; called only if it is one.

    Raises:
        InvalidInputError: The file holds no such key, or the passphrase is wrong.
    """
    source = Source(what="key", path=path)
    if source.is_shared:
        print_note("warning: others than its owner may read the file of this key.")
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
                "To read an encrypted key of OpenSSH, install bcrypt; or sign "
                "with ssh-keygen -Y sign and give --signature.",
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
    Return what gives a passphrase: a file, a descriptor, itself, or else the terminal.

    Args:
        given: ``@FILE``, ``fd:N``, or the passphrase itself out of the environment.
    """
    return lambda: _passphrase(given)


def _passphrase(given: str | None) -> bytes:
    if given is not None:
        text = read_secret_text(given, field="passphrase")
        return text.partition("\n")[0].encode()
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(
            "The key is encrypted; give --passphrase @FILE, or a terminal to ask."
        )
    answer: str = click.prompt("Passphrase", hide_input=True, err=True)
    return answer.encode()
