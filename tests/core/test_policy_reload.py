# SPDX-License-Identifier: MIT
"""The policy file in use: read again, recorded, refused, never half put in force."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core._internal.policy.in_force import PolicyHolder, PolicyReloader
from hsm_core._policies import rules
from hsm_core.errors import AuditUnavailableError, ConfigurationError
from hsm_core.factory import OpenHSM
from hsm_core.model import Role
from hsm_core.policies import (
    built_in_policy,
    load_policy,
    parse_policy,
    without_withdrawn,
)
from hsm_core.protocols import AuditDraft, AuditDrafts, UseDraft
from hsm_core.settings import PolicyProfile, Settings
from hsm_core.testing import FakeClock, caller
from tests.self_tests import open_tested
from tests.support import open_files

OPEN = "version: 1\nextends: default\n"
SHUT = (
    OPEN + "rules:\n  - {name: shut, effect: deny, match: {operations: [CreateKey]}}\n"
)

BROKEN = OPEN + "rules: oops\n"


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Give a policy file."""
    found = tmp_path / "policy.yaml"
    before = os.umask(0o077)
    found.write_text(OPEN)
    yield found
    os.umask(before)


@pytest.fixture
def hsm(path: Path) -> Iterator[OpenHSM]:
    """Give an open HSM that looks at the file twenty times a second."""
    settings = Settings(
        key_store="memory",
        audit_log=None,
        policy_config=path,
        policy_reload_interval_seconds=0.05,
    )
    with open_tested(settings) as opened:
        yield opened


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds, for a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


class TestInUse:
    """Over a whole HSM."""

    def test_a_change_takes_effect(self, hsm: OpenHSM, path: Path) -> None:
        """A new file is in force by itself, after its record."""
        session = hsm.act_as(caller())
        session.execute(ops.CreateKey(algorithm="ed25519"))

        path.write_text(SHUT)
        wanted = parse_policy(SHUT).policy_hash
        wait_for(lambda: session.execute(ops.Status()).policy.policy == wanted)

        with pytest.raises(errors.AccessDeniedError, match="shut"):
            session.execute(ops.CreateKey(algorithm="ed25519"))
        auditor = hsm.act_as(caller(Role.AUDITOR))
        page = auditor.execute(ops.ListAuditEvents(limit=10))
        kinds = [(e.event.kind, e.event.policy == wanted) for e in page.items]
        assert ("system.policy-loaded", True) in kinds
        before = kinds[kinds.index(("system.policy-loaded", True)) + 1 :]
        assert not any(is_new for _, is_new in before)

    def test_a_bad_file_weakens_nothing(self, hsm: OpenHSM, path: Path) -> None:
        """The last good policy stays, and the HSM says so, until the file is mended."""
        session = hsm.act_as(caller())
        path.write_text(SHUT)
        assert "" == hsm.reload_policy()
        for bad in (BROKEN, "", None):
            path.unlink() if bad is None else path.write_text(bad)
            assert hsm.reload_policy()
            with pytest.raises(errors.AccessDeniedError, match="shut"):
                session.execute(ops.CreateKey(algorithm="ed25519"))
        status = session.execute(ops.Status())
        shown = session.execute(ops.ShowPolicy())

        assert ("degraded", False) == (status.state, status.policy.current)
        assert 3 == status.policy.failures == shown.failures
        assert "can't be read" in shown.problem
        assert ("file", SHUT) == (shown.source, shown.text)
        assert "file" == status.policy.source
        path.write_text(SHUT)
        assert "" == hsm.reload_policy()
        assert "operational" == session.execute(ops.Status()).state


