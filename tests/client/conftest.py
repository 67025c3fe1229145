# SPDX-License-Identifier: MIT
"""Fixtures of the client's tests."""

from collections.abc import Iterator
from typing import Any

import pytest

from hsm_client import RemoteHSM
from hsm_core.factory import OpenHSM
from hsm_core.testing import caller, memory_hsm
from tests.client.certificates import Certificates, make_certificates
from tests.client.stub import TOKEN, Stub, serving
from tests.client.support import Remote


@pytest.fixture
def gateway() -> Iterator[OpenHSM]:
    """Give a fresh HSM in memory."""
    with memory_hsm() as opened:
        yield opened


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give an authority, a server and a client that it knows, as PEM files."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def stub(gateway: OpenHSM, certificates: Certificates) -> Iterator[Stub]:
    """Give a small HTTPS server over the HSM in memory, with injectable faults."""
    with serving(gateway.act_as(caller()), certificates) as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    """Give the list of waits between attempts."""
    return []


@pytest.fixture
def remote(
    stub: Stub, certificates: Certificates, pauses: list[float]
) -> Iterator[Remote]:
    """Give a factory of clients of the stub, closed at the end."""
    made = []

    def make(**changes: Any) -> RemoteHSM:
        arguments: dict[str, Any] = {
            "endpoint": stub.endpoint,
            "token": lambda: TOKEN,
            "ca_bundle": certificates.ca,
            "timeout_seconds": 5.0,
            "pause": pauses.append,
        }
        arguments.update(changes)
        made.append(RemoteHSM(arguments.pop("endpoint"), **arguments))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def hsm(remote: Remote) -> RemoteHSM:
    """Give a client of the stub."""
    return remote()
