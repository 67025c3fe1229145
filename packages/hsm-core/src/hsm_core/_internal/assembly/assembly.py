# SPDX-License-Identifier: MIT
"""
Puts an HSM together from parts that are open already.

Keys are recognised before anything is written; the trail exists before the key ring
that belongs to it; the store is compared with the trail, and open intents are settled,
before the first operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.approvals.journal import ApprovalSetDigest
from hsm_core._internal.approvals.maintenance import DualControl, open_dual_control
from hsm_core._internal.approvals.signatures import SignatureCheck, signature_check
from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._internal.audit.reading import RecordSource, recorded_names
from hsm_core._internal.audit.verify import verify_range
from hsm_core._internal.background.backups import Backups, Copier
from hsm_core._internal.background.maintenance import PeriodicMaintenance
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.keyring.dependencies import Dependencies, open_clock_guard
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.store_check import StoreCheck
from hsm_core._internal.keyring.use_counters import UseAccounts, UseRules
from hsm_core._internal.lib.cache import RecentEvent
from hsm_core._internal.lib.concurrency import BackgroundWorker
from hsm_core._internal.pipeline.authorisation import ApprovalDesk
from hsm_core._internal.pipeline.refusals import SystemRecorder, record_system
from hsm_core._internal.policy.engine import RuleEngine, policy_of
from hsm_core._internal.policy.in_force import PolicyHolder
from hsm_core._internal.retention.evidence import LedgerCheck
from hsm_core._internal.retention.service import (
    LedgerFile,
    Retention,
    RetentionSlot,
    removal_method,
)
from hsm_core._internal.stores.memory.records import MemoryApprovalStore
from hsm_core.errors import AuditTamperedError, KeyRingTamperedError, StoreMismatchError
from hsm_core.policies import Policy
from hsm_core.protocols import (
    ApprovalStore,
    AuditLog,
    Clock,
    CredentialKeys,
    Entropy,
    KeyStore,
    MasterKeySource,
    Request,
    SharedState,
    SharedTrust,
    UseCounters,
)
from hsm_core.settings import KeyStoreKind, Settings

if TYPE_CHECKING:
    from hsm_core._internal.assembly.cluster import ClusterNode
    from hsm_core._internal.cluster.approvals import ApprovalChanges

_RING: Final = "ring"
_KEYS: Final = 64
"""
Length of the part of a recorded set digest that covers keys; the rest covers approvals.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """
    Parts of an HSM, all open.

    Attributes:
        store: Where the keys lie.
        counters: How often they were used.
        audit: The trail.
        ring: The store's key ring; None makes a new one.
        root: Seals a new ring.
        hmac_key: Key of the trail, 32 bytes.
        clock: Time.
        entropy: Randomness.
        registry: Serves the algorithms.
        use_rules: How often a key may be used.
        copiers: Copy what of the stores can be backed up in use, the trail last.
        approvals: Where approvals are kept; by default in memory.
        policy: What the settings name, where that was read already.
        check_signature: Checks what approvers sign.
        credential_keys: Vouch for who calls; None where who calls knows them.
        purges: Where purges are attested; without it nothing is purged.
        new_worker: Makes what all recurring work is given to.
        cluster: The node that this is, where several share the stores.
    """

    store: KeyStore
    counters: UseCounters
    audit: AuditLog
    ring: KeyRing | None
    root: MasterKeySource = field(repr=False)
    hmac_key: bytes = field(repr=False)
    clock: Clock
    entropy: Entropy
    registry: CryptoRegistry
    use_rules: UseRules | None = None
    copiers: Mapping[str, Copier] = field(default_factory=dict)
    approvals: ApprovalStore | None = None
    policy: Policy | None = None
    check_signature: SignatureCheck | None = None
    credential_keys: CredentialKeys | None = None
    purges: LedgerFile | None = None
    new_worker: Callable[[], BackgroundWorker] = BackgroundWorker
    cluster: ClusterNode | None = None


def assemble(settings: Settings, parts: Parts) -> OpenHSM:
    """
    Return an HSM over these parts.

    Closing the HSM closes stores and trail; if this fails, its caller closes them.

    Raises:
        StoreMismatchError: The trail knows a store, and this one is empty.
    """
    return _Assembly(settings, parts).finish()


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
            "The key store holds keys but no key ring. Restore the key ring from a "
            "backup."
        )
    return None


