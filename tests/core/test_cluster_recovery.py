# SPDX-License-Identifier: MIT
"""What a recovery accepts of a cluster's database that somebody has altered."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hsm_core import operations as ops
from hsm_core._internal.stores.postgresql.records import ClusterKeyStore
from hsm_core.errors import (
    AuditTamperedError,
    HSMLockedError,
    KeyTamperedError,
    StoreUnavailableError,
)
from hsm_core.factory import OpenHSM
from hsm_core.protocols import StoredKey, bucket_of
from hsm_core.testing import caller
from tests.core.cluster_nodes import die_at, events, node, open_node, session, sql
from tests.core.forked import was_killed
from tests.core.ripe_material import MovedClock
from tests.core.test_cluster_retention import GONE, opened, ripe, states, sweep

KEPT = ("keys", "blobs", "changes", "cluster", "account", "meta")
INDEX = "generation = o.generation, digest = o.digest"
ROW = f"{INDEX}, document = o.document, state = o.state, operations = o.operations"
PUT_BACK = "UPDATE keys SET %s FROM old_keys AS o WHERE keys.key_id = o.key_id"
BLOBS = "DELETE FROM blobs; INSERT INTO blobs SELECT * FROM old_blobs"
FEED = (
    "DELETE FROM changes WHERE revision > (SELECT revision FROM old_cluster); "
    "DELETE FROM cluster; INSERT INTO cluster SELECT * FROM old_cluster; "
    "DELETE FROM account; INSERT INTO account SELECT * FROM old_account; "
    "DELETE FROM meta; INSERT INTO meta SELECT * FROM old_meta"
)
DAMAGE = "UPDATE account SET value = set_byte(value, 3, get_byte(value, 3) # 1)"
WAYS = {
    "a key": (f"{PUT_BACK % ROW}; {BLOBS}; {DAMAGE}", ""),
    "everything": (f"{PUT_BACK % ROW}; {BLOBS}; {FEED}", ""),
    "a key, after its index": (
        f"{PUT_BACK % INDEX}; {DAMAGE}",
        f"{PUT_BACK % ROW}; {BLOBS}",
    ),
}
"""What is put back before a recovery, and after it."""

ALTER = "UPDATE changes SET before = repeat('0', 64) WHERE revision = 1"


def keep(url: str) -> None:
    """Keep a copy of keys and changes, to be put back later."""
    for name in KEPT:
        sql(url, f"CREATE TABLE old_{name} AS SELECT * FROM {name}")  # noqa: S608


def recover(hsm: OpenHSM, key: str) -> ops.Recovered:
    """Recover a store that is locked."""
    with pytest.raises(HSMLockedError):
        session(hsm).sign(key, b"m")
    return hsm.act_as(caller()).execute(ops.RecoverStore(reason="restored"))


def findings(hsm: OpenHSM) -> list[str]:
    """Return the keys that differ."""
    found = hsm.act_as(caller()).execute(ops.VerifyStore()).findings
    return [each.key_id for each in found]


def name_another(hsm: OpenHSM, key: str) -> None:
    """Name a key "other" that nothing wrong with the rows of this one concerns."""
    other = key
    while bucket_of(other) == bucket_of(key):
        other = session(hsm).create_key("ed25519").key_id
    session(hsm).update(other, name="other")


@pytest.mark.parametrize("way", WAYS)
def test_a_destroyed_key(database: str, tmp_path: Path, way: str) -> None:
    """
    A key that was destroyed stays so, whatever is put back when.
    """
    before, after = WAYS[way]
    with node(database, tmp_path) as hsm:
        key = session(hsm).create_key("ed25519").key_id
        name_another(hsm, key)
        keep(database)
        session(hsm).destroy(key, waiting_days=0)
    sql(database, before)
    with node(database, tmp_path) as hsm:
        recover(hsm, key)
        if after:
            sql(database, after)

        with pytest.raises((KeyTamperedError, StoreUnavailableError)):
            session(hsm).sign(key, b"m")
        assert session(hsm).sign("other", b"m").signature
        assert [key] == findings(hsm)
    with node(database, tmp_path) as hsm:
        with pytest.raises((KeyTamperedError, StoreUnavailableError)):
            session(hsm).sign(key, b"m")
        assert session(hsm).sign("other", b"m").signature


@pytest.mark.parametrize("also", ["", ALTER], ids=["known", "with an altered feed"])
def test_a_revocation_that_is_taken_back(
    database: str, tmp_path: Path, also: str
) -> None:
    """
    An older state of a key that a recovery accepts is in the audit log.
    """
    with node(database, tmp_path) as hsm:
        other = session(hsm).create_key("ed25519").key_id
        key = session(hsm).create_key("ed25519").key_id
        keep(database)
        session(hsm).revoke(key)
    sql(database, f"{WAYS['a key'][0]}; {also}")
    with node(database, tmp_path) as hsm:
        recover(hsm, key)

        assert session(hsm).sign(key, b"m").signature
        assert session(hsm).sign(other, b"m").signature
        accepted = events(hsm, lambda e: e.kind == "system.key-accepted")
        # Where the feed does not tell, each key is recorded.
        expected = {key, other} if also else {key}
        assert expected == {each.key_id for each in accepted}


def test_a_key_that_is_gone(database: str, tmp_path: Path) -> None:
    """
    A key without a row is forgotten by a recovery, which the audit log says.
    """
    with node(database, tmp_path) as hsm:
        session(hsm).create_key("ed25519", name="other")
        key = session(hsm).create_key("ed25519").key_id
    sql(database, "DELETE FROM keys WHERE key_id = %s", key)
    sql(database, DAMAGE)
    with node(database, tmp_path) as hsm:
        done = recover(hsm, key)

        assert (key,) == done.forgotten
        (gone,) = events(hsm, lambda e: e.kind == "system.key-accepted")
        assert (key, "") == (gone.key_id, gone.document_after)
        assert not findings(hsm)
    with node(database, tmp_path) as hsm:
        assert session(hsm).sign("other", b"m").signature
        assert not findings(hsm)


def test_a_change_meanwhile(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    While all keys are read, other nodes change them; what they changed is read again.
    """
    with node(database, tmp_path, "b") as other:
        key = session(other).create_key("ed25519").key_id
        sql(database, DAMAGE)
        with node(database, tmp_path) as hsm:
            scan = ClusterKeyStore.scan

            def slow(store: ClusterKeyStore) -> Iterator[StoredKey]:
                monkeypatch.undo()
                yield from scan(store)
                session(other).suspend(key)

            monkeypatch.setattr(ClusterKeyStore, "scan", slow)
            recover(hsm, key)

            assert "suspended" == session(hsm).describe(key).state
            assert not findings(hsm)
            assert not events(hsm, lambda e: e.kind == "system.key-accepted")


