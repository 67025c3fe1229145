# SPDX-License-Identifier: MIT
"""
Self-test of the cryptography by which an HSM protects its own data.

Store, trail and approvals are sealed and authenticated without the provider registry.
The functions that do so are tested here, against published vectors, before a store is
created or opened.

Standard:
    FIPS 140-3 implementation guidance, 10.3.A (known answers); vectors of FIPS 180-4,
    RFC 4231, RFC 5869, RFC 8032, FIPS 186-5, and of ``docs/reference/formats-keys.md``
    and ``formats-audit.md``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from hsm_core._internal.approvals.signatures import verify_consent
from hsm_core._internal.audit.keys import (
    baseline_mac,
    key_check_value,
    mark_mac_function,
    record_mac_function,
)
from hsm_core._internal.crypto.selftest.cases import known_answers
from hsm_core._internal.keyring.key_ring import BlobContext, KeyRing, RootKey
from hsm_core._internal.lib import encoding
from hsm_core._internal.lib.encoding import hkdf_sha256, mac_function
from hsm_core.algorithms import Algorithm
from hsm_core.approver_keys import read_approver_key
from hsm_core.errors import (
    EntropyUnavailableError,
    HSMError,
    SelfTestFailedError,
    UnavailableError,
)
from hsm_core.protocols import Entropy, MasterKeySource

_DRAWN_BYTES: Final = 32

_ROOT: Final = bytes(range(0x00, 0x20))
_MATERIAL: Final = bytes(range(0x60, 0x80))
SEALED_RING: Final = bytes.fromhex(
    "46484b5201000000504648525401a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0"
    "a0a0a0a0a0a0a0a0a1a1a1a1a1a1a1a1a1a1a1a1bdc146151a143fa5f15bf5f95dd143faf561"
    "92b87526c698b0a3857d8868424648525401a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2"
    "a2a2a2a2a2a2a2a2a2a2a2a2a3a3a3a3a3a3a3a3a3a3a3a3ea7b027ebe52bfbc29df5786d8da"
    "58fe2b9738d716ef562a02544eaae5bf48d8d7af98e015640b849170dc40443c8f1ac50f6c83"
    "7a6be170d27629e2fdef84c583f5e1e63843f162ad9799f21b561d7e226b4c0dc77edfa07d2f"
    "46f1e876c55bce76cbc0946e93caf58f60e7644b07d0eddf4f2e9d3ea243cce7f345f70a4f8d"
    "f27b2a1f0e0a74aca1d21505d54e75811f5a5b6ed06b5b3b190aea31a481a39ec6e8fc4cff2f"
    "128e140561814d7e2eed1a010d10e8abe5a02168f0253852d49ebc550b411450212a52d5b465"
    "5fc86c1e5d8d6a977c66370dc8979c78ed14f8c19298d92a6c5b7324210be71f27e4a8dd8625"
    "2b21d95804c9b02192f34236072c6bbcf9c8ae66d837806bfb967e52ef8d7823ce1b5d40"
)
SEALED_BLOB: Final = bytes.fromhex(
    "46484b4201f0f1f2f3f4f5f6f7a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4"
    "a4a4a4a4a4a4a4a5a5a5a5a5a5a5a5a5a5a5a517a8d737212cf4549948ff7bfe5152d6a66146"
    "500d6a8fc2d71502dd4eb51a0d42fe716234642e128d22ac2a5b13021d"
)
_BLOB_CONTEXT: Final = BlobContext(
    key_id="3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11",
    version=1,
    material_id="8a6e0804-2bd0-4672-b79d-d97027f9071a",
    algorithm="AES-256-GCM",
    usages=("encrypt", "decrypt"),
)
SEALED_APPROVAL: Final = bytes.fromhex(
    "46484b4101f0f1f2f3f4f5f6f7a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6"
    "a6a6a6a6a6a6a6a7a7a7a7a7a7a7a7a7a7a7a79124895ffb70a0b6e1123c6eaa13dc8cbb3d77"
    "afba60c63a510ffb3e634c54e31ede9f7523a74d070e87975636715832"
)
APPROVAL_ID: Final = "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"

AUDIT_KEY: Final = bytes(range(32))
LOG_ID: Final = "00112233445566778899aabbccddeeff"

_APPROVER_KEYS: Final[Mapping[Algorithm, str]] = MappingProxyType(
    {
        Algorithm.ED25519: (
            "ssh-ed25519 "
            "AAAAC3NzaC1lZDI1NTE5AAAAIPxRzY5iGKGjjaR+0AIw8FgIFu0TujMDrF3rkRVIkIAl"
        ),
        Algorithm.EC_P256: (
            "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBB"
            "BzL6RwHX8f08DO/okjbj8zTVl3pS7+xLzxZ/0bCcb+DzkAUxogR+aIaH9ssDmET4G23ypO3QE"
            "543HzNXKiaTKk="
        ),
    }
)
"""Public keys of the known-answer signatures."""

HASHING: Final[Mapping[str, tuple[Callable[[], bytes], str]]] = MappingProxyType(
    {
        "SHA-256": (
            lambda: hashlib.sha256(b"abc").digest(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        "HMAC-SHA-256": (
            lambda: hmac.digest(b"Jefe", b"what do ya want for nothing?", "sha256"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        "pre-keyed HMAC-SHA-256": (
            lambda: mac_function(b"Jefe", b"what do ya ")(b"want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        "HMAC-SHA-256 under a long key": (
            lambda: mac_function(bytes([0xAA]) * 131)(
                b"Test Using Larger Than Block-Size Key - Hash Key First"
            ),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        "HKDF-SHA-256": (
            lambda: hkdf_sha256(
                bytes([0x0B]) * 22,
                salt=bytes(range(13)),
                info=bytes(range(0xF0, 0xFA)),
                length=42,
            ),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
            "34007208d5b887185865",
        ),
        "HKDF-SHA-256 without salt": (
            lambda: hkdf_sha256(bytes([0x0B]) * 22, salt=b"", info=b"", length=42),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
            "9d201395faa4b61a96c8",
        ),
        "audit record MAC": (
            lambda: record_mac_function(AUDIT_KEY, LOG_ID)(b"abc"),
            "ec9ebbea78060988e4673b7a78269b3a617488a773195f4a8955e669c2d386d0",
        ),
        "audit head mark MAC": (
            lambda: mark_mac_function(AUDIT_KEY, LOG_ID)(b"abc"),
            "ee9769e48594cea7bbe34dd6f0ca107aaa29c56d33d64c2d65ba21f18f24ca21",
        ),
        "audit baseline MAC": (
            lambda: baseline_mac(AUDIT_KEY, LOG_ID).digest(),
            "8fb52cb72abeca22077033e9168f5fa4a8c71fe5a27f91ffeb7366cb17e671f1",
        ),
        "audit key check value": (
            lambda: key_check_value(AUDIT_KEY),
            "9d5a598569d63b28e29895c4f2954902d7e78e96480c2f3dcd299396ee8d8642",
        ),
    }
)
"""Hash-only known-answer tests, with the expected output in hex."""

RING_MACS: Final[Mapping[str, tuple[Callable[[KeyRing], bytes | str | int], str]]] = (
    MappingProxyType(
        {
            "document MAC": (
                lambda ring: ring.document_mac(b"abc"),
                "ae628fc945925c8cf0f553bd507f65bfd7ed9731eb9466c1319ec023023e4571",
            ),
            "account MAC": (
                lambda ring: ring.account_mac(b"abc"),
                "c7c33f494df18c30ae2a92ca64adce7da20c5aafab260ef54f145436fb069b67",
            ),
            "cluster MAC": (
                lambda ring: ring.cluster_mac(b"abc"),
                "d48df81f8160db12be0c9fa8b79936abe82a9a3791aab11aad95e4f9446a5c09",
            ),
            "clock MAC": (
                lambda ring: ring.jumps_mac(b"abc"),
                "abfa14611ad16f823716027d70e1d26e1218a3f241cd93fac7980fac69430c19",
            ),
            "retention MAC": (
                lambda ring: ring.retention_mac(b"abc"),
                "c75375ac661bb9edc0e6f9ae3331d6557cb9f97e73b872b635c5ba76fcf6b474",
            ),
            "use counter MAC": (
                lambda ring: ring.counter_mac("a", b"bc"),
                "fb5ec73c56712fdd40325ff3c5bd3ff3ef0afd72f89b1e5fe3fa668c810f9fec",
            ),
            "approval MAC": (
                lambda ring: ring.approval_mac(b"abc"),
                "75b44ec0785292a1acebedc7c05f9e38eedde70b138ce6a3bc5153fbbb9479f1",
            ),
            "operation id": (
                lambda ring: ring.operation_id("a", "bc"),
                "b9847b855bce11d84fde56536cb44bbc",
            ),
            "payload digest": (
                lambda ring: ring.payload_digest(b"abc"),
                "13ac6695ed24591c8cb96721028d654e5362c3bbd4a9bca7fc4a49999f230221",
            ),
            "approval digest": (
                lambda ring: ring.approval_digest(b"abc"),
                "24fa68e483aa61006b2f38a6fc194c53bc92ea205abc628f1848f2adffff5fdb",
            ),
            "credential mark": (
                lambda ring: ring.credential_mark("abc"),
                "2c0240a2042ede1c1abdb8f956979727d2975116a76ef5a5ba98c3107fcb1daa",
            ),
            "set element": (
                lambda ring: ring.set_element("a", 1, "bc"),
                "b9962cd47e2bb2562c770d52d0266a2f1234f4ee0a9d2ad21b520b314a31417c",
            ),
            "approval element": (
                lambda ring: ring.approval_element("a", 1, "bc"),
                "f0544d3fff11afe40b7a7cca8baec6e5204ffdee31bdefe926262c57eb70b5c2",
            ),
            "bucket part": (
                lambda ring: ring.bucket_part(1, 2),
                "caeb0c4d4477b16ec24495abb9d1d073fc5893e1c51c9c9d0ddfb9cba656a019",
            ),
        }
    )
)
"""Known-answer tests of values derived from the published ring's integrity secret."""


