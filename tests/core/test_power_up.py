# SPDX-License-Identifier: MIT
"""Faults of what protects store and trail: nothing is opened, created or written."""

from __future__ import annotations

import errno
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import Mock

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hsm_core._internal.approvals import signatures
from hsm_core._internal.audit import keys as audit_keys
from hsm_core._internal.handlers import power_up
from hsm_core._internal.keyring import key_ring
from hsm_core._internal.keyring.key_ring import RootKey
from hsm_core._internal.lib import encoding
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.approver_keys import ApproverKey
from hsm_core.errors import (
    EntropyUnavailableError,
    HSMError,
    SelfTestFailedError,
    UnavailableError,
    WrongMasterKeyError,
)
from hsm_core.factory import open_hsm, open_verifier
from hsm_core.protocols import Entropy, MasterKeySource
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller, memory_hsm
from tests.core.key_vectors import (
    KEK,
    KEK_ID,
    MATERIAL,
    STORE_ID,
    derive,
    mac,
    prefixed,
    seal,
    vectors,
)

MASTER_KEY, HMAC_KEY = bytes(range(32)), bytes(range(32, 64))


class GarblingAES:
    """AES-GCM that garbles what it encrypts."""

    def __init__(self, key: bytes) -> None:
        self._true = AESGCM(key)

    def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Return a ciphertext with one wrong bit."""
        return flipped(self._true.encrypt(nonce, data, aad))

    def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Decrypt as AES-GCM does."""
        return self._true.decrypt(nonce, data, aad)


class TrustingAES(GarblingAES):
    """AES-GCM that takes any tag for a right one."""

    def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Encrypt as AES-GCM does."""
        return self._true.encrypt(nonce, data, aad)

    def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Decrypt whatever it is given."""
        try:
            return super().decrypt(nonce, data, aad)
        except InvalidTag:
            stream = self._true.encrypt(nonce, bytes(len(data) - 16), aad)
            return bytes(a ^ b for a, b in zip(stream, data[:-16], strict=False))


class StuckEntropy:
    """A random source that gives the same bytes each time."""

    def random_bytes(self, length: int, /) -> bytes:
        """Return zeros."""
        return bytes(length)


class ForgetfulRoot(MasterKeySource):
    """A root that opens nothing of what it sealed."""

    def seal(self, plaintext: bytes, context: bytes, /) -> bytes:
        """Seal with a key that is thrown away."""
        return RootKey(bytes(32)).seal(plaintext, context)

    def open(self, blob: bytes, context: bytes, /) -> bytes:
        """Open with another one."""
        raise WrongMasterKeyError


class BusyRoot(MasterKeySource):
    """A root that can be reached once."""

    def __init__(self) -> None:
        self._root = RootKey(bytes(32))
        self._opened = 0

    def seal(self, plaintext: bytes, context: bytes, /) -> bytes:
        """Seal."""
        return self._root.seal(plaintext, context)

    def open(self, blob: bytes, context: bytes, /) -> bytes:
        """Open, the first time."""
        self._opened += 1
        if self._opened > 1:
            raise UnavailableError("The root key can't be reached now.")
        return self._root.open(blob, context)


def flipped(value: bytes) -> bytes:
    """Return *value* with its last bit the other way round."""
    return value[:-1] + bytes([value[-1] ^ 1])


