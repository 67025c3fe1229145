# SPDX-License-Identifier: MIT
"""Keys whose old material is ripe for its purge, made within a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState, Caller, Role
from hsm_core.operations import Approve, ListApprovals
from hsm_core.protocols import Clock
from hsm_core.session import Session
from hsm_core.settings import ApprovalStoreKind, Settings
from hsm_core.testing import caller
from tests.self_tests import open_tested

DAY = 86_400
HMAC_KEY = b"\x02" * 32


class MovedClock:
    """
    The clocks of this machine, moved.

    Attributes:
        seconds: By how much, forwards; a test changes it as if time passed.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def now(self) -> int:
        """Return microseconds since 1970."""
        return time.time_ns() // 1000 + int(self.seconds * 1_000_000)

    def monotonic(self) -> float:
        """Return seconds that go on as the wall clock does."""
        return time.monotonic() + self.seconds


def settings_of(folder: Path, key_store: str) -> Settings:
    """Return settings by which everything but a vault lies in a folder."""
    policy = folder / "retention.yaml"
    policy.write_text("default_days: 1\n")
    return Settings(
        key_store=key_store,
        key_dir=folder / "keys",
        sqlite_path=folder / "keys" / "keys.sqlite",
        audit_log=folder / "audit.log",
        approval_store=ApprovalStoreKind.FILE,
        approval_dir=folder / "approvals",
        retention_config=policy,
        retention_ledger=folder / "ledger.log",
    )


def open_at(settings: Settings, clock: Clock) -> OpenHSM:
    """Open an HSM at a time."""
    return open_tested(settings, clock=clock)


def adopt_policy(gateway: OpenHSM, clock: MovedClock) -> None:
    """Let the policy's file be believed, and make a sweep by it."""
    assert gateway.retention is not None
    gateway.retention.sweep()
    clock.seconds += 3
    gateway.retention.sweep()


def consent(gateway: OpenHSM) -> None:
    """Let an Operator and an Auditor agree to all that is asked for."""
    for name, role in (("olga", Role.OPERATOR), ("anton", Role.AUDITOR)):
        hsm = gateway.act_as(Caller(principal=name, roles=frozenset({role})))
        for found in hsm.execute(ListApprovals(states=(ApprovalState.PENDING,))).items:
            hsm.execute(Approve(approval_id=found.approval_id, digest=found.digest))


def make_old(gateway: OpenHSM, names: Sequence[str]) -> None:
    """Make keys whose first version is retired."""
    session = Session(gateway.act_as(caller(*Role)))
    for name in names:
        session.create_key("AES-256-GCM", name=name)
        session.rotate(name)


def ripen(gateway: OpenHSM, clock: MovedClock) -> None:
    """Let people be asked for what is due, agree, and have it scheduled."""
    assert gateway.retention is not None
    adopt_policy(gateway, clock)
    consent(gateway)
    gateway.retention.sweep()


def make_ripe(open_with: Callable[[Clock], OpenHSM], names: Sequence[str]) -> None:
    """
    Make keys whose first version was retired three days ago, and is now to be purged.

    The policy's window is a day and the grace period too; people agreed two days ago.
    """
    with open_with(MovedClock(-3 * DAY)) as gateway:
        make_old(gateway, names)
    # Closed in between: no lease of a vault lasts so long.
    clock = MovedClock(-1.9 * DAY)
    with open_with(clock) as gateway:
        ripen(gateway, clock)
