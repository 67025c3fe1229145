# SPDX-License-Identifier: MIT
"""Provider of the operating system's OpenSSL: ML-KEM, ML-DSA and SLH-DSA."""

from __future__ import annotations

import ctypes
import hmac
from functools import cached_property
from typing import Final

from hsm_core._internal.crypto.der import (
    bad_public_key,
    private_key_info,
    read_public_key_info,
    read_raw_private_key,
    seed_key_info,
    wrong_root,
)
from hsm_core._internal.crypto.expanded import expanded_alone, read_seed, seed_bytes
from hsm_core._internal.crypto.handle import RawPublicHandle
from hsm_core._internal.crypto.libcrypto.library import (
    Buffer,
    EVPKey,
    Libcrypto,
    LibcryptoError,
    Parameter,
    find_libcrypto,
    key_from_private,
    key_from_public,
    key_from_seed,
    operation,
    ossl_parameters,
)
from hsm_core._internal.crypto.parameters import (
    check_encapsulation,
    check_signature,
    check_signing,
)
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, spec
from hsm_core.errors import AlgorithmUnavailableError, SignatureMismatchError
from hsm_core.protocols import Entropy, SignatureParameters


class LibcryptoSignaturePublicHandle(RawPublicHandle):
    """
    A public key of ML-DSA or SLH-DSA.

    Standard:
        FIPS 204, algorithm 3; FIPS 205, algorithm 24.
    """

    def __init__(self, key: EVPKey, raw_public: bytes) -> None:
        super().__init__(key.algorithm, raw_public)
        self._key = key

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a signature over a message, or over mu."""
        check_signature(self._algorithm, data, signature, parameters)
        library = self._key.library
        functions = library.functions
        chosen = library.signature(self._algorithm)
        with operation(self._key) as context:
            begun = functions.EVP_PKEY_verify_message_init(
                context, chosen, _settings(parameters)
            )
            library.check(begun, "EVP_PKEY_verify_message_init")
            result: int = functions.EVP_PKEY_verify(
                context, signature, len(signature), data, len(data)
            )
        if result != 1:
            library.forget_errors()
            raise SignatureMismatchError


class LibcryptoSignaturePrivateHandle(LibcryptoSignaturePublicHandle):
    """
    A key pair of ML-DSA or SLH-DSA.

    Standard:
        FIPS 204, algorithm 2; FIPS 205, algorithm 22.
    """

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a hedged signature: each is another."""
        return self._sign(data, parameters, deterministic=False)

    def _sign(
        self, data: bytes, parameters: SignatureParameters, *, deterministic: bool
    ) -> bytes:
        check_signing(self._algorithm, data, parameters)
        library = self._key.library
        functions = library.functions
        chosen = library.signature(self._algorithm)
        size = spec(self._algorithm).signature_bytes
        with operation(self._key) as context, Buffer(library, size) as buffer:
            begun = functions.EVP_PKEY_sign_message_init(
                context, chosen, _settings(parameters, deterministic=int(deterministic))
            )
            library.check(begun, "EVP_PKEY_sign_message_init")
            made = functions.EVP_PKEY_sign(
                context, buffer.memory, ctypes.byref(buffer.size), data, len(data)
            )
            library.check(made, "EVP_PKEY_sign")
            return buffer.taken()


def _settings(chosen: SignatureParameters, **more: int) -> ctypes.Array[Parameter]:
    """Return a call's OSSL_PARAMs; what is not given has its default."""
    values: dict[str, bytes | int] = dict(more)
    if chosen.context:
        values["context_string"] = chosen.context
    if chosen.external_mu:
        values["mu"] = 1
    return ossl_parameters(**values)


