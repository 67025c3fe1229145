# SPDX-License-Identifier: MIT
"""Raw operations: signatures without hashing, RSAES-PKCS1-v1_5, AES in any mode."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.crypto.ciphertexts import commitment
from hsm_core._internal.crypto.parameters import raw_signature_input
from hsm_core._internal.handlers.base import Answer, UseHandler, handles
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.signatures import SignatureCheckHandler
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.versions import check_usage, require_version
from hsm_core.algorithms import (
    AESMode,
    Algorithm,
    Family,
    KeyUsage,
    SignatureEncoding,
    spec,
)
from hsm_core.errors import InvalidInputError, UnsupportedOperationError

RawOp = TypeVar("RawOp", ops.RawSign, ops.RawVerify)
RawCipher = TypeVar("RawCipher", ops.RawEncrypt, ops.RawDecrypt)


def _with_encoding(operation: RawOp, document: KeyDocument | None) -> RawOp:
    if document is None or operation.encoding is not None:
        return operation
    if not spec(Algorithm(document.algorithm)).coordinate_bytes:
        return operation
    return msgspec.structs.replace(operation, encoding=SignatureEncoding.DER)


@handles(ops.RawSign)
class RawSignHandler(UseHandler[ops.RawSign, ops.Signature]):
    """Sign data as it is, with the current version."""

    current_for, protects = "RawSign", ("data",)

    def resolve(
        self, operation: ops.RawSign, document: KeyDocument | None, /
    ) -> ops.RawSign:
        """Fill the encoding of ECDSA."""
        return _with_encoding(operation, document)

    def check(self, context: RequestContext[ops.RawSign], /) -> None:
        """Prepare what is signed, and how."""
        operation = context.operation
        context.prepared[:] = raw_signature_input(
            context.spec, operation.data, operation.encoding
        )

    def perform(self, context: RequestContext[ops.RawSign], /) -> Answer[ops.Signature]:
        """Sign."""
        key = context.key
        data, parameters = context.prepared
        handle = self._services.inventory.materials.handle(key, key.current_version)
        signature = handle.sign(data, parameters)
        result = ops.Signature(
            key_id=key.key_id,
            version=key.current,
            algorithm=Algorithm(key.algorithm),
            scheme=parameters.scheme,
            signature=signature,
            encoding=context.operation.encoding,
        )
        return Answer(result, key.current, bound=signature)


@handles(ops.RawVerify)
class RawVerifyHandler(SignatureCheckHandler[ops.RawVerify]):
    """Check a signature over data as it is."""

    def resolve(
        self, operation: ops.RawVerify, document: KeyDocument | None, /
    ) -> ops.RawVerify:
        """Fill the encoding of ECDSA."""
        return _with_encoding(operation, document)

    def check(self, context: RequestContext[ops.RawVerify], /) -> None:
        """Prepare what was signed, and how."""
        operation = context.operation
        context.prepared[:] = raw_signature_input(
            context.spec, operation.data, operation.encoding
        )


@handles(ops.DecryptPKCS1)
class DecryptPKCS1Handler(UseHandler[ops.DecryptPKCS1, ops.Plaintext]):
    """Decrypt by RSAES-PKCS1-v1_5."""

    def check(self, context: RequestContext[ops.DecryptPKCS1], /) -> None:
        """Check that it is an RSA key."""
        if context.spec.family is not Family.RSA:
            raise UnsupportedOperationError(
                f"key_id: {context.spec.algorithm} keys don't support DecryptPKCS1; "
                "only RSA keys do.",
                algorithm=context.key.algorithm,
                field="key_id",
            )

    def perform(
        self, context: RequestContext[ops.DecryptPKCS1], /
    ) -> Answer[ops.Plaintext]:
        """Decrypt; wrong padding gives random bytes, as the library rejects it."""
        key, operation = context.key, context.operation
        version = require_version(key, operation.version, "DecryptPKCS1")
        handle = self._services.inventory.materials.handle(key, version)
        plaintext = handle.decrypt_pkcs1(operation.ciphertext)
        bound = commitment(Algorithm(key.algorithm), operation.ciphertext)
        result = ops.Plaintext(
            key_id=key.key_id, version=version.version, plaintext=plaintext
        )
        return Answer(result, version.version, bound=bound)


_STREAMS: Final = frozenset({AESMode.CTR, AESMode.GCM})
"""Modes in which the chooser of the IV can decrypt by encrypting."""


def _check_mode(context: RequestContext[RawCipher]) -> None:
    operation = context.operation
    if context.spec.family is not Family.AES:
        raise UnsupportedOperationError(
            f"key_id: {context.spec.algorithm} keys don't support raw encryption; "
            "only AES-128 and AES-256 keys do.",
            algorithm=context.key.algorithm,
            field="key_id",
        )
    if operation.aad and operation.mode is not AESMode.GCM:
        raise InvalidInputError("aad must be omitted except for GCM.", field="aad")
    if operation.mode in _STREAMS:
        check_usage(context.key, KeyUsage.ENCRYPT)
        check_usage(context.key, KeyUsage.DECRYPT)


@handles(ops.RawEncrypt)
class RawEncryptHandler(UseHandler[ops.RawEncrypt, ops.Ciphertext]):
    """Encrypt with an IV of the caller, with the current version."""

    current_for, protects = "RawEncrypt", ("plaintext",)

    def check(self, context: RequestContext[ops.RawEncrypt], /) -> None:
        """Check key, mode and usages."""
        _check_mode(context)

    def perform(
        self, context: RequestContext[ops.RawEncrypt], /
    ) -> Answer[ops.Ciphertext]:
        """Encrypt."""
        key, sent = context.key, context.operation
        handle = self._services.inventory.materials.handle(key, key.current_version)
        made = handle.encrypt_raw(sent.mode, sent.iv, sent.plaintext, sent.aad)
        result = ops.Ciphertext(key_id=key.key_id, version=key.current, ciphertext=made)
        return Answer(result, key.current, bound=sent.iv + made)


@handles(ops.RawDecrypt)
class RawDecryptHandler(UseHandler[ops.RawDecrypt, ops.Plaintext]):
    """Decrypt with an IV of the caller."""

    def check(self, context: RequestContext[ops.RawDecrypt], /) -> None:
        """Check key, mode and usages."""
        _check_mode(context)

    def perform(
        self, context: RequestContext[ops.RawDecrypt], /
    ) -> Answer[ops.Plaintext]:
        """Decrypt; whatever is wrong with the ciphertext has one answer."""
        key, sent = context.key, context.operation
        version = require_version(key, sent.version, "RawDecrypt")
        handle = self._services.inventory.materials.handle(key, version)
        found = handle.decrypt_raw(sent.mode, sent.iv, sent.ciphertext, sent.aad)
        result = ops.Plaintext(
            key_id=key.key_id, version=version.version, plaintext=found
        )
        return Answer(result, version.version, bound=sent.iv + sent.ciphertext)