class _KnownEntropy:
    """Draws of one repeated byte each: salt and nonce of the published vectors."""

    def __init__(self, *draws: tuple[int, int]) -> None:
        self._drawn = iter(draws)

    def random_bytes(self, length: int, /) -> bytes:
        """Return a salt of 32 bytes and a nonce."""
        salt, nonce = next(self._drawn)
        return (bytes([salt]) * 32 + bytes([nonce]) * 12)[:length]


def own_self_test(entropy: Entropy) -> None:
    """
    Test sealing, MACs, digests, consent signatures and the random source.

    Takes about three milliseconds.

    Args:
        entropy: Source of every key, salt and nonce.

    Raises:
        SelfTestFailedError: A result is not the known one, or something altered was
            accepted; *reason* says which.
        EntropyUnavailableError: The random source repeats itself.
        UnavailableError: A test can't be run now, as without file descriptors.
    """
    audit_self_test()
    _run("sealing", _test_sealing)
    _run("approver signature", _test_consent_signatures)
    _test_randomness(entropy)


def root_self_test(root: MasterKeySource) -> None:
    """
    Have the root open a text that it sealed, and refuse it altered.

    Raises:
        SelfTestFailedError: It does not.
        UnavailableError: It can't do so now, as without randomness.
    """
    _run("root key", partial(_test_root, root))


