# SPDX-License-Identifier: MIT
"""What the commands ``encrypt`` and ``decrypt`` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from hsm_cli.files import Source
from hsm_cli.options import choice
from hsm_core.algorithms import CiphertextEncoding, HashAlgorithm

__all__ = ["encryption_options", "read_aad"]


def encryption_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the parameters of an encryption."""
    for option in (
        click.option(
            "--encoding",
            type=choice(CiphertextEncoding),
            default=CiphertextEncoding.ENVELOPE,
            metavar="NAME",
            help="envelope (default); raw, for RSA only, is what others understand.",
        ),
        click.option(
            "--mgf-hash",
            type=choice(HashAlgorithm),
            metavar="NAME",
            help="RSA only: hash of the mask; else SHA-256.",
        ),
        click.option(
            "--hash",
            "hash_name",
            type=choice(HashAlgorithm),
            metavar="NAME",
            help="RSA only; else SHA-256.",
        ),
        click.option(
            "--aad-file", metavar="FILE", help="Read the additional data from a file."
        ),
        click.option(
            "--aad",
            metavar="TEXT",
            help="Additional data: authenticated, not encrypted, and needed again to "
            "decrypt.",
        ),
    ):
        function = option(function)
    return function


def read_aad(text: str | None, path: str | None) -> bytes:
    """
    Return the additional data.

    Raises:
        click.UsageError: It was given twice.
        InvalidInputError: The file can't be read.
    """
    if text is not None and path is not None:
        raise click.UsageError("Give --aad or --aad-file, not both.")
    if text is None and path is None:
        return b""
    return Source(what="additional data", text=text, path=path).read()
