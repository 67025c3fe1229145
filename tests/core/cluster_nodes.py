# SPDX-License-Identifier: MIT
"""Nodes of a cluster as programs open them: with logs, membership and marks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.postgresql.audit_offline import ClusterVerifier
from hsm_core._internal.stores.postgresql.connection import read_location
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.records import ClusterKeyStore
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import AuditEvent
from hsm_core.operations import ListAuditEvents
from hsm_core.protocols import Clock, RemoteKeyVault
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.core.filesystem_child import die

ROOT: Final = b"\x01" * 32
AUDIT_KEY: Final = b"\x02" * 32


def open_node(
    url: str,
    folder: Path,
    name: str = "a",
    *,
    clock: Clock | None = None,
    vault: RemoteKeyVault | None = None,
    **settings: Any,
) -> OpenHSM:
    """Open a node; its mark is in a folder."""
    return open_hsm(
        Settings(
            store=url,
            node_name=name,
            node_mark=folder / f"{name}.mark",
            audit_timeout_seconds=30.0,
            **settings,
        ),
        master_key=ROOT,
        hmac_key=AUDIT_KEY,
        vault=vault,
        clock=clock,
        test_all=False,
    )


@contextmanager
def node(url: str, folder: Path, name: str = "a", **settings: Any) -> Iterator[OpenHSM]:
    """Open a node, and close it in the end."""
    opened = open_node(url, folder, name, **settings)
    try:
        yield opened
    finally:
        opened.close()


def session(hsm: OpenHSM) -> Session:
    """Return a session of somebody who may do everything."""
    return Session(hsm.act_as(caller()))


def events(
    hsm: OpenHSM, wanted: Callable[[AuditEvent], bool] = lambda event: True
) -> list[AuditEvent]:
    """Return the records of all nodes, in order."""
    page = hsm.act_as(caller()).execute(ListAuditEvents(limit=1000, ascending=True))
    return [item.event for item in page.items if wanted(item.event)]


def die_at(name: str, work: Callable[[], object]) -> None:
    """Kill this process at the first failpoint of a name."""

    def strike(reached: str) -> None:
        if reached == name:
            die()

    with install(strike):
        work()


def verify(url: str) -> dict[str, int]:
    """Verify all logs of a cluster together; return the records of each node."""
    found = ClusterVerifier(read_location(url), AUDIT_KEY).verify()
    return {each.node: each.log.records for each in found}


def sql(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Edit a database behind the back of its nodes; return the rows, if any."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(statement.encode(), values or None)
        return found.fetchall() if found.description else []


def store_at(url: str) -> ClusterKeyStore:
    """Open the key store of a database."""
    return ClusterKeyStore(ClusterDatabase(read_location(url)))
