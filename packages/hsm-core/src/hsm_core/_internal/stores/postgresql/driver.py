# SPDX-License-Identifier: MIT
"""Connection class over psycopg; the only module that needs it when it is imported."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import conninfo, pq, waiting
from psycopg.errors import Diagnostic
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from hsm_core._internal.stores.index_rows import Row
from hsm_core._internal.stores.postgresql.connection import PATIENCE_SECONDS

if TYPE_CHECKING:
    from psycopg.abc import RV, PQGen

__all__ = ["ServerConnection", "conninfo", "errors", "new_pool"]

errors: Final = (psycopg.Error, PoolTimeout, PoolClosed, UnicodeDecodeError)
"""Errors of the driver and of its pool."""

lost: Final = (psycopg.OperationalError, psycopg.InterfaceError)
"""Those that mean, without a word of the server, that the connection is gone."""

# What the pool logs of lost connections is what our errors say.
logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())

_WARNINGS: Final = frozenset({"WARNING", None})


class ServerConnection(psycopg.Connection[Row]):
    """
    Connection in autocommit mode, with a time limit for every statement.

    Attributes:
        patience: Seconds that a statement may take.
        warnings: Messages of the server at warning level since this was last cleared.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = psycopg.RawCursor
        self.patience = PATIENCE_SECONDS
        self.warnings: list[str] = []
        self.add_notice_handler(self._note)

    def _note(self, message: Diagnostic) -> None:
        if message.severity_nonlocalized in _WARNINGS:
            self.warnings.append(message.message_primary or "")

    def wait(
        self,
        gen: PQGen[RV],
        interval: float = 0.1,
        timeout: float | None = None,
    ) -> RV:
        """
        Wait for a statement, up to the time limit.

        Nothing is ever cancelled: a cancelled commit may have been made. The connection
        is closed instead, and the server finds that out for itself.
        """
        patience = self.patience if timeout is None else timeout
        try:
            return waiting.wait(gen, self.pgconn.socket, interval, patience)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 (what wait() raises)
            self.abandon()
            raise psycopg.OperationalError("The server did not answer.") from None
        except Exception:
            raise
        except BaseException:
            self.abandon()
            raise

    @property
    def is_idle(self) -> bool:
        """Whether it is open and in no transaction."""
        return self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    def abandon(self) -> None:
        """Close it at once, without a word to the server."""
        self.pgconn.finish()


def new_pool(
    conninfo: str, *, size: int, configure: Any
) -> ConnectionPool[ServerConnection]:
    """
    Return an open pool of connections, made when they are needed.

    Args:
        conninfo: Connection string; secret.

        size: How many connections it may have.

        configure: Called with each new connection.
    """
    return ConnectionPool(
        conninfo,
        connection_class=ServerConnection,
        kwargs={"autocommit": True},
        min_size=0,
        max_size=size,
        timeout=PATIENCE_SECONDS,
        # Who gets none asks again, and nobody waits for a longer and longer pause.
        reconnect_timeout=1.0,
        configure=configure,
        open=True,
        num_workers=1,
    )
