# SPDX-License-Identifier: MIT
"""HSM inside a program: `open`, and the open HSM."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from msgspec.structs import replace

from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._objects import roles_of
from hsm_core._roots import StrPath, audit_key_of, key_of, prepare_root, write_key
from hsm_core.errors import ConfigurationError, InvalidInputError
from hsm_core.factory import open_hsm
from hsm_core.model import Caller, Role
from hsm_core.protocols import Clock, MasterKeySource
from hsm_core.secret_input import without_secrets
from hsm_core.settings import ApprovalStoreKind, AuditSync, KeyStoreKind, Settings
from hsm_core.users import Audit, User

__all__ = ["MEMORY", "EmbeddedHSM", "Root", "open"]

MEMORY: Final = ":memory:"
"""Path of an HSM that keeps nothing."""

Root: TypeAlias = bytes | StrPath | MasterKeySource
"""Root key as 32 bytes, as the path of its file, or as an object that holds it."""

_ALL_STORES: Final = ("postgresql://", "sqlite:")
"""Beginnings of what `Settings.store` takes."""

_STORE: Final = re.compile(r"(filesystem|sqlite|s3|[a-z0-9.+-]+:/)[:/]")
"""Beginning of a path that was meant to be a key store of `Settings`."""

_INTERFACE: Final = "embedded"

PROGRAM: Final = Caller(
    principal="embedding-program",
    roles=frozenset({Role.AUDITOR}),
    interface=_INTERFACE,
)
"""Caller of `EmbeddedHSM.audit`."""


class EmbeddedHSM:
    """
    HSM inside this program; closed at the end of a ``with`` block.

    Attributes:
        gateway: The HSM for callers with certificates, credentials and deadlines.
    """

    def __init__(self, gateway: OpenHSM, *, shown: str, audit_key: bytes) -> None:
        self.gateway = gateway
        self._shown = shown
        self._audit_key = audit_key
        self._is_closed = False

    def __repr__(self) -> str:
        """Return the path, and whether the HSM is closed."""
        closed = ", closed" if self._is_closed else ""
        return f"<EmbeddedHSM {self._shown}{closed}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def as_user(self, name: str, *, roles: Iterable[Role | str]) -> User:
        """
        Return the HSM for one user. The program vouches for name and roles.

        Args:
            name: Name in policy and audit log, 1 to 128 characters.

            roles: ``administrator``, ``operator``, ``auditor`` or ``service``.

        Raises:
            InvalidInputError: Name or roles are not valid.
        """
        caller = caller_of(name, roles)
        return User(self.gateway.act_as(caller), shown=shown_of(caller))

    @property
    def audit(self) -> Audit:
        """Audit log, for the program itself with the role of an auditor."""
        return User(self.gateway.act_as(PROGRAM), shown=shown_of(PROGRAM)).audit

    def write_audit_key(self, file: StrPath) -> None:
        """
        Write the audit key into a new file (0600), for an auditor.

        ``hsm-cli audit verify --hmac-key @FILE`` verifies the audit log with it. Anyone
        who has it can forge audit records, but not use keys.

        Raises:
            ConfigurationError: The file exists, or can't be written.
        """
        write_key(Path(file), self._audit_key, field="file")

    def close(self) -> None:
        """
        Finish running operations and release the store. Further calls do nothing.

        Raises:
            AuditUnavailableError: The end of the audit log could not be written.
        """
        self._is_closed = True
        self.gateway.close()


def open(
    path: StrPath | Settings,
    *,
    root: Root | None = None,
    audit_key: bytes | StrPath | None = None,
    create: bool = False,
    policy: StrPath | None = None,
    node_name: str = "",
    audit_sync: AuditSync | None = None,
    clock: Clock | None = None,
) -> EmbeddedHSM:
    """
    Open an HSM inside this program.

    The cryptography that protects store and audit log is tested now, each algorithm of
    users' keys before its first use.

    Args:
        path: Folder of the HSM, ``":memory:"``, ``"sqlite:DIR"``,
            ``"postgresql://USER@HOST/DATABASE"`` for a database that several nodes
            may share, or `Settings` for other stores.

        root: Root key: 32 bytes, or the path of a file (0600) outside the folder that
            holds them as base64. Anyone who has the root key and the folder has all
            keys.

        audit_key: Key of the audit log, 32 bytes or a file like *root*; derived from
            the root key by default.

        create: Create folder and root key file if there are none. An existing HSM never
            gets a new root key.

        policy: Policy file; by default the built-in policy *default* is in force.

        node_name: Name of this node in the cluster; needed with PostgreSQL. No two
            running nodes have the same name.

        audit_sync: Durability of audit records before a result; ``strict`` by default.

        clock: Time; the system's by default.

    Raises:
        ConfigurationError: An argument is missing or wrong, there is no HSM and
            *create* is false, another process has it open (`StoreLockedError`), a file
            is open to others (`UnsafeFileModeError`), or the root key belongs to
            another HSM (`WrongMasterKeyError`).
        HSMError: See ``hsm_core.factory.open_hsm``.

    Example:
        >>> import hsm_core
        >>> with hsm_core.open(":memory:") as hsm:
        ...     ada = hsm.as_user("ada", roles=["operator"])
        ...     key = ada.create("Ed25519", name="release")
        ...     key.verify(b"hello", key.sign(b"hello"))
        1
    """
    settings = _settings_of(path, policy, node_name)
    if audit_sync is not None:
        settings = replace(settings, audit_sync=audit_sync)
    folder = _folder_of(path, settings)
    if root is None and settings.key_store == KeyStoreKind.MEMORY:
        root = os.urandom(32)
    if root is None:
        raise ConfigurationError(
            'root is missing: pass root="FILE", 32 bytes, or create=True with a FILE '
            "to make one.",
            field="root",
        )
    is_database = settings.key_store == KeyStoreKind.POSTGRESQL
    if create and (isinstance(path, Settings) or is_database):
        kind = "PostgreSQL" if is_database else "Settings"
        raise ConfigurationError(
            f"create must be False with {kind}. Make the root key file first.",
            field="create",
        )
    key = prepare_root(folder, root, create=create)
    hmac_key = (
        audit_key_of(key) if audit_key is None else key_of("audit_key", audit_key)
    )
    opened = open_hsm(
        settings, master_key=key, hmac_key=hmac_key, clock=clock, test_all=False
    )
    store = settings.key_store if isinstance(path, Settings) else os.fspath(path)
    return EmbeddedHSM(opened, shown=without_secrets(store), audit_key=hmac_key)


def _folder_of(path: StrPath | Settings, settings: Settings) -> Path | None:
    """Return the folder that `open` may create; None if it creates none."""
    kinds = {KeyStoreKind.MEMORY, KeyStoreKind.POSTGRESQL}
    if isinstance(path, Settings) or settings.key_store in kinds:
        return None
    return settings.folder


def _settings_of(
    path: StrPath | Settings, policy: StrPath | None, node_name: str
) -> Settings:
    rules = Path(policy) if policy is not None else None
    if isinstance(path, Settings):
        if rules is not None:
            raise ConfigurationError(
                "policy must be set in the Settings, as policy_config.", field="policy"
            )
        if node_name:
            raise ConfigurationError(
                "node_name must be set in the Settings.", field="node_name"
            )
        return path
    if not isinstance(path, str | os.PathLike):
        raise InvalidInputError(
            'path must be a directory, ":memory:" or Settings, got '
            f"{type(path).__name__}.",
            field="path",
        )
    if rules is not None and not rules.exists():
        raise ConfigurationError(f"policy: there is no file {rules}.", field="policy")
    if os.fspath(path) == MEMORY:
        return Settings(
            key_store=KeyStoreKind.MEMORY,
            audit_log=None,
            policy_config=rules,
            node_name=node_name,
        )
    text = os.fspath(path)
    if text.startswith(_ALL_STORES):
        return Settings(store=text, policy_config=rules, node_name=node_name)
    if not text or _STORE.match(text):
        raise ConfigurationError(
            'path must be a directory or ":memory:". For other stores pass '
            f'Settings(key_store="{without_secrets(text) or "sqlite:FILE"}").',
            field="path",
        )
    folder = Path(path)
    return Settings(
        key_dir=folder / "keys",
        audit_log=folder / "audit.log",
        approval_store=ApprovalStoreKind.FILE,
        approval_dir=folder / "approvals",
        policy_config=rules,
        node_name=node_name,
    )


def caller_of(name: str, roles: Iterable[Role | str]) -> Caller:
    """
    Return a caller by name and names of roles.

    Raises:
        InvalidInputError: One of them is not valid.
    """
    if not isinstance(name, str):
        raise InvalidInputError(
            f"name must be a string, got {type(name).__name__}.", field="name"
        )
    if not name:
        raise InvalidInputError(
            "name must have 1 to 128 characters, got none.", field="name"
        )
    return Caller(principal=name, roles=roles_of(roles), interface=_INTERFACE)


def shown_of(caller: Caller) -> str:
    """Return a caller's name and roles."""
    return f"{caller.principal} ({', '.join(sorted(caller.roles)).lower()})"
