# SPDX-License-Identifier: MIT
"""Row of the algorithm table."""

from __future__ import annotations

import msgspec

from hsm_core.algorithms.names import (
    Algorithm,
    Cost,
    Family,
    HashAlgorithm,
    KeyUsage,
    SignatureScheme,
    WrapMechanism,
)

__all__ = [
    "AlgorithmSpec",
]

_QUANTUM_SAFE = frozenset(
    {
        Family.ML_KEM,
        Family.ML_DSA,
        Family.SLH_DSA,
        Family.COMPOSITE_KEM,
        Family.COMPOSITE_SIGNATURE,
    }
)
_COMPOSITE = frozenset({Family.COMPOSITE_KEM, Family.COMPOSITE_SIGNATURE})
_SYMMETRIC = frozenset(
    {Family.AEAD, Family.AES, Family.MAC, Family.KEY_WRAP, Family.KDF}
)

RSAES_OAEP = 2
"""Envelope kind of ciphertexts by RSAES-OAEP."""

KEM_ENVELOPE = 3
"""Envelope kind of messages sealed by a key-encapsulation mechanism."""


class AlgorithmSpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    One row of the table. Sizes are in bytes, and 0 if not applicable.

    Attributes:
        standard: Documents that define it.
        category: Security category 1, 2, 3 or 5 of NIST's post-quantum call, 0 for
            public-key algorithms that a quantum computer would break.
        strength_bits: Classical security strength (SP 800-57 part 1, table 2).
        usages: Every usage a key of this algorithm may be given.
        default_usages: What a key gets when its creator names none.
        schemes: Signature schemes, the default first.
        hashes: Hashes to sign with, the default first; for a composite its pre-hash,
            for HMAC and HKDF the hash inside.
        verify_hashes: Hashes to verify with.
        modulus_bits: Length of an RSA modulus, else 0.
        coordinate_bytes: Length of r and of s, else 0.
        key_bytes: Length of a symmetric key.
        mac_bytes: Length of a MAC.
        public_bytes: Length of the raw public key, where it is fixed.
        private_bytes: Length of the raw private key that is kept: for ML-KEM, ML-DSA
            and Edwards and Montgomery curves the seed.
        signature_bytes: Length of the longest signature.
        ciphertext_bytes: Length of an encapsulation.
        shared_secret_bytes: Length of what is encapsulated.
        max_context_bytes: Longest context to sign with.
        takes_mu: Whether the external representative mu (FIPS 204, section 6.2, line
            6 of algorithm 7) can be signed instead of a message.
        expanded_bytes: Length of the expanded private key of ML-KEM or ML-DSA.
        exists_without_seed: Whether stored keys may lack the seed, because a provider
            makes expanded keys only.
        lattice: k and eta1 of ML-KEM (FIPS 203, table 2); k, l and eta of ML-DSA (FIPS
            204, table 1).
        oid: Object identifier in SubjectPublicKeyInfo and PKCS#8.
        curve_oid: Object identifier of an EC curve, which stands beside *oid*.
        jwk_curve: ``crv`` in a JSON web key (RFC 7518, RFC 8037, RFC 8812).
        wrap_mechanisms: Mechanisms of wrapping other keys, the default first.
        envelope_kind: Number of its ciphertexts in envelopes, else 0.
        label: Label of a composite, as its draft says.
        components: Algorithms of a composite, the post-quantum one first.
        draft: Draft that defines a composite, with revision; kept in every such key.
        use_limit: How often one key's material may protect something (SP 800-38D,
            section 8.3); 0 means that there is no such limit.
        generate_cost: Cost class of making a key.
        use_cost: Cost class of a private-key operation.
        aliases: Other spellings accepted as input, lower case.
    """

    algorithm: Algorithm
    family: Family
    standard: str
    strength_bits: int
    usages: frozenset[KeyUsage]
    default_usages: frozenset[KeyUsage]
    category: int = 0
    schemes: tuple[SignatureScheme, ...] = ()
    hashes: tuple[HashAlgorithm, ...] = ()
    verify_hashes: tuple[HashAlgorithm, ...] = ()
    modulus_bits: int = 0
    coordinate_bytes: int = 0
    key_bytes: int = 0
    mac_bytes: int = 0
    public_bytes: int = 0
    private_bytes: int = 0
    expanded_bytes: int = 0
    exists_without_seed: bool = False
    lattice: tuple[int, ...] = ()
    signature_bytes: int = 0
    ciphertext_bytes: int = 0
    shared_secret_bytes: int = 0
    max_context_bytes: int = 0
    takes_mu: bool = False
    oid: str = ""
    curve_oid: str = ""
    jwk_curve: str = ""
    wrap_mechanisms: tuple[WrapMechanism, ...] = ()
    envelope_kind: int = 0
    label: bytes = b""
    components: tuple[Algorithm, ...] = ()
    draft: str = ""
    use_limit: int = 0
    generate_cost: Cost = Cost.QUICK
    use_cost: Cost = Cost.QUICK
    aliases: tuple[str, ...] = msgspec.field(default=())

    @property
    def is_asymmetric(self) -> bool:
        """Whether a public key exists."""
        return self.family not in _SYMMETRIC

    @property
    def is_pqc(self) -> bool:
        """Whether it is a post-quantum algorithm, alone or in a hybrid."""
        return self.family in _QUANTUM_SAFE

    @property
    def is_hybrid(self) -> bool:
        """Whether it joins a post-quantum and a traditional algorithm (RFC 9794)."""
        return self.family in _COMPOSITE

    @property
    def is_kem(self) -> bool:
        """Whether it is a key-encapsulation mechanism."""
        return bool(self.ciphertext_bytes)

    @property
    def is_signature(self) -> bool:
        """Whether it makes signatures."""
        return bool(self.schemes)
