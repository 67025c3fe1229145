# SPDX-License-Identifier: MIT
"""
The seams: what callers may rely on, and what implementers must keep.

For callers: `HSM`, `AsyncHSM`, `HSMGateway`, `AsyncHSMGateway`. For providers:
`KeyStore`, `AuditLog`, `CryptoProvider`, `MasterKeySource`, `PolicyEngine`, `Clock`,
`Entropy`. Conformance is shown by mypy and by the contract suites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.model import (
    AuditDetail,
    AuditedCaller,
    AuditedKey,
    AuditEvent,
    Caller,
    KeyFilter,
    KeyId,
    KeyState,
    Parameters,
    Phase,
)
from hsm_core.operations import Operation

__all__ = [
    "HSM",
    "AsyncHSM",
    "AsyncHSMGateway",
    "AuditDraft",
    "AuditHead",
    "AuditLog",
    "AuditTicket",
    "Clock",
    "CryptoProvider",
    "Decision",
    "Entropy",
    "HSMGateway",
    "IndexEntry",
    "IndexPage",
    "IndexQuery",
    "KeyChange",
    "KeyFacts",
    "KeyHandle",
    "KeyStore",
    "MasterKeySource",
    "OAEPParameters",
    "OperationMark",
    "PolicyEngine",
    "SignatureParameters",
    "StoredKey",
    "UseCounters",
    "algorithm_facts",
]

R = TypeVar("R")


class HSM(Protocol):
    """Something that executes operations for one caller, and blocks."""

    def execute(
        self, operation: Operation[R], /, *, idempotency_key: str | None = None
    ) -> R:
        """
        Execute one operation.

        Args:
            operation: What to do.

            idempotency_key: For mutations: 1 to 128 visible ASCII characters. The same
                key with the same operation gives the same answer and does it once.

        Returns:
            The operation's result; it is durable when this returns.

        Raises:
            HSMError: The one documented failure; nothing else is raised on purpose.
        """
        ...


class AsyncHSM(Protocol):
    """`HSM` for an event loop, which it never blocks for long."""

    async def execute(
        self, operation: Operation[R], /, *, idempotency_key: str | None = None
    ) -> R:
        """Execute one operation; see `HSM.execute`."""
        ...


class HSMGateway(Protocol):
    """An open HSM, before it is known who calls."""

    def act_as(self, caller: Caller, /) -> HSM:
        """
        Return the HSM as this caller sees it.

        Raises:
            InvalidInputError: A field of *caller* breaks its limits.
        """
        ...

    def record_refusal(
        self,
        caller: Caller,
        code: str,
        /,
        *,
        kind: str = "Authenticate",
        key_id: str = "",
    ) -> None:
        """
        Record that a request was refused before it became an operation.

        Meant for failed authentication, and for bodies that can't be read. Above a
        budget, refusals are counted and the count recorded, so that a flood can't fill
        the trail. Never raises: if the trail can't be written, nothing is lost but
        the record of something that did not happen.

        Args:
            caller: What is known of them; the principal may be empty.

            code: Code of the error that was answered.

            kind: Name of the operation that was asked for.

            key_id: The key that was named, as it was sent.
        """
        ...


class AsyncHSMGateway(Protocol):
    """`HSMGateway` for an event loop."""

    def act_as(self, caller: Caller, /) -> AsyncHSM:
        """Return the HSM as this caller sees it."""
        ...

    async def record_refusal(
        self,
        caller: Caller,
        code: str,
        /,
        *,
        kind: str = "Authenticate",
        key_id: str = "",
    ) -> None:
        """See `HSMGateway.record_refusal`."""
        ...


class Clock(Protocol):
    """Time, injected everywhere."""

    def now(self) -> int:
        """Return wall time, in microseconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Return a time that never goes back, in seconds."""
        ...


class Entropy(Protocol):
    """Randomness, injected everywhere."""

    def random_bytes(self, length: int, /) -> bytes:
        """
        Return *length* bytes, unpredictable and never repeated.

        Raises:
            EntropyUnavailableError: The source failed its health test.
        """
        ...


class MasterKeySource(Protocol):
    """Holder of the root, which seals the key ring and nothing else."""

    def seal(self, plaintext: bytes, context: bytes, /) -> bytes:
        """Return *plaintext* encrypted and bound to *context*."""
        ...

    def open(self, blob: bytes, context: bytes, /) -> bytes:
        """
        Return what `seal` was given.

        Raises:
            WrongMasterKeyError: It was sealed by another root, or changed.
        """
        ...


# Cryptography


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureParameters:
    """
    How to sign or verify.

    Attributes:
        hash: Unused where the algorithm hashes inside.
        mgf_hash: Hash of MGF1, RSASSA-PSS only.
        salt_bytes: RSASSA-PSS only. To sign: None is the hash length. To verify: None
            accepts any length.
        prehashed: The data is the digest under *hash*, not the message.
        external_mu: ML-DSA only. The data is mu (FIPS 204, algorithm 7, line 6).
        context: ML-DSA, SLH-DSA and composites: up to 255 bytes.
    """

    scheme: SignatureScheme
    hash: HashAlgorithm
    mgf_hash: HashAlgorithm
    encoding: SignatureEncoding = SignatureEncoding.DER
    salt_bytes: int | None = None
    prehashed: bool = False
    external_mu: bool = False
    context: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class OAEPParameters:
    """Parameters of RSAES-OAEP (RFC 8017, section 7.1)."""

    hash: HashAlgorithm = HashAlgorithm.SHA_256
    mgf_hash: HashAlgorithm = HashAlgorithm.SHA_256
    label: bytes = b""


class KeyHandle(Protocol):
    """
    A key in its provider's own form, ready for use, safe for many threads.

    What the algorithm or the half of the key at hand can't do raises
    `UnsupportedOperationError`.
    """

    @property
    def algorithm(self) -> Algorithm:
        """The key's algorithm."""
        ...

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo, DER; empty for a symmetric key."""
        ...

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a signature over *data*."""
        ...

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """
        Check a signature.

        Raises:
            SignatureMismatchError: It is wrong, of whatever length or form.
        """
        ...

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes, /) -> bytes:
        """Return ciphertext ‖ tag of an AEAD (SP 800-38D); *nonce* is 12 bytes."""
        ...

    def open(self, nonce: bytes, ciphertext: bytes, aad: bytes, /) -> bytes:
        """
        Return the plaintext of an AEAD.

        Raises:
            DecryptionError: Anything is wrong.
        """
        ...

    def encrypt(self, plaintext: bytes, parameters: OAEPParameters, /) -> bytes:
        """Return the RSAES-OAEP ciphertext, as long as the modulus."""
        ...

    def decrypt(self, ciphertext: bytes, parameters: OAEPParameters, /) -> bytes:
        """
        Return the RSAES-OAEP plaintext.

        Raises:
            DecryptionError: Anything is wrong.
        """
        ...

    def mac(self, data: bytes, /) -> bytes:
        """Return the MAC of *data* at full length."""
        ...

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a fresh shared secret and its encapsulation (FIPS 203, 7.2)."""
        ...

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """
        Return the shared secret of an encapsulation (FIPS 203, section 7.3).

        One that was changed gives another secret, without an error.

        Raises:
            InputSizeError: It is not as long as the algorithm's encapsulations; the
                field is ``ciphertext``.
            DecryptionError: A composite's only: the traditional part is no public key
                of its curve.
        """
        ...

    def agree(self, peer_public_der: bytes, /) -> bytes:
        """
        Return the shared secret Z of ECDH (SP 800-56A, section 5.7.1.2; RFC 7748).

        Args:
            peer_public_der: SubjectPublicKeyInfo of the same curve.

        Raises:
            InvalidInputError: It is not a public key of this curve, or the result is
                all zeros (RFC 7748, section 6.1).
        """
        ...

    def derive(self, salt: bytes, info: bytes, length: int, /) -> bytes:
        """Return *length* bytes of HKDF (RFC 5869) over an HKDF key."""
        ...

    def wrap(self, data: bytes, /, *, padded: bool) -> bytes:
        """
        Return *data* wrapped by AES-KWP if *padded*, else AES-KW (SP 800-38F).

        Raises:
            InputSizeError: *data* can't be wrapped so: KW takes 16 bytes or more in
                steps of 8, KWP 1 byte or more.
        """
        ...

    def unwrap(self, wrapped: bytes, /, *, padded: bool) -> bytes:
        """
        Return what `wrap` was given.

        Raises:
            DecryptionError: Anything is wrong.
        """
        ...


class CryptoProvider(Protocol):
    """
    A library that serves some algorithms.

    Material is the private form of a key in bytes: PKCS#8 DER for asymmetric
    algorithms (with the seed for ML-KEM and ML-DSA: RFC 9935, RFC 9881, section 6), the
    bare key for symmetric ones.
    """

    @property
    def name(self) -> str:
        """Short name, used in settings."""
        ...

    @property
    def version(self) -> str:
        """Version of the library underneath."""
        ...

    def algorithms(self) -> frozenset[Algorithm]:
        """Return what this provider can serve on this machine."""
        ...

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """Return fresh material."""
        ...

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """
        Load material that we made and have just authenticated, without costly checks.

        Raises:
            InvalidInputError: It is not material of this algorithm.
        """
        ...

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material from elsewhere, fully checked; else as `load`."""
        ...

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Load SubjectPublicKeyInfo, fully checked."""
        ...


# Keys at rest


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """
    What a store may index of a key.

    It is read from the document without trusting it: listings are narrowed by it, and
    every document is authenticated before anything is said of the key.

    Attributes:
        created_at: Microseconds since 1970; with *key_id* it gives the order.
        operations: Ids of the operations that this document remembers.
    """

    key_id: KeyId
    created_at: int
    name: str
    algorithm: str
    state: str
    tags: frozenset[str]
    generation: int
    operations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key document as it lies in the store: bytes, not trusted."""

    key_id: KeyId
    document: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """
    One mutation of one key.

    Attributes:
        entry: Index facts of the new document.
        document: The new document.
        expected_generation: Generation it was prepared on; 0 for a new key.
        operation_id: Must be new to the store.
        blobs: Sealed blobs of new versions, by version.
        removed_blobs: Versions whose blobs are deleted after the commit.
    """

    entry: IndexEntry
    document: bytes
    expected_generation: int
    operation_id: str
    blobs: Mapping[int, bytes] = field(default_factory=dict)
    removed_blobs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OperationMark:
    """Where an operation id was found: in a key's document, or as aborted."""

    key_id: KeyId | None
    aborted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexQuery:
    """
    A page of the index, newest key first (descending created_at, key_id).

    Attributes:
        after: Order of the last key of the page before, or None.
        offset: How many to skip; 0 with *after*.
    """

    filter: KeyFilter
    limit: int
    offset: int = 0
    after: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class IndexPage:
    """Entries of a page, and how many there are over all pages."""

    entries: tuple[IndexEntry, ...]
    total: int


