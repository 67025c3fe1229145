# SPDX-License-Identifier: MIT
"""
Plug-in of pytest: fixtures for tests of programs that use an HSM.

pytest finds it once hsm-core is installed. ``hsm`` is an HSM in memory, ``clock`` its
time, ``hsm_server`` the address of a development server, and ``pkcs11_module`` a
PKCS#11 module that serves its keys.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from hsm_core.embedded import EmbeddedHSM
    from hsm_core.testing import FakeClock

__all__ = ["TestModule", "TestServer", "clock", "hsm", "hsm_server", "pkcs11_module"]

_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 30
_PAUSE_SECONDS: Final = 0.05
_MODULES: Final = (
    "/usr/lib/*/pkcs11/p11-kit-client.so",
    "/usr/lib64/pkcs11/p11-kit-client.so",
    "/usr/lib/pkcs11/p11-kit-client.so",
)
"""Places of p11-kit's client module, which Linux distributions install."""


@dataclass(frozen=True)
class TestServer:
    """
    Development server of a test run, of which nothing is kept.

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


@dataclass(frozen=True)
class TestModule:
    """
    PKCS#11 module with the keys of ``hsm_server``, for programs of a test.

    Attributes:
        path: Shared library to load: p11-kit's client module.
        socket: Socket that the module connects to.
        server: Server whose keys it shows; the user ``dev`` has every role.
    """

    __test__ = False  # pytest takes the class for tests otherwise

    path: Path
    socket: Path
    server: TestServer

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variable that the module needs, also for child processes."""
        return {"P11_KIT_SERVER_ADDRESS": f"unix:path={self.socket}"}


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
        if not _wait(process, profile.exists):
            errors.seek(0)
            pytest.fail(f"hsm-server --dev did not start:\n{errors.read()}")
        found = tomllib.loads(profile.read_text("utf-8"))
        yield TestServer(
            url=found["endpoint"],
            ca_bundle=Path(found["ca-bundle"]),
            token_file=Path(found["token-file"]),
            audit_log=Path(found["audit-log"]),
        )


@pytest.fixture(scope="session")
def pkcs11_module(
    hsm_server: TestServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestModule]:
    """
    Give a PKCS#11 module with the keys of ``hsm_server``, one for the whole test run.

    Its environment variable is set for the test process, too, so that libraries can
    load the module. Skips without the distribution hsm-cli or p11-kit's module.
    """
    found = [Path(path) for pattern in _MODULES for path in glob(pattern)]
    if find_spec("hsm_cli") is None or not found:
        pytest.skip("pkcs11_module needs the distribution hsm-cli and p11-kit-modules.")
    folder = tmp_path_factory.mktemp("pkcs11")
    with ExitStack() as stack:
        # Paths of sockets are short.
        short = stack.enter_context(TemporaryDirectory(prefix="hsm-"))
        module = TestModule(found[0], Path(short, "pkcs11.sock"), hsm_server)
        errors = stack.enter_context((folder / "stderr").open("w+"))
        command = (*("pkcs11", "serve", "--socket"), str(module.socket))
        process = subprocess.Popen(  # noqa: S603 (the program of this environment)
            [sys.executable, "-m", "hsm_cli", *command],
            env={**_environment(folder), **hsm_server.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        stack.callback(_stop, process)
        if not _wait(process, partial(_listens, module.socket)):
            errors.seek(0)
            pytest.fail(f"hsm-cli pkcs11 serve did not start:\n{errors.read()}")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in module.environment.items():
                patch.setenv(name, value)
            yield module


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of a server that depends on no settings of the user."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("FERROHSM_")}
    return own | {"XDG_CONFIG_HOME": str(folder)}


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _wait(process: subprocess.Popen[bytes], is_ready: Callable[[], bool]) -> bool:
    """Return whether a program became ready, before it ended and in time."""
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if is_ready():
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
