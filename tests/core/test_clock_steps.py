# SPDX-License-Identifier: MIT
"""
The clock is set wrong, and right again, in the middle of every kind of operation.

``FERROHSM_CLOCK`` is how many times each step is tried; each goes through all kinds.
"""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import NameOID

from hsm_core import operations as ops
from hsm_core.algorithms import KeyUsage
from hsm_core.errors import HSMError
from hsm_core.model import ApprovalState, Caller, KeyState, Role
from hsm_core.operations import OPERATIONS, Operation
from hsm_core.testing import FakeClock
from tests import self_tests
from tests.core.retention_support import World

R = TypeVar("R")

LONG = "FERROHSM_CLOCK" in os.environ
TRIES = int(os.environ.get("FERROHSM_CLOCK", "1"))
DAY = 24 * 3600
YEAR = 365 * DAY
STEPS = [
    *(1, 2, 10, 60, 600, 3600),
    *(12 * 3600, DAY - 1, DAY + 1, 7 * DAY, 31 * DAY, 100 * DAY),
    *(YEAR, 3 * YEAR, 10 * YEAR),
]
ANN = Caller(principal="ann", roles=frozenset(Role))
BOB = Caller(principal="bob", roles=frozenset({Role.AUDITOR}))
LATE = {"approval_required", "conflict"}
"""What is told where a request seems to have expired."""

NOT_HERE = {
    ops.BackUpStores,
    ops.BeginLedger,
    ops.ListNodes,
    ops.RecoverKey,
    ops.RetireNode,
}
"""
Only databases are copied; only a key that was changed is recovered; only the place of a
ledger that is lost is taken by a new one; and only clusters have nodes.
"""


_TWO_PEOPLE = """version: 1
extends: default
rules:
  - name: agreed
    effect: require-approval
    match: {operations: [CreateKey], key_names: ["agreed-*"]}
  - name: old-programs
    effect: allow
    match: {operations: [DecryptPKCS1], roles: [Operator]}
"""


