# SPDX-License-Identifier: MIT
"""Fixtures of the client's tests."""

from collections.abc import Iterator
from typing import Any

import pytest

from hsm_core.factory import OpenHSM
from hsm_core.model import AuditEntry
from hsm_core.operations import GenerateRandom, ListAuditEvents
from hsm_core.testing import caller, memory_hsm
from tests.client.certificates import Certificates, make_certificates
from tests.client.stub import TOKEN, Stub, serving
from tests.client.ways import WAYS, InLoop, Remote, Way


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
def way() -> str:
    """Give the name of the client; modules that test both override it."""
    return "blocking"


@pytest.fixture
def remote(
    stub: Stub, certificates: Certificates, pauses: list[float], way: str
) -> Iterator[Remote]:
    """Give a factory of clients of the stub, closed at the end."""
    made: list[Way] = []

    def make(**changes: Any) -> Way:
        arguments: dict[str, Any] = {
            "endpoint": stub.endpoint,
            "token": lambda: TOKEN,
            "ca_bundle": certificates.ca,
            "timeout_seconds": 5.0,
            "pause": pauses.append,
        }
        arguments.update(changes)
        made.append(WAYS[way](arguments.pop("endpoint"), **arguments))
        return made[-1]

    yield make
    for client in made:
        client.end() if isinstance(client, InLoop) else client.close()


@pytest.fixture
def hsm(remote: Remote) -> Way:
    """Give a client of the stub."""
    return remote()


@pytest.fixture
def entries(gateway: OpenHSM) -> tuple[AuditEntry, ...]:
    """Give ten entries of a trail."""
    hsm = gateway.act_as(caller())
    for _ in range(10):
        hsm.execute(GenerateRandom(length=1))
    return hsm.execute(ListAuditEvents(ascending=True, limit=10)).items