def wrong_hkdf(key: bytes, *, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """Derive with HKDF, without the info."""
    return encoding.hkdf_sha256(key, salt=salt, info=b"", length=length)


def wrong_mac(key: bytes, domain: bytes = b"") -> Callable[[bytes], bytes]:
    """Return HMAC-SHA-256 that forgets the domain and a bit."""
    return lambda data: flipped(hmac.digest(key, data, "sha256"))


def trusting(
    signature: bytes, message: bytes, keys: Iterable[ApproverKey]
) -> ApproverKey:
    """Take any signature for a right one."""
    return next(iter(keys))


FAULTS: list[tuple[object, str, object, str]] = [
    (key_ring, "AESGCM", GarblingAES, "sealing raised SelfTestFailedError"),
    (key_ring, "AESGCM", TrustingAES, "accepted an altered"),
    (key_ring, "hkdf_sha256", wrong_hkdf, "sealing raised WrongMasterKeyError"),
    (key_ring, "mac_function", wrong_mac, "wrong document MAC"),
    (audit_keys, "hkdf_sha256", wrong_hkdf, "wrong audit"),
    (audit_keys, "mac_function", wrong_mac, "wrong audit record MAC"),
    (hashlib, "sha256", hashlib.sha3_256, "wrong SHA-256"),
    (hmac, "compare_digest", lambda one, other: True, "accepted an altered audit rec"),
    (hmac, "compare_digest", lambda one, other: False, "refused a known audit record"),
    (hmac, "digest", lambda key, data, name: bytes(32), "wrong HMAC-SHA-256"),
    (
        signatures,
        "_is_good",
        lambda key, signature, message: True,
        "accepted an altered approver signature",
    ),
    (
        signatures,
        "_is_good",
        lambda key, signature, message: False,
        "approver signature raised SignatureMismatchError",
    ),
]
"""What computes wrongly, and what the failure says."""


def settings_in(folder: Path) -> Settings:
    """Return the settings of an HSM whose files lie in a folder."""
    return Settings(key_dir=folder / "keys", audit_log=folder / "audit.log")


def refused(folder: Path, **changed: Entropy | MasterKeySource) -> HSMError:
    """Return the error with which an HSM does not open; nothing was made of it."""
    given = {"master_key": MASTER_KEY, "hmac_key": HMAC_KEY} | changed
    with pytest.raises(HSMError) as caught:
        open_hsm(settings_in(folder), **given)  # type: ignore[arg-type]
    assert [] == list(folder.iterdir())
    return caught.value


@pytest.mark.parametrize(("module", "name", "wrong", "reason"), FAULTS)
def test_fault_ends_the_start(
    module: object,
    name: str,
    wrong: object,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A fault in what seals, authenticates or verifies is found before a store is made.
    """
    monkeypatch.setattr(module, name, wrong)

    error = refused(tmp_path)
    monkeypatch.undo()

    assert isinstance(error, SelfTestFailedError)
    assert re.search(reason, str(error))


@pytest.mark.parametrize("lack", [MemoryError(), OSError(errno.EMFILE, "")], ids=str)
def test_a_shortage_is_no_fault(
    lack: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Cryptography that can't be tested for lack of something has not failed.
    """
    with monkeypatch.context() as patch:
        patch.setattr(power_up, "known_answers", Mock(side_effect=lack))
        with pytest.raises((MemoryError, UnavailableError)) as found:
            power_up.own_self_test(SystemEntropy())

    assert not isinstance(found.value, SelfTestFailedError)
    power_up.own_self_test(SystemEntropy())


def test_random_source_that_repeats_itself(tmp_path: Path) -> None:
    """
    An HSM does not open over a random source that gives the same bytes twice.
    """
    assert isinstance(
        refused(tmp_path, entropy=StuckEntropy()), EntropyUnavailableError
    )


def test_root_that_does_not_open_what_it_seals(tmp_path: Path) -> None:
    """
    A root that opens nothing of what it sealed is found before it seals a key ring.
    """
    error = refused(tmp_path, master_key=ForgetfulRoot())

    assert "root key raised WrongMasterKeyError" in str(error)


def test_root_that_becomes_unavailable(tmp_path: Path) -> None:
    """
    A root that can't be reached has not refused what was altered.
    """
    error = refused(tmp_path, master_key=BusyRoot())

    assert isinstance(error, UnavailableError)
    assert "can't be reached" in str(error)


def test_fault_that_appears_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A key whose sealed form does not open is not acknowledged, and does not exist.
    """
    session = Session(memory_hsm().act_as(caller()))
    monkeypatch.setattr(key_ring, "AESGCM", GarblingAES)

    with pytest.raises(SelfTestFailedError, match="could not be opened"):
        session.create_key("AES-256-GCM", name="lost")

    with pytest.raises(SelfTestFailedError, match="HSM's own cryptography"):
        session.self_test()
    monkeypatch.undo()
    assert [] == list(session.keys())
    session.create_key("AES-256-GCM", name="lost")


def test_verifier_of_a_trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A verifier whose MAC is wrong says so, and does not call a good trail damaged.
    """
    monkeypatch.setattr(audit_keys, "mac_function", wrong_mac)

    with pytest.raises(SelfTestFailedError, match="wrong audit record MAC"):
        open_verifier(tmp_path / "audit.log", HMAC_KEY)


def test_known_answers_are_those_of_the_formats() -> None:
    """
    What is expected of ring and trail follows from the description of the formats.
    """
    store, one = STORE_ID.encode(), (1).to_bytes(8, "big")
    derived = {
        "document MAC": mac(b"hsm-core/document-mac/1", b"abc"),
        "account MAC": mac(b"hsm-core/store-account/1", b"abc"),
        "cluster MAC": mac(b"hsm-core/cluster-state/1", b"abc"),
        "clock MAC": mac(b"hsm-core/clock-leaps/1", b"abc"),
        "retention MAC": mac(b"hsm-core/retention-state/1", b"abc"),
        "use counter MAC": mac(b"hsm-core/use-counter/1", prefixed(store, b"a", b"bc")),
        "approval MAC": mac(b"hsm-core/approval-mac/1", prefixed(store, b"abc")),
        "operation id": mac(b"hsm-core/operation-id/1", prefixed(b"a", b"bc"))[:16],
        "payload digest": mac(b"hsm-core/payload-digest/1", b"abc"),
        "approval digest": mac(b"hsm-core/approval-digest/1", prefixed(b"abc")),
        "credential mark": mac(b"hsm-core/credential-key/1", prefixed(store, b"abc")),
        "set element": mac(b"hsm-core/set-digest/1", prefixed(b"a", one, b"bc")),
        "approval element": mac(b"hsm-core/approval-set/1", prefixed(b"a", one, b"bc")),
        "bucket part": mac(
            b"hsm-core/store-bucket/1",
            (1).to_bytes(4, "big") + (2).to_bytes(32, "big"),
        ),
    }
    approval = seal(
        KEK,
        b"FHKA\x01" + bytes.fromhex(KEK_ID),
        b"hsm-core/approval-seal/1",
        prefixed(store, power_up.APPROVAL_ID.encode()),
        MATERIAL,
        0xA6,
    )
    page = vectors()

    assert {name: value.hex() for name, value in derived.items()} == {
        name: known for name, (_, known) in power_up.RING_MACS.items()
    }
    assert approval == power_up.SEALED_APPROVAL
    assert page["sealed ring"] == power_up.SEALED_RING.hex()
    assert page["sealed blob"] == power_up.SEALED_BLOB.hex()
    for name, number in (("record", 2), ("head mark", 1)):
        label = f"FerroHSM audit {name} {number}".encode()
        log_id = bytes.fromhex(power_up.LOG_ID)
        key = derive(power_up.AUDIT_KEY, log_id, prefixed(label, bytes(8)))
        tag = hmac.digest(key, label + b"\0abc", "sha256").hex()
        assert tag == power_up.HASHING[f"audit {name} MAC"][1]
