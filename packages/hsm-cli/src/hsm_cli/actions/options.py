# SPDX-License-Identifier: MIT
"""Command classes, and options that several commands share."""

from __future__ import annotations

from typing import Any

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.output import print_note
from hsm_cli.options.flags import given_as_flag, literal_secrets
from hsm_cli.options.parameter_types import Command


class HSMCommand(Command):
    """
    Command with the options ``--json``, ``--wait`` and ``--approval-id``.

    Commands on an approval define their own ``--approval-id``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [_json_option(), *_waiting_options()]
        if all("--approval-id" not in param.opts for param in self.params):
            self.params.append(_approval_option())


class LocalCommand(Command):
    """Offline command with the option ``--json``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_json_option())


def _json_option() -> click.Option:
    return click.Option(
        ["--json", "as_json"],
        is_flag=True,
        expose_value=False,
        callback=_switch_to_json,
        help="Print the result as JSON.",
    )


def _waiting_options() -> list[click.Option]:
    return [
        click.Option(
            ["--wait"],
            is_flag=True,
            expose_value=False,
            callback=_wait,
            help="Wait for approval if the command needs it.",
        ),
        click.Option(
            ["--wait-seconds"],
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            expose_value=False,
            callback=_wait,
            help="Maximum time to wait for approval, in seconds.",
        ),
    ]


def _approval_option() -> click.Option:
    return click.Option(
        ["--approval-id"],
        metavar="ID",
        expose_value=False,
        callback=_select_approval,
        help="Use this granted approval (UUID).",
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
        if given_as_flag(ctx.find_root(), "wait_seconds"):
            raise click.UsageError("--wait-seconds was given 2 times; give it once.")
        invocation.set_approval_wait(value)
    elif invocation.approval_wait is None:
        invocation.set_approval_wait()


def _select_approval(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> None:
    invocation = ctx.find_object(Invocation)
    if value and invocation is not None:
        invocation.approval_id = value


out_option = click.option(
    "--out",
    metavar="FILE",
    help="Write the raw bytes to a file; - is standard output.",
)

version_option = click.option(
    "--version",
    type=click.IntRange(min=1),
    metavar="N",
    help="Key version.",
)

idempotency_option = click.option(
    "--idempotency-key",
    metavar="TEXT",
    help="Idempotency key. Pass the one from the error message to retry safely.",
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
    help="Apply the change only if the key has this generation (see `describe`).",
)


def warn_of_literal_secrets(ctx: click.Context, *names: str) -> None:
    """Warn about each named parameter that holds a literal secret."""
    for flag in literal_secrets(ctx, *names):
        print_note(
            f"warning: other users can see {flag} on the command line. Use @FILE, "
            "fd:N or the environment."
        )
