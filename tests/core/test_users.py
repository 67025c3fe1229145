# SPDX-License-Identifier: MIT
"""Users and keys as objects, for programs that block and for event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import hsm_core
from hsm_core import aio, errors
from hsm_core.model import ApprovalState, Integrity
from hsm_core.users import Key, User

DUAL = """version: 1
extends: default
rules:
  - name: two-people
    effect: require-approval
    match: {operations: [DestroyKey]}
"""


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hsm_core.EmbeddedHSM]:
    """Give an HSM in memory in which two people end a key."""
    policy = tmp_path_factory.mktemp("policy") / "policy.yaml"
    policy.write_text(DUAL)
    policy.chmod(0o600)
    with hsm_core.open(":memory:", policy=policy) as opened:
        yield opened


@pytest.fixture
def ada(hsm: hsm_core.EmbeddedHSM) -> User:
    """Give somebody who may use and manage keys."""
    return hsm.as_user("ada", roles=["operator", "administrator"])


def test_who(ada: User) -> None:
    """Users learn who they are to the HSM, and how it is."""
    assert ("ada", ("Administrator", "Operator")) == (
        ada.whoami().principal,
        ada.whoami().roles,
    )
    assert "<CallerInfo principal=ada>" == repr(ada.whoami())
    assert repr(ada.status()).startswith("<HSMStatus state=operational")


def test_encryption(ada: User) -> None:
    """A key encrypts, decrypts and rewraps, and refuses other data."""
    key = ada.create("AES-256-GCM")
    ciphertext = key.encrypt(b"secret", b"row 1")
    key.rotate()

    assert key.decrypt(key.rewrap(ciphertext, b"row 1"), b"row 1") == b"secret"
    with pytest.raises(hsm_core.DecryptionError):
        key.decrypt(ciphertext, b"row 2")
    data_key = key.data_key()
    assert len(data_key.plaintext or b"") == 32


def test_macs(ada: User) -> None:
    """A key computes MACs, and verifies them with every version."""
    key = ada.create("HMAC-SHA-256")
    mac = key.mac(b"hello")
    key.rotate()

    assert key.verify_mac(b"hello", mac) == 1
    with pytest.raises(errors.MacMismatchError):
        key.verify_mac(b"hullo", mac)


def test_kems(ada: User) -> None:
    """A KEM key seals messages and decapsulates secrets."""
    key = ada.create("ML-KEM-768", usages=["encrypt", "decrypt"])
    kem = ada.create("ML-KEM-768")
    made = kem.encapsulate()

    assert key.open(key.seal(b"letter", b"aad"), b"aad") == b"letter"
    assert kem.decapsulate(made.ciphertext) == made.shared_secret


def test_the_life_of_a_key(ada: User) -> None:
    """Changes are shown by the object that made them."""
    key = ada.create("Ed25519", name="life", tags=["a"], staged=True)
    other = ada.key("life")
    assert repr(other) == "<Key life Ed25519 version 1 of 1, staged>"
    key.activate()
    assert repr(other.refresh()) == "<Key life Ed25519 version 1 of 1, active>"
    assert key.suspend(reason="audit").state == "suspended"
    assert key.resume().state == "active"
    key.rotate().rollback(1)
    assert [v.version for v in key.versions()] == [1, 2, 3]
    key.edit(name="lives", tags=["b"])
    assert (key.name, key.info.tags) == ("lives", ("b",))
    assert "BEGIN PUBLIC KEY" in key.public_key().pem
    assert key.revoke(reason="lost").state == "revoked"
    assert key.id in [found.id for found in ada.keys(tags=["b"])]


def test_exist_ok(ada: User) -> None:
    """An existing key is returned, if it is of the same algorithm."""
    key = ada.create("EC-P256", name="existing")

    assert ada.create("secp256r1", name="existing", exist_ok=True).id == key.id
    with pytest.raises(errors.ConflictError, match="exists with the algorithm EC-P256"):
        ada.create("Ed25519", name="existing", exist_ok=True)
    with pytest.raises(errors.NameTakenError, match="pass exist_ok=True"):
        ada.create("EC-P256", name="existing")
    with pytest.raises(hsm_core.KeyNotFoundError, match="no key 'absent', or this"):
        ada.key("absent")
    assert [k.name for k in ada.keys(state="active", search="exist")] == ["existing"]
    with pytest.raises(errors.InvalidInputError, match="Unknown state 'bogus'"):
        next(ada.keys(state="bogus"))
    assert ada.create("EC-P256", exist_ok=True).id != key.id


def test_approvals(hsm: hsm_core.EmbeddedHSM, ada: User) -> None:
    """Another person approves what they have seen, and only that."""
    grace = hsm.as_user("grace", roles=["auditor"])
    key = ada.create("Ed25519", name="dual")
    with pytest.raises(hsm_core.ApprovalRequiredError) as caught:
        key.destroy()
    (asked,) = grace.approvals(ApprovalState.PENDING)
    assert asked.approval_id == caught.value.facts["approval_id"]

    with pytest.raises(errors.InvalidInputError, match="must be an ApprovalInfo"):
        grace.approve(asked.approval_id)  # type: ignore[arg-type]
    assert grace.approve(asked, comment="CHG-411").state == ApprovalState.GRANTED
    granted = ada.under(asked.approval_id).key("dual").destroy()

    assert granted.state == "destroyed"
    assert ada.approval(asked.approval_id).state == ApprovalState.CONSUMED


def test_denied_and_cancelled_approvals(hsm: hsm_core.EmbeddedHSM, ada: User) -> None:
    """A request can be denied by another person, and cancelled by the requester."""
    grace = hsm.as_user("grace", roles=["auditor"])
    for name in ("denied", "cancelled"):
        with pytest.raises(hsm_core.ApprovalRequiredError):
            ada.create("Ed25519", name=name).destroy()
    first, second = ada.approvals(ApprovalState.PENDING)

    assert ada.cancel(first).state == ApprovalState.CANCELLED
    assert grace.deny(second, reason="still used").state == ApprovalState.DENIED


def test_text_is_not_bytes(ada: User) -> None:
    """The error says how to make bytes of text."""
    key = ada.create("Ed25519")

    with pytest.raises(errors.InvalidInputError, match=r"message\.encode\(\)"):
        key.sign("hello")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidInputError, match="must be bytes, got int"):
        key.verify(b"hello", 5)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidInputError, match="Unknown usage 'fly'"):
        ada.create("Ed25519", usages=["fly"])
    with pytest.raises(errors.InvalidInputError, match="tags must be several strings"):
        ada.create("Ed25519", tags="a")


def test_the_audit_log(hsm: hsm_core.EmbeddedHSM, ada: User) -> None:
    """Events of a key are listed for those who may see them."""
    key = ada.create("Ed25519")
    key.sign(b"hello")

    kinds = [entry.event.kind for entry in hsm.audit.events(key=key.id)]

    assert kinds == ["Sign", "CreateKey", "CreateKey"]
    with pytest.raises(hsm_core.AccessDeniedError):
        hsm.as_user("eve", roles=["service"]).audit.events()


def test_status_and_randomness(ada: User) -> None:
    """A user sees the health of the HSM, and gets random bytes."""
    assert ada.status().audit.available
    assert len(ada.random(16)) == 16


def test_a_damaged_key_says_so(ada: User) -> None:
    """The representation does not hide that the stored form was altered."""
    key = ada.create("Ed25519")
    damaged = type(key.info)(
        key_id=key.id,
        algorithm=None,
        version=0,
        state=None,
        integrity=Integrity.TAMPERED,
        generation=0,
        created_at=None,
        updated_at=None,
    )

    assert repr(Key(ada, damaged)) == f"<Key {key.id}, damaged>"


async def test_the_asynchronous_twin(tmp_path: Path) -> None:
    """The same lines run on an event loop, and each other goes on meanwhile."""
    root = tmp_path / "root.key"
    async with aio.open(tmp_path / "keys", root=root, create=True) as hsm:
        ada = hsm.as_user("ada", roles=["operator", "auditor"])
        key = await ada.create("ML-DSA-65", name="release", exist_ok=True)
        signatures = await asyncio.gather(*(key.sign(b"%d" % n) for n in range(8)))
        for number, signature in enumerate(signatures):
            assert await key.verify(b"%d" % number, signature) == 1
        with pytest.raises(hsm_core.InvalidSignature):
            await key.verify(b"other", signatures[0])
        await key.rotate()
        assert repr(key) == "<AsyncKey release ML-DSA-65 version 2 of 2, active>"
        assert [found.name async for found in ada.keys()] == ["release"]
        assert (await ada.audit.verify()).records > 10
        (newest,) = await hsm.audit.events(limit=1, kinds=["Sign"])
        assert newest.event.key_id == key.id
        assert repr(ada) == "<AsyncUser ada (auditor, operator)>"
    assert repr(hsm) == f"<AsyncEmbeddedHSM {tmp_path}/keys, closed>"


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_opening_releases_the_store(
    tmp_path: Path, times: int
) -> None:
    """An opening that nobody waits for any more leaves no lock behind."""
    opening = aio.open(tmp_path / "keys", root=b"r" * 32, create=True)
    task = asyncio.ensure_future(opening.__aenter__())
    for _ in range(times):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.get_running_loop().shutdown_default_executor()

    with hsm_core.open(tmp_path / "keys", root=b"r" * 32, create=True) as hsm:
        assert repr(hsm).startswith("<EmbeddedHSM")


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_closing_ends_with_the_store_released(
    tmp_path: Path, times: int
) -> None:
    """A task that is cancelled while the HSM closes leaves no lock behind."""
    opening = aio.open(tmp_path / "keys", root=b"r" * 32, create=True)
    await opening.__aenter__()
    task = asyncio.ensure_future(opening.__aexit__(None, None, None))
    for _ in range(times):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with aio.open(tmp_path / "keys", root=b"r" * 32) as hsm:
        assert repr(hsm).startswith("<AsyncEmbeddedHSM")
