# SPDX-License-Identifier: MIT
"""A hundred items at once: P6."""

from __future__ import annotations

from hsm_core import operations as ops
from hsm_core.algorithms import Algorithm
from tests.bench.figures import Absent, Finding, at_least
from tests.bench.harness import Loop, interleave
from tests.bench.peers import raw
from tests.bench.rig import OWN, RAW, SOFTHSM, Rig, Rivals, told

_ITEMS = 100


def hundred(rig: Rig) -> list[Finding]:
    """Return how an item of a batch of a hundred compares; figures are per item."""
    return [*_signing(rig), *_encrypting(rig)]


def _signing(rig: Rig) -> list[Finding]:
    session = rig.session
    key_id = session.create_key(Algorithm.EC_P256).key_id
    items = tuple(ops.SignItem(message=raw.MESSAGE) for _ in range(_ITEMS))

    def own(times: int) -> None:
        for _ in range(times):
            session.sign_batch(key_id, items)

    key = raw.new_key(Algorithm.EC_P256)
    took = interleave({OWN: own, RAW: _by_hundreds(raw.signing(key))})
    return [
        at_least(
            0.95,
            "EC-P256 sign in a batch, of raw",
            took[RAW] / took[OWN],
            note=told(_of_one(took)),
        )
    ]


def _encrypting(rig: Rig) -> list[Finding]:
    session = rig.session
    key_id = session.create_key(Algorithm.AES_256_GCM).key_id
    texts = [bytes(1024) for _ in range(_ITEMS)]
    items = tuple(ops.EncryptItem(plaintext=text) for text in texts)

    def own(times: int) -> None:
        for _ in range(times):
            session.encrypt_batch(key_id, items)

    rivals = Rivals(own, raw.encrypting_each(texts))
    rivals.invite(SOFTHSM, lambda: _by_hundreds(rig.softhsm.encrypting(1024)))
    took = interleave(rivals)
    found: list[Finding] = [
        at_least(
            0.45,
            "AES-256-GCM 1 KiB in a batch, of raw",
            took[RAW] / took[OWN],
            note=told(_of_one(took)),
        )
    ]
    what = "AES-256-GCM 1 KiB in a batch, SoftHSM2 ÷ own"
    if SOFTHSM in rivals.missing:
        return [*found, Absent(what=what, why=rivals.missing[SOFTHSM])]
    return [*found, at_least(10, what, took[SOFTHSM] / took[OWN])]


def _by_hundreds(loop: Loop) -> Loop:
    return lambda times: loop(times * _ITEMS)


def _of_one(took: dict[str, float]) -> dict[str, float]:
    return {name: seconds / _ITEMS for name, seconds in took.items()}
