# SPDX-License-Identifier: MIT
"""The glossary defines each term once, where the search of the docs finds it."""

import re
from typing import Final

import pytest

from tests.support import REPOSITORY

ENTRIES: Final = re.findall(
    r"^### ([^\n]+)\n\n(.*?)(?=^#|\Z)",
    (REPOSITORY / "docs/reference/glossary.md").read_text(),
    re.MULTILINE | re.DOTALL,
)
"""Headings, which the search finds, and what stands below them."""
DEFINED: Final = [name for heading, _ in ENTRIES for name in heading.split(", ")]

TERMS: Final = """
access token, algorithm, approval, approval request, approve, approver, audit log,
audit record, AWS KMS, backup, cancel, checkpoint, composite, condition,
connection profile, consume, credential,
decision, deny, effect, fencing, front end, grant, health check, hybrid,
identity rule, inclusion proof, interface, KEK, key, key material, key ring,
key version, key-encryption key, known-answer test, leader, lease, legal hold,
lockout, migrate,
namespace, node, parameter set, pending destruction, PKCS#11, policy rule, private CA,
provider,
purge, quantum-safe, quantum-vulnerable, quorum, rate limit, readiness, receipt,
requester, rescue, restore, retention ledger, retention window, rollback,
rollback protection, root key, rotation, scheduled destruction, sealed blob,
security category, self-test, session, sign-in, supervisor, TLS manager, Transit,
vault process, witness, workload identity
"""


@pytest.mark.parametrize("term", [t.strip() for t in TERMS.split(",")])
def test_term_is_defined_once(term: str) -> None:
    """Each word that pages and messages use for one thing has one definition."""
    assert 1 == DEFINED.count(term)


def test_every_term_has_a_definition() -> None:
    """No term stands in the glossary alone."""
    assert [] == [name for name, text in ENTRIES if not text.strip().endswith(".")]
