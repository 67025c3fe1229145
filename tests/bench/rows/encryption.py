# SPDX-License-Identifier: MIT
"""AES-256-GCM one by one, small and large: P4, P5."""

from __future__ import annotations

from hsm_core.algorithms import Algorithm
from tests.bench.figures import Absent, Finding, at_least
from tests.bench.harness import interleave, repeated
from tests.bench.peers import bare, raw
from tests.bench.rig import BARE, OPENSSL, OWN, RAW, SOFTHSM, Rig, Rivals, told


def small(rig: Rig) -> list[Finding]:
    """Return how encryption of 1 KiB compares."""
    took, missing = _race(rig, 1024)
    return [_beside(SOFTHSM, 1.4, "1 KiB", took, missing, note=told(took))]


def large(rig: Rig) -> list[Finding]:
    """Return how encryption of 1 MiB compares."""
    took, missing = _race(rig, 1024 * 1024)
    return [
        at_least(
            0.9, "AES-256-GCM 1 MiB, of raw", took[RAW] / took[OWN], note=told(took)
        ),
        _beside(SOFTHSM, 10, "1 MiB", took, missing),
    ]


def _race(rig: Rig, size: int) -> tuple[dict[str, float], dict[str, str]]:
    session, plaintext = rig.session, bytes(size)
    key_id = session.create_key(Algorithm.AES_256_GCM).key_id
    rivals = Rivals(
        repeated(lambda: session.encrypt(key_id, plaintext)), raw.encrypting(size)
    )
    rivals[BARE] = bare.encrypting(rig.place(f"bare-{size}"), size)
    rivals.invite(OPENSSL, lambda: rig.openssl.encrypting(size))
    rivals.invite(SOFTHSM, lambda: rig.softhsm.encrypting(size))
    return interleave(rivals), rivals.missing


def _beside(
    rival: str,
    goal: float,
    size: str,
    took: dict[str, float],
    missing: dict[str, str],
    note: str = "",
) -> Finding:
    what = f"AES-256-GCM {size}, {rival} ÷ own"
    if rival in missing:
        return Absent(what=what, why=missing[rival])
    return at_least(goal, what, took[rival] / took[OWN], note=note)
