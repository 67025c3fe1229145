# SPDX-License-Identifier: MIT
"""A server of which one front end was taken over."""

import json
import shutil
import time
from pathlib import Path

from hsm_core.errors import AuthenticationError
from tests.server.process import Site
from tests.server.support import b64url, claims, mint

TOKENS = [
    "",
    mint(secret=b"x" * 32),
    mint(claims(exp=int(time.time()) - 300, iat=int(time.time()) - 900)),
    mint(claims(cnf={"x5t#S256": b64url(b"\1" * 32)})),
    f"{b64url(b'{}')}.{b64url(b'{}')}.",
]


class Attacked(Site):
    """A site whose servers have a second front end that is hostile."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        here = Path(__file__).parent
        for name in ("hostile_launch.py", "hostile_program.py"):
            shutil.copy(here / name, folder / name)
        (folder / "tokens.json").write_text(json.dumps(TOKENS))

    def command(self, *arguments: str) -> list[str]:
        """Return the command that starts such a server."""
        python, isolated, _, _, *flags = super().command(*arguments, "--workers", "2")
        launch = str(self.folder / "hostile_launch.py")
        return [python, isolated, launch, *flags]


def test_the_others_go_on(tmp_path: Path) -> None:
    """It gets nothing, that is counted and on record, and clients are served."""
    site = Attacked(tmp_path)
    report = tmp_path / "report.json"

    with site.serve() as running:
        ends = time.monotonic() + 120
        while not report.exists() and time.monotonic() < ends:
            time.sleep(0.05)
        found = json.loads(report.read_text())
        created = running.send("POST", "/api/v1/keys", {"algorithm": "Ed25519"})
        trail = running.send("GET", "/api/v1/audit/events?limit=1000")
        metrics = running.send("GET", "/metrics").body.decode()
        health = running.send("GET", "/healthz")
        status = running.stop()

    assert [AuthenticationError.code] * len(TOKENS) == found["codes"]
    assert found["is_ended"]
    assert (201, 200) == (created.status, health.status)
    kinds = [entry["event"]["kind"] for entry in trail.json["items"]]
    assert len(TOKENS) == kinds.count("Authenticate")
    assert {"alice"} == {
        entry["event"]["caller"]["principal"]
        for entry in trail.json["items"]
        if entry["event"]["kind"] == "CreateKey"
    }
    counted = 'ferrohsm_vault_violations_total{reason="a frame of a wrong length"} 1.0'
    assert counted in metrics
    failures = f"ferrohsm_auth_jwt_failure_total {float(len(TOKENS))}"
    assert failures in metrics
    assert 0 == status
    refused = [line for line in site.log() if line["event"] == "front end refused"]
    assert ["a frame of a wrong length"] == [line["reason"] for line in refused]
