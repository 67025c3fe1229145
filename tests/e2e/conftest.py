# SPDX-License-Identifier: MIT
"""Servers: one for each test that asks for it, or one for all tests of a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Give certificates, secrets and an empty data folder."""
    return Site(tmp_path / "site")


@pytest.fixture
def server(site: Site) -> Iterator[ServerProcess]:
    """Give a running server over the site."""
    with site.start() as running:
        yield running


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Give the site of a file's tests."""
    return Site(tmp_path_factory.mktemp("shared") / "site")


@pytest.fixture(scope="module")
def shared_server(shared_site: Site) -> Iterator[ServerProcess]:
    """Give the running server of a file's tests, which must end in order."""
    with shared_site.start() as running:
        yield running
        assert 0 == running.stop()
