# SPDX-License-Identifier: MIT
"""Command ``hsm-server init``: questions, and the summary."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn, TypeVar

import click

from hsm_core.errors import HSMError, InvalidInputError
from hsm_core.identities import is_reserved, same_person
from hsm_core.people import NewPerson, check_name
from hsm_core.secret_input import fingerprint
from hsm_server.config.exit_codes import ExitCode, exit_code_of
from hsm_server.config.options import Command
from hsm_server.config.tls import parse_host
from hsm_server.init.directory import (
    DirectoryTakenError,
    check_free,
    fill,
    new_directory,
)
from hsm_server.init.plan import AUDIT_FILE, ROOT_FILE, SETTINGS_FILE, Plan, StoreKind
from hsm_server.system.standard_streams import say, sentence

T = TypeVar("T")

_TAKEN: Final = 3
_INTERRUPTED: Final = 130
_DEFAULT_HOST: Final = "localhost"
_DEFAULT_ADMIN: Final = "ada"
_QUESTIONS: Final = 5


def _parsed(parse: Callable[[str], str]) -> Callable[[Any, Any, str | None], Any]:
    """Return the callback of an option: checks the value, if there is one."""

    def convert(ctx: click.Context, option: click.Parameter, value: str | None) -> Any:
        return None if value is None else parse(value)

    return convert


def _host(text: str) -> str:
    try:
        return parse_host(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}") from None


def _person(text: str) -> str:
    try:
        check_name(text)
    except InvalidInputError as error:
        raise click.BadParameter(str(error)) from None
    if is_reserved(text):
        raise click.BadParameter(f"{text!r} is reserved for the HSM.")
    return text


def _second(text: str) -> str:
    return _person(text) if text else ""


@click.command(
    "init",
    cls=Command,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--host",
    metavar="NAME",
    callback=_parsed(_host),
    help=f"DNS name or IP address that clients use.  [default: {_DEFAULT_HOST}]",
)
@click.option(
    "--admin",
    metavar="NAME",
    callback=_parsed(_person),
    help=f"First administrator.  [default: {_DEFAULT_ADMIN}]",
)
@click.option(
    "--second",
    metavar="NAME",
    callback=_parsed(_second),
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
    people, a policy with dual control, and the settings file hsm.toml. DIRECTORY must
    be missing or empty. Asks five questions, unless options answer them.
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
    plan = _plan(directory, answers)
    is_terminal = sys.stdout.isatty()
    with new_directory(directory) as staging:
        root, people = fill(
            staging, plan, keeps_passwords=not is_terminal, report=_tick
        )
        # Before the directory is there: an HSM whose passwords nobody saw has no use.
        _show_secrets(plan, root, people, shows_passwords=is_terminal)
    _show_next_steps(plan)
    if _is_lost():
        click.echo(f"\nYour shell is in the former, empty directory: cd {directory}")


def _is_lost() -> bool:
    """Return whether the working directory was replaced."""
    try:
        return not os.path.samefile(os.getcwd(), ".")
    except FileNotFoundError:
        return True


def _plan(directory: Path, answers: dict[str, Any]) -> Plan:
    asks = not answers.pop("yes")
    if asks and None in answers.values():
        if not sys.stdin.isatty():
            raise click.UsageError(
                "Standard input is not a terminal. Pass --yes to take the defaults of "
                "the options that are not given."
            )
        click.echo(
            f"New HSM in {directory}. Five questions; Enter takes the default, "
            f"everything can be\nchanged in {SETTINGS_FILE}.\n"
        )
    asked = _Questions(answers, asks=asks)
    host = asked.answer(1, "host", "Host name that clients use", _DEFAULT_HOST, _host)
    admin = asked.answer(2, "admin", "First administrator", _DEFAULT_ADMIN, _person)

    def other(text: str) -> str:
        if text and same_person(text, admin):
            raise click.BadParameter(
                f"The second person must be another one than {admin}."
            )
        return _second(text)

    second = asked.answer(
        3, "second", "Second person, who approves (empty: none)", "", other
    )
    store = asked.answer(
        4,
        "store",
        "Store: 1 SQLite, one machine (default)  2 files",
        "1",
        _choice(StoreKind.SQLITE, StoreKind.FILES),
    )
    root = asked.answer(
        5, "root", "Root key: new, or the path of an existing file", "new", _root
    )
    return Plan(
        directory=directory,
        host=host,
        admin=admin,
        second=second,
        store=StoreKind(store),
        root=root.resolve() if root is not None else None,
    )


class _Questions:
    """Questions whose answers are not given."""

    def __init__(self, answers: dict[str, Any], *, asks: bool) -> None:
        self._answers = answers
        self._asks = asks

    def answer(
        self, number: int, name: str, text: str, default: str, parse: Callable[[str], T]
    ) -> T:
        """Return what is given, what is answered, or the default."""
        given = self._answers[name]
        if given is not None:
            return parse(given)
        if not self._asks:
            return parse(default)
        return click.prompt(
            f"{number}/{_QUESTIONS} {text}",
            default=default,
            value_proc=parse,
            show_default=True,
        )


def _choice(*kinds: StoreKind) -> Callable[[str], StoreKind]:
    numbered = {str(number): kind for number, kind in enumerate(kinds, 1)}

    def parse(text: str) -> StoreKind:
        found = numbered.get(text) or next((k for k in kinds if k == text), None)
        if found is None:
            raise click.BadParameter(f"Answer {' or '.join(numbered)}.")
        return found

    return parse


def _root(answer: str | Path) -> Path | None:
    if answer == "new":
        return None
    path = Path(answer)
    if not path.is_file():
        raise click.BadParameter(f"{path} is not a file. Answer new, or a path.")
    return path


def _tick(text: str) -> None:
    click.echo(f"  {_mark()} {text}")


def _mark() -> str:
    try:
        "✓".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "*"
    return "✓"


def _show_secrets(
    plan: Plan, root: bytes, people: Sequence[NewPerson], *, shows_passwords: bool
) -> None:
    held = ROOT_FILE if plan.root is None else str(plan.root)
    rows = [
        (
            "Copy to a safe place",
            held,
            f"opens every key; fingerprint {fingerprint(root)}",
        ),
        (
            "Copy for your auditor",
            AUDIT_FILE,
            "verifies the audit log, and can forge it",
        ),
    ]
    for person in people:
        name = person.credential.name.removesuffix(".p12")
        password = person.password
        if person.password_file is not None:
            password = f"password in people/{person.password_file.name}"
        rows.append(
            (
                f"Give to {name}, with password",
                f"people/{person.credential.name}",
                password,
            )
        )
    click.echo()
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for first, second, third in rows:
        click.echo(f"{first:{widths[0]}}  {second:{widths[1]}}  {third}")
    if shows_passwords:
        click.echo("Passwords are shown once.")


def _show_next_steps(plan: Plan) -> None:
    directory = plan.directory
    if plan.second:
        click.echo(
            f"Destroying, exporting and revoking keys need {plan.admin} and "
            f"{plan.second}. Whoever can write to\n{directory} can change the policy."
        )
    else:
        click.echo(
            "Dual control is off. To turn it on: hsm-cli people add NAME --role "
            f"Operator --role Auditor\n--directory {directory}, and edit policy.yaml."
        )
    click.echo()
    settings = directory / SETTINGS_FILE
    credential = directory / "people" / f"{plan.admin}.p12"
    click.echo(f"Start:    hsm-server serve --config {settings}")
    click.echo(f"Sign in:  hsm-cli login {plan.url} --credential {credential}")
    click.echo(f"Check:    hsm-server check --config {settings} --root-copy COPY")
