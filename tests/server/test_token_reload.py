# SPDX-License-Identifier: MIT
"""A server whose keys of tokens lie in a file, in processes and in one."""

import hashlib
import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.family import counter, wait_until
from tests.server.process import Running, Site, client_context
from tests.server.support import SECRET, b64url, mint
from tests.server.token_kit import ALGORITHMS, signer, write_config

STATUS = "/api/v1/status"
PAGE = "/.well-known/jwks.json"
SECONDS = 0.5


@pytest.fixture(scope="module", params=["process", "inline"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    """Give a folder to serve from, once for each isolation."""
    return Site(tmp_path_factory.mktemp("keys"), request.param)


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[Running]:
    """Give a server that knows a key of each algorithm."""
    config = usual(site)
    more = ["--auth-jwt-config", str(config), "--auth-jwt-reload-secs", str(SECONDS)]
    with site.serve(*more, "--client-auth", "optional", *clients(site)) as running:
        yield running
        assert 0 == running.stop()


def clients(site: Site) -> list[str]:
    """Return flags that let clients show certificates."""
    return ["--client-ca", str(site.authority.path)]


def usual(site: Site) -> Path:
    """Write the file with a key of each algorithm."""
    keys = [signer(name).section(name) for name in ALGORITHMS]
    return write_config(site.folder / "jwt.json", keys)


def health(server: Running) -> str:
    """Return what the page of health says."""
    return str(json.loads(server.send("GET", "/healthz").body)["status"])


def status(server: Running, token: str) -> int:
    """Return how a token is answered."""
    return server.send("GET", STATUS, token=token).status


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_served(server: Running, algorithm: str) -> None:
    """With kid and without."""
    assert 200 == status(server, signer(algorithm).token(algorithm))
    assert 200 == status(server, signer(algorithm).token())


def test_the_flag_of_the_secret_does_not_count(server: Running, site: Site) -> None:
    """A key file replaces the secret; a warning says so."""
    assert 401 == status(server, mint(secret=SECRET))
    assert "auth-jwt-secret" in (site.folder / "log").read_text()


def test_the_public_keys_are_published(server: Running) -> None:
    """Over both ways to the vault, without any member of a secret."""
    answer = server.send("GET", PAGE)
    rows = json.loads(answer.body)["keys"]

    assert ["ES256", "EdDSA", "RS256"] == [row["kid"] for row in rows]
    assert not {"k", "d", "p", "q"} & set().union(*rows)
    assert "public, max-age=0" == answer.headers["Cache-Control"]
    assert answer.body == server.send("GET", PAGE).body


def test_a_token_of_a_certificate(server: Running, site: Site) -> None:
    """A bound token is accepted only with its certificate (RFC 8705)."""
    pairs = [site.authority.issue(name, server=False) for name in ("ada", "eve")]
    der = ssl.PEM_cert_to_DER_cert(pairs[0][0].read_text())
    cnf = {"x5t#S256": b64url(hashlib.sha256(der).digest())}
    token = signer("ES256").token("ES256", cnf=cnf)
    contexts = [client_context(site.authority, pair) for pair in (*pairs, None)]
    seen = [
        server.send("GET", STATUS, token=token, context=context).status
        for context in contexts
    ]

    assert [200, 401, 401] == seen


def test_a_key_that_is_removed_counts_no_more(server: Running, site: Site) -> None:
    """Within the interval, without a signal; the published set changes too."""
    token, rest = signer("RS256").token("RS256"), signer("ES256").token("ES256")
    assert 200 == status(server, token)
    write_config(site.folder / "jwt.json", [signer("ES256").section("ES256")])
    wait_until(lambda: status(server, token) == 401)

    assert 200 == status(server, rest)
    assert 1 == len(json.loads(server.send("GET", PAGE).body)["keys"])
    usual(site)
    wait_until(lambda: status(server, token) == 200)


def test_a_broken_file_is_an_alarm(server: Running, site: Site) -> None:
    """The former keys stay, metric and log report it; then it clears."""
    config = site.folder / "jwt.json"
    config.write_text("keys: [")
    wait_until(lambda: counter(server, "ferrohsm_auth_jwt_alarm") == 1)

    wait_until(lambda: health(server) == "degraded")
    assert 200 == status(server, signer("EdDSA").token("EdDSA"))
    assert counter(server, "ferrohsm_auth_jwt_reload_failures_total") >= 1
    (line, *_) = [e for e in site.log() if e["event"] == "token keys refused"]
    assert "line 1" in line["reason"]
    usual(site)
    wait_until(lambda: counter(server, "ferrohsm_auth_jwt_alarm") == 0)
    wait_until(lambda: health(server) == "ok")


def test_a_signal_reads_it_at_once(tmp_path: Path) -> None:
    """Even with a very long interval."""
    config = write_config(tmp_path / "jwt.json", [signer("ES256").section("a")])
    other = Site(tmp_path, "process")
    more = ["--auth-jwt-config", str(config), "--auth-jwt-reload-secs", "3600"]
    with other.serve(*more) as server:
        write_config(config, [signer("RS256").section("b")])
        assert 200 == status(server, signer("ES256").token("a"))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: status(server, signer("RS256").token("b")) == 200)
        assert 401 == status(server, signer("ES256").token("a"))
        assert 0 == server.stop()
