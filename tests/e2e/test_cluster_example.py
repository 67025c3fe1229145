# SPDX-License-Identifier: MIT
"""The example of a cluster: three nodes, a revocation, a kill and a promotion."""

import subprocess
import sys

import pytest

from tests.postgresql import programs
from tests.support import REPOSITORY, require_program

CLUSTER = REPOSITORY / "examples" / "cluster" / "cluster.py"


@pytest.mark.timeout(300)
def test_it_serves_through_all_acts() -> None:
    """No use of a revoked key succeeds, and service comes back by itself."""
    require_program("haproxy")
    programs()
    done = subprocess.run(
        [sys.executable, str(CLUSTER), "--seconds", "0.4"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert "uses of it sent after the answer that succeeded: 0" in done.stdout
    assert 2 == done.stdout.count("first success after")
    assert "inf" not in done.stdout
    assert "<AuditReport intact" in done.stdout
