# SPDX-License-Identifier: MIT
"""Consents that are signed: demanded, checked, recorded, and checked by others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm_core._internal.approvals import signatures as signing
from hsm_core._internal.approvals.signatures import ConsentAudit, consent_text
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core.approver_keys import ApproverKey, read_key_lines
from hsm_core.consent import shown_sha256, statement
from hsm_core.errors import (
    ApprovalRequiredError,
    AuditTamperedError,
    InvalidInputError,
    SignatureMismatchError,
)
from hsm_core.factory import OpenHSM, open_verifier
from hsm_core.model import ApprovalState, AuditEvent, KeyState, Role
from hsm_core.policies import parse_policy
from hsm_core.session import Session
from hsm_core.settings import AuditStoreKind, KeyStoreKind, Settings
from hsm_core.testing import caller
from tests.self_tests import open_tested

BOB = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
EVE = Ed25519PrivateKey.from_private_bytes(bytes(32))
HMAC = b"\x02" * 32


def line(key: Ed25519PrivateKey) -> str:
    """Return a public key as OpenSSH writes it."""
    form = (Encoding.OpenSSH, PublicFormat.OpenSSH)
    return key.public_key().public_bytes(*form).decode()


def policy(*people: str, signed: bool = True) -> str:
    """Return a policy under which keys are destroyed with a signed consent."""
    named = "".join(f"  {person}\n" for person in people) or "  {}\n"
    return f"""version: 1
extends: default
rules:
  - name: signed-destruction
    effect: require-approval
    match: {{operations: [DestroyKey]}}
    approval: {{roles: [Auditor], signed: {str(signed).lower()}}}
approvers:
{named}"""


ONE = f"bob: ['{line(BOB)}']"


@pytest.fixture(
    params=[AuditStoreKind.FILE, AuditStoreKind.SQLITE], ids=lambda kind: kind.value
)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenHSM]:
    """Give an HSM with its trail on disk, in either form, under such a policy."""
    (tmp_path / "policy.yaml").write_text(policy(ONE))
    settings = Settings(
        key_store=KeyStoreKind.MEMORY,
        audit_store=request.param,
        audit_log=tmp_path / "audit.log",
        audit_sqlite_path=tmp_path / "audit.sqlite",
        approval_dir=tmp_path / "approvals",
        policy_config=tmp_path / "policy.yaml",
    )
    with open_tested(settings) as hsm:
        yield hsm


def check(tmp_path: Path, consents: ConsentAudit) -> None:
    """Verify the trail that was closed, its signatures included."""
    database = tmp_path / "audit.sqlite"
    path = database if database.exists() else tmp_path / "audit.log"
    open_verifier(path, HMAC).verify(None, consents.look)


def ask(alice: Session) -> str:
    """Ask for a destruction; return the approval's id."""
    with pytest.raises(ApprovalRequiredError) as caught:
        alice.destroy("k")
    return str(caught.value.facts["approval_id"])


def asked(opened: OpenHSM) -> tuple[Session, Session, str]:
    """Return alice, who has asked for a destruction, bob, who may agree, and its id."""
    alice = Session(opened.act_as(caller(principal="alice")))
    alice.create_key("AES-256-GCM", name="k")
    bob = Session(opened.act_as(caller(Role.AUDITOR, principal="bob")))
    return alice, bob, ask(alice)


def sign(
    bob: Session,
    approval_id: str,
    key: Ed25519PrivateKey = BOB,
    *,
    granted: bool = True,
) -> bytes:
    """Return bob's signature over what he is shown."""
    found = bob.approval(approval_id)
    digest = shown_sha256(found.salt, found.operation)
    return key.sign(statement(approval_id, digest, granted=granted))


def agree(bob: Session, approval_id: str, signature: bytes | None) -> None:
    """Agree as bob."""
    digest = bob.approval(approval_id).digest
    bob.approve(approval_id, digest=digest, signature=signature)


def test_signed(opened: OpenHSM, tmp_path: Path) -> None:
    """What is signed serves, and whoever has the keys can check it later."""
    alice, bob, approval_id = asked(opened)
    agree(bob, approval_id, sign(bob, approval_id))

    assert bob.approval(approval_id).decisions[0].signed
    assert KeyState.DESTROYED is alice.destroy("k").state
    opened.close()
    consents = ConsentAudit(read_key_lines(f"bob {line(BOB)}"))
    check(tmp_path, consents)
    assert 1 == consents.checked


@pytest.mark.parametrize(
    "keys", [f"bob {line(EVE)}", f"eve {line(BOB)}", ""], ids=["other", "eve", "none"]
)
def test_checked_with_other_keys(opened: OpenHSM, tmp_path: Path, keys: str) -> None:
    """A signature that no key of that person made ends the verification."""
    _, bob, approval_id = asked(opened)
    agree(bob, approval_id, sign(bob, approval_id))
    opened.close()
    consents = ConsentAudit(read_key_lines(keys))

    with pytest.raises(AuditTamperedError) as caught:
        check(tmp_path, consents)
    assert "approval_signature" == caught.value.facts["reason"]


@pytest.mark.parametrize("granted", [True, False], ids=["granted", "denied"])
def test_an_hsm_that_lies(
    opened: OpenHSM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: bool
) -> None:
    """A consent that an HSM has made up has a good MAC, and no good signature."""

    def believe(signature: bytes, message: bytes, keys: list[ApproverKey]) -> Any:
        return keys[0]

    _, bob, approval_id = asked(opened)
    signature = bytearray(sign(bob, approval_id, granted=granted))
    signature[7] ^= 1
    with monkeypatch.context() as patch:
        patch.setattr(signing, "verify_consent", believe)
        if granted:
            agree(bob, approval_id, bytes(signature))
        else:
            bob.deny(approval_id, reason="no", signature=bytes(signature))
        opened.close()
    keys = read_key_lines(f"bob {line(BOB)}")

    with pytest.raises(AuditTamperedError, match="does not verify over this approval"):
        check(tmp_path, ConsentAudit(keys))


