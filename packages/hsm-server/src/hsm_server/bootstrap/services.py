# SPDX-License-Identifier: MIT
"""Opened HSM with authentication, for the vault process or an inline server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Final

from hsm_core.errors import HSMError
from hsm_core.factory import open_async, open_hsm
from hsm_server.config.settings import CONSOLE_PROVIDER, Secrets, ServerSettings
from hsm_server.identity.clock import ClockWatch, FlooredClock
from hsm_server.identity.id_tokens import provider_trust_for
from hsm_server.identity.token_keys import TokenTrust, TrustedNames
from hsm_server.identity.token_sources import IssuerKeys, TokenSource, TokenWatch
from hsm_server.limits.cluster import LimitExchange
from hsm_server.limits.guard import ClusterLimits, actor_limiter
from hsm_server.observability.logs import Logger
from hsm_server.observability.metrics import Metrics
from hsm_server.system.background import keep_running
from hsm_server.vault.gatekeeper import Gatekeeper

_AGAIN_SECONDS: Final = 1.0


class VaultServices:
    """
    HSM, gatekeeper, and the watches of their files, keys and clock.

    It opens the HSM, which the caller closes.

    Args:
        settings: All settings.

        secrets: Keys of the HSM.

        read_token_secret: Returns the secret of tokens, without other token keys.

        logger: Logs changes of token keys, policies, retention and pruning.

        metrics: Count failures, and show alarms.

    Attributes:
        hsm: The opened HSM.
        gateway: The same, for the running event loop.
        gatekeeper: Authenticates visitors.
        on_alarm: Called when the alarm of token keys begins or ends.
        on_limits: Called with what the address limits of front ends depend on.
        limits: Exchange of limits with other nodes; None if there is
            nothing to exchange.

    Raises:
        HSMError: It can't be opened; see `hsm_core.factory.open_hsm`.
    """

    def __init__(
        self,
        settings: ServerSettings,
        secrets: Secrets,
        read_token_secret: Callable[[], bytes],
        logger: Logger,
        metrics: Metrics,
    ) -> None:
        self._logger = logger
        self._metrics = metrics
        self._interval_seconds = settings.token_config.reload_seconds
        self._tasks: set[asyncio.Future[Any]] = set()
        self._broken: set[str] = set()
        self._revoked: Sequence[str] = ()
        self.on_alarm: Callable[[bool], None] = lambda _: None
        self.on_limits: Callable[[ClusterLimits], None] = lambda _: None
        config = settings.token_config
        self._source = TokenSource(
            config.path,
            read_token_secret,
            settings.tokens,
            is_fetching=bool(config.key_set_url),
            has_no_keys=config.has_no_keys,
        )
        trust, clock = self._source.read(), FlooredClock()
        log = self._change_log("provider keys loaded", "provider keys refused")
        self._provider_trust = provider = provider_trust_for(settings.oidc, log, clock)
        self._issuers = {
            issuer.issuer: IssuerKeys(
                issuer.issuer,
                issuer.jwks_file,
                settings.tokens,
                self._use_issuer,
                partial(self._on_token_keys, issuer.issuer),
                partial(self._declare_keys, issuer.issuer),
            )
            for issuer in settings.token_issuers
        }
        names = TrustedNames(trust, [provider.name] if provider else [])
        self.hsm = open_hsm(
            settings.core,
            master_key=secrets.master_key,
            hmac_key=secrets.hmac_key,
            credential_keys=names,
            progress=lambda step: logger.info("starting", step=step),
        )
        self.gateway = open_async(self.hsm)
        self._limiter = actor_limiter(settings.rates, self.hsm.weight, metrics)
        self.limits: LimitExchange | None = None
        rates = settings.rates
        if self.hsm.shared is not None and (rates.free_failures or rates.divided):
            self.limits = LimitExchange(self.hsm.shared, rates)
            self.limits.on_change = self._take_in
        self.gatekeeper = Gatekeeper(
            self.gateway,
            trust,
            metrics.count_jwt_failure,
            clock=clock,
            names=names,
            limiter=self._limiter,
            console=settings.console,
            people=provider.tokens if provider else None,
            issuers=[keys.first for keys in self._issuers.values()],
            shared=self.hsm.shared,
            note_failure=self.limits.note_failure if self.limits else lambda _: None,
            withdrawn=self.hsm.trust,
        )
        self._clock_watch = ClockWatch(
            clock, self.gatekeeper.on_clock_reset, metrics, logger
        )
        self._token_watch = TokenWatch(
            self._source,
            trust,
            self.gatekeeper.use,
            partial(self._on_token_keys, ""),
            partial(self._declare_keys, ""),
        )
        metrics.show_jwt_alarm(is_on=False)
        self.hsm.on_policy_change(self._change_log("policy loaded", "policy refused"))
        self.hsm.on_retention_change(
            self._change_log("retention healthy", "retention impaired")
        )
        self.hsm.on_pruning_change(
            self._change_log("audit pruning healthy", "audit pruning impaired")
        )
        self.hsm.on_database_change(
            self._change_log("database available", "database unavailable")
        )

    def watches(self) -> Iterator[Coroutine[Any, Any, object]]:
        """Yield the background tasks; each runs until it is cancelled."""
        seconds = self._interval_seconds
        yield _kept(partial(self._token_watch.run, seconds))
        for issuer in self._issuers.values():
            yield _kept(partial(issuer.run, seconds))
        yield _kept(self._clock_watch.run)
        if self.limits is not None:
            yield _kept(self.limits.run)
        if self._provider_trust:
            yield _kept(partial(self._provider_trust.run, seconds))

    def begin(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something in the background."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload(self) -> str:
        """Reload token keys and policies; return the faults, or an empty text."""
        problems = [await self._token_watch.look()]
        problems += [await issuer.look() for issuer in self._issuers.values()]
        if self._provider_trust:
            problems.append(await self._provider_trust.look())
        problems.append(await asyncio.to_thread(self.hsm.reload_policy))
        return " ".join(filter(None, problems))

    def reset_clock(self) -> None:
        """Accept the current wall clock for token expiry, even if it was set back."""
        self._clock_watch.reset()

    def take_keys(self, source: str, data: bytes | None, problem: str) -> None:
        """Use fetched keys; see `KeySet`."""
        keys = self._issuers.get(source)
        if source == CONSOLE_PROVIDER:
            keys = self._provider_trust
        if keys is not None:
            keys.take(data, problem)
            self.begin(keys.look())
        elif not source:
            self._source.take(data, problem)
            self.begin(self._token_watch.look())

    def _take_in(self, found: ClusterLimits) -> None:
        if self._limiter is not None:
            self._limiter.divide(found.divisor)
        self.on_limits(found)

    def take_revoked(self, names: Sequence[str]) -> None:
        """Refuse revoked client certificates on all nodes; see `Revoked`."""
        self._revoked = names
        self.begin(_kept(partial(self._declare_revoked, names)))

    async def _declare_revoked(self, names: Sequence[str]) -> None:
        problem = ""
        while names is self._revoked:
            try:
                await asyncio.to_thread(self.gatekeeper.declare_revoked, names)
            except HSMError as error:
                if str(error) != problem:
                    problem = str(error)
                    self._logger.error("revocations not shared", reason=problem)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                self._logger.info("revocations shared")
                return

    def _use_issuer(self, trust: TokenTrust) -> None:
        self.gatekeeper.use_issuer(trust)

    def _declare_keys(self, issuer: str) -> None:
        """Withdraw removed keys from all nodes, and log those that others withdrew."""
        count = self.gatekeeper.declare(issuer)
        if count:
            named = {"issuer": issuer} if issuer else {}
            reason = f"{count} trusted token keys were withdrawn on another node."
            self._logger.warning("token keys withdrawn", reason=reason, **named)

    def _on_token_keys(self, issuer: str, problem: str) -> None:
        """Log a change of token keys; raise the alarm while any source has a fault."""
        (self._broken.add if problem else self._broken.discard)(issuer)
        self._metrics.show_jwt_alarm(is_on=bool(self._broken))
        self.on_alarm(bool(self._broken))
        named = {"issuer": issuer} if issuer else {}
        if problem:
            self._logger.error("token keys refused", reason=problem, **named)
        else:
            self._logger.info("token keys loaded", **named)

    def _change_log(self, loaded: str, refused: str) -> Callable[[str], None]:
        """Return a function that logs a problem, or without one a success."""

        def tell(problem: str) -> None:
            if problem:
                self._logger.error(refused, reason=problem)
            else:
                self._logger.info(loaded)

        return tell


def _kept(run: Callable[[], Awaitable[object]]) -> Coroutine[Any, Any, object]:
    """Keep something running; the event loop's handler has unexpected exceptions."""
    handle = asyncio.get_running_loop().call_exception_handler
    return keep_running(run, lambda error: handle({"exception": error}))
