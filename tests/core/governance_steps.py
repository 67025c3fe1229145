# SPDX-License-Identifier: MIT
"""An HSM on disk with approvals and a purge under way, and the steps that go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.factory import LedgerVerification, OpenHSM, verify_ledger
from hsm_core.model import ApprovalState, KeyState, Role
from hsm_core.testing import FakeClock, caller
from tests.core.dual_disk import ANN, settings_of
from tests.self_tests import open_tested

_DAY: Final = 86_400
_HMAC_KEY: Final = b"\x02" * 32
S = ApprovalState


class Site:
    """
    What lies in a folder, opened at an instant at which the purge is due.

    Args:
        folder: Where it lies.

        kind: One of `KINDS`; the ledger lies in a file in any case.

        now: Wall clock, microseconds since 1970; 0 for that of `FakeClock`.
    """

    def __init__(self, folder: Path, kind: str, now: int = 0) -> None:
        self.folder, self.kind = folder, kind
        self.clock = FakeClock(now) if now else FakeClock()
        self.open()

    def open(self) -> None:
        """Open what lies there; again, after the gateway was closed."""
        settings = settings_of(
            self.folder,
            self.kind,
            # A disk that is copied meanwhile is no disk that hangs.
            audit_timeout_seconds=60,
            retention_config=self.folder / "retention.yaml",
            retention_ledger=self.folder / "ledger.log",
        )
        self.gateway: OpenHSM = open_tested(settings, clock=self.clock)
        # A policy is believed when its file was seen twice.
        self.sweep()
        self.clock.advance(3)

    def sweep(self) -> None:
        """Look for what may be purged, and purge it."""
        assert self.gateway.retention is not None
        self.gateway.retention.sweep()

    def ask(self, name: str) -> ops.ApprovalInfo:
        """Let ann ask for a key of this name."""
        with pytest.raises(errors.ApprovalRequiredError) as caught:
            self.gateway.act_as(ANN).execute(create(name))
        assert isinstance(caught.value.approval, ops.ApprovalInfo)
        return caught.value.approval

    def consent(self) -> None:
        """Let an Operator and an Auditor consent to all that waits."""
        for person, role in (("olga", Role.OPERATOR), ("anton", Role.AUDITOR)):
            hsm = self.gateway.act_as(caller(role, principal=person))
            page = hsm.execute(ops.ListApprovals(states=(S.PENDING,)))
            for found in page.items:
                hsm.execute(
                    ops.Approve(approval_id=found.approval_id, digest=found.digest)
                )

    def state(self, name: str) -> ApprovalState:
        """Return where the approval of a key's creation stands."""
        return self._approval(name).state

    def approval_id(self, name: str) -> str:
        """Return its id."""
        return self._approval(name).approval_id

    def _approval(self, name: str) -> ops.ApprovalInfo:
        (found,) = self.approvals(name)
        return found

    def approvals(self, name: str) -> list[ops.ApprovalInfo]:
        """Return the approvals of the creation of a key of this name."""
        page = self.gateway.act_as(ANN).execute(ops.ListApprovals(per_page=100))
        return [
            found
            for found in page.items
            if found.operation.kind == "CreateKey"
            and name in {field.text for field in found.operation.fields}
        ]

    def keys(self, name: str) -> int:
        """Return how many keys have a name."""
        page = self.gateway.act_as(ANN).execute(ops.ListKeys())
        return sum(key.name == name for key in page.items)

    def oldest(self) -> KeyState:
        """Return the state of the version that is to be purged; nothing opens it."""
        hsm = self.gateway.act_as(ANN)
        old = (self.folder / "old-ciphertext").read_bytes()
        with pytest.raises(errors.HSMError) as caught:
            hsm.execute(ops.Decrypt(key_id="aged", ciphertext=old))
        assert "wrong_state" == caught.value.code
        (key,) = (k for k in hsm.execute(ops.ListKeys()).items if k.name == "aged")
        return hsm.execute(ops.ListVersions(key_id=key.key_id)).items[0].state


def create(name: str) -> ops.CreateKey:
    """Return what ann wants to do."""
    return ops.CreateKey(algorithm="ML-KEM-768", name=name)


def make_template(folder: Path, kind: str) -> int:
    """
    Make an HSM with a purge that is due, a request that waits and one that is granted.

    Returns:
        When it was left, microseconds since 1970.
    """
    (folder / "retention.yaml").write_bytes(b"default_days: 30\n")
    site = Site(folder, kind)
    ann = site.gateway.act_as(ANN)
    key = ann.execute(ops.CreateKey(algorithm="AES-256-GCM", name="aged"))
    old = ann.execute(ops.Encrypt(key_id=key.key_id, plaintext=b"of the old version"))
    (folder / "old-ciphertext").write_bytes(old.ciphertext)
    ann.execute(ops.RotateKey(key_id=key.key_id))
    for _ in range(2):
        site.clock.advance(15.5 * _DAY)
        site.sweep()
    site.consent()
    site.sweep()
    assert KeyState.PURGE_SCHEDULED is site.oldest()
    site.clock.advance(1.5 * _DAY)
    site.ask("granted")
    site.consent()
    site.ask("pending")
    assert (S.GRANTED, S.PENDING) == (site.state("granted"), site.state("pending"))
    site.gateway.close()
    return site.clock.now()


