# SPDX-License-Identifier: MIT
"""Destruction of key material: its versions are destroyed, and a tombstone stays."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from hsm_core._internal.keyring.documents import (
    KeyDocument,
    Tombstone,
    VersionDocument,
)
from hsm_core._internal.keyring.versions import move, with_versions
from hsm_core.model import KeyState

_S: Final = KeyState

WAY_TO_PURGE: Final[dict[KeyState, tuple[KeyState, ...]]] = {
    _S.STAGED: (_S.PURGE_SCHEDULED,),
    _S.ACTIVE: (_S.RETIRED, _S.PURGE_SCHEDULED),
    _S.RETIRED: (_S.PURGE_SCHEDULED,),
    _S.SUSPENDED: (_S.ACTIVE, _S.RETIRED, _S.PURGE_SCHEDULED),
    _S.REVOKED: (_S.PURGE_SCHEDULED,),
    _S.PURGE_SCHEDULED: (),
    _S.DESTROYED: (),
}
"""Transitions by which a version in each state reaches purge_scheduled."""


def living(document: KeyDocument) -> set[str]:
    """Return the ids of a key's material that is not destroyed."""
    return {v.material_id for v in document.versions if v.state is not _S.DESTROYED}


def destroy_material(
    document: KeyDocument, material_ids: Collection[str], now: int
) -> KeyDocument:
    """
    Return the next generation of a document, with some of its material destroyed.

    If that includes the current version, the newest remaining version becomes current.
    """
    versions = (
        _destroyed(version, now) if version.material_id in material_ids else version
        for version in document.versions
    )
    known = {stone.material_id for stone in document.tombstones}
    fresh = dict.fromkeys(
        version.material_id
        for version in document.versions
        if version.material_id in material_ids and version.material_id not in known
    )
    after = msgspec.structs.replace(
        with_versions(document, versions, now),
        tombstones=(
            *document.tombstones,
            *(Tombstone(material_id=m, destroyed_at=now) for m in fresh),
        ),
    )
    if not after.is_destroyed:
        return msgspec.structs.replace(after, current=_newest_living(after))
    # Nothing is left that could wait for its end.
    return msgspec.structs.replace(after, destroy_at=0, destroy_asked_at=0)


def _newest_living(document: KeyDocument) -> int:
    if document.current_version.state is not _S.DESTROYED:
        return document.current
    living = (v.version for v in document.versions if v.state is not _S.DESTROYED)
    return max(living)


def _destroyed(version: VersionDocument, now: int) -> VersionDocument:
    if version.state is _S.DESTROYED:
        return version
    way = (*WAY_TO_PURGE[version.state], _S.DESTROYED)
    # A version that was never active has nothing to be retired from.
    for state in way if version.state is not _S.STAGED else (_S.DESTROYED,):
        version = move(version, state, now)
    return msgspec.structs.replace(version, blob_sha256="")
