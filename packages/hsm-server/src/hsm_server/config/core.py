# SPDX-License-Identifier: MIT
"""Settings of the HSM: annotations of `hsm_core.settings.Settings`, by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hsm_core.limits import Limits as CoreLimits
from hsm_core.settings import ApprovalStoreKind, AuditStoreKind, KeyStoreKind, Settings
from hsm_server.config.annotations import (
    Setting,
    given,
    parse_all_stores,
    parse_approval_store,
    parse_key_store,
    parse_providers,
)
from hsm_server.config.settings import HTTPLimits

STORAGE: Final = {
    "store": Setting(
        "store",
        "All stores at once: postgresql://USER@HOST/DATABASE, which several nodes may "
        "share, sqlite:DIR, or '@FILE' (mode 0600) with one of them. Pass a password "
        "only in a file, FERROHSM_STORE, PGPASSWORD or a PostgreSQL password file.",
        metavar="URL|@FILE",
        parse=parse_all_stores,
    ),
    "node_name": Setting(
        "node-name",
        "Name of this node in the audit log and the cluster. Required with "
        "a PostgreSQL store; each running node needs its own.",
        metavar="NAME",
    ),
    "node_mark": Setting(
        "node-mark",
        "Last-seen mark of this node: a file that detects a database restored from an "
        "older copy. Keep it on a persistent volume.  [default: data/NODE.mark with a "
        "PostgreSQL store]",
    ),
    "key_store": Setting(
        "key-store",
        "Key store: 'filesystem', 'sqlite', 'memory' (lost on exit), "
        "s3://BUCKET/PREFIX, or SCHEME:REST of an installed store.",
        metavar="KIND|URI",
        parse=parse_key_store,
    ),
    "key_dir": Setting(
        "key-dir",
        "Directory of the filesystem store.",
        metavar="DIR",
    ),
    "sqlite_path": Setting(
        "sqlite-path",
        "File of the SQLite key store.",
    ),
    "accept_changed_store": Setting(
        "accept-changed-store",
        "Run a recovery at startup, like 'hsm-cli operator store recover', if "
        "the key store does not match the audit log.",
        is_negatable=False,
    ),
    "backup_dir": Setting(
        "backup-dir",
        "Directory for backups of the SQLite databases by 'hsm-cli "
        "operator backup'. Default: backups disabled.",
        metavar="DIR",
    ),
    "scrub_interval_seconds": Setting(
        "scrub-interval-secs",
        "Interval between background checks of all keys against the "
        "audit log, in seconds.",
    ),
    "audit_store": Setting(
        "audit-store",
        "Audit store: 'file' or 'sqlite'.",
        metavar="KIND",
        texts={one.value: one for one in (AuditStoreKind.FILE, AuditStoreKind.SQLITE)},
    ),
    "audit_log": Setting(
        "audit-log",
        "File of the audit log. With the memory key store the audit log"
        " is in memory unless this is set.  [default: audit.log beside "
        "the keys]",
        default=None,
    ),
    "audit_sqlite_path": Setting(
        "audit-sqlite-path",
        "File of the SQLite audit store.  [default: audit.sqlite beside the keys]",
        default=None,
    ),
    "audit_sync": Setting(
        "audit-sync",
        "When to answer a request: 'strict' after its audit record is "
        "synced to disk, 'bounded' up to 20 ms earlier.",
        metavar="MODE",
    ),
    "audit_timeout_seconds": Setting(
        "audit-timeout-secs",
        "Maximum time a request waits for the audit log before it fails, in seconds.",
        at_most=300,
    ),
    "audit_reserve_bytes": Setting(
        "audit-reserve-bytes",
        "Disk space reserved for audit records of recovery and "
        "administration, in bytes.",
    ),
    "audit_retention_days": Setting(
        "audit-retention-days",
        "Age at which audit records are removed, in days; 0 keeps all "
        "records.  [default: 365 with --audit-store sqlite, else 0]",
    ),
    "audit_retention_interval_seconds": Setting(
        "audit-retention-interval-secs",
        "Interval between removals of old audit records, in seconds.",
    ),
    "approval_store": Setting(
        "approval-store",
        "Approval store: 'file', 'sqlite', 'memory' (lost on exit), or "
        "SCHEME:REST of an installed store.  [default: file; memory "
        "with the memory key store]",
        metavar="KIND|URI",
        parse=parse_approval_store,
        default=None,
    ),
    "approval_dir": Setting(
        "approval-dir",
        "Directory of the file approval store.  [default: approvals beside the keys]",
        metavar="DIR",
        default=None,
    ),
    "approval_sqlite_path": Setting(
        "approval-sqlite-path",
        "File of the SQLite approval store.  [default: approvals.sqlite"
        " beside the keys]",
        default=None,
    ),
    "approval_retention_days": Setting(
        "approval-retention-days",
        "Age at which closed approval requests are removed, in days; 0 "
        "keeps all requests.  [default: 90 with --approval-store "
        "sqlite, else 0]",
    ),
    "approval_retention_interval_seconds": Setting(
        "approval-retention-interval-secs",
        "Interval between removals of closed approval requests, in seconds.",
    ),
    "retention_config": Setting(
        "retention-config",
        "Retention policy file, YAML or JSON: retention windows of old "
        "key versions. Reloaded when it changes. Default: nothing is "
        "purged.",
    ),
    "retention_ledger": Setting(
        "retention-ledger",
        "File of the retention ledger, which records every purge. A cluster has it in "
        "the database.  "
        "[default: with --retention-config, retention-ledger.log beside "
        "the audit log]",
    ),
    "retention_interval_seconds": Setting(
        "retention-interval-secs",
        "Interval between checks for key versions due for purge, in seconds.",
    ),
    "retention_grace_seconds": Setting(
        "retention-grace-secs",
        "Delay between the approval of a purge and its execution, in seconds.",
    ),
    "retention_max_purges": Setting(
        "retention-max-purges",
        "Maximum number of purges at once without a separate approval.",
    ),
    "destroy_waiting_days": Setting(
        "destroy-waiting-days",
        "Minimum waiting period before a key is destroyed, in days. "
        "Until then the key is unusable and its destruction can be "
        "cancelled.",
    ),
    "destruction_interval_seconds": Setting(
        "destroy-interval-secs",
        "Interval between checks for keys due for destruction, in seconds.",
    ),
    "rotation_interval_seconds": Setting(
        "rotation-interval-secs",
        "Interval between checks for keys due for rotation, in seconds.",
    ),
}

SINGLE_STORES: Final = (
    *("key_store", "key_dir", "sqlite_path"),
    *("audit_store", "audit_log", "audit_sqlite_path"),
    *("approval_store", "approval_dir", "approval_sqlite_path"),
)
"""Settings of `STORAGE` that --store sets all at once."""

POLICY: Final = {
    "policy_config": Setting(
        "policy-config",
        "Policy file, YAML or JSON: permissions and required approvals."
        " Reloaded when it changes. Default: the built-in policy of "
        "--policy-profile.",
    ),
    "policy_profile": Setting(
        "policy-profile",
        "Built-in policy: 'default' or 'strict'. Ignored with --policy-config.",
        metavar="NAME",
    ),
    "policy_reload_interval_seconds": Setting(
        "policy-reload-interval-secs",
        "Interval between checks of the policy file, in seconds. A "
        "change takes effect after two identical reads, or on SIGHUP.",
        at_least=0.1,
    ),
}

CRYPTOGRAPHY: Final = {
    "providers": Setting(
        "provider",
        "Providers of an algorithm, in order of preference: pyca, "
        "libcrypto, pqcrypto, oqs or composite. Repeatable; accepts "
        "comma-separated values.",
        metavar="ALGORITHM=NAME[,NAME...]",
        variable="FERROHSM_PROVIDERS",
        parse=parse_providers,
    ),
    "enable_oqs": Setting(
        "enable-oqs",
        "Use liboqs if installed. It is fast, but its authors advise "
        "against production use. Disabled by default; also "
        "--no-enable-oqs.",
    ),
}

SERVICE: Final = {
    "list_cache_seconds": Setting(
        "list-cache-ttl-secs",
        "Time to cache a caller's key list, in seconds. Any change to a"
        " key or the policy invalidates it. 0 disables the cache.",
        default=5.0,
    ),
}


def core_settings(values: Mapping[str, Any], limits: HTTPLimits) -> Settings:
    """
    Return the settings of the HSM.

    Args:
        values: Parsed values.

        limits: Limits of requests.
    """
    found = given(STORAGE | POLICY | CRYPTOGRAPHY | SERVICE, values)
    if found.get("store"):
        found = {name: found[name] for name in found.keys() - SINGLE_STORES}
    elif found["key_store"] == KeyStoreKind.MEMORY:
        found = {"audit_log": None, "approval_store": ApprovalStoreKind.MEMORY} | found
    else:
        found = {"approval_store": ApprovalStoreKind.FILE} | found
    settings = Settings(
        **found,
        certificate_identities=values["client_cert_identities"],
        limits=CoreLimits(
            payload_bytes=max(limits.raw_bytes, limits.payload_bytes),
            aad_bytes=limits.aad_bytes,
        ),
    )
    in_database = settings.audit_store is AuditStoreKind.SQLITE
    log = settings.audit_sqlite_path if in_database else settings.audit_log
    if settings.retention_config and log and settings.retention_ledger is None:
        ledger = log.parent / "retention-ledger.log"
        return msgspec.structs.replace(settings, retention_ledger=ledger)
    return settings
