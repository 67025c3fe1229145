# SPDX-License-Identifier: MIT
"""
The command lines of the original FerroHSM, as its README has them.

Only ``cargo run -p hsm-server --`` has become ``hsm-server``, the client likewise, and
the port is one that is free. Its line with ACME is the first of the guide to it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.e2e.certificates import Pair, make_authority
from tests.e2e.processes import ServerProcess, program
from tests.support import REPOSITORY, free_port, require_program

_PORT: Final = ":8443"
_SECONDS: Final = 120.0
_ISSUER: Final = "https://issuer.example.com"
_NO_CERTIFICATE: Final = {35, 56}
"""How curl ends where a server wants a certificate and gets none."""

SECRETS: Final = """
export FERROHSM_MASTER_KEY=$(openssl rand -base64 32)
export FERROHSM_HMAC_KEY=$(openssl rand -base64 32)
export FERROHSM_JWT_SECRET=$(openssl rand -base64 32)
"""

MANUAL: Final = """
hsm-server \\
  --tls-mode manual \\
  --cert certs/server.pem \\
  --key certs/server-key.pem \\
  --client-ca certs/ca.pem \\
  --key-dir data/keys \\
  --audit-log data/audit.log \\
  --master-key "$FERROHSM_MASTER_KEY" \\
  --hmac-key "$FERROHSM_HMAC_KEY" \\
  --auth-jwt-secret "$FERROHSM_JWT_SECRET" \\
  --list-cache-ttl-secs 5 \\
  --retention-config config/retention.yaml \\
  --retention-ledger data/retention-ledger.log \\
  --retention-interval-secs 3600 \\
  --retention-grace-secs 86400
"""

SQLITE: Final = """
hsm-server \\
  --cert certs/server.pem \\
  --key certs/server-key.pem \\
  --master-key "$FERROHSM_MASTER_KEY" \\
  --hmac-key "$FERROHSM_HMAC_KEY" \\
  --auth-jwt-config config/jwt.yaml \\
  --key-store sqlite --sqlite-path data/keys.sqlite \\
  --audit-store sqlite --audit-sqlite-path data/audit.sqlite \\
  --approval-store sqlite --approval-sqlite-path data/approvals.sqlite \\
  --audit-retention-days 90 --audit-retention-interval-secs 3600 \\
  --approval-retention-days 90 --approval-retention-interval-secs 3600
"""

LIST_BY_SECRET: Final = """
hsm-cli \\
  --endpoint https://localhost:8443 \\
  --client-cert certs/client.pem \\
  --client-key certs/client-key.pem \\
  --ca-bundle certs/ca.pem \\
  --jwt-secret $(cat jwt-secret.txt) \\
  --jwt-algorithm hs256 \\
  list
"""

LIST_BY_KEY: Final = """
hsm-cli \\
  --endpoint https://localhost:8443 \\
  --client-cert certs/client.pem \\
  --client-key certs/client-key.pem \\
  --ca-bundle certs/ca.pem \\
  --jwt-algorithm rs256 \\
  --jwt-private-key config/jwt-signing-key.pem \\
  --jwt-issuer https://issuer.example.com \\
  --jwt-kid primary-2025-10 \\
  list
