# SPDX-License-Identifier: MIT
"""Mechanisms that sign: what the HSM does for each."""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.parameters import (
    EdDSAParameters,
    PSSParameters,
    SignContext,
)
from hsm_core import operations as ops
from hsm_core.algorithms import (
    Family,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
)

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.objects import KeyObject
    from hsm_core.protocols import HSM

_PKCS1: Final = SignatureScheme.RSASSA_PKCS1_V1_5
_PSS: Final = SignatureScheme.RSASSA_PSS
_RAW: Final = SignatureEncoding.P1363

HASHES: Final = {
    ck.CKM_SHA256: HashAlgorithm.SHA_256,
    ck.CKM_SHA384: HashAlgorithm.SHA_384,
    ck.CKM_SHA512: HashAlgorithm.SHA_512,
}
"""Hashes in parameters of mechanisms."""

MASKS: Final = {
    ck.CKG_MGF1_SHA256: HashAlgorithm.SHA_256,
    ck.CKG_MGF1_SHA384: HashAlgorithm.SHA_384,
    ck.CKG_MGF1_SHA512: HashAlgorithm.SHA_512,
}
"""Hashes of mask generation functions."""

_DIGEST_INFO: Final = {
    bytes.fromhex("3031300d060960864801650304020105000420"): HashAlgorithm.SHA_256,
    bytes.fromhex("3041300d060960864801650304020205000430"): HashAlgorithm.SHA_384,
    bytes.fromhex("3051300d060960864801650304020305000440"): HashAlgorithm.SHA_512,
}
"""Beginnings of DigestInfo (RFC 8017, section 9.2, note 1)."""


def names_of(hashed: HashAlgorithm | None) -> str:
    """Return the name of a hash in hashlib; empty for none."""
    return hashed.value.replace("-", "").lower() if hashed else ""


def bad_parameter(reason: str) -> CryptokiError:
    """Return the error of a parameter that is not served."""
    return CryptokiError(ck.CKR_MECHANISM_PARAM_INVALID, reason)


