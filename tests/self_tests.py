# SPDX-License-Identifier: MIT
"""Self-tests where they are not what is tested."""

from functools import cache
from typing import Any
from unittest.mock import patch

import pytest

from hsm_core._internal.crypto.registry import CryptoRegistry, default_registry
from hsm_core._internal.crypto.selftest import known_answer_test
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import Algorithm
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.protocols import CryptoProvider
from hsm_core.settings import Settings

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


@cache
def shared_registry() -> CryptoRegistry:
    """Return a registry that ran its self-tests, once for all that is opened."""
    registry = default_registry(SystemEntropy(), {})
    registry.power_up_test()
    return registry


def open_tested(settings: Settings, **facts: Any) -> OpenHSM:
    """Open an HSM with the keys of the tests and a registry that was tested before."""
    keys = {"master_key": b"\x01" * 32, "hmac_key": b"\x02" * 32}
    with patch("hsm_core.factory.default_registry", return_value=shared_registry()):
        return open_hsm(settings, **keys | facts)
