# SPDX-License-Identifier: MIT
"""
Dump of all strings that a user can meet, for reading from top to bottom.

``nox -s strings`` prints it: the help of both programs, the console's pages, and every
message of errors, logs, metrics and console code. Two people who did not write them
read the dump before a release.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from typing import Final

import click

from hsm_cli.commands import cli
from hsm_server.main import main as server
from tests.built import DISTS
from tests.support import REPOSITORY

_PACKAGES: Final = REPOSITORY / "packages"
_TAG: Final = re.compile(r"{#.*?#}|{%.*?%}|<!--.*?-->|<style.*?</style>", re.DOTALL)
_SHOWN: Final = re.compile(
    r'(?:title|alt|placeholder|aria-label|value|data-[a-z-]+)="([^"]*? [^"]*)"'
)
_MARKUP: Final = re.compile(r"</?[a-z][^>]*>")
_PROSE: Final = re.compile(r"[a-zA-Z]{2,}[,.]? -{0,2}[a-zA-Z]")
_SQL: Final = re.compile(
    r"\b(?:SELECT|INSERT|UPDATE|DELETE FROM|CREATE|ALTER|DROP|PRAGMA|BEGIN|FROM|WHERE"
    r"|ORDER BY|SET LOCAL|PRIMARY KEY|NOT NULL|LOCK TABLE) "
)


def dump() -> Iterator[str]:
    """Yield the lines of the dump, each section under a heading."""
    for name, command in (("hsm-cli", cli), ("hsm-server", server)):
        yield f"# Help of {name}"
        yield from _help(command, click.Context(command, info_name=name))
    yield "# Pages of the console"
    for page in sorted(_PACKAGES.rglob("src/**/templates/**/*.html")):
        yield f"## {page.relative_to(_PACKAGES).as_posix()}"
        yield from _texts(page.read_text("utf-8"))
    for dist in DISTS:
        yield f"# Messages of {dist}"
        for module in sorted((_PACKAGES / dist / "src").rglob("*.py")):
            if lines := list(_messages(ast.parse(module.read_text("utf-8")))):
                yield f"## {module.relative_to(_PACKAGES / dist / 'src').as_posix()}"
                yield from lines


def _help(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}"
    yield from (command.help or "").splitlines()
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            record = parameter.get_help_record(context)
            yield "  " + "  ".join(record or ())
    if command.epilog:
        yield command.epilog
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if child := command.get_command(context, name):
                yield from _help(
                    child, click.Context(child, parent=context, info_name=name)
                )


def _texts(template: str) -> Iterator[str]:
    """Yield what a page shows: text between tags, and attributes that are read."""
    plain = _TAG.sub("\n", template)
    yield from _SHOWN.findall(plain)
    for line in _MARKUP.sub("\n", plain).splitlines():
        if re.search(r"[A-Za-z]{2}", re.sub(r"{{.*?}}", "", line)):
            yield line.strip()


def _messages(tree: ast.Module) -> Iterator[str]:
    """Yield the strings of a module that look like prose: no docstrings, no SQL."""
    skipped = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        )
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped.update(id(part) for part in node.values)
            text = "".join(_part(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        is_prose = _PROSE.search(text) and not _SQL.search(text)
        if is_prose and id(node) not in skipped:
            yield f"{node.lineno}: {' '.join(text.split())}"


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.FormattedValue):
        return "{" + ast.unparse(part.value) + "}"
    return str(ast.literal_eval(part))


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in dump())
