# SPDX-License-Identifier: MIT
"""KEM keys: Encapsulate, Decapsulate, Seal, Open."""

from __future__ import annotations

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import Answer, Handler, OperationContext
from hsm_core._internal.handlers.costs import is_quick_use
from hsm_core._internal.handlers.envelopes import open_envelope, seal_envelope
from hsm_core._internal.keyring.versions import check_usage, require_version
from hsm_core.algorithms import Algorithm, AlgorithmSpec
from hsm_core.errors import InputSizeError, UnsupportedOperationError
from hsm_core.settings import CIPHERTEXT_OVERHEAD_BYTES


class EncapsulateHandler(Handler[ops.Encapsulate, ops.Encapsulation]):
    """Make a shared secret for the current version."""

    def prepare(self, subject: OperationContext[ops.Encapsulate], /) -> None:
        """Check usage and state."""
        check_usage(subject.key, ops.Encapsulate.usage)
        require_version(subject.key, None, "Encapsulate")
        self._services.crypto.require(subject.spec.algorithm)

    def perform(
        self, subject: OperationContext[ops.Encapsulate], /
    ) -> Answer[ops.Encapsulation]:
        """Encapsulate to the public key."""
        key, version = subject.key, subject.key.current_version
        handle = self._services.inventory.materials.public_handle(key, version)
        secret, ciphertext = handle.encapsulate()
        return Answer(
            ops.Encapsulation(
                key_id=key.key_id,
                version=version.version,
                algorithm=Algorithm(key.algorithm),
                ciphertext=ciphertext,
                shared_secret=secret,
            ),
            version.version,
        )

    def is_quick(self, operation: ops.Encapsulate, /) -> bool:
        """Unless the key has to be read first."""
        inventory = self._services.inventory
        return is_quick_use(inventory, operation.key_id, 0, private=False)


class DecapsulateHandler(Handler[ops.Decapsulate, ops.SharedSecret]):
    """Find the shared secret of an encapsulation."""

    def prepare(self, subject: OperationContext[ops.Decapsulate], /) -> None:
        """Check usage, state and length."""
        operation, size = subject.operation, subject.spec.ciphertext_bytes
        check_usage(subject.key, ops.Decapsulate.usage)
        require_version(subject.key, operation.version, "Decapsulate")
        actual = len(operation.ciphertext)
        if actual != size:
            raise InputSizeError(
                "ciphertext", actual=actual, minimum=size, maximum=size
            )
        self._services.crypto.require(subject.spec.algorithm)

    def perform(
        self, subject: OperationContext[ops.Decapsulate], /
    ) -> Answer[ops.SharedSecret]:
        """Decapsulate; a changed encapsulation gives another secret."""
        key, operation = subject.key, subject.operation
        version = require_version(key, operation.version, "Decapsulate")
        handle = self._services.inventory.materials.handle(key, version)
        return Answer(
            ops.SharedSecret(
                key_id=key.key_id,
                version=version.version,
                shared_secret=handle.decapsulate(operation.ciphertext),
            ),
            version.version,
        )

    def is_quick(self, operation: ops.Decapsulate, /) -> bool:
        """Unless the key has to be read first."""
        inventory = self._services.inventory
        return is_quick_use(inventory, operation.key_id, 0, private=True)


class SealHandler(Handler[ops.Seal, ops.Ciphertext]):
    """Encrypt a message to the current version."""

    def prepare(self, subject: OperationContext[ops.Seal], /) -> None:
        """Check sizes, usage and state."""
        operation, limits = subject.operation, self._services.limits
        self._check_size("plaintext", operation.plaintext, limits.payload_bytes)
        self._check_size("aad", operation.aad, limits.aad_bytes)
        check_usage(subject.key, ops.Seal.usage)
        require_version(subject.key, None, "Seal")
        _check_kem(operation, subject.spec)
        self._services.crypto.require(subject.spec.algorithm)

    def perform(self, subject: OperationContext[ops.Seal], /) -> Answer[ops.Ciphertext]:
        """Encapsulate, derive, encrypt."""
        key, operation = subject.key, subject.operation
        sealed = seal_envelope(self._services, key, operation.plaintext, operation.aad)
        result = ops.Ciphertext(
            key_id=key.key_id, version=key.current, ciphertext=sealed
        )
        return Answer(result, key.current)

    def is_quick(self, operation: ops.Seal, /) -> bool:
        """Unless the plaintext is long."""
        size = len(operation.plaintext)
        inventory = self._services.inventory
        return is_quick_use(inventory, operation.key_id, size, private=False)


class OpenHandler(Handler[ops.Open, ops.Plaintext]):
    """Decrypt what was sealed, with the version that it names."""

    def prepare(self, subject: OperationContext[ops.Open], /) -> None:
        """Check sizes and usage."""
        operation, limits = subject.operation, self._services.limits
        longest = limits.payload_bytes + CIPHERTEXT_OVERHEAD_BYTES
        self._check_size("ciphertext", operation.ciphertext, longest)
        self._check_size("aad", operation.aad, limits.aad_bytes)
        check_usage(subject.key, ops.Open.usage)
        _check_kem(operation, subject.spec)
        self._services.crypto.require(subject.spec.algorithm)

    def perform(self, subject: OperationContext[ops.Open], /) -> Answer[ops.Plaintext]:
        """Decapsulate, derive, decrypt; whatever is wrong has one answer."""
        key, operation = subject.key, subject.operation
        opened = open_envelope(
            self._services, key, "Open", operation.ciphertext, operation.aad
        )
        version = opened.header.version
        return Answer(
            ops.Plaintext(
                key_id=key.key_id, version=version, plaintext=opened.plaintext
            ),
            version,
        )

    def is_quick(self, operation: ops.Open, /) -> bool:
        """Unless the ciphertext is long."""
        size = len(operation.ciphertext)
        inventory = self._services.inventory
        return is_quick_use(inventory, operation.key_id, size, private=True)


def _check_kem(operation: ops.Seal | ops.Open, row: AlgorithmSpec) -> None:
    if row.is_kem:
        return
    kind = type(operation).__name__
    other = "Encrypt" if isinstance(operation, ops.Seal) else "Decrypt"
    raise UnsupportedOperationError(
        f"key_id: {row.algorithm} keys don't support {kind}; use {other}.",
        algorithm=row.algorithm.value,
        field="key_id",
    )
