# SPDX-License-Identifier: MIT
"""Options of the commands ``encrypt`` and ``decrypt``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from hsm_cli.io.operands import aad_options
from hsm_cli.options.parameter_types import choice
from hsm_core.algorithms import CiphertextEncoding, HashAlgorithm


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionOptions:
    """Parameters of an encryption from the command line."""

    aad: bytes = b""
    hash: HashAlgorithm | None = None
    mgf_hash: HashAlgorithm | None = None
    encoding: CiphertextEncoding = CiphertextEncoding.ENVELOPE


def encryption_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `EncryptionOptions` to a command, which gets them as *options*."""

    @aad_options
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        aad: bytes,
        hash_name: HashAlgorithm | None,
        mgf_hash: HashAlgorithm | None,
        encoding: CiphertextEncoding,
        **kwargs: Any,
    ) -> Any:
        options = EncryptionOptions(
            aad=aad, hash=hash_name, mgf_hash=mgf_hash, encoding=encoding
        )
        return function(*args, options=options, **kwargs)

    decorated: Callable[..., Any] = wrapper
    for option in _OPTIONS:
        decorated = option(decorated)
    return decorated


_OPTIONS: Final = (
    click.option(
        "--encoding",
        type=choice(CiphertextEncoding),
        default=CiphertextEncoding.ENVELOPE,
        metavar="NAME",
        help="Ciphertext format: envelope (default), or raw for other software (RSA "
        "only).",
    ),
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
)


def refuse_in_batch(options: EncryptionOptions, *others: object) -> None:
    """
    Refuse options that a batch does not support.

    Raises:
        click.UsageError: One of them was given.
    """
    if options != EncryptionOptions() or any(other is not None for other in others):
        raise click.UsageError(
            "No other options can be used with --batch; put aad in each item."
        )
