# SPDX-License-Identifier: MIT
"""Interface of the wheel ``pqcrypto``, if installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hsm_core._internal.lib.process import check_descriptors
from hsm_core.algorithms import Algorithm


class KEMModule(Protocol):
    """Functions of ``pqcrypto.kem`` for one algorithm; wrong lengths: ValueError."""

    PUBLIC_KEY_SIZE: int
    SECRET_KEY_SIZE: int
    CIPHERTEXT_SIZE: int
    SHARED_SECRET_SIZE: int

    def keygen(self) -> tuple[bytes, bytes]:
        """Return public key and expanded private key."""
        ...

    def encaps(self, public_key: bytes, /) -> tuple[bytes, bytes]:
        """Return encapsulation and shared secret, in this order."""
        ...

    def decaps(self, secret_key: bytes, ciphertext: bytes, /) -> bytes:
        """Return the shared secret."""
        ...


class SignatureModule(Protocol):
    """Functions of ``pqcrypto.sign`` for one algorithm."""

    PUBLIC_KEY_SIZE: int
    SECRET_KEY_SIZE: int
    SIGNATURE_SIZE: int

    def keygen(self) -> tuple[bytes, bytes]:
        """Return public and private key."""
        ...

    def sign(
        self, key: bytes, message: bytes, context: bytes | None, hashed: None, /
    ) -> bytes:
        """Return a hedged signature."""
        ...

    def verify(
        self,
        key: bytes,
        message: bytes,
        signature: bytes,
        context: bytes | None,
        hashed: None,
        /,
    ) -> None:
        """Return, or raise: ValueError for a wrong length, else an error of its own."""
        ...


@dataclass(frozen=True, slots=True)
class PqcryptoWheel:
    """
    The installed wheel.

    Attributes:
        version: Its version.
        folder: Where Python finds it.
    """

    version: str
    folder: Path

    def signature(self, algorithm: Algorithm) -> SignatureModule | None:
        """Return the module of a signature algorithm, if there is one."""
        from pqcrypto import sign

        return getattr(sign, module_name(algorithm), None)

    def kem(self, algorithm: Algorithm) -> KEMModule | None:
        """Return the module of a KEM, if there is one."""
        from pqcrypto import kem

        return getattr(kem, module_name(algorithm), None)


def open_wheel() -> PqcryptoWheel | None:
    """
    Return the wheel, or None where it is missing, of another API, or can't be loaded.

    Releases before 1.0 have the same name and another API.

    Raises:
        UnavailableError: No file descriptors are left to look for it.
    """
    check_descriptors()
    try:
        import pqcrypto

        version, file = str(pqcrypto.__version__), pqcrypto.__file__
    except (ImportError, AttributeError):
        return None
    if not version.partition(".")[0].isdecimal() or int(version.partition(".")[0]) < 1:
        return None
    return PqcryptoWheel(version, Path(file).parent.parent)


def module_name(algorithm: Algorithm) -> str:
    """Return what the wheel calls an algorithm."""
    return algorithm.value.lower().replace("-", "_")
