# SPDX-License-Identifier: MIT
"""Single-process server for development: opens the HSM, listens, drains, closes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType

from hsm_core.errors import ConfigurationError
from hsm_server.app import create_app, create_metrics_app
from hsm_server.bootstrap.services import VaultServices
from hsm_server.certificates import pack_revoked, read_revoked
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.settings import Secrets, ServerSettings
from hsm_server.config.tls import TLSSettings
from hsm_server.http.listener import Listener
from hsm_server.http.state import HEALTH
from hsm_server.identity.key_sets import key_set_tasks
from hsm_server.observability.logs import (
    Logger,
    capture_foreign,
    loop_exception_handler,
    make_logger,
)
from hsm_server.observability.metrics import Metrics
from hsm_server.observability.tracing import open_tracing
from hsm_server.system.sockets import (
    challenge_sockets,
    metrics_sockets,
    pass_over_what_stays,
    run,
    url_of,
)
from hsm_server.tls.adapter import AdapterContext
from hsm_server.tls.contexts import try_state
from hsm_server.tls.manager import TLSManager, tasks_for
from hsm_server.tls.sources import first_state
from hsm_server.tls.state import Alarms, TLSState, ends_by_kind
from hsm_server.vault.local_vault import LocalVault


def serve(
    settings: ServerSettings,
    secrets: Secrets,
    sockets: Callable[[], Sequence[socket.socket]],
    *,
    on_ready: Callable[[str], None],
    read_token_secret: Callable[[], bytes],
) -> None:
    """
    Serve until SIGTERM or SIGINT; finish what is in flight, close the HSM.

    SIGHUP has TLS files, keys of tokens and policy read again; SIGUSR1 lets tokens
    expire by the wall clock, though it was set back. Whatever needs no key is
    checked first, so that a wrong setting changes nothing.

    Args:
        settings: All settings, with those of TLS.

        secrets: Keys of the HSM and of the tokens.

        sockets: Gives what to listen on; may raise `ListenError`.

        on_ready: Called with the URL once connections are accepted.

        read_token_secret: Reads it, where no file says which keys count.

    Raises:
        HSMError: It could not start; see `hsm_core.factory.open_hsm`.
        ListenError: The address is in use, or the certificates can't be used.
    """
    if settings.tls is None:
        raise ListenError("No TLS certificate is available.")
    logger = make_logger(sys.stderr, settings.log_level, settings.log_format)
    capture_foreign(logger)
    state = first_state(settings.tls)
    try_state(state)
    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(contextlib.closing(s)) for s in sockets()]
        shown = [stack.enter_context(s) for s in metrics_sockets(settings)]
        http = [stack.enter_context(s) for s in challenge_sockets(settings)]
        metrics = Metrics()
        services = VaultServices(settings, secrets, read_token_secret, logger, metrics)
        with services.hsm:
            server = _InlineServer(settings, services, logger, metrics)
            server.use_tls(settings.tls, state, http[0] if http else None)
            serving = server.run(bound, shown, on_ready)
            pass_over_what_stays()
            run(serving, settings.event_loop)
        logger.info("stopped")


class _InlineServer:
    """Front end and vault in one process."""

    def __init__(
        self,
        settings: ServerSettings,
        services: VaultServices,
        logger: Logger,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._services = services
        self._outdated = ""
        self._logger = logger
        self._metrics = metrics
        services.on_alarm = partial(self._note_alarm, "tokens")

    def use_tls(
        self, settings: TLSSettings, state: TLSState, http: socket.socket | None
    ) -> None:
        """Make the TLS manager, whose only front end is this process."""
        logger, metrics, services = self._logger, self._metrics, self._services
        self._context = AdapterContext(state, allow_tls_1_2=settings.allow_tls_1_2)
        alarms = Alarms(logger, metrics, partial(self._note_alarm, "tls"))
        tasks = [
            *tasks_for(settings, alarms, metrics, logger, http),
            *key_set_tasks(self._settings, services.take_keys),
        ]
        self._tls_manager = TLSManager(state, tasks, self._publish, logger)

    async def _publish(self, state: TLSState) -> None:
        self._context.use(state)
        self._metrics.show_certificates(ends_by_kind(state))
        if self._settings.core.node_name:
            lists = state.client.revocation_lists if state.client is not None else ()
            names = await asyncio.to_thread(pack_revoked, lists)
            self._services.take_revoked(read_revoked(names))

    async def run(
        self,
        bound: Sequence[socket.socket],
        shown: Sequence[socket.socket],
        on_ready: Callable[[str], None],
    ) -> None:
        """Serve until a signal, or until the cluster is too new for this program."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(loop_exception_handler(self._logger))
        stop = asyncio.Event()
        tracing = open_tracing(self._settings.tracing)
        vault = LocalVault(self._services.gateway, self._services.gatekeeper)
        self._services.on_limits = lambda found: vault.on_limits(found)
        self._app = app = create_app(
            vault,
            self._settings,
            logger=self._logger,
            metrics=self._metrics,
            tracing=tracing,
        )
        await self._tls_manager.begin()
        serving = Listener(app, bound, self._context)
        showing = Listener(create_metrics_app(app), shown, None)
        signals = self._heed_signals(loop, stop)
        await serving.start()
        await showing.start()
        for one in shown:
            self._logger.info("metrics", port=one.getsockname()[1])
        work = [self._tls_manager.run(), *self._services.watches()]
        keeping = [asyncio.create_task(one) for one in work]

        def end(reason: str, is_outdated: bool) -> None:
            if is_outdated:
                self._outdated = reason
                loop.call_soon_threadsafe(stop.set)

        self._services.hsm.when_stopped(end)
        try:
            on_ready(url_of(bound[0]))
            await stop.wait()
            self._logger.info("draining")
        finally:
            for task in keeping:
                task.cancel()
            seconds = self._settings.drain_timeout_seconds
            stopping = (serving.stop(seconds), showing.stop(seconds))
            if not all(await asyncio.gather(*stopping)):
                self._logger.warning("requests were cut off")
            tracing.close()
            # Another signal must not keep the trail from being closed in order.
            for number in signals:
                signal.signal(number, signal.SIG_IGN)
        if self._outdated:
            raise ConfigurationError(self._outdated)

    def _heed_signals(
        self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event
    ) -> list[int]:
        """Stop or reload by signals from now on; return which."""
        calls: dict[int, Callable[[], object]] = {
            signal.SIGTERM: stop.set,
            signal.SIGINT: stop.set,
            signal.SIGUSR1: self._services.reset_clock,
        }
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # Under nohup a hang-up is to be ignored, and is.
            calls[signal.SIGHUP] = self._ask_reload

        def call(number: int, frame: FrameType | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(calls[number])

        # To remove a handler of the loop's own would restore the default action for a
        # moment, and a signal would then end the process.
        for number in calls:
            signal.signal(number, call)
        return list(calls)

    def _note_alarm(self, source: str, is_active: bool) -> None:
        """Report degraded health while an alarm lasts."""
        self._app[HEALTH].note_alarm(source, is_active=is_active)

    def _ask_reload(self) -> None:
        self._services.begin(self._reload())

    async def _reload(self) -> None:
        problems = [await self._tls_manager.reload(), await self._services.reload()]
        reason = " ".join(filter(None, problems))
        if reason:
            self._logger.error("reload failed", reason=reason)
        else:
            self._logger.info("reloaded")
