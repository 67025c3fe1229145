# SPDX-License-Identifier: MIT
"""Operands of commands on data: a key, a file, and a proof to verify."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from hsm_cli.io.files import STDIN, Source
from hsm_cli.options import with_options
from hsm_cli.parameters import key_option, one_of

F = TypeVar("F", bound=Callable[..., Any])


def aad_options(function: F) -> Callable[..., Any]:
    """Add the parameter *aad*: text or a file."""

    @click.option(
        "--aad",
        metavar="TEXT",
        help="Additional authenticated data: not encrypted, required again to decrypt.",
    )
    @click.option(
        "--aad-file",
        metavar="FILE",
        help="Read the additional authenticated data from a file.",
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any, aad: str | None, aad_file: str | None, **kwargs: Any
    ) -> Any:
        if aad is not None and aad_file is not None:
            raise click.UsageError("--aad and --aad-file are mutually exclusive.")
        given = aad is not None or aad_file is not None
        source = Source(what="additional data", text=aad, path=aad_file)
        return function(*args, aad=source.read() if given else b"", **kwargs)

    return wrapper


_BATCH_OPTION: Final = click.option(
    "--batch",
    "items",
    metavar="FILE",
    help="Process many items: one JSON object per line, one result per line; - is "
    "standard input.",
)


def payload_operands(
    what: str, *, always_base64: bool = False, batch: Callable[..., None] | None = None
) -> Callable[[F], F]:
    """
    Add *key_id* and *source*: a file, standard input or text.

    With ``--key-id``, the first argument is the file or text, and the second the proof.

    Args:
        what: Name of the data, one word.

        always_base64: Whether text is always base64.

        batch: Called in place of the command with ``--batch``; the items are its
            *source*. None means that there is no such option.
    """

    def decorate(function: F) -> Any:
        @click.argument("key", required=False, metavar="[KEY]")
        @click.argument("operand", required=False, metavar="[FILE]")
        @key_option
        @_source_options(what, always_base64=always_base64)
        @functools.wraps(function)
        def wrapper(
            *args: Any,
            key: str | None,
            operand: str | None,
            key_option: str | None,
            path: str | None,
            text: str | None,
            is_base64: bool,
            items: str | None = None,
            **kwargs: Any,
        ) -> Any:
            if items is not None and batch is not None:
                if is_base64 or (operand, path, text) != (None, None, None):
                    raise click.UsageError(
                        "FILE, --in, --text and --base64 can't be used with --batch."
                    )
                key_id = one_of(key, key_option, name="KEY", flag="--key-id")
                source = Source(what="batch", path=items)
                return batch(*args, key_id=key_id, source=source, **kwargs)
            # With --key-id, as in the original, an argument that is no file is text.
            is_text = key_option is not None or is_base64 or always_base64
            if key_option is not None and operand is None:
                key, operand = None, key
            elif key_option is not None and kwargs.get("proof_operand", "") is None:
                key, operand, kwargs["proof_operand"] = None, key, operand
            key_id = one_of(key, key_option, name="KEY", flag="--key-id")
            source = _payload(
                what,
                operand,
                path,
                text,
                is_text=is_text,
                is_base64=is_base64,
                always_base64=always_base64,
            )
            return function(*args, key_id=key_id, source=source, **kwargs)

        return _BATCH_OPTION(wrapper) if batch is not None else wrapper

    return decorate


def _source_options(what: str, *, always_base64: bool) -> Callable[[F], F]:
    return with_options(
        click.option(
            "--in",
            "path",
            metavar="FILE",
            help=f"Read the {what} from this file; - is standard input.",
        ),
        click.option(
            "--text",
            metavar="TEXT",
            help=f"Use this {what} in place of a file"
            f"{', as base64' if always_base64 else ''}.",
        ),
        click.option(
            "--base64",
            "is_base64",
            is_flag=True,
            help=f"The {what}{' file' if always_base64 else ''} is base64-encoded.",
        ),
    )


def _payload(
    what: str,
    operand: str | None,
    path: str | None,
    text: str | None,
    *,
    is_text: bool,
    is_base64: bool,
    always_base64: bool,
) -> Source:
    """
    Return the source of the data.

    Raises:
        click.UsageError: They were given twice, or are missing, or FILE is neither a
            file nor text.
    """
    given = [found for found in (operand, path, text) if found is not None]
    if len(given) > 1:
        raise click.UsageError(
            f"Pass the {what} as FILE, with --in or with --text, not both."
        )
    if not given:
        raise click.UsageError(
            f"Missing {what}. Pass FILE or --in FILE (- is standard input), or --text."
        )
    if operand is not None:
        if _is_file(operand):
            path = operand
        elif not is_text:
            if os.path.isdir(operand):
                raise click.UsageError(f"{operand} is a directory, not a file.")
            raise click.UsageError(f"There is no file {operand}. For text, use --text.")
        else:
            text = operand
    return Source(
        what=what,
        text=text,
        path=path,
        is_base64=is_base64 or (always_base64 and text is not None),
    )


def _is_file(operand: str) -> bool:
    """Return whether an argument is a file, a pipe or standard input."""
    return operand == STDIN or (os.path.exists(operand) and not os.path.isdir(operand))


def proof_options(what: str) -> Callable[[F], Any]:
    """
    Add the parameter *proof*: raw bytes in a file, or base64 text.

    Args:
        what: Name of the proof, one word, and of the options.
    """
    name = "MAC" if what == "mac" else what

    def decorate(function: F) -> Any:
        @click.argument("proof_operand", required=False, metavar=f"[{what.upper()}]")
        @click.option(
            f"--{what}",
            "proof_path",
            metavar="FILE",
            help=f"File with the raw {name}; - is standard input.",
        )
        @click.option(
            f"--{what}-base64",
            "proof_text",
            metavar="TEXT",
            help=f"{name[0].upper()}{name[1:]} as base64.",
        )
        @functools.wraps(function)
        def wrapper(
            *args: Any,
            source: Source,
            proof_operand: str | None,
            proof_path: str | None,
            proof_text: str | None,
            **kwargs: Any,
        ) -> Any:
            given = (proof_operand, proof_path, proof_text)
            if sum(found is not None for found in given) != 1:
                raise click.UsageError(
                    f"Pass either --{what} FILE or --{what}-base64 TEXT, or the "
                    f"{name} file as the last argument."
                )
            path = proof_path if proof_operand is None else proof_operand
            if path == source.path == STDIN:
                raise click.UsageError(
                    f"The {source.what} and the {name} can't both come from standard "
                    "input."
                )
            proof = Source(
                what=what,
                text=proof_text,
                path=path,
                is_base64=proof_text is not None,
            )
            return function(*args, source=source, proof=proof, **kwargs)

        return wrapper

    return decorate
