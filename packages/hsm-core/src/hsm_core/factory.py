# SPDX-License-Identifier: MIT
"""Factory functions: open an HSM; verify, read and recover audit logs and ledgers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from hsm_core._internal.approvals.signatures import ConsentAudit
from hsm_core._internal.assembly.assembly import Parts, assemble, open_ring
from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._internal.audit.offline import entry_for, read_page
from hsm_core._internal.audit.reasons import damaged_ledger
from hsm_core._internal.audit.verify import OfflineVerification
from hsm_core._internal.background.backups import Copier
from hsm_core._internal.crypto.registry import default_registry
from hsm_core._internal.handlers.audit import check_query
from hsm_core._internal.handlers.audit_view import filter_of
from hsm_core._internal.handlers.power_up import (
    audit_self_test,
    own_self_test,
    root_self_test,
)
from hsm_core._internal.keyring.key_ring import RootKey
from hsm_core._internal.lib import silence
from hsm_core._internal.lib.concurrency import BackgroundWorker
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.policy.engine import policy_of
from hsm_core._internal.retention import evidence
from hsm_core._internal.retention.evidence import (
    ClusterVerification,
    LedgerVerification,
)
from hsm_core._internal.retention.service import LedgerFile
from hsm_core._internal.stores.audit import open_audit_log, open_ledger, recover_fork
from hsm_core._internal.stores.filesystem.audit_verify import AuditVerifier
from hsm_core._internal.stores.guard import unwrapped
from hsm_core._internal.stores.inspection import StoreState, inspect_ring
from hsm_core._internal.stores.locations import (
    check_apart,
    check_unlocked,
    open_approval_store,
    open_key_store,
    open_vault_store,
    tighten_folders,
)
from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from hsm_core._internal.stores.sqlite.audit_offline import (
    SqliteAuditVerifier,
    is_sqlite_log,
)
from hsm_core._internal.stores.sqlite.records import SqliteApprovalStore
from hsm_core._internal.time.clock import SystemClock
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    ConfigurationError,
    InputSizeError,
    InvalidInputError,
)
from hsm_core.model import AuditEntry, AuditEvent, RepairDetail
from hsm_core.operations import AuditPage, ListAuditEvents
from hsm_core.protocols import (
    ApprovalStore,
    AsyncHSMGateway,
    AuditLog,
    Clock,
    CredentialKeys,
    Entropy,
    MasterKeySource,
    OpenedStore,
    RemoteKeyVault,
)
from hsm_core.settings import KeyStoreKind, Settings

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.audit_offline import ClusterVerifier
    from hsm_core._internal.stores.postgresql.database import ClusterDatabase

__all__ = [
    "AuditVerifier",
    "ClusterVerification",
    "ConsentAudit",
    "LedgerVerification",
    "OfflineVerification",
    "OpenHSM",
    "SqliteAuditVerifier",
    "StoreState",
    "follow_trail",
    "inspect_store",
    "open_async",
    "open_cluster_verifier",
    "open_hsm",
    "open_verifier",
    "read_trail",
    "recover_trail",
    "verify_cluster",
    "verify_ledger",
]

_KEY_BYTES: Final = 32


def open_hsm(
    settings: Settings,
    *,
    master_key: bytes | MasterKeySource,
    hmac_key: bytes,
    vault: RemoteKeyVault | None = None,
    credential_keys: CredentialKeys | None = None,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    test_all: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> OpenHSM:
    """
    Open an HSM; missing stores and keys are created.

    Args:
        settings: Where everything lies.

        master_key: The root, 32 bytes, or something that holds it.

        hmac_key: Key of the audit trail, 32 bytes.

        vault: Where the keys lie, in place of what the settings name; it is closed with
            the HSM.

        credential_keys: By which callers are known. What people agreed to counts only
            while the key of their credential is one of these. By default, who calls
            knows whom to trust.

        clock: Time; the system's by default.

        entropy: Randomness; the operating system's by default.

        test_all: Whether the quick known-answer tests of all algorithms run in the
            background, soon after the start, so that status and audit log show which
            are disabled. Each algorithm is tested before its first use in any case,
            and the cryptography that protects store and trail before anything is
            opened.

        progress: Called with the name of each step that begins, such as ``self-tests``.

    Returns:
        An `HSMGateway` to be closed, as a context manager or by ``close``.

    Raises:
        ConfigurationError: A setting is wrong, a file is open to others
            (`UnsafeFileModeError`), another process has store or trail
            (`StoreLockedError`), or a key is not the right one (`WrongMasterKeyError`,
            `WrongAuditKeyError`); nothing was written.
        AuditTamperedError: The trail is damaged.
        KeyRingTamperedError: The key ring is damaged.
        SelfTestFailedError: The cryptography that protects store and trail failed its
            self-test; nothing was opened or written.
        UnavailableError: Trail or store can't be read or written, or the random
            generator is not healthy.
    """
    policy = policy_of(settings)
    check_apart(settings)
    check_unlocked(settings)
    clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
    root = _root(master_key, entropy)
    _check_key("hmac_key", hmac_key)
    progress("self-tests")
    own_self_test(entropy)
    root_self_test(root)
    registry = default_registry(
        entropy, settings.providers, enabled=settings.enabled_providers
    )
    tighten_folders(settings)

    def attempt() -> OpenHSM:
        with ExitStack() as stack:
            progress("key store")
            node = database = view = None
            if settings.key_store == KeyStoreKind.POSTGRESQL:
                from hsm_core._internal.assembly.cluster import join_cluster

                node = join_cluster(settings, clock, entropy)
                stack.callback(node.close)
                database, view = node.database, node.view
            opened = _open_store(settings, vault, clock, entropy, database)
            stack.callback(opened.keys.close)
            approvals = open_approval_store(settings, database)
            stack.callback(approvals.close)
            ring = open_ring(opened.keys, root)
            known_id = ring.log_id if ring else None
            progress("audit log")
            audit = open_audit_log(
                settings,
                hmac_key,
                clock,
                entropy,
                known_id=known_id,
                database=database,
                view=view,
            )
            stack.callback(_close_log, audit)
            if node is not None:
                node.tie(audit, hmac_key)
            ledger = None
            if node is None:
                ledger = _open_ledger(settings, hmac_key, clock, entropy)
            if ledger is not None and ledger.log is not None:
                stack.callback(_close_log, ledger.log)
            parts = Parts(
                store=opened.keys,
                counters=opened.uses,
                audit=audit,
                ring=ring,
                root=root,
                hmac_key=hmac_key,
                clock=clock,
                entropy=entropy,
                registry=registry,
                copiers=_copiers(opened, approvals, audit),
                approvals=approvals,
                policy=policy,
                credential_keys=credential_keys,
                purges=ledger,
                new_worker=node.new_worker if node else BackgroundWorker,
                cluster=node,
            )
            progress("rollback check")
            hsm = assemble(settings, parts)
            stack.pop_all()
        return hsm

    with silence.opening() as ends:
        if settings.key_store == KeyStoreKind.POSTGRESQL:
            from hsm_core._internal.assembly.cluster import open_again

            hsm = open_again(attempt, progress, ends)
        else:
            hsm = attempt()
    if test_all:
        hsm.test_all_algorithms()
    return hsm


def inspect_store(settings: Settings, *, master_key: bytes) -> StoreState:
    """
    Return whether a key store is new, or opens with a root; nothing is changed.

    Args:
        settings: Where everything lies.

        master_key: The root, 32 bytes.

    Raises:
        ConfigurationError: Two stores would share a path.
        WrongMasterKeyError: It is not the root of this store.
        KeyRingTamperedError: The key ring is damaged.
        StoreUnavailableError: The store can't be read.
    """
    check_apart(settings)
    return inspect_ring(settings, _root(master_key, SystemEntropy()))


def open_async(gateway: OpenHSM) -> AsyncHSMGateway:
    """Return an open HSM for an event loop; close the HSM itself when done."""
    return gateway.act_as_async()


def open_verifier(
    path: Path, hmac_key: bytes | None
) -> AuditVerifier | SqliteAuditVerifier:
    """
    Return an offline verifier of a trail in files or in SQLite, whichever lies there.

    Args:
        path: The live segment, with closed ones beside it; or the database, which no
            HSM of this process may have open.

        hmac_key: 32 bytes, or None to check the chain only.

    Raises:
        ConfigurationError: No file can have this name.
        SelfTestFailedError: The cryptography of the trail failed its self-test.
    """
    audit_self_test()
    if is_sqlite_log(path):
        return SqliteAuditVerifier(path, hmac_key)
    return AuditVerifier(path, hmac_key)


def open_cluster_verifier(store: str, hmac_key: bytes | None) -> ClusterVerifier:
    """
    Return a verifier of all audit logs of a cluster.

    Args:
        store: Address of the database, ``postgresql://USER@HOST/DATABASE``. Nothing is
            created in it.

        hmac_key: 32 bytes, or None to check the chains only.

    Raises:
        ConfigurationError: The address has another form, or psycopg is missing.
        SelfTestFailedError: The cryptography of the trail failed its self-test.
    """
    from hsm_core._internal.stores.postgresql.audit_offline import ClusterVerifier
    from hsm_core._internal.stores.postgresql.connection import read_location

    audit_self_test()
    location = read_location(store, name="verifier")
    return ClusterVerifier(location, hmac_key)


def verify_cluster(
    store: str,
    hmac_key: bytes | None,
    progress: Callable[[int], None] | None = None,
    look: Callable[[AuditEvent], None] | None = None,
) -> ClusterVerification:
    """
    Verify all audit logs of a cluster together, and its retention ledger with them.

    Args:
        store: As for `open_cluster_verifier`.

        hmac_key: 32 bytes, or None to check the chains only.

        progress: Called now and then with the number of records verified.

        look: Called with each good audit record.

    Raises:
        LedgerTamperedError: The ledger is damaged or missing, or not what the audit
            logs say of it.
        AuditTamperedError: An audit log is damaged, or they contradict each other.
        WrongAuditKeyError: The key is not theirs.
        ConfigurationError: There is no cluster, or it can't be read.
    """
    with open_cluster_verifier(store, hmac_key).opened() as cluster:
        return evidence.verify_cluster(cluster, progress, look)


def read_trail(path: Path, hmac_key: bytes | None, query: ListAuditEvents) -> AuditPage:
    """
    Verify a trail without its HSM, and return a page of its records.

    Args:
        path: As for `open_verifier`.

        hmac_key: 32 bytes, or None to check the chain only.

        query: The query; its key is a whole ID.

    Raises:
        InvalidInputError: The query names an unknown kind or code, a log or a cursor.
        AuditTamperedError: The trail is damaged.
        WrongAuditKeyError: The key is not the trail's.
        ConfigurationError: There is no trail, or it can't be read.
    """
    _check_offline(query)
    return read_page(open_verifier(path, hmac_key), query, filter_of(query))


def _check_offline(query: ListAuditEvents) -> None:
    """Refuse what `check_query` does, and fields for the logs of a cluster."""
    check_query(query)
    for name in ("log_id", "cursor"):
        if getattr(query, name):
            raise InvalidInputError(
                f"{name} applies to the logs of a cluster only.", field=name
            )


def follow_trail(
    path: Path,
    hmac_key: bytes | None,
    query: ListAuditEvents,
    show: Callable[[AuditEntry], None],
    wait: Callable[[], None],
) -> NoReturn:
    """
    Verify a trail in files without its HSM, show records, and continue with new ones.

    Args:
        path: As for `open_verifier`.

        hmac_key: 32 bytes, or None to check the chain only.

        query: The query; without ``start_seq``, only new records are shown. Its key is
            a whole ID.

        show: Called with each record.

        wait: Called at the end of the trail, until it raises something.

    Raises:
        InvalidInputError: The query names an unknown kind or code, a log or a cursor.
        AuditTamperedError: The trail is damaged.
        WrongAuditKeyError: The key is not the trail's.
        ConfigurationError: There is no trail, it can't be read, or it is in SQLite.
    """
    _check_offline(query)
    verifier, events = open_verifier(path, hmac_key), filter_of(query)
    if isinstance(verifier, SqliteAuditVerifier):
        raise ConfigurationError(
            "An audit log in SQLite can only be followed through its server.",
            path=str(path),
        )

    def look(record: bytes, seq: int) -> None:
        if (entry := entry_for(events, record, seq)) is not None:
            show(entry)

    verifier.follow(look, query.start_seq, wait)


def recover_trail(path: Path, hmac_key: bytes) -> RepairDetail:
    """
    Recover a forked trail in files: keep both branches, and go on with one.

    The branch that the head mark names, or the longest from there, stays the trail. The
    other one is kept beside it, and the trail records its name and SHA-256. A retention
    ledger is recovered in the same way.

    Args:
        path: The live segment; no process may have the trail open.

        hmac_key: 32 bytes.

    Returns:
        The file that holds the other branch.

    Raises:
        ConfigurationError: There is no trail, it is not forked, or a process has it
            open (`StoreLockedError`).
        WrongAuditKeyError: The key is not the trail's.
        AuditTamperedError: It is damaged in another way; nothing was changed.
        AuditUnavailableError: It can't be read or written.
    """
    return recover_fork(path, hmac_key, SystemClock(), SystemEntropy())


def verify_ledger(
    path: Path,
    hmac_key: bytes | None,
    *,
    trail: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> LedgerVerification:
    """
    Verify a retention ledger in files, and compare it with its trail.

    Args:
        path: The ledger's live file.

        hmac_key: 32 bytes, or None to check the chains only.

        trail: The trail, in files or in SQLite; None compares nothing.

        progress: Called now and then with the number of records verified.

    Raises:
        LedgerTamperedError: The ledger is damaged, or not what the trail says of it.
        AuditTamperedError: The trail is damaged.
        WrongAuditKeyError: The key is not theirs.
        ConfigurationError: One of them is not there, or can't be read.
    """
    verifier = open_verifier(trail, hmac_key) if trail is not None else None
    return evidence.verify_ledger(AuditVerifier(path, hmac_key), verifier, progress)


def _root(master_key: bytes | MasterKeySource, entropy: Entropy) -> MasterKeySource:
    if not isinstance(master_key, bytes):
        return master_key
    _check_key("master_key", master_key)
    return RootKey(master_key, entropy=entropy)


def _check_key(field: str, key: bytes) -> None:
    if len(key) != _KEY_BYTES:
        raise InputSizeError(
            field, actual=len(key), minimum=_KEY_BYTES, maximum=_KEY_BYTES
        )


def _open_ledger(
    settings: Settings, hmac_key: bytes, clock: Clock, entropy: Entropy
) -> LedgerFile | None:
    """Open the ledger; one that is damaged keeps purges back, and nothing else."""
    try:
        log = open_ledger(settings, hmac_key, clock, entropy)
    except AuditTamperedError as error:
        return LedgerFile(None, damaged_ledger(error))
    return LedgerFile(log) if log is not None else None


def _close_log(log: AuditLog) -> None:
    # Why the HSM could not be opened is what the caller is to hear.
    with suppress(AuditUnavailableError):
        log.close()


def _copiers(
    opened: OpenedStore, approvals: ApprovalStore, audit: AuditLog
) -> dict[str, Copier]:
    found: dict[str, Copier] = {}
    if opened.backup is not None:
        found["keys.sqlite"] = opened.backup
    inner = unwrapped(approvals)
    if isinstance(inner, SqliteApprovalStore):
        found["approvals.sqlite"] = inner.backup
    if isinstance(audit, SqliteAuditLog):
        found["audit.sqlite"] = audit.backup
    return found


def _open_store(
    settings: Settings,
    vault: RemoteKeyVault | None,
    clock: Clock,
    entropy: Entropy,
    database: ClusterDatabase | None,
) -> OpenedStore:
    if vault is None:
        return open_key_store(settings, clock, entropy, database)
    if database is not None:
        raise ConfigurationError(
            "store must be empty if the keys are in a vault.", field="store"
        )
    if settings.key_store == KeyStoreKind.MEMORY:
        raise ConfigurationError(
            "key_store must not be memory if the keys are in a vault.",
            field="key_store",
        )
    return open_vault_store(vault, settings.node_name, clock, entropy)
