# SPDX-License-Identifier: MIT
"""Command classes, and the options and operands that several commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import click

from hsm_cli.invocation import CURL, RULE, Invocation
from hsm_cli.io.output import Form, print_note
from hsm_cli.options import (
    Command,
    choice,
    given_as_flag,
    literal_secrets,
    with_options,
)
from hsm_core.algorithms import HashAlgorithm

if TYPE_CHECKING:
    from hsm_core.model import KeyInfo
    from hsm_core.operations.base import Operation

F = TypeVar("F", bound=Callable[..., Any])


def _kept(flag: str, attribute: str, **facts: Any) -> click.Option:
    """Return an option whose value goes to an attribute of the invocation."""
    names = [flag, attribute]
    return click.Option(names, expose_value=False, callback=_keep, **facts)


def _keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
    invocation = ctx.find_object(Invocation)
    if value is not None and invocation is not None:
        setattr(invocation, str(param.name), value)


def _set_form(
    ctx: click.Context, param: click.Parameter, value: bool | str | None
) -> None:
    invocation = ctx.find_object(Invocation)
    if invocation is None or not value:
        return
    form = Form.JSON if value is True else Form(str(value))
    if ctx.meta.setdefault(_FORM_KEY, form) is not form:
        raise click.UsageError(f"--json can't be used with {param.opts[0]} {value}.")
    invocation.output.form = form


def _set_field(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    invocation = ctx.find_object(Invocation)
    if value is not None and invocation is not None:
        invocation.output.field = value


def _wait(
    ctx: click.Context, param: click.Parameter, value: bool | float | None
) -> None:
    invocation = ctx.find_object(Invocation)
    if invocation is None or value is None or value is False:
        return
    if value is not True:
        if given_as_flag(ctx.find_root(), "wait_seconds"):
            raise click.UsageError("--wait-seconds was given 2 times; give it once.")
        invocation.set_approval_wait(value)
    elif invocation.approval_wait is None:
        invocation.set_approval_wait()


_FORM_KEY: Final = "hsm_cli.form"
_JSON: Final = click.Option(
    ["--json", "as_json"],
    is_flag=True,
    expose_value=False,
    callback=_set_form,
    help="Print the result as JSON, like --format json.",
)
_FIELD: Final = click.Option(
    ["--field"],
    metavar="NAME",
    expose_value=False,
    callback=_set_field,
    help="Print only this field of the JSON result, such as key_id. Join nested "
    "names with dots.",
)


def _form_option(flag: str) -> click.Option:
    return click.Option(
        [flag, "output_form"],
        type=click.Choice([form.value for form in Form]),
        expose_value=False,
        callback=_set_form,
        help="Output format: table fits 80 columns, wide shows everything, json is "
        "one record, jsonl is one record per line.",
    )


_FORMAT: Final = _form_option("--format")
_AS: Final = _form_option("--as")
"""For commands whose ``--format`` is the format of a key."""


def _output_options(command: click.Command) -> list[click.Option]:
    taken = any("--format" in param.opts for param in command.params)
    return [_JSON, _AS if taken else _FORMAT, _FIELD]


_WAIT: Final = click.Option(
    ["--wait"],
    is_flag=True,
    expose_value=False,
    callback=_wait,
    help="Wait for approval if the command needs it.",
)
_WAIT_SECONDS: Final = click.Option(
    ["--wait-seconds"],
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    expose_value=False,
    callback=_wait,
    help="Maximum time to wait for approval, in seconds. Default: until the request "
    "expires.",
)
_APPROVAL: Final = _kept(
    "--approval-id",
    "approval_id",
    metavar="ID",
    help="Use this granted approval (UUID).",
)
_IDEMPOTENCY: Final = _kept(
    "--idempotency-key",
    "idempotency_key",
    metavar="TEXT",
    help="Idempotency key. Pass the one from the error message to retry safely.",
)
_GENERATION: Final = _kept(
    "--if-generation",
    "expected_generation",
    type=click.IntRange(min=1, max=10**15 - 1),
    metavar="NUMBER",
    help="Apply the change only if the key has this generation (see `describe`).",
)


def _preview_option(flag: str, kind: str, text: str) -> click.Option:
    return click.Option(
        [flag, kind],
        is_flag=True,
        expose_value=False,
        callback=_set_preview,
        help=text,
    )


def _set_preview(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    invocation = ctx.find_object(Invocation)
    if not value or invocation is None:
        return
    if invocation.preview:
        raise click.UsageError("--show-curl and --show-rule are mutually exclusive.")
    invocation.preview = str(param.name)


_PREVIEWS: Final = (
    _preview_option(
        "--show-curl",
        CURL,
        "Print the request as a curl command instead of sending it. Set TOKEN to the "
        "output of `token show`. Read requests that it depends on are still sent.",
    ),
    _preview_option(
        "--show-rule",
        RULE,
        "Print the policy rule that allows this command, instead of executing it.",
    ),
)


class HSMCommand(Command):
    """
    Command with the options of output, ``--wait`` and ``--approval-id``.

    Commands on an approval define their own ``--approval-id``.
    """

    OWN: ClassVar[tuple[click.Option, ...]] = ()
    """More options of a class of commands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [*self.OWN, *_output_options(self), _WAIT, _WAIT_SECONDS]
        self.params += _PREVIEWS
        if all("--approval-id" not in param.opts for param in self.params):
            self.params.append(_APPROVAL)


