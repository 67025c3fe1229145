# SPDX-License-Identifier: MIT
"""Reading of key files for import, and wrapping with a public key of the HSM."""

from __future__ import annotations

import sys

import click

from hsm_cli.io.files import Source
from hsm_cli.io.pkcs8 import read_private_key
from hsm_core.algorithms import HashAlgorithm, KeyFormat, WrapMechanism
from hsm_core.errors import InvalidInputError
from hsm_core.operations import PublicKey
from hsm_core.primitives import wrap_for_import


def read_material(
    source: Source, form: KeyFormat, passphrase_file: str | None
) -> bytes:
    """
    Return unwrapped key material in the format of the HSM.

    Args:
        source: The file.

        form: Its format: PKCS#8 in any encoding, or raw bytes.

        passphrase_file: File with the passphrase; None prompts on the terminal.

    Raises:
        InvalidInputError: It holds no such key, or the passphrase is wrong.
        click.UsageError: A passphrase is required, and there is no terminal.
    """
    data = source.read()
    if not data:
        raise InvalidInputError("The key file is empty.", field="key")
    if form is not KeyFormat.PKCS8:
        return data
    return read_private_key(data, lambda: _passphrase(passphrase_file))


def wrap(
    key: PublicKey,
    material: bytes,
    mechanism: WrapMechanism | None,
    hashes: tuple[HashAlgorithm | None, HashAlgorithm | None],
) -> bytes:
    """
    Return *material* wrapped with a public key.

    Raises:
        UnsupportedOperationError: The key does not support the mechanism.
    """
    return wrap_for_import(
        key.algorithm,
        key.der,
        material,
        mechanism=mechanism,
        hash=hashes[0],
        mgf_hash=hashes[1],
    )


def _passphrase(path: str | None) -> bytes:
    if path is not None:
        lines = Source(what="passphrase", path=path).read().splitlines()
        return lines[0] if lines else b""
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(
            "The key is encrypted. Pass --passphrase-file FILE, or run the command on "
            "a terminal."
        )
    answer: str = click.prompt("Passphrase", hide_input=True, err=True)
    return answer.encode()