"""

FILTERS: Final = (
    "hsm-cli list --per-page 20 --page 1 --algorithm rsa2048 --state active "
    "--tags operational.critical,beta"
)

VERIFY: Final = (
    "hsm-cli audit verify --audit-path data/audit.log --hmac-key $(cat audit-hmac.txt)"
)
HEALTH: Final = "curl -sk https://localhost:8443/healthz | jq"
METRICS: Final = "curl -sk https://localhost:8443/metrics | head"


class Desk:
    """
    A folder as the README asks for, and a shell in it.

    Args:
        folder: Of certificates, secrets and data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        for name in ("certs", "config", "data"):
            (folder / name).mkdir(parents=True, mode=0o700)
        self._authority = make_authority(folder / "made")
        (folder / "certs/ca.pem").write_bytes(self._authority.bundle.read_bytes())
        self._copy(self._authority.issue("server", server=True), "server")
        self.person("client")
        sample = REPOSITORY / "examples/config/retention.yaml"
        (folder / "config/retention.yaml").write_bytes(sample.read_bytes())
        self._write("jwt-secret.txt", base64.b64encode(secrets.token_bytes(32)))
        self._write("audit-hmac.txt", base64.b64encode(secrets.token_bytes(32)))
        self._make_issuer()
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("FERROHSM_")
        }
        self._environment["FERROHSM_ENDPOINT"] = "https://localhost:8443"
        self._environment["FERROHSM_CA_BUNDLE"] = "certs/ca.pem"

    def _copy(self, pair: Pair, name: str) -> None:
        self._write(f"certs/{name}.pem", pair.certificate.read_bytes())
        self._write(f"certs/{name}-key.pem", pair.key.read_bytes())

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(data)

    def person(self, name: str) -> None:
        """Give somebody a certificate."""
        self._copy(self._authority.issue(name, server=False), name)

    def _make_issuer(self) -> None:
        keys = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
        pems = [
            key.public_key().public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            )
            for key in keys
        ]
        first, second = (textwrap.indent(pem.decode(), " " * 6) for pem in pems)
        text = (
            f"algorithm: RS256\nissuer: {_ISSUER}\nleeway_seconds: 120\nkeys:\n"
            f"  - kid: primary-2025-10\n    public_key_pem: |\n{first}"
            f"  - kid: fallback-2025-09\n    public_key_pem: |\n{second}"
        )
        self._write("config/jwt.yaml", text.encode())
        private = keys[0].private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        self._write("config/jwt-signing-key.pem", private)

    def _script(self, text: str) -> tuple[list[str], dict[str, str]]:
        # A blank at its end has the next word looked up, too.
        aliases = "shopt -s expand_aliases\nalias exec='exec '\n" + "".join(
            f"alias {name}='{' '.join(program(name))}'\n"
            for name in ("hsm-server", "hsm-cli")
        )
        found = (aliases + text).replace(_PORT, f":{self.port}")
        variables = {
            name: value.replace(_PORT, f":{self.port}")
            for name, value in self._environment.items()
        }
        return ["bash", "-e", "-c", found], variables

    def serve(self, lines: str) -> ServerProcess:
        """Type the lines of a server; its secrets are the ones in the files."""
        kept = (
            f"cd {self.folder}\n"
            "export FERROHSM_HMAC_KEY=$(cat audit-hmac.txt)\n"
            "export FERROHSM_JWT_SECRET=$(cat jwt-secret.txt)\n"
        )
        # In the place of the shell, which would not pass on signals.
        command, variables = self._script(f"{SECRETS}{kept}exec {lines.strip()}")
        variables["FERROHSM_BIND"] = f"127.0.0.1:{self.port}"
        server = ServerProcess(command, variables, self.folder / "server.log")
        server.wait_ready()
        return server

    def type(
        self, lines: str, *, who: str = "client", roles: str = "", typed: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Type lines of a client, as somebody whose settings are in variables."""
        command, variables = self._script(lines)
        variables |= {
            "FERROHSM_CLIENT_CERT": f"certs/{who}.pem",
            "FERROHSM_CLIENT_KEY": f"certs/{who}-key.pem",
            "FERROHSM_JWT_SECRET": "@jwt-secret.txt",
            "FERROHSM_ACTOR": who,
        }
        if roles:
            variables["FERROHSM_ROLES"] = roles
        return subprocess.run(
            command,
            cwd=self.folder,
            env=variables,
            input=typed,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )

    def ok(self, lines: str, **options: str) -> str:
        """Type lines that succeed, and return what they print."""
        done = self.type(lines, **options)
        assert 0 == done.returncode, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a desk at which the first server of the README runs."""
    for name in ("bash", "openssl", "curl", "jq"):
        require_program(name)
    desk = Desk(tmp_path_factory.mktemp("original"))
    with desk.serve(MANUAL) as server:
        yield desk
        assert 0 == server.stop(), server.output


def test_listing(desk: Desk) -> None:
    """With a secret on the command line, as given and warned of."""
    desk.ok("hsm-cli create --algorithm rsa2048 --tags operational.critical,beta")
    desk.ok("hsm-cli create --algorithm rsa2048 --tags operational.critical")
    desk.ok("hsm-cli create --algorithm p256 --tags operational.critical,beta")

    listed = desk.type(LIST_BY_SECRET)
    found = desk.ok(FILTERS)

    assert 0 == listed.returncode, listed.stderr
    assert "other users can see --jwt-secret" in listed.stderr
    assert 3 == listed.stdout.count("operational.critical")
    assert 1 == found.count("operational.critical")
    assert "RSA-2048" in found


def test_versions(desk: Desk) -> None:
    """Rotated twice, and rolled back to the second version."""
    made = json.loads(desk.ok("hsm-cli create --algorithm aes256gcm --json"))
    key = made["key_id"]

    desk.ok(f"hsm-cli rotate --key-id {key}")
    desk.ok(f"hsm-cli rotate --key-id {key}")
    before = desk.ok(f"hsm-cli versions --key-id {key}")
    desk.ok(f"hsm-cli rollback --key-id {key} --version 2")
    after = desk.ok(f"hsm-cli versions --key-id {key}")

    assert ["1", "2", "3"] == [line.split()[0] for line in before.splitlines()[1:4]]
    assert ["4", "active"] == after.splitlines()[4].split()[:2]


def test_approvals(desk: Desk) -> None:
    """Asked for by one person, granted or refused by another."""
    desk.person("auditor")
    ids = []
    for name in ("one", "two"):
        desk.ok(f"hsm-cli create --algorithm aes256gcm --name {name} --tags dual")
        asked = desk.type(f"hsm-cli destroy {name} --yes", roles="administrator")
        assert 11 == asked.returncode, asked.stderr
        ids += re.findall(r"approvals approve ([0-9a-f-]{36})", asked.stderr)
    assert 2 == len(set(ids))

    def ok(lines: str) -> str:
        return desk.ok(lines, who="auditor", roles="auditor")

    listed = ok("hsm-cli approvals list")
    granted = ok(f"hsm-cli approvals approve --approval-id {ids[0]}")
    refused = ok(f"hsm-cli approvals deny --approval-id {ids[1]}")

    assert all(approval_id[:8] in listed for approval_id in ids)
    assert "granted" in granted
    assert "denied" in refused
    desk.ok("hsm-cli destroy one --yes", roles="administrator")
    again = desk.type("hsm-cli destroy two --yes", roles="administrator")
    assert again.returncode in {5, 11}, again.stderr


def test_the_trail(desk: Desk) -> None:
    """It is verified from its file, without the server."""
    assert "intact" in desk.ok(VERIFY)


def test_health_and_metrics_need_the_certificate(desk: Desk) -> None:
    """Where clients must show one, curl does too."""
    shown = "curl -sk --cert certs/client.pem --key certs/client-key.pem "
    bare = desk.type("set -o pipefail\n" + HEALTH)

    assert bare.returncode in _NO_CERTIFICATE, bare.stderr
    health = desk.ok(HEALTH.replace("curl -sk ", shown))
    assert json.loads(health)["status"] in {"ok", "degraded"}
    assert "# HELP" in desk.ok(METRICS.replace("curl -sk ", shown))


def test_databases_keys_of_an_issuer_and_no_certificates(tmp_path: Path) -> None:
    """SQLite, a file of keys; then curl needs no certificate, as in the README."""
    for name in ("bash", "openssl", "curl", "jq"):
        require_program(name)
    desk = Desk(tmp_path / "desk")
    with desk.serve(SQLITE) as server:
        listed = desk.ok(LIST_BY_KEY)
        health = desk.ok(HEALTH)
        metrics = desk.ok(METRICS)
        assert 0 == server.stop(), server.output

    assert "0 keys" in listed
    assert "ok" == json.loads(health)["status"]
    assert "# HELP" in metrics
    for name in ("keys", "audit", "approvals"):
        assert (
            b"SQLite format 3"
            == (desk.folder / f"data/{name}.sqlite").read_bytes()[:15]
        )
    assert "intact" in desk.ok(VERIFY.replace("audit.log", "audit.sqlite"))
