# SPDX-License-Identifier: MIT
"""What commands work on: a key, data, proofs, each given in one of several ways."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from hsm_cli.io.files import Source

F = TypeVar("F", bound=Callable[..., Any])


def one_of(positional: str | None, option: str | None, *, name: str, flag: str) -> str:
    """
    Return the one that was given of two ways to say the same.

    Raises:
        click.UsageError: Both were given, or none.
    """
    if positional is not None and option is not None:
        raise click.UsageError(
            f"Give {name} either as {name} or with {flag}, not both."
        )
    found = positional if positional is not None else option
    if not found:
        raise click.UsageError(f"Give {name}, or {flag} {name}.")
    return found


_KEY_OPTION = click.option(
    "--key-id", "key_option", metavar="KEY", help="UUID or name of the key."
)


def key_operand(function: F) -> Callable[..., Any]:
    """Give a command its *key_id*: as ``KEY``, or with ``--key-id``."""

    @click.argument("key", required=False, metavar="[KEY]")
    @_KEY_OPTION
    @functools.wraps(function)
    def wrapper(
        *args: Any, key: str | None, key_option: str | None, **kwargs: Any
    ) -> Any:
        key_id = one_of(key, key_option, name="KEY", flag="--key-id")
        return function(*args, key_id=key_id, **kwargs)

    return wrapper


def text_or_hex(text: str | None, digits: str | None, *, name: str) -> bytes:
    """
    Return bytes that were given as text or as hex digits, or none.

    Args:
        text: Value of the option *name*.

        digits: Value of the option ``name-hex``.

        name: The option.

    Raises:
        click.UsageError: Both were given, or the digits are none.
    """
    if text is not None and digits is not None:
        raise click.UsageError(f"Give {name} or {name}-hex, not both.")
    if digits is None:
        # Bytes of the command line that are not UTF-8 come back as they were.
        return os.fsencode(text or "")
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise click.UsageError(f"{name}-hex must be pairs of hex digits.") from None


def aad_options(function: F) -> Callable[..., Any]:
    """Give a command its *aad*: text or a file."""

    @click.option(
        "--aad",
        metavar="TEXT",
        help="Additional data: authenticated, not encrypted, and needed again to "
        "decrypt.",
    )
    @click.option(
        "--aad-file", metavar="FILE", help="Read the additional data from a file."
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any, aad: str | None, aad_file: str | None, **kwargs: Any
    ) -> Any:
        if aad is not None and aad_file is not None:
            raise click.UsageError("Give --aad or --aad-file, not both.")
        given = aad is not None or aad_file is not None
        source = Source(what="additional data", text=aad, path=aad_file)
        return function(*args, aad=source.read() if given else b"", **kwargs)

    return wrapper


_BATCH_OPTION = click.option(
    "--batch",
    "items",
    metavar="FILE",
    help="Read many items, one JSON object a line, and answer each with a line; - is "
    "standard input.",
)


def payload_operands(
    what: str,
    *,
    always_base64: bool = False,
    batch: Callable[..., None] | None = None,
) -> Callable[[F], F]:
    """
    Give a command its *key_id* and its *source*: an argument, a file or standard input.

    Args:
        what: Name of the data, one word.

        always_base64: Whether an argument is base64 without being said to be.

        batch: Called in place of the command where ``--batch`` is given, with the
            items as its *source*. None means that there is no such option.
    """
    in_file = ", in a file too" if always_base64 else ""

    def decorate(function: F) -> Any:
        @click.argument("key", required=False, metavar="[KEY]")
        @click.argument("payload", required=False, metavar=f"[{what.upper()}]")
        @_KEY_OPTION
        @click.option(
            "--in",
            "path",
            metavar="FILE",
            help=f"Read the {what} from a file; - is standard input.",
        )
        @click.option(
            "--base64",
            "is_base64",
            is_flag=True,
            help=f"The {what} is given as base64{in_file}.",
        )
        @functools.wraps(function)
        def wrapper(
            *args: Any,
            key: str | None,
            payload: str | None,
            key_option: str | None,
            path: str | None,
            is_base64: bool,
            items: str | None = None,
            **kwargs: Any,
        ) -> Any:
            if items is not None and batch is not None:
                if payload is not None or path is not None or is_base64:
                    raise click.UsageError(f"With --batch, no other {what} is given.")
                key_id = one_of(key, key_option, name="KEY", flag="--key-id")
                source = Source(what="batch", path=items)
                return batch(*args, key_id=key_id, source=source, **kwargs)
            if key_option is not None and payload is None:
                # With --key-id the only argument is the data.
                key, payload = None, key
            key_id = one_of(key, key_option, name="KEY", flag="--key-id")
            source = _payload(what, payload, path, is_base64, always_base64)
            return function(*args, key_id=key_id, source=source, **kwargs)

        return _BATCH_OPTION(wrapper) if batch is not None else wrapper

    return decorate


def _payload(
    what: str,
    payload: str | None,
    path: str | None,
    is_base64: bool,
    always_base64: bool,
) -> Source:
    """
    Return where the data come from.

    Raises:
        click.UsageError: They are given twice, or not at all.
    """
    metavar = what.upper()
    if payload is not None and path is not None:
        raise click.UsageError(
            f"Give the {what} either as {metavar} or with --in, not both."
        )
    if payload is None and path is None:
        raise click.UsageError(
            f"Give {metavar}, or --in FILE; --in - reads standard input."
        )
    return Source(
        what=what,
        text=payload,
        path=path,
        is_base64=is_base64 or (always_base64 and payload is not None),
    )


def proof_options(what: str) -> Callable[[F], Any]:
    """
    Give a command its *proof*: bare bytes in a file, or base64 as an argument.

    Args:
        what: Name of the proof, one word, and of the options. In a batch each item
            has its own.
    """

    def decorate(function: F) -> Any:
        @click.option(
            f"--{what}",
            "proof_path",
            metavar="FILE",
            help=f"File with the bare {what}; - is standard input.",
        )
        @click.option(
            f"--{what}-base64",
            "proof_text",
            metavar="TEXT",
            help=f"The {what} as base64.",
        )
        @functools.wraps(function)
        def wrapper(
            *args: Any, proof_path: str | None, proof_text: str | None, **kwargs: Any
        ) -> Any:
            if (proof_path is None) == (proof_text is None):
                raise click.UsageError(f"Give --{what} FILE or --{what}-base64 TEXT.")
            proof = Source(
                what=what,
                text=proof_text,
                path=proof_path,
                is_base64=proof_text is not None,
            )
            return function(*args, proof=proof, **kwargs)

        return wrapper

    return decorate