class WrongClock(FakeClock):
    """A clock that is set wrong, or right again, when it is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong_by = self._to = 0.0
        self._looks = 0

    def plan(self, looks: int, wrong_by: float) -> None:
        """Let it be wrong by so much from a look on, of so many from now."""
        self._looks, self._to = looks, wrong_by

    def now(self) -> int:
        """Return wall time."""
        self._looks -= 1
        if self._looks == 0:
            self.be()
        return super().now()

    def be(self) -> None:
        """Be wrong as was planned."""
        self.step(self._to - self.wrong_by)
        self.wrong_by = self._to


class Life:
    """Goes through all operations, each with a step of the clock in it."""

    def __init__(self, folder: Path, seconds: float, seed: str) -> None:
        self.clock = WrongClock()
        policy = folder / "policy.yaml"
        policy.write_text(_TWO_PEOPLE)
        self.world = World(folder, clock=self.clock, policy_config=policy)
        self.seconds = seconds
        self.chance = random.Random(seed)
        self.done: set[type[Operation[Any]]] = set()

    def do(self, operation: Operation[R], who: Caller = ANN) -> R:
        """Do something, while the clock is set wrong or right."""
        wrong_by = self.seconds if self.chance.random() < 0.6 else 0
        self.clock.plan(self.chance.randint(1, 5), wrong_by)
        answer = self.world.hsm.act_as(who).execute(operation)
        self.clock.be()
        self.clock.plan(0, 0)
        self.done.add(type(operation))
        return answer

    def maybe(self, operation: Operation[R], who: Caller = ANN) -> R | None:
        """Do what may come too late by the clock that there is."""
        try:
            return self.do(operation, who)
        except HSMError as error:
            if error.code not in LATE:
                raise
            self.done.add(type(operation))
            return None

    def be_right(self) -> None:
        """Set the clock right."""
        self.clock.plan(0, 0)
        self.clock.be()


def use_keys(life: Life) -> None:
    """Sign, encrypt, encapsulate and authenticate, one by one and in batches."""
    do = life.do
    signer = do(ops.CreateKey(algorithm="ed25519", name="signer")).key_id
    sealer = do(ops.CreateKey(algorithm="AES-256-GCM", name="sealer")).key_id
    kem = do(ops.CreateKey(algorithm="ML-KEM-512", name="kem")).key_id
    mac = do(ops.CreateKey(algorithm="HMAC-SHA-256", name="mac")).key_id
    made = do(ops.Sign(key_id=signer, message=b"m")).signature
    do(ops.Verify(key_id=signer, message=b"m", signature=made))
    sealed = do(ops.Encrypt(key_id=sealer, plaintext=b"p")).ciphertext
    assert b"p" == do(ops.Decrypt(key_id=sealer, ciphertext=sealed)).plaintext
    do(ops.Rewrap(key_id=sealer, ciphertext=sealed))
    do(ops.GenerateDataKey(key_id=sealer))
    shared = do(ops.Encapsulate(key_id=kem))
    again = do(ops.Decapsulate(key_id=kem, ciphertext=shared.ciphertext))
    assert shared.shared_secret == again.shared_secret
    letter = do(ops.Seal(key_id=kem, plaintext=b"p")).ciphertext
    assert b"p" == do(ops.Open(key_id=kem, ciphertext=letter)).plaintext
    tag = do(ops.ComputeMac(key_id=mac, message=b"m")).mac
    do(ops.VerifyMac(key_id=mac, message=b"m", mac=tag))
    do(ops.SignBatch(key_id=signer, items=(ops.SignItem(message=b"m"),)))
    verified = ops.VerifyItem(message=b"m", signature=made)
    do(ops.VerifyBatch(key_id=signer, items=(verified,)))
    do(ops.EncryptBatch(key_id=sealer, items=(ops.EncryptItem(plaintext=b"p"),)))
    do(ops.DecryptBatch(key_id=sealer, items=(ops.DecryptItem(ciphertext=sealed),)))
    do(ops.ComputeMacBatch(key_id=mac, items=(ops.MacInput(message=b"m"),)))
    told = ops.VerifyMacItem(message=b"m", mac=tag)
    do(ops.VerifyMacBatch(key_id=mac, items=(told,)))
    do(ops.GenerateRandom(length=16))


def use_keys_raw(life: Life) -> None:
    """Do what programs with older interfaces ask for; keep a certificate, and not."""
    do = life.do
    curve = do(ops.CreateKey(algorithm="EC-P256")).key_id
    made = do(ops.RawSign(key_id=curve, data=bytes(32))).signature
    do(ops.RawVerify(key_id=curve, data=bytes(32), signature=made))
    usages = (KeyUsage.ENCRYPT, KeyUsage.DECRYPT)
    transport = do(ops.CreateKey(algorithm="RSA-2048", usages=usages)).key_id
    public = load_der_public_key(do(ops.GetPublicKey(key_id=transport)).der)
    assert isinstance(public, rsa.RSAPublicKey)
    sent = public.encrypt(b"p", padding.PKCS1v15())
    opened = do(ops.DecryptPKCS1(key_id=transport, ciphertext=sent))
    assert b"p" == opened.plaintext
    chain = certificate_of(public)
    do(ops.AttachCertificates(key_id=transport, chain=chain))
    assert chain == do(ops.GetCertificates(key_id=transport)).items[0].der
    do(ops.RemoveCertificates(key_id=transport))


def certificate_of(public: rsa.RSAPublicKey) -> bytes:
    """Return a certificate for a key, DER."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "transport")])
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, public, 1, begins, begins)
    issuer = ec.generate_private_key(ec.SECP256R1())
    return builder.sign(issuer, hashes.SHA256()).public_bytes(Encoding.DER)


def change_keys(life: Life) -> None:
    """Make, move, change, hold and destroy keys."""
    do = life.do
    key = do(
        ops.CreateKey(algorithm="AES-256-GCM", name="lived", exportable=True)
    ).key_id
    wrapper = do(ops.CreateKey(algorithm="AES-256-KWP")).key_id
    wrapped = do(ops.ExportKey(key_id=key, wrapping_key_id=wrapper)).wrapped
    brought = ops.ImportKey(
        algorithm="AES-256-GCM", wrapping_key_id=wrapper, wrapped=wrapped
    )
    do(brought)
    base = do(ops.CreateKey(algorithm="HKDF-SHA-256")).key_id
    do(ops.DeriveKey(algorithm="AES-256-GCM", base_key_id=base, info=b"i"))
    do(ops.RotateKey(key_id=key))
    do(ops.Rollback(key_id=key, version=1))
    do(ops.SuspendKey(key_id=key, reason="r"))
    do(ops.ResumeKey(key_id=key))
    do(ops.RotateKey(key_id=key, staged=True))
    do(ops.ActivateKey(key_id=key))
    do(ops.UpdateKey(key_id=key, description="d"))
    do(ops.SetRotation(key_id=key, max_age_days=30))
    until = datetime(2060, 1, 1, tzinfo=UTC)
    do(ops.ExtendRetention(key_id=key, version=1, until=until))
    do(ops.HoldKey(key_id=key, reason="r"))
    do(ops.ReleaseKey(key_id=key, reason="r"))
    do(ops.RevokeKey(key_id=key, version=2, reason="r"))
    do(ops.DestroyKey(key_id=key, waiting_days=7))
    do(ops.CancelDestroy(key_id=key))
    do(ops.DestroyKey(key_id="signer", waiting_days=0))


