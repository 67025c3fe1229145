# SPDX-License-Identifier: MIT
"""ML-DSA, ML-KEM and SLH-DSA: P13, P14."""

from __future__ import annotations

from hsm_core.algorithms import Algorithm
from tests.bench.figures import Absent, Finding, at_least
from tests.bench.harness import interleave, repeated
from tests.bench.peers import raw
from tests.bench.rig import OPENSSL, OWN, RAW, Rig, Rivals, told

__all__ = ["lattices", "slh_dsa"]


def lattices(rig: Rig) -> list[Finding]:
    """Return how ML-DSA-65 and ML-KEM-768 compare."""
    return [*_ml_dsa(rig), *_ml_kem(rig), *_liboqs()]


def slh_dsa(rig: Rig) -> list[Finding]:
    """Return how SLH-DSA compares with the same signature in C."""
    session, algorithm = rig.session, Algorithm.SLH_DSA_SHA2_128F
    key_id = session.create_key(algorithm).key_id
    rivals = Rivals(repeated(lambda: session.sign(key_id, raw.MESSAGE)))
    rivals.invite(OPENSSL, lambda: rig.openssl().signing_anew(algorithm))
    what = f"{algorithm} sign, OpenSSL in C ÷ own"
    later = Absent(
        what="99th percentile of quick requests during a 128s signature",
        why="no harness yet",
    )
    if OPENSSL in rivals.missing:
        return [Absent(what=what, why=rivals.missing[OPENSSL]), later]
    took = interleave(rivals, rounds=9)
    found = at_least(0.97, what, took[OPENSSL] / took[OWN], note=told(took))
    return [found, later]


def _ml_dsa(rig: Rig) -> list[Finding]:
    session = rig.session
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
    return [at_least(0.97, "ML-DSA-65 sign, of raw", ratio, note=told(took))]


def _ml_kem(rig: Rig) -> list[Finding]:
    session = rig.session
    key_id = session.create_key(Algorithm.ML_KEM_768).key_id
    ciphertext = session.encapsulate(key_id).ciphertext
    took = interleave(
        {
            OWN: repeated(lambda: session.decapsulate(key_id, ciphertext)),
            RAW: raw.decapsulating(),
        }
    )
    ratio = took[RAW] / took[OWN]
    return [at_least(0.88, "ML-KEM-768 decapsulate, of raw", ratio, note=told(took))]


def _liboqs() -> list[Finding]:
    why = "no row for the optional provider oqs yet"
    return [Absent(what="the same with liboqs (≥ 10x and ≥ 1.9x of raw)", why=why)]
