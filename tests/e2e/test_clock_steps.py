# SPDX-License-Identifier: MIT
"""A clock that is set forward and back revives no token and gives nobody more."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.https import Client
from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site
from tests.e2e.tokens import sign_token
from tests.support import REPOSITORY

PROGRAM = Path(__file__).with_name("clocked_server.py")
DAY = 86_400
BURST = 5


class Clocked:
    """
    A server, and its clock.

    Args:
        site: Of the server.

        flags: More of its flags.
    """

    def __init__(self, site: Site, *flags: str) -> None:
        self.site = site
        self._file = site.folder / "ahead"
        self.set(0)
        command = (sys.executable, str(PROGRAM), str(self._file))
        environment = site.environment() | {"PYTHONPATH": str(REPOSITORY)}
        self.server: ServerProcess = site.start(
            *flags, command=command, environment=environment
        )

    def set(self, ahead_seconds: int) -> None:
        """Set the clock so many seconds ahead of the right time."""
        new = self._file.with_name("ahead.new")
        new.write_text(str(ahead_seconds))
        new.replace(self._file)

    def token(self, name: str, *, ahead_seconds: int = 0) -> str:
        """Return a token that is good for a minute from some instant on."""
        begin = int(time.time()) + ahead_seconds
        claims = {"sub": name, "roles": ["operator"], "iat": begin, "exp": begin + 60}
        header = {"alg": "HS256", "typ": "JWT"}
        return sign_token(self.site.secrets["jwt-secret"], header, claims)

    def ask(self, token: str) -> int:
        """Return the status of a request for random bytes."""
        with Client(self.server.port, self.site.context, token, 30.0) as client:
            return client.request("POST", "/api/v1/random", {"length": 16}).status


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Clocked]]:
    """Give what starts a server, which ends with the test."""
    started: list[Clocked] = []

    def begin(*flags: str) -> Clocked:
        started.append(Clocked(Site(tmp_path / "site"), *flags))
        return started[-1]

    yield begin
    for clocked in started:
        assert 0 == clocked.server.stop()


@pytest.mark.parametrize("step", [DAY, -DAY], ids=["forward", "back"])
def test_no_step_gives_more(start: Callable[..., Clocked], step: int) -> None:
    """
    Who has spent what they may waits by the monotonic clock, and nobody else does.
    """
    limits = ("--rate-limit-per-second", "0.001", "--rate-limit-burst", str(BURST))
    clocked = start(*limits)
    now = clocked.token("ada")
    spent = [clocked.ask(now) for _ in range(BURST + 1)]
    clocked.set(step)
    # A clock that is set back is not believed: a token of now is as good as before.
    ada, bob = (
        clocked.token(name, ahead_seconds=max(step, 0)) for name in ("ada", "bob")
    )
    after = (clocked.ask(ada), clocked.ask(bob))

    assert [200] * BURST + [429] == spent
    assert (429, 200) == after
