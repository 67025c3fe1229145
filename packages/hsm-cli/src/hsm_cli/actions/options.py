# SPDX-License-Identifier: MIT
"""Commands of ours, and options that several of them share."""

from __future__ import annotations

from typing import Any

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.output import print_note
from hsm_cli.options.flags import given_as_flag, literal_secrets
from hsm_cli.options.parameter_types import Command


class HSMCommand(Command):
    """
    A command that takes ``--json``, ``--wait`` and ``--approval-id`` after its name.

    One whose operand is an approval has an ``--approval-id`` of its own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [_json_option(), *_waiting_options()]
        if all("--approval-id" not in param.opts for param in self.params):
            self.params.append(_approval_option())


class LocalCommand(Command):
    """A command that asks no server, and takes ``--json`` after its name."""

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
            help="Where other people must agree, wait until they have.",
        ),
        click.Option(
            ["--wait-seconds"],
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            expose_value=False,
            callback=_wait,
            help="Wait so long at most.",
        ),
    ]


def _approval_option() -> click.Option:
    return click.Option(
        ["--approval-id"],
        metavar="ID",
        expose_value=False,
        callback=_name_approval,
        help="Do what needs the approval of other people under this one.",
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
            raise click.UsageError("--wait-seconds is given 2 times; give it once.")
        invocation.be_patient(value)
    elif invocation.patience is None:
        invocation.be_patient()


def _name_approval(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> None:
    invocation = ctx.find_object(Invocation)
    if value and invocation is not None:
        invocation.approval_id = value


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
