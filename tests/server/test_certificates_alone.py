# SPDX-License-Identifier: MIT
"""A server that knows no key of tokens, and people by certificates alone."""

import http.client
import json
from contextlib import closing
from pathlib import Path

from tests.server.process import Running, Site, client_context
from tests.server.support import SECRET, b64url, mint
from tests.server.token_kit import signer

POLICY = """version: 1
extends: default
identities:
  - {principal: ada, roles: [Operator], certificate_subjects: ["CN=ada"]}
"""
UNSIGNED = ".".join(
    b64url(part) for part in (b'{"alg":"none"}', b'{"sub":"ada","exp":9999999999}', b"")
)


def ask(site: Site, server: Running, pair: tuple[Path, Path], token: str) -> int:
    """Return how a request with a certificate, and perhaps a token, is answered."""
    context = client_context(site.authority, pair)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with closing(
        http.client.HTTPSConnection(*server.address, context=context, timeout=20)
    ) as connection:
        connection.request("GET", "/api/v1/keys", None, headers)
        return connection.getresponse().status


def test_it_needs_no_key_of_tokens(tmp_path: Path) -> None:
    """Known people come in by certificate; no token does, whatever signed it."""
    site = Site(tmp_path)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    ada, eve = (site.authority.issue(name, server=False) for name in ("ada", "eve"))
    flags = ("--client-ca", str(site.authority.path), "--client-cert-identities")
    tokens = [
        *(mint(secret=SECRET), mint(secret=b""), mint(secret=b"\0" * 32), UNSIGNED),
        *(signer(name).token() for name in ("RS256", "ES256", "EdDSA")),
    ]
    changes = {"FERROHSM_JWT_SECRET": ""}
    more = ("--policy-config", str(policy))
    with site.serve(*flags, *more, changes=changes) as server:
        assert (200, 401) == (ask(site, server, ada, ""), ask(site, server, eve, ""))
        assert {401} == {ask(site, server, ada, token) for token in tokens}
        context = client_context(site.authority, ada)
        page = server.send("GET", "/.well-known/jwks.json", context=context)
        assert {"keys": []} == json.loads(page.body)
        assert 0 == server.stop()

    log = (tmp_path / "log").read_text()
    assert 1 == log.count("note: no token keys are configured")