def audit_self_test() -> None:
    """
    Test the hashes and MACs of the audit log; all that a verifier of it needs.

    Raises:
        SelfTestFailedError: A result is not the known one.
    """
    for name, (compute, known) in HASHING.items():
        _run(name, partial(_check_known, name, compute, known))
    record_mac = record_mac_function(AUDIT_KEY, LOG_ID)
    _run("audit record", partial(_test_framed, "audit record", record_mac))


def _test_sealing() -> None:
    """Seal the published vectors again, open them, and refuse them altered."""
    ring = KeyRing.open(RootKey(_ROOT), SEALED_RING)
    sealing_root = RootKey(_ROOT, entropy=_KnownEntropy((0xA0, 0xA1), (0xA2, 0xA3)))
    _expect("sealed ring", ring.seal(sealing_root), SEALED_RING.hex())
    blob = ring.seal_material(
        _MATERIAL, context=_BLOB_CONTEXT, entropy=_KnownEntropy((0xA4, 0xA5))
    )
    _expect("sealed blob", blob, SEALED_BLOB.hex())
    material = ring.open_material(SEALED_BLOB, context=_BLOB_CONTEXT)
    _expect("opened blob", material, _MATERIAL.hex())
    _expect_refusal(
        "sealed blob",
        lambda: ring.open_material(_altered(SEALED_BLOB), context=_BLOB_CONTEXT),
    )
    approval = ring.seal_approval(
        _MATERIAL, approval_id=APPROVAL_ID, entropy=_KnownEntropy((0xA6, 0xA7))
    )
    _expect("sealed approval", approval, SEALED_APPROVAL.hex())
    opened = ring.open_approval(SEALED_APPROVAL, approval_id=APPROVAL_ID)
    _expect("opened approval", opened, _MATERIAL.hex())
    for name, (derive, known) in RING_MACS.items():
        _expect(name, derive(ring), known)
    _test_framed("document", ring.document_mac)


