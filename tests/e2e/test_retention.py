# SPDX-License-Identifier: MIT
"""Retention on a real server: asked, agreed to, stopped, killed, done, and shown."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hsm_core.model import Role
from hsm_core.session import Session
from hsm_core.testing import caller
from tests.core.ripe_material import DAY, MovedClock, adopt_policy, make_old, ripen
from tests.e2e.processes import ServerProcess
from tests.e2e.retention_site import POLICY, RetentionSite

STATE_REFUSED, DAMAGED, WAITING = 5, 7, 11
ACTIVE, RETIRED = "active", "retired"
HEALTHY = "ferrohsm_retention_healthy"


@pytest.fixture
def site(tmp_path: Path) -> RetentionSite:
    """Give a site without keys."""
    return RetentionSite(tmp_path / "site")


class Told:
    """The real client, run as one person after the other."""

    def __init__(self, site: RetentionSite, port: int) -> None:
        self.site = site
        self.port = port

    def __call__(
        self, who: str, *words: str, status: int = 0, data: bytes = b""
    ) -> str:
        """Run it, check its exit status, and return what it printed."""
        done = self.site.tell(self.port, who, *words, data=data)
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert status == done.returncode, f"{words}: {said}"
        assert "Traceback" not in said
        return said

    def asked(self) -> dict[str, Any]:
        """Return what retention shows of each key, by its id."""
        items = self.site.get(self.port, "/retention").get("items", [])
        return {item["key_id"]: item for item in items}


def ids(site: RetentionSite, port: int) -> dict[str, str]:
    """Return the ids of all keys by their names."""
    return {k["name"]: k["key_id"] for k in site.get(port, "/keys")["items"]}


def begin(site: RetentionSite) -> bytes:
    """Make keys that were rotated three days ago; return what one has encrypted."""
    clock = MovedClock(-3 * DAY)
    with site.open(clock) as gateway:
        session = Session(gateway.act_as(caller(*Role)))
        session.create_key("AES-256-GCM", name="box")
        old = session.encrypt("box", b"attack at dawn")
        session.rotate("box")
        make_old(gateway, ["held", "kept"])
    return old


def schedule_and_stop(site: RetentionSite, hsm: Told, server: ServerProcess) -> None:
    """Agree to two purges, and stop them in their grace period."""
    known = ids(site, hsm.port)
    for name in ("held", "kept"):
        site.agree(hsm.port, hsm.asked()[known[name]]["approval_id"])

    def is_scheduled() -> bool:
        found = hsm.asked()
        return all(found[known[n]]["state"] == "scheduled" for n in ("held", "kept"))

    site.sweep_until(server, is_scheduled, "scheduled")
    shown = hsm("anton/auditor", "retention", "status")
    assert "scheduled" in shown
    assert "asked" in shown
    assert ["purge_scheduled", ACTIVE] == site.states(hsm.port, "held")
    hsm("anton/auditor", "retention", "hold", "held", "--reason", "case 4711")
    extend = ("retention", "extend", "kept", "--version", "1", "--days", "9")
    hsm("anton/auditor", *extend)
    assert [RETIRED, ACTIVE] == site.states(hsm.port, "held")
    assert [RETIRED, ACTIVE] == site.states(hsm.port, "kept")


def kill_in_the_purge(site: RetentionSite, server: ServerProcess) -> None:
    """Kill the process that has the keys as soon as the ledger has an intent."""
    size = site.ledger.stat().st_size
    vault = server.processes()["vault"]
    killed = threading.Event()

    def strike() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if site.ledger.stat().st_size > size:
                os.kill(vault, signal.SIGKILL)
                killed.set()
                return
            time.sleep(0.0005)

    striker = threading.Thread(target=strike)
    striker.start()
    site.sweep_until(server, killed.is_set, "killed")
    striker.join()


def test_a_purge_from_first_to_last(site: RetentionSite) -> None:
    """
    What is old is asked for, agreed to, scheduled, and stopped or done; for ever.

    A hold and an extension stop it; that its process is killed in it does not.
    """
    old = begin(site)
    site.grace = 24 * 3600
    with site.start() as server:
        hsm = Told(site, server.port)
        site.sweep_until(server, lambda: len(hsm.asked()) == 3, "asked")
        box = ids(site, hsm.port)["box"]
        approval = hsm.asked()[box]["approval_id"]
        schedule_and_stop(site, hsm, server)
        server.kill()

    site.grace = 0
    decrypt = ("decrypt", "box", "--in", "-", "--out", "-")
    with site.start() as server:
        hsm = Told(site, server.port)
        blob = next(site.key_dir.rglob(f"{box}/v00000001"))
        kept = blob.read_bytes()
        assert "attack at dawn" == hsm("olga/operator", *decrypt, data=old)
        hsm("olga/operator", "approvals", "approve", approval, "--yes")
        hsm("anton/auditor", "approvals", "approve", approval, "--yes")
        kill_in_the_purge(site, server)
        site.sweep_until_destroyed(server, "box")
        assert not blob.exists()
        blob.write_bytes(kept)
        blob.chmod(0o600)
        said = hsm("olga/operator", *decrypt, data=old, status=STATE_REFUSED)
        assert "destroyed" in said
        assert 0 == server.stop()

    end(site, old, decrypt)


def end(site: RetentionSite, old: bytes, decrypt: tuple[str, ...]) -> None:
    """See that all of that is kept, and that what was held goes once it is released."""
    with site.start() as server:
        hsm = Told(site, server.port)
        hsm("olga/operator", *decrypt, data=old, status=STATE_REFUSED)
        assert [RETIRED, ACTIVE] == site.states(server.port, "held")
        release = ("retention", "release", "held", "--reason", "case 4711 is closed")
        hsm("ada/administrator", *release)
        site.sweep_until_destroyed(server, "held")
        assert [RETIRED, ACTIVE] == site.states(server.port, "kept")
        assert 0 == server.stop()
    verified = json.loads(site.verify_ledger().stdout)
    assert (2, 0, 0) == tuple(verified[n] for n in ("purges", "aborted", "unfinished"))
    site.verify_log()


def attest_one(site: RetentionSite) -> None:
    """Have material of one key purged, and people asked for that of another."""
    clock = MovedClock(-3 * DAY)
    with site.open(clock) as gateway:
        make_old(gateway, ["first", "second"])
        until = datetime.now(UTC) - timedelta(days=1)
        Session(gateway.act_as(caller(*Role))).extend_retention("second", 1, until)
    clock = MovedClock(-1.9 * DAY)
    with site.open(clock) as gateway:
        ripen(gateway, clock)
        assert gateway.retention is not None
        gateway.retention.sweep()
    clock = MovedClock(-DAY / 2)
    with site.open(clock) as gateway:
        adopt_policy(gateway, clock)


def lose(site: RetentionSite) -> None:
    """Remove the ledger with all that belongs to it."""
    for path in site.ledger.parent.glob(f"*{site.ledger.name}*"):
        path.unlink()


def spoil_policy(site: RetentionSite, server: ServerProcess) -> None:
    """Break the retention policy's file and mend it, and see that both are told."""

    def is_healthy() -> bool:
        return site.metric(server.port, HEALTHY) == 1

    site.sweep_until(server, is_healthy, "healthy")
    before = server.output.count("retention impaired")
    site.policy.write_text("default_days: 0\n")
    site.sweep_until(server, lambda: not is_healthy(), "broken")
    assert "default_days" in site.get(server.port, "/retention")["problem"]
    assert before + 1 == server.output.count("retention impaired")
    site.policy.write_text(POLICY)
    site.sweep_until(server, is_healthy, "mended")


