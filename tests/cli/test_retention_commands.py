# SPDX-License-Identifier: MIT
"""Commands of ``retention``."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import KeyId
from hsm_core.operations import (
    BeginLedger,
    LedgerBegun,
    LedgerStatus,
    PurgeItem,
    RetentionReport,
    RetentionStatus,
)
from hsm_core.session import Session
from hsm_core.settings import ApprovalStoreKind, Settings
from hsm_core.testing import caller
from tests.cli.support import Answering, Shell

KEY = KeyId("0b6f7a3e-2f0c-4a39-9a1d-5d9d6b1f7c11")
HMAC_KEY = b"\x02" * 32
WHEN = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
ITEM = PurgeItem(
    key_id=KEY,
    version=3,
    versions=(1, 3),
    state="scheduled",
    due_at=WHEN,
    window_days=30,
    rule="tag:test.ephemeral",
    purge_at=WHEN,
    approval_id="a" * 8,
)


def test_status_shows_the_queue_and_what_is_wrong(shell: Shell) -> None:
    """A line for each material, and why purges are kept back."""
    report = RetentionReport(
        enabled=True,
        policy_sha256="ab" * 32,
        problem="The retention policy can't be read: No such file. \x1b[31m",
        paused="limit",
        pause_approval_id="b" * 8,
        queue=1,
        items=(ITEM,),
        ledger=LedgerStatus(
            available=False,
            log_id="0" * 32,
            head_seq=3,
            head_hash="cd",
            problem="The retention ledger is damaged at record 2.",
        ),
    )
    shell.hsm = Answering({RetentionStatus(): report}.__getitem__)
    assert f"{KEY[:8]}  1, 3" in shell.ok("retention", "status").text
    outcome = shell.ok("retention", "status", "--format", "wide")
    shown = outcome.text + outcome.err

    for part in (
        KEY,
        "1, 3",
        "scheduled",
        "30 d, tag:test.ephemeral",
        "2030-01-02T03:04:05Z",
        "paused: limit (approval bbbbbbbb)",
        "can't be read",
        "damaged at record 2",
    ):
        assert part in shown
    assert "\x1b" not in shown


def test_status_says_where_there_is_no_retention(shell: Shell) -> None:
    """Without retention, status names the flag."""
    outcome = shell.ok("retention", "status")

    assert "--retention-config" in outcome.text + outcome.err


def test_hold_extend_and_release(shell: Shell, gateway: OpenHSM) -> None:
    """hold, extend and release change the key, and print it."""
    session = Session(gateway.act_as(caller()))
    key = session.create_key("ed25519", name="payroll").key_id
    session.rotate(key)
    shell.ok("retention", "hold", "payroll", "--reason", "case 4711")

    assert "case 4711" == session.describe(key).hold
    assert 0 != shell("destroy", "payroll", "--yes").code

    shell.ok("retention", "release", "payroll", "--reason", "closed")
    until = ("--until", "2100-01-02")
    shell.ok("retention", "extend", "payroll", "--version", "1", *until)

    assert "" == session.describe(key).hold
    assert datetime(2100, 1, 2, tzinfo=UTC) == session.versions(key)[0].retain_until
    assert 2 == shell("retention", "extend", "payroll", "--version", "1").code
    days = ("--days", "3")
    assert 2 == shell("retention", "extend", "payroll", "--version", "1", *days).code


def test_an_extension_by_days_can_be_repeated(shell: Shell, gateway: OpenHSM) -> None:
    """It ends with a day, so the same command is the same request; limits are named."""
    session = Session(gateway.act_as(caller()))
    key = session.create_key("ed25519", name="payroll").key_id
    extend = ("retention", "extend", "payroll", "--version", "1")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with patch("hsm_cli.commands.retention.datetime") as today:
        for hours in (1, 23):
            today.now.return_value = midnight + timedelta(hours=hours)
            shell.ok(*extend, "--days", "3", "--idempotency-key", "once")

    ends = session.versions(key)[0].retain_until
    assert midnight + timedelta(days=4) == ends

    refused = shell(*extend, "--until", "2001-01-01")
    assert f"until must be after {ends:%Y-%m-%dT%H:%M:%SZ}" in refused.err


def test_a_new_ledger_takes_the_place_of_a_lost_one(shell: Shell) -> None:
    """The new and the lost ledger are shown, with the last known record."""
    begun = LedgerBegun(
        log_id="1" * 32,
        former_log_id="2" * 32,
        former_head_seq=41,
        former_head_hash="ab" * 32,
    )
    asked = BeginLedger(reason="the disk failed")
    shell.hsm = Answering({asked: begun}.__getitem__)
    begin = ("retention", "ledger", "begin")
    shown = shell.ok(*begin, "--reason", "the disk failed").text

    for part in ("1" * 32, "2" * 32, f"41 {'ab' * 32}"):
        assert part in shown
    assert 2 == shell(*begin).code


def test_a_ledger_is_verified_here(shell: Shell, tmp_path: Path) -> None:
    """A ledger is verified with key and audit log; a truncated one exits with 7."""
    settings = Settings(
        key_dir=tmp_path / "keys",
        audit_log=tmp_path / "audit.log",
        approval_store=ApprovalStoreKind.MEMORY,
        retention_config=tmp_path / "retention.yaml",
        retention_ledger=tmp_path / "ledger.log",
    )
    secret = tmp_path / "hmac.key"
    secret.write_bytes(base64.b64encode(HMAC_KEY))
    secret.chmod(0o600)
    key = f"@{secret}"
    files = (str(tmp_path / "ledger.log"), "--audit-path", str(tmp_path / "audit.log"))
    verify = ("retention", "ledger", "verify", *files, "--hmac-key", key)
    with open_hsm(settings, master_key=b"\x01" * 32, hmac_key=HMAC_KEY):
        running = shell.ok(*verify).text
    closed = shell.ok(*verify).text
    report = shell.ok(*verify, "--json").json

    assert "in use by a server" in running
    assert "closed cleanly" not in running
    assert "closed cleanly" in closed

    assert (0, 0, 0) == (report["purges"], report["anchors"], report["former"])

    (tmp_path / "ledger.log").write_bytes(b"{}\n")
    (tmp_path / "ledger.log").chmod(0o600)

    assert 7 == shell("retention", "ledger", "verify", *files, "--hmac-key", key).code