def _make_ring(settings: Settings, parts: Parts) -> KeyRing:
    """
    Make the key ring of a new store.

    Raises:
        StoreMismatchError: The trail knows a store already.
    """
    audit = parts.audit
    is_known = audit.set_digest_at_open and settings.key_store != KeyStoreKind.MEMORY
    if is_known and not settings.accept_changed_store:
        raise StoreMismatchError(
            "The key store is empty, but the audit log records keys. Check the path, "
            "or restore the store."
        )
    ring = KeyRing.create(parts.entropy, log_id=audit.log_id)
    sealed = ring.seal(parts.root)
    stored = parts.store.create_meta(_RING, sealed)
    return ring if stored == sealed else KeyRing.open(parts.root, stored)


class _Assembly:
    """
    An HSM that is being put together; each step builds on those before it.

    Raises:
        StoreMismatchError: The trail knows a store, and this one is empty.
    """

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._settings = settings
        self._parts = parts
        ring = _make_ring(settings, parts) if parts.ring is None else parts.ring
        self._ground = ground = self._lay_ground(ring)
        self._trust = self._follow_other_nodes()
        self._approvals = ApprovalSetDigest(
            ring.approval_element, parts.audit.set_digest_at_open[_KEYS:]
        )
        ground.inventory.beside = lambda: self._approvals.digest
        ground.inventory.names.recorded = lambda key_ids: recorded_names(
            parts.audit, ground.verify, key_ids
        )
        self._uses = self._count_uses()
        ledger = LedgerCheck(ground, self._ledger_to_read(), parts.hmac_key)
        self._store_check = StoreCheck(ground, self._uses, ledger)
        self._slot = self._retention_slot()
        self._dual = self._begin_dual_control()
        if parts.cluster is not None:
            parts.cluster.follow_uses(self._uses)
            parts.cluster.begin_settling(ground, self._approvals, self._dual)

    def _ledger_to_read(self) -> RecordSource | None:
        """Return the retention ledger, if there is one and it is not damaged."""
        parts = self._parts
        if parts.cluster is None:
            return parts.purges.log if parts.purges else None
        found = parts.cluster.logs.ledger()
        try:
            if found is not None:
                found.mark()
        except AuditTamperedError:
            return None
        return found

    def _retention_slot(self) -> RetentionSlot:
        parts = self._parts
        if parts.cluster is None or self._settings.retention_config is None:
            return RetentionSlot(parts.purges)
        from hsm_core._internal.assembly.cluster import shared_retention

        slot = shared_retention(
            parts.cluster, self._settings, parts.hmac_key, parts.clock, parts.entropy
        )
        slot.build_over = self._retention
        return slot

    def finish(self) -> OpenHSM:
        """Record the start, and begin what the HSM does by itself."""
        parts, ground = self._parts, self._ground
        services = self._services()
        record_system(services, "system.start")
        if parts.purges is not None and parts.purges.log is not None:
            self._slot.build = self._retention_over(parts.purges.log)
        maintenance = PeriodicMaintenance(
            self._settings,
            parts.audit,
            self._dual.register,
            self._dual.care,
            ground.clock,
            parts.new_worker(),
            ground.job_guard,
        )
        return OpenHSM(
            services,
            parts.store,
            self._settings,
            self._store_check,
            maintenance,
            self._slot,
            parts.new_worker,
            parts.cluster,
            self._shared_state(),
            self._trust,
        )

    def _shared_state(self) -> SharedState | None:
        """Return what servers of a cluster share; None on a single machine."""
        cluster = self._parts.cluster
        if cluster is None:
            return None
        # A single machine loads nothing of this.
        from hsm_core._internal.stores.postgresql.shared_state import (
            PostgresSharedState,
        )

        ring = self._ground.inventory.ring
        return PostgresSharedState(
            cluster.database,
            ring,
            self._parts.entropy,
            lambda: cluster.membership.nodes_live,
        )

    def _lay_ground(self, ring: KeyRing) -> Dependencies:
        settings, parts = self._settings, self._parts
        audit, hmac_key = parts.audit, parts.hmac_key
        source = "file" if settings.policy_config else settings.policy_profile.value
        engine = RuleEngine(parts.policy or policy_of(settings))
        policy = PolicyHolder(engine, source, parts.clock.now())
        guards = self._node_guards(ring)
        clock_guard = open_clock_guard(
            *(parts.store, ring, audit, parts.clock, policy.policy_hash),
            other_logs=guards.get("other_logs", tuple),
        )
        self._recorder = SystemRecorder(audit, policy.policy_hash)
        inventory = KeyRepository(
            parts.store,
            ring,
            parts.registry,
            parts.entropy,
            cache_entries=settings.key_cache_entries,
            on_tampering=self._recorder.tampered,
            on_correction=self._recorder.corrected,
        )
        return Dependencies(
            settings=settings,
            inventory=inventory,
            audit=audit,
            verify=lambda start, limit: verify_range(audit, hmac_key, start, limit),
            policy=policy,
            clock=parts.clock,
            clock_guard=clock_guard,
            entropy=parts.entropy,
            **guards,
        )

    def _node_guards(self, ring: KeyRing) -> dict[str, Any]:
        """Return what only a node of a cluster has."""
        parts, mark = self._parts, self._settings.node_mark
        if parts.cluster is None or mark is None:
            return {}
        parts.cluster.watch(mark, ring, parts.audit.log_id)
        assert parts.cluster.seen is not None  # noqa: S101 (for the type checker)
        return {
            "job_guard": parts.cluster.jobs.guarded,
            "why_older": parts.cluster.seen.why_older,
            "other_logs": partial(parts.cluster.other_logs, parts.audit.log_id),
        }

    def _follow_other_nodes(self) -> SharedTrust | None:
        parts = self._parts
        if not parts.counters.is_shared:
            return None
        from hsm_core._internal.assembly.cluster import follow_changes, follow_trust

        follow_changes(parts.store, self._ground.inventory, parts.cluster)
        return follow_trust(self._ground, self._recorder.trust_changed)

    def _count_uses(self) -> UseAccounts:
        parts, inventory = self._parts, self._ground.inventory
        return UseAccounts(
            parts.counters,
            inventory.ring,
            parts.store,
            inventory.tampered,
            parts.clock,
            on_near_limit=self._recorder.near_limit,
            rules=parts.use_rules,
        )

    def _begin_dual_control(self) -> DualControl:
        return open_dual_control(
            self._ground,
            self._parts.approvals or MemoryApprovalStore(),
            self._approvals,
            self._parts.check_signature or signature_check(self._ground.policy),
            self._parts.credential_keys,
            self._uses.last_used_at,
            self._follow_approvals(),
        )

    def _follow_approvals(self) -> ApprovalChanges | None:
        feed, store = self._ground.inventory.feed, self._parts.approvals
        if feed is None or store is None:
            return None
        from hsm_core._internal.assembly.cluster import follow_approvals

        return follow_approvals(
            feed, store, self._approvals, self._ground.inventory, self._parts.cluster
        )

    def _services(self) -> HandlerDependencies:
        ground, scrubber = self._ground, self._store_check.scrubber
        parts = self._parts
        return HandlerDependencies(
            **msgspec.structs.asdict(ground),
            uses=self._uses,
            crypto=self._parts.registry,
            store_status=scrubber.status,
            store_refused=RecentEvent(ground.clock),
            verify_store=scrubber.verify,
            back_up=self._backups().make,
            recover_store=self._recover_store,
            recover_key=self._store_check.recovery.recover_key,
            consents=self._dual.consents,
            approval_status=lambda: self._dual.care.status,
            started_at=ground.clock.now(),
            retention_status=self._slot.status,
            check_ledger_lost=self._slot.check_ledger_lost,
            begin_ledger=self._slot.begin_ledger,
            cluster=parts.cluster.overview if parts.cluster else None,
            logs=parts.cluster.logs if parts.cluster else None,
        )

    def _backups(self) -> Backups:
        return Backups(
            self._settings.backup_dir,
            self._parts.copiers,
            self._parts.audit,
            self._parts.clock,
            self._ground.inventory.committing,
        )

    def _recover_store(self, reason: str) -> ops.Recovered:
        """Accept the keys as they are, and forget the approvals that are not so."""
        done = self._store_check.recovery.recover_store(reason)
        forgotten = self._dual.care.forget(reason)
        if self._parts.cluster is not None:
            self._parts.cluster.accept(self._ground, reason)
        return msgspec.structs.replace(done, approvals=forgotten)

    def _retention_over(
        self, log: AuditLog
    ) -> Callable[[Callable[[Request], Any], ApprovalDesk], Retention]:
        return partial(self._retention, log)

    def _retention(
        self, log: AuditLog, execute: Callable[[Request], Any], desk: ApprovalDesk
    ) -> Retention:
        return Retention(
            self._ground,
            ledger=log,
            hmac_key=self._parts.hmac_key,
            desk=desk,
            execute=execute,
            method=removal_method(self._settings.key_store),
        )
