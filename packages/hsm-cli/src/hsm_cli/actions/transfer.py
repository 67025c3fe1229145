# SPDX-License-Identifier: MIT
"""Options of ``import`` and ``export``, and wrapping of a key before it is sent."""

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
    """Wrapped key with its wrapping parameters; None leaves one to the HSM."""

    data: bytes = field(repr=False)
    mechanism: WrapMechanism | None
    form: KeyFormat | None
    version: int | None


def transfer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of wrapping to a command."""
    for option in _OPTIONS:
        function = option(function)
    return function


_OPTIONS: Final = (
    click.option(
        "--mgf-hash",
        type=choice(HashAlgorithm),
        metavar="NAME",
        help="Hash of MGF1 in RSA-OAEP. Default: SHA-256.",
    ),
    click.option(
        "--hash",
        "hash_name",
        type=choice(HashAlgorithm),
        metavar="NAME",
        help="Hash of RSA-OAEP. Default: SHA-256.",
    ),
    click.option(
        "--format",
        "form",
        type=choice(KeyFormat),
        metavar="NAME",
        help="Key format: pkcs8, seed or raw. Default: pkcs8 for private keys, raw for "
        "symmetric keys.",
    ),
    click.option(
        "--mechanism",
        type=choice(WrapMechanism),
        metavar="NAME",
        help="Wrapping mechanism: AES-KWP, AES-KW, RSA-OAEP+AES-KWP or KEM+AES-KWP. "
        "Default: the first that the wrapping key supports.",
    ),
    click.option(
        "--wrapping-key",
        "wrapping_key_id",
        required=True,
        metavar="KEY",
        help="HSM key to wrap with.",
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
    Read a key and wrap it with the public key of an HSM key.

    Args:
        invocation: Fetches the public key.

        source: The file.

        algorithm: Algorithm of the key.

        wrapping_key_id: The HSM key.

        mechanism: None means the default of the wrapping key.

        form: None means the default of *algorithm*.

        hashes: Hash and MGF1 hash of RSA-OAEP.

        passphrase_file: File with the passphrase, or None to prompt.

    Raises:
        UnsupportedOperationError: The wrapping key is symmetric; only the HSM can wrap
            with it.
        InvalidInputError: The file holds no such key.
    """
    # It loads all of the cryptography.
    from hsm_cli.io.wrapping import read_material, wrap

    wrapping = invocation.execute(DescribeKey(key_id=wrapping_key_id)).algorithm
    if wrapping is not None and not spec(wrapping).is_asymmetric:
        raise UnsupportedOperationError(
            f"Only the HSM can wrap with {wrapping}. Pass an exported file with "
            "--wrapped, or an RSA, ML-KEM or composite wrapping key.",
            algorithm=wrapping,
            field="wrapping_key_id",
        )
    if form is None:
        form = KeyFormat.PKCS8 if spec(algorithm).is_asymmetric else KeyFormat.RAW
    if source.is_shared:
        print_note("warning: other users can read the key file (chmod 600).")
    material = read_material(source, form, passphrase_file)
    key = invocation.execute(GetPublicKey(key_id=wrapping_key_id))
    data = wrap(key, material, mechanism, hashes)
    return Wrapped(data, mechanism, form, key.version)
