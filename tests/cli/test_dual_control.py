# SPDX-License-Identifier: MIT
"""Two people at their command lines, and the HSM's own dual control between them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from hsm_client import RemoteHSM
from hsm_core.errors import ApprovalRequiredError, InvalidInputError
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import ApprovalState, Role
from hsm_core.operations import (
    ApprovalInfo,
    CreateKey,
    DestroyKey,
    GetApproval,
    Operation,
)
from hsm_core.protocols import HSM
from hsm_core.session import Session
from hsm_core.settings import AuditStoreKind, KeyStoreKind, Settings
from hsm_core.testing import caller
from tests.cli.support import Shell
from tests.client.stub import Stub

R = TypeVar("R")
BOB = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
HMAC = b"\x02" * 32
POLICY = """version: 1
extends: default
rules:
  - name: signed-destruction
    effect: require-approval
    match: {operations: [DestroyKey], tags: [signed]}
    approval: {roles: [Auditor], signed: true}
approvers:
  bob: ['@']
"""


def public_line() -> str:
    """Return bob's public key as OpenSSH writes it."""
    form = (Encoding.OpenSSH, PublicFormat.OpenSSH)
    return BOB.public_key().public_bytes(*form).decode()


@pytest.fixture
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenHSM]:
    """Give an HSM with its trail in files, or in what a test asks for."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.replace("@", public_line()))
    settings = Settings(
        key_store=KeyStoreKind.MEMORY,
        audit_store=getattr(request, "param", AuditStoreKind.FILE),
        audit_log=tmp_path / "audit.log",
        audit_sqlite_path=tmp_path / "audit.sqlite",
        approval_dir=tmp_path / "approvals",
        policy_config=policy,
    )
    with open_hsm(settings, master_key=b"\x01" * 32, hmac_key=HMAC) as hsm:
        yield hsm


class Two:
    """Two people at one terminal, one after the other."""

    def __init__(self, opened: OpenHSM, monkeypatch: pytest.MonkeyPatch) -> None:
        asker = opened.act_as(caller(principal="alice"))
        other = opened.act_as(caller(Role.AUDITOR, principal="bob"))
        self.alice = Shell(monkeypatch, asker)
        self.bob = Shell(monkeypatch, other)
        self.bob_himself = Session(other)

    def ask(self, name: str) -> str:
        """Ask for a destruction as alice; return the approval's id."""
        outcome = self.alice("destroy", name, "--yes", "--json")
        assert 11 == outcome.code, outcome.err
        (found,) = self.bob_himself.approvals(states=[ApprovalState.PENDING])
        assert found.approval_id in outcome.err
        return found.approval_id


@pytest.fixture
def two(opened: OpenHSM, monkeypatch: pytest.MonkeyPatch) -> Two:
    """Give alice and bob."""
    return Two(opened, monkeypatch)


def test_two_people(two: Two) -> None:
    """What one asks for and another agrees to is done once, when it is asked again."""
    two.alice.ok("create", "AES-256-GCM", "--name", "k", "--tags", "dual")
    approval_id = two.ask("k")
    shown = two.bob.ok("approvals", "show", approval_id)
    assert "DestroyKey" in shown.text
    assert "requester          alice" in shown.text

    agreed = two.bob("approvals", "approve", approval_id, "--yes")

    assert 0 == agreed.code, agreed.err
    assert "granted" in agreed.text
    two.alice.ok("destroy", "k", "--yes")
    assert "consumed" in two.bob.ok("approvals", "list", "--all").text
    assert approval_id[:8] not in two.bob.ok("approvals", "list").text
    assert 0 != two.alice("destroy", "k", "--yes").code


def test_a_named_approval(two: Two) -> None:
    """--approval-id names what it is done under, and says what is wrong with it."""
    for name in ("k", "other"):
        two.alice.ok("create", "AES-256-GCM", "--name", name, "--tags", "dual")
    approval_id, other = two.ask("k"), "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"
    under = ("--yes", "--approval-id", approval_id)

    assert 11 == two.alice("destroy", "k", *under).code
    two.bob("approvals", "approve", approval_id, "--yes")
    wrong = two.alice("destroy", "other", *under)
    missing = two.alice("destroy", "k", "--yes", "--approval-id", other)
    garbled = two.alice("destroy", "k", "--yes", "--approval-id", "k")
    done = two.alice("destroy", "k", *under)
    used = two.alice("destroy", "other", *under)

    assert (3, True) == (wrong.code, "for a different operation" in wrong.err)
    assert (4, True) == (missing.code, "approval_not_found" in missing.err)
    assert (2, True) == (garbled.code, "approval_id must be a UUID" in garbled.err)
    assert (0, True) == (done.code, "destroyed" in done.text)
    assert 3 == used.code


