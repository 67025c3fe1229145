# SPDX-License-Identifier: MIT
"""
A key that lives long: whatever it ever made is processed until it is destroyed.

``FERROHSM_KEY_LIFE`` sets how many rotations and rollbacks each key goes through (25 by
default; ``nox -s key_life`` runs 1000).
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core.algorithms import KeyUsage
from hsm_core.model import KeyState
from hsm_core.session import Session
from tests.contract.hsm_ways import disk_session

CHANGES = int(os.environ.get("FERROHSM_KEY_LIFE", "25"))
ALGORITHMS = ("aes", "ed25519", "p256", "hmac-sha256")


def change(session: Session, key: str, rng: random.Random) -> None:
    """Rotate, or roll back to a random retired version."""
    versions = session.versions(key)
    retired = [v.version for v in versions if v.state is KeyState.RETIRED]
    if retired and rng.random() < 0.4:
        session.rollback(key, rng.choice(retired))
    else:
        session.rotate(key)


def issue(session: Session, key: str, algorithm: str, message: bytes) -> bytes:
    """Make something with the current version."""
    if algorithm == "aes":
        return session.encrypt(key, message)
    if algorithm == "hmac-sha256":
        return session.mac(key, message).mac
    return session.sign(key, message).signature


def check(
    session: Session, key: str, algorithm: str, message: bytes, made: bytes
) -> None:
    """Process what was made; raises if it can't be."""
    if algorithm == "aes":
        assert message == session.decrypt(key, made)
    elif algorithm == "hmac-sha256":
        session.verify_mac(key, message, made)
    else:
        session.verify(key, message, made)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_everything_is_processed_until_the_end(algorithm: str, tmp_path: Path) -> None:
    """After all changes and a restart everything issued is good; then nothing."""
    rng = random.Random(4711)
    issued: list[tuple[bytes, bytes]] = []
    with disk_session(tmp_path) as session:
        key = session.create_key(algorithm).key_id
        for number in range(CHANGES):
            message = b"message %d" % number
            issued.append((message, issue(session, key, algorithm, message)))
            change(session, key, rng)

    with disk_session(tmp_path) as session:
        for message, made in issued:
            check(session, key, algorithm, message, made)
        assert CHANGES + 1 == len(session.versions(key))
        session.destroy(key)
        for message, made in issued:
            with pytest.raises(errors.KeyStateError):
                check(session, key, algorithm, message, made)
        session.verify_audit()


def test_a_revoked_material_never_comes_back(tmp_path: Path) -> None:
    """No chain of rotations and rollbacks makes compromised material active again."""
    rng = random.Random(42)
    with disk_session(tmp_path) as session:
        key = session.create_key("ed25519", usages=[KeyUsage.SIGN]).key_id
        for _ in range(10):
            change(session, key, rng)
        session.revoke(key, version=1)
        burnt = session.versions(key)[0].material_id

        if session.describe(key).state is KeyState.REVOKED:
            session.rotate(key)
        for _ in range(20):
            change(session, key, rng)

        states = {v.state for v in session.versions(key) if v.material_id == burnt}
        assert {KeyState.REVOKED} == states
