# SPDX-License-Identifier: MIT
"""
Vault process: root key, keys, audit log and token secrets, without network access.

It is a separate program that the supervisor starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from hsm_core.factory import OpenHSM, open_async, open_hsm
from hsm_server.identity.clock import ClockWatch, FlooredClock
from hsm_server.identity.id_tokens import ProviderTrust, provider_trust_for
from hsm_server.identity.token_keys import TokenTrust, TrustedNames
from hsm_server.identity.token_sources import TokenSource, TokenWatch
from hsm_server.ipc.control import (
    Alarm,
    Beat,
    Control,
    FromSupervisor,
    KeySet,
    Link,
    Ready,
    Reload,
    Reloaded,
    ResetClock,
    Stop,
)
from hsm_server.ipc.front_end import Dependencies, VaultService
from hsm_server.limits.guard import actor_limiter
from hsm_server.observability.logs import location, loop_exception_handler
from hsm_server.processes.child import Child, Pulse, begin_child, end_without_memory
from hsm_server.system.hardening import (
    drop_capabilities,
    lock_memory,
    refuse_new_code,
    scrub_freed_memory,
)
from hsm_server.system.secret_handover import TOKEN_SECRET, empty_box
from hsm_server.system.sockets import pass_over_what_stays, run
from hsm_server.vault.gatekeeper import Gatekeeper

_FRAME_SPARE: Final = 1024 * 1024
_LONGEST_TEXT: Final = 4096


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
        secrets = box.secrets()
        source = TokenSource(
            child.plan.settings.token_config,
            lambda: box.secret(TOKEN_SECRET),
            child.plan.settings.tokens,
        )
        trust = source.read()
        clock = FlooredClock()
        provider_trust = provider_trust_for(
            child.plan.settings.oidc, _provider_log(child), clock
        )
        names = TrustedNames(trust, [provider_trust.name] if provider_trust else [])
        gateway = open_hsm(
            child.plan.settings.core,
            master_key=secrets.master_key,
            hmac_key=secrets.hmac_key,
            credential_keys=names,
        )
    except Exception as error:
        child.fail(error)
    child.logger.info("open", memory_locked=is_locked)
    try:
        with gateway:
            vault = _Vault(child, gateway, source, trust, names, provider_trust, clock)
            run(vault.run(), child.plan.settings.event_loop)
    except Exception as error:
        child.fail(error)


def _drop_capabilities() -> None:
    # Root would lose access to files of others, on which it may have been set up.
    if os.geteuid() != 0:
        with contextlib.suppress(OSError):
            drop_capabilities()


def _provider_log(child: Child) -> Callable[[str], None]:
    """Return the logger of changes of the provider's keys."""

    def tell(problem: str) -> None:
        if problem:
            child.logger.error("provider keys refused", reason=problem)
        else:
            child.logger.info("provider keys loaded")

    return tell


class _Vault:
    """Vault process: executes the supervisor's messages."""

    def __init__(
        self,
        child: Child,
        gateway: OpenHSM,
        source: TokenSource,
        trust: TokenTrust,
        names: TrustedNames,
        provider_trust: ProviderTrust | None,
        clock: FlooredClock,
    ) -> None:
        self._child = child
        self._clock = clock
        child.metrics.show_jwt_alarm(is_on=False)
        self._gateway = gateway
        self._source = source
        self._trust = trust
        self._names = names
        self._provider_trust = provider_trust
        self._reloads: set[asyncio.Future[Any]] = set()
        gateway.on_policy_change(self._on_policy)
        gateway.on_retention_change(self._on_retention)

    async def run(self) -> None:
        """Serve front ends from the first order to the last."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            loop_exception_handler(self._child.logger, end_without_memory)
        )
        self._stopping = asyncio.Event()
        settings = self._child.plan.settings
        gateway = open_async(self._gateway)
        self._gatekeeper = Gatekeeper(
            gateway,
            self._trust,
            self._child.metrics.count_jwt_failure,
            clock=self._clock,
            names=self._names,
            limiter=actor_limiter(
                settings.rates, self._gateway.weight, self._child.metrics
            ),
            console=settings.console,
            people=self._provider_trust.tokens if self._provider_trust else None,
        )
        self._clock_watch = ClockWatch(
            self._clock,
            self._gatekeeper.on_clock_reset,
            self._child.metrics,
            self._child.logger,
        )
        self._token_watch = TokenWatch(
            self._source, self._trust, self._gatekeeper.use, self._on_token_keys
        )
        self._service = VaultService(
            gateway,
            self._gatekeeper,
            _longest(settings.limits.raw_bytes, settings.limits.json_bytes),
            Dependencies(self._on_violation, self._on_unexpected),
        )
        self._control: Control[FromSupervisor] = Control(
            self._child.control, FromSupervisor, self._take, self._stopping.set
        )
        seconds = settings.token_config.reload_seconds
        watches: list[TokenWatch | ProviderTrust] = [
            self._token_watch,
            *([self._provider_trust] if self._provider_trust else []),
        ]
        watching = [asyncio.create_task(watch.run(seconds)) for watch in watches]
        watching.append(asyncio.create_task(self._clock_watch.run()))
        pass_over_what_stays()
        pulse = Pulse(self._child.control)
        pulse.start()
        self._control.send(Alarm("tokens", is_active=False))
        self._control.send(Ready())
        await self._stopping.wait()
        pulse.stop()
        for task in watching:
            task.cancel()
        self._service.close()
        # Cancelled requests get their turn to notice it.
        await asyncio.sleep(0)

    def _take(self, message: FromSupervisor, descriptors: list[int]) -> None:
        match message:
            case Link():
                end = socket.socket(fileno=descriptors.pop())
                self._service.connect(end, message.uid, slot=message.slot)
            case Reload():
                self._begin(self._reload())
            case ResetClock():
                self._clock_watch.reset()
            case KeySet(is_providers=True):
                if self._provider_trust:
                    self._provider_trust.take(message.data, message.problem)
                    self._begin(self._provider_trust.look())
            case KeySet():
                self._source.take(message.data, message.problem)
                self._begin(self._token_watch.look())
            case Stop():
                self._stopping.set()
            case Beat():
                pass  # `Pulse` answers, however busy the loop is.
            case _:
                self._stopping.set()
        for descriptor in descriptors:
            os.close(descriptor)

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.ensure_future(work)
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        """Use the keys of tokens as they are now, and the policy."""
        problems = [await self._token_watch.look()]
        if self._provider_trust:
            problems.append(await self._provider_trust.look())
        problems.append(await asyncio.to_thread(self._gateway.reload_policy))
        self._control.send(Reloaded(" ".join(filter(None, problems))[:_LONGEST_TEXT]))

    def _on_token_keys(self, problem: str) -> None:
        self._child.metrics.show_jwt_alarm(is_on=bool(problem))
        self._control.send(Alarm("tokens", bool(problem)))
        if problem:
            self._child.logger.error("token keys refused", reason=problem)
        else:
            self._child.logger.info("token keys loaded")

    def _on_policy(self, problem: str) -> None:
        if problem:
            self._child.logger.error("policy refused", reason=problem)
        else:
            self._child.logger.info("policy loaded")

    def _on_retention(self, problem: str) -> None:
        if problem:
            self._child.logger.error("retention impaired", reason=problem)
        else:
            self._child.logger.info("retention healthy")

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
