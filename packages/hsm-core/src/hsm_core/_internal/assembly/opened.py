# SPDX-License-Identifier: MIT
"""An HSM that is open: what callers get, what it does by itself, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from hsm_core._internal.background.maintenance import (
    EarlySelfTests,
    PeriodicMaintenance,
)
from hsm_core._internal.background.schedulers import Schedulers
from hsm_core._internal.handlers import handler_table
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.keyring.store_check import StoreCheck
from hsm_core._internal.lib.concurrency import BackgroundWorker, Gate
from hsm_core._internal.pipeline.authorisation import ApprovalDesk
from hsm_core._internal.pipeline.pipeline import BoundHSM, Pipeline
from hsm_core._internal.pipeline.refusals import (
    COUNTED_SECONDS,
    Refusals,
    record_stopped,
    record_system,
)
from hsm_core._internal.policy.in_force import PolicyReloader, Recogniser
from hsm_core._internal.retention.service import Retention, RetentionSlot
from hsm_core.errors import AuditTamperedError, AuditUnavailableError
from hsm_core.model import Caller, PolicyIdentity, TokenClaims
from hsm_core.operations import Operation
from hsm_core.protocols import HSM, AsyncHSMGateway, KeyStore, SharedState, SharedTrust
from hsm_core.settings import Settings

if TYPE_CHECKING:
    from hsm_core._internal.assembly.cluster import ClusterNode
    from hsm_core._internal.pipeline.asynchronous import AsyncGateway, Pools

_PATIENCE: Final = 4
"""Multiple of the audit time-out that closing waits for running operations."""


class OpenHSM:
    """
    An open HSM: an `HSMGateway` that is closed at the end of a ``with`` block.

    It is made by ``hsm_core.factory.open_hsm``.

    Attributes:
        worker: Recurring work; it runs until the HSM is closed.
        schedulers: What the HSM does to keys by itself; the same.
        shared: State that servers of a cluster share; None without a cluster.
        trust: What no node of a cluster accepts; None without a cluster.
    """

    def __init__(
        self,
        services: HandlerDependencies,
        store: KeyStore,
        settings: Settings,
        store_check: StoreCheck,
        maintenance: PeriodicMaintenance,
        retention: RetentionSlot,
        new_worker: Callable[[], BackgroundWorker] = BackgroundWorker,
        cluster: ClusterNode | None = None,
        shared: SharedState | None = None,
        trust: SharedTrust | None = None,
    ) -> None:
        self.shared = shared
        self.trust = trust
        self._services = services
        self._store = store
        self._journal = store_check.journal
        self._settings = settings
        self._maintenance = maintenance
        self._retention = retention
        self._cluster = cluster
        self.worker = new_worker()
        self._gate = Gate()
        self._asynchronous: AsyncGateway | None = None
        self._pools: Pools | None = None
        self._pipeline = Pipeline(
            services, handler_table(services), store_check.journal
        )
        self._refusals = Refusals(
            services.audit, services.clock, services.policy.policy_hash
        )
        self._recogniser = Recogniser(
            services.policy, is_on=settings.certificate_identities
        )
        self._is_closed = False
        self._closing = threading.Lock()
        self._policy = PolicyReloader(
            settings.policy_config, services.policy, services.audit, services.clock
        )
        self.schedulers = Schedulers(
            settings, services, self._pipeline.execute, new_worker()
        )
        self._begin(store_check)
        retention.begin(self._pipeline.execute, self.desk, new_worker)
        if cluster is not None:
            cluster.begin(services.audit.log_id, services.policy)
        self._policy.begin()

    def _begin(self, store_check: StoreCheck) -> None:
        """Begin the recurring work."""
        store_check.begin(self.worker)
        if self._settings.policy_config is not None:
            seconds = self._settings.policy_reload_interval_seconds
            self.worker.every(seconds, self._policy.poll)
        self.worker.every(COUNTED_SECONDS, self._refusals.flush, first=COUNTED_SECONDS)
        self.worker.start()

    def test_all_algorithms(self) -> None:
        """Test each algorithm in the background, soon and once."""
        record = partial(record_stopped, self._services)
        EarlySelfTests(self._services.crypto, record).begin(self.worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def retention(self) -> Retention | None:
        """What purges old versions; None where nothing does."""
        return self._retention.retention

    def act_as(self, caller: Caller, /) -> HSM:
        """Return the HSM as this caller sees it."""
        return BoundHSM(self._pipeline, self._gate, caller)

    @property
    def desk(self) -> ApprovalDesk:
        """Where schedulers ask for approvals."""
        return self._pipeline.desk

    def act_as_async(self) -> AsyncHSMGateway:
        """Return this HSM for an event loop."""
        # Programs without an event loop neither load asyncio nor make pools.
        from hsm_core._internal.pipeline.asynchronous import AsyncGateway, Pools
        from hsm_core._internal.pipeline.live_views import LiveViews

        with self._closing:
            if self._asynchronous is None:
                self._services.audit.hand_over()
                self._pools = Pools(self._settings.pool_threads)
                if self._is_closed:
                    self._pools.close()
                self._asynchronous = AsyncGateway(
                    self._pipeline,
                    self._refusals,
                    self._pools,
                    self._gate,
                    LiveViews(self._services, self._gate),
                    self._recogniser,
                    timeout_seconds=self._settings.audit_timeout_seconds,
                    feed=self._services.inventory.feed,
                )
            return self._asynchronous

    def when_stopped(self, call: Callable[[str, bool], object], /) -> None:
        """
        Call a function once this process is a node of its cluster no more, and locked.

        Args:
            call: Given a sentence for people, and whether this program is too old for
                the cluster; otherwise it was fenced, and may be started again. From
                another thread.
        """
        if self._cluster is not None:
            self._cluster.when_stopped(call)

    def weight(self, operation: Operation[Any]) -> int:
        """
        Return how many quick operations one is worth, for who limits callers.

        It looks at nothing but memory.
        """
        return self._pipeline.weight(operation)

    def asks_for_single_use(self) -> bool:
        """See `HSMGateway.asks_for_single_use`."""
        return self._recogniser.asks_for_single_use

    def identify(self, caller: Caller, /) -> PolicyIdentity | None:
        """See `HSMGateway.identify`."""
        return self._recogniser.identify(caller)

    def identify_token(self, token: TokenClaims, /) -> PolicyIdentity | None:
        """See `HSMGateway.identify_token`."""
        return self._recogniser.identify_token(token)

    def record_refusal(
        self,
        caller: Caller,
        code: str,
        /,
        *,
        kind: str = "Authenticate",
        key_id: str = "",
    ) -> None:
        """See `HSMGateway.record_refusal`."""
        ticket = self._refusals.record(caller, code, kind=kind, key_id=key_id)
        if ticket is not None:
            with suppress(AuditUnavailableError):
                ticket.wait()

    def record_visit(self, caller: Caller, /, *, kind: str) -> None:
        """See `HSMGateway.record_visit`."""
        ticket = self._refusals.record_visit(caller, kind=kind)
        if ticket is not None:
            with suppress(AuditUnavailableError):
                ticket.wait()

    def reload_policy(self) -> str:
        """
        Put what the policy file holds in force now; else the last good one stays.

        It blocks until that is recorded. The retention policy's file is looked at in
        the background, and a sweep begun.

        Returns:
            Why the file is not in force; empty if it is, or if there is none.
        """
        self._retention.hurry()
        return self._policy.reload()

    def on_policy_change(self, told: Callable[[str], None], /) -> None:
        """
        Have a function told of every change of the policy, and of every one refused.

        Args:
            told: Is given the problem, or an empty text after a success. It runs in a
                thread of its own and must not block.
        """
        self._policy.on_change = told

    def on_retention_change(self, told: Callable[[str], None], /) -> None:
        """
        Have a function told when something keeps purges back, and when nothing does.

        Args:
            told: Is given what keeps them back, or an empty text. It runs in a thread
                of its own and must not block.
        """
        self._retention.on_change(told)

    def on_pruning_change(self, told: Callable[[str], None], /) -> None:
        """
        Have a function told when the audit log can't be pruned, and when it can again.

        Args:
            told: Is given the problem, or an empty text. It runs in a thread of its own
                and must not block.
        """
        self._maintenance.on_pruning_change(told)

    def on_database_change(self, told: Callable[[str], None], /) -> None:
        """
        Have a function told why a cluster's database can't be reached, and when it can.

        Args:
            told: Is given the reason, which is for operators alone, or an empty text.
                It runs in the thread of a caller and must not block.
        """
        if self._cluster is not None:
            self._cluster.database.on_change = told

    def close(self) -> None:
        """
        Let nothing more in, finish what runs, record the stop, release trail and store.

        Self-tests and checks of the whole store end with `UnavailableError`. It blocks
        until then: not for an event loop, nor from within an operation.

        Raises:
            AuditUnavailableError: The end of the trail could not be written.
        """
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            patience = _PATIENCE * self._settings.audit_timeout_seconds
            try:
                self._stop_work(patience)
                self._services.uses.close(patience)
                self._write_last_records()
            finally:
                try:
                    self._services.audit.close()
                finally:
                    self._close_stores()

    def _stop_work(self, patience: float) -> None:
        self._services.closing.set()
        self._gate.close(patience)
        self._services.overdue.set()
        self.worker.stop(patience)
        self.schedulers.stop(patience)
        self._retention.stop(patience)
        if self._pools is not None:
            self._pools.close()
        self._maintenance.stop(patience)

    def _close_stores(self) -> None:
        if self._services.inventory.feed is not None:
            self._services.inventory.feed.close()
        if self._cluster is not None:
            self._cluster.close(settled=self._services.consents.is_settled)
        self._store.close()

    def _write_last_records(self) -> None:
        self._refusals.flush()
        with suppress(AuditUnavailableError, AuditTamperedError):
            self._journal.append_pending()
            record_system(self._services, "system.stop")
            if self._cluster is not None:
                self._cluster.finish()
