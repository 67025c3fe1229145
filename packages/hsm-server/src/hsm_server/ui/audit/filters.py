# SPDX-License-Identifier: MIT
"""From the filters of a page to the view of the trail that they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from hsm_core import wire
from hsm_core.errors import InvalidInputError
from hsm_core.operations import ListAuditEvents

FAILED: Final = "failed"
"""Outcome that stands for any error."""

PER_PAGE: Final = 50

_NAMES: Final = ("principal", "key_id", "kind", "outcome", "since", "until")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """
    What a page of the trail was asked to show, as it was typed.

    Attributes:
        kind: Kinds of records, with commas or blanks between.
        outcome: Empty, `FAILED`, ``ok`` or the code of an error.
        since: Date, or date and time, as browsers write them; in UTC.
        until: As *since*.
    """

    principal: str = ""
    key_id: str = ""
    kind: str = ""
    outcome: str = ""
    since: str = ""
    until: str = ""

    @property
    def is_narrow(self) -> bool:
        """Whether they leave anything out."""
        return any(getattr(self, name) for name in _NAMES)

    def query(self, **more: str) -> str:
        """Return a query string that asks for the same, and for more."""
        fields = {name: getattr(self, name) for name in _NAMES} | more
        return urlencode({name: value for name, value in fields.items() if value})

    def operation(self, **more: Any) -> ListAuditEvents:
        """
        Return the view of the trail.

        Raises:
            InvalidInputError: A filter breaks a rule; the message names it.
        """
        tree: dict[str, Any] = {
            "principal": self.principal,
            "key_id": self.key_id,
            "kind": self.kind.replace(",", " ").split(),
            "since": _instant("since", self.since),
            "until": _instant("until", self.until),
            **more,
        }
        if self.outcome == FAILED:
            tree["failed"] = True
        else:
            tree["code"] = self.outcome
        return wire.convert(tree, ListAuditEvents)


def read_filters(query: Mapping[str, str]) -> Filters:
    """Return the filters of a query; what else stands there is not looked at."""
    return Filters(**{name: query.get(name, "").strip() for name in _NAMES})


def _instant(name: str, text: str) -> str | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{name} must be a date, or a date and a time.", field=name
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()
