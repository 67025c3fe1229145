# SPDX-License-Identifier: MIT
"""Clocks of nodes: one that is wrong decides no rule with a time window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hsm_core import operations as ops
from hsm_core._internal.time.clock import SystemClock
from hsm_core.errors import AccessDeniedError
from hsm_core.testing import caller
from tests.core.cluster_nodes import events, node
from tests.core.node_support import eventually

OTHER_DAY = f"{datetime.now(UTC) + timedelta(days=3):%a}".lower()
POLICY = f"""version: 1
extends: default
rules:
  - name: closed
    effect: deny
    match: {{operations: [Sign], time: {{days: [{OTHER_DAY}]}}}}
"""


class SetClock(SystemClock):
    """
    Clock that was set wrong.

    Attributes:
        ahead: By how much, in microseconds.
    """

    ahead = 0

    def now(self) -> int:
        """Return its time."""
        return super().now() + self.ahead


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Give a policy that has a rule with a time window."""
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("seconds", [40, -40])
def test_a_wrong_clock_decides_no_time_window(
    database: str, tmp_path: Path, policy: Path, seconds: int
) -> None:
    """Uses that a timed rule is about are denied until the clock is right again."""
    clock = SetClock()
    with node(database, tmp_path, clock=clock, policy_config=policy) as hsm:
        somebody = hsm.act_as(caller())
        key = somebody.execute(ops.CreateKey(algorithm="ed25519"))

        def sign() -> str:
            try:
                somebody.execute(ops.Sign(key_id=key.key_id, message=b""))
            except AccessDeniedError as error:
                return str(error)
            return ""

        assert "" == sign()
        clock.ahead = seconds * 1_000_000
        eventually(lambda: bool(sign()))
        reason = sign()
        somebody.execute(ops.GetPublicKey(key_id=key.key_id))
        clock.ahead = 0
        eventually(lambda: not sign())
        denied = events(hsm, lambda event: event.code == AccessDeniedError.code)

    assert "rule clock:closed" in reason
    assert "The clock of this node is wrong." in reason
    assert {"clock:closed"} == {event.rule for event in denied}


def test_a_node_that_starts_with_a_wrong_clock(
    database: str, tmp_path: Path, policy: Path
) -> None:
    """It decides no time window from its first request on."""
    clock = SetClock()
    clock.ahead = 31_000_000
    with node(database, tmp_path, clock=clock, policy_config=policy) as hsm:
        somebody = hsm.act_as(caller())
        key = somebody.execute(ops.CreateKey(algorithm="ed25519"))
        with pytest.raises(AccessDeniedError, match="clock:closed"):
            somebody.execute(ops.Sign(key_id=key.key_id, message=b""))
