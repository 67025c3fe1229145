# SPDX-License-Identifier: MIT
"""Rows of a cluster's database that somebody else changes: every class is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from hsm_core import operations as ops
from hsm_core._internal.cluster.changes import Changes
from hsm_core.errors import (
    AuditUnavailableError,
    HSMLockedError,
    KeyRingTamperedError,
    KeyTamperedError,
    UnavailableError,
)
from hsm_core.factory import OpenHSM
from hsm_core.protocols.keys import bucket_of
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.self_tests import open_tested

Execute = Callable[..., None]


def flipped(column: str) -> str:
    """Return what a column becomes with one bit changed."""
    return f"{column} = set_byte({column}, 40, get_byte({column}, 40) # 1)"


KEYS = "UPDATE keys SET"
BLOBS = "UPDATE blobs SET"
OTHER_BLOB = "blob = (SELECT blob FROM blobs WHERE key_id = $2)"
CHANGES: dict[str, str] = {
    "document-altered": flipped("document"),
    "document-of-another": "document = (SELECT document FROM keys WHERE key_id = $2)",
    "document-gone": "document = NULL",
    "document-too-long": "document = decode(repeat('00', 20000000), 'hex')",
    "document-empty": "document = ''",
    "key-unlisted": "created_at = NULL",
    "name-altered": "name = 'else', claim = 'else'",
    "name-leads-nowhere": "claim = NULL",
    "name-of-another": "claim = 'another'",
    "state-altered": "state = 'destroyed'",
    "tags-altered": "tags = '[]'",
    "owner-altered": "owner = 'eve'",
    "tags-are-none": "tags = '{}'",
    "generation-altered": "generation = 7",
    "generation-gone": "generation = NULL",
    "digest-altered": "digest = repeat('a', 64)",
}
ATTACKS = {name: f"{KEYS} {change}" for name, change in CHANGES.items()} | {
    "blob-altered": f"{BLOBS} {flipped('blob')}",
    "blob-of-another": f"{BLOBS} {OTHER_BLOB}",
    "blob-gone": "DELETE FROM blobs",
    "operations-gone": "DELETE FROM operations",
    "operations-of-another": "UPDATE operations SET key_id = $2",
}


@pytest.fixture
def hsm(database: str, tmp_path: Path) -> Iterator[OpenHSM]:
    """Give an HSM over a new database."""
    settings = Settings(store=database, node_name="a", node_mark=tmp_path / "mark")
    with open_tested(settings) as opened:
        yield opened


@pytest.fixture
def execute(database: str) -> Iterator[Execute]:
    """Give what executes a statement behind the HSM's back."""
    import psycopg

    with psycopg.connect(
        database, autocommit=True, cursor_factory=psycopg.RawCursor
    ) as connection:

        def run(statement: str, values: tuple[object, ...] = ()) -> None:
            assert connection.execute(statement.encode(), values).rowcount

        yield run


def test_every_class_is_named(hsm: OpenHSM, execute: Execute) -> None:
    """
    A comparison of the whole store names each key whose rows were changed, no other.
    """
    session = Session(hsm.act_as(caller()))
    attacked: dict[str, str] = {}
    for name, attack in ATTACKS.items():
        key_id = session.create_key("aes", name=name, tags=["t"]).key_id
        other = session.create_key("aes", name=f"not-{name}").key_id
        values = (key_id, other) if "$2" in attack else (key_id,)
        execute(f"{attack} WHERE key_id = $1", values)
        attacked[key_id] = name

    found = hsm.act_as(caller()).execute(ops.VerifyStore()).findings

    named = {attacked.get(each.key_id, each.key_id) for each in found}
    assert set(ATTACKS) == named


@pytest.mark.parametrize(
    "of_second",
    ["state-altered", "digest-altered", "name-leads-nowhere", "operations-gone"],
)
@pytest.mark.parametrize(
    "of_first", [["generation-altered"], ["document-altered", "digest-altered"]]
)
def test_rows_of_one_bucket(
    hsm: OpenHSM, execute: Execute, of_first: list[str], of_second: str
) -> None:
    """
    A false row is a finding though it is made again for the sake of another key.
    """
    session = Session(hsm.act_as(caller()))
    first, second = _of_one_bucket(session)
    session.update(second, name="second")
    for attack in of_first:
        execute(f"{ATTACKS[attack]} WHERE key_id = $1", (first,))
    execute(f"{ATTACKS[of_second]} WHERE key_id = $1", (second,))

    found = hsm.act_as(caller()).execute(ops.VerifyStore()).findings

    named = {each.key_id: each.problem for each in found}
    assert {first, second} == named.keys()
    assert "index" == named[second]


