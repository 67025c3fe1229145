# SPDX-License-Identifier: MIT
"""The pages about policy and roles: written from the code, and every example tried."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest

from hsm_core._internal.policy.engine import RuleEngine
from hsm_core._internal.policy.facts import StatedFacts, outcome_of_rule, sides_as_asked
from hsm_core.algorithms import parse_algorithm, spec
from hsm_core.model import Caller, KeyState, Role
from hsm_core.policies import parse_policy
from hsm_core.protocols import KeyFacts
from tests.core.policy_reference import PAGES, render
from tests.support import REPOSITORY

_EXAMPLE = re.compile(r"### ([^\n]+)\n\n```yaml\n(.*?)```\n\n(\|.*?)\n\n", re.DOTALL)
GUIDES = [
    page
    for page in sorted((REPOSITORY / "docs" / "how-to").glob("*.md"))
    if "```yaml\nversion: 1\n" in page.read_text()
]
_WEDNESDAY = "2026-07-01T12:00Z"


def examples() -> dict[str, tuple[str, list[list[str]]]]:
    """Return the examples of the page: a policy, and rows of what it comes to."""
    found = {}
    for title, policy, table in _EXAMPLE.findall(PAGES[0].read_text()):
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in table.splitlines()[2:]
        ]
        found[title] = policy, rows
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tables(page: Path) -> None:
    """The tables are what ``python -m tests.core.policy_reference`` makes."""
    assert render(page.read_text()) == page.read_text()


def test_every_example_is_found() -> None:
    """No example of the page is left out here."""
    chapter = PAGES[0].read_text().partition("## Examples")[2]
    titles = re.findall(r"^### (.+)$", chapter, re.MULTILINE)

    assert titles == list(examples())
    assert 6 == len(titles)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_policies_in_guides(page: Path) -> None:
    """A policy that a guide shows is valid, and warns of nothing."""
    found = re.findall(r"```yaml\n(version: 1\n.*?)```", page.read_text(), re.DOTALL)

    assert found
    for text in found:
        assert [w for w in parse_policy(text).warnings if "purged" not in w] == []


@pytest.mark.parametrize("title", examples())
def test_example(title: str) -> None:
    """A policy of the page is valid, warns of nothing, and comes to what is said."""
    text, rows = examples()[title]
    policy = parse_policy(text)
    engine = RuleEngine(policy)

    assert [w for w in policy.warnings if "purged" not in w] == []
    assert len(rows) >= 4
    for who, role, operation, key, address, when, expected in rows:
        caller = Caller(
            principal=who, roles=frozenset({Role(role)}), source_address=address
        )
        at = int(datetime.fromisoformat(when or _WEDNESDAY).timestamp()) * 1_000_000
        facts = dict(part.split(" ") for part in key.split(", ")) if key else {}
        algorithm = parse_algorithm(facts.get("algorithm", "aes256gcm"))
        tags = (facts["tag"],) if "tag" in facts else ()
        made = KeyFacts(
            key_id="k",
            algorithm=algorithm.value,
            state=KeyState.ACTIVE,
            name=facts.get("name", ""),
            owner=facts.get("owner", "somebody"),
            tags=frozenset(tags),
            usages=frozenset(usage.value for usage in spec(algorithm).default_usages),
        )
        asked = StatedFacts(kind=operation, algorithm=algorithm.value, tags=tags)
        is_new = operation in {"CreateKey", "ImportKey"}
        keyless = operation in {"GenerateRandom", "VerifyAudit"}
        sides = sides_as_asked(asked, caller, None if is_new or keyless else made)
        found = engine.judge(operation, caller, sides, at)
        assert expected == outcome_of_rule(found.rule), (title, who, operation)
