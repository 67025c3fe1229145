# SPDX-License-Identifier: MIT
"""A server of its own for each test that asks for one."""

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
