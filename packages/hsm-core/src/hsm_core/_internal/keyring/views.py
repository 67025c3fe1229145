# SPDX-License-Identifier: MIT
"""Public views of a key document."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from hsm_core._internal.keyring.documents import KeyDocument, VersionDocument
from hsm_core._internal.time.clock import instant
from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.model import (
    AuditedCaller,
    AuditedKey,
    Caller,
    Integrity,
    KeyId,
    KeyInfo,
    KeyState,
    Role,
    RotationRule,
    UseInfo,
    VersionInfo,
)
from hsm_core.protocols import KeyFacts


def key_info(
    document: KeyDocument,
    integrity: Integrity,
    *,
    version: int | None = None,
    use: UseInfo | None = None,
) -> KeyInfo:
    """Return the public facts of a key, with *version* instead of the current one."""
    number = version or document.current
    return KeyInfo(
        key_id=document.key_id,
        algorithm=Algorithm(document.algorithm),
        usages=tuple(KeyUsage(usage) for usage in document.usages),
        name=document.name,
        owner=document.owner,
        description=document.description,
        tags=document.tags,
        version=number,
        state=document.versions[number - 1].state,
        integrity=integrity,
        generation=document.generation,
        created_at=instant(document.created_at),
        updated_at=instant(document.updated_at),
        origin=document.origin,
        exportable=document.exportable,
        draft=document.draft,
        use=use,
        rotation=_rotation(document),
        destroy_at=_told(document.destroy_at),
        hold=document.hold,
    )


def _rotation(document: KeyDocument) -> RotationRule | None:
    kept = document.rotation
    if kept is None:
        return None
    return RotationRule(
        max_age_days=kept.max_age_days or None, max_uses=kept.max_uses or None
    )


def _told(microseconds: int) -> datetime | None:
    return instant(microseconds) if microseconds else None


def tampered_info(key_id: KeyId, integrity: Integrity) -> KeyInfo:
    """Return the known facts of a key with an unauthentic document."""
    return KeyInfo(
        key_id=key_id,
        algorithm=None,
        version=0,
        state=None,
        integrity=integrity,
        generation=0,
        created_at=None,
        updated_at=None,
    )


def version_info(
    document: KeyDocument,
    version: VersionDocument,
    integrity: Integrity,
    use: UseInfo | None = None,
) -> VersionInfo:
    """Return the public facts of a version."""
    scheduled = version.state is KeyState.PURGE_SCHEDULED
    return VersionInfo(
        version=version.version,
        state=version.state,
        material_id=version.material_id,
        integrity=integrity,
        created_at=instant(version.created_at),
        state_changed_at=instant(version.state_changed_at),
        rolled_back_from=version.rolled_back_from,
        reason=version.reason,
        use=use,
        activated_at=_told(version.activated_at),
        retired_at=_told(version.retired_at),
        purge_at=_told((version.purge_at or document.destroy_at) * scheduled),
        compromised_at=_told(version.compromised_at),
        revoked_at=_told(version.revoked_at),
        retain_until=_told(version.retain_until),
    )


def key_facts(document: KeyDocument) -> KeyFacts:
    """Return the key facts that policy rules can match."""
    return KeyFacts(
        key_id=document.key_id,
        algorithm=document.algorithm,
        state=document.current_version.state,
        name=document.name,
        owner=document.owner,
        tags=frozenset(document.tags),
        usages=frozenset(document.usages),
    )


@lru_cache(maxsize=64)
def _names_of(roles: frozenset[Role]) -> tuple[str, ...]:
    return tuple(sorted(role.value for role in roles))


def audited_caller(caller: Caller) -> AuditedCaller:
    """Return the caller in the form of the audit log."""
    return AuditedCaller(
        principal=caller.principal,
        roles=_names_of(caller.roles),
        credential_id=caller.credential_id,
        certificate_sha256=caller.certificate_sha256,
        source_address=caller.source_address,
    )


def audited_key(document: KeyDocument) -> AuditedKey:
    """Return the key's facts in the form of the audit log."""
    return AuditedKey(
        algorithm=document.algorithm,
        usages=document.usages,
        name=document.name,
        owner=document.owner,
        tags=document.tags,
        state=document.current_version.state.value,
    )