def test_a_damaged_log(database: str, tmp_path: Path) -> None:
    """
    A damaged log of any node, which the error names, is put right before a recovery.
    """
    with node(database, tmp_path, "b") as other:
        key = session(other).create_key("ed25519").key_id
    ((log_id,),) = sql(database, "SELECT log_id FROM logs WHERE node = 'b'")
    sql(database, "CREATE TABLE old_records AS SELECT * FROM records")
    sql(database, "UPDATE records SET line = set_byte(line, 40, 0) WHERE seq = 1")
    sql(database, DAMAGE)
    with node(database, tmp_path) as hsm:
        with pytest.raises(AuditTamperedError, match=f"the log {log_id}") as caught:
            recover(hsm, key)

        assert log_id == caught.value.facts["log_id"]
        sql(
            database,
            "UPDATE records AS r SET line = o.line FROM old_records AS o "
            "WHERE (r.log_id, r.seq) = (o.log_id, o.seq)",
        )
        recover(hsm, key)
        assert session(hsm).sign(key, b"m").signature


def first_and_die(url: str, folder: Path) -> None:
    """Create two keys, and die when the second is stored and not yet recorded."""
    hsm = open_node(url, folder)
    session(hsm).create_key("ed25519", name="first")
    keep(url)
    die_at("mutation.after_store", lambda: session(hsm).create_key("ed25519"))


@pytest.mark.parametrize(
    "damage",
    [DAMAGE, f"{DAMAGE}; {ALTER}", FEED],
    ids=["known", "with an altered feed", "with an older feed"],
)
def test_a_creation_that_was_interrupted(
    database: str, tmp_path: Path, damage: str
) -> None:
    """
    A key that is accepted while its creation is undecided serves, and goes on to.
    """
    assert was_killed(partial(first_and_die, database, tmp_path))
    (key,) = [k for (k,) in sql(database, "SELECT key_id FROM keys WHERE name = ''")]
    sql(database, damage)
    with node(database, tmp_path) as hsm:
        recover(hsm, key)
        assert not findings(hsm)
    for _ in range(2):
        with node(database, tmp_path) as hsm:
            assert session(hsm).sign(key, b"m").signature
            assert session(hsm).sign("first", b"m").signature
            assert not findings(hsm)


def test_a_key_that_goes_missing_after_an_altered_feed(
    database: str, tmp_path: Path
) -> None:
    """
    What changes after a recovery is noticed, though the changes before it are altered.
    """
    with node(database, tmp_path) as hsm:
        key = session(hsm).create_key("ed25519").key_id
        session(hsm).create_key("ed25519", name="other")
    sql(database, f"{DAMAGE}; {ALTER}")
    with node(database, tmp_path) as hsm:
        recover(hsm, key)
        session(hsm).rotate("other")
    sql(database, "DELETE FROM keys WHERE key_id = %s", key)
    with node(database, tmp_path) as hsm:
        assert [key] == findings(hsm)
        accepted = ops.RecoverKey(key_id=key, reason="it is gone")
        assert (key,) == hsm.act_as(caller()).execute(accepted).forgotten
        assert not findings(hsm)
        assert session(hsm).sign("other", b"m").signature


def test_a_purged_version(database: str, tmp_path: Path) -> None:
    """
    A version that was purged is destroyed again where an older database is accepted.
    """
    ripe(database, tmp_path, "box")
    keep(database)
    clock = MovedClock()
    with opened(database, tmp_path, "a", clock) as hsm:
        sweep(hsm, clock)
        assert GONE == states(hsm, "box")
    sql(database, WAYS["everything"][0])
    with opened(database, tmp_path, "a", clock) as hsm:
        recover(hsm, "box")

        assert GONE == states(hsm, "box")
