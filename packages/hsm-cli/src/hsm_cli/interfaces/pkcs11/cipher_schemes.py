# SPDX-License-Identifier: MIT
"""Mechanisms that encrypt: what the HSM does for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.parameters import (
    CTRParameters,
    GCMParameters,
    OAEPParameters,
)
from hsm_cli.interfaces.pkcs11.signature_schemes import HASHES, MASKS, bad_parameter
from hsm_core import operations as ops
from hsm_core.algorithms import AESMode, CiphertextEncoding, Family

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.objects import KeyObject
    from hsm_core.protocols import HSM

_BLOCK_BYTES: Final = 16
_TAG_BYTES: Final = 16
_IV_BYTES: Final = 12


class CipherScheme(ABC):
    """
    What a mechanism does.

    Attributes:
        family: Family of its keys.
        encrypts: Whether it encrypts too, and not only decrypts.
        takes_parts: Whether the data may come in parts.
    """

    family: Family
    encrypts = True
    takes_parts = False

    def fits(self, key: KeyObject) -> bool:
        """Return whether a key is of the right type."""
        return key.spec.family is self.family

    @abstractmethod
    def check(self, key: KeyObject, parameter: Any) -> None:
        """
        Check the parameter.

        Raises:
            CryptokiError: It is not served.
        """

    @abstractmethod
    def room(self, key: KeyObject, length: int, encrypts: bool) -> int:
        """Return the length of the result for data of a length, or a bound of it."""

    @abstractmethod
    def encrypt(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Return the ciphertext."""

    @abstractmethod
    def decrypt(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Return the plaintext."""


class OAEP(CipherScheme):
    """RSAES-OAEP."""

    family = Family.RSA

    def check(self, key: KeyObject, parameter: Any) -> None:
        """Check hashes and label."""
        if not isinstance(parameter, OAEPParameters):
            raise bad_parameter("RSA-OAEP needs CK_RSA_PKCS_OAEP_PARAMS.")
        if parameter.hash not in HASHES or parameter.mgf not in MASKS:
            raise bad_parameter("RSA-OAEP needs SHA-256, SHA-384 or SHA-512.")
        if parameter.source not in {0, ck.CKZ_DATA_SPECIFIED}:
            raise bad_parameter("The source of RSA-OAEP must be CKZ_DATA_SPECIFIED.")

    def room(self, key: KeyObject, length: int, encrypts: bool) -> int:
        """Return the length of the modulus."""
        return key.spec.modulus_bits // 8

    def encrypt(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Encrypt with the public key of the current version."""
        operation = ops.Encrypt(
            key_id=key.key_id,
            plaintext=data,
            aad=parameter.label,
            hash=HASHES[parameter.hash],
            mgf_hash=MASKS[parameter.mgf],
            encoding=CiphertextEncoding.RAW,
        )
        made = hsm.execute(operation)
        key.require_version(made.version)
        return made.ciphertext

    def decrypt(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Decrypt with the version of the object."""
        _require_modulus(key, data)
        operation = ops.Decrypt(
            key_id=key.key_id,
            ciphertext=data,
            aad=parameter.label,
            version=key.version,
            hash=HASHES[parameter.hash],
            mgf_hash=MASKS[parameter.mgf],
            encoding=CiphertextEncoding.RAW,
        )
        return hsm.execute(operation).plaintext


class PKCS1Decryption(CipherScheme):
    """RSAES-PKCS1-v1_5: decryption only, where a policy names it."""

    family = Family.RSA
    encrypts = False

    def check(self, key: KeyObject, parameter: Any) -> None:
        """Check that there is no parameter."""
        if parameter is not None:
            raise bad_parameter("This mechanism takes no parameter.")

    def room(self, key: KeyObject, length: int, encrypts: bool) -> int:
        """Return the length of the modulus."""
        return key.spec.modulus_bits // 8

    def encrypt(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Refuse."""
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)

    def decrypt(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Decrypt with the version of the object."""
        _require_modulus(key, data)
        operation = ops.DecryptPKCS1(
            key_id=key.key_id, ciphertext=data, version=key.version
        )
        return hsm.execute(operation).plaintext


def _require_modulus(key: KeyObject, data: bytes) -> None:
    if len(data) != key.spec.modulus_bits // 8:
        raise CryptokiError(ck.CKR_ENCRYPTED_DATA_LEN_RANGE)


class AES(CipherScheme):
    """
    AES in a mode, with the IV of the program.

    Args:
        mode: The mode.
    """

    family = Family.AES
    takes_parts = True

    def __init__(self, mode: AESMode) -> None:
        self._mode = mode

    def check(self, key: KeyObject, parameter: Any) -> None:
        """Check the IV."""
        if self._mode is AESMode.GCM:
            _check_gcm(parameter)
        elif self._mode is AESMode.CTR:
            _check_ctr(parameter)
        elif not isinstance(parameter, bytes) or len(parameter) != _BLOCK_BYTES:
            raise bad_parameter("The IV of AES-CBC must have 16 bytes.")

    def room(self, key: KeyObject, length: int, encrypts: bool) -> int:
        """Return the length of the result; of padded plaintexts a bound."""
        if self._mode is AESMode.GCM:
            return length + _TAG_BYTES if encrypts else max(length - _TAG_BYTES, 0)
        if self._mode is AESMode.CBC_PKCS7 and encrypts:
            return length + _BLOCK_BYTES - length % _BLOCK_BYTES
        return length

    def encrypt(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Encrypt with the current version."""
        if self._mode is AESMode.CBC and len(data) % _BLOCK_BYTES:
            raise CryptokiError(ck.CKR_DATA_LEN_RANGE)
        _check_counter(parameter, data)
        operation = ops.RawEncrypt(
            key_id=key.key_id,
            plaintext=data,
            mode=self._mode,
            iv=_iv(parameter),
            aad=_aad(parameter),
        )
        made = hsm.execute(operation)
        key.require_version(made.version)
        return made.ciphertext

    def decrypt(self, hsm: HSM, key: KeyObject, parameter: Any, data: bytes) -> bytes:
        """Decrypt with the version of the object."""
        is_cbc = self._mode in {AESMode.CBC, AESMode.CBC_PKCS7}
        if is_cbc and len(data) % _BLOCK_BYTES:
            raise CryptokiError(ck.CKR_ENCRYPTED_DATA_LEN_RANGE)
        _check_counter(parameter, data)
        operation = ops.RawDecrypt(
            key_id=key.key_id,
            ciphertext=data,
            mode=self._mode,
            iv=_iv(parameter),
            aad=_aad(parameter),
            version=key.version,
        )
        return hsm.execute(operation).plaintext


def _check_gcm(parameter: Any) -> None:
    if not isinstance(parameter, GCMParameters):
        raise bad_parameter("AES-GCM needs CK_GCM_PARAMS of 48 bytes.")
    if len(parameter.iv) != _IV_BYTES or parameter.tag_bits != 8 * _TAG_BYTES:
        raise bad_parameter("AES-GCM needs an IV of 96 bits and a tag of 128 bits.")


_MOST_COUNTER_BITS: Final = 128


def _check_ctr(parameter: Any) -> None:
    if not isinstance(parameter, CTRParameters) or len(parameter.block) != _BLOCK_BYTES:
        raise bad_parameter("AES-CTR needs CK_AES_CTR_PARAMS.")
    if not 1 <= parameter.bits <= _MOST_COUNTER_BITS:
        raise bad_parameter("The counter of AES-CTR must have 1 to 128 bits.")


def _check_counter(parameter: Any, data: bytes) -> None:
    """Refuse data for which the counter would begin again."""
    if isinstance(parameter, CTRParameters):
        end = 1 << parameter.bits
        begin = int.from_bytes(parameter.block) % end
        if begin + -(-len(data) // _BLOCK_BYTES) > end:
            raise CryptokiError(ck.CKR_DATA_LEN_RANGE)


def _iv(parameter: Any) -> bytes:
    if isinstance(parameter, GCMParameters):
        return parameter.iv
    return parameter.block if isinstance(parameter, CTRParameters) else bytes(parameter)


def _aad(parameter: Any) -> bytes:
    return parameter.aad if isinstance(parameter, GCMParameters) else b""


CIPHERS: Final[Mapping[int, CipherScheme]] = {
    ck.CKM_RSA_PKCS: PKCS1Decryption(),
    ck.CKM_RSA_PKCS_OAEP: OAEP(),
    ck.CKM_AES_CBC: AES(AESMode.CBC),
    ck.CKM_AES_CBC_PAD: AES(AESMode.CBC_PKCS7),
    ck.CKM_AES_CTR: AES(AESMode.CTR),
    ck.CKM_AES_GCM: AES(AESMode.GCM),
}
"""Mechanisms that decrypt."""

ENCRYPTING: Final = {kind: one for kind, one in CIPHERS.items() if one.encrypts}
"""Mechanisms that encrypt too."""
