# SPDX-License-Identifier: MIT
"""Fixtures of the client's tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hsm_cli.client import RemoteHSM
from hsm_core.factory import OpenHSM
from hsm_core.testing import caller, memory_hsm
from tests.cli.certificates import Certificates, make_certificates
from tests.cli.stub import TOKEN, Stub, serving
from tests.cli.support import Remote, Shell


@pytest.fixture
def gateway() -> Iterator[OpenHSM]:
    """Give a fresh HSM in memory."""
    with memory_hsm() as opened:
        yield opened


@pytest.fixture
def shell(gateway: OpenHSM, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Give hsm-cli over the HSM in memory, as its administrator and operator."""
    return Shell(monkeypatch, gateway.act_as(caller()))


@pytest.fixture
def bare_shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Give hsm-cli that must reach a server."""
    return Shell(monkeypatch, None)


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
def data_file(tmp_path: Path) -> Path:
    """Give a file of binary data."""
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(range(256)) * 4)
    return path


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
