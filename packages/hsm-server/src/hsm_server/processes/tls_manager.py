# SPDX-License-Identifier: MIT
"""
TLS manager: reads certificate files, and supplies the TLS state of front ends.

The supervisor forks it, as the front ends' user: both process untrusted input.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from functools import partial

from hsm_core.errors import HSMError
from hsm_server.certificates import REVOKED_BYTES, pack_revoked
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.tls import TLSSettings
from hsm_server.identity.key_sets import key_set_tasks
from hsm_server.ipc.control import (
    LONGEST_TEXT,
    Beat,
    FromSupervisor,
    KeySet,
    Publish,
    Published,
    Ready,
    Reload,
    Revoked,
)
from hsm_server.processes.child import Child, ChildProgram, begin_child
from hsm_server.system.hardening import drop_capabilities
from hsm_server.system.secret_handover import MAX_SEALED_BYTES, seal
from hsm_server.tls.manager import TLSManager, tasks_for
from hsm_server.tls.sources import first_state
from hsm_server.tls.state import Alarms, TLSState, seal_state, unseal_state


def main() -> None:
    """Run the TLS manager until the supervisor stops it."""
    child = begin_child()
    settings = child.plan.settings.tls
    try:
        if settings is None:
            raise AssertionError("A server must have a TLS state.")
        http, inherited = _challenge_socket(child)
        state = _state_in_force(inherited) or first_state(settings)
    except Exception as error:
        child.fail(error)
    with contextlib.suppress(OSError):
        drop_capabilities()
    asyncio.run(_TLSManagerProcess(child, settings, state, http).run())


def _challenge_socket(child: Child) -> tuple[socket.socket | None, Sequence[int]]:
    """Return the challenge socket, and the other descriptors."""
    if not child.plan.has_challenge_socket:
        return None, child.descriptors
    bound, *others = child.descriptors
    return socket.socket(fileno=bound), others


def _state_in_force(descriptors: Sequence[int]) -> TLSState | None:
    """Return the state published by a previous TLS manager, if any."""
    state = None
    for descriptor in descriptors:
        with contextlib.suppress(HSMError):
            state = unseal_state(descriptor)
        os.close(descriptor)
    return state


def _seal_revoked(lists: Sequence[bytes]) -> int:
    """
    Return the descriptor of a sealed file for `Revoked`; the caller closes it.

    Raises:
        ListenError: The lists have too many entries.
    """
    try:
        return seal("ferrohsm-revoked", pack_revoked(lists))
    except ValueError:
        raise ListenError(
            "The client revocation lists have too many entries to share with other "
            f"nodes. At most {MAX_SEALED_BYTES // REVOKED_BYTES} are allowed."
        ) from None


class _TLSManagerProcess(ChildProgram):
    """TLS manager."""

    def __init__(
        self,
        child: Child,
        settings: TLSSettings,
        state: TLSState,
        http: socket.socket | None,
    ) -> None:
        super().__init__(child)
        self._settings = settings
        self._first = state
        self._http = http
        self._told: tuple[bytes, ...] = ()
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._reloads: set[asyncio.Future[None]] = set()

    async def run(self) -> None:
        """Run from the first message to the last."""
        logger, metrics = self._child.logger, self._child.metrics
        alarms = Alarms(logger, metrics, partial(self._tell_alarm, "tls"))
        tasks = [
            *tasks_for(self._settings, alarms, metrics, logger, self._http),
            *key_set_tasks(self._child.plan.settings, self._pass_on),
        ]
        self._tls_manager = TLSManager(self._first, tasks, self._publish, logger)
        self._connect()
        keeping = asyncio.create_task(self._keep())
        await self._stopping.wait()
        keeping.cancel()
        await asyncio.wait([keeping])
        self._control.close()

    async def _keep(self) -> None:
        try:
            await self._tls_manager.begin()
        except Exception as error:
            # The supervisor checks liveness only after `Ready`.
            self._child.fail(error)
        self._tell_alarm("tls", False)
        self._control.send(Ready())
        await self._tls_manager.run()

    def _heed(self, message: FromSupervisor, descriptors: list[int]) -> bool:
        match message:
            case Published():
                self._note(message)
            case Reload():
                reload = asyncio.ensure_future(self._reload())
                self._reloads.add(reload)
                reload.add_done_callback(self._reloads.discard)
            case Beat():
                self._control.send(Beat())
            case _:
                return False
        return True

    async def _publish(self, state: TLSState) -> None:
        """
        Distribute a state through the supervisor; see `ActiveState`.

        A node of a cluster then tells the vault which client certificates are revoked.
        """
        lists = state.client.revocation_lists if state.client is not None else ()
        is_told = lists == self._told or not self._child.plan.settings.core.node_name
        revoked = None if is_told else await asyncio.to_thread(_seal_revoked, lists)
        try:
            await self._put_in_force(state)
            if revoked is not None:
                self._control.send(Revoked(), revoked)
                self._told = lists
        finally:
            if revoked is not None:
                os.close(revoked)

    async def _put_in_force(self, state: TLSState) -> None:
        answer = asyncio.get_running_loop().create_future()
        self._answers[state.generation] = answer
        descriptor = seal_state(state)
        try:
            self._control.send(Publish(state.generation), descriptor)
        finally:
            os.close(descriptor)
        error = await answer
        if error:
            raise ListenError(error)

    def _pass_on(self, source: str, data: bytes | None, problem: str) -> None:
        self._control.send(KeySet(data, problem[:LONGEST_TEXT], source))

    def _note(self, message: Published) -> None:
        answer = self._answers.pop(message.generation, None)
        if answer is not None and not answer.done():
            answer.set_result(message.error)

    async def _reload(self) -> None:
        """Check for changes at once."""
        self._tell_reloaded(await self._tls_manager.reload())


if __name__ == "__main__":
    main()