def look_around(life: Life) -> None:
    """Read everything that can be read, and verify everything."""
    do = life.do
    do(ops.DescribeKey(key_id="sealer"))
    do(ops.ListKeys())
    do(ops.ListVersions(key_id="sealer"))
    do(ops.GetPublicKey(key_id="kem"))
    do(ops.ListAuditEvents())
    do(ops.VerifyAudit())
    do(ops.Status())
    do(ops.DescribeCaller())
    do(ops.ListAlgorithms())
    do(ops.VerifyStore())
    do(ops.RecoverStore(reason="r"))
    do(ops.SelfTest())
    do(ops.ShowPolicy())
    do(ops.ExplainPolicy(operation="Sign", principal="ann", roles=(Role.OPERATOR,)))
    do(ops.TestPolicy(policy="version: 1\nextends: default\n"))
    do(ops.ListApprovals())
    do(ops.RetentionStatus())


def agree(life: Life) -> None:
    """Ask, approve, deny, cancel and use; what has expired stays so."""
    ended: dict[str, ApprovalState] = {}
    for number in range(4):
        wanted = ops.CreateKey(algorithm="ML-KEM-768", name=f"agreed-{number}")
        with pytest.raises(HSMError) as caught:
            life.do(wanted)
        approval_id = str(caught.value.facts["approval_id"])
        seen = life.do(ops.GetApproval(approval_id=approval_id))
        if number == 1:
            life.maybe(ops.Deny(reason="r", approval_id=approval_id), BOB)
        elif number == 2:
            life.maybe(ops.CancelApproval(approval_id=approval_id))
        else:
            life.maybe(ops.Approve(approval_id=approval_id, digest=seen.digest), BOB)
        if number == 3:
            life.maybe(ops.Withdraw(approval_id=approval_id), BOB)
        life.maybe(wanted)
        found = life.do(ops.GetApproval(approval_id=approval_id)).state
        if found not in {ApprovalState.PENDING, ApprovalState.GRANTED}:
            ended[approval_id] = found
    life.be_right()
    for approval_id, state in ended.items():
        assert state is life.do(ops.GetApproval(approval_id=approval_id)).state


def keep(life: Life) -> None:
    """Let old material be due by a wrong clock: it is not purged."""
    key = life.do(ops.CreateKey(algorithm="AES-256-GCM", name="old")).key_id
    life.do(ops.RotateKey(key_id=key))
    for _ in range(3):
        life.clock.plan(life.chance.randint(1, 5), life.seconds)
        for days in (0, 0, 1.2, 0):
            life.clock.advance(days * DAY)
            life.world.sweep()
            consent(life)
        life.clock.plan(life.chance.randint(1, 5), 0)
        life.world.sweep()
        life.clock.advance(7.5 * DAY)
    life.be_right()
    life.world.sweep()
    states = [v.state for v in life.do(ops.ListVersions(key_id=key)).items]
    assert [KeyState.RETIRED, KeyState.ACTIVE] == states
    report = life.do(ops.RetentionStatus())
    assert report.ledger is not None
    assert "" == report.ledger.problem


def consent(life: Life) -> None:
    """Let people agree to purges, but not to what a leap asks of them."""
    for name, role in (("olga", Role.OPERATOR), ("anton", Role.AUDITOR)):
        hsm = life.world.hsm.act_as(Caller(principal=name, roles=frozenset({role})))
        waiting = ops.ListApprovals(
            states=(ApprovalState.PENDING,), kind="PurgeVersion"
        )
        for found in hsm.execute(waiting).items:
            hsm.execute(ops.Approve(approval_id=found.approval_id, digest=found.digest))


@pytest.mark.parametrize("sign", [1, -1], ids=["forward", "back"])
@pytest.mark.parametrize("seconds", STEPS if LONG else STEPS[2::4])
def test_a_step_in_every_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, sign: int
) -> None:
    """
    G19: nothing fails, expires and lives again, is purged early, or breaks the chain.
    """
    self_tests.once(monkeypatch)
    for attempt in range(TRIES):
        folder = tmp_path / str(attempt)
        folder.mkdir(mode=0o700)
        life = Life(folder, sign * seconds, f"{sign} {seconds} {attempt}")
        for part in (use_keys, use_keys_raw, change_keys, look_around, agree, keep):
            part(life)

        assert set(OPERATIONS) - NOT_HERE == life.done
        life.be_right()
        assert life.do(ops.VerifyAudit()).next_seq is None
        life.world.close()
