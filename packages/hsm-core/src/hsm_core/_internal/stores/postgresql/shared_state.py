# SPDX-License-Identifier: MIT
"""Values that the servers of a cluster share: rows of a table, sealed one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.lib import silence
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core.protocols import Entropy, Failures

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

_ADD: Final = (
    "INSERT INTO shared (kind, id, owner, value, expires) VALUES ($1, $2, $3, $4, $5) "
    "ON CONFLICT (kind, id) DO NOTHING RETURNING 1"
)
_REPLACE: Final = (
    "UPDATE shared SET value = $3, expires = $4 WHERE kind = $1 AND id = $2 RETURNING 1"
)
_READ: Final = "SELECT value FROM shared WHERE kind = $1 AND id = $2"
_REMOVE: Final = "DELETE FROM shared WHERE kind = $1 AND id = $2"
_CLEAR: Final = "DELETE FROM shared WHERE kind = $1"
_SWEEP: Final = (
    "DELETE FROM shared WHERE ctid = ANY(ARRAY(SELECT ctid FROM shared "
    "WHERE expires < least($1, extract(epoch FROM now())::bigint - $2) "
    "ORDER BY expires LIMIT $3 FOR UPDATE SKIP LOCKED))"
)
"""By the index of their ends; it waits for no request that has a value in use."""

_KEEP_OF_OWNER: Final = (
    "DELETE FROM shared WHERE kind = $1 AND id IN (SELECT id FROM shared "
    "WHERE kind = $1 AND owner = $2 AND id <> $3 ORDER BY expires DESC OFFSET $4)"
)
_KEEP: Final = (
    "DELETE FROM shared WHERE kind = $1 AND id IN (SELECT id FROM shared "
    "WHERE kind = $1 AND id <> $2 ORDER BY expires DESC OFFSET $3)"
)
_FAIL: Final = (
    "INSERT INTO failures AS f (name, count, last) "
    "SELECT n, c, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint "
    "FROM unnest($1::text[], $2::bigint[]) AS new (n, c) ORDER BY n "
    "ON CONFLICT (name) DO UPDATE SET last = excluded.last, count = excluded.count + "
    "CASE WHEN f.last < excluded.last - $3 * 1000000 THEN 0 ELSE f.count END"
)
_FAILED: Final = (
    "SELECT name, count, (SELECT (extract(epoch FROM now()) * 1000000)::bigint) - last "
    "FROM failures WHERE count > $1 AND last "
    "BETWEEN (SELECT ((extract(epoch FROM now()) - $2) * 1000000)::bigint) "
    "AND (SELECT (extract(epoch FROM now()) * 1000000)::bigint) "
    "ORDER BY last DESC LIMIT 1000"
)
"""Each time is computed once, not for each row."""

_SWEEP_FAILURES: Final = (
    "DELETE FROM failures WHERE ctid = ANY(ARRAY(SELECT ctid FROM failures "
    "WHERE last < (extract(epoch FROM now())::bigint - $1) * 1000000 "
    "ORDER BY last LIMIT $2 FOR UPDATE SKIP LOCKED))"
)
_SWEEP_SECONDS: Final = 60.0
_SWEPT_AT_ONCE: Final = 1000
"""Rows of each table that one call removes; the next call goes on."""

_LONGEST_FAILURES: Final = 600
"""Seconds for which a failure is kept at most."""

_GRACE_SECONDS: Final = 60
"""Tolerated clock difference of nodes: expired values are kept for this time."""


class PostgresSharedState:
    """
    A `hsm_core.protocols.SharedState` in a cluster's database.

    Each call bounds its waits as one task; see `hsm_core._internal.lib.silence`.

    Args:
        database: Where the values lie.

        ring: Seals them.

        entropy: Randomness.

        count_nodes: Returns the number of live nodes.
    """

    def __init__(
        self,
        database: ClusterDatabase,
        ring: KeyRing,
        entropy: Entropy,
        count_nodes: Callable[[], int],
    ) -> None:
        self._count_nodes = count_nodes
        self._database = database
        self._ring = ring
        self._entropy = entropy
        self._swept_at = -_SWEEP_SECONDS

    @silence.task()
    def add(
        self,
        kind: str,
        name: str,
        value: bytes,
        expires_at: float,
        /,
        *,
        owner: str = "",
        most_of_owner: int = 0,
        most: int = 0,
    ) -> bool:
        """See `hsm_core.protocols.SharedState.add`."""
        sealed = self._seal(kind, name, value)

        def work(connection: ServerConnection) -> bool:
            values = (kind, name, owner, sealed, int(expires_at))
            if connection.execute(_ADD, values).fetchone() is None:
                return False
            if most_of_owner:
                kept = (kind, owner, name, most_of_owner - 1)
                connection.execute(_KEEP_OF_OWNER, kept)
            if most:
                connection.execute(_KEEP, (kind, name, most - 1))
            return True

        self._sweep()
        return self._database.run(work)

    @silence.task()
    def replace(self, kind: str, name: str, value: bytes, expires_at: float, /) -> bool:
        """See `hsm_core.protocols.SharedState.replace`."""
        values = (kind, name, self._seal(kind, name, value), int(expires_at))
        return (
            self._database.run(
                lambda connection: connection.execute(_REPLACE, values).fetchone()
            )
            is not None
        )

    @silence.task()
    def read(self, kind: str, name: str, /) -> bytes | None:
        """See `hsm_core.protocols.SharedState.read`."""
        row = self._database.row(_READ, (kind, name))
        if row is None or not isinstance(row[0], bytes):
            return None
        return self._ring.open_shared(row[0], kind=kind, name=name)

    @silence.task()
    def remove(self, kind: str, name: str = "", /) -> None:
        """See `hsm_core.protocols.SharedState.remove`."""
        self._database.run(
            lambda connection: (
                connection.execute(_REMOVE, (kind, name))
                if name
                else connection.execute(_CLEAR, (kind,))
            )
        )

    @property
    def nodes_live(self) -> int:
        """See `hsm_core.protocols.SharedState.nodes_live`."""
        return max(1, self._count_nodes())

    @silence.task()
    def count_failures(
        self, counts: Mapping[str, int], /, *, free: int, forgotten: int, recent: int
    ) -> Mapping[str, Failures]:
        """See `hsm_core.protocols.SharedState.count_failures`."""

        def work(connection: ServerConnection) -> None:
            connection.execute("SET LOCAL synchronous_commit TO off")
            values = (list(counts), list(counts.values()), forgotten)
            connection.execute(_FAIL, values)

        if counts:
            self._sweep()
            self._database.run(work)
        found = self._database.rows(_FAILED, (free, recent))
        return {name: Failures(count, age / 1e6) for name, count, age in found}

    def _seal(self, kind: str, name: str, value: bytes) -> bytes:
        return self._ring.seal_shared(
            value, kind=kind, name=name, entropy=self._entropy
        )

    def _sweep(self) -> None:
        """
        Remove expired values now and then, and at once while there are more.

        They have expired by the database's clock, too: a node whose clock is ahead
        would let a spent token count again on the others.
        """
        now = time.monotonic()
        if now - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = now
        before = int(time.time()) - _GRACE_SECONDS

        def work(connection: ServerConnection) -> bool:
            values = (before, _GRACE_SECONDS, _SWEPT_AT_ONCE)
            ended = connection.execute(_SWEEP, values).rowcount
            old = (_LONGEST_FAILURES, _SWEPT_AT_ONCE)
            forgotten = connection.execute(_SWEEP_FAILURES, old).rowcount
            return _SWEPT_AT_ONCE in {ended, forgotten}

        if self._database.run(work):
            self._swept_at = -_SWEEP_SECONDS
