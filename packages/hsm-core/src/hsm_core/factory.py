# SPDX-License-Identifier: MIT
"""
Opens an HSM: the only place that names the concrete classes.

The order of opening matters. Keys are recognised before anything is written; the trail
exists before the key ring that belongs to it; open intents are settled before the first
operation.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from hsm_core.__about__ import __version__
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    ConfigurationError,
    InputSizeError,
    KeyRingTamperedError,
    SelfTestFailedError,
)
from hsm_core.model import Caller, MessageDetail, Phase
from hsm_core.operations import AuditVerification
from hsm_core.protocols import (
    AsyncHSMGateway,
    AuditDraft,
    AuditLog,
    Clock,
    Entropy,
    HSM,
    KeyStore,
    MasterKeySource,
)
from hsm_core.settings import KeyStoreKind, Settings
from hsm_core._internal.asynchronous import AsyncGateway
from hsm_core._internal.audit.verify import AuditVerifier, verify_range
from hsm_core._internal.clock import SystemClock
from hsm_core._internal.crypto.registry import CryptoRegistry, default_registry
from hsm_core._internal.entropy import SystemEntropy
from hsm_core._internal.handlers import handler_table
from hsm_core._internal.handlers.base import Services
from hsm_core._internal.inventory import Inventory
from hsm_core._internal.pipeline import BoundHSM, Pipeline
from hsm_core._internal.policy import RolePolicy
from hsm_core._internal.recovery import recover
from hsm_core._internal.refusals import Refusals
from hsm_core._internal.sealing import KeyRing, RootKey
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core._internal.stores.filesystem.keys import FilesystemKeyStore
from hsm_core._internal.stores.guard import GuardedKeyStore
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core._internal.stores.memory.keys import MemoryKeyStore

__all__ = ["OpenHSM", "open_async", "open_hsm", "open_verifier"]

_RING: Final = "ring"
_KEY_BYTES: Final = 32


class OpenHSM:
    """
    An open HSM: an `HSMGateway` that is closed at the end of a ``with`` block.

    It is made by `open_hsm`.
    """

    def __init__(
        self,
        services: Services,
        store: KeyStore,
        settings: Settings,
    ) -> None:
        self._services = services
        self._store = store
        self._settings = settings
        self._pool = ThreadPoolExecutor(settings.pool_threads, "hsm-core")
        handlers = handler_table(services)
        self._pipeline = Pipeline(services, handlers, self._pool)
        policy_hash = services.policy.policy_hash
        self._refusals = Refusals(services.audit, services.clock, policy_hash)
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def act_as(self, caller: Caller, /) -> HSM:
        """Return the HSM as this caller sees it."""
        return BoundHSM(self._pipeline, caller)

    def act_as_async(self) -> AsyncHSMGateway:
        """Return this HSM for an event loop."""
        return AsyncGateway(
            self._pipeline,
            self._refusals,
            self._pool,
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
        self._refusals.record(caller, code, kind=kind, key_id=key_id)

    def close(self) -> None:
        """Finish what runs, record the stop, and release trail and store."""
        if self._closed:
            return
        self._closed = True
        self._pool.shutdown(wait=True)
        self._refusals.flush()
        try:
            _record_system(self._services, "system.stop")
        except AuditUnavailableError:
            pass
        finally:
            try:
                self._services.audit.close()
            finally:
                self._store.close()


def open_hsm(
    settings: Settings,
    *,
    master_key: bytes | MasterKeySource,
    hmac_key: bytes,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    crypto: CryptoRegistry | None = None,
) -> OpenHSM:
    """
    Open an HSM, and make what it needs where it is new.

    Args:
        settings: Where everything lies.

        master_key: The root, 32 bytes, or something that holds it.

        hmac_key: Key of the audit trail, 32 bytes.

        clock: Time; the system's by default.

        entropy: Randomness; the operating system's by default.

        crypto: Providers; the default ones are made and self-tested if it is None.

    Returns:
        An `HSMGateway` to be closed, as a context manager or by ``close``.

    Raises:
        ConfigurationError: A setting is wrong, a file is open to others
            (`UnsafeFileModeError`), another process has store or trail
            (`StoreLockedError`), or a key is not the right one (`WrongMasterKeyError`,
            `WrongAuditKeyError`); nothing was written.
        AuditTamperedError: The trail is damaged.
        KeyRingTamperedError: The key ring is damaged.
        UnavailableError: Trail or store can't be read or written.
    """
    clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
    root = _root(master_key, entropy)
    if len(hmac_key) != _KEY_BYTES:
        raise InputSizeError(
            "hmac_key", actual=len(hmac_key), minimum=_KEY_BYTES, maximum=_KEY_BYTES
        )
    registry = crypto or _tested_registry(entropy, settings)
    store = _open_store(settings)
    try:
        blob = store.read_meta(_RING)
        ring = KeyRing.open(root, blob) if blob is not None else None
        audit = _open_audit(settings, hmac_key, clock, entropy, known=ring)
    except BaseException:
        store.close()
        raise
    try:
        ring = ring or _new_ring(store, root, entropy, audit)
        services = _services(
            settings, store, ring, audit, hmac_key, clock, entropy, registry
        )
        services.inventory.load()
        recover(services.inventory, audit)
        _record_system(services, "system.start")
        _record_stopped(services)
        return OpenHSM(services, store, settings)
    except BaseException:
        audit.close()
        store.close()
        raise


def open_async(gateway: OpenHSM) -> AsyncHSMGateway:
    """Return an open HSM for an event loop; close the HSM itself when done."""
    return gateway.act_as_async()


def open_verifier(path: Path, hmac_key: bytes | None) -> AuditVerifier:
    """
    Return an offline verifier of a file trail.

    Args:
        path: The live segment; closed ones lie beside it.

        hmac_key: 32 bytes, or None to check the chain only.
    """
    return AuditVerifier(path, hmac_key)


def _root(master_key: bytes | MasterKeySource, entropy: Entropy) -> MasterKeySource:
    if not isinstance(master_key, bytes):
        return master_key
    if len(master_key) != _KEY_BYTES:
        raise InputSizeError(
            "master_key",
            actual=len(master_key),
            minimum=_KEY_BYTES,
            maximum=_KEY_BYTES,
        )
    return RootKey(master_key, entropy=entropy)


def _open_store(settings: Settings) -> KeyStore:
    match settings.key_store:
        case KeyStoreKind.MEMORY:
            return MemoryKeyStore()
        case KeyStoreKind.FILESYSTEM:
            return GuardedKeyStore(FilesystemKeyStore(settings.key_dir))


def _open_audit(
    settings: Settings,
    hmac_key: bytes,
    clock: Clock,
    entropy: Entropy,
    *,
    known: KeyRing | None,
) -> AuditLog:
    path = settings.audit_log
    if path is None:
        if settings.key_store is not KeyStoreKind.MEMORY:
            raise ConfigurationError(
                "audit_log must be given: only a memory store may keep its trail in "
                "memory.",
                field="audit_log",
            )
        return MemoryAuditLog(hmac_key, clock=clock, entropy=entropy)
    if known is not None and not FileAuditLog.exists(path):
        raise AuditTamperedError(
            f"The key store has a trail {known.log_id}, but there is none at {path}.",
            seq=0,
            reason="missing",
        )
    audit = FileAuditLog.open(
        path,
        hmac_key,
        clock=clock,
        entropy=entropy,
        sync=settings.audit_sync,
        segment_bytes=settings.audit_segment_bytes,
        timeout_seconds=settings.audit_timeout_seconds,
        node=settings.node,
    )
    if known is not None and known.log_id != audit.log_id:
        audit.close()
        raise AuditTamperedError(
            f"The trail at {path} belongs to another key store.",
            seq=0,
            reason="log_id",
        )
    return audit


def _new_ring(
    store: KeyStore, root: MasterKeySource, entropy: Entropy, audit: AuditLog
) -> KeyRing:
    if next(store.scan(), None) is not None:
        raise KeyRingTamperedError(
            "The key store holds keys, but their key ring is missing."
        )
    ring = KeyRing.create(entropy, log_id=audit.log_id)
    store.write_meta(_RING, ring.seal(root))
    return ring


def _services(
    settings: Settings,
    store: KeyStore,
    ring: KeyRing,
    audit: AuditLog,
    hmac_key: bytes,
    clock: Clock,
    entropy: Entropy,
    registry: CryptoRegistry,
) -> Services:
    def verified(start_seq: int, limit: int) -> AuditVerification:
        return verify_range(audit, hmac_key, start_seq, limit)

    inventory = Inventory(
        store, ring, registry, entropy, cache_entries=settings.key_cache_entries
    )
    return Services(
        inventory=inventory,
        crypto=registry,
        policy=RolePolicy(),
        audit=audit,
        audit_sync=settings.audit_sync,
        clock=clock,
        entropy=entropy,
        limits=settings.limits,
        verify_range=verified,
        started_at=clock.now(),
    )


def _tested_registry(entropy: Entropy, settings: Settings) -> CryptoRegistry:
    registry = default_registry(entropy, settings.providers)
    registry.self_test()
    return registry


def _record_stopped(services: Services) -> None:
    """Record the algorithms whose power-up self-test failed."""
    drafts = [
        AuditDraft(
            phase=Phase.SINGLE,
            kind="system.self-test",
            code=SelfTestFailedError.code,
            policy=services.policy.policy_hash,
            detail=MessageDetail(text=row.algorithm.value),
        )
        for row in services.crypto.statuses()
        if row.status == "stopped"
    ]
    if drafts:
        services.audit.append(drafts, durable=True).wait()


def _record_system(services: Services, kind: str) -> None:
    draft = AuditDraft(
        phase=Phase.SINGLE,
        kind=kind,
        policy=services.policy.policy_hash,
        set_digest=services.inventory.set_digest,
        detail=MessageDetail(text=f"hsm-core {__version__}"),
    )
    services.audit.append([draft], durable=True).wait()
