# SPDX-License-Identifier: MIT
"""The comparison that the kill loop relies on notices what it should."""

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace

import pytest

from tests.e2e.processes import ServerProcess
from tests.faults.consents import ExpectedApproval
from tests.faults.crew import Crew
from tests.faults.expectation import ExpectedKey, Use, Violation

AGREED_SECONDS = 60.0


@pytest.fixture(scope="module")
def busy(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Crew, ServerProcess]]:
    """Give a crew that has worked for a while, and its server."""
    with Crew(tmp_path_factory.mktemp("examined") / "site", "examined") as crew:
        with crew.start() as server:
            crew.finish(crew.work(server, 1.5))
            until = time.monotonic() + AGREED_SECONDS
            while not crew.agreed and time.monotonic() < until:
                crew.finish(crew.work(server, 0.5))
            crew.settle_and_examine(server, everything=True)
            yield crew, server


def lost_generation(key: ExpectedKey) -> None:
    """Act as if one more change had been acknowledged."""
    key.generation += 1


def lost_revocation(key: ExpectedKey) -> None:
    """Act as if a revocation had been acknowledged."""
    key.current.state = "revoked"


def forged_output(key: ExpectedKey) -> None:
    """Act as if other bytes had been signed, encrypted or authenticated."""
    kind = {"AES-256-GCM": "Encrypt", "HMAC-SHA-256": "ComputeMac"}
    made = kind.get(key.algorithm, "Sign")
    key.uses.append(Use(made, len(key.versions), b"never seen", bytes(64)))


def lost_extension(key: ExpectedKey) -> None:
    """Act as if a version were kept for longer."""
    key.kept[1] = "2199-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "pretend", [lost_generation, lost_revocation, forged_output, lost_extension]
)
def test_lost_change_is_noticed(
    busy: tuple[Crew, ServerProcess], pretend: Callable[[ExpectedKey], None]
) -> None:
    """
    What was acknowledged and is not there is a violation.
    """
    crew, server = busy
    expected = crew.clients[0].expected
    name = next(n for n, k in expected.keys.items() if k.current.state == "active")
    kept = expected.keys[name]
    copy = deepcopy(kept)
    expected.keys[name] = copy
    pretend(copy)

    try:
        with pytest.raises(Violation):
            crew.settle_and_examine(server, everything=True)
    finally:
        expected.keys[name] = kept


def denied(approval: ExpectedApproval) -> ExpectedApproval | None:
    """Act as if it had been denied."""
    return replace(approval, state="denied")


def unasked(approval: ExpectedApproval) -> ExpectedApproval | None:
    """Act as if nobody had asked for it."""
    return None


@pytest.mark.parametrize("pretend", [denied, unasked])
def test_an_approval_that_went_otherwise_is_noticed(
    busy: tuple[Crew, ServerProcess],
    pretend: Callable[[ExpectedApproval], ExpectedApproval | None],
) -> None:
    """
    An approval that was spent, or asked for, and by nobody's journal is a violation.
    """
    crew, server = busy
    approvals, used = next(
        (client.expected.approvals, approval)
        for client in crew.clients
        for approval in client.expected.approvals.values()
        if approval.used_by
    )
    other = pretend(used)
    if other is None:
        del approvals[used.approval_id]
    else:
        approvals[used.approval_id] = other

    try:
        with pytest.raises(Violation, match="approval"):
            crew.settle_and_examine(server, everything=True)
    finally:
        approvals[used.approval_id] = used


def test_unexplained_key_is_noticed(busy: tuple[Crew, ServerProcess]) -> None:
    """
    A key that no journal tells of is a violation.
    """
    crew, server = busy
    expected = crew.clients[1].expected
    name = next(n for n, k in expected.keys.items() if not k.is_destroyed)
    forgotten = expected.keys.pop(name)

    try:
        with pytest.raises(Violation, match="other keys are listed"):
            crew.settle_and_examine(server, everything=False)
    finally:
        expected.keys[name] = forgotten


def test_use_without_record_is_noticed(busy: tuple[Crew, ServerProcess]) -> None:
    """
    An acknowledged use that the trail does not tell of is a violation.
    """
    crew, server = busy
    crew.clients[2].expected.uses.add(10**9)

    try:
        with pytest.raises(Violation, match="has no record"):
            crew.settle_and_examine(server, everything=False)
    finally:
        crew.clients[2].expected.uses.remove(10**9)


def test_record_without_use_is_noticed(busy: tuple[Crew, ServerProcess]) -> None:
    """
    A record of a use that nobody asked for is a violation.
    """
    crew, server = busy
    use = crew.clients[3].expected.uses.pop()

    try:
        with pytest.raises(Violation, match="has no use"):
            crew.settle_and_examine(server, everything=False)
    finally:
        crew.clients[3].expected.uses.add(use)