FIRST, SECOND = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDyWpJvZ3PYr8ATNOG1fpt34Jz7kDaCa7ZrPu8wCyY44",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH95tTCuaDDRoGk+DSbslby0y7M7O5TCdCwKyvRfV3Gs",
)
FULL = f"""version: 1
extends: default
grants:
  Auditor: [describe, Sign]
revoked_uses: [GetPublicKey, Verify]
rules:
  - {{name: let, effect: allow, match: {{operations: [Decrypt], principals: [ada]}}}}
  - {{name: shut, effect: deny, match: {{operations: [CreateKey]}}}}
approvers:
  olga: [{FIRST} olga@home, {SECOND}]
identities:
  - {{principal: bob, roles: [Auditor, Operator], certificate_subjects: [CN=bob]}}
  - {{principal: eve, roles: [Operator], certificate_subjects: [CN=eve]}}
  - {{principal: ida, roles: [Operator], certificates: [{"ab" * 32}]}}
"""
NEW = "  - {{name: r-{0}, effect: deny, match: {{operations: [mine], tags: [t{0}]}}}}\n"
GROUP = "groups: {mine: [Sign, SignBatch, Verify, Encrypt, Decrypt, Seal, Open]}\n"
FAULT = "description: [oops]\n"
LET, SHUT_RULE = (line for line in FULL.splitlines(True) if "name:" in line)
EVE = next(line for line in FULL.splitlines(True) if "eve" in line)


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        (LET, "", "rules"),
        ("principals: [ada]", "principals: [eve]", "rules"),
        ("Auditor: [describe, Sign]", "Auditor: [describe]", "grants"),
        ("Auditor: [describe, Sign]", "Auditor: [describe, nonsense]", "grants"),
        ("GetPublicKey, Verify", "GetPublicKey", "revoked_uses"),
        (EVE, "", "people"),
        ("CN=eve", "CN=mallory", "people"),
        ("[Auditor, Operator]", "[Auditor]", "people"),
        ("[Auditor, Operator]", "[nonsense]", "people"),
        (SHUT_RULE, SHUT_RULE + SHUT_RULE.replace("shut", "two"), ""),
        (
            SHUT_RULE,
            SHUT_RULE.replace("shut", "two").replace("Create", "Import"),
            "rules",
        ),
        (SHUT_RULE, SHUT_RULE.replace("CreateKey", "Sign"), "rules"),
        (SHUT_RULE, "", ""),
        ("[Auditor, Operator]", "[Auditor, Operator, Administrator]", ""),
        ("rules:", "rules: [", ""),
        # What can't be read says nothing.
        ("Auditor: [describe, Sign]", "Auditor: describe", ""),
        ("Auditor: [describe, Sign]", "Auditer: [describe, Sign]", ""),
        ("Auditor: [describe, Sign]", "Auditor: [d, Sign]\ngroups: {d: x}", "grants"),
        ("extends: default\n", "extend: default\n", ""),
        ("extends: default\n", "extends: [default]\n", ""),
        (f"[{FIRST} olga@home, {SECOND}]", "oops", ""),
        ("[CN=bob]", "CN=bob", ""),
        # The same, written in another way.
        (f"{FIRST} olga@home", FIRST, ""),
        ("olga:", "OLGA:", ""),
        ("ab" * 32, "AB:" * 31 + "AB", ""),
        ("ab" * 32, f"{'cd' * 32}, {'ab' * 32}", ""),
        ("principal: bob", "principal: Bob", ""),
        # Of two sections about one person both count.
        (EVE, EVE + EVE.replace("Operator", "Service"), "people"),
        (FULL, "", ""),
        (FULL, "version: 1\n", "grants rules people revoked_uses approver_keys"),
    ],
)
def test_a_faulty_file_takes_trust_away(old: str, new: str, changed: str) -> None:
    """It grants nothing, but what it grants no more is gone; nothing else is."""
    assert old in FULL
    former = parse_policy(FULL)
    cut = without_withdrawn(former, (FULL.replace(old, new) + FAULT).encode())
    parts = ("grants", "revoked_uses", "rules", "approver_keys", "people")
    found = {part for part in parts if getattr(cut, part) != getattr(former, part)}

    assert set(changed.split()) == found
    assert cut is without_withdrawn(cut, (FULL.replace(old, new) + FAULT).encode())
    assert (cut is former) == (not changed)
    for role, operations in cut.grants.items():
        assert operations <= former.grants[role]
    allowed = [rule for rule in cut.rules if rule.effect == "allow"]
    assert set(allowed) <= set(former.rules)
    assert {rule for rule in former.rules if rule.effect != "allow"} <= set(cut.rules)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("extends: default", "extends: strickt"),
        ("rules:\n", "groups: {mine: [Sgin]}\nrules:\n" + NEW.format("no")),
        ("rules:\n", GROUP + "rules:\n" + "".join(map(NEW.format, range(990)))),
    ],
    ids=["profile", "empty group", "long"],
)
def test_no_other_fault_hides_what_is_withdrawn(old: str, new: str) -> None:
    """However little of the rest can be read, or however much it comes to."""
    former = parse_policy(FULL)
    file = FULL.replace(f", {SECOND}]", "]").replace(old, new) + FAULT

    cut = without_withdrawn(former, file.encode())

    assert {"olga": (f"{FIRST} olga@home",)} == cut.approver_keys
    assert (former.grants, former.people) == (cut.grants, cut.people)
    denying = [rule for rule in cut.rules if rule.name.startswith("r-")]
    assert file.count("name: r-") * ("Sgin" not in file) == len(denying)


