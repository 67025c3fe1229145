# SPDX-License-Identifier: MIT
"""
Writes the reference of the command line from the commands themselves.

Run ``python -m tests.cli.reference`` after a change of a command.
"""

import re
from collections.abc import Iterator
from inspect import cleandoc

import click

from hsm_cli.commands import COMMANDS, cli
from hsm_cli.exit_codes import ExitCode
from tests.support import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference" / "cli.md"
_HEAD = """\
# Command line

<!-- Written by: python -m tests.cli.reference -->

`hsm-cli [OPTIONS] COMMAND [ARGS]...`
"""
_SECRETS = """\
Secrets are given as `@FILE` (a file that only its owner may read), `fd:N` (an open
file descriptor) or in the environment. One that stands on the command line itself works
too, but other users of the machine can see it, and a warning says so. `--auth-token` is
used as it is; `--jwt-secret` and `--hmac-key` are base64, or `text:` before a plain
secret. Where the environment holds both a token and a secret, the token is used; a flag
goes before the environment. Beside a token, `--actor`, `--roles`, `--token-ttl`,
`--jwt-issuer`, `--jwt-algorithm` and `--jwt-kid` are refused as flags, because they
tell only how tokens are minted. `--jwt-private-key` names a file that only its owner
may read; it holds RSA, P-256 or Ed25519 as PEM.
"""
_LISTS = """\
An option is given once; a second one is refused with exit code 2. Options that are
*repeatable* collect all their values, and take several with commas between:
`--tags dual --tags payments` is `--tags dual,payments`.
"""
_REPEATING = """\
A command that changes something sends an idempotency key and is tried again, under the
same key, when its answer is lost. If no answer comes at all, the exit code is 10 and
the message names the key: the same command with `--idempotency-key` then gives the
answer and changes nothing twice.

With `--json` results are one JSON record on standard output, in the wire format, and
errors one on standard error: `{"code": …, "message": …, "facts": {…}}`.
"""
_FLAG = re.compile(r"(?<![\w`-])--[a-z][a-z0-9-]*")


def render() -> str:
    """Return the whole page."""
    context = click.Context(cli, info_name="hsm-cli")
    parts = [_HEAD, _prose(cli.help), "## Global options\n"]
    parts += [
        _options(cli, context),
        _LISTS,
        _SECRETS,
        "## Exit codes\n",
        _exit_codes(),
    ]
    parts += [_REPEATING, "## Commands\n"]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        parts += _command(command, click.Context(command, context, name), 3)
    return "\n".join(parts)


def _exit_codes() -> str:
    rows = "\n".join(f"| {int(code)} | {code.meaning} |" for code in ExitCode)
    return f"| Code | Meaning |\n| --- | --- |\n{rows}\n"


def _command(
    command: click.Command, context: click.Context, level: int
) -> Iterator[str]:
    path = context.command_path.removeprefix("hsm-cli ")
    yield f"{'#' * level} {path}\n"
    words = [p.metavar or "" for p in command.params if isinstance(p, click.Argument)]
    names = [word or "LENGTH" for word in words]
    if isinstance(command, click.Group):
        names = ["COMMAND"]
    yield f"`hsm-cli {path} [OPTIONS] {' '.join(names)}`".replace(" `", "`") + "\n"
    yield _prose(command.help)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, context, name), level + 1)
        return
    options = _options(command, context)
    if options:
        yield options


def _prose(text: str | None) -> str:
    """Return a help text as Markdown: flags are code."""
    return _FLAG.sub(r"`\g<0>`", cleandoc(text or "")) + "\n"


def _options(command: click.Command, context: click.Context) -> str:
    rows = [
        f"| {_names(option)} | {_cell(option)} |"
        for option in command.params
        if isinstance(option, click.Option)
    ]
    return "\n".join(["| Option | Meaning |", "| --- | --- |", *rows, ""])


def _names(option: click.Option) -> str:
    if option.is_flag:
        metavar = ""
    elif isinstance(option.type, click.Choice):
        metavar = " " + "\\|".join(map(str, option.type.choices))
    else:
        metavar = f" {option.metavar}"
    return ", ".join(f"`{name}{metavar}`" for name in option.opts)


def _cell(option: click.Option) -> str:
    parts = [_prose(option.help).strip()]
    if option.envvar:
        parts.append(f"`{option.envvar}`.")
    if option.show_default and not option.is_flag and option.default not in {None, ""}:
        default = option.default
        words = ",".join(default) if isinstance(default, tuple) else default
        parts.append(f"Default: `{words}`.")
    if option.required:
        parts.append("Required.")
    return " ".join(filter(None, parts))


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