def _of_one_bucket(session: Session) -> tuple[str, str]:
    """Create keys until two are in one bucket; return these, the older one first."""
    ids: dict[int, str] = {}
    while True:
        key_id = session.create_key("aes").key_id
        other = ids.setdefault(bucket_of(key_id), key_id)
        if other != key_id:
            return other, key_id


def test_a_key_is_gone(hsm: OpenHSM, execute: Execute) -> None:
    """
    A key whose rows are removed is not called absent, and a comparison names it.
    """
    session = Session(hsm.act_as(caller()))
    key_id = session.create_key("aes").key_id
    execute("DELETE FROM keys WHERE key_id = $1", (key_id,))

    found = hsm.act_as(caller()).execute(ops.VerifyStore()).findings

    assert {key_id: "missing"} == {each.key_id: each.problem for each in found}
    with pytest.raises(KeyTamperedError):
        session.encrypt(key_id, b"text")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE account SET value = set_byte(value, 3, get_byte(value, 3) # 1)",
        "DELETE FROM account",
        "UPDATE meta SET value = set_byte(value, 3, get_byte(value, 3) # 1) "
        "WHERE name = 'Account'",
    ],
    ids=["sums", "no-sums", "seal"],
)
def test_account(
    hsm: OpenHSM, execute: Execute, database: str, tmp_path: Path, statement: str
) -> None:
    """
    A database whose account was altered locks the HSM that opens it.
    """
    Session(hsm.act_as(caller())).create_key("aes", name="pay")
    hsm.close()
    execute(statement)
    settings = Settings(store=database, node_name="a", node_mark=tmp_path / "mark")

    with open_tested(settings) as again, pytest.raises(HSMLockedError):
        Session(again.act_as(caller())).describe("pay")


@pytest.mark.parametrize("is_noticed", [True, False])
def test_a_change_is_gone(
    hsm: OpenHSM, execute: Execute, monkeypatch: pytest.MonkeyPatch, is_noticed: bool
) -> None:
    """
    Without the newest change nothing is recorded: uses end, and the HSM is locked.
    """
    if not is_noticed:
        monkeypatch.setattr(Changes, "check_head", lambda _: None)
    session = Session(hsm.act_as(caller()))
    key_id = session.create_key("aes").key_id
    session.encrypt(key_id, b"text")
    execute("DELETE FROM changes WHERE revision = (SELECT revision FROM cluster)")

    with ThreadPoolExecutor(2) as pool:
        for use in [pool.submit(session.encrypt, key_id, b"text") for _ in range(2)]:
            assert isinstance(use.exception(timeout=60), UnavailableError)
    if is_noticed:
        with pytest.raises(HSMLockedError, match="different copy"):
            session.describe(key_id)
    with pytest.raises(AuditUnavailableError):
        hsm.close()


def test_a_change_that_no_node_made(
    hsm: OpenHSM, execute: Execute, database: str, tmp_path: Path
) -> None:
    """
    A row behind the end of the feed stops a node, which names it; without it, all goes.
    """
    session = Session(hsm.act_as(caller()))
    key_id = session.create_key("aes").key_id
    session.encrypt(key_id, b"text")
    execute("INSERT INTO changes (revision, kind, head) VALUES (77, 'key', '')")

    with pytest.raises(UnavailableError):
        session.encrypt(key_id, b"text")
    with pytest.raises(UnavailableError, match=r"no node has made change 77\. Delete"):
        session.encrypt(key_id, b"text")
    execute("DELETE FROM changes WHERE revision = 77")
    with suppress(AuditUnavailableError):  # It may have recovered by then.
        hsm.close()
    settings = Settings(store=database, node_name="a", node_mark=tmp_path / "mark")
    with open_tested(settings) as again:
        assert Session(again.act_as(caller())).encrypt(key_id, b"text")


def test_key_ring(hsm: OpenHSM, execute: Execute, database: str) -> None:
    """
    An altered key ring opens nothing, and is not replaced.
    """
    hsm.close()
    execute(
        "UPDATE meta SET value = set_byte(value, 40, get_byte(value, 40) # 1) "
        "WHERE name = 'ring'"
    )

    for _ in range(2):
        with pytest.raises(KeyRingTamperedError):
            open_tested(Settings(store=database, node_name="a"))
