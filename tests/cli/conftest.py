# SPDX-License-Identifier: MIT
"""Fixtures of the command line's tests."""

import os
import sys
from pathlib import Path

import pytest

from hsm_core.factory import OpenHSM
from hsm_core.testing import caller
from tests.cli.support import Shell
from tests.client.certificates import Certificates
from tests.client.conftest import (
    certificates,
    entries,
    gateway,
    hsm,
    pauses,
    remote,
    stub,
    way,
)
from tests.client.stub import TOKEN, Stub

__all__ = [
    "certificates",
    "entries",
    "gateway",
    "hsm",
    "pauses",
    "remote",
    "stub",
    "way",
]


@pytest.fixture
def shell(gateway: OpenHSM, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Give hsm-cli over the HSM in memory, as its administrator and operator."""
    return Shell(monkeypatch, gateway.act_as(caller()))


@pytest.fixture
def bare_shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Give hsm-cli that must reach a server."""
    return Shell(monkeypatch, None)


@pytest.fixture
def online(
    bare_shell: Shell,
    stub: Stub,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> Shell:
    """Give hsm-cli whose environment names the stub, but no credential."""
    monkeypatch.setenv("FERROHSM_ENDPOINT", stub.endpoint)
    monkeypatch.setenv("FERROHSM_CA_BUNDLE", str(certificates.ca))
    return bare_shell


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """Give a file of binary data."""
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(range(256)) * 4)
    return path


@pytest.fixture
def environment(stub: Stub, certificates: Certificates) -> dict[str, str]:
    """Give an environment with nothing but what reaches the stub."""
    return {
        "PATH": os.environ["PATH"],
        "FERROHSM_ENDPOINT": stub.endpoint,
        "FERROHSM_CA_BUNDLE": str(certificates.ca),
        "FERROHSM_AUTH_TOKEN": TOKEN,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
