# SPDX-License-Identifier: MIT
"""
Supervisor: holds the sockets, keeps no secret, restarts child processes.

It is the program that the command becomes; see `launch`. It holds the listening sockets
and the secrets as descriptors, which it never reads.
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

from hsm_core.errors import HSMError
from hsm_server.config.exit_codes import ExitCode, exit_code_of
from hsm_server.config.plan import Plan, read_plan
from hsm_server.ipc.control import (
    Alarm,
    Beat,
    FromChild,
    KeySet,
    Link,
    Outdated,
    Publish,
    Published,
    Reload,
    Reloaded,
    ResetClock,
    Revoked,
    Serve,
    UsingTLS,
)
from hsm_server.observability.instruments import TLS_SLOT
from hsm_server.observability.logs import (
    Logger,
    capture_foreign,
    loop_exception_handler,
    make_logger,
)
from hsm_server.observability.metrics import Metrics, share_metrics
from hsm_server.observability.places import location
from hsm_server.processes.child_process import ChildContext, ChildProcess, Roles
from hsm_server.processes.distribution import Distribution
from hsm_server.processes.fork import Forked, import_programs
from hsm_server.processes.runtime_folder import RuntimeFolder, ServiceManager
from hsm_server.processes.spawn import HELD_SIGNALS, Spawned
from hsm_server.system.hardening import (
    close_all_but,
    forbid_dumps,
    forbid_new_privileges,
    refuse_new_code,
)
from hsm_server.system.standard_streams import (
    announce,
    drop_unwritable,
    plug_standard_streams,
    say,
    sentence,
)

_LONGEST_SECONDS: Final = 5.0


class Reloading:
    """
    Reload of certificates, private keys, token keys and policies.

    A reload requested during another one, or before the server serves, runs afterwards,
    because files may have changed since.

    Args:
        children: The child processes; a restarted one reads everything at its start.

        manager: Service manager; notified of start and end.

        logger: Logs the response of each child.
    """

    def __init__(
        self, children: Sequence[ChildProcess], manager: ServiceManager, logger: Logger
    ) -> None:
        self._children = children
        self._manager = manager
        self._logger = logger
        self._waiting: set[ChildProcess] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_allowed = self._is_wanted = False

    def allow(self) -> None:
        """Begin the reload that was requested, if any."""
        self._is_allowed = True
        if self._is_wanted:
            self.ask()

    def forbid(self) -> None:
        """Begin nothing more, and end nothing more."""
        self._is_allowed = False
        self._cancel()

    def ask(self) -> None:
        """Reload, now or later."""
        self._is_wanted = True
        if not self._is_allowed or self._timer is not None:
            return
        self._is_wanted = False
        self._manager.reloading()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_LONGEST_SECONDS, self._end)
        self._waiting = {child for child in self._children if child.is_running}
        for child in self._waiting:
            child.tell(Reload())
        self._end_if_answered()

    def note(self, child: ChildProcess, answer: Reloaded) -> None:
        """Take an answer."""
        if child not in self._waiting:
            return
        if answer.error:
            self._logger.error("reload failed", reason=answer.error, child=child.slot)
        else:
            self._logger.info("reloaded", child=child.slot)
        self.forget(child)

    def forget(self, child: ChildProcess) -> None:
        """Expect no answer of a child, whose end it may be."""
        self._waiting.discard(child)
        self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self._timer is not None and not self._waiting:
            self._end()

    def _end(self) -> None:
        """Be ready again, also where a child does not answer."""
        for child in self._waiting:
            self._logger.error("reload not answered", child=child.slot)
        self._cancel()
        self._manager.ready()
        if self._is_wanted:
            self.ask()

    def _cancel(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_LINK_AGAIN_SECONDS: Final = 1.0
_KILL_AFTER_SECONDS: Final = 1.25
"""Extra time after the drain for a front end, then for the vault."""


def main() -> None:
    """Run a server from its plan to its end."""
    plug_standard_streams()
    forbid_dumps()
    forbid_new_privileges()
    refuse_new_code(also_children=False)
    descriptors, vault = _descriptors(sys.argv[1:]), _vault_of(sys.argv[1:])
    close_all_but([*descriptors, *vault[1:]])
    try:
        status = _run(vault, *descriptors)
    except HSMError as error:
        say(f"error: {sentence(error)}")
        status = exit_code_of(error)
    except Exception as error:
        place = location(error.__traceback__)
        say(f"error: unexpected {type(error).__name__} at {place}.")
        status = ExitCode.FAILED
    drop_unwritable(sys.stdout, sys.stderr)
    raise SystemExit(status)


def _descriptors(words: Sequence[str]) -> list[int]:
    return [int(word) for word in words[: words.index("--bind")]]


def _vault_of(words: Sequence[str]) -> list[int]:
    """Return process ID and control socket of the vault, if it was started already."""
    return [int(word) for word in words[words.index("--bind") + 3 :]]


def _adopted(pid: int, control: int) -> Spawned:
    """Return a child process that the command has started."""
    os.set_inheritable(control, False)
    end = socket.socket(fileno=control)
    return Spawned(Forked(pid), os.pidfd_open(pid), end)


def _run(vault: Sequence[int], told: int, secrets: int, *listening: int) -> int:
    plan = read_plan(os.pread(told, os.fstat(told).st_size, 0))
    os.close(told)
    for descriptor in (secrets, *listening):
        os.set_inheritable(descriptor, False)
    sockets = [socket.socket(fileno=fd) for fd in listening]
    # What `launch` has bound last.
    challenges = [sockets.pop()] if plan.has_challenge_socket else []
    with RuntimeFolder(plan) as folder:
        share_metrics(folder.path, "supervisor")
        supervisor = Supervisor(
            plan,
            secrets,
            sockets,
            folder,
            challenges=challenges,
            vault=_adopted(*vault) if vault else None,
        )
        return asyncio.run(supervisor.run())


class Supervisor:
    """
    Supervisor of one vault, one TLS manager and several front ends.

    Args:
        plan: Settings of the processes.

        secrets: Descriptor of the secrets.

        sockets: Listening sockets.

        folder: Folder of the shared metrics.

        roles: Programs of the child processes, if not the default.

        challenges: Socket of the TLS manager for HTTP-01 challenges.

        vault: Process of the vault, if it was started already.
    """

    def __init__(
        self,
        plan: Plan,
        secrets: int,
        sockets: Sequence[socket.socket],
        folder: RuntimeFolder,
        roles: Roles | None = None,
        challenges: Sequence[socket.socket] = (),
        vault: Spawned | None = None,
    ) -> None:
        self._plan = plan
        self._sockets = [*sockets, *challenges]
        settings = plan.settings
        self._logger = make_logger(
            sys.stderr, settings.log_level, settings.log_format, process="supervisor"
        )
        capture_foreign(self._logger)
        self._manager = ServiceManager(plan.notify)
        self._linked_at: dict[ChildProcess, float] = {}
        context = ChildContext(
            plan=plan,
            logger=self._logger,
            metrics=Metrics(plan.started),
            folder=folder.path,
            on_change=self._on_change,
            on_message=self._on_message,
        )
        roles = roles or Roles()
        self._vault = ChildProcess(
            "vault", roles.vault, context, secrets=secrets, spawned=vault
        )
        self._front_ends = [
            ChildProcess(f"front{n}", roles.front_end, context, sockets=sockets)
            for n in range(1, settings.workers + 1)
        ]
        self._distribution = Distribution(self._front_ends, self._answer_tls_manager)
        self._tls_manager = ChildProcess(
            TLS_SLOT,
            roles.tls_manager,
            context,
            sockets=challenges,
            newest=lambda: self._distribution.newest,
        )
        self._children = [self._vault, self._tls_manager, *self._front_ends]
        readers = (self._vault, self._tls_manager)
        self._reloading = Reloading(readers, self._manager, self._logger)
        self._key_sets: dict[str, KeySet] = {}
        self._revoked: int | None = None
        self._alarms: set[str] = set()
        self._is_announced = False
        self._is_stopping = False
        self._outdated: tuple[str, int] | None = None

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
            loop.add_signal_handler(signal.SIGHUP, self._reloading.ask)
        loop.add_signal_handler(signal.SIGUSR1, self._vault.tell, ResetClock())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)
        self._vault.start()
        # The vault imports its own modules meanwhile.
        import_programs()
        for child in (self._tls_manager, *self._front_ends):
            child.start()
        watching = asyncio.create_task(self._manager.watch(self._plan, self._is_well))
        await self._end.wait()
        watching.cancel()
        try:
            return await self._finish()
        finally:
            # The loop gives its handlers up before the interpreter has ended.
            signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)

    def _is_well(self) -> bool:
        return all(child.is_well for child in self._children)

    def _on_change(self, child: ChildProcess) -> bool:
        """Act on what a child has become; say whether it is to be started again."""
        if not child.is_ready:
            self._reloading.forget(child)
            self._distribution.forget(child)
        if self._is_stopping:
            return False
        if child.is_ready:
            self._connect(child)
        elif not self._is_announced:
            self._failure = self._failure or child.failure
            self._end.set()
            return False
        return True

    def _connect(self, child: ChildProcess) -> None:
        """Connect a new process, once there is a vault."""
        if child is self._vault:
            for key_set in self._key_sets.values():
                child.tell(key_set)
            self._tell_revoked()
            for front_end in self._front_ends:
                self._link(front_end)
        elif child is not self._tls_manager:
            for source in self._alarms:
                child.tell(Alarm(source, is_active=True))
            self._distribution.greet(child)
            self._link(child)

    def _link(self, front_end: ChildProcess) -> None:
        """Connect a front end with the vault, and let it serve if it may."""
        if not front_end.is_ready:
            return
        if self._vault.is_ready:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with ours, theirs:
                # What is sent before this is set would come from nobody.
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                self._linked_at[front_end] = time.monotonic()
                told = Link(front_end.uid, front_end.slot)
                self._vault.tell(told, theirs.fileno())
                front_end.tell(Link(self._vault.uid), ours.fileno())
        self._let_serve(front_end)

    def _let_serve(self, front_end: ChildProcess) -> None:
        """Let a front end serve that has been given TLS, once there was a vault."""
        is_open = self._vault.is_ready or self._is_announced
        if is_open and front_end.is_ready and self._distribution.newest is not None:
            front_end.tell_once(Serve())

    def _on_message(
        self, child: ChildProcess, message: FromChild, descriptors: list[int]
    ) -> None:
        match message:
            case Serve():
                child.is_serving = True
                self._announce_if_all_serve()
            case Outdated() if child is self._vault:
                self._outdated = (message.message, ExitCode.USAGE)
                self._end.set()
            case Reloaded():
                self._reloading.note(child, message)
            case Beat():
                self._link_again(child)
            case UsingTLS():
                self._distribution.note(child, message)
            case Publish() if child is self._tls_manager:
                self._publish(message.generation, descriptors)
            case Alarm() if child in (self._vault, self._tls_manager):
                self._pass_alarm(message)
            case KeySet() if child is self._tls_manager:
                self._pass_on(message)
            case Revoked() if child is self._tls_manager:
                self._take_revoked(descriptors)
            case Revoked() if child is self._vault:
                self._tell_revoked()

    def _take_revoked(self, descriptors: list[int]) -> None:
        if not descriptors:
            # There was no room for it among our own. The next process sends it again.
            self._tls_manager.replace("The revoked certificates did not arrive.")
            return
        if self._revoked is not None:
            os.close(self._revoked)
        self._revoked = descriptors.pop()
        self._tell_revoked()

    def _tell_revoked(self) -> None:
        """Send what is revoked to the vault, also after its restart."""
        if self._revoked is not None:
            self._vault.tell(Revoked(), self._revoked)

    def _pass_on(self, message: KeySet) -> None:
        """Send fetched keys to the vault, also after its restart."""
        known = len(self._plan.settings.token_issuers) + 2
        if message.source not in self._key_sets and len(self._key_sets) >= known:
            return
        if message.data is not None:
            self._key_sets[message.source] = message
        self._vault.tell(message)

    def _pass_alarm(self, message: Alarm) -> None:
        """Send an alarm to all front ends, also after their restart."""
        if message.is_active == (message.source in self._alarms):
            return
        self._alarms ^= {message.source}
        for front_end in self._front_ends:
            front_end.tell(message)

    def _publish(self, generation: int, descriptors: list[int]) -> None:
        if not descriptors:
            # There was no room for it among our own.
            self._answer_tls_manager(
                generation, "The published TLS state did not arrive."
            )
            return
        self._distribution.publish(generation, descriptors.pop())
        for front_end in self._front_ends:
            self._let_serve(front_end)

    def _announce_if_all_serve(self) -> None:
        if not self._is_announced and all(f.is_serving for f in self._front_ends):
            self._is_announced = True
            announce(self._plan.url)
            self._manager.ready()
            self._reloading.allow()

    def _answer_tls_manager(self, generation: int, error: str) -> None:
        self._tls_manager.tell(Published(generation, error))

    def _link_again(self, front_end: ChildProcess) -> None:
        """Connect a front end that has lost its vault, and not because that ended."""
        age = time.monotonic() - self._linked_at.get(front_end, 0.0)
        if self._vault.is_ready and age > _LINK_AGAIN_SECONDS:
            self._link(front_end)

    async def _finish(self) -> int:
        """Drain front ends, then close the vault; kill what takes too long."""
        self._is_stopping = True
        self._reloading.forbid()
        self._distribution.close()
        self._manager.stopping()
        for bound in self._sockets:
            bound.close()
        if self._failure is not None:
            # No client was served yet.
            ending = [child.abandon() for child in reversed(self._children)]
            await asyncio.gather(*ending)
            return self._verdict()
        self._logger.info("draining")
        drain = self._plan.settings.drain_timeout_seconds
        deadline = time.monotonic() + drain + _KILL_AFTER_SECONDS
        ending = [front.stop(drain, deadline) for front in self._front_ends]
        await asyncio.gather(self._tls_manager.stop(0.0, deadline), *ending)
        await self._vault.stop(0.0, deadline + _KILL_AFTER_SECONDS)
        return self._verdict()

    def _verdict(self) -> int:
        failure = self._failure or self._outdated or self._vault.failure
        if failure is not None:
            message, status = failure
            say(f"error: {message}")
            return status
        self._logger.info("stopped")
        return ExitCode.OK


if __name__ == "__main__":
    main()