class KeyStore(Protocol):
    """
    Where key documents and sealed blobs lie. Nothing in it is trusted.

    Implementers promise: `commit` is atomic and durable when it returns, and its only
    commit point is the document; blobs are immutable and durable before it. Every
    method is safe for many threads. Other processes are locked out while it is open.
    Whatever goes wrong underneath is a `StoreUnavailableError`, and never "not found".
    """

    def get(self, key_id: KeyId, /) -> StoredKey:
        """
        Return a key's document.

        Raises:
            KeyNotFoundError: There is no such key.
        """
        ...

    def get_blob(self, key_id: KeyId, version: int, /) -> bytes | None:
        """Return the sealed blob of a version, or None if there is none."""
        ...

    def commit(self, change: KeyChange, /) -> None:
        """
        Make one change, wholly or not at all.

        Raises:
            GenerationConflictError: The key is not at the expected generation.
            NameTakenError: Another key, not destroyed, has this name.
            OperationAbortedError: The operation id was aborted, or used before.
            StorageFullError: There is no room; nothing was changed.
            StoreUnavailableError: Nothing was changed, unless it is an
                OutcomeUnknownError.
        """
        ...

    def entry(self, reference: str, /) -> IndexEntry | None:
        """Return the index entry of a key by id, or by name if not destroyed."""
        ...

    def find(self, query: IndexQuery, /) -> IndexPage:
        """Return a page of the index, without reading documents."""
        ...

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """Return where an operation id stands."""
        ...

    def abort(self, operation_id: str, /) -> None:
        """Mark an operation id as aborted, durably, so that a late commit fails."""
        ...

    def scan(self) -> Iterator[StoredKey]:
        """Return every key; for start-up and scrubbing, not for requests."""
        ...

    def reindex(self, entries: Sequence[IndexEntry], /) -> None:
        """
        Replace the index by these entries, of keys that are there.

        Called once, at start, with what was authenticated. Of two entries that claim
        one name or operation the first has it.
        """
        ...

    def discard_blobs(self, key_id: KeyId, versions: Sequence[int], /) -> None:
        """Delete blobs that a crash kept though their versions are destroyed."""
        ...

    def read_meta(self, name: str, /) -> bytes | None:
        """Return a small named value, such as the sealed key ring."""
        ...

    def write_meta(self, name: str, value: bytes, /) -> None:
        """Replace a small named value, atomically and durably."""
        ...

    def close(self) -> None:
        """Release the lock; later calls raise StoreUnavailableError."""
        ...


