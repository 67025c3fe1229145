# SPDX-License-Identifier: MIT
"""A site whose keys have old versions, and people who agree that they go."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.protocols import Clock
from hsm_core.settings import Settings
from tests.e2e.https import NoAnswerError
from tests.e2e.people import Done, PeopleSite
from tests.e2e.processes import ServerProcess, program

POLICY = "default_days: 1\n"
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.1


def answered(is_so: Callable[[], bool]) -> bool:
    """Return whether something is so, and the server says it."""
    try:
        return is_so()
    except NoAnswerError:
        return False


class RetentionSite(PeopleSite):
    """
    A site with a retention policy and a ledger.

    Attributes:
        grace: Grace period of the next server that is started, in seconds.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.policy = folder / "retention.yaml"
        self.policy.write_text(POLICY)
        self.grace = 0

    @property
    def ledger(self) -> Path:
        """File of the ledger."""
        return self.audit_log.with_name("retention-ledger.log")

    def server_arguments(self) -> list[str]:
        """Return the flags of a server that purges."""
        return [
            *super().server_arguments(),
            *("--retention-config", str(self.policy)),
            *("--retention-grace-secs", str(self.grace)),
        ]

    def open(self, clock: Clock) -> OpenHSM:
        """Open its data in this process, at another time, while no server runs."""
        settings = Settings(
            key_dir=self.key_dir,
            audit_log=self.audit_log,
            approval_dir=self.audit_log.with_name("approvals"),
            retention_config=self.policy,
            retention_ledger=self.ledger,
            retention_grace_seconds=self.grace,
        )
        return open_hsm(
            settings,
            master_key=self.secrets["master-key"],
            hmac_key=self.secrets["hmac-key"],
            clock=clock,
        )

    def states(self, port: int, name: str) -> list[str]:
        """Return the states of a key's versions."""
        return [
            item["state"] for item in self.get(port, f"/keys/{name}/versions")["items"]
        ]

    def sweep_until(
        self, server: ServerProcess, is_so: Callable[[], bool], what: str
    ) -> None:
        """
        Have the server sweep, with SIGHUP, until something is so.

        Raises:
            TimeoutError: It is not, in a minute.
        """
        until = time.monotonic() + _WAIT_SECONDS
        asked = 0.0
        while not answered(is_so):
            if time.monotonic() > until:
                raise TimeoutError(f"{what}: {server.output}")
            if time.monotonic() > asked + 1.0:
                os.kill(server.pid, signal.SIGHUP)
                asked = time.monotonic()
            time.sleep(_POLL_SECONDS)

    def sweep_until_destroyed(self, server: ServerProcess, name: str) -> None:
        """Have the server sweep until the first version of a key is destroyed."""
        self.sweep_until(
            server, lambda: self.states(server.port, name)[0] == "destroyed", name
        )

    def verify_ledger(self) -> Done:
        """Compare ledger and trail with the real client, without a server."""
        return subprocess.run(
            [
                *program("hsm-cli"),
                *("retention", "ledger", "verify", str(self.ledger), "--json"),
                *("--audit-path", str(self.audit_log)),
                *("--hmac-key", f"@{self.secret_file('hmac-key')}"),
            ],
            env=self.environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
