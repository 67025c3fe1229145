# SPDX-License-Identifier: MIT
"""Settings of the core: parsed, validated, immutable. Secrets are not among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeAlias

from msgspec import NODEFAULT, Meta, field
from msgspec.structs import fields, force_setattr

from hsm_core.errors import ConfigurationError
from hsm_core.limits import Limits
from hsm_core.model import Record
from hsm_core.secret_input import database_problem, split_password

__all__ = [
    "APPROVAL_DAYS",
    "SCRUBBING_ALLOCATOR",
    "TRAIL_DAYS",
    "ApprovalStoreKind",
    "AuditStoreKind",
    "AuditSync",
    "KeyStoreKind",
    "Limits",
    "PolicyProfile",
    "Settings",
]


SCRUBBING_ALLOCATOR: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PYTHONMALLOC": "malloc",
        "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
        "LD_BIND_NOW": "1",
    }
)
"""
Environment of a Python that overwrites memory when it is freed, where glibc is.

Python's own allocator keeps small objects to itself, and glibc's cache of each thread
takes memory back as it is; so neither is used. Functions of libraries are bound when
these are loaded: bound at its first call, a function leaves the vector registers on the
stack, where a part of a key stays.
"""

TRAIL_DAYS: Final = 365
"""Default retention of audit records in SQLite."""

APPROVAL_DAYS: Final = 90
"""Default retention of closed approvals in SQLite."""


_BESIDE_KEYS: Final = Path("<folder of the keys>")
"""Placeholder of `Settings.folder` in a path's default."""

_STORE: Final = re.compile(r"sqlite:(?P<folder>.+)|postgresql://.*", re.DOTALL)
_NODE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_LONGEST_SECONDS: Final = 10 * 365 * 24 * 3600
_Interval: TypeAlias = Annotated[int, Meta(ge=60, le=_LONGEST_SECONDS)]


class KeyStoreKind(StrEnum):
    """Kind of key store."""

    FILESYSTEM = "filesystem"
    MEMORY = "memory"
    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


class AuditStoreKind(StrEnum):
    """Kind of audit store."""

    FILE = "file"
    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


class ApprovalStoreKind(StrEnum):
    """Kind of approval store."""

    FILE = "file"
    MEMORY = "memory"
    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


class AuditSync(StrEnum):
    """
    Durability of audit records before a response.

    ``strict``: after the sync that covers its record. ``bounded``: after the write; the
    sync follows within 20 ms or 512 records, so a power cut can lose that much and a
    kill nothing. Lifecycle records always wait for the sync.
    """

    STRICT = "strict"
    BOUNDED = "bounded"


class PolicyProfile(StrEnum):
    """
    A built-in policy.

    ``strict`` asks for the approval of other people before a key of the strongest and
    some strong post-quantum algorithms is made, imported, rotated, rolled back or
    destroyed.
    """

    DEFAULT = "default"
    STRICT = "strict"


