# SPDX-License-Identifier: MIT
"""Listings under a policy: each caller sees and counts their keys, and asks once."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from hsm_core import operations as ops
from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from hsm_core.model import Caller, KeyFilter, Role
from hsm_core.protocols import IndexQuery, KeyClause, KeyScope, KeyTerms
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.core.key_support import change_of, document_of, key_id_of, operation_of
from tests.self_tests import open_tested

POLICY = """\
version: 1
extends: default
rules:
  - name: own-keys
    description: A service sees and uses its own keys.
    effect: deny
    match: {operations: [describe, use], roles: [Service]}
    except: {owners: [self]}
  - name: secret
    description: An Auditor does not see these.
    effect: deny
    match: {operations: [DescribeKey], tags: [secret], roles: [Auditor]}
  - name: guests-list
    description: A guest, who has no role, may list keys.
    effect: allow
    match: {operations: [ListKeys], principals: [guest]}
  - name: guests-see
    description: Of these, a guest sees some.
    effect: allow
    match: {operations: [DescribeKey], principals: [guest], tags: [secret]}
"""


def test_each_caller_sees_their_own(tmp_path: Path) -> None:
    """A listing holds what may be described, in items, total and pages."""
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    path.chmod(0o600)
    settings = Settings(key_store="memory", audit_log=None, policy_config=path)
    with open_tested(settings) as gateway:
        admin = gateway.act_as(caller(Role.ADMINISTRATOR))
        for number in range(9):
            admin.execute(
                ops.CreateKey(
                    algorithm="aes256gcm",
                    name=f"k{number}",
                    owner="svc-a" if number % 3 == 0 else "svc-b",
                    tags=("secret",) if number < 2 else (),
                )
            )
        seen = {}
        for name, *roles in (
            ("root", Role.ADMINISTRATOR),
            ("SVC-A", Role.SERVICE),
            ("svc-b", Role.SERVICE),
            ("nobody", Role.SERVICE),
            ("ute", Role.AUDITOR),
            ("guest",),
        ):
            hsm = gateway.act_as(Caller(principal=name, roles=frozenset(roles)))
            page = hsm.execute(ops.ListKeys(per_page=2))
            names, total = [key.name for key in page.items], page.total
            while page.next_cursor:
                page = hsm.execute(ops.ListKeys(per_page=2, cursor=page.next_cursor))
                names += [key.name for key in page.items]
            assert total == len(names)
            seen[name] = sorted(names)
        records = gateway.act_as(caller(Role.AUDITOR)).execute(
            ops.ListAuditEvents(kind=("ListKeys",))
        )

    everything = [f"k{number}" for number in range(9)]
    assert {
        "root": everything,
        "SVC-A": ["k0", "k3", "k6"],
        "svc-b": ["k1", "k2", "k4", "k5", "k7", "k8"],
        "nobody": [],
        "ute": everything[2:],
        "guest": everything[:2],
    } == seen
    assert () == records.items


def test_an_older_database_learns_owners(tmp_path: Path) -> None:
    """A database of before has owners and usages in its index after it was opened."""
    path = tmp_path / "keys.sqlite"
    store = SqliteKeyStore(path)
    for number, owner in enumerate(("alice", "bob", "alice")):
        document = document_of(number, owner=owner, operations=(operation_of(number),))
        store.commit(change_of(document, operation_of(number), blobs={1: b"blob"}))
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE keys DROP COLUMN owner")
        connection.execute("ALTER TABLE keys DROP COLUMN usages")
        connection.execute("PRAGMA user_version = 1")
    connection.close()

    store = SqliteKeyStore(path)
    terms = KeyTerms(owners=frozenset({"alice"}), usages=frozenset({"decrypt"}))
    page = store.find(
        IndexQuery(filter=KeyFilter(), limit=9, scope=KeyScope(((KeyClause(terms),),)))
    )
    store.close()

    assert [key_id_of(2), key_id_of(0)] == [key_id for _, key_id in page.keys]
