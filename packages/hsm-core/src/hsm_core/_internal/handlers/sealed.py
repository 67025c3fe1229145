# SPDX-License-Identifier: MIT
"""A new version of a key with its sealed blob."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from hsm_core._internal.keyring.documents import KeyDocument, VersionDocument
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core.model import KeyState


@dataclass(frozen=True, slots=True)
class SealedVersion:
    """A version and its blob."""

    version: VersionDocument
    blob: bytes


def seal_version(
    inventory: KeyRepository,
    document: KeyDocument,
    material: bytes,
    *,
    public_der: bytes,
    material_id: str,
    rolled_back_from: int,
    now: int,
    state: KeyState = KeyState.ACTIVE,
) -> SealedVersion:
    """Seal *material* as the next version of a key, by default active at once."""
    version = VersionDocument(
        version=len(document.versions) + 1,
        material_id=material_id,
        state=state,
        created_at=now,
        state_changed_at=now,
        public_der=public_der,
        rolled_back_from=rolled_back_from,
    )
    blob = inventory.materials.seal(document, version, material)
    digest = hashlib.sha256(blob).hexdigest()
    return SealedVersion(msgspec.structs.replace(version, blob_sha256=digest), blob)