class Settings(Record, frozen=True, kw_only=True):
    """
    Settings of an HSM, without its secrets.

    Trail and approvals lie beside the keys, in `folder`, unless a path says otherwise.

    Attributes:
        store: All stores at once: ``postgresql://USER@HOST/DATABASE``, a database that
            several nodes may share, or ``sqlite:DIR``, the folder of three databases.
            Each single setting of a store is refused beside it. It holds no password.
        key_store: A `KeyStoreKind`, or a URI: ``filesystem:DIR``, ``sqlite:FILE``,
            ``s3://BUCKET/PREFIX``, or ``SCHEME:REST`` of an entry point of the group
            ``hsm_core.key_stores`` or ``hsm_core.vaults``.
        key_dir: Directory of the filesystem store; made with mode 0700 if absent.
        sqlite_path: File of the SQLite key store.
        audit_store: How the trail is kept.
        audit_log: Live file of the trail. None keeps the trail in memory, which only
            a memory store may do.
        audit_sqlite_path: File of the SQLite trail.
        audit_retention_days: Age at which records are pruned; 0 keeps them all. None
            is 365 on SQLite, and 0 on files.
        audit_retention_interval_seconds: How often the trail is pruned.
        audit_reserve_bytes: Disk space that is kept back for records of recovery and
            administration.
        approval_store: An `ApprovalStoreKind`, or ``SCHEME:REST`` of an entry point of
            the group ``hsm_core.approval_stores``.
        approval_dir: Directory of the file store of approvals.
        approval_sqlite_path: File of the SQLite store of approvals.
        approval_retention_days: Age at which approvals that came to an end are removed;
            0 keeps them all. None is 90 on SQLite, and 0 on files.
        approval_retention_interval_seconds: How often they are.
        approval_requests: How many open requests for approval one principal may have.
        backup_dir: Directory that backups of SQLite databases are made in; None where
            there shall be none.
        scrub_interval_seconds: How often every key is compared in the background.
        scrub_share: Share of the time that this may take of one processor.
        audit_segment_bytes: Size at which a segment of the trail is closed.
        audit_timeout_seconds: How long an answer waits for the trail before it fails.
        node_name: Name of this node in the trail, and in a cluster. Needed with a
            database that nodes share.
        node_mark: File of the last change that this node has seen, which tells a
            database that came back older. Only with a database that nodes share.
        pool_threads: Threads for slow operations under an event loop; changes of keys
            and long reads have this many each.
        accept_changed_store: Compare the whole key store at start, and recover, as
            ``RecoverStore`` does, where it is not the one that the trail knows.
        key_cache_entries: Opened key versions kept in memory.
        list_cache_seconds: How long a listing of keys may be shown again where nothing
            has changed; 0 for never.
        providers: Order of providers by algorithm name, where it differs from the
            default.
        enable_oqs: Whether the provider ``oqs`` (liboqs) is looked for. Its makers say
            that it is not for production.
        destroy_waiting_days: How long a key waits at least before it is destroyed, and
            where nothing else is asked for; 0 is at once.
        rotation_interval_seconds: How often it is looked which keys are due for
            rotation.
        destruction_interval_seconds: How often it is looked which keys that wait for
            their destruction are due.
        policy_profile: Which built-in policy is in force, where no file is.
        policy_config: File of the policy; see the page *Policy* of the reference.
        policy_reload_interval_seconds: How often it is looked at for a change.
        certificate_identities: Whether client certificates alone name people, as the
            policy's *identities* say.
        retention_config: File of the retention policy (see
            ``hsm_core.retention_policy``), which is read again when it changes. None
            purges nothing.
        retention_ledger: Where purges are attested; needed with a policy. Made, with
            its directory, if absent. A cluster has its ledger in the database.
        retention_interval_seconds: How often it is looked what may be purged.
        retention_grace_seconds: How long a purge waits after it was approved.
        retention_max_purges: More than this at once need an approval of their own.
    """

    store: str = ""
    key_store: str = KeyStoreKind.FILESYSTEM
    key_dir: Path = Path("data/keys")
    sqlite_path: Path = Path("data/keys.sqlite")
    audit_store: AuditStoreKind = AuditStoreKind.FILE
    audit_log: Path | None = _BESIDE_KEYS / "audit.log"
    audit_sqlite_path: Path = _BESIDE_KEYS / "audit.sqlite"
    audit_retention_days: Annotated[int, Meta(ge=0, le=36500)] | None = None
    audit_retention_interval_seconds: _Interval = 86400
    audit_reserve_bytes: Annotated[int, Meta(ge=0, le=2**40)] = 1024 * 1024
    approval_store: str = ApprovalStoreKind.MEMORY
    approval_dir: Path = _BESIDE_KEYS / "approvals"
    approval_sqlite_path: Path = _BESIDE_KEYS / "approvals.sqlite"
    approval_retention_days: Annotated[int, Meta(ge=0, le=36500)] | None = None
    approval_retention_interval_seconds: _Interval = 86400
    approval_requests: Annotated[int, Meta(ge=1, le=100_000)] = 100
    backup_dir: Path | None = None
    scrub_interval_seconds: _Interval = 86400
    scrub_share: Annotated[float, Meta(gt=0, le=1)] = 0.25
    audit_sync: AuditSync = AuditSync.STRICT
    audit_segment_bytes: Annotated[int, Meta(ge=4096)] = 64 * 1024 * 1024
    audit_timeout_seconds: Annotated[float, Meta(gt=0)] = 1.5
    node_name: Annotated[str, Meta(max_length=64)] = ""
    node_mark: Path | None = None
    pool_threads: Annotated[int, Meta(ge=1, le=64)] = 4
    accept_changed_store: bool = False
    key_cache_entries: Annotated[int, Meta(ge=1)] = 1024
    list_cache_seconds: Annotated[float, Meta(ge=0)] = 0.0
    limits: Limits = Limits()
    providers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    enable_oqs: bool = False
    policy_profile: PolicyProfile = PolicyProfile.DEFAULT
    destroy_waiting_days: Annotated[int, Meta(ge=0, le=3650)] = 0
    rotation_interval_seconds: _Interval = 3600
    destruction_interval_seconds: _Interval = 3600
    policy_config: Path | None = None
    policy_reload_interval_seconds: Annotated[float, Meta(gt=0, le=3600)] = 2.0
    certificate_identities: bool = False
    retention_config: Path | None = None
    retention_ledger: Path | None = None
    retention_interval_seconds: Annotated[int, Meta(ge=60, le=30 * 24 * 3600)] = 3600
    retention_grace_seconds: Annotated[int, Meta(ge=0, le=300 * 24 * 3600)] = 86400
    retention_max_purges: Annotated[int, Meta(ge=1, le=100_000)] = 100

    def __post_init__(self) -> None:
        try:
            force_setattr(self, "audit_sync", AuditSync(self.audit_sync))
        except ValueError:
            raise ConfigurationError(
                f"audit_sync must be {' or '.join(AuditSync)}.", field="audit_sync"
            ) from None
        if self.store:
            self._set_all_stores()
        elif KeyStoreKind.POSTGRESQL in {
            self.key_store.partition(":")[0],
            self.audit_store,
            self.approval_store.partition(":")[0],
        }:
            raise ConfigurationError(
                "PostgreSQL holds all stores or none. Set store to "
                "postgresql://USER@HOST/DATABASE.",
                field="store",
            )
        for name in (
            "audit_log",
            "audit_sqlite_path",
            "approval_dir",
            "approval_sqlite_path",
        ):
            path: Path | None = getattr(self, name)
            if path is not None and path.parent == _BESIDE_KEYS:
                force_setattr(self, name, self.folder / path.name)

    def _set_all_stores(self) -> None:
        """
        Set the settings of single stores as `store` says.

        Raises:
            ConfigurationError: It has another form, or one of them was set to something
                else.
        """
        for name, value in self._single_stores().items():
            found, default = getattr(self, name), _DEFAULTS[name]
            if found not in (default, value):
                raise ConfigurationError(
                    f"{name} can't be used with store, which sets all stores.",
                    field=name,
                )
            force_setattr(self, name, value)

    def _single_stores(self) -> dict[str, Any]:
        """Return the settings of single stores that `store` stands for."""
        found = _STORE.fullmatch(self.store)
        if found is None:
            raise ConfigurationError(
                "store must be postgresql://USER@HOST/DATABASE or sqlite:DIR.",
                field="store",
            )
        if found["folder"] is not None:
            return _in_sqlite(Path(found["folder"]))
        if problem := database_problem(self.store):
            raise ConfigurationError(f"store {problem}", field="store")
        if split_password(self.store)[1]:
            raise ConfigurationError(
                "store must not contain a password. Set PGPASSWORD, or name a "
                "password file (PGPASSFILE, or passfile= in the address).",
                field="store",
            )
        if self.audit_sync != AuditSync.STRICT:
            raise ConfigurationError(
                "audit_sync must be strict with a PostgreSQL store.",
                field="audit_sync",
            )
        if _NODE_NAME.fullmatch(self.node_name) is None:
            raise ConfigurationError(
                "node_name must have 1 to 40 letters, digits, dots, hyphens and "
                "underscores with a PostgreSQL store: it names this node in the "
                "cluster.",
                field="node_name",
            )
        if self.retention_ledger is not None:
            raise ConfigurationError(
                "retention_ledger must be empty with a PostgreSQL store: the retention "
                "ledger is in the database.",
                field="retention_ledger",
            )
        if self.node_mark is None:
            name = f"{self.node_name}.mark"
            force_setattr(self, "node_mark", self.folder / name)
        return _IN_POSTGRESQL

    @property
    def enabled_providers(self) -> tuple[str, ...]:
        """Names of the provider plug-ins that are off by default, and enabled."""
        return ("oqs",) if self.enable_oqs else ()

    @property
    def folder(self) -> Path:
        """Folder of the key store, ``data`` for one that is not on this disk."""
        scheme, colon, rest = self.key_store.partition(":")
        if scheme == KeyStoreKind.FILESYSTEM:
            return _parent(Path(rest) if colon else self.key_dir)
        if scheme == KeyStoreKind.SQLITE:
            return _parent(Path(rest) if colon else self.sqlite_path)
        return Path("data")

    @property
    def trail_days(self) -> int:
        """Age at which records of the trail are pruned; 0 for never."""
        if self.audit_retention_days is not None:
            return self.audit_retention_days
        is_database = self.audit_store != AuditStoreKind.FILE
        return TRAIL_DAYS if is_database else 0

    @property
    def approval_days(self) -> int:
        """Age at which approvals that came to an end are removed; 0 for never."""
        if self.approval_retention_days is not None:
            return self.approval_retention_days
        is_database = self.approval_store in _DATABASES
        return APPROVAL_DAYS if is_database else 0


