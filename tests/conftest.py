# SPDX-License-Identifier: MIT
"""Fixtures for the tests of every distribution."""

import contextlib

# Before anything else loads cryptography; the core is also tested without the server.
with contextlib.suppress(ImportError):
    import hsm_server.tls.openssl  # noqa: F401

import atexit
import gc
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.postgresql import database, postgresql  # noqa: F401 - fixtures
from tests.support import REPOSITORY, heed_signals, vectors_folder
from tests.support import require_service as require_service_or_skip

heed_signals()

# No test reads the connection profiles of the user, or their keyring.
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="ferrohsm-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CONFIG_HOME"], ignore_errors=True)
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

# How long an example takes is the machine's business, and no test's.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Put the files that run longest first, where several processes share the work."""
    if not hasattr(config, "workerinput"):
        return
    listed = tomllib.loads((REPOSITORY / "tests/sessions.toml").read_text("utf-8"))
    places = {
        REPOSITORY / "tests" / name: place for place, name in enumerate(listed["first"])
    }
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """
    Take what has been loaded out of what the garbage collector looks at.

    A collection, of which some tests ask for hundreds, then takes as long as it does in
    a small program, and not half a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def private_umask() -> Iterator[None]:
    """Give the files that a test makes the mode 0600, as those of the stores have."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def vectors() -> Callable[[str], Path]:
    """Give the folder of a set of public test vectors, by name, or skip."""
    return vectors_folder


@pytest.fixture
def require_service() -> Callable[[str, object], None]:
    """Skip unless the second argument is true; fail where services are required."""
    return require_service_or_skip
