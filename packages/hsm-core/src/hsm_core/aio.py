# SPDX-License-Identifier: MIT
"""HSM inside a program, for an event loop: the twin of ``hsm_core.open``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from hsm_core import embedded
from hsm_core._roots import StrPath
from hsm_core.async_users import AsyncAudit, AsyncKey, AsyncUser
from hsm_core.embedded import PROGRAM, EmbeddedHSM, Root, caller_of, shown_of
from hsm_core.factory import open_async
from hsm_core.model import Role
from hsm_core.protocols import Clock
from hsm_core.settings import Settings

__all__ = ["AsyncAudit", "AsyncEmbeddedHSM", "AsyncKey", "AsyncUser", "open"]

R = TypeVar("R")


class AsyncEmbeddedHSM:
    """
    HSM inside this program, for an event loop.

    Attributes:
        blocking: The same HSM for other threads.
    """

    def __init__(self, blocking: EmbeddedHSM) -> None:
        self.blocking = blocking
        self._gateway = open_async(blocking.gateway)

    def __repr__(self) -> str:
        return repr(self.blocking).replace("Embedded", "AsyncEmbedded", 1)

    def as_user(self, name: str, *, roles: Iterable[Role | str]) -> AsyncUser:
        """Return the HSM for one user; see `EmbeddedHSM.as_user`."""
        caller = caller_of(name, roles)
        return AsyncUser(self._gateway.act_as(caller), shown=shown_of(caller))

    @property
    def audit(self) -> AsyncAudit:
        """Audit log, for the program itself with the role of an auditor."""
        return AsyncUser(self._gateway.act_as(PROGRAM), shown=shown_of(PROGRAM)).audit


@asynccontextmanager
async def open(
    path: StrPath | Settings,
    *,
    root: Root | None = None,
    audit_key: bytes | StrPath | None = None,
    create: bool = False,
    policy: StrPath | None = None,
    node_name: str = "",
    clock: Clock | None = None,
) -> AsyncIterator[AsyncEmbeddedHSM]:
    """
    Open an HSM for the length of an ``async with`` block; see ``hsm_core.open``.

    Opening and closing run in a thread, so that the event loop goes on. A task that is
    cancelled meanwhile ends once the HSM is closed.
    """

    def begin() -> EmbeddedHSM:
        return embedded.open(
            path,
            root=root,
            audit_key=audit_key,
            create=create,
            policy=policy,
            node_name=node_name,
            clock=clock,
        )

    run = asyncio.get_running_loop().run_in_executor
    opening = run(None, begin)
    try:
        yield AsyncEmbeddedHSM(await _ended(opening))
    finally:
        if opening.exception() is None:
            await _ended(run(None, opening.result().close))


async def _ended(work: asyncio.Future[R]) -> R:
    """Return the result of a thread; a task that is cancelled waits for its end too."""
    cancelled = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:  # perhaps one of several
            cancelled = error
    if cancelled is not None and work.exception() is None:
        raise cancelled
    return work.result()