class ChangeCommand(HSMCommand):
    """Command on a key with ``--idempotency-key`` and ``--if-generation`` as well."""

    OWN = (_IDEMPOTENCY, _GENERATION)


class NewKeyCommand(HSMCommand):
    """Command that makes a key, with ``--idempotency-key`` as well."""

    OWN = (_IDEMPOTENCY,)


def refuse_options_of_requests(ctx: click.Context, flag: str, *others: str) -> None:
    """
    Refuse options that have no effect without a server.

    Args:
        ctx: Context of an `HSMCommand`.

        flag: Option that makes the command work without a server.

        others: More parameters that have no effect then.

    Raises:
        click.UsageError: One is given; the message names it.
    """
    of_requests = (_WAIT, _WAIT_SECONDS, *_PREVIEWS, _APPROVAL)
    names = {*others, *(option.name for option in of_requests)}
    for param in ctx.command.params:
        if param.name in names and given_as_flag(ctx, param.name):
            raise click.UsageError(f"{param.opts[0]} can't be used with {flag}.")


class LocalCommand(Command):
    """Offline command with the options of output."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _output_options(self)


def file_option(text: str) -> Callable[[F], F]:
    """Add the option ``-o`` or ``--out``: a file to write."""
    return click.option("-o", "--out", "out", metavar="FILE", help=text)


out_option = file_option("Write the raw bytes to a file; - is standard output.")


def version_option(text: str, *, required: bool = False) -> Callable[[F], F]:
    """Add the option ``--version`` with this help."""
    kind = click.IntRange(min=1)
    return click.option(
        "--version", type=kind, required=required, metavar="N", help=text
    )


def reason_option(where: str, *, required: bool = False) -> Callable[[F], F]:
    """Add the option ``--reason``; *where* is how and where the reason is kept."""
    given: dict[str, Any] = {"required": True} if required else {"default": ""}
    return click.option("--reason", metavar="TEXT", help=f"Reason; {where}.", **given)


OAEP_OPTIONS: Final = (
    click.option(
        "--hash",
        type=choice(HashAlgorithm),
        metavar="NAME",
        help="Hash of RSA-OAEP. Default: SHA-256.",
    ),
    click.option(
        "--mgf-hash",
        type=choice(HashAlgorithm),
        metavar="NAME",
        help="Hash of MGF1 in RSA-OAEP. Default: SHA-256.",
    ),
)


def warn_of_literal_secrets(ctx: click.Context, *names: str) -> None:
    """Warn about each named parameter that holds a literal secret."""
    for flag in literal_secrets(ctx, *names):
        print_note(
            f"warning: other users can see {flag} on the command line. Use @FILE, "
            "fd:N or the environment."
        )


def one_of(positional: str | None, option: str | None, *, name: str, flag: str) -> str:
    """
    Return the value of a parameter that is an argument or an option.

    Raises:
        click.UsageError: Both were given, or neither.
    """
    if positional is not None and option is not None:
        raise click.UsageError(f"Pass {name} as an argument or with {flag}, not both.")
    found = positional if positional is not None else option
    if not found:
        raise click.UsageError(
            f"Missing {name}. Pass it as an argument or with {flag}."
        )
    return found


key_option = click.option(
    "--key-id", "key_option", metavar="KEY", help="Name or ID of the key."
)


def key_operand(function: F) -> Callable[..., Any]:
    """Add the parameter *key_id*: ``KEY`` or ``--key-id``."""

    @click.argument("key", required=False, metavar="[KEY]")
    @key_option
    @functools.wraps(function)
    def wrapper(
        *args: Any, key: str | None, key_option: str | None, **kwargs: Any
    ) -> Any:
        key_id = one_of(key, key_option, name="KEY", flag="--key-id")
        return function(*args, key_id=key_id, **kwargs)

    return wrapper


def change_command(
    name: str, operation: Callable[..., Operation[KeyInfo]], *options: Callable[[F], F]
) -> Callable[[Callable[[], None]], click.Command]:
    """
    Make a command that changes a key: the decorated function has only its help.

    Args:
        name: Of the command.

        operation: What it executes; its fields are *key_id* and the options.

        options: Added to the command, in the order of the help.
    """

    def decorate(described: Callable[[], None]) -> click.Command:
        @click.pass_obj
        def change(invocation: Invocation, /, **fields: Any) -> None:
            invocation.change_key(operation(**fields))

        command = click.command(name, cls=ChangeCommand, help=described.__doc__)
        return command(key_operand(with_options(*options)(change)))

    return decorate


def text_or_hex(text: str | None, digits: str | None, *, name: str) -> bytes:
    """
    Return bytes given as text or as hex digits; empty if neither was given.

    Args:
        text: Value of the option *name*.

        digits: Value of the option ``name-hex``.

        name: The option.

    Raises:
        click.UsageError: Both were given, or the hex digits are invalid.
    """
    if text is not None and digits is not None:
        raise click.UsageError(f"{name} and {name}-hex are mutually exclusive.")
    if digits is None:
        # Restores bytes of the command line that are not UTF-8.
        return os.fsencode(text or "")
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise click.UsageError(f"{name}-hex must be pairs of hex digits.") from None
