# SPDX-License-Identifier: MIT
"""The supervisor over children that do not behave."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from hsm_server.processes.child_process import Roles
from tests.server.supervised import ErrorOutput, supervise
from tests.server.support import PATIENCE

LINKED = "linked"

_STUB = """
import socket, sys
from hsm_server.ipc import control as c
import msgspec
pack, read = msgspec.msgpack.encode, msgspec.msgpack.Decoder(c.FromSupervisor).decode
end = socket.socket(fileno=int(sys.argv[1]))
c.receive_begin(end)
end.send(pack(c.Ready()))
{then}
while True:
    data, descriptors, _, _ = socket.recv_fds(end, 131072, 64)
    match read(data):
        case c.Serve():
            end.send(pack(c.Serve()))
        case c.Beat():
            end.send(pack(c.Beat({is_linked})))
        case c.UseTLS(serial):
            end.send(pack(c.UsingTLS(serial)))
        case c.Link():
            print("linked", flush=True, file=sys.stderr)
        case c.Stop():
            break
"""
_PUBLISH = """
from hsm_server.system.secret_handover import seal
socket.send_fds(end, [pack(c.Publish(1))], [seal("state", b"state")])
"""
_GOOD = ("-c", _STUB.format(is_linked=True, then=""))
_UNLINKED = ("-c", _STUB.format(is_linked=False, then=""))
_TLS_MANAGER = ("-c", _STUB.format(is_linked=True, then=_PUBLISH))
_DYING = ("-c", "raise SystemExit(3)")
_STOPPED = ("-c", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)")


@pytest.fixture
def output(tmp_path_factory: pytest.TempPathFactory) -> ErrorOutput:
    """Give standard error, for reading while children write."""
    return ErrorOutput(tmp_path_factory.mktemp("output") / "errors")


async def _end(output: ErrorOutput, links: int, seconds: float) -> None:
    """End the server a while after so many connections."""
    async with asyncio.timeout(PATIENCE):
        while output.lines.count(LINKED) < links:
            await asyncio.sleep(0.02)
    await asyncio.sleep(seconds)
    os.kill(os.getpid(), signal.SIGTERM)


async def _nothing() -> None:
    """Leave the server alone."""


@pytest.mark.parametrize("which", ["vault", "front_end", "tls_manager"])
def test_a_child_that_dies_at_once_ends_the_start(
    tmp_path: Path, which: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line says which, and how; the status is 1, and nothing remains."""
    good = {"vault": _GOOD, "front_end": _GOOD, "tls_manager": _TLS_MANAGER}
    roles = Roles(**{**good, which: _DYING})
    status = supervise(tmp_path, roles, _nothing())
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line != "linked"]

    assert 1 == status
    assert "" == out
    (line,) = lines
    slot = {"vault": "vault", "front_end": "front1", "tls_manager": "tls"}[which]
    assert f"The process {slot} exited" in line
    assert "exited unexpectedly (status 3)" in line
    assert [] == list(tmp_path.iterdir())


def test_a_child_that_is_stopped_at_its_start_is_ended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Opening may take long; who can't go on at all is not waited for."""
    status = supervise(tmp_path, Roles(_STOPPED, _GOOD, _TLS_MANAGER), _nothing())

    assert 1 == status
    assert "vault did not respond and was killed" in capfd.readouterr().err


def test_a_front_end_that_lost_its_vault_gets_another_connection(
    tmp_path: Path, output: ErrorOutput
) -> None:
    """It says so when it is asked, and is connected again, at most once a second."""
    began = time.monotonic()
    roles = Roles(_GOOD, _UNLINKED, _TLS_MANAGER)
    with output.kept():
        status = supervise(tmp_path, roles, _end(output, links=6, seconds=0))

    assert 0 == status
    assert time.monotonic() - began > 1.9


def test_who_is_linked_is_left_alone(tmp_path: Path, output: ErrorOutput) -> None:
    """Both are given one connection, and no more."""
    roles = Roles(_GOOD, _GOOD, _TLS_MANAGER)
    with output.kept():
        status = supervise(tmp_path, roles, _end(output, links=2, seconds=2.5))

    assert 0 == status
    assert 2 == output.lines.count(LINKED)
