# SPDX-License-Identifier: MIT
"""Short IDs: the start of a UUID, as tables show it, in place of the whole one."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from hsm_core.model import KeyInfo
    from hsm_core.operations.base import Operation
    from hsm_core.protocols import HSM

R = TypeVar("R")

_SHORT: Final = r"[0-9a-f]{8}(?:-[0-9a-f-]{0,26})?"
"""At least the digits of a table, so that no mistyped name passes for one."""

KEY_FIELDS: Final = ("key_id", "base_key_id", "wrapping_key_id")
"""Fields of operations that name a key."""

_MOST_CANDIDATES: Final = 5


def is_short(text: str) -> bool:
    """Return whether a text may be the start of a UUID, and not a whole one."""
    return re.fullmatch(_SHORT, text) is not None


def with_whole_ids(
    connect: Callable[[], HSM], operation: Operation[R], known: dict[str, str]
) -> Operation[R]:
    """
    Return an operation with whole key IDs in place of short ones.

    Args:
        connect: Returns the HSM that finds the keys.

        operation: The operation.

        known: Whole IDs of short ones that were looked up before; new ones are added.

    Raises:
        InvalidInputError: Several keys have an ID with this start.
    """
    from msgspec import structs

    changes = {}
    for name in KEY_FIELDS:
        text = getattr(operation, name, None)
        if text and is_short(text):
            known[text] = known.get(text) or whole_key(connect(), text)
            changes[name] = known[text]
    return structs.replace(operation, **changes) if changes else operation


def whole_key(hsm: HSM, text: str) -> str:
    """
    Return the only key ID with this start, or *text* if there is none.

    A key with such a name takes precedence: then *text* is returned, too.

    Raises:
        InvalidInputError: Several keys have an ID with this start.
    """
    from hsm_core.errors import AccessDeniedError, KeyNotFoundError
    from hsm_core.model import KeyState
    from hsm_core.operations.keys import DescribeKey, ListKeys

    found: list[KeyInfo] = []
    try:
        hsm.execute(DescribeKey(key_id=text))
    except KeyNotFoundError:
        for state in (None, KeyState.DESTROYED):
            page = hsm.execute(ListKeys(search=text, state=state, per_page=1000))
            found += (key for key in page.items if key.key_id.startswith(text))
    except AccessDeniedError:
        return text
    names = [f"{key.key_id} ({key.name or 'no name'})" for key in found]
    _check_unique("key", text, names)
    return found[0].key_id if found else text


@contextmanager
def similar_names(hsm: HSM, operation: Operation[Any]) -> Iterator[None]:
    """Add names of similar keys to the error of an unknown one, for a person."""
    from hsm_core.errors import AccessDeniedError, KeyNotFoundError, UnavailableError
    from hsm_core.operations.keys import ListKeys

    try:
        yield
    except KeyNotFoundError as error:
        # A program that looks whether a key exists needs no second request.
        if sys.stderr is not None and sys.stderr.isatty():
            from difflib import get_close_matches

            with suppress(AccessDeniedError, UnavailableError):
                page = hsm.execute(ListKeys(per_page=1000))
                known = [key.name for key in page.items if key.name]
                given = [str(getattr(operation, name, "")) for name in KEY_FIELDS]
                found = [
                    name
                    for text in given
                    if text not in known
                    for name in get_close_matches(text, known, n=2)
                ]
                if found:
                    error.add_note(f"did you mean {' or '.join(found)}?")
        raise


def whole_approval(hsm: HSM, text: str) -> str:
    """
    Return the only approval ID with this start, of open requests first.

    Returns:
        It, or *text* if no request has such an ID.

    Raises:
        InvalidInputError: Several requests have an ID with this start.
    """
    from hsm_core.model import OPEN_APPROVALS
    from hsm_core.users import User

    for states in (OPEN_APPROVALS, ()):
        found = [
            approval
            for approval in User(hsm).approvals(*states)
            if approval.approval_id.startswith(text)
        ]
        names = [f"{one.approval_id} ({one.operation.kind})" for one in found]
        _check_unique("approval request", text, names)
        if found:
            return found[0].approval_id
    return text


def _check_unique(what: str, text: str, candidates: list[str]) -> None:
    from hsm_core.errors import InvalidInputError

    if len(candidates) > 1:
        shown = ", ".join(candidates[:_MOST_CANDIDATES])
        more = ", …" if len(candidates) > _MOST_CANDIDATES else ""
        raise InvalidInputError(
            f"{text} is the start of {len(candidates)} {what} IDs: {shown}{more}. Pass "
            "more of the ID.",
            field="key_id" if what == "key" else "approval_id",
        )
