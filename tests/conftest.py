# SPDX-License-Identifier: MIT
"""Fixtures for the tests of every distribution."""

import contextlib

# Before anything else loads cryptography; the core is also tested without the server.
with contextlib.suppress(ImportError):
    import hsm_server.tls.openssl  # noqa: F401

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import require_service as require_service_or_skip
from tests.support import vectors_folder

# How long an example takes is the machine's business, and no test's.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def vectors() -> Callable[[str], Path]:
    """Give the folder of a set of public test vectors, by name, or skip."""
    return vectors_folder


@pytest.fixture
def require_service() -> Callable[[str, object], None]:
    """Skip unless the second argument is true; fail where services are required."""
    return require_service_or_skip
