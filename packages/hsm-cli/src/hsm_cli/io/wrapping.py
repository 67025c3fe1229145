# SPDX-License-Identifier: MIT
"""Reads a key that is to be imported, and wraps it to a public key of the HSM."""

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
    Return a key as the HSM takes it, not wrapped yet.

    Args:
        source: The file.

        form: What it holds: PKCS#8 in any encoding, or the bare bytes.

        passphrase_file: Where the passphrase is; None asks the terminal.

    Raises:
        InvalidInputError: It holds no such key, or the passphrase is wrong.
        click.UsageError: A passphrase is needed, and nobody is there to ask.
    """
    data = source.read()
    if not data:
        raise InvalidInputError("The file of the key is empty.", field="key")
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
    Return *material* wrapped to a public key.

    Raises:
        UnsupportedOperationError: The key has no such mechanism.
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
            "The key is encrypted; give --passphrase-file FILE, or a terminal to ask."
        )
    answer: str = click.prompt("Passphrase", hide_input=True, err=True)
    return answer.encode()