class UseCounters(Protocol):
    """
    Where the counters of key materials lie: small values by material id.

    Nothing in it is trusted: values are authenticated by who writes them.
    Implementers promise that `put` is atomic, and durable when it returns. Safe for
    many threads.
    """

    def get(self, material_id: str, /) -> bytes | None:
        """
        Return the value of a material, or None if there is none.

        Raises:
            StoreUnavailableError: It can't be read.
        """
        ...

    def put(self, material_id: str, value: bytes, /) -> None:
        """
        Replace the value of a material.

        Raises:
            StorageFullError: There is no room; the old value is still there.
            StoreUnavailableError: It can't be written.
        """
        ...

    def discard(self, material_id: str, /) -> None:
        """
        Delete the value of a material that was destroyed, if there is one.

        Raises:
            StoreUnavailableError: It can't be deleted.
        """
        ...

    def material_ids(self) -> Sequence[str]:
        """
        Return every material that has a value; for start-up, not for requests.

        Raises:
            StoreUnavailableError: They can't be read.
        """
        ...


# The trail


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditDraft:
    """An event without position, time and MAC; fields as in `AuditEvent`."""

    phase: Phase
    kind: str
    code: str = "ok"
    request_id: str = ""
    operation_id: str = ""
    key_id: str = ""
    version: int = 0
    generation: int = 0
    document_before: str = ""
    document_after: str = ""
    set_digest: str = ""
    caller: AuditedCaller | None = None
    key: AuditedKey | None = None
    parameters: Parameters = field(default_factory=dict)
    rule: str = ""
    policy: str = ""
    digest: str = ""
    detail: AuditDetail | None = None


