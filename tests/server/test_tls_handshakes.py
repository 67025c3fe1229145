# SPDX-License-Identifier: MIT
"""Handshakes of OpenSSL's and curl's clients with the listener, on both loops."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.pki import SERVER, Issuer, self_signed_root
from tests.server.tls_support import Server, curl, s_client, serving, state_of


@pytest.fixture(scope="module")
def root() -> Issuer:
    """Give a certificate authority."""
    return self_signed_root("Root")


@pytest.fixture(scope="module")
def bundle(root: Issuer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the path of its certificate."""
    return str(root.write(tmp_path_factory.mktemp("ca"), "root")[0])


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(root: Issuer, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Give a server."""
    state = state_of(root.issue("server", use=SERVER).pair)
    with serving(state, request.param) as running:
        yield running


def test_a_client_with_ml_kem_gets_it(server: Server, bundle: str) -> None:
    """What two ordinary clients do by themselves ends in X25519MLKEM768."""
    sent = s_client(server, "-CAfile", bundle, "-verify_return_error")
    assert "HTTP/1.1 200" in sent.output, sent.text
    assert "TLSv1.3" in sent.output
    assert "X25519MLKEM768" in sent.output
