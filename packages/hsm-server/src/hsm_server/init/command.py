# SPDX-License-Identifier: MIT
"""Command ``hsm-server init``: options, interruptions and exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import click

from hsm_core.errors import HSMError
from hsm_server.config.exit_codes import ExitCode, exit_code_of
from hsm_server.config.options import Command
from hsm_server.init.directory import (
    DirectoryTakenError,
    check_free,
    fill,
    new_directory,
)
from hsm_server.init.plan import ROOT_FILE, SETTINGS_FILE, StoreKind
from hsm_server.init.questions import (
    DEFAULT_ADMIN,
    DEFAULT_HOST,
    ask,
    host_name,
    person,
    second_person,
)
from hsm_server.init.summary import show_next_steps, show_secrets, tick
from hsm_server.system.standard_streams import say, sentence

_TAKEN: Final = 3
_INTERRUPTED: Final = 130


def _parsed(parse: Callable[[str], str]) -> Callable[[Any, Any, str | None], Any]:
    """Return the callback of an option: checks the value, if there is one."""

    def convert(ctx: click.Context, option: click.Parameter, value: str | None) -> Any:
        return None if value is None else parse(value)

    return convert


@click.command(
    "init",
    cls=Command,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--host",
    metavar="NAME",
    callback=_parsed(host_name),
    help=f"DNS name or IP address that clients use.  [default: {DEFAULT_HOST}]",
)
@click.option(
    "--admin",
    metavar="NAME",
    callback=_parsed(person),
    help=f"First administrator.  [default: {DEFAULT_ADMIN}]",
)
@click.option(
    "--second",
    metavar="NAME",
    callback=_parsed(second_person),
    help="Second person, who approves. Default: none, and dual control is off.",
)
@click.option(
    "--store",
    type=click.Choice([kind.value for kind in StoreKind]),
    help=f"Store of keys, audit log and approvals.  [default: {StoreKind.SQLITE}]",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Existing file of the root key: 32 bytes, base64, mode 0600. Default: a new "
    f"key in {ROOT_FILE}.",
)
@click.option("--yes", is_flag=True, help="Take all defaults without asking.")
def init(directory: Path, **answers: Any) -> None:
    """
    Create a new HSM in DIRECTORY.

    Creates the root key and the audit key, a private CA, credentials for one or two
    people, a policy, and the settings file hsm.toml. With two people, the policy has
    dual control. DIRECTORY must be missing or empty. Asks five questions, except those
    that options answer.
    """
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    directory = directory.resolve()
    try:
        _init(directory, answers)
    except DirectoryTakenError as error:
        _fail(sentence(error), _TAKEN)
    except HSMError as error:
        _fail(sentence(error), exit_code_of(error))
    except (KeyboardInterrupt, click.Abort):
        say(f"interrupted. {_outcome(directory)}")
        raise SystemExit(_INTERRUPTED) from None
    except OSError as error:
        _fail(f"{error.strerror}. {_outcome(directory)}", ExitCode.FAILED)


def _outcome(directory: Path) -> str:
    is_there = (directory / SETTINGS_FILE).exists()
    return f"{directory} is complete." if is_there else "Nothing was created."


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> NoReturn:
    say(f"error: {message}")
    raise SystemExit(code)


def _init(directory: Path, answers: dict[str, Any]) -> None:
    check_free(directory)
    plan = ask(directory, answers, takes_defaults=answers.pop("yes"))
    is_terminal = sys.stdout.isatty()
    with new_directory(directory) as staging:
        root, people = fill(staging, plan, keeps_passwords=not is_terminal, report=tick)
        # Before the directory is there: an HSM whose passwords nobody saw has no use.
        show_secrets(plan, root, people, shows_passwords=is_terminal)
    show_next_steps(plan)