def _approve(site: Site) -> None:
    bob = site.gateway.act_as(caller(Role.AUDITOR, principal="bob"))
    found = bob.execute(ops.GetApproval(approval_id=site.approval_id("pending")))
    bob.execute(ops.Approve(approval_id=found.approval_id, digest=found.digest))


def _deny(site: Site) -> None:
    bob = site.gateway.act_as(caller(Role.AUDITOR, principal="bob"))
    denial = ops.Deny(approval_id=site.approval_id("granted"), reason="not today")
    bob.execute(denial)


def _cancel(site: Site) -> None:
    gone = ops.CancelApproval(approval_id=site.approval_id("granted"))
    site.gateway.act_as(ANN).execute(gone)


def _execute(site: Site) -> None:
    site.gateway.act_as(ANN).execute(create("granted"))


STEPS: Final[dict[str, Callable[[Site], object]]] = {
    "ask": lambda site: site.ask("asked"),
    "approve": _approve,
    "deny": _deny,
    "cancel": _cancel,
    "execute": _execute,
    "purge": Site.sweep,
}
"""What is killed; ``execute`` reserves, does and uses up what was granted."""


def check_whole(folder: Path, kind: str) -> LedgerVerification:
    """
    Verify trail and ledger as a kill has left them, before anything is repaired.

    Raises:
        IntegrityError: Something is called changed.
    """
    trail = "audit.log" if kind == "filesystem" else "audit.sqlite"
    return verify_ledger(folder / "ledger.log", _HMAC_KEY, trail=folder / trail)


def finish(site: Site, step: str, *, acknowledged: bool) -> bool:
    """
    See a step through, from wherever it stands: once it is done, and not twice.

    Args:
        site: Just opened, after a kill in the step.

        step: One of `STEPS`.

        acknowledged: Whether it was over before.

    Returns:
        Whether the step was in.
    """
    _assert_well(site)
    was_in = _ENDS[step](site, acknowledged)
    assert was_in or not acknowledged
    _assert_well(site)
    return was_in


def _assert_well(site: Site) -> None:
    status = site.gateway.act_as(ANN).execute(ops.Status())
    assert ("operational", 0) == (status.state, status.approvals.findings)


def _finish_asking(site: Site, acknowledged: bool) -> bool:
    was_in = bool(site.approvals("asked"))
    asked = site.ask("asked")
    assert S.PENDING is asked.state
    assert asked.approval_id == site.ask("asked").approval_id
    return was_in


def _finish_approving(site: Site, acknowledged: bool) -> bool:
    before = site.state("pending")
    assert before in {S.PENDING, S.GRANTED}
    _approve(site)
    assert S.GRANTED is site.state("pending")
    _use_up(site, "pending")
    return before is S.GRANTED


def _use_up(site: Site, name: str) -> None:
    """Use what was granted; a second time it serves nothing."""
    approval_id = site.approval_id(name)
    site.gateway.act_as(ANN).execute(create(name))
    assert (S.CONSUMED, 1) == (site.state(name), site.keys(name))
    with pytest.raises(errors.ConflictError):
        site.gateway.act_as(ANN).execute(create(name), approval_id=approval_id)
    assert 1 == site.keys(name)


def _finish_ending(end: ApprovalState) -> Callable[[Site, bool], bool]:
    def see_through(site: Site, acknowledged: bool) -> bool:
        before = site.state("granted")
        assert before in {S.GRANTED, end}
        if before is S.GRANTED:
            (_deny if end is S.DENIED else _cancel)(site)
        assert end is site.state("granted")
        approval_id = site.approval_id("granted")
        with pytest.raises(errors.ConflictError):
            site.gateway.act_as(ANN).execute(create("granted"), approval_id=approval_id)
        assert 0 == site.keys("granted")
        return before is end

    return see_through


def _finish_executing(site: Site, acknowledged: bool) -> bool:
    before, there = site.state("granted"), site.keys("granted")
    # Never used up without its effect, and no effect that did not use it up.
    assert (before, there) in {(S.GRANTED, 0), (S.CONSUMED, 1)}
    if before is S.GRANTED:
        _use_up(site, "granted")
    with pytest.raises((errors.ConflictError, errors.NameTakenError)):
        site.gateway.act_as(ANN).execute(
            create("granted"), approval_id=site.approval_id("granted")
        )
    assert 1 == site.keys("granted")
    return before is S.CONSUMED


def _finish_purging(site: Site, acknowledged: bool) -> bool:
    before = site.oldest()
    assert before in {KeyState.PURGE_SCHEDULED, KeyState.DESTROYED}
    for _ in range(2):
        site.sweep()
        site.clock.advance(60)
    assert KeyState.DESTROYED is site.oldest()
    report = site.gateway.act_as(ANN).execute(ops.RetentionStatus())
    assert report.ledger is not None
    assert ("", 0) == (report.ledger.problem, report.failures)
    site.gateway.close()
    found = check_whole(site.folder, site.kind)
    assert (1, 0, 0) == (found.purges, found.aborted, found.unfinished)
    assert 3 == found.chain.records
    site.open()
    assert KeyState.DESTROYED is site.oldest()
    return before is KeyState.DESTROYED


_ENDS: Final[dict[str, Callable[[Site, bool], bool]]] = {
    "ask": _finish_asking,
    "approve": _finish_approving,
    "deny": _finish_ending(S.DENIED),
    "cancel": _finish_ending(S.CANCELLED),
    "execute": _finish_executing,
    "purge": _finish_purging,
}
