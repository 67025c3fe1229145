# SPDX-License-Identifier: MIT
"""No parser raises what it does not say; the session ``parsers`` tries far more."""

from __future__ import annotations

import pytest

from tests.fuzzing.catalogue import all_targets
from tests.fuzzing.mutation import mutants
from tests.fuzzing.target import Target

# Of serial numbers that are negative the library only says that it will refuse them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::cryptography.utils.CryptographyDeprecationWarning"
)

TARGETS = all_targets()
SLOW = {
    "audit-database": 20,
    "keys-database": 10,
    "token-config": 100,
    "provider-config": 100,
}
"""How many inputs of those that take milliseconds each."""


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    """Return each target."""
    return TARGETS[request.param]


def test_every_seed_is_read(target: Target) -> None:
    """
    What mutation begins with is taken by a parser, so that it gets past the first byte.
    """
    for seed in target.seeds:
        assert len(seed) <= target.longest
        assert target.read(seed)


def test_what_is_changed_is_read_or_refused(target: Target) -> None:
    """
    A changed input is taken, or refused by an error that the parser promises.
    """
    count = SLOW.get(target.name, 200)
    for data in mutants(target.seeds, count, target.longest):
        target.read(data)


def test_nothing_is_read_or_refused(target: Target) -> None:
    """
    An input of no bytes at all is nothing special.
    """
    target.read(b"")
