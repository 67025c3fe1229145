# SPDX-License-Identifier: MIT
"""What ``import`` and ``export`` share, and how a key is wrapped before it is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.output import print_note
from hsm_cli.options.parameter_types import choice
from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    KeyFormat,
    WrapMechanism,
    spec,
)
from hsm_core.errors import UnsupportedOperationError
from hsm_core.operations import DescribeKey, GetPublicKey


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A wrapped key, and how it was wrapped; None leaves it to the HSM."""

    data: bytes = field(repr=False)
    mechanism: WrapMechanism | None
    form: KeyFormat | None
    version: int | None


def transfer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the parameters of wrapping."""
    for option in _OPTIONS:
        function = option(function)
    return function


_OPTIONS: Final = (
    click.option(
        "--mgf-hash",
        type=choice(HashAlgorithm),
        metavar="NAME",
        help="RSA-OAEP only: hash of the mask; else SHA-256.",
    ),
    click.option(
        "--hash",
        "hash_name",
        type=choice(HashAlgorithm),
        metavar="NAME",
        help="RSA-OAEP only; else SHA-256.",
    ),
    click.option(
        "--format",
        "form",
        type=choice(KeyFormat),
        metavar="NAME",
        help="pkcs8, seed or raw; else pkcs8 for private keys, raw for others.",
    ),
    click.option(
        "--mechanism",
        type=choice(WrapMechanism),
        metavar="NAME",
        help="AES-KWP, AES-KW, RSA-OAEP+AES-KWP or KEM+AES-KWP; else what the wrapping "
        "key has first.",
    ),
    click.option(
        "--wrapping-key",
        "wrapping_key_id",
        required=True,
        metavar="KEY",
        help="Key of the HSM that wraps.",
    ),
)


def wrap_here(
    invocation: Invocation,
    source: Source,
    algorithm: Algorithm,
    *,
    wrapping_key_id: str,
    mechanism: WrapMechanism | None,
    form: KeyFormat | None,
    hashes: tuple[HashAlgorithm | None, HashAlgorithm | None],
    passphrase_file: str | None,
) -> Wrapped:
    """
    Read a key and wrap it for a key of the HSM, whose public half is asked for.

    Args:
        invocation: Asked for the public key.

        source: The file.

        algorithm: Algorithm of the key.

        wrapping_key_id: Key of the HSM.

        mechanism: None takes what the wrapping key has.

        form: None takes what is usual for *algorithm*.

        hashes: Hash and mask hash of RSA-OAEP.

        passphrase_file: Where the passphrase is, or None to ask.

    Raises:
        UnsupportedOperationError: The wrapping key is symmetric, so that nobody
            outside the HSM can wrap for it.
        InvalidInputError: The file holds no such key.
    """
    # It loads all of the cryptography.
    from hsm_cli.io.wrapping import read_material, wrap

    wrapping = invocation.execute(DescribeKey(key_id=wrapping_key_id)).algorithm
    if wrapping is not None and not spec(wrapping).is_asymmetric:
        raise UnsupportedOperationError(
            f"Only the HSM can wrap with {wrapping}: give a file that it has exported, "
            "with --wrapped, or a wrapping key of RSA, ML-KEM or a composite.",
            algorithm=wrapping,
            field="wrapping_key_id",
        )
    if form is None:
        form = KeyFormat.PKCS8 if spec(algorithm).is_asymmetric else KeyFormat.RAW
    if source.is_shared:
        print_note("warning: others than its owner may read the file of this key.")
    material = read_material(source, form, passphrase_file)
    key = invocation.execute(GetPublicKey(key_id=wrapping_key_id))
    data = wrap(key, material, mechanism, hashes)
    return Wrapped(data, mechanism, form, key.version)
