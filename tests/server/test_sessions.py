# SPDX-License-Identifier: MIT
"""The memory of sessions: what it keeps, for how long, and how many."""

import pytest

from hsm_core.errors import AuthenticationError
from hsm_server.config.settings import ConsoleSettings
from hsm_server.identity.sessions import SessionEndedError, Sessions
from tests.server.support import SetClock


@pytest.fixture
def hands() -> SetClock:
    """Give a clock."""
    return SetClock(1_000_000.0)


@pytest.fixture
def sessions(hands: SetClock) -> Sessions:
    """Give a memory of four sessions, two of each principal."""
    settings = ConsoleSettings(idle_seconds=60, absolute_seconds=600)
    return Sessions(settings, hands.now, most=4, most_of_one=2)


def test_a_page_that_asks_by_itself_is_no_use(
    sessions: Sessions, hands: SetClock
) -> None:
    """What goes on without anybody doing something keeps no session alive."""
    secret = sessions.begin("alice", "token", "")
    hands.seconds += 40
    sessions.find(secret, "", is_used=False)
    hands.seconds += 20

    with pytest.raises(SessionEndedError):
        sessions.find(secret, "")


def test_a_busy_session_ends_too(sessions: Sessions, hands: SetClock) -> None:
    """However much it is used, it does not outlast its absolute time."""
    secret = sessions.begin("alice", "token", "")
    for _ in range(11):
        hands.seconds += 50
        sessions.find(secret, "")

    hands.seconds += 50

    with pytest.raises(SessionEndedError):
        sessions.find(secret, "")


def test_one_principal_has_few(sessions: Sessions) -> None:
    """Another session of the same person ends the one used least recently."""
    first, second = (sessions.begin("alice", "token", "") for _ in range(2))
    sessions.find(first, "")

    sessions.begin("Alice", "token", "")

    assert "alice" == sessions.find(first, "").principal
    with pytest.raises(AuthenticationError):
        sessions.find(second, "")


def test_there_are_not_too_many(sessions: Sessions) -> None:
    """Nobody can fill the memory: the session used least recently goes."""
    secrets = [sessions.begin(f"person {n}", "token", "") for n in range(5)]

    assert 4 == len(sessions)
    with pytest.raises(AuthenticationError):
        sessions.find(secrets[0], "")


def test_what_ended_is_swept_after_a_clock_reset(
    sessions: Sessions, hands: SetClock
) -> None:
    """A clock that was ahead and is set back doesn't stop the sweeps."""
    hands.seconds += 86_400
    sessions.begin("alice", "token", "")
    hands.seconds -= 86_400
    sessions.end_all()
    sessions.begin("alice", "token", "")
    hands.seconds += 61

    sessions.begin("bob", "token", "")

    assert 1 == len(sessions)


def test_what_ended_is_swept(sessions: Sessions, hands: SetClock) -> None:
    """A token does not stay in memory because nobody comes back to its session."""
    sessions.begin("alice", "token", "")
    hands.seconds += 61

    sessions.begin("bob", "token", "")

    assert 1 == len(sessions)
