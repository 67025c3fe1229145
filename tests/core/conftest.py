# SPDX-License-Identifier: MIT
"""An open HSM in memory, for tests that need nothing particular of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hsm_core.factory import OpenHSM
from hsm_core.session import Session
from hsm_core.testing import memory_hsm
from tests.core.hsm_support import session_of


@pytest.fixture
def gateway() -> Iterator[OpenHSM]:
    """Give a fresh HSM in memory."""
    with memory_hsm() as opened:
        yield opened


@pytest.fixture
def session(gateway: OpenHSM) -> Session:
    """Give a session of somebody who may do everything, on that HSM."""
    return session_of(gateway)
