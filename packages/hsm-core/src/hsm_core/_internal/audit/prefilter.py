# SPDX-License-Identifier: MIT
"""
Prefilter: skips stored lines that an audit query can't match.

Decoding a record takes many times longer than searching it for a few bytes. An event
has exactly one stored form (see `record`), so a line without the bytes that every
record of a kind must hold is not of that kind.
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
    rb'"kind":"([^"\\]*)","code":"([^"\\]*)"' % FRAME
)
"""Start of a line, unless it holds escapes or is malformed."""

_INTENT: Final = Phase.INTENT.value.encode()


class Prefilter:
    """
    Prefilter that passes all lines that may match a query, and a few others.

    Args:
        operation: The query.

        since: Lower bound in microseconds since 1970, if any.

        until: As *since*.
    """

    def __init__(
        self, operation: ListAuditEvents, since: int | None, until: int | None
    ) -> None:
        self._since = since
        self._until = until
        self._failed = operation.failed
        self._kinds = frozenset(kind.encode() for kind in operation.kind)
        # The clock that wrote the records may have been set back: no bound on the
        # time of one record is a bound on the time of those beside it.
        self._reads_heads = bool(
            self._failed or self._kinds or since is not None or until is not None
        )
        self._members = [
            _member(name, text)
            for name in ("principal", "code")
            if (text := getattr(operation, name))
        ]
        self._keys: list[bytes] = []

    def learn_keys(self, key_ids: Iterable[str]) -> None:
        """Pass only records of these keys; with the empty id, pass all."""
        self._keys = [_member("key_id", key_id) for key_id in key_ids]

    def lets_through(self, line: bytes) -> bool:
        """Return whether a stored line must be decoded."""
        return (
            all(member in line for member in self._members)
            and (not self._keys or any(member in line for member in self._keys))
            and not (self._reads_heads and self._is_ruled_out(line))
        )

    def _is_ruled_out(self, line: bytes) -> bool:
        """Return whether the head of a line rules it out."""
        found = _HEAD.match(line)
        if found is None:
            return False
        digits, phase, kind, code = found.groups()
        time = int(digits)
        return bool(
            (self._failed and (phase == _INTENT or code in (b"", b"ok")))
            or (self._kinds and kind not in self._kinds)
            or (self._since is not None and time < self._since)
            or (self._until is not None and time >= self._until)
        )


def _member(name: str, text: str) -> bytes:
    """Return the bytes that every record with this text holds; empty if unknown."""
    try:
        return b'"%b":%b' % (name.encode(), msgspec.json.encode(text)) if text else b""
    except UnicodeEncodeError:
        return b""
