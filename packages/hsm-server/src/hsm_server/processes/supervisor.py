# SPDX-License-Identifier: MIT
"""
The supervisor: binds nothing anew, keeps no secret, starts again what dies.

It is the program that the command becomes; see `launch`. It holds the listening
sockets and the box of secrets as descriptors, which it never reads.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Final

from hsm_server.console import announce, drop_unwritable, plug_standard_streams, say
from hsm_server.exit_codes import ExitCode
from hsm_server.hardening import forbid_dumps, forbid_new_privileges
from hsm_server.ipc.control import FromChild, Link, Reload, Reloaded, Serve
from hsm_server.logs import capture_foreign, loop_exception_handler, make_logger
from hsm_server.plan import Plan, read_plan
from hsm_server.processes.launch import HELD_SIGNALS
from hsm_server.processes.offspring import Offspring, Parts, Roles
from hsm_server.processes.runtime_folder import RuntimeFolder
from hsm_server.processes.service_manager import ServiceManager
from hsm_server.telemetry import Metrics, share_metrics

__all__ = ["Supervisor", "main"]

_KILL_AFTER_SECONDS: Final = 1.0
_LEAST_FOR_VAULT_SECONDS: Final = 2.0


def main() -> None:
    """Run a server from its plan to its end."""
    plug_standard_streams()
    forbid_dumps()
    forbid_new_privileges()
    told, secrets, *listening = _descriptors(sys.argv[1:])
    plan = read_plan(os.pread(told, os.fstat(told).st_size, 0))
    os.close(told)
    for descriptor in (secrets, *listening):
        os.set_inheritable(descriptor, False)
    sockets = [socket.socket(fileno=fd) for fd in listening]
    with RuntimeFolder(plan) as folder:
        share_metrics(folder.path, "supervisor")
        supervisor = Supervisor(plan, secrets, sockets, folder)
        status = asyncio.run(supervisor.run())
    drop_unwritable(sys.stdout, sys.stderr)
    raise SystemExit(status)


def _descriptors(words: Sequence[str]) -> list[int]:
    return [int(word) for word in words[: words.index("--bind")]]


class Supervisor:
    """
    Keeps one vault and some front ends running.

    Args:
        plan: What they are told.

        secrets: Descriptor of the box of secrets.

        sockets: Where to listen.

        folder: Where the shared metrics are.
    """

    def __init__(
        self,
        plan: Plan,
        secrets: int,
        sockets: Sequence[socket.socket],
        folder: RuntimeFolder,
        roles: Roles | None = None,
    ) -> None:
        self._plan = plan
        self._sockets = sockets
        settings = plan.settings
        self._logger = make_logger(
            sys.stderr, settings.log_level, settings.log_format, process="supervisor"
        )
        capture_foreign(self._logger)
        self._manager = ServiceManager(plan.notify)
        parts = Parts(
            plan=plan,
            logger=self._logger,
            metrics=Metrics(plan.started),
            folder=folder.path,
            on_change=self._on_change,
            on_message=self._on_message,
        )
        roles = roles or Roles()
        self._vault = Offspring("vault", roles.vault, parts, secrets=secrets)
        self._front_ends = [
            Offspring(f"front{n}", roles.front_end, parts, sockets=sockets)
            for n in range(1, settings.workers + 1)
        ]
        self._is_announced = False
        self._is_stopping = False
        self._reloading = 0

    @property
    def _children(self) -> list[Offspring]:
        return [self._vault, *self._front_ends]

    async def run(self) -> int:
        """Run until a signal, or until nothing can begin; return the exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(loop_exception_handler(self._logger))
        self._end = asyncio.Event()
        self._failure: tuple[str, int] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # Under nohup a hang-up is to be ignored, and is.
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)
        for child in self._children:
            child.start()
        watching = asyncio.create_task(self._manager.watch(self._plan, self._is_well))
        await self._end.wait()
        watching.cancel()
        return await self._finish()

    def _is_well(self) -> bool:
        return all(child.is_well for child in self._children)

    def _on_change(self, child: Offspring) -> bool:
        """Act on what a child has become; say whether it is to be started again."""
        if self._is_stopping:
            return False
        if child.is_ready:
            self._connect(child)
        elif not self._is_announced:
            self._failure = self._failure or child.failure
            self._end.set()
            return False
        return True

    def _connect(self, child: Offspring) -> None:
        """Give who has just begun its connections, once there is a vault."""
        if child is self._vault:
            for front_end in self._front_ends:
                self._link(front_end)
        else:
            self._link(child)

    def _link(self, front_end: Offspring) -> None:
        """Connect a front end with the vault, and let it serve."""
        if not front_end.is_ready:
            return
        if self._vault.is_ready:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with ours, theirs:
                # What is sent before this is set would come from nobody.
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                self._vault.tell(Link(front_end.uid), theirs.fileno())
                front_end.tell(Link(self._vault.uid), ours.fileno())
        if self._vault.is_ready or self._is_announced:
            front_end.tell_once(Serve())

    def _on_message(self, child: Offspring, message: FromChild) -> None:
        if isinstance(message, Serve):
            child.is_serving = True
            if not self._is_announced and all(f.is_serving for f in self._front_ends):
                self._is_announced = True
                announce(self._plan.url)
                self._manager.ready()
        elif isinstance(message, Reloaded):
            self._note_reload(child, message)

    def _reload(self) -> None:
        if self._is_stopping or self._reloading or not self._is_announced:
            return
        self._manager.reloading()
        asked = [child for child in self._children if child.is_ready]
        self._reloading = len(asked)
        for child in asked:
            child.tell(Reload())
        asyncio.get_running_loop().call_later(5.0, self._end_reload)

    def _note_reload(self, child: Offspring, message: Reloaded) -> None:
        if message.error:
            self._logger.error("reload failed", reason=message.error, child=child.slot)
        else:
            self._logger.info("reloaded", child=child.slot)
        self._reloading -= 1
        if self._reloading == 0:
            self._end_reload()

    def _end_reload(self) -> None:
        """Be ready again, also where a child did not answer."""
        if not self._is_stopping:
            self._reloading = 0
            self._manager.ready()

    async def _finish(self) -> int:
        """Drain front ends, then close the vault; kill what takes too long."""
        self._is_stopping = True
        self._manager.stopping()
        for bound in self._sockets:
            bound.close()
        if self._failure is not None:
            # Nobody was served yet.
            await asyncio.gather(*(child.abandon() for child in self._children))
            return self._verdict()
        self._logger.info("draining")
        drain = self._plan.settings.drain_timeout_seconds
        deadline = time.monotonic() + drain + _KILL_AFTER_SECONDS
        ending = [front.stop(drain, deadline) for front in self._front_ends]
        await asyncio.gather(*ending)
        deadline = max(deadline, time.monotonic() + _LEAST_FOR_VAULT_SECONDS)
        await self._vault.stop(_LEAST_FOR_VAULT_SECONDS, deadline)
        return self._verdict()

    def _verdict(self) -> int:
        failure = self._failure or self._vault.failure
        if failure is not None:
            message, status = failure
            say(f"error: {message}")
            return status
        self._logger.info("stopped")
        return ExitCode.OK


if __name__ == "__main__":
    main()