def _test_framed(name: str, mac_of: Callable[[bytes], bytes]) -> None:
    """Accept an authenticated record or document, and refuse it altered."""
    for mac, accepted in ((mac_of(b"abc"), b"abc"), (_altered(mac_of(b"abc")), None)):
        framed = encoding.join(b"test", b"abc", mac)
        if encoding.check(b"test", framed, mac_of) != accepted:
            wrong = "refused a known" if accepted else "accepted an altered"
            raise _WrongResultError(f"{wrong} {name}")


def _test_consent_signatures() -> None:
    """Verify a known signature with each kind of key, and refuse it altered."""
    for algorithm, line in _APPROVER_KEYS.items():
        answers, keys = known_answers(algorithm), [read_approver_key(line)]
        signature, message = answers["signature"], answers["message"]
        verify_consent(signature, message, keys)
        _expect_refusal(
            f"approver signature of {algorithm}",
            partial(verify_consent, signature, _altered(message), keys),
        )


def _test_root(root: MasterKeySource) -> None:
    context = b"hsm-core/self-test/1"
    sealed = root.seal(b"self-test", context)
    _expect("root key", root.open(sealed, context), b"self-test".hex())
    _expect_refusal(
        "text sealed by the root key", partial(root.open, _altered(sealed), context)
    )


def _test_randomness(entropy: Entropy) -> None:
    """Compare two draws (SP 800-90B, section 4.4.1, on blocks)."""
    first, second = (entropy.random_bytes(_DRAWN_BYTES) for _ in range(2))
    if first == second or {len(first), len(second)} != {_DRAWN_BYTES}:
        raise EntropyUnavailableError


class _WrongResultError(Exception):
    """A result is not the known one; the message says which."""


def _run(name: str, test: Callable[[], None]) -> None:
    """Run a test; whatever goes wrong in it is its failure, but for a shortage."""
    try:
        test()
    except SelfTestFailedError as error:
        raise _failure(name, error) from error
    except (UnavailableError, MemoryError):
        raise
    except OSError as error:
        raise UnavailableError(f"The self-test of {name} can't be run now.") from error
    except Exception as error:
        raise _failure(name, error) from error


def _failure(name: str, error: Exception) -> SelfTestFailedError:
    is_wrong = isinstance(error, _WrongResultError)
    reason = str(error) if is_wrong else f"{name} raised {type(error).__name__}"
    return SelfTestFailedError(
        f"The self-test of the HSM's own cryptography failed: {reason}.", reason=reason
    )


def _check_known(name: str, compute: Callable[[], bytes], known: str) -> None:
    _expect(name, compute(), known)


def _expect(name: str, computed: bytes | str | int, known: str) -> None:
    match computed:
        case bytes():
            written = computed.hex()
        case int():
            written = f"{computed:064x}"
        case _:
            written = computed
    if written != known:
        raise _WrongResultError(f"wrong {name}")


def _expect_refusal(name: str, attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except UnavailableError:
        raise
    except HSMError:
        return
    raise _WrongResultError(f"accepted an altered {name}")


def _altered(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])
