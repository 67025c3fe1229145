# SPDX-License-Identifier: MIT
"""Filters of the audit log page."""

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
"""Outcome that matches any error."""

PER_PAGE: Final = 50

_NAMES: Final = ("principal", "key_id", "kind", "outcome", "since", "until")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilters:
    """
    Filters of the audit log, as typed.

    Attributes:
        kind: Operations, separated by commas or spaces.
        outcome: Empty, `FAILED`, ``ok`` or the code of an error.
        since: Date, or date and time, in UTC, as browsers send them.
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
        """Whether any filter is set."""
        return any(getattr(self, name) for name in _NAMES)

    def query(self, **more: str) -> str:
        """Return a query string of these filters and more parameters."""
        fields = {name: getattr(self, name) for name in _NAMES} | more
        return urlencode({name: value for name, value in fields.items() if value})

    def operation(self, **more: Any) -> ListAuditEvents:
        """
        Return the operation that lists the matching records.

        Raises:
            InvalidInputError: A filter is invalid; the message names it.
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


def read_filters(query: Mapping[str, str]) -> AuditFilters:
    """Return the filters of a query; other parameters are ignored."""
    return AuditFilters(**{name: query.get(name, "").strip() for name in _NAMES})


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
