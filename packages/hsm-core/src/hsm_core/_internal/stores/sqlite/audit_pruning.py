# SPDX-License-Identifier: MIT
"""
Pruning of the oldest records of an audit log in SQLite.

The new baseline is staged first, where nobody looks. The transaction that writes the
record of the prune makes it count, so there is never one without the other. Only then
are rows deleted, a few at a time, so that records can be appended meanwhile; what an
interruption leaves is before the first record that counts, and goes with the next start
or prune.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from hsm_core._internal.audit.baseline import Baseline, check_baseline, known_keys
from hsm_core._internal.audit.medium import TrailMedium
from hsm_core._internal.audit.pruning import gather
from hsm_core._internal.audit.record import Reason, tampered
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.sqlite.audit_rows import first_row, insert_baseline
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    IntegrityError,
    UnavailableError,
)
from hsm_core.protocols import KnownKey

_CHUNK: Final = 4000
_BLOCK: Final = 256
_LINES: Final = (
    "SELECT line FROM baseline WHERE next_seq = ? AND number >= ? "
    "ORDER BY number LIMIT ?"
)
_DROP_BASELINES: Final = (
    "DELETE FROM baseline WHERE (next_seq, number) IN ("
    "SELECT next_seq, number FROM baseline WHERE next_seq <> ? LIMIT ?)"
)


class RowPruner:
    """
    Builds the baseline of old records, and removes them. Not thread-safe.

    Args:
        database: Holds the trail.

        medium: Gives its records.

        log_id: The trail, 32 hex digits.

        hmac_key: Key of the trail.

        baseline: What is kept of the records that are gone already.
    """

    def __init__(
        self,
        database: Database,
        medium: TrailMedium,
        log_id: str,
        hmac_key: bytes,
        baseline: Baseline | None,
    ) -> None:
        self._database = database
        self._medium = medium
        self._log_id = log_id
        self._hmac_key = hmac_key
        self.baseline = baseline

    @property
    def first_seq(self) -> int:
        """The oldest record that counts."""
        return self.baseline.header.next_seq if self.baseline else 0

    def known(self) -> Iterator[KnownKey]:
        """
        Return what the records that are gone said of each key.

        Raises:
            AuditTamperedError: It was changed since the trail was opened.
            AuditUnavailableError: It can't be read.
        """
        while (baseline := self.baseline) is not None:
            try:
                return iter(self._known_of(baseline))
            except AuditTamperedError:
                # A prune under way replaces what is kept.
                if baseline is self.baseline:
                    raise
        return iter(())

    def _known_of(self, baseline: Baseline) -> list[KnownKey]:
        next_seq = baseline.header.next_seq
        found = check_baseline(
            self._lines(next_seq), log_id=self._log_id, hmac_key=self._hmac_key
        )
        if found != baseline:
            raise tampered(Reason.BASELINE, 0)
        return list(known_keys(self._lines(next_seq)))

    def _lines(self, next_seq: int) -> Iterator[bytes]:
        number, found = 0, _BLOCK
        while found == _BLOCK:
            with _own_errors():
                rows = self._database.rows(_LINES, (next_seq, number, _BLOCK))
            yield from (line for (line,) in rows)
            found = len(rows)
            number += found

    def gather(
        self, next_seq: int, policy: str, after_seq: int
    ) -> tuple[Baseline, list[bytes]]:
        """
        Follow the records before *next_seq*, and return the baseline with its lines.

        Args:
            next_seq: The first record that stays.

            policy: By which policy.

            after_seq: The record of the prune will come after this one.

        Raises:
            AuditTamperedError: A record is bad; it must not be removed.
            AuditUnavailableError: They can't be read.
        """
        return gather(
            self._medium.read,
            log_id=self._log_id,
            hmac_key=self._hmac_key,
            baseline=self.baseline,
            keys=self.known(),
            next_seq=next_seq,
            policy=policy,
            after_seq=after_seq,
        )

    def stage(self, next_seq: int, lines: Sequence[bytes]) -> None:
        """
        Put a baseline where it can be made to count.

        Raises:
            AuditUnavailableError: It can't be written; what is there is removed later.
        """
        for start in range(0, len(lines), _CHUNK):
            with self._transaction() as connection:
                chunk = lines[start : start + _CHUNK]
                insert_baseline(connection, next_seq, start, chunk)
        failpoint("audit.prune.after_stage")

    def remove(self) -> None:
        """
        Remove the records before `first_seq`, and baselines that don't count.

        Raises:
            AuditUnavailableError: It failed; to be tried again.
        """
        while self._remove_some(self.first_seq):
            failpoint("audit.prune.after_chunk")

    def _remove_some(self, end: int) -> bool:
        # A power cut may bring rows back, which the next start removes again.
        with self._transaction() as connection:
            dropped = connection.execute(_DROP_BASELINES, (end, _CHUNK)).rowcount
            first = first_row(connection)
            if first is not None and first < end:
                reach = min(first + _CHUNK, end)
                connection.execute("DELETE FROM records WHERE seq < ?", (reach,))
                return True
        return dropped > 0

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _own_errors(), self._database.transaction(durable=False) as connection:
            yield connection


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except AuditTamperedError:
        raise
    except IntegrityError as error:
        raise tampered(Reason.DATABASE, 0) from error
    except UnavailableError as error:
        raise AuditUnavailableError from error
