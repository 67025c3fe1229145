# SPDX-License-Identifier: MIT
"""The command ``completion``."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from hsm_cli.actions.options import LocalCommand
from hsm_cli.invocation import Invocation


@click.command("completion", cls=LocalCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """
    Print a shell completion script.

    For bash: eval "$(hsm-cli completion bash)"
    """
    invocation: Invocation = ctx.obj
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"Completion is not supported for {shell}.")
    complete = kind(ctx.find_root().command, {}, "hsm-cli", "_HSM_CLI_COMPLETE")
    # The base class fills in the script without starting the shell to ask its version.
    invocation.output.line(ShellComplete.source(complete).rstrip())
