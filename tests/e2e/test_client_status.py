# SPDX-License-Identifier: MIT
"""Front ends of a real server ask after clients before they hear them."""

import pytest

from tests.e2e.https import NoAnswerError
from tests.e2e.site import Site


def test_client_of_whom_nothing_can_be_learnt(site: Site) -> None:
    """With --client-ocsp hard who names no responder is refused, and that is told."""
    with site.start("--client-ocsp", "hard") as server:
        with (
            site.client(server.port, "ada", "operator") as client,
            pytest.raises(NoAnswerError),
        ):
            client.request("GET", "/api/v1/status")
        assert 0 == server.stop()
        log = server.output

    assert "client certificate refused" in log
    assert '"reason": "unknown"' in log


def test_client_of_whom_nothing_is_known(site: Site) -> None:
    """With --client-ocsp soft the same client is let in."""
    with (
        site.start("--client-ocsp", "soft") as server,
        site.client(server.port, "ada", "operator") as client,
    ):
        assert 200 == client.request("GET", "/api/v1/status").status
