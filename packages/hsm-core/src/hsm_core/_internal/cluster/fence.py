# SPDX-License-Identifier: MIT
"""
Fence of a cluster: the epoch of each node, and the process that has it.

Every transaction of a node locks the row of its fence, with its epoch, for as long as
it lasts. So after an epoch was raised, no older transaction of that node is open, and
none can be made any more. A row is never deleted: an epoch that began
again would let a process in that was stopped long ago.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from hsm_core._internal.stores.postgresql.connection import no_statements
from hsm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

NODE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_INSTANCE_BYTES: Final = 4
_PREFIX: Final = "ferrohsm "
"""First word of the names of our sessions; see `read_location`."""

_STANDING: Final = (
    "SELECT fence.epoch, fence.instance, nodes.beat, (SELECT level FROM cluster) "
    "FROM fence LEFT JOIN nodes USING (node) WHERE fence.node = $1"
)
_LOCK: Final = "SELECT 1 FROM fence WHERE node = $1 AND epoch = $2 FOR SHARE"
_TAKE: Final = (
    "INSERT INTO fence (node, epoch, instance) VALUES ($1, 1, $2) "
    "ON CONFLICT (node) DO UPDATE "
    "SET epoch = fence.epoch + 1, instance = excluded.instance "
    "WHERE fence.epoch = $3 RETURNING epoch"
)
_OWN: Final = "SELECT epoch FROM fence WHERE node = $1 AND instance = $2 FOR UPDATE"
_SET: Final = "UPDATE fence SET epoch = $2 WHERE node = $1"
_KEEP_LEASES: Final = "UPDATE leases SET epoch = $2 WHERE node = $1 AND epoch = $3"
_LEAVE: Final = (
    "UPDATE fence SET epoch = epoch + 1, instance = NULL "
    "WHERE node = $1 AND instance = $2 RETURNING epoch"
)
_RAISE: Final = (
    "UPDATE fence SET epoch = epoch + 1, instance = NULL "
    "WHERE node = $1 AND epoch = $2 RETURNING epoch"
)
_END_SESSIONS: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = $1 AND pid <> pg_backend_pid()"
)


class Standing(msgspec.Struct, frozen=True):
    """
    State of a node's name.

    Attributes:
        epoch: Its epoch; 0 if no node ever had the name.
        instance: The process that has it; empty if none does.
        beat: Its newest beat.
        level: Level of the cluster.
    """

    epoch: int = 0
    instance: str = ""
    beat: int = 0
    level: int = 0


def check_node_name(name: str) -> None:
    """
    Refuse what can't be the name of a node.

    Raises:
        ConfigurationError: It can't.
    """
    if NODE_NAME.fullmatch(name) is None:
        raise ConfigurationError(
            "node_name must be 1 to 40 letters, digits, dots, hyphens and "
            f"underscores, and begin with a letter or digit, got {name[:48]!r}.",
            field="node_name",
        )


def new_instance(random: bytes) -> str:
    """Return the ID of this process, given random bytes."""
    return random[:_INSTANCE_BYTES].hex()


def session_name(node: str, instance: str) -> str:
    """Return the name under which the database lists the sessions of a process."""
    return f"{node}/{instance}"


def read_standing(connection: ServerConnection, node: str) -> Standing:
    """Return the state of a node's name."""
    found = connection.execute(_STANDING, (node,)).fetchone()
    if found is None:
        return Standing()
    epoch, instance, beat, level = found
    return Standing(int(epoch), instance or "", beat or 0, level or 0)


def lock(
    connection: ServerConnection,
    node: str,
    epoch: int,
    then: Callable[[], object] = no_statements,
) -> bool:
    """
    Lock the fence of this node for a transaction; False if its epoch is another.

    Args:
        connection: In the transaction.

        node: This node.

        epoch: Its epoch.

        then: Executes further statements, in the same write.
    """
    # The epoch is compared in the statement that locks: one that waits for a raise
    # compares it again with what was raised.
    with connection.pipeline():
        locked = connection.execute(_LOCK, (node, epoch))
        then()
    return locked.fetchone() is not None


def take(
    connection: ServerConnection, node: str, instance: str, epoch: int
) -> int | None:
    """
    Take a name whose epoch was *epoch*, and return the new epoch.

    None if another process was faster.
    """
    return _epoch(connection, _TAKE, (node, instance, epoch))


def renew(
    connection: ServerConnection, node: str, instance: str, above: int = 0
) -> int | None:
    """
    Raise the epoch of this process's own name above another; None if it lost it.

    It waits for the transactions that were begun under the old epoch. The leases of the
    process stay its own. A raise with unknown outcome can be repeated.
    """
    before = _epoch(connection, _OWN, (node, instance))
    if before is None:
        return None
    epoch = max(before, above) + 1
    with connection.pipeline():
        connection.execute(_SET, (node, epoch))
        connection.execute(_KEEP_LEASES, (node, epoch, before))
    return epoch


def leave(connection: ServerConnection, node: str, instance: str) -> int | None:
    """Give up this process's own name; None if it was lost already."""
    return _epoch(connection, _LEAVE, (node, instance))


def raise_epoch(connection: ServerConnection, node: str, epoch: int) -> int | None:
    """Fence another node; None if its epoch is not *epoch* any more."""
    return _epoch(connection, _RAISE, (node, epoch))


def end_sessions(connection: ServerConnection, node: str, instance: str) -> None:
    """End the database's sessions of a process that was fenced."""
    connection.execute(_END_SESSIONS, (_PREFIX + session_name(node, instance),))


def _epoch(
    connection: ServerConnection, statement: str, values: tuple[object, ...]
) -> int | None:
    found = connection.execute(statement, values).fetchone()
    return None if found is None else int(found[0])