@pytest.mark.parametrize(
    ("end", "words"),
    [(("deny", "--reason", "no"), "denied"), (("cancel",), "cancelled")],
    ids=["denied", "cancelled"],
)
def test_a_named_approval_that_ended(
    two: Two, end: tuple[str, ...], words: str
) -> None:
    """It serves nothing, which is said; no other one is looked for or asked."""
    two.alice.ok("create", "AES-256-GCM", "--name", "k", "--tags", "dual")
    approval_id = two.ask("k")
    person = two.alice if end[0] == "cancel" else two.bob
    person("approvals", end[0], approval_id, *end[1:])

    outcome = two.alice("destroy", "k", "--yes", "--approval-id", approval_id)

    assert 13 == outcome.code
    assert f"Approval {approval_id} is {words}." in outcome.err
    assert [] == list(two.bob_himself.approvals(states=[ApprovalState.PENDING]))


def test_not_oneself(two: Two) -> None:
    """Whoever asks can't agree."""
    two.alice.ok("create", "AES-256-GCM", "--name", "k", "--tags", "dual")
    approval_id = two.ask("k")

    outcome = two.alice("approvals", "approve", approval_id, "--yes")

    assert 3 == outcome.code
    assert 11 == two.alice("destroy", "k", "--yes").code


class Looking:
    """An HSM that tells when somebody looks at a request, as who waits for it does."""

    def __init__(self, hsm: HSM | None, looked: threading.Event) -> None:
        assert hsm is not None
        self._hsm, self._looked = hsm, looked

    def execute(self, operation: Operation[R], /, **given: Any) -> R:
        """Execute an operation."""
        if isinstance(operation, GetApproval):
            self._looked.set()
        return self._hsm.execute(operation, **given)


def test_denied(two: Two) -> None:
    """A refusal ends the wait with its reason."""
    two.alice.ok("create", "AES-256-GCM", "--name", "k", "--tags", "dual")
    approval_id = two.ask("k")
    waiting = threading.Event()
    two.alice.hsm = Looking(two.alice.hsm, waiting)

    def deny() -> None:
        waiting.wait(60)
        two.bob_himself.deny(approval_id, reason="not before Friday")

    thread = threading.Thread(target=deny)
    thread.start()
    outcome = two.alice("destroy", "k", "--yes", "--wait")
    thread.join()

    assert 13 == outcome.code
    assert "denied by bob: not before Friday" in outcome.err


def test_cancelled(two: Two) -> None:
    """Whoever asked can give up, and then nobody agrees any more."""
    two.alice.ok("create", "AES-256-GCM", "--name", "k", "--tags", "dual")
    approval_id = two.ask("k")
    two.alice.ok("approvals", "cancel", approval_id)

    outcome = two.bob("approvals", "approve", approval_id, "--yes")

    assert 5 == outcome.code


def test_wait(two: Two) -> None:
    """Whoever waits sees it done as soon as the other has agreed."""
    two.alice.ok("create", "AES-256-GCM", "--name", "k", "--tags", "dual")

    def agree() -> None:
        found: list[ApprovalInfo] = []
        while not found:
            time.sleep(0.05)
            found = list(two.bob_himself.approvals())
        (asked,) = found
        two.bob_himself.approve(asked.approval_id, digest=asked.digest)

    thread = threading.Thread(target=agree)
    thread.start()
    outcome = two.alice("--wait", "destroy", "k", "--yes")
    thread.join()

    assert 0 == outcome.code, outcome.err
    assert "destroyed" in outcome.text


def test_wait_for_a_request(two: Two) -> None:
    """A request is waited for by its short ID, until it is decided."""
    for name in ("k", "l"):
        two.alice.ok("create", "AES-256-GCM", "--name", name, "--tags", "dual")
    asked = two.ask("k")[:8]
    pending = two.alice("approvals", "wait", asked, "--wait-seconds", "0")
    approved = two.bob("approvals", "approve", asked, "--yes")
    granted = two.alice("approvals", "wait", asked)
    other = two.alice("destroy", "l", "--yes").err
    denied = re.search(r"approvals wait ([0-9a-f-]{36})", other)
    assert denied is not None
    two.bob.ok("approvals", "deny", denied[1][:8], "--reason", "not today")
    ended = two.alice("approvals", "wait", denied[1], "--wait-seconds", "9")

    assert (11, 0, 0, 13) == (pending.code, approved.code, granted.code, ended.code)
    assert "state" in granted.text
    assert "granted" in granted.text
    assert "denied by bob: not today" in ended.err
    two.alice.ok("destroy", "k", "--yes", "--approval-id", asked)


