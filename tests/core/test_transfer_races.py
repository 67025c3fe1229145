# SPDX-License-Identifier: MIT
"""Keys that change while others are wrapped, unwrapped or derived with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hsm_core import errors, primitives
from hsm_core.algorithms import Algorithm
from hsm_core.session import Session
from tests.core.hsm_support import WRAP

Meddle = Callable[[str, Callable[[], object]], None]


@pytest.fixture
def meddle(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> Meddle:
    """Give a function that lets something happen just before a key is opened."""
    materials = gateway._services.inventory.materials  # noqa: SLF001 (to meddle)

    def plan(name: str, change: Callable[[], object]) -> None:
        real, left = getattr(materials, name), [change]

        def meddling(*arguments: Any) -> object:
            if left:
                left.pop()()
            return real(*arguments)

        monkeypatch.setattr(materials, name, meddling)

    return plan


class TestExport:
    def test_the_wrapping_key_is_revoked(
        self, session: Session, meddle: Meddle
    ) -> None:
        """Nothing leaves under a wrapping key that was revoked meanwhile."""
        by = session.create_key("aes-kw").key_id
        key = session.create_key("aes", exportable=True).key_id
        meddle("open_material", lambda: session.revoke(by))

        with pytest.raises(errors.KeyStateError):
            session.export_key(key, by)

    def test_the_wrapping_key_is_rotated(
        self, session: Session, meddle: Meddle
    ) -> None:
        """A wrapping key that was rotated meanwhile wraps by its new version."""
        by = session.create_key("aes-kw").key_id
        key = session.create_key("aes", exportable=True).key_id
        meddle("open_material", lambda: session.rotate(by))

        out = session.export_key(key, by)

        assert 2 == out.wrapping_version

    @pytest.mark.parametrize("end", ["revoke", "destroy"])
    def test_the_key_comes_to_an_end(
        self, session: Session, meddle: Meddle, end: str
    ) -> None:
        """A key that was revoked or destroyed meanwhile does not leave."""
        by = session.create_key("aes-kw").key_id
        key = session.create_key("aes", exportable=True).key_id
        meddle("open_material", lambda: getattr(session, end)(key))

        with pytest.raises(errors.KeyStateError):
            session.export_key(key, by)


class TestRewrap:
    def test_the_old_version_is_revoked(self, session: Session, meddle: Meddle) -> None:
        """What a version made is not carried on if it was revoked meanwhile."""
        key = session.create_key("aes").key_id
        old = session.encrypt(key, b"m")
        session.rotate(key)
        meddle("handle", lambda: session.revoke(key, version=1))

        with pytest.raises(errors.KeyStateError):
            session.rewrap(key, old)

    def test_the_key_is_rotated(self, session: Session, meddle: Meddle) -> None:
        """A rotation meanwhile takes nothing away."""
        key = session.create_key("aes").key_id
        old = session.encrypt(key, b"m")
        meddle("handle", lambda: session.rotate(key))

        assert b"m" == session.decrypt(key, session.rewrap(key, old))


class TestMutations:
    """Of the keys that they name, all are locked; slow ones look again."""

    def test_slow_imports_look_again(self, session: Session, meddle: Meddle) -> None:
        """A slow import under a wrapping key that was revoked meanwhile is refused."""
        by = session.create_key("ML-KEM-768", usages=WRAP).key_id
        pair = primitives.generate(Algorithm.RSA_2048)
        wrapped = primitives.wrap_for_import(
            Algorithm.ML_KEM_768, session.public_key(by).der, pair.material
        )
        session.import_key("rsa2048", by, wrapped)
        meddle("handle", lambda: session.revoke(by))

        with pytest.raises(errors.KeyStateError):
            session.import_key("rsa2048", by, wrapped)

        assert 1 == len(list(session.keys(algorithm="rsa2048")))