def test_a_withdrawn_grant_beside_a_fault(hsm: OpenHSM, path: Path) -> None:
    """It is gone at once, which is on record; the former file grants it again."""
    granting = OPEN + "grants:\n  Auditor: [CreateKey]\n"
    session = hsm.act_as(caller(Role.AUDITOR))
    path.write_text(granting)
    assert "" == hsm.reload_policy()
    session.execute(ops.CreateKey(algorithm="ed25519"))
    path.write_text(OPEN + FAULT)
    assert hsm.reload_policy()
    with pytest.raises(errors.AccessDeniedError):
        session.execute(ops.CreateKey(algorithm="ed25519"))
    shown = hsm.act_as(caller()).execute(ops.ShowPolicy())
    path.write_text(granting)
    assert "" == hsm.reload_policy()
    session.execute(ops.CreateKey(algorithm="ed25519"))

    assert (True, granting) == (bool(shown.problem), shown.text)
    assert parse_policy(shown.text).policy_hash != shown.policy


def test_a_refused_file_that_is_reloaded(path: Path) -> None:
    """It stays refused, and what is in force stays the same; it is counted once."""
    made, holder, log, told = reloader(path)
    ask = "{name: two, effect: require-approval, match: {operations: [Sign]}}"
    path.write_text(f"{OPEN}rules:\n  - {ask}\n{FAULT}")
    problems, engines = [], []
    for _ in range(3):
        problems.append(made.reload())
        engines.append(holder.engine)

    assert problems[0]
    assert {problems[0]} == {*problems, holder.problem}
    assert 1 == len(set(engines)) == holder.failures == len(told)
    before = {rule.name for rule in parse_policy(OPEN).rules}
    assert sorted({*before, "two"}) == [r.name for r in holder.engine.policy.rules]
    kinds = [draft.kind for draft in log.drafts]
    assert ["system.policy-loaded", "system.policy-refused"] == kinds


def test_a_bad_file_at_the_start(path: Path) -> None:
    """No HSM opens with a policy that is not valid, and nothing is written."""
    path.write_text(BROKEN)
    settings = Settings(
        key_dir=path.parent / "keys",
        audit_log=path.parent / "audit.log",
        policy_config=path,
    )

    with pytest.raises(ConfigurationError, match=r"policy\.yaml .* line 3: rules"):
        open_tested(settings)

    assert [path] == list(path.parent.iterdir())


class _Log:
    """A trail that keeps drafts, or fails."""

    def __init__(self) -> None:
        self.drafts: list[AuditDraft | UseDraft] = []
        self.fails = False

    def append(self, drafts: AuditDrafts, **how: object) -> _Log:
        found = drafts() if callable(drafts) else drafts
        if self.fails:
            raise AuditUnavailableError
        self.drafts += found
        return self

    def wait(self) -> None:
        """It is durable."""


def reloader(path: Path | None) -> tuple[PolicyReloader, PolicyHolder, _Log, list[str]]:
    """Return a reloader with all that it works on, and what it tells."""
    policy = load_policy(path) if path else built_in_policy(PolicyProfile.DEFAULT)
    holder, log, told = PolicyHolder(RuleEngine(policy), "file", 0), _Log(), list[str]()
    made = PolicyReloader(path, holder, log, FakeClock())  # type: ignore[arg-type]
    made.on_change = told.append
    return made, holder, log, told


