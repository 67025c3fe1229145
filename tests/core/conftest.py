# SPDX-License-Identifier: MIT
"""What many tests need and need not care for: an open HSM, a folder, a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.factory import OpenHSM
from hsm_core.session import Session
from hsm_core.testing import FakeClock, memory_hsm
from tests.core.filesystem_support import folder_in_memory, make_template
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


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """Give a folder in memory, where many syncs take no time."""
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a closed key store in a directory, to be copied."""
    return make_template(tmp_path_factory.mktemp("template") / "store")


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that moves when it is told to."""
    return FakeClock()
