# SPDX-License-Identifier: MIT
"""A policy file that changes under a real server, for good and for bad."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.people import PeopleSite
from tests.e2e.processes import ServerProcess

SECONDS = 60.0
OPEN = "version: 1\nextends: default\n"
SHUT = (
    OPEN
    + "rules: [{name: shut, effect: deny, match: {operations: [GenerateRandom]}}]\n"
)
LOLS = "".join(f"l{n + 1}: &l{n + 1} [{', '.join([f'*l{n}'] * 9)}]\n" for n in range(9))
BOMB = f"version: 1\nl0: &l0 [lol]\n{LOLS}"
CURRENT = "ferrohsm_policy_current"
FAILURES = "ferrohsm_policy_reload_failures_total"
ONE, TWO = ("{roles: [Auditor]}", "{distinct_roles: [Operator, Auditor]}")


def asking(people: str) -> str:
    """Return a policy by which keys are destroyed when such people agree."""
    rule = "name: two, effect: require-approval, match: {operations: [DestroyKey]}"
    return OPEN + f"rules: [{{{rule}, approval: {people}}}]\n"


class PolicySite(PeopleSite):
    """
    A site with a policy file.

    Attributes:
        interval: How often the next server looks at it, in seconds.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "policy.yaml"
        self.interval = 1.0
        self.put(OPEN)

    def put(self, text: str) -> None:
        """Put another file in the place of the one that is there."""
        new = self.path.with_name("new")
        new.write_text(text)
        new.replace(self.path)

    def server_arguments(self) -> list[str]:
        """Return the flags of a server with this policy."""
        return [
            *super().server_arguments(),
            *("--policy-config", str(self.path)),
            *("--policy-reload-interval-secs", str(self.interval)),
        ]

    def random(self, port: int) -> int:
        """Ask for random bytes; return the status."""
        with self.client(port, "olga", "Operator") as client:
            return client.request("POST", "/api/v1/random", {"length": 1}).status

    def reload(self, server: ServerProcess, text: str) -> None:
        """Put a policy in force with SIGHUP."""
        before = server.output.count('"policy loaded"')
        self.put(text)
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: server.output.count('"policy loaded"') > before, server)

    def destroy(self, port: int, name: str) -> tuple[int, str]:
        """Ask for the end of a key; return the status, and what waits for consent."""
        with self.client(port, "ada", "Administrator") as client:
            answer = client.request("DELETE", f"/api/v1/keys/{name}")
        facts = answer.json.get("facts", answer.json)
        return answer.status, str(facts.get("approval_id", ""))


@pytest.fixture
def site(tmp_path: Path) -> PolicySite:
    """Give a site with a policy that is like the built-in one."""
    return PolicySite(tmp_path / "site")


def wait_until(is_so: Callable[[], bool], server: ServerProcess) -> None:
    """
    Wait until something is so.

    Raises:
        TimeoutError: It is not, in a minute.
    """
    until = time.monotonic() + SECONDS
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(server.output)
        time.sleep(0.05)


def half_written(site: PolicySite) -> None:
    """Leave a file of which the rest is not written yet."""
    site.put(SHUT[:-20])


def a_folder(site: PolicySite) -> None:
    """Leave a folder in its place."""
    site.path.unlink(missing_ok=True)
    site.path.mkdir()


BAD: dict[str, Callable[[PolicySite], None]] = {
    "invalid": lambda site: site.put(OPEN + "rules: shut\n"),
    "half written": half_written,
    "a YAML bomb": lambda site: site.put(BOMB),
    "empty": lambda site: site.put(""),
    "deleted": lambda site: site.path.unlink(),
    "a folder": a_folder,
}


def check_refused(site: PolicySite, server: ServerProcess, number: int) -> None:
    """Wait until a file was refused, and see that everybody is told."""
    port = server.port
    wait_until(lambda: site.metric(port, FAILURES) >= number, server)
    wait_until(lambda: number <= server.output.count('"policy refused"'), server)
    assert number == server.output.count('"policy refused"')
    assert 0 == site.metric(port, CURRENT)
    assert 403 == site.random(port)
    assert not site.get(port, "/status")["policy"]["current"]
    with site.client(port, "anton", "Auditor") as client:
        assert "degraded" == client.request("GET", "/healthz").json["status"]


def test_bad_files_change_nothing_and_are_told(site: PolicySite) -> None:
    """Each is told in log, metrics, health and status; then a good one is in force."""
    site.interval = 0.3
    with site.start() as server:
        port = server.port
        assert 200 == site.random(port)
        site.put(SHUT)
        wait_until(lambda: 403 == site.random(port), server)
        for number, spoil in enumerate(BAD.values(), 1):
            spoil(site)
            check_refused(site, server, number)
        site.path.rmdir()
        site.put(OPEN)
        wait_until(lambda: 200 == site.random(port), server)
        wait_until(lambda: 1 == site.metric(port, CURRENT), server)
        assert 0 == server.stop()


def test_half_a_file_that_is_a_valid_one(site: PolicySite) -> None:
    """What stands there for less than an interval is not believed."""
    site.put(SHUT)
    site.interval = 6.0
    with site.start() as server:
        seen = set()
        for number in range(4):
            with site.path.open("w") as file:
                file.write(OPEN)
                file.flush()
                until = time.monotonic() + site.interval / 3
                while time.monotonic() < until:
                    seen.add(site.random(server.port))
                file.write(SHUT.removeprefix(OPEN) + f"# {number}\n")
        assert 0 == server.stop()

    assert {403} == seen


def test_requests_that_wait_take_the_stricter(site: PolicySite) -> None:
    """
    The policy when it is asked and the one when it is done must both have their way.
    """
    site.interval = 3600.0
    site.put(asking(ONE))
    auditor, operator = ("anton", "Auditor"), ("olga", "Operator")
    with site.start() as server:
        port = server.port
        for name in ("first", "second"):
            with site.client(port, "olga", "Operator") as client:
                body = {"algorithm": "Ed25519", "name": name}
                assert 201 == client.request("POST", "/api/v1/keys", body).status
        status, first = site.destroy(port, "first")
        assert 202 == status
        site.reload(server, asking(TWO))
        site.agree(port, first, (auditor,))
        assert (202, first) == site.destroy(port, "first")
        assert "granted" == site.agree(port, first, (operator,))
        assert 200 == site.destroy(port, "first")[0]

        _, second = site.destroy(port, "second")
        site.reload(server, asking(ONE))
        assert "pending" == site.agree(port, second, (auditor,))
        assert (202, second) == site.destroy(port, "second")
        assert "granted" == site.agree(port, second, (operator,))
        assert 200 == site.destroy(port, "second")[0]
        assert 0 == server.stop()
    site.verify_log()