def test_what_was_seen_once_is_not_in_force(path: Path) -> None:
    """A file that is being written is not taken for a whole one."""
    made, holder, log, told = reloader(path)
    first = holder.engine
    path.write_text(SHUT[:40])
    made.poll()
    path.write_text(SHUT)
    made.poll()

    assert (first, [], []) == (holder.engine, log.drafts, told)
    made.poll()
    assert parse_policy(SHUT).policy_hash == holder.policy_hash()
    assert [""] == told


def test_a_zone_that_can_not_be_read_now(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is tried anew, and takes nothing away before."""
    made, holder, _, _ = reloader(path)
    first = holder.engine
    path.write_text(
        SHUT.replace("{operations", "{time: {zone: Asia/Tokyo}, operations")
    )
    lack = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    with monkeypatch.context() as patch:
        patch.setattr(rules, "ZoneInfo", Mock(side_effect=lack))
        for _ in range(3):
            made.poll()
        assert first is holder.engine
        assert "The time zones can't be read now." == holder.problem
    made.poll()

    assert parse_policy(path.read_text()).policy_hash == holder.policy_hash()
    assert "" == holder.problem


def test_no_policy_without_its_record(path: Path) -> None:
    """While the trail can't be written, it only takes away; then it is tried anew."""
    made, holder, log, _ = reloader(path)
    auditor = caller(Role.AUDITOR)
    create = ops.CreateKey(algorithm="ed25519")
    both = SHUT.replace("{operations", "{roles: [Operator], operations")
    both += "grants: {Auditor: [CreateKey]}\n"
    path.write_text(both)
    log.fails = True
    for _ in range(3):
        made.poll()

    assert not holder.engine.decide(create, auditor, None, at=0).allowed
    denied = holder.engine.decide(create, caller(Role.OPERATOR), None, at=0)
    assert ("shut", True) == (denied.rule, bool(holder.problem))
    log.fails = False
    made.poll()
    assert parse_policy(both).policy_hash == holder.policy_hash()
    assert holder.engine.decide(create, auditor, None, at=0).allowed
    assert ["system.policy-loaded"] * 2 == [draft.kind for draft in log.drafts]
    assert ("", 1) == (holder.problem, holder.failures)


def test_the_former_content_ends_a_problem(path: Path) -> None:
    """Who puts back what is in force has mended it; the next fault is told again."""
    made, holder, log, told = reloader(path)
    for _ in range(2):
        path.write_text(BROKEN)
        for _ in range(3):
            made.poll()
        path.write_text(OPEN)
        made.poll()

    assert ("", 2) == (holder.problem, holder.failures)
    assert [True, False, True, False] == [bool(problem) for problem in told]
    assert 2 == len(log.drafts)
    made.poll()
    assert 4 == len(told)


def test_a_problem_that_can_not_be_recorded(path: Path) -> None:
    """It is told all the same, and the policy in force stays."""
    made, holder, log, told = reloader(path)
    log.fails = True
    path.write_text(BROKEN)
    made.poll()
    made.poll()

    assert (1, 1, []) == (holder.failures, len(told), log.drafts)
    assert parse_policy(OPEN).policy_hash == holder.policy_hash()
    log.fails = False
    made.poll()
    made.poll()
    assert ["system.policy-refused"] == [draft.kind for draft in log.drafts]


def test_touched_is_not_changed(path: Path) -> None:
    """A file that was written again with the same content is no change."""
    made, _, log, told = reloader(path)
    path.write_text(OPEN)
    made.poll()

    assert "" == made.reload()
    assert ([], []) == (log.drafts, told)


def test_a_built_in_policy_is_never_read_again() -> None:
    """There is no file to look at."""
    made, _, log, _ = reloader(None)
    made.poll()

    assert ("", []) == (made.reload(), log.drafts)


def test_a_folder_in_the_place_of_a_policy_is_not_kept_open(tmp_path: Path) -> None:
    """It is looked at every few seconds, for as long as it is there."""
    path = tmp_path / "policy.yaml"
    path.mkdir()

    with pytest.raises(ConfigurationError, match="not a regular file"):
        load_policy(path)

    assert [] == open_files(path)
