# SPDX-License-Identifier: MIT
"""Self-tests where they are not what is tested."""

import pytest

from hsm_core._internal.crypto.selftest import known_answer_test
from hsm_core.algorithms import Algorithm
from hsm_core.protocols import CryptoProvider

_passed: set[tuple[Algorithm, type[CryptoProvider]]] = set()


def _unless_passed(algorithm: Algorithm, provider: CryptoProvider) -> None:
    key = algorithm, type(provider)
    if key not in _passed:
        known_answer_test(algorithm, provider)
        _passed.add(key)


def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let a known-answer test that passed in this process pass again without running.

    All of them take seconds. This is for tests of who may ask for them and how the
    report travels; that they are run each time is tested in ``test_selftest``.
    """
    place = "hsm_core._internal.crypto.registry.known_answer_test"
    monkeypatch.setattr(place, _unless_passed)