@pytest.mark.parametrize(
    "opened",
    [AuditStoreKind.FILE, AuditStoreKind.SQLITE],
    indirect=True,
    ids=lambda kind: kind.value,
)
def test_signed(two: Two, opened: OpenHSM, tmp_path: Path) -> None:
    """A signature is demanded, made, kept, and checked without the server."""
    two.alice.ok("create", "AES-256-GCM", "--name", "k", "--tags", "signed")
    approval_id = two.ask("k")
    key = tmp_path / "bob.key"
    key.touch(mode=0o600)
    form = (Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    key.write_bytes(BOB.private_bytes(*form))
    assert 2 == two.bob("approvals", "approve", approval_id, "--yes").code

    signed = two.bob(
        "approvals", "approve", approval_id, "--yes", "--sign-with", str(key)
    )

    assert 0 == signed.code, signed.err
    assert "signed" in signed.text
    two.alice.ok("destroy", "k", "--yes")
    opened.close()
    hmac_key = tmp_path / "hmac"
    hmac_key.touch(mode=0o600)
    hmac_key.write_text("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=")
    lines = tmp_path / "approvers"
    lines.write_text(f"bob {public_line()}\n")
    others = tmp_path / "others"
    others.write_text(f"mary {public_line()}\n")
    database = tmp_path / "audit.sqlite"
    path = database if database.exists() else tmp_path / "audit.log"
    trail = ("--audit-path", str(path))
    words = ("audit", "verify", *trail, "--hmac-key", f"@{hmac_key}", "--approver-keys")
    for good in (lines, tmp_path / "policy.yaml"):
        outcome = two.bob.ok(*words, str(good))
        assert "all valid" in outcome.text
    bad = two.bob(*words, str(others))
    assert (7, True) == (bad.code, "invalid approver signature" in bad.err)


def test_signed_refusal(two: Two, tmp_path: Path) -> None:
    """A refusal is shown, signed and kept; the signature is over a refusal."""
    two.alice.ok("create", "AES-256-GCM", "--name", "k", "--tags", "signed")
    approval_id = two.ask("k")
    key = tmp_path / "bob.key"
    key.touch(mode=0o600)
    key.write_bytes(
        BOB.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    words = ("approvals", "deny", approval_id, "--reason", "no")
    consent = two.bob.ok("approvals", "show", approval_id, "--statement").out
    refusal = two.bob.ok("approvals", "show", approval_id, "--statement", "--deny").out
    (tmp_path / "sig").write_bytes(BOB.sign(consent))

    wrong = two.bob(*words, "--signature", str(tmp_path / "sig"))
    denied = two.bob(*words, "--sign-with", str(key))

    assert refusal == consent.replace(b"grant", b"deny")
    assert 6 == wrong.code
    assert (0, True) == (denied.code, "bob denied" in denied.text)
    assert ", signed, no" in denied.text
    assert "DestroyKey" in denied.err


def test_over_https(hsm: RemoteHSM, stub: Stub, opened: OpenHSM) -> None:
    """A client gets what is asked for as an error that holds all of it."""
    stub.hsm = opened.act_as(caller(principal="alice"))
    hsm.execute(CreateKey(algorithm="AES-256-GCM", name="k", tags=("dual",)))

    with pytest.raises(ApprovalRequiredError) as caught:
        hsm.execute(DestroyKey(key_id="k"))

    asked = caught.value.approval
    assert isinstance(asked, ApprovalInfo)
    assert asked.approval_id == caught.value.facts["approval_id"]
    assert asked.digest == caught.value.facts["digest"]
    bob = Session(opened.act_as(caller(Role.AUDITOR, principal="bob")))
    bob.approve(asked.approval_id, digest=asked.digest)
    with pytest.raises(InvalidInputError, match="approval_id must be"):
        hsm.execute(DestroyKey(key_id="k"), approval_id="x\r\nHost: y")
    operation, approval_id = DestroyKey(key_id="k"), asked.approval_id
    assert "destroyed" == hsm.execute(operation, approval_id=approval_id).state
    assert approval_id == stub.received[-1].headers["ferrohsm-approval"]
