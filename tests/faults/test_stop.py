# SPDX-License-Identifier: MIT
"""A busy server that is asked to end."""

import time
from pathlib import Path

from hsm_core.factory import open_verifier
from tests.faults.crew import Crew

PERIODS = (0.2, 0.6, 1.0)
DRAIN_SECONDS = 60.0


def test_stop_under_load_loses_nothing(tmp_path: Path) -> None:
    """
    SIGTERM ends a busy server with 0, and all that it acknowledged is there afterwards.
    """
    with Crew(tmp_path / "site", "stop") as crew:
        for period in PERIODS:
            with crew.start() as server:
                crew.settle_and_examine(server, everything=False)
                working = crew.work(server, period)
                time.sleep(period / 2)
                server.terminate()
                status = server.wait(DRAIN_SECONDS)
                crew.finish(working)

            assert 0 == status, server.output[-2000:]
            key = crew.site.secrets["hmac-key"]
            assert open_verifier(crew.site.audit_log, key).verify().clean
        with crew.start() as server:
            crew.settle_and_examine(server, everything=True)

        assert crew.acknowledged
        assert 0 == crew.aborted