@dataclass(frozen=True, slots=True)
class AuditHead:
    """Newest record: sequence number (-1 if none) and leaf hash, hex."""

    seq: int
    leaf_hash: str


class AuditTicket(Protocol):
    """A promise that appended records become as durable as the mode says."""

    def wait(self, timeout: float | None = None) -> None:
        """
        Block until then.

        Raises:
            AuditUnavailableError: They can't be written, or not within the limit.
        """
        ...

    def add_done_callback(
        self, callback: Callable[[BaseException | None], None], /
    ) -> None:
        """Call *callback* once, from any thread, with None or the error."""
        ...


class AuditLog(Protocol):
    """
    The trail: an append-only chain of records without gaps.

    Implementers promise: `append` assigns seq, prev, time and MAC in the order of
    calls; a ticket is done when its records are durable as the mode says, and all
    before them too. After a failed sync no later append succeeds. Safe for many
    threads.
    """

    @property
    def log_id(self) -> str:
        """Random identifier of this trail, 32 hex digits."""
        ...

    @property
    def available(self) -> bool:
        """Whether the next append may succeed."""
        ...

    @property
    def set_digest_at_open(self) -> str:
        """The newest set digest that was recorded before this log was opened."""
        ...

    def append(
        self, drafts: Sequence[AuditDraft], /, *, durable: bool = False
    ) -> AuditTicket:
        """
        Append records.

        Args:
            drafts: At least one.

            durable: Wait for the sync even in bounded mode, as lifecycle records do.

        Raises:
            AuditUnavailableError: The trail can't be written.
        """
        ...

    def head(self) -> AuditHead:
        """Return the newest record's position and leaf hash."""
        ...

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* stored lines from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: The trail can't be read.
        """
        ...

    def open_intents(self) -> list[AuditEvent]:
        """Return the intents without outcome that were found at start."""
        ...

    def close(self) -> None:
        """Sync, mark the end as clean, release the lock."""
        ...


# Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """What rules may match of a key."""

    key_id: str
    algorithm: str
    state: KeyState
    name: str = ""
    owner: str = ""
    tags: frozenset[str] = frozenset()

    @property
    def facts(self) -> frozenset[str]:
        """
        What follows from the algorithm.

        Of ``pqc``, ``hybrid``, ``kem``, ``signature`` those that hold, and
        ``category:0``, ``category:1`` … of NIST's scale.
        """
        return algorithm_facts(self.algorithm)


def algorithm_facts(algorithm: str) -> frozenset[str]:
    """Return the facts of `KeyFacts.facts` for an algorithm; none if it is unknown."""
    try:
        row = ALGORITHMS[Algorithm(algorithm)]
    except ValueError:
        return frozenset()
    held = {
        "pqc": row.is_pqc,
        "hybrid": row.is_hybrid,
        "kem": row.is_kem,
        "signature": row.is_signature,
        f"category:{row.category}": True,
    }
    return frozenset(name for name, holds in held.items() if holds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """
    What the policy says of one operation.

    Attributes:
        allowed: Whether it may go on.
        may_describe: Whether the caller may know that the key exists.
        rule: Name of the rule that decided; recorded.
        approvals: Names of approval demands that must be met first.
    """

    allowed: bool
    may_describe: bool
    rule: str
    approvals: tuple[str, ...] = ()


class PolicyEngine(Protocol):
    """A pure function of operation, caller and key facts; default deny."""

    @property
    def policy_hash(self) -> str:
        """SHA-256 of the policy in force, hex; stands in every record."""
        ...

    def decide(
        self, operation: Operation[object], caller: Caller, key: KeyFacts | None, /
    ) -> Decision:
        """Decide; *key* is None for operations without key, or if it is missing."""
        ...

    def allows_revoked(self, kind: str, /) -> bool:
        """Whether an operation of this name may use a revoked version."""
        ...
