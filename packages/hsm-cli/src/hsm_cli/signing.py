# SPDX-License-Identifier: MIT
"""What the commands ``sign`` and ``verify`` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from hsm_cli.files import Source
from hsm_cli.invocation import Invocation
from hsm_cli.options import choice
from hsm_core.algorithms import (
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
    spec,
)
from hsm_core.errors import UnsupportedOperationError
from hsm_core.operations import DescribeKey

__all__ = ["signature_options", "split_payload"]


def signature_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the parameters of a signature."""
    for option in (
        click.option(
            "--encoding",
            type=choice(SignatureEncoding),
            metavar="NAME",
            help="ECDSA only: der (default) or p1363.",
        ),
        click.option(
            "--hash",
            "hash_name",
            type=choice(HashAlgorithm),
            metavar="NAME",
            help="SHA-256, SHA-384 or SHA-512; else the algorithm's default.",
        ),
        click.option(
            "--scheme",
            type=choice(SignatureScheme),
            metavar="NAME",
            help="RSA only: RSASSA-PSS (default) or RSASSA-PKCS1-v1_5.",
        ),
        click.option(
            "--prehash",
            "--digest",
            "prehashed",
            is_flag=True,
            help="Hash the payload here and send its digest only: for files of any "
            "size. Not with Ed25519.",
        ),
    ):
        function = option(function)
    return function


def split_payload(
    invocation: Invocation,
    key_id: str,
    source: Source,
    *,
    hash_name: HashAlgorithm | None,
    prehashed: bool,
) -> tuple[bytes | None, bytes | None, HashAlgorithm | None]:
    """
    Return message, digest and hash to send: one of the first two is None.

    Args:
        invocation: Asked for the key's algorithm, where its default hash is needed.

        key_id: The key.

        source: Gives the payload.

        hash_name: The hash that was asked for, or None.

        prehashed: Whether the digest is to be sent.

    Raises:
        UnsupportedOperationError: A digest was asked for, and the key's algorithm has
            none.
    """
    if prehashed:
        chosen = hash_name or _default_hash(invocation, key_id)
        return None, source.digest(chosen), chosen
    return source.read(), None, hash_name


def _default_hash(invocation: Invocation, key_id: str) -> HashAlgorithm:
    algorithm = invocation.execute(DescribeKey(key_id=key_id)).algorithm
    hashes = spec(algorithm).hashes if algorithm is not None else ()
    if not hashes:
        raise UnsupportedOperationError(
            "The algorithm of this key takes no digest; leave --prehash out."
        )
    return hashes[0]
