# SPDX-License-Identifier: MIT
"""Base of private keys in an HSM: signing, hashing and padding arguments."""

from __future__ import annotations

from typing import Any, Final, Generic, NoReturn, Self, TypeAlias, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding as paddings
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from hsm_core import operations as ops
from hsm_core.algorithms import HashAlgorithm, SignatureScheme
from hsm_core.errors import ConflictError, InputSizeError, UnsupportedOperationError
from hsm_core.model import KeyId
from hsm_core.protocols import HSM

P = TypeVar("P")


class HeldKey(Generic[P]):
    """
    A version of a key that stays in the HSM.

    It can't be pickled, and a copy is the key itself.

    Args:
        hsm: Who holds it.

        shown: What the HSM says of its public half.

        public: The same as an object of ``cryptography``.

        approval_id: The approval that it is used under, if that is needed.
    """

    def __init__(
        self, hsm: HSM, shown: ops.PublicKey, public: P, *, approval_id: str = ""
    ) -> None:
        self._hsm = hsm
        self._key_id = shown.key_id
        self._version = shown.version
        self._public = public
        self._approval_id = approval_id

    @property
    def key_id(self) -> KeyId:
        """Id of the key in the HSM."""
        return self._key_id

    @property
    def version(self) -> int:
        """Version that `public_key` belongs to."""
        return self._version

    def public_key(self) -> P:
        """Return the public key, without asking the HSM again."""
        return self._public

    def _sign(
        self,
        *,
        message: bytes | None = None,
        digest: bytes | None = None,
        mu: bytes | None = None,
        scheme: SignatureScheme | None = None,
        hash: HashAlgorithm | None = None,
        context: bytes = b"",
    ) -> bytes:
        """
        Return a signature that the public key verifies.

        Raises:
            ConflictError: The key was rotated since it was opened.
            HSMError: See `Sign`.
        """
        signature = self._hsm.execute(
            ops.Sign(
                key_id=self._key_id,
                message=message,
                digest=digest,
                mu=mu,
                scheme=scheme,
                hash=hash,
                context=context,
            ),
            approval_id=self._approval_id,
        )
        if signature.version != self._version:
            # What was signed says, or will say, that it is of the other public key.
            raise ConflictError(
                "The key was rotated after it was opened. Open it again.",
                field="version",
                expected=self._version,
                actual=signature.version,
            )
        return signature.signature

    def _refuse(self, what: str) -> NoReturn:
        raise UnsupportedOperationError(f"{what}: the key can't leave the HSM.")

    def private_bytes(self, *_: Any, **__: Any) -> bytes:
        """Raise `UnsupportedOperationError`: the key stays where it is."""
        self._refuse("private bytes are not available")

    def private_bytes_raw(self) -> bytes:
        """Raise `UnsupportedOperationError`: the key stays where it is."""
        self._refuse("private bytes are not available")

    def private_numbers(self) -> Any:
        """Raise `UnsupportedOperationError`: the key stays where it is."""
        self._refuse("private numbers are not available")

    def __copy__(self) -> Self:
        """Return the key itself."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the key itself."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("HSM keys can't be pickled: the key can't leave the HSM.")

    def __repr__(self) -> str:
        """Return type, id and version."""
        return f"<{type(self).__name__} {self._key_id} version {self._version}>"


Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes-like object."""


def hash_of_prehashed(algorithm: Prehashed) -> object:
    """Return the hash that data was made by."""
    return algorithm._algorithm  # noqa: SLF001


def mask_hash_of(padding: paddings.PSS | paddings.OAEP) -> object:
    """Return the hash of the mask generation function, which is MGF1."""
    return padding.mgf._algorithm  # noqa: SLF001


def label_of(padding: paddings.OAEP) -> bytes:
    """Return the label of OAEP."""
    return padding._label or b""  # noqa: SLF001


def salt_of(padding: paddings.PSS) -> object:
    """Return the length of the salt, in bytes, or what stands for one."""
    return padding._salt_length  # noqa: SLF001


_NAMES: Final = {
    "sha256": HashAlgorithm.SHA_256,
    "sha384": HashAlgorithm.SHA_384,
    "sha512": HashAlgorithm.SHA_512,
}


def name_of(algorithm: object) -> HashAlgorithm:
    """
    Return what the HSM calls a hash.

    Raises:
        UnsupportedOperationError: It signs with no such hash.
    """
    if isinstance(algorithm, hashes.HashAlgorithm):
        found = _NAMES.get(algorithm.name)
        if found is not None:
            return found
    raise UnsupportedOperationError(
        "The hash must be SHA-256, SHA-384 or SHA-512.", field="hash"
    )


def digest_of(data: bytes, algorithm: object) -> tuple[bytes, HashAlgorithm]:
    """
    Return the digest of data, or data that is one already, and by which hash.

    Large messages need not travel: what is signed is the same.

    Raises:
        InputSizeError: What should be a digest has another length.
        UnsupportedOperationError: See `name_of`.
    """
    if isinstance(algorithm, Prehashed):
        name = name_of(hash_of_prehashed(algorithm))
        if len(data) != name.digest_bytes:
            size = name.digest_bytes
            raise InputSizeError("data", actual=len(data), minimum=size, maximum=size)
        return bytes(data), name
    name = name_of(algorithm)
    if not isinstance(algorithm, hashes.HashAlgorithm):
        raise AssertionError("A hash that has a name is a hash.")
    hasher = hashes.Hash(algorithm)
    hasher.update(data)
    return hasher.finalize(), name
