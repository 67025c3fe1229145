# SPDX-License-Identifier: MIT
"""Base of handlers that create key versions."""

from __future__ import annotations

import uuid
from typing import Any, TypeVar

from hsm_core import operations as ops
from hsm_core._internal.crypto.registry import GeneratedKey
from hsm_core._internal.handlers.base import MutationHandler
from hsm_core._internal.handlers.sealed import SealedVersion, seal_version
from hsm_core._internal.keyring.documents import KeyDocument, key_info
from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.model import KeyInfo, KeyState

Op = TypeVar("Op", bound=ops.Operation[Any])


class KeyMutation(MutationHandler[Op, KeyInfo]):
    """A mutation that answers with the key's facts, and may bring new material."""

    def answer(self, document: KeyDocument, version: int, /) -> KeyInfo:
        """Return the key, with the version that the operation was about."""
        integrity = self._services.inventory.integrity(document.key_id)
        return key_info(document, integrity, version=version)

    def _fresh(self, document: KeyDocument, now: int, state: KeyState) -> SealedVersion:
        made = self._services.crypto.generate(
            Algorithm(document.algorithm),
            agrees=KeyUsage.DERIVE.value in document.usages,
        )
        return self._seal_new(document, made, now, state)

    def _seal_new(
        self, document: KeyDocument, made: GeneratedKey, now: int, state: KeyState
    ) -> SealedVersion:
        return seal_version(
            self._services.inventory,
            document,
            made.material,
            public_der=made.public_der,
            material_id=self._random_uuid(),
            rolled_back_from=0,
            now=now,
            state=state,
        )

    def _random_uuid(self) -> str:
        octets = self._services.entropy.random_bytes(16)
        return str(uuid.UUID(bytes=octets, version=4))
