# SPDX-License-Identifier: MIT
"""
Vault process: root key, keys, audit log and token secrets, without network access.

It is a separate program, and a child of the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from functools import partial
from typing import Final

from hsm_server.bootstrap.services import VaultServices
from hsm_server.certificates import read_revoked
from hsm_server.config.exit_codes import ExitCode
from hsm_server.ipc.control import (
    LONGEST_TEXT,
    Beat,
    Failed,
    FromSupervisor,
    KeySet,
    Link,
    Outdated,
    Ready,
    Reload,
    ResetClock,
    Revoked,
)
from hsm_server.ipc.front_end import Dependencies, VaultService
from hsm_server.observability.places import location
from hsm_server.processes.child import (
    Child,
    ChildProgram,
    Pulse,
    begin_child,
    end_without_memory,
)
from hsm_server.system.hardening import (
    drop_capabilities,
    lock_memory,
    refuse_new_code,
    scrub_freed_memory,
)
from hsm_server.system.secret_handover import TOKEN_SECRET, empty_box, read_sealed
from hsm_server.system.sockets import pass_over_what_stays, run

_FRAME_SPARE: Final = 1024 * 1024
_AGAIN_SECONDS: Final = 1.0


def main() -> None:
    """Hold the keys until the supervisor says that it is enough."""
    child = begin_child()
    refuse_new_code(also_children=True)
    scrub_freed_memory()
    is_locked = lock_memory()
    _drop_capabilities()
    try:
        box = empty_box(child.descriptors[0])
        os.environ.update(box.environment)
        services = VaultServices(
            child.plan.settings,
            box.secrets(),
            lambda: box.secret(TOKEN_SECRET),
            child.logger,
            child.metrics,
        )
    except Exception as error:
        child.fail(error)
    child.logger.info("open", memory_locked=is_locked)
    try:
        with services.hsm:
            run(_Vault(child, services).run(), child.plan.settings.event_loop)
    except Exception as error:
        child.fail(error)


def _drop_capabilities() -> None:
    # Root would lose access to files of others, on which it may have been set up.
    if os.geteuid() != 0:
        with contextlib.suppress(OSError):
            drop_capabilities()


class _Vault(ChildProgram):
    """Vault process."""

    def __init__(self, child: Child, services: VaultServices) -> None:
        super().__init__(child)
        self._services = services

    async def run(self) -> None:
        """Serve front ends from the first order to the last."""
        limits = self._child.plan.settings.limits
        self._service = VaultService(
            self._services.gateway,
            self._services.gatekeeper,
            _longest(limits.raw_bytes, limits.json_bytes),
            Dependencies(self._on_violation, self._on_unexpected),
        )
        self._connect()
        self._services.on_alarm = partial(self._tell_alarm, "tokens")
        self._services.on_limits = self._service.send_limits
        watching = [asyncio.create_task(watch) for watch in self._services.watches()]
        pass_over_what_stays()
        Pulse(self._child.control).start()
        self._tell_alarm("tokens", False)
        self._control.send(Ready())
        self._loop = asyncio.get_running_loop()
        self._services.hsm.when_stopped(self._on_stopped)
        await self._stopping.wait()
        for task in watching:
            task.cancel()
        self._service.close()
        # Cancelled requests get their turn to notice it.
        await asyncio.sleep(0)

    def _on_stopped(self, reason: str, is_outdated: bool) -> None:
        self._loop.call_soon_threadsafe(self._stop, reason, is_outdated)

    def _stop(self, reason: str, is_outdated: bool) -> None:
        """Stop the server if it is too old, or this process, which then joins again."""
        if is_outdated:
            self._control.send(Outdated(reason[:LONGEST_TEXT]))
        else:
            self._control.send(Failed(reason[:LONGEST_TEXT], ExitCode.FAILED))
            self._stopping.set()

    def _heed(self, message: FromSupervisor, descriptors: list[int]) -> bool:
        match message:
            case Link():
                end = socket.socket(fileno=descriptors.pop())
                self._service.connect(end, message.uid, slot=message.slot)
            case Reload():
                self._services.begin(self._reload())
            case ResetClock():
                self._services.reset_clock()
            case KeySet():
                self._services.take_keys(message.source, message.data, message.problem)
            case Revoked():
                self._take_revoked(descriptors)
            case Beat():
                pass  # `Pulse` answers, however busy the loop is.
            case _:
                return False
        return True

    def _take_revoked(self, descriptors: list[int]) -> None:
        if not descriptors:
            # There was no room for it among our own.
            loop = asyncio.get_running_loop()
            loop.call_later(_AGAIN_SECONDS, self._control.send, Revoked())
            return
        # Whatever else is wrong with it, it can't revoke anything.
        with contextlib.suppress(OSError, ValueError):
            self._services.take_revoked(read_revoked(read_sealed(descriptors[0])))

    async def _reload(self) -> None:
        self._tell_reloaded(await self._services.reload())

    def _on_violation(self, reason: str) -> None:
        self._child.metrics.count_violation(reason)
        self._child.logger.error("front end refused", reason=reason)

    def _on_unexpected(self, error: BaseException) -> None:
        end_without_memory(error)
        self._child.metrics.count_unexpected()
        self._child.logger.error(
            "unexpected",
            error=type(error).__name__,
            place=location(error.__traceback__),
        )


def _longest(raw_bytes: int, json_bytes: int) -> int:
    """Return the longest operation, packed: a payload, and all that is beside it."""
    return max(raw_bytes, json_bytes) + _FRAME_SPARE


if __name__ == "__main__":
    main()
