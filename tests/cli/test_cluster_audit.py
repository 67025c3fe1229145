# SPDX-License-Identifier: MIT
"""Verification of the audit logs of a cluster by the address of its database."""

from __future__ import annotations

import base64
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from msgspec.structs import replace

from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.operations import ListAuditEvents, Operation, VerifyAudit
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.cli.support import Answering, Shell

HMAC_KEY = base64.b64encode(b"\x02" * 32).decode()


def _node(name: str, url: str, folder: Path) -> OpenHSM:
    mark = folder / f"{name}.mark"
    settings = Settings(store=url, node_name=name, node_mark=mark)
    return open_hsm(
        settings, master_key=bytes(32), hmac_key=b"\x02" * 32, test_all=False
    )


def test_records_of_all_nodes(bare_shell: Shell, database: str, tmp_path: Path) -> None:
    """They are listed by time, a page after the other, and each log is verified."""
    first, second = (_node(name, database, tmp_path) for name in ("a", "b"))
    with closing(first), closing(second):
        second.act_as(caller()).execute(ListAuditEvents(limit=1))
        bare_shell.hsm = first.act_as(caller())
        page = bare_shell.ok("audit", "events", "--limit", "2", "--json").json
        more = ("--limit", "1000", "--cursor", page["next_cursor"])
        table = bare_shell.ok("audit", "events", *more)

    assert "NODE" == table.lines[0].split()[0]
    assert {"a", "b"} == {line[:1] for line in table.lines[1:-2]}


def test_heads_of_all_nodes(bare_shell: Shell, database: str, tmp_path: Path) -> None:
    """Each log is verified range by range; the result names its node, ID and head."""
    first, second = (_node(name, database, tmp_path) for name in ("a", "b"))
    with closing(first), closing(second):
        hsm = first.act_as(caller())

        def three_at_a_time(operation: Operation[Any]) -> object:
            if isinstance(operation, VerifyAudit):
                operation = replace(operation, limit=3)
            return hsm.execute(operation)

        for _ in range(5):
            second.act_as(caller()).execute(ListAuditEvents(limit=1))
        bare_shell.hsm = Answering(three_at_a_time)
        verified = bare_shell.ok("audit", "verify", "--json").json
        shown = bare_shell.ok("audit", "verify").text
        written = hsm.execute(ListAuditEvents(limit=1000)).items

    logs = verified["logs"]
    heads = {(entry.log_id, entry.event.seq): entry for entry in written}
    assert ["a", "b"] == [log["node"] for log in logs]
    assert verified["verified"] == sum(log["verified"] for log in logs)
    for log in logs:
        head = heads[log["log_id"], log["head_seq"]]
        assert (log["node"], log["head_hash"]) == (head.node, head.leaf_hash)
        assert (0, log["head_seq"] + 1) == (log["start_seq"], log["verified"])
        assert f"{log['log_id']}, " in shown


def test_all_logs(bare_shell: Shell, database: str, tmp_path: Path) -> None:
    """The logs of all nodes are verified together, by the database's address."""
    nodes = [_node(name, database, tmp_path) for name in ("a", "b")]
    key = tmp_path / "hmac-key"
    key.write_text(f"{HMAC_KEY}\n")
    key.chmod(0o600)
    line = ("audit", "verify", "--store", database, "--hmac-key", f"@{key}")
    in_use = bare_shell.ok(*line, "--json").json
    for node in nodes:
        node.close()
    closed = bare_shell.ok(*line)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DELETE FROM logs WHERE node = 'a'")
    removed = bare_shell(*line)

    assert ["a", "b"] == [log["node"] for log in in_use["logs"]]
    assert in_use["records"] == sum(log["records"] for log in in_use["logs"])
    assert "log of b" in closed.text
    assert 7 == removed.code
    assert "names a log that is missing" in removed.err


def test_password_on_the_command_line(bare_shell: Shell) -> None:
    """A password in the address is refused, and not shown."""
    address = "postgresql://ferrohsm:s3cret@127.0.0.1:1/hsm"
    outcome = bare_shell("audit", "verify", "--store", address)

    assert 2 == outcome.code
    assert "PGPASSWORD" in outcome.err
    assert "s3cret" not in outcome.err