def test_a_ledger_that_is_lost(site: RetentionSite) -> None:
    """
    It is named offline, in the log, the status and the metrics, and nothing is purged.

    All else goes on, and purges too when three people have said so.
    """
    attest_one(site)
    assert 1 == json.loads(site.verify_ledger().stdout)["purges"]
    lose(site)
    assert site.verify_ledger().returncode
    with site.start() as server:
        hsm = Told(site, server.port)
        site.sweep_until(
            server, lambda: "retention impaired" in server.output, "impaired"
        )
        assert "not the one that the audit log names" in server.output
        shown = hsm("anton/auditor", "retention", "status")
        assert "not the one that the audit log names" in shown
        site.sweep_until(
            server, lambda: site.metric(server.port, HEALTHY) == 0, "impaired"
        )
        hsm("olga/operator", "create", "aes", "--name", "new")
        second = ids(site, server.port)["second"]
        site.sweep_until(server, lambda: second in hsm.asked(), "asked")
        site.agree(server.port, hsm.asked()[second]["approval_id"])
        site.sweep_until(
            server,
            lambda: "purge_scheduled" == site.states(server.port, "second")[0],
            "scheduled",
        )
        begin_anew = ("retention", "ledger", "begin", "--reason", "the disk failed")
        hsm("ada/administrator", *begin_anew, status=WAITING)
        (asked,) = site.get(server.port, "/approvals?states=pending")["items"]
        site.agree(server.port, asked["approval_id"])
        assert "purge_scheduled" == site.states(server.port, "second")[0]
        hsm("ada/administrator", *begin_anew)
        site.sweep_until_destroyed(server, "second")
        site.sweep_until(
            server, lambda: "retention healthy" in server.output, "healthy"
        )
        spoil_policy(site, server)
        assert 0 == server.stop()
    verified = json.loads(site.verify_ledger().stdout)
    assert (1, 1) == (verified["purges"], verified["former"])