class Scheme(ABC):
    """
    What a mechanism does.

    Args:
        hashed: Hash over the message, which is computed here; None if the program
            gives what is signed.

    Attributes:
        hash_name: Its name in hashlib, or empty.
        takes_parts: Whether the message may come in parts.
    """

    families: frozenset[Family]

    def __init__(self, hashed: HashAlgorithm | None = None) -> None:
        self.hashed = hashed
        self.hash_name = names_of(hashed)
        self.takes_parts = hashed is not None

    def fits(self, key: KeyObject) -> bool:
        """Return whether a key is of the right type."""
        return key.spec.family in self.families

    def size(self, key: KeyObject, parameter: Any) -> int:
        """
        Return the length of a signature.

        Raises:
            CryptokiError: The parameter is not served.
        """
        if parameter is not None:
            raise bad_parameter("This mechanism takes no parameter.")
        return key.spec.signature_bytes

    @abstractmethod
    def sign(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Return the signature of a digest, or of the data itself."""

    @abstractmethod
    def verify(
        self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes, signature: bytes
    ) -> None:
        """Raise unless the signature is right."""


def _signature(hsm: HSM, key: KeyObject, operation: ops.Sign | ops.RawSign) -> bytes:
    made = hsm.execute(operation)
    key.require_version(made.version)
    return made.signature


class PKCS1Scheme(Scheme):
    """RSASSA-PKCS1-v1_5, of a message or of what the program gives."""

    families = frozenset({Family.RSA})

    def sign(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Sign a digest where there is one, else the data as it is."""
        hashed, digest = self._digest(key, data)
        if hashed is None:
            return _signature(hsm, key, ops.RawSign(key_id=key.key_id, data=data))
        operation = ops.Sign(
            key_id=key.key_id, digest=digest, scheme=_PKCS1, hash=hashed
        )
        return _signature(hsm, key, operation)

    def verify(
        self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes, signature: bytes
    ) -> None:
        """Verify with the version of the object."""
        hashed, digest = self._digest(key, data)
        operation: ops.Verify | ops.RawVerify
        if hashed is None:
            operation = ops.RawVerify(
                key_id=key.key_id, data=data, signature=signature, version=key.version
            )
        else:
            operation = ops.Verify(
                key_id=key.key_id,
                digest=digest,
                signature=signature,
                version=key.version,
                scheme=_PKCS1,
                hash=hashed,
            )
        hsm.execute(operation)

    def _digest(
        self, key: KeyObject, data: bytes
    ) -> tuple[HashAlgorithm | None, bytes]:
        if self.hashed is not None:
            return self.hashed, data
        for prefix, hashed in _DIGEST_INFO.items():
            size = len(prefix) + hashed.digest_bytes
            if len(data) == size and data.startswith(prefix):
                return hashed, data[len(prefix) :]
        if not 1 <= len(data) <= key.spec.modulus_bits // 8 - 11:
            raise CryptokiError(ck.CKR_DATA_LEN_RANGE)
        return None, data


class PSS(Scheme):
    """RSASSA-PSS, of a message or of a digest."""

    families = frozenset({Family.RSA})

    def size(self, key: KeyObject, parameter: Any) -> int:
        """Return the length of the modulus, if the parameters are served."""
        if not isinstance(parameter, PSSParameters):
            raise bad_parameter("RSA-PSS needs CK_RSA_PKCS_PSS_PARAMS.")
        hashed, mask = HASHES.get(parameter.hash), MASKS.get(parameter.mgf)
        if hashed is None or hashed is not mask:
            raise bad_parameter(
                "RSA-PSS needs the same SHA-2 hash for message and MGF1."
            )
        if self.hashed not in {None, hashed}:
            raise bad_parameter("The hash of RSA-PSS must be that of the mechanism.")
        if parameter.salt_bytes != hashed.digest_bytes and (
            key.object_class == ck.CKO_PRIVATE_KEY
            or parameter.salt_bytes
            > key.spec.modulus_bits // 8 - hashed.digest_bytes - 2
        ):
            raise bad_parameter("The salt of RSA-PSS must be as long as the hash.")
        return key.spec.signature_bytes

    def sign(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Sign a digest."""
        operation = ops.Sign(
            key_id=key.key_id,
            digest=_digest(data, HASHES[parameter.hash]),
            scheme=_PSS,
            hash=HASHES[parameter.hash],
        )
        return _signature(hsm, key, operation)

    def verify(
        self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes, signature: bytes
    ) -> None:
        """Verify with the version of the object, and the given length of the salt."""
        operation = ops.Verify(
            key_id=key.key_id,
            digest=_digest(data, HASHES[parameter.hash]),
            signature=signature,
            version=key.version,
            scheme=_PSS,
            hash=HASHES[parameter.hash],
            salt_bytes=parameter.salt_bytes,
        )
        hsm.execute(operation)


def _digest(data: bytes, hashed: HashAlgorithm) -> bytes:
    if len(data) != hashed.digest_bytes:
        raise CryptokiError(ck.CKR_DATA_LEN_RANGE)
    return data


class ECDSA(Scheme):
    """ECDSA, of a message or of a digest of any hash."""

    families = frozenset({Family.ECDSA})

    def size(self, key: KeyObject, parameter: Any) -> int:
        """Return twice the length of a coordinate."""
        super().size(key, parameter)
        return 2 * key.spec.coordinate_bytes

    def sign(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Sign a digest; `Sign` where it is of the curve's hash."""
        paired = key.spec.hashes[0]
        if self._is_paired(paired, data):
            sign = ops.Sign(key_id=key.key_id, digest=data, hash=paired, encoding=_RAW)
            return _signature(hsm, key, sign)
        raw = ops.RawSign(key_id=key.key_id, data=_any_digest(data), encoding=_RAW)
        return _signature(hsm, key, raw)

    def verify(
        self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes, signature: bytes
    ) -> None:
        """Verify with the version of the object."""
        paired = key.spec.hashes[0]
        operation: ops.Verify | ops.RawVerify
        if self._is_paired(paired, data):
            operation = ops.Verify(
                key_id=key.key_id,
                digest=data,
                signature=signature,
                version=key.version,
                hash=paired,
                encoding=_RAW,
            )
        else:
            operation = ops.RawVerify(
                key_id=key.key_id,
                data=_any_digest(data),
                signature=signature,
                version=key.version,
                encoding=_RAW,
            )
        hsm.execute(operation)

    def _is_paired(self, paired: HashAlgorithm, data: bytes) -> bool:
        return self.hashed in {None, paired} and len(data) == paired.digest_bytes


_LONGEST_DIGEST: Final = 64


def _any_digest(data: bytes) -> bytes:
    if not 1 <= len(data) <= _LONGEST_DIGEST:
        raise CryptokiError(ck.CKR_DATA_LEN_RANGE)
    return data


class Messages(Scheme):
    """
    EdDSA, ML-DSA or SLH-DSA, which sign whole messages.

    Args:
        family: The family of the keys.
    """

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.families = frozenset({family})
        self.takes_parts = True

    def size(self, key: KeyObject, parameter: Any) -> int:
        """Return the length of a signature, if the parameters are served."""
        if isinstance(parameter, EdDSAParameters):
            if parameter.prehash or parameter.context:
                raise bad_parameter("EdDSA supports neither pre-hash nor context.")
        elif isinstance(parameter, SignContext):
            if parameter.hedge == ck.CKH_DETERMINISTIC_REQUIRED:
                raise bad_parameter(
                    "Deterministic signatures are not supported: all are hedged."
                )
            if len(parameter.context) > key.spec.max_context_bytes:
                raise bad_parameter("A context must have at most 255 bytes.")
        else:
            super().size(key, parameter)
        return key.spec.signature_bytes

    def sign(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Sign a message."""
        operation = ops.Sign(
            key_id=key.key_id, message=data, context=_context(parameter)
        )
        return _signature(hsm, key, operation)

    def verify(
        self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes, signature: bytes
    ) -> None:
        """Verify with the version of the object."""
        operation = ops.Verify(
            key_id=key.key_id,
            message=data,
            signature=signature,
            version=key.version,
            context=_context(parameter),
        )
        hsm.execute(operation)


def _context(parameter: Any) -> bytes:
    return parameter.context if isinstance(parameter, SignContext) else b""


_LEAST_MAC: Final = 4
"""Shortest truncated MAC (SP 800-107, section 5.3.3)."""


class MAC(Scheme):
    """
    HMAC.

    Args:
        inner: Its hash; the HSM computes it.

        is_general: Whether the program says how long the MAC is.
    """

    families = frozenset({Family.MAC})

    def __init__(self, inner: HashAlgorithm, *, is_general: bool = False) -> None:
        super().__init__()
        self._inner = inner
        self._is_general = is_general
        self.takes_parts = True

    def fits(self, key: KeyObject) -> bool:
        """Return whether it is an HMAC key with this hash."""
        return super().fits(key) and key.spec.hashes == (self._inner,)

    def size(self, key: KeyObject, parameter: Any) -> int:
        """Return the length of the MAC."""
        if not self._is_general:
            super().size(key, parameter)
            return key.spec.mac_bytes
        most = key.spec.mac_bytes
        if not isinstance(parameter, int) or not _LEAST_MAC <= parameter <= most:
            raise bad_parameter(
                f"The length of the MAC must be {_LEAST_MAC} to {most} bytes."
            )
        return parameter

    def sign(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Compute the MAC."""
        made = hsm.execute(ops.ComputeMac(key_id=key.key_id, message=data))
        key.require_version(made.version)
        return made.mac[: self.size(key, parameter)]

    def verify(
        self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes, signature: bytes
    ) -> None:
        """Verify the MAC in the HSM; compare a truncated one here, in constant time."""
        if len(signature) == key.spec.mac_bytes:
            operation = ops.VerifyMac(
                key_id=key.key_id, message=data, mac=signature, version=key.version
            )
            hsm.execute(operation)
        elif not key.is_current:
            raise CryptokiError(ck.CKR_KEY_FUNCTION_NOT_PERMITTED)
        elif not hmac.compare_digest(self.sign(hsm, key, parameter, data), signature):
            raise CryptokiError(ck.CKR_SIGNATURE_INVALID)


SCHEMES: Final[Mapping[int, Scheme]] = {
    ck.CKM_RSA_PKCS: PKCS1Scheme(),
    ck.CKM_SHA256_RSA_PKCS: PKCS1Scheme(HashAlgorithm.SHA_256),
    ck.CKM_SHA384_RSA_PKCS: PKCS1Scheme(HashAlgorithm.SHA_384),
    ck.CKM_SHA512_RSA_PKCS: PKCS1Scheme(HashAlgorithm.SHA_512),
    ck.CKM_RSA_PKCS_PSS: PSS(),
    ck.CKM_SHA256_RSA_PKCS_PSS: PSS(HashAlgorithm.SHA_256),
    ck.CKM_SHA384_RSA_PKCS_PSS: PSS(HashAlgorithm.SHA_384),
    ck.CKM_SHA512_RSA_PKCS_PSS: PSS(HashAlgorithm.SHA_512),
    ck.CKM_ECDSA: ECDSA(),
    ck.CKM_ECDSA_SHA256: ECDSA(HashAlgorithm.SHA_256),
    ck.CKM_ECDSA_SHA384: ECDSA(HashAlgorithm.SHA_384),
    ck.CKM_ECDSA_SHA512: ECDSA(HashAlgorithm.SHA_512),
    ck.CKM_EDDSA: Messages(Family.EDDSA),
    ck.CKM_ML_DSA: Messages(Family.ML_DSA),
    ck.CKM_SLH_DSA: Messages(Family.SLH_DSA),
    ck.CKM_SHA256_HMAC: MAC(HashAlgorithm.SHA_256),
    ck.CKM_SHA384_HMAC: MAC(HashAlgorithm.SHA_384),
    ck.CKM_SHA512_HMAC: MAC(HashAlgorithm.SHA_512),
    ck.CKM_SHA256_HMAC_GENERAL: MAC(HashAlgorithm.SHA_256, is_general=True),
    ck.CKM_SHA384_HMAC_GENERAL: MAC(HashAlgorithm.SHA_384, is_general=True),
    ck.CKM_SHA512_HMAC_GENERAL: MAC(HashAlgorithm.SHA_512, is_general=True),
}
"""Mechanisms that sign."""