_DATABASES: Final = frozenset({ApprovalStoreKind.SQLITE, ApprovalStoreKind.POSTGRESQL})

_DEFAULTS: Final[Mapping[str, Any]] = {
    one.name: one.default for one in fields(Settings) if one.default is not NODEFAULT
}

_IN_POSTGRESQL: Final = {
    "key_store": KeyStoreKind.POSTGRESQL,
    "key_dir": _DEFAULTS["key_dir"],
    "sqlite_path": _DEFAULTS["sqlite_path"],
    "audit_store": AuditStoreKind.POSTGRESQL,
    "audit_log": None,
    "audit_sqlite_path": Path("data/audit.sqlite"),
    "approval_store": ApprovalStoreKind.POSTGRESQL,
    "approval_dir": Path("data/approvals"),
    "approval_sqlite_path": Path("data/approvals.sqlite"),
}


def _in_sqlite(folder: Path) -> dict[str, Any]:
    return {
        "key_store": KeyStoreKind.SQLITE,
        "key_dir": _DEFAULTS["key_dir"],
        "sqlite_path": folder / "keys.sqlite",
        "audit_store": AuditStoreKind.SQLITE,
        "audit_log": folder / "audit.log",
        "audit_sqlite_path": folder / "audit.sqlite",
        "approval_store": ApprovalStoreKind.SQLITE,
        "approval_dir": folder / "approvals",
        "approval_sqlite_path": folder / "approvals.sqlite",
    }


def _parent(path: Path) -> Path:
    """Return the parent folder, also of a path such as ``.`` or ``..``."""
    return path.parent if path.name not in {"", ".."} else path.resolve().parent
