# SPDX-License-Identifier: MIT
"""Keys for use outside, and ciphertexts on their way to a newer version."""

from __future__ import annotations

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import Answer, Handler, OperationContext
from hsm_core._internal.handlers.costs import is_quick_use
from hsm_core._internal.handlers.envelopes import open_envelope, seal_envelope
from hsm_core._internal.keyring.versions import check_usage, require_version
from hsm_core.algorithms import KeyUsage
from hsm_core.settings import CIPHERTEXT_OVERHEAD_BYTES


class GenerateDataKeyHandler(Handler[ops.GenerateDataKey, ops.DataKey]):
    """Make a data key and encrypt it with the current version."""

    def prepare(self, subject: OperationContext[ops.GenerateDataKey], /) -> None:
        """Check size, usage and state."""
        limit = self._services.limits.aad_bytes
        self._check_size("aad", subject.operation.aad, limit)
        check_usage(subject.key, ops.GenerateDataKey.usage)
        require_version(subject.key, None, "GenerateDataKey")
        self._services.crypto.require(subject.spec.algorithm)

    def perform(
        self, subject: OperationContext[ops.GenerateDataKey], /
    ) -> Answer[ops.DataKey]:
        """Draw it from the operating system, and show it only if it is wanted."""
        key, operation = subject.key, subject.operation
        drawn = self._services.entropy.random_bytes(operation.length)
        wrapped = seal_envelope(self._services, key, drawn, operation.aad)
        return Answer(
            ops.DataKey(
                key_id=key.key_id,
                version=key.current,
                ciphertext=wrapped,
                plaintext=b"" if operation.wrapped_only else drawn,
            ),
            key.current,
        )

    def is_quick(self, operation: ops.GenerateDataKey, /) -> bool:
        """Unless the key has to be read first."""
        inventory = self._services.inventory
        return is_quick_use(inventory, operation.key_id, 0, private=False)


class RewrapHandler(Handler[ops.Rewrap, ops.Ciphertext]):
    """Decrypt with the version that made it, encrypt with the current one."""

    def prepare(self, subject: OperationContext[ops.Rewrap], /) -> None:
        """Check sizes, both usages, and that the current version may encrypt."""
        operation, limits = subject.operation, self._services.limits
        longest = limits.payload_bytes + CIPHERTEXT_OVERHEAD_BYTES
        self._check_size("ciphertext", operation.ciphertext, longest)
        self._check_size("aad", operation.aad, limits.aad_bytes)
        for usage in (KeyUsage.DECRYPT, KeyUsage.ENCRYPT):
            check_usage(subject.key, usage)
        require_version(subject.key, None, "Encrypt")
        self._services.crypto.require(subject.spec.algorithm)

    def perform(
        self, subject: OperationContext[ops.Rewrap], /
    ) -> Answer[ops.Ciphertext]:
        """Do both; the plaintext stays here. One of the newest version is done too."""
        key, operation = subject.key, subject.operation
        opened = open_envelope(
            self._services, key, "Rewrap", operation.ciphertext, operation.aad
        )
        ciphertext = seal_envelope(
            self._services,
            key,
            opened.plaintext,
            operation.aad,
            hash=opened.header.hash,
            mgf_hash=opened.header.mgf_hash,
        )
        result = ops.Ciphertext(
            key_id=key.key_id, version=key.current, ciphertext=ciphertext
        )
        return Answer(result, key.current, source=opened.header.version)

    def is_quick(self, operation: ops.Rewrap, /) -> bool:
        """Unless the ciphertext is long, or the key one of RSA."""
        size = len(operation.ciphertext)
        inventory = self._services.inventory
        return is_quick_use(inventory, operation.key_id, size, private=True)
