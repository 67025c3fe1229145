# SPDX-License-Identifier: MIT
"""
Which stored lines a view need not read.

Reading a record in full takes many times longer than looking for a few bytes in it. An
event has one stored form only (see `record`), so bytes that every record of a kind must
hold are missing in no such record, whatever else is written in its texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from hsm_core._internal.audit.record import FRAME
from hsm_core.model import Phase
from hsm_core.operations import ListAuditEvents

_HEAD: Final = re.compile(
    rb'\{"%b":\{"format":[0-9]+,"log_id":"[0-9a-f]*","seq":[0-9]+,"prev":"[0-9a-f]*",'
    rb'"epoch":[0-9]+,"time":([0-9]{1,16}),"phase":"([a-z]+)",'
    rb'"kind":"[^"\\]*","code":"([^"\\]*)"' % FRAME
)
"""What a line begins with, unless something in it is escaped or not as it should be."""

_INTENT: Final = Phase.INTENT.value.encode()


class Sieve:
    """
    Lets all lines through that a view may have to show, and a few others.

    Args:
        operation: The view.

        since: Its bound in microseconds since 1970, if it has one.

        until: As *since*.
    """

    def __init__(
        self, operation: ListAuditEvents, since: int | None, until: int | None
    ) -> None:
        self._since = since
        self._until = until
        self._failed = operation.failed
        # The clock that wrote the records may have been set back: no bound on the
        # time of one record is a bound on the time of those beside it.
        self._reads_heads = self._failed or since is not None or until is not None
        self._members = [
            _member(name, text)
            for name in ("principal", "code")
            if (text := getattr(operation, name))
        ]
        self._kinds = [_member("kind", kind) for kind in operation.kind]
        self._keys: list[bytes] = []

    def learn_keys(self, key_ids: Iterable[str]) -> None:
        """Let only records of these keys through; with the empty id, all are."""
        self._keys = [_member("key_id", key_id) for key_id in key_ids]

    def lets_through(self, line: bytes) -> bool:
        """Return whether the record of a stored line must be looked at in full."""
        return (
            all(member in line for member in self._members)
            and (not self._kinds or any(member in line for member in self._kinds))
            and (not self._keys or any(member in line for member in self._keys))
            and not (self._reads_heads and self._is_ruled_out(line))
        )

    def _is_ruled_out(self, line: bytes) -> bool:
        """Return whether the head of a line says that it is not looked for."""
        found = _HEAD.match(line)
        if found is None:
            return False
        digits, phase, code = found.groups()
        time = int(digits)
        return (
            (self._failed and (phase == _INTENT or code in (b"", b"ok")))
            or (self._since is not None and time < self._since)
            or (self._until is not None and time >= self._until)
        )


def _member(name: str, text: str) -> bytes:
    """Return what every record with this text holds; nothing if that is not known."""
    try:
        return b'"%b":%b' % (name.encode(), msgspec.json.encode(text)) if text else b""
    except UnicodeEncodeError:
        return b""
