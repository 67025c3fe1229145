# SPDX-License-Identifier: MIT
"""ML-DSA, ML-KEM and SLH-DSA: P13, P14."""

from __future__ import annotations

import msgspec

from hsm_core._providers.oqs.provider import OqsProvider
from hsm_core.algorithms import Algorithm
from hsm_core.session import Session
from tests.bench.figures import Absent, Finding, at_least
from tests.bench.harness import Loop, interleave, repeated
from tests.bench.peers import raw
from tests.bench.rig import OPENSSL, OWN, RAW, Rig, Rivals, told
from tests.bench.rows.quick import beside_slow


def lattices(rig: Rig) -> list[Finding]:
    """Return how ML-DSA-65 and ML-KEM-768 compare, without and with liboqs."""
    session = rig.session
    return [
        _ml_dsa(session, 0.97, ""),
        _ml_kem(session),
        *_with_liboqs(rig),
    ]


def slh_dsa(rig: Rig) -> list[Finding]:
    """Return how SLH-DSA compares with the same signature in C."""
    session, algorithm = rig.session, Algorithm.SLH_DSA_SHA2_128F
    key_id = session.create_key(algorithm).key_id
    rivals = Rivals(repeated(lambda: session.sign(key_id, raw.MESSAGE)))
    rivals.invite(OPENSSL, lambda: rig.openssl.signing_anew(algorithm))
    what = f"{algorithm} sign, OpenSSL in C ÷ own"
    if OPENSSL in rivals.missing:
        return [Absent(what=what, why=rivals.missing[OPENSSL]), beside_slow(rig)]
    took = interleave(rivals, rounds=9)
    found = at_least(0.97, what, took[OPENSSL] / took[OWN], note=told(took))
    return [found, beside_slow(rig)]


def _ml_dsa(session: Session, goal: float, how: str) -> Finding:
    key_id = session.create_key(Algorithm.ML_DSA_65).key_id
    # How long a signature takes is chance: each starts over until one is short enough.
    took = interleave(
        {
            OWN: repeated(lambda: session.sign(key_id, raw.MESSAGE)),
            RAW: raw.signing(raw.new_key(Algorithm.ML_DSA_65)),
        },
        turn_seconds=0.1,
    )
    ratio = took[RAW] / took[OWN]
    return at_least(goal, f"ML-DSA-65 sign{how}, of raw", ratio, note=told(took))


def _ml_kem(session: Session) -> Finding:
    took = interleave({OWN: _decapsulating(session), RAW: raw.decapsulating()})
    what = "ML-KEM-768 decapsulate, of raw"
    return at_least(0.88, what, took[RAW] / took[OWN], note=told(took))


def _with_liboqs(rig: Rig) -> list[Finding]:
    """Measure it only where it serves: a slower provider would answer in its place."""
    absence = OqsProvider().absence
    if absence:
        what, why = "the same with liboqs", "provider oqs not"
        return [Absent(what=what, why=f"{why} installed: {absence}")]
    settings = msgspec.structs.replace(rig.settings_in("oqs"), enable_oqs=True)
    session = rig.open(settings)
    return [
        _ml_dsa(session, 6, " with liboqs"),
        _ml_kem_beside(session, rig.session),
    ]


def _ml_kem_beside(session: Session, without: Session) -> Finding:
    took = interleave(
        {"with": _decapsulating(session), "without": _decapsulating(without)}
    )
    what = "ML-KEM-768 decapsulate, without liboqs ÷ with it"
    return at_least(1, what, took["without"] / took["with"], note=told(took))


def _decapsulating(session: Session) -> Loop:
    key_id = session.create_key(Algorithm.ML_KEM_768).key_id
    ciphertext = session.encapsulate(key_id).ciphertext
    return repeated(lambda: session.decapsulate(key_id, ciphertext))
