# SPDX-License-Identifier: MIT
"""
Puts an HSM together from parts that are open already.

Keys are recognised before anything is written; the trail exists before the key ring
that belongs to it; the store is compared with the trail, and open intents are settled,
before the first operation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from hsm_core import operations as ops
from hsm_core.__about__ import __version__
from hsm_core._internal.approval_desk import ApprovalDesk
from hsm_core._internal.approvals.ledger import Ledger
from hsm_core._internal.asynchronous import AsyncGateway, Pools
from hsm_core._internal.audit.ranges import verify_range
from hsm_core._internal.backups import Backups, Copier
from hsm_core._internal.caretaker import Caretaker
from hsm_core._internal.consents import (
    SignatureCheck,
    open_dual_control,
    signature_check,
)
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.following import Followers
from hsm_core._internal.gate import Gate
from hsm_core._internal.handlers import handler_table
from hsm_core._internal.handlers.base import Services
from hsm_core._internal.housekeeping import Housekeeping
from hsm_core._internal.inventory import Inventory
from hsm_core._internal.keeping import Keeper
from hsm_core._internal.kept_leaps import open_leaps
from hsm_core._internal.lately import Lately
from hsm_core._internal.pipeline import BoundHSM, Pipeline
from hsm_core._internal.policy import (
    PolicyHolder,
    PolicyReloader,
    RuleEngine,
    policy_of,
)
from hsm_core._internal.purging.approvals import PurgeDesk
from hsm_core._internal.purging.keeper import Retention
from hsm_core._internal.purging.slot import LedgerFile, RetentionSlot, removal_method
from hsm_core._internal.refusals import (
    NearLimitRecorder,
    Refusals,
    TamperingRecorder,
)
from hsm_core._internal.schedulers import Schedulers
from hsm_core._internal.sealing import KeyRing
from hsm_core._internal.stores.memory.approvals import MemoryApprovalStore
from hsm_core._internal.uses import UseAccounts, UseRules
from hsm_core.errors import (
    AuditUnavailableError,
    KeyRingTamperedError,
    SelfTestFailedError,
    StoreMismatchError,
)
from hsm_core.model import Caller, MessageDetail, Phase
from hsm_core.operations import AuditVerification
from hsm_core.policies import Policy
from hsm_core.protocols import (
    HSM,
    ApprovalStore,
    AsyncHSMGateway,
    AuditDraft,
    AuditLog,
    Clock,
    CredentialKeys,
    Entropy,
    KeyStore,
    MasterKeySource,
    Request,
    UseCounters,
)
from hsm_core.settings import KeyStoreKind, Settings

__all__ = ["OpenHSM", "assemble", "open_ring"]

_RING: Final = "ring"
_KEYS: Final = 64
"""How much of a recorded set digest is about keys; the rest is about approvals."""

_PATIENCE: Final = 4
"""Closing waits for what runs this many times as long as an answer for the trail."""


class OpenHSM:
    """
    An open HSM: an `HSMGateway` that is closed at the end of a ``with`` block.

    It is made by ``hsm_core.factory.open_hsm``.

    Attributes:
        caretaker: Recurring work; it runs until the HSM is closed.
        schedulers: What the HSM does to keys by itself; the same.
    """

    def __init__(
        self,
        services: Services,
        store: KeyStore,
        settings: Settings,
        keeper: Keeper,
        housekeeping: Housekeeping,
        retention: RetentionSlot,
        desk: PurgeDesk | None,
        new_caretaker: Callable[[], Caretaker] = Caretaker,
    ) -> None:
        self._housekeeping = housekeeping
        self._retention = retention
        self.caretaker = new_caretaker()
        self._services = services
        self._store = store
        self._settings = settings
        self._gate = Gate()
        self._followers = Followers(services, self._gate)
        self._pools = Pools(settings.pool_threads)
        handlers = handler_table(services)
        self._pipeline = Pipeline(
            services,
            handlers,
            self._pools.changes,
            self._pools.slow,
            keeper.healer,
        )
        policy_hash = services.policy.policy_hash
        self._refusals = Refusals(services.audit, services.clock, policy_hash)
        self._is_closed = False
        self._closing = threading.Lock()
        self._policy = PolicyReloader(
            settings.policy_config, services.policy, services.audit, services.clock
        )
        self.schedulers = Schedulers(
            settings, services, self._pipeline.execute, new_caretaker()
        )
        keeper.begin(self.caretaker, self._pipeline.pay)
        if settings.policy_config is not None:
            seconds = settings.policy_reload_interval_seconds
            self.caretaker.every(seconds, self._policy.poll)
        self.caretaker.start()
        retention.begin(self._pipeline.execute, desk or self.desk, new_caretaker)

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
        return AsyncGateway(
            self._pipeline,
            self._refusals,
            self._pools,
            self._gate,
            self._followers,
            timeout_seconds=self._settings.audit_timeout_seconds,
        )

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

    def reload_policy(self) -> str:
        """
        Put what the policy file holds in force now; else the last good one stays.

        It blocks until that is recorded.

        Returns:
            Why the file is not in force; empty if it is, or if there is none.
        """
        return self._policy.reload()

    def on_policy_change(self, told: Callable[[str], None], /) -> None:
        """
        Have a function told of every change of the policy, and of every one refused.

        Args:
            told: Is given the problem, or an empty text after a success. It runs in a
                thread of its own and must not block.
        """
        self._policy.on_change = told

    def close(self) -> None:
        """
        Let nothing more in, finish what runs, record the stop, release trail and store.

        It blocks until then: not for an event loop, nor from within an operation.

        Raises:
            AuditUnavailableError: The end of the trail could not be written.
        """
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            patience = _PATIENCE * self._settings.audit_timeout_seconds
            self._gate.close(patience)
            self._services.closing.set()
            self.caretaker.stop(patience)
            self.schedulers.stop(patience)
            self._retention.stop(patience)
            self._pools.close()
            try:
                self._housekeeping.stop(patience)
                self._services.uses.close(patience)
                self._write_last_records()
            finally:
                try:
                    self._services.audit.close()
                finally:
                    self._store.close()

    def _write_last_records(self) -> None:
        self._refusals.flush()
        with suppress(AuditUnavailableError):
            self._pipeline.pay()
            _record_system(self._services, "system.stop")


def open_ring(store: KeyStore, root: MasterKeySource) -> KeyRing | None:
    """
    Return the store's key ring, or None if the store is new.

    Raises:
        WrongMasterKeyError: It was sealed by another root.
        KeyRingTamperedError: It is damaged, or keys are there without it.
    """
    blob = store.read_meta(_RING)
    if blob is not None:
        return KeyRing.open(root, blob)
    if next(store.scan(), None) is not None:
        raise KeyRingTamperedError(
            "The key store holds keys, but their key ring is missing."
        )
    return None


def _make_ring(
    settings: Settings,
    store: KeyStore,
    audit: AuditLog,
    root: MasterKeySource,
    entropy: Entropy,
) -> KeyRing:
    """
    Make the key ring of a new store.

    Raises:
        StoreMismatchError: The trail knows a store already.
    """
    is_known = audit.set_digest_at_open and settings.key_store != KeyStoreKind.MEMORY
    if is_known and not settings.accept_changed_store:
        raise StoreMismatchError("The trail knows a key store, and this one is empty.")
    ring = KeyRing.create(entropy, log_id=audit.log_id)
    store.write_meta(_RING, ring.seal(root))
    return ring


def assemble(
    settings: Settings,
    *,
    store: KeyStore,
    counters: UseCounters,
    audit: AuditLog,
    ring: KeyRing | None,
    root: MasterKeySource,
    hmac_key: bytes,
    clock: Clock,
    entropy: Entropy,
    registry: CryptoRegistry,
    use_rules: UseRules | None = None,
    copiers: Mapping[str, Copier] | None = None,
    approvals: ApprovalStore | None = None,
    policy: Policy | None = None,
    check_signature: SignatureCheck | None = None,
    credential_keys: CredentialKeys | None = None,
    purges: LedgerFile | None = None,
    desk: PurgeDesk | None = None,
    new_caretaker: Callable[[], Caretaker] = Caretaker,
) -> OpenHSM:
    """
    Return an HSM over these parts; *ring* None makes a new one.

    *copiers* copy what of them can be backed up in use, the trail last. Without
    *approvals* they are kept in memory; *policy* is what the settings name, where that
    was read already. *credential_keys* vouch for who calls. *purges* is where purges
    are attested; without it nothing is purged. *desk* asks people about them, in place
    of the approvals. All recurring work is given to what *new_caretaker* makes.

    Closing the HSM closes stores and trail; if this fails, its caller closes them.

    Raises:
        StoreMismatchError: The trail knows a store, and this one is empty.
    """
    if ring is None:
        ring = _make_ring(settings, store, audit, root, entropy)

    def verified(start_seq: int, limit: int) -> AuditVerification:
        return verify_range(audit, hmac_key, start_seq, limit)

    source = "file" if settings.policy_config else settings.policy_profile.value
    engine = RuleEngine(policy or policy_of(settings))
    holder = PolicyHolder(engine, source, clock.now())
    leaps = open_leaps(store, ring, audit, clock, holder.policy_hash)
    recorder = TamperingRecorder(audit, holder.policy_hash)
    inventory = Inventory(
        store,
        ring,
        registry,
        entropy,
        cache_entries=settings.key_cache_entries,
        on_tampering=recorder,
        on_correction=recorder.correct,
    )
    ledger = Ledger(ring.approval_element, audit.set_digest_at_open[_KEYS:])
    inventory.beside = lambda: ledger.digest
    uses = UseAccounts(
        counters,
        ring,
        store,
        inventory.tampered,
        clock,
        on_near_limit=NearLimitRecorder(audit, holder.policy_hash),
        rules=use_rules,
    )
    keeper = Keeper(
        settings, inventory, uses, audit, clock, verified, holder.policy_hash
    )
    slot = RetentionSlot(purges)
    dual = open_dual_control(
        settings,
        approvals or MemoryApprovalStore(),
        ledger,
        inventory,
        audit,
        verified,
        holder,
        clock,
        entropy,
        check_signature or signature_check(holder),
        credential_keys,
    )

    def recover_store(reason: str) -> ops.Recovered:
        done = keeper.acceptance.recover_store(reason)
        forgotten = dual.care.forget(reason)
        return msgspec.structs.replace(done, approvals=forgotten)

    services = Services(
        inventory=inventory,
        uses=uses,
        crypto=registry,
        policy=holder,
        audit=audit,
        audit_sync=settings.audit_sync,
        audit_timeout=settings.audit_timeout_seconds,
        clock=clock,
        entropy=entropy,
        limits=settings.limits,
        verify_range=verified,
        store_status=keeper.scrubber.status,
        store_refused=Lately(clock),
        verify_store=keeper.scrubber.verify,
        back_up=Backups(
            settings.backup_dir, copiers or {}, audit, clock, inventory.committing
        ).make,
        recover_store=recover_store,
        recover_key=keeper.acceptance.recover_key,
        consents=dual.consents,
        approval_status=lambda: dual.care.status,
        started_at=clock.now(),
        leaps=leaps,
        retention_status=slot.status,
        destroy_waiting_days=settings.destroy_waiting_days,
    )
    _record_system(services, "system.start")
    _record_stopped(services)
    if purges is not None and purges.log is not None:
        log = purges.log

        def build(execute: Callable[[Request], Any], desk: PurgeDesk) -> Retention:
            return Retention(
                settings,
                inventory=inventory,
                audit=audit,
                ledger=log,
                hmac_key=hmac_key,
                verify=verified,
                desk=desk,
                execute=execute,
                clock=clock,
                leaps=leaps,
                entropy=entropy,
                method=removal_method(settings.key_store),
            )

        slot.build = build
    housekeeping = Housekeeping(
        settings, audit, dual.register, dual.care, clock, new_caretaker()
    )
    return OpenHSM(
        services, store, settings, keeper, housekeeping, slot, desk, new_caretaker
    )


def _record_stopped(services: Services) -> None:
    """Record the algorithms whose power-up self-test failed."""
    drafts = [
        AuditDraft(
            phase=Phase.SINGLE,
            kind="system.self-test",
            code=SelfTestFailedError.code,
            policy=services.policy.policy_hash(),
            detail=MessageDetail(text=row.algorithm.value),
        )
        for row in services.crypto.statuses()
        if row.status == "stopped"
    ]
    if drafts:
        services.audit.append(drafts, durable=True, reserved=True).wait()


def _record_system(services: Services, kind: str) -> None:
    draft = AuditDraft(
        phase=Phase.SINGLE,
        kind=kind,
        policy=services.policy.policy_hash(),
        set_digest=services.inventory.set_digest,
        detail=MessageDetail(text=f"hsm-core {__version__}"),
    )
    services.audit.append([draft], durable=True, reserved=True).wait()
