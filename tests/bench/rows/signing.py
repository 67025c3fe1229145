# SPDX-License-Identifier: MIT
"""Signatures one by one: P1, P2, P3."""

from __future__ import annotations

from hsm_core.algorithms import Algorithm
from tests.bench.figures import Absent, Finding, at_least
from tests.bench.harness import interleave, repeated
from tests.bench.peers import bare, raw
from tests.bench.rig import BARE, OPENSSL, OWN, RAW, SOFTHSM, Rig, Rivals


def p256(rig: Rig) -> list[Finding]:
    """Return how P-256 compares."""
    return _signing(rig, Algorithm.EC_P256, of_raw=0.62, of_softhsm=1.35)


def ed25519(rig: Rig) -> list[Finding]:
    """Return how Ed25519 compares."""
    return _signing(rig, Algorithm.ED25519, of_raw=0.90, of_softhsm=2.9)


def rsa(rig: Rig) -> list[Finding]:
    """Return how RSASSA-PSS compares."""
    return [
        *_signing(rig, Algorithm.RSA_2048, of_raw=0.98, of_softhsm=2.25),
        *_signing(rig, Algorithm.RSA_4096, of_raw=0.99, of_softhsm=1.6),
    ]


def _signing(
    rig: Rig, algorithm: Algorithm, *, of_raw: float, of_softhsm: float
) -> list[Finding]:
    session, key = rig.session, raw.new_key(algorithm)
    key_id = session.create_key(algorithm).key_id
    rivals = Rivals(
        repeated(lambda: session.sign(key_id, raw.MESSAGE)), raw.signing(key)
    )
    if algorithm is Algorithm.EC_P256:
        rivals[BARE] = bare.signing(rig.place("bare-signing"))
    digest = "" if algorithm is Algorithm.ED25519 else "SHA256"
    is_pss = algorithm.startswith("RSA")
    rivals.invite(OPENSSL, lambda: rig.openssl.signing(key, digest, pss=is_pss))
    rivals.invite(SOFTHSM, lambda: rig.softhsm.signing(algorithm))
    took = interleave(rivals)
    found: list[Finding] = [
        at_least(
            of_raw,
            f"{algorithm} sign, of raw",
            took[RAW] / took[OWN],
            note=rivals.told(took),
        )
    ]
    what = f"{algorithm} sign, SoftHSM2 ÷ own"
    if SOFTHSM in rivals.missing:
        return [*found, Absent(what=what, why=rivals.missing[SOFTHSM])]
    return [*found, at_least(of_softhsm, what, took[SOFTHSM] / took[OWN])]
