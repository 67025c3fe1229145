# SPDX-License-Identifier: MIT
"""
Plug-in of pytest: fixtures for tests of programs that use an HSM.

pytest finds it once hsm-core is installed. ``hsm`` is an HSM in memory, ``clock`` its
time, and ``hsm_server`` the address of a development server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from hsm_core.embedded import EmbeddedHSM
    from hsm_core.testing import FakeClock

__all__ = ["TestServer", "clock", "hsm", "hsm_server"]

_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 30
_PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True)
class TestServer:
    """
    Development server of a test run, with everything in memory.

    Attributes:
        url: Address, ``https://127.0.0.1:PORT``.
        ca_bundle: PEM file of its CA.
        token_file: File of a bearer token of the user ``dev``, who has every role.
        audit_log: File of its audit log.
    """

    __test__ = False  # pytest takes the class for tests otherwise

    url: str
    ca_bundle: Path
    token_file: Path
    audit_log: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables for ``hsm_client.connect()`` and ``hsm-cli``."""
        return {
            "FERROHSM_ENDPOINT": self.url,
            "FERROHSM_CA_BUNDLE": str(self.ca_bundle),
            "FERROHSM_AUTH_TOKEN": f"@{self.token_file}",
        }


@pytest.fixture
def clock() -> FakeClock:
    """Give the clock of the fixture ``hsm``, which only ``clock.advance()`` moves."""
    from hsm_core.testing import FakeClock

    return FakeClock()


@pytest.fixture
def hsm(clock: FakeClock) -> Iterator[EmbeddedHSM]:
    """
    Give a new HSM in memory.

    It is the real one, with policy and audit log; its algorithms run their self-tests
    once in a test run.
    """
    from hsm_core.embedded import MEMORY, EmbeddedHSM
    from hsm_core.testing import memory_hsm
    from hsm_core.testing.memory import AUDIT_KEY

    gateway = memory_hsm(clock=clock)
    with EmbeddedHSM(gateway, shown=MEMORY, audit_key=AUDIT_KEY) as opened:
        yield opened


@pytest.fixture(scope="session")
def hsm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    """
    Give a development server, one for the whole test run, or skip without hsm-server.

    Its keys stay until the end of the run, so each test should choose other names.
    """
    if find_spec("hsm_server") is None:
        pytest.skip("hsm_server needs the distribution hsm-server.")
    folder = tmp_path_factory.mktemp("hsm-server")
    with ExitStack() as stack:
        errors = stack.enter_context((folder / "stderr").open("w+"))
        process = subprocess.Popen(
            [sys.executable, "-m", "hsm_server", "--dev"],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        stack.callback(_stop, process)
        profile = folder / "ferrohsm" / "dev.toml"
        if not _wait(process, profile):
            errors.seek(0)
            pytest.fail(f"hsm-server --dev did not start:\n{errors.read()}")
        found = tomllib.loads(profile.read_text("utf-8"))
        yield TestServer(
            url=found["endpoint"],
            ca_bundle=Path(found["ca-bundle"]),
            token_file=Path(found["token-file"]),
            audit_log=Path(found["audit-log"]),
        )


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of a server that depends on no settings of the user."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("FERROHSM_")}
    return own | {"XDG_CONFIG_HOME": str(folder)}


def _wait(process: subprocess.Popen[bytes], profile: Path) -> bool:
    """Return whether a server is ready: it writes its profile then, in one step."""
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if profile.exists():
            return True
        time.sleep(_PAUSE_SECONDS)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
