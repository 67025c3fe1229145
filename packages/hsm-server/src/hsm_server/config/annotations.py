# SPDX-License-Identifier: MIT
"""Annotation of the fields that operators set, and parsers of their texts."""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar, get_type_hints
from urllib.parse import SplitResult, urlsplit

from hsm_core.model import Record
from hsm_core.secret_input import database_problem

R = TypeVar("R", bound=Record)

OF_FIELD: Final = object()
"""Default of a `Setting` that is the default of its field."""

_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]\s]+)):([0-9]{1,5})\Z")
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*:.+", re.DOTALL)
_MOST_URL_CHARACTERS: Final = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """
    Annotation of a field that is set by a flag or an environment variable.

    Type, limits and default are those of the field.

    Attributes:
        flag: Name, such as ``log-level``; variable and file key follow from it.
        help: Help text.
        metavar: Placeholder of the value, if not derived from the type.
        variable: Environment variable.
        parse: Returns the value of a text, or raises ``ValueError`` with a sentence.
            Lists are parsed item by item, tables as a whole.
        default: Default, if it differs from the field's; None leaves the field alone.
        at_least: Lower limit, if it differs from the field's.
        at_most: Upper limit, if it differs from the field's.
        texts: Values by text, for a field that is no enumeration.
        is_secret: Whether the value is never shown.
        is_negatable: Whether ``--no-FLAG`` switches it off.
        is_read_here: Whether the current user must be able to read the file.
    """

    flag: str
    help: str
    metavar: str = ""
    variable: str = ""
    parse: Callable[[Any], Any] | None = None
    default: Any = OF_FIELD
    at_least: float | None = None
    at_most: float | None = None
    texts: dict[str, Any] = field(default_factory=dict)
    is_secret: bool = False
    is_negatable: bool = True
    is_read_here: bool = True

    def __post_init__(self) -> None:
        variable = self.variable or variable_of(self.flag)
        object.__setattr__(self, "variable", variable)

    @property
    def name(self) -> str:
        """Name of the parsed value."""
        return self.flag.replace("-", "_")


def variable_of(flag: str) -> str:
    """Return the usual environment variable of a flag."""
    return "FERROHSM_" + flag.upper().replace("-", "_")


@cache
def settings_in(group: type[Record]) -> Mapping[str, Setting]:
    """Return the annotations of a group, by field."""
    found = {}
    for name, hint in get_type_hints(group, include_extras=True).items():
        for annotation in getattr(hint, "__metadata__", ()):
            if isinstance(annotation, Setting):
                found[name] = annotation
    return found


def given(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that have a parsed value."""
    return {
        name: values[setting.name]
        for name, setting in settings.items()
        if values[setting.name] is not None
    }


def build(group: type[R], values: Mapping[str, Any], **others: Any) -> R:
    """
    Return a group of settings.

    Args:
        group: Its class.

        values: Parsed values, by `Setting.name`.

        others: Fields that no setting determines alone.
    """
    return group(**given(settings_in(group), values) | others)


class Address(NamedTuple):
    """Host and port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as `parse_address` reads it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class User(Record, frozen=True, kw_only=True):
    """System user, by number."""

    uid: int
    gid: int


def parse_address(text: str) -> Address:
    """
    Return host and port.

    Raises:
        ValueError: It has another form.
    """
    found = _ADDRESS.match(text)
    if found is None or int(found[3]) > 65535:
        raise ValueError("must be HOST:PORT, or [IPV6]:PORT.")
    return Address(found[1] or found[2], int(found[3]))


def parse_network(text: str) -> str:
    """
    Return a network in its usual form.

    Raises:
        ValueError: It is not a network (CIDR).
    """
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}.") from None


def split_url(text: str) -> SplitResult | None:
    """Return the parts of a URL; None if it is malformed."""
    from yarl import URL  # few starts need it

    try:
        parts = urlsplit(text)
        _ = parts.port
        # The client of HTTP refuses host names that the former lets pass.
        _ = URL(text).host
    except ValueError:
        return None
    return parts


def parse_key_set_url(text: str) -> str:
    """
    Return a URL of HTTPS, or nothing.

    Raises:
        ValueError: It is of another scheme, names nobody or a user, or is none.
    """
    if not text:
        return text
    parts = split_url(text)
    if parts is None:
        raise ValueError("not a valid URL.")
    if (
        parts.scheme != "https"
        or not parts.hostname
        or len(text) > _MOST_URL_CHARACTERS
    ):
        raise ValueError(
            "must be an https:// URL. Over plain HTTP an attacker could replace "
            "the keys and forge tokens."
        )
    if parts.username is not None or parts.fragment:
        raise ValueError("must not contain user information or a fragment.")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("contains characters that are not allowed in a URL.")
    return text


def parse_providers(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """
    Return the names of providers by name of algorithm.

    Each text is ``ALGORITHM=NAME[,NAME…]``, the preferred provider first; it may
    go on with the next algorithm after a comma. The names are checked when the HSM is
    opened.

    Raises:
        ValueError: A text is of another form, or an algorithm stands twice.
    """
    orders: dict[str, tuple[str, ...]] = {}
    for text in texts:
        algorithm = ""
        for part in text.split(","):
            before, begins, after = part.rpartition("=")
            name = after.strip()
            algorithm = before.strip() if begins else algorithm
            if not algorithm or not name:
                raise ValueError("must be ALGORITHM=NAME or ALGORITHM=NAME,NAME.")
            if begins and algorithm in orders:
                raise ValueError(f"lists {algorithm} twice.")
            orders[algorithm] = (*orders.get(algorithm, ()), name)
    return orders


def parse_all_stores(text: str) -> str:
    """
    Return the address of all stores, or where it is; no message repeats it.

    Raises:
        ValueError: It has another form.
    """
    if text.startswith("postgresql://"):
        if problem := database_problem(text):
            raise ValueError(problem)
        return text
    if text.startswith(("sqlite:", "@", "fd:")):
        return text
    raise ValueError(
        "must be postgresql://USER@HOST/DATABASE, sqlite:DIR or @FILE with one of them."
    )


def parse_key_store(text: str) -> str:
    """
    Return the name or URI of a key store; its scheme is checked when it is opened.

    Raises:
        ValueError: It has another form.
    """
    return _store(text, "filesystem")


def parse_approval_store(text: str) -> str:
    """
    Return the name or URI of an approval store; see `parse_key_store`.

    Raises:
        ValueError: It has another form.
    """
    return _store(text, "file")


def _store(text: str, first: str) -> str:
    if text in {first, "sqlite", "memory"} or _URI.fullmatch(text):
        return text
    raise ValueError(f"must be '{first}', 'sqlite', 'memory' or SCHEME:REST.")


def parse_user(name: str) -> User:
    """
    Return a user of the system, and their group.

    Raises:
        ValueError: There is no such user, or this process may not become them.
    """
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise ValueError(f"user {name!r} does not exist.") from None
    if os.geteuid() not in (0, found.pw_uid):
        raise ValueError("only root can select another user.")
    return User(uid=found.pw_uid, gid=found.pw_gid)
