# SPDX-License-Identifier: MIT
"""SIGHUP: certificate, private key, token secret and policy are read again."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.pki import self_signed_root
from tests.server.family import Family, counter, retrying, wait_until
from tests.server.pem_files import serve_by, write_pair
from tests.server.process import Running, Site, client_context, connect
from tests.server.support import SECRET, Answer, claims, mint

_STATUS = "/api/v1/status"
_KEYS = "/api/v1/keys"
_POLICY = "version: 1\nextends: default\n"
_SHUT = _POLICY + "rules: [{name: shut, effect: deny, match: {operations: [Status]}}]\n"
_NEW = b"another secret of tests, 32 bytes long"


@pytest.fixture(scope="module", params=["process", "inline"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    """Give a folder to serve from, once for each isolation."""
    return Site(tmp_path_factory.mktemp("reload"), request.param)


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[Running]:
    """Give a server whose token secret is in a file."""
    replace_secret(site, SECRET)
    changes = {"FERROHSM_JWT_SECRET": f"@{secret_file(site)}"}
    policy_file(site).write_text(_POLICY)
    policy_file(site).chmod(0o600)
    more = ["--workers", "2", "--policy-config", str(policy_file(site))]
    with site.serve(*more, changes=changes) as running:
        yield running
        assert 0 == running.stop()


def policy_file(site: Site) -> Path:
    """Return where the policy is."""
    return site.folder / "policy.yaml"


def secret_file(site: Site) -> Path:
    """Return where the token secret is."""
    return site.folder / "token-secret"


def replace_secret(site: Site, secret: bytes) -> None:
    """Put another token secret in the place of what is there."""
    new = site.folder / "new-secret"
    new.write_text(f"text:{secret.decode()}")
    new.chmod(0o600)
    new.replace(secret_file(site))


def reload(server: Running, site: Site) -> set[str]:
    """Send SIGHUP, and return the events that tell how it went."""
    seen = len(site.log())
    expected = 2 if is_divided(site) else 1  # vault and TLS manager, or all in one
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(outcomes(site, seen)) >= expected)
    return {line["event"] for line in outcomes(site, seen)}


def is_divided(site: Site) -> bool:
    """Return whether the server has several processes."""
    return "process" in site.command()


def outcomes(site: Site, seen: int) -> list[dict[str, str]]:
    """Return the lines of the log, after those that were seen, about reloads."""
    return [line for line in site.log()[seen:] if line["event"].startswith("reload")]


def fingerprint(server: Running, site: Site) -> bytes | None:
    """Return the certificate that a new connection is shown."""
    with connect(server.address, client_context(site.authority)) as tls:
        return tls.getpeercert(binary_form=True)


def test_a_new_certificate_is_used(server: Running, site: Site) -> None:
    """New connections see it; one that is open stays."""
    connection = http.client.HTTPSConnection(
        *server.address, context=client_context(site.authority), timeout=60
    )
    connection.connect()
    connection.auto_open = False
    before = fingerprint(server, site)
    cert, key = site.authority.issue("renewed", server=True)
    shutil.copy2(cert, site.cert)
    shutil.copy2(key, site.key)
    events = reload(server, site)
    with contextlib.closing(connection):
        connection.request(
            "GET", _STATUS, headers={"Authorization": f"Bearer {mint()}"}
        )
        open_status = connection.getresponse().status
    seen = {fingerprint(server, site) for _ in range(6)}

    assert {"reloaded"} == events
    assert 200 == open_status
    assert 1 == len(seen)
    assert before not in seen


def test_a_certificate_that_has_expired_changes_nothing(
    server: Running, site: Site
) -> None:
    """An alarm lasts until there is a good one: in log, metrics and health."""
    before, good = fingerprint(server, site), read_pair(site)
    past: dict[str, Any] = {"begin": timedelta(days=-2), "end": timedelta(days=-1)}
    write_pair(site.cert, site.key, serve_by(self_signed_root("A CA"), **past))
    try:
        events = reload(server, site)
        during = fingerprint(server, site)
        shown = counter(server, "ferrohsm_tls_alarm")
        wait_until(lambda: health(server) == "degraded")
        if is_divided(site):
            # Those that begin later are told, too.
            replace_front_ends(server)
            wait_until(lambda: {health(server) for _ in range(8)} == {"degraded"})
    finally:
        put_pair(site, good)
    reload(server, site)
    wait_until(lambda: health(server) == "ok")

    assert "reload failed" in events
    assert before == during == fingerprint(server, site)
    assert (1.0, 0.0) == (shown, counter(server, "ferrohsm_tls_alarm"))
    assert [line for line in site.log() if "expired at" in line.get("reason", "")]
    assert 200 == server.send("GET", "/readyz").status


def test_the_end_of_the_certificate_is_shown(server: Running, site: Site) -> None:
    """In Unix time, by every front end."""
    certificate = x509.load_pem_x509_certificate(site.cert.read_bytes())
    ends = certificate.not_valid_after_utc.timestamp()
    name = "ferrohsm_tls_certificate_not_after_seconds"

    assert {ends} == {counter(server, name) for _ in range(6)}


def health(server: Running) -> str:
    """Return what the server says of itself."""
    return str(json.loads(server.send("GET", "/healthz").body)["status"])


def replace_front_ends(server: Running) -> None:
    """Kill all front ends, and wait for others."""
    before = Family(server).front_ends
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not {*before} & {*Family(server).front_ends})
    retrying(server, "/healthz")


def read_pair(site: Site) -> tuple[bytes, bytes]:
    """Return what the files of certificate and key hold."""
    return site.cert.read_bytes(), site.key.read_bytes()


def put_pair(site: Site, pair: tuple[bytes, bytes]) -> None:
    """Let them hold that again."""
    site.cert.write_bytes(pair[0])
    site.key.write_bytes(pair[1])


def test_a_killed_tls_manager_is_replaced(server: Running, site: Site) -> None:
    """Its successor shows what is in force, and reads the files again."""
    if is_divided(site):
        before = Family(server).tls_manager
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: Family(server).tls_manager != before)
        wait_until(lambda: reload(server, site) == {"reloaded"})
    cert, key = site.authority.issue("after-all", server=True)
    put_pair(site, (cert.read_bytes(), key.read_bytes()))
    events = reload(server, site)

    assert {"reloaded"} == events
    assert ssl.PEM_cert_to_DER_cert(cert.read_text()) == fingerprint(server, site)


def test_an_unreadable_secret_changes_nothing(server: Running, site: Site) -> None:
    """Tokens of the old one stay good, and the log has an error."""
    secret_file(site).chmod(0o644)
    try:
        events = reload(server, site)
    finally:
        secret_file(site).chmod(0o600)

    assert "reload failed" in events
    assert 200 == server.send("GET", _STATUS).status


def test_a_new_token_secret_is_used(server: Running, site: Site) -> None:
    """Old tokens are refused and new ones accepted, also by a later vault."""
    assert 200 == server.send("GET", _STATUS).status
    replace_secret(site, _NEW)
    fresh = mint(secret=_NEW)
    try:
        assert {"reloaded"} == reload(server, site)
        statuses = _statuses(server, fresh)
        if is_divided(site):
            os.kill(Family(server).vault, signal.SIGKILL)
            wait_until(lambda: server.send("GET", _STATUS, token=fresh).status == 200)
        later = _statuses(server, fresh)
    finally:
        replace_secret(site, SECRET)
        reload(server, site)

    assert {(401, 200)} == statuses == later
    assert 200 == retrying(server, _STATUS).status


def test_consent_by_tokens_of_an_old_secret(server: Running, site: Site) -> None:
    """AP-06: it counts no more once the secret is replaced, and is given anew."""
    made = server.send("POST", _KEYS, {"algorithm": "Ed25519", "tags": ["dual"]})
    key = f"{_KEYS}/{made.json['key_id']}"
    asked = server.send("DELETE", key)
    path = f"/api/v1/approvals/{asked.json['approval_id']}"
    first = approve(server, path, SECRET)
    replace_secret(site, _NEW)
    try:
        assert {"reloaded"} == reload(server, site)
        mine = mint(secret=_NEW)
        refused = server.send("DELETE", key, token=mine)
        again = approve(server, path, _NEW)
        done = server.send("DELETE", key, token=mine)
    finally:
        replace_secret(site, SECRET)
        reload(server, site)

    assert ("granted", "granted") == (first.json["state"], again.json["state"])
    assert (202, "pending") == (refused.status, refused.json["state"])
    assert (200, "destroyed") == (done.status, done.json["state"])


def approve(server: Running, path: str, secret: bytes) -> Answer:
    """Approve as somebody else, with a token of a secret."""
    token = mint(claims(sub="bob"), secret=secret)
    shown = server.send("GET", path, token=token)
    body = {"digest": shown.json["digest"]}
    return server.send("POST", f"{path}/approve", body, token=token)


def test_a_new_policy_is_in_force(server: Running, site: Site) -> None:
    """What it denies is denied at once, and what is no policy changes nothing."""
    before = server.send("GET", _STATUS).status
    policy_file(site).write_text(_SHUT)
    try:
        good = reload(server, site)
        shut = server.send("GET", _STATUS).status
        policy_file(site).write_text("version: 1\nrules: shut\n")
        bad = reload(server, site)
        still = server.send("GET", _STATUS).status
    finally:
        policy_file(site).write_text(_POLICY)
        reload(server, site)

    assert (200, 403, 403, 200) == (
        before,
        shut,
        still,
        server.send("GET", _STATUS).status,
    )
    assert {"reloaded"} == good
    assert "reload failed" in bad
    told = [line for line in site.log() if line["event"] == "policy refused"]
    assert "line 2: rules" in told[0]["reason"]


def _statuses(server: Running, fresh: str) -> set[tuple[int, int]]:
    """Return how an old and a new token are taken, by all front ends."""
    return {
        (
            server.send("GET", _STATUS).status,
            server.send("GET", _STATUS, token=fresh).status,
        )
        for _ in range(5)
    }
