# SPDX-License-Identifier: MIT
"""
Generator of the command line reference, from the commands themselves.

Run ``python -m tests.cli.reference`` after a change of a command.
"""

import re
from collections.abc import Iterator
from inspect import cleandoc

import click

from hsm_cli.commands import SECTIONS, SPELLINGS, cli
from hsm_cli.exit_codes import ExitCode
from tests.support import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference" / "cli.md"
_HEAD = """\
# Command line

<!-- Written by: python -m tests.cli.reference -->

`hsm-cli [OPTIONS] COMMAND [ARGS]...`
"""
_SECRETS = """\
Pass a secret as `@FILE` (a file that only its owner may read), as `fd:N` (an open file
descriptor) or in the environment. A literal secret on the command line also works, but
other users of the machine can see it, so the client prints a warning. `--auth-token` is
the token itself; `--jwt-secret` and `--hmac-key` are base64, or `text:` followed by
plain text. `--jwt-private-key` names a file that only its owner may read, with an RSA,
P-256 or Ed25519 key in PEM.

Flags take precedence over the environment. If the environment has both a token and a
secret, the token is used. With a token, the flags `--actor`, `--roles`, `--token-ttl`,
`--jwt-issuer`, `--jwt-algorithm` and `--jwt-kid` are rejected, because they apply only
to minted tokens.
"""
_LISTS = """\
Give each option once; a repeated option is rejected with exit code 2. *Repeatable*
options collect their values and accept comma-separated lists:
`--tags dual --tags payments` equals `--tags dual,payments`.
"""
_REPEATING = """\
A command that makes a change sends an idempotency key. If the response is lost, the
client retries with the same key. If no attempt gets a response, the exit code is 10 and
the message contains the key. Run the same command with `--idempotency-key` to get the
result; the change is made only once.

Tables fit 80 columns; `--format wide` shows all columns and whole IDs. `--format json`,
or `--json`, prints one JSON record, and `--format jsonl` one for each item of a list.
`--field NAME` prints one field of it. Commands whose `--format` is the format of a key
have `--as` instead.

With `--json`, the result is one JSON record on standard output, in the wire format, and
an error is one on standard error: `{"code": …, "message": …, "facts": {…}}`.
"""
_CODE = re.compile(r"(`[^`]*`)")
_QUOTED = re.compile(r"'(hsm-(?:cli|server)\b[^'`]*)'")
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
    parts += [_REPEATING, "## Former names of commands\n", _former_names()]
    for title, rows in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in rows:
            command = cli.get_command(context, name)
            assert command is not None
            parts += _command(command, click.Context(command, context, name), 3)
    return "\n".join(parts)


def _former_names() -> str:
    rows = "\n".join(
        f"| `{name}` | {', '.join(f'`{now}`' for now in new.split(', '))} |"
        for name, (_, new) in SPELLINGS.items()
    )
    return (
        "These names keep working, with the options that they had.\n\n"
        f"| Former name | Now |\n| --- | --- |\n{rows}\n"
    )


def _exit_codes() -> str:
    rows = "\n".join(f"| {int(code)} | {code.meaning} |" for code in ExitCode)
    return f"| Code | Meaning |\n| --- | --- |\n{rows}\n"


def _command(
    command: click.Command, context: click.Context, level: int
) -> Iterator[str]:
    path = context.command_path.removeprefix("hsm-cli ")
    yield f"{'#' * level} {path}\n"
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    names = [argument.make_metavar(context) for argument in arguments]
    if isinstance(command, click.Group):
        names = ["COMMAND"]
    yield f"`hsm-cli {path} [OPTIONS] {' '.join(names)}`".replace(" `", "`") + "\n"
    yield _prose(command.help)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            if inner.hidden:
                continue
            yield from _command(inner, click.Context(inner, context, name), level + 1)
        return
    options = _options(command, context)
    if options:
        yield options


def _prose(text: str | None) -> str:
    """Return a help text as Markdown: flags, commands and tables are code."""
    found = cleandoc(text or "").split("\n\n")
    return "\n\n".join(map(_paragraph, found)) + "\n"


def _paragraph(text: str) -> str:
    if text.startswith("\b\n"):
        return f"```text{text[1:]}\n```"
    parts = _CODE.split(_QUOTED.sub(r"`\1`", text))
    parts[::2] = (_FLAG.sub(r"`\g<0>`", part) for part in parts[::2])
    return "".join(parts)


def _options(command: click.Command, context: click.Context) -> str:
    rows = [
        f"| {_names(option)} | {_cell(option)} |"
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden
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
