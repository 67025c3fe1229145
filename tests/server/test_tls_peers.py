# SPDX-License-Identifier: MIT
"""What metrics say of handshakes: one of a known few words, whatever a client does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_server.tls.handshakes import ALERTS, GROUPS, Outcome, channel_of, group_label


def test_alerts_have_the_names_of_the_standard() -> None:
    """Ours and the client's are told apart; unknown ones are all the same."""
    names = {
        Outcome.by_alert(number, is_ours=is_ours).name
        for number in range(256)
        for is_ours in (True, False)
    }

    assert "refused_certificate_required" in names
    assert "rejected_unknown_ca" in names
    assert 2 * (len(ALERTS) + 1) == len(names)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ConnectionAbortedError(), "timeout"),
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "disconnected"),
        (BrokenPipeError(), "disconnected"),
        (OSError(), "disconnected"),
    ],
)
def test_what_no_alert_has_ended_has_a_name(error: OSError, name: str) -> None:
    """Somebody was too slow, or went away; nobody was refused."""
    outcome = Outcome.by_error(error)

    assert name == outcome.name
    assert not outcome.is_refusal


@given(st.text())
def test_groups_are_of_a_known_few(name: str) -> None:
    """Whatever a later OpenSSL may call one."""
    assert group_label(name) in {*GROUPS, "none", "other"}


@pytest.mark.parametrize("name", GROUPS)
def test_known_groups_keep_their_names(name: str) -> None:
    """In whatever case they are written."""
    assert name == group_label(name.upper())
    assert "none" == group_label(None)


def test_without_tls_nothing_is_known() -> None:
    """Of no transport, and of one without handshake."""
    assert channel_of(None) is None
