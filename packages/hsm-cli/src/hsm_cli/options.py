# SPDX-License-Identifier: MIT
"""Parameters that several commands share, declared once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hsm_cli.files import Source
from hsm_cli.flags import literal_secrets
from hsm_cli.invocation import Invocation
from hsm_cli.output import print_note

__all__ = [
    "CommaList",
    "HSMCommand",
    "Instant",
    "aad_options",
    "choice",
    "generation_option",
    "idempotency_option",
    "key_operand",
    "one_of",
    "out_option",
    "parse_choice",
    "payload_operands",
    "proof_options",
    "text_or_hex",
    "version_option",
    "warn_of_visible",
]

E = TypeVar("E", bound=Enum)
F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    # It is generic for type checkers only.
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType


class CommaList(_ParamType):
    """Words with commas between them, as a tuple; white space around words goes."""

    name = "words"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split a text; a tuple, such as a default, is taken as it is."""
        if isinstance(value, tuple):
            return value
        return tuple(word.strip() for word in value.split(",") if word.strip())


class Instant(_ParamType):
    """A date and time with an offset from UTC (RFC 3339)."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read a text; without an offset nobody knows which instant is meant."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time such as 2026-01-31T12:00:00Z.", param, ctx)
        if found.tzinfo is None:
            self.fail(
                f"{value!r} has no offset from UTC, such as Z or +01:00.", param, ctx
            )
        return found


class HSMCommand(click.Command):
    """
    A command that takes ``--json``, ``--wait`` and ``--approval-id`` after its name.

    One whose operand is an approval has an ``--approval-id`` of its own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--json", "as_json"],
                is_flag=True,
                expose_value=False,
                callback=_switch_to_json,
                help="Print the result as JSON.",
            )
        )
        self.params.append(
            click.Option(
                ["--wait"],
                is_flag=True,
                expose_value=False,
                callback=_wait,
                help="Where other people must agree, wait until they have.",
            )
        )
        self.params.append(
            click.Option(
                ["--wait-seconds"],
                type=click.FloatRange(min=0),
                metavar="SECONDS",
                expose_value=False,
                callback=_wait,
                help="Wait so long at most.",
            )
        )
        if all("--approval-id" not in param.opts for param in self.params):
            self.params.append(
                click.Option(
                    ["--approval-id"],
                    metavar="ID",
                    expose_value=False,
                    callback=_name_approval,
                    help="Do what needs the approval of other people under this one.",
                )
            )


def _switch_to_json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    invocation = ctx.find_object(Invocation)
    if value and invocation is not None:
        invocation.output.json = True


def _wait(
    ctx: click.Context, param: click.Parameter, value: bool | float | None
) -> None:
    invocation = ctx.find_object(Invocation)
    if invocation is None or value is None or value is False:
        return
    if value is not True:
        invocation.be_patient(value)
    elif invocation.patience is None:
        invocation.be_patient()


def _name_approval(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> None:
    invocation = ctx.find_object(Invocation)
    if value and invocation is not None:
        invocation.approval_id = value


def parse_choice(enum: type[E], word: str) -> E:
    """
    Return the member of an enum that a word stands for, in any case.

    Raises:
        click.BadParameter: There is none; the message lists those that are.
    """
    wanted = word.lower().replace("-", "_")
    for member in enum:
        if wanted == str(member.value).lower().replace("-", "_"):
            return member
    known = ", ".join(str(member.value) for member in enum)
    raise click.BadParameter(f"{word!r} is none of {known}.")


def choice(enum: type[Enum]) -> _ParamType:
    """Return a parameter type that takes the values of an enum, in any case."""
    return _EnumChoice(enum)


class _EnumChoice(_ParamType):
    name = "choice"

    def __init__(self, enum: type[Enum]) -> None:
        self.enum = enum

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Enum:
        """Return the member of this value."""
        if isinstance(value, Enum):
            return value
        try:
            return parse_choice(self.enum, value)
        except click.BadParameter as error:
            self.fail(error.message, param, ctx)


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
    metavar = what.upper()

    def decorate(function: F) -> Any:
        @click.argument("key", required=False, metavar="[KEY]")
        @click.argument("payload", required=False, metavar=f"[{metavar}]")
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
            help=f"The {what} is given as base64, in a file too."
            if always_base64
            else f"The {what} is given as base64.",
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
            if payload is not None and path is not None:
                raise click.UsageError(
                    f"Give the {what} either as {metavar} or with --in, not both."
                )
            if payload is None and path is None:
                raise click.UsageError(
                    f"Give {metavar}, or --in FILE; --in - reads standard input."
                )
            source = Source(
                what=what,
                text=payload,
                path=path,
                is_base64=is_base64 or (always_base64 and payload is not None),
            )
            return function(*args, key_id=key_id, source=source, **kwargs)

        return _BATCH_OPTION(wrapper) if batch is not None else wrapper

    return decorate


_BATCH_OPTION = click.option(
    "--batch",
    "items",
    metavar="FILE",
    help="Read many items, one JSON object a line, and answer each with a line; - is "
    "standard input.",
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
            f"--{what}-base64", "proof_text", metavar="TEXT", help="It as base64."
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


out_option = click.option(
    "--out",
    metavar="FILE",
    help="Write the bare bytes to a file; - is standard output.",
)

version_option = click.option(
    "--version",
    type=click.IntRange(min=1),
    metavar="N",
    help="Version of the key.",
)

idempotency_option = click.option(
    "--idempotency-key",
    metavar="TEXT",
    help="Repeat a command whose outcome is not known under the key that it named.",
)


def _expect_generation(
    ctx: click.Context, param: click.Parameter, value: int | None
) -> None:
    invocation = ctx.find_object(Invocation)
    if value is not None and invocation is not None:
        invocation.expected_generation = value


generation_option = click.option(
    "--if-generation",
    type=click.IntRange(min=1, max=10**15 - 1),
    metavar="NUMBER",
    expose_value=False,
    callback=_expect_generation,
    help="Do it only if the key is at this generation, as `describe` shows it.",
)


def warn_of_visible(ctx: click.Context, *names: str) -> None:
    """Warn of each of these parameters that holds a secret on the command line."""
    for flag in literal_secrets(ctx, *names):
        print_note(
            f"warning: other users can see {flag} on the command line; use @FILE, "
            "fd:N or the environment."
        )