def test_a_signed_refusal(opened: OpenHSM, tmp_path: Path) -> None:
    """Whoever refuses may sign that; it stands in the trail and can be checked."""
    _, bob, approval_id = asked(opened)
    with pytest.raises(SignatureMismatchError):
        bob.deny(approval_id, reason="no", signature=sign(bob, approval_id))
    refusal = sign(bob, approval_id, granted=False)
    with pytest.raises(SignatureMismatchError):
        agree(bob, approval_id, refusal)
    denied = bob.deny(approval_id, reason="no", signature=refusal)

    assert ApprovalState.DENIED is denied.state
    assert denied.decisions[0].signed
    opened.close()
    consents = ConsentAudit(read_key_lines(f"bob {line(BOB)}"))
    check(tmp_path, consents)
    assert 1 == consents.checked


def test_a_refusal_need_not_be_signed(opened: OpenHSM) -> None:
    """Where a consent must be, a refusal goes without."""
    _, bob, approval_id = asked(opened)

    assert ApprovalState.DENIED is bob.deny(approval_id, reason="no").state


def test_not_signed(opened: OpenHSM) -> None:
    """Where a signature is demanded, there is no consent without a good one."""
    alice, bob, approval_id = asked(opened)
    for signature, error in (
        (None, InvalidInputError),
        (sign(bob, approval_id, EVE), SignatureMismatchError),
        (BOB.sign(b"something else"), SignatureMismatchError),
        (b"x", SignatureMismatchError),
    ):
        with pytest.raises(error):
            agree(bob, approval_id, signature)

    assert ApprovalState.PENDING is bob.approval(approval_id).state
    assert approval_id == ask(alice)


def test_signature_of_another_approval(opened: OpenHSM) -> None:
    """A signature is for one approval: that for another key is refused."""
    alice, bob, first = asked(opened)
    alice.create_key("AES-256-GCM", name="other")
    with pytest.raises(ApprovalRequiredError) as caught:
        alice.destroy("other")
    signature = sign(bob, str(caught.value.facts["approval_id"]))

    with pytest.raises(SignatureMismatchError):
        agree(bob, first, signature)


def test_nobody_signs_for_others(opened: OpenHSM) -> None:
    """A signature of bob's is no consent of another person."""
    _, bob, approval_id = asked(opened)
    mary = Session(opened.act_as(caller(Role.AUDITOR, principal="mary")))
    signature = sign(bob, approval_id)

    with pytest.raises(InvalidInputError, match="no such key for you"):
        agree(mary, approval_id, signature)


def test_key_taken_away(opened: OpenHSM) -> None:
    """A consent counts no more when the policy names its key no more."""
    alice, bob, approval_id = asked(opened)
    agree(bob, approval_id, sign(bob, approval_id))
    assert ApprovalState.GRANTED is bob.approval(approval_id).state
    later = parse_policy(policy(f"bob: ['{line(EVE)}']"))
    opened._services.policy.replace(RuleEngine(later), 0)  # noqa: SLF001

    with pytest.raises(ApprovalRequiredError):
        alice.destroy("k")
    assert ApprovalState.PENDING is bob.approval(approval_id).state


def event(**changes: object) -> AuditEvent:
    """Return the record of a signed consent, changed."""
    approval_id = "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"
    message = statement(approval_id, "41" * 32, granted=True)
    signer = read_key_lines(f"bob {line(BOB)}")["bob"][0].fingerprint
    record = AuditEvent(
        format=2,
        seq=7,
        prev="00" * 32,
        time=1,
        phase="outcome",  # type: ignore[arg-type]
        kind="Approve",
        code="ok",
        caller={"principal": "bob"},  # type: ignore[arg-type]
        approval_id=approval_id,
        parameters={"shown_sha256": "41" * 32},
        approval_signatures=(consent_text(signer, BOB.sign(message)),),
    )
    tree = {**msgspec.structs.asdict(record), **changes}
    return msgspec.convert(tree, AuditEvent)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "Deny"},
        {"caller": {"principal": "mary"}},
        {"caller": None},
        {"approval_id": "6b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"},
        {"approval_id": "x"},
        {"parameters": {"shown_sha256": "42" * 32}},
        {"parameters": {}},
        {"approval_signatures": ["x"]},
        {"approval_signatures": [f"SHA256:{'A' * 43} AAAA"]},
    ],
)
def test_records(changes: dict[str, object]) -> None:
    """Every fact that a signature is about is compared with the record."""
    keys = read_key_lines(f"bob {line(BOB)}\nmary {line(EVE)}")
    good = ConsentAudit(keys)
    good.look(event())
    good.look(event())

    assert 1 == good.checked
    with pytest.raises(
        AuditTamperedError, match="record 7 holds an invalid approver signature"
    ):
        ConsentAudit(keys).look(event(**changes))


def test_policy_with_wrong_keys() -> None:
    """A policy that names no key, or one for two people, is refused."""
    for people in (("bob: ['ssh-rsa AAAA']",), (ONE, f"mary: ['{line(BOB)}']")):
        with pytest.raises(InvalidInputError, match="approvers"):
            parse_policy(policy(*people))