class KEMPublicHandle(RawPublicHandle):
    """
    An encapsulation key, which was checked when it was loaded.

    Standard:
        FIPS 203, section 7.2.
    """

    def __init__(self, key: EVPKey, raw_public: bytes) -> None:
        super().__init__(key.algorithm, raw_public)
        self._key = key

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a fresh shared secret of 32 bytes and its encapsulation."""
        return self._encapsulate()

    def _encapsulate(self, **settings: bytes) -> tuple[bytes, bytes]:
        row = spec(self._algorithm)
        library = self._key.library
        functions = library.functions
        with (
            operation(self._key) as context,
            Buffer(library, row.shared_secret_bytes) as secret,
            Buffer(library, row.ciphertext_bytes) as wrapped,
        ):
            begun = functions.EVP_PKEY_encapsulate_init(
                context, ossl_parameters(**settings)
            )
            library.check(begun, "EVP_PKEY_encapsulate_init")
            made = functions.EVP_PKEY_encapsulate(
                context,
                *(wrapped.memory, ctypes.byref(wrapped.size)),
                *(secret.memory, ctypes.byref(secret.size)),
            )
            library.check(made, "EVP_PKEY_encapsulate")
            return secret.taken(), wrapped.taken()


class KEMPrivateHandle(KEMPublicHandle):
    """
    A decapsulation key with its encapsulation key.

    Standard:
        FIPS 203, section 7.3.
    """

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """Return the shared secret; a changed encapsulation gives another."""
        check_encapsulation(self._algorithm, ciphertext)
        row = spec(self._algorithm)
        library = self._key.library
        functions = library.functions
        with (
            operation(self._key) as context,
            Buffer(library, row.shared_secret_bytes) as secret,
        ):
            begun = functions.EVP_PKEY_decapsulate_init(context, None)
            library.check(begun, "EVP_PKEY_decapsulate_init")
            made = functions.EVP_PKEY_decapsulate(
                context,
                *(secret.memory, ctypes.byref(secret.size)),
                *(ciphertext, len(ciphertext)),
            )
            library.check(made, "EVP_PKEY_decapsulate")
            return secret.taken()


_FAMILIES: Final = frozenset({Family.ML_KEM, Family.ML_DSA, Family.SLH_DSA})


class LibcryptoProvider:
    """
    `CryptoProvider` over the operating system's OpenSSL, 3.5 or newer.

    The library is opened, and every algorithm probed, when it is first asked for.
    Where it is missing or older, nothing is served and nothing is raised.

    Args:
        path: A library to open instead of the operating system's.
    """

    name: Final = "libcrypto"
    """Short name, used in settings."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path

    @property
    def version(self) -> str:
        """Version of the library; empty where there is none that will do."""
        return self._library.version if self._library else ""

    def algorithms(self) -> frozenset[Algorithm]:
        """Return what this build of the library has."""
        return self._served

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """Return fresh material, whose seed is drawn from *entropy*."""
        seed = entropy.random_bytes(seed_bytes(algorithm))
        return self.material_from_seed(algorithm, seed)

    def material_from_seed(self, algorithm: Algorithm, seed: bytes) -> bytes:
        """
        Return the material that follows from a seed.

        Args:
            algorithm: What to make a key of.

            seed: As long as `seed_bytes` says.

        Raises:
            ValueError: It is of another length.
        """
        key = key_from_seed(self._require(algorithm), algorithm, seed)
        row = spec(algorithm)
        if row.family is Family.SLH_DSA:
            return private_key_info(algorithm, key.private_bytes(row.private_bytes))
        return seed_key_info(algorithm, seed)

    def load(
        self, algorithm: Algorithm, material: bytes, /
    ) -> LibcryptoSignaturePrivateHandle | KEMPrivateHandle:
        """Load material that we made and have just authenticated."""
        return self._load(algorithm, material, trusted=True)

    def load_foreign(
        self, algorithm: Algorithm, material: bytes, /
    ) -> LibcryptoSignaturePrivateHandle | KEMPrivateHandle:
        """Load material from elsewhere; its public half is recomputed."""
        return self._load(algorithm, material, trusted=False)

    def load_public(
        self, algorithm: Algorithm, public_der: bytes, /
    ) -> LibcryptoSignaturePublicHandle | KEMPublicHandle:
        """Load SubjectPublicKeyInfo, fully checked."""
        library = self._require(algorithm)
        raw = read_public_key_info(algorithm, public_der)
        try:
            key = key_from_public(library, algorithm, raw)
        except LibcryptoError:
            raise bad_public_key(algorithm) from None
        if spec(algorithm).family is Family.ML_KEM:
            return KEMPublicHandle(key, raw)
        return LibcryptoSignaturePublicHandle(key, raw)

    @cached_property
    def _library(self) -> Libcrypto | None:
        return find_libcrypto() if self._path is None else find_libcrypto([self._path])

    @cached_property
    def _served(self) -> frozenset[Algorithm]:
        library = self._library
        if library is None:
            return frozenset()
        return frozenset(
            row.algorithm
            for row in ALGORITHMS.values()
            if row.family in _FAMILIES and _is_served(library, row.algorithm)
        )

    def _require(self, algorithm: Algorithm) -> Libcrypto:
        if self._library is None or algorithm not in self._served:
            raise AlgorithmUnavailableError(
                f"The system's OpenSSL does not support {algorithm}.",
                algorithm=algorithm.value,
            )
        return self._library

    def _load(
        self, algorithm: Algorithm, material: bytes, *, trusted: bool
    ) -> LibcryptoSignaturePrivateHandle | KEMPrivateHandle:
        library = self._require(algorithm)
        family = spec(algorithm).family
        if family is Family.SLH_DSA:
            key = _read_parts(library, algorithm, material, trusted=trusted)
        else:
            key = _read_seed(library, algorithm, material, trusted=trusted)
        if family is Family.ML_KEM:
            return KEMPrivateHandle(key, key.public_bytes())
        return LibcryptoSignaturePrivateHandle(key, key.public_bytes())


def _is_served(library: Libcrypto, algorithm: Algorithm) -> bool:
    if not library.has_key(algorithm):
        return False
    if spec(algorithm).family is Family.ML_KEM:
        return library.has_kem(algorithm)
    return library.has_signature(algorithm)


def _read_seed(
    library: Libcrypto, algorithm: Algorithm, material: bytes, *, trusted: bool
) -> EVPKey:
    """Read ML-KEM or ML-DSA."""
    if trusted and (expanded := expanded_alone(algorithm, material)):
        return key_from_private(library, algorithm, expanded)
    seed = read_seed(
        algorithm,
        material,
        lambda seed: key_from_seed(library, algorithm, seed).public_bytes(),
        trusted=trusted,
    )
    return key_from_seed(library, algorithm, seed)


def _read_parts(
    library: Libcrypto, algorithm: Algorithm, material: bytes, *, trusted: bool
) -> EVPKey:
    """Read SLH-DSA; the root of a foreign key must be the one of its secret seed."""
    octets = read_raw_private_key(algorithm, material)
    if trusted:
        return key_from_private(library, algorithm, octets)
    key = key_from_seed(library, algorithm, octets[: seed_bytes(algorithm)])
    if not hmac.compare_digest(key.private_bytes(len(octets)), octets):
        raise wrong_root(algorithm)
    return key
