# SPDX-License-Identifier: MIT
"""Plans of several callers: each use is recorded as that of its own caller."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from itertools import product

import pytest

from hsm_core import operations as ops
from hsm_core._internal.pipeline import plans
from hsm_core.algorithms import Algorithm
from hsm_core.errors import AccessDeniedError, HSMError
from hsm_core.model import Role
from hsm_core.protocols import HSM
from hsm_core.session import Session
from hsm_core.testing import FakeClock, caller, memory_hsm


@pytest.mark.parametrize("most", [1, 3, 4096])
def test_callers_that_take_turns(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """
    The record of each use names who asked, however few plans are kept.
    """
    monkeypatch.setattr(plans, "_MOST_PLANS", most)
    monkeypatch.setattr(plans, "_SWEPT_PLANS", most)
    names = ["ada", "bob", "ada", "ada", "carla", "bob"]
    with memory_hsm(clock=FakeClock()) as gateway:
        sessions = {
            name: Session(gateway.act_as(caller(principal=name))) for name in names
        }
        keys = [
            sessions["ada"].create_key(algorithm).key_id
            for algorithm in (Algorithm.EC_P256, Algorithm.ED25519)
        ]
        turns = list(product(range(3), names, keys))
        for _, name, key in turns:
            sessions[name].sign(key, b"message")
        entries = sessions["ada"].audit_events(limit=len(turns))

    recorded = [(e.event.caller, e.event.key_id) for e in reversed(entries)]
    assert [(name, key) for _, name, key in turns] == [
        (who and who.principal, key) for who, key in recorded
    ]


def test_revoked_keys_leave_no_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A program that makes, uses and revokes keys does not grow by what it knew of them.
    """
    monkeypatch.setattr(plans, "_SWEPT_PLANS", 8)
    others = _plans_held()
    with memory_hsm(clock=FakeClock()) as gateway:
        session = Session(gateway.act_as(caller()))
        kept = session.create_key(Algorithm.ED25519).key_id
        session.sign(kept, b"message")
        for _ in range(40):
            key = session.create_key(Algorithm.ED25519).key_id
            session.sign(key, b"message")
            session.revoke(key)
        held = [plan for plan in _plans_held() if plan not in others]

        assert 1 < len(held) <= 1 + 8
        assert session.sign(kept, b"message").version == 1


def _plans_held() -> list[plans.UsePlan]:
    """Return the plans of all HSMs of this process."""
    gc.collect()
    return [plan for plan in gc.get_objects() if isinstance(plan, plans.UsePlan)]


@pytest.mark.parametrize("kind", [bytearray, lambda text: memoryview(bytearray(text))])
@pytest.mark.parametrize("has_plan", [False, True])
def test_payloads_that_are_not_quite_bytes(
    kind: Callable[[bytes], bytes], has_plan: bool
) -> None:
    """
    No use is answered or refused without a record, whatever its payload is made of.
    """
    with memory_hsm(clock=FakeClock()) as gateway:
        hsm = gateway.act_as(caller())
        key = hsm.execute(ops.CreateKey(algorithm="AES-256-GCM")).key_id
        sealed = hsm.execute(ops.Encrypt(key_id=key, plaintext=b"x")).ciphertext
        if has_plan:
            hsm.execute(ops.Decrypt(key_id=key, ciphertext=sealed))
        before = _decryptions(hsm)
        with suppress(HSMError):
            hsm.execute(ops.Decrypt(key_id=key, ciphertext=kind(sealed)))
        assert _decryptions(hsm) == before + 1


def _decryptions(hsm: HSM) -> int:
    found = hsm.execute(ops.ListAuditEvents(limit=100)).items
    return sum(entry.event.kind == "Decrypt" for entry in found)


def test_callers_of_one_name() -> None:
    """
    A caller with the name of another, and with other roles, is judged by these.
    """
    with memory_hsm(clock=FakeClock()) as gateway:
        operator, auditor = (
            Session(gateway.act_as(caller(*roles)))
            for roles in ((Role.ADMINISTRATOR, Role.OPERATOR), (Role.AUDITOR,))
        )
        key = operator.create_key(Algorithm.ED25519).key_id
        for _ in range(3):
            operator.sign(key, b"message")

            with pytest.raises(AccessDeniedError):
                auditor.sign(key, b"message")
