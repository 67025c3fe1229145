# SPDX-License-Identifier: MIT
"""
Honest histories of approvals and purges; nothing in them may be called changed.

People ask, consent, refuse and use, keys grow old and are purged, the clock is wrong
for a while, and at any named point everything may be cut off. After each step the HSM
must find nothing that was changed, and what has come to an end must stay so.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from hsm_core import operations as ops
from hsm_core._internal.lib.failpoints import install
from hsm_core.errors import HSMError
from hsm_core.model import ApprovalState, KeyInfo, Role
from hsm_core.testing import caller
from tests.core.dual_disk import KINDS
from tests.core.governance_steps import Site, check_whole, create
from tests.support import copy_in_use

STEPS = 40
DAY = 86_400
JUMPS = (1, 3600, DAY, 30 * DAY, 3650 * DAY)
_EVERYBODY = caller(*Role, principal="ann")
_OPEN = {ApprovalState.PENDING, ApprovalState.GRANTED}


class _History:
    def __init__(self, folder: Path, kind: str, seed: int) -> None:
        self._folder, self._kind = folder, kind
        self._chance = random.Random(seed)
        self._place = self._fresh()
        self._place.mkdir(mode=0o700)
        (self._place / "retention.yaml").write_bytes(b"default_days: 30\n")
        self._site = Site(self._place, kind)
        self._names = 0
        self._ended: dict[str, ApprovalState] = {}
        self.crashes = self.purges = self.used = 0

    def run(self) -> None:
        """Live through it."""
        steps: list[Callable[[], None]] = [
            *[self._ask] * 3,
            *[self._consent] * 4,
            *[self._use] * 4,
            *[self._grow_old] * 3,
            *[self._rotate] * 3,
            self._pass_time,
            self._deny,
            self._cancel,
            self._hold,
            self._extend,
            self._jump,
            self._restart,
        ]
        self._make_key()
        for _ in range(STEPS):
            step = self._chance.choice(steps)
            if self._chance.random() < 0.3:
                self._crash_in(step)
            else:
                step()
            self._examine()
        self._site.gateway.close()
        found = check_whole(self._place, self._kind)
        self.purges += found.purges

    # What people do.

    def _ask(self) -> None:
        self._names += 1
        self._execute(create(f"key-{self._names}"))

    def _consent(self) -> None:
        for person, role in (("olga", Role.OPERATOR), ("anton", Role.AUDITOR)):
            for found in self._approvals(ApprovalState.PENDING):
                consent = ops.Approve(
                    approval_id=found.approval_id, digest=found.digest
                )
                self._execute(consent, person, role)

    def _deny(self) -> None:
        for found in self._chosen():
            deny = ops.Deny(approval_id=found.approval_id, reason="no")
            self._execute(deny, "anton", Role.AUDITOR)

    def _cancel(self) -> None:
        for found in self._chosen():
            self._execute(ops.CancelApproval(approval_id=found.approval_id))

    def _use(self) -> None:
        for found in self._approvals(ApprovalState.GRANTED):
            if found.operation.kind == "CreateKey":
                names = [f.text for f in found.operation.fields if f.name == "name"]
                self.used += self._execute(create(str(names[0])))

    def _make_key(self) -> None:
        self._execute(ops.CreateKey(algorithm="AES-256-GCM"))

    def _rotate(self) -> None:
        for key in self._keys()[:1]:
            self._execute(ops.RotateKey(key_id=key.key_id))

    def _pass_time(self) -> None:
        self._site.clock.advance(self._chance.choice([3600, DAY, 16 * DAY]))
        self._sweep()

    def _grow_old(self) -> None:
        """Let a month pass, and what is due be asked for, agreed to and purged."""
        for days in (15.5, 15.5, 1.5):
            self._site.clock.advance(days * DAY)
            self._sweep()
            self._consent()
            self._sweep()

    def _hold(self) -> None:
        for key in self._keys()[-1:]:
            held: ops.Operation[KeyInfo]
            held = ops.HoldKey(key_id=key.key_id, reason="a dispute")
            if key.hold is not None:
                held = ops.ReleaseKey(key_id=key.key_id, reason="settled")
            self._execute(held)

    def _extend(self) -> None:
        for key in self._keys()[-1:]:
            assert key.created_at is not None
            until = key.created_at + timedelta(days=700)
            extend = ops.ExtendRetention(key_id=key.key_id, version=1, until=until)
            self._execute(extend)

    def _sweep(self) -> None:
        # A purge may be held back, for want of consent or after a leap.
        with suppress(HSMError):
            self._site.sweep()

    def _execute(
        self, operation: ops.Operation[object], who: str = "ann", *roles: Role
    ) -> bool:
        """Do something, and return whether it was allowed."""
        person = caller(*(roles or Role), principal=who)
        try:
            self._site.gateway.act_as(person).execute(operation)
        except HSMError as error:
            if error.code not in _REFUSALS:
                raise
            return False
        return True

    # What befalls them.

    def _jump(self) -> None:
        seconds = self._chance.choice(JUMPS) * self._chance.choice([-1, 1])
        self._site.clock.step(seconds)
        for step in (self._ask, self._consent, self._sweep):
            step()
        self._site.clock.step(-seconds)

    def _restart(self) -> None:
        self._site.gateway.close()
        self._start()

    def _crash_in(self, step: Callable[[], None]) -> None:
        """Go on with what a kill at some point of a step has left."""
        left: list[Path] = []
        passes = self._chance.randint(1, 12)

        def handler(point: str) -> None:
            nonlocal passes
            passes -= 1
            if not passes and not left:
                left.append(copy_in_use(self._place, self._fresh()))

        with install(handler):
            step()
        if not left:
            return
        self.crashes += 1
        self._site.gateway.close()
        shutil.rmtree(self._place)
        self._place = left[0]
        self._start()

    def _start(self) -> None:
        check_whole(self._place, self._kind)
        self._site = Site(self._place, self._kind, self._site.clock.now())

    def _fresh(self) -> Path:
        return self._folder / f"place-{self._chance.getrandbits(64):x}"

    # What must hold.

    def _examine(self) -> None:
        hsm = self._site.gateway.act_as(_EVERYBODY)
        status = hsm.execute(ops.Status())
        assert 0 == status.approvals.findings
        assert status.state in {"operational", "degraded"}, status
        report = hsm.execute(ops.RetentionStatus())
        assert report.ledger is not None
        assert "" == report.ledger.problem
        alarms = ops.ListAuditEvents(kind=("system.approval-tampered",))
        assert not hsm.execute(alarms).items
        for found in self._approvals():
            known = self._ended.get(found.approval_id, found.state)
            assert known is found.state
            if found.state not in _OPEN:
                self._ended[found.approval_id] = found.state
        names = [key.name for key in self._keys() if key.name]
        assert len(names) == len(set(names))

    def _keys(self) -> list[KeyInfo]:
        hsm = self._site.gateway.act_as(_EVERYBODY)
        return [*hsm.execute(ops.ListKeys(per_page=100)).items]

    def _approvals(self, *states: ApprovalState) -> list[ops.ApprovalInfo]:
        hsm = self._site.gateway.act_as(_EVERYBODY)
        wanted = ops.ListApprovals(states=states, per_page=100)
        return [*hsm.execute(wanted).items]

    def _chosen(self) -> list[ops.ApprovalInfo]:
        found = self._approvals(*sorted(_OPEN))
        return [self._chance.choice(found)] if found else []


_REFUSALS = frozenset(
    {
        "access_denied",
        "approval_required",
        "conflict",
        "invalid_input",
        "name_taken",
        "wrong_state",
    }
)
"""What a person may be told who comes too late, or to whom time seems another."""


def honest_governance(folder: Path, count: int, *, first_seed: int = 0) -> str:
    """
    Live through so many histories in files and as many in SQLite.

    Returns:
        What there was in them, in words.

    Raises:
        AssertionError: Something honest was called changed, or something that had come
            to an end did not stay so; the seed is told.
    """
    crashes = purges = used = 0
    for kind in KINDS:
        for seed in range(first_seed, first_seed + count):
            place = folder / f"{kind}-{seed}"
            place.mkdir(mode=0o700)
            history = _History(place, kind, seed)
            try:
                history.run()
            except Exception as error:
                raise AssertionError(f"history {seed} in {kind}") from error
            shutil.rmtree(place)
            crashes, purges = crashes + history.crashes, purges + history.purges
            used += history.used
    return f"{crashes} crashes, {purges} purges, {used} approvals used"
