# SPDX-License-Identifier: MIT
"""Questions of ``hsm-server init``, and the checks of their answers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from hsm_core.errors import InvalidInputError
from hsm_core.identities import same_person
from hsm_core.people import check_name
from hsm_server.config.tls import parse_host
from hsm_server.init.plan import SETTINGS_FILE, HSMPlan, StoreKind
from hsm_server.text import escaped

T = TypeVar("T")

DEFAULT_HOST: Final = "localhost"
DEFAULT_ADMIN: Final = "ada"
_QUESTIONS: Final = 5


def host_name(text: str) -> str:
    """
    Return a host name in its usual form.

    Raises:
        click.BadParameter: It is neither a DNS name nor an IP address.
    """
    try:
        return parse_host(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}") from None


def person(text: str) -> str:
    """
    Return the name of a person.

    Raises:
        click.BadParameter: Nobody can have this name.
    """
    try:
        check_name(text)
    except InvalidInputError as error:
        raise click.BadParameter(str(error)) from None
    return text


def second_person(text: str) -> str:
    """
    Return the name of the second person, or an empty text for nobody.

    Raises:
        click.BadParameter: See `person`.
    """
    return person(text) if text else ""


def ask(directory: Path, answers: dict[str, Any], *, takes_defaults: bool) -> HSMPlan:
    """
    Return the plan of a new HSM.

    Args:
        directory: Directory of the HSM, absolute.

        answers: Answers that options gave, by option; None where there is none.

        takes_defaults: Whether to take the default where there is no answer.

    Raises:
        click.UsageError: An answer can't be used, or there is nobody to ask.
    """
    if not takes_defaults and None in answers.values():
        _greet(directory)
    asked = _Questions(answers, takes_defaults=takes_defaults)
    host = asked.answer(
        1, "host", "Host name that clients use", DEFAULT_HOST, host_name
    )
    admin = asked.answer(2, "admin", "First administrator", DEFAULT_ADMIN, person)
    second = asked.answer(
        3, "second", "Second person, who approves (empty: none)", "", _other_than(admin)
    )
    store = asked.answer(
        4, "store", "Store: 1 SQLite, one machine (default)  2 files", "1", _store
    )
    root = asked.answer(
        5, "root", "Root key: new, or the path of an existing file", "new", _root
    )
    return HSMPlan(
        directory=directory,
        host=host,
        admin=admin,
        second=second,
        store=store,
        root=root,
    )


def _greet(directory: Path) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(
            "Standard input is not a terminal. Pass --yes to take the defaults of the "
            "options that are not given."
        )
    click.echo(
        f"New HSM in {escaped(str(directory))}. Five questions; Enter takes the "
        f"default, everything can be\nchanged in {SETTINGS_FILE}.\n"
    )


class _Questions:
    """Questions whose answers are not given."""

    def __init__(self, answers: dict[str, Any], *, takes_defaults: bool) -> None:
        self._answers = answers
        self._takes_defaults = takes_defaults

    def answer(
        self, number: int, name: str, text: str, default: str, parse: Callable[[str], T]
    ) -> T:
        """Return what is given, what is answered, or the default."""
        given = self._answers[name]
        if given is not None:
            return parse(given)
        if self._takes_defaults:
            return parse(default)
        return click.prompt(
            f"{number}/{_QUESTIONS} {text}", default=default, value_proc=parse
        )


def _other_than(admin: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text and same_person(text, admin):
            raise click.BadParameter(f"The second person must not be {admin}.")
        return second_person(text)

    return parse


_STORES: Final = {"1": StoreKind.SQLITE, "2": StoreKind.FILES}


def _store(text: str) -> StoreKind:
    if text in _STORES:
        return _STORES[text]
    if text in set(StoreKind):
        return StoreKind(text)
    raise click.BadParameter("Answer 1 or 2.")


def _root(answer: str | Path) -> Path | None:
    if answer == "new":
        return None
    path = Path(answer)
    if not path.is_file():
        raise click.BadParameter(f"{path} is not a file. Answer new, or a path.")
    return path.resolve()
