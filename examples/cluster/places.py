# SPDX-License-Identifier: MIT
"""What the cluster consists of: PostgreSQL with a replica, nodes, HAProxy."""

from __future__ import annotations

import base64
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import OctKey

from hsm_core.private_ca import PrivateCA
from hsm_core.private_files import replace_file

NODES: Final = ("a", "b", "c")
_ROLE: Final = "ferrohsm"
_PATIENCE_SECONDS: Final = 60.0
_PROXY: Final = """
defaults
    mode tcp
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    retries 2
    option redispatch

frontend hsm
    bind 127.0.0.1:{port}
    default_backend nodes

backend nodes
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check check-ssl verify none inter 300ms fall 1 rise 1
{servers}
"""


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Database:
    """
    A server of PostgreSQL, on a socket in its folder; it refuses to run as root.

    Args:
        folder: Empty folder of the user that it runs as.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        if os.geteuid() == 0:
            found = pwd.getpwnam("postgres")
            os.chown(folder, found.pw_uid, found.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Create a primary whose commits wait for the replica, and start it."""
        self._run("initdb", "--auth=trust", "--locale=C", "--encoding=UTF8")
        self._start()
        self._run("createdb", _ROLE)

    def follow(self, primary: Database) -> None:
        """Copy a primary, and follow it as its synchronous replica."""
        source = f"host={primary.folder} user={_ROLE} application_name=replica"
        self._run("pg_basebackup", "--write-recovery-conf", f"--dbname={source}")
        self._start()
        primary.query("ALTER SYSTEM SET synchronous_standby_names = 'replica'")
        primary.query("SELECT pg_reload_conf()")

    def query(self, statement: str) -> None:
        """Execute a statement."""
        self._run("psql", "--quiet", "--command", statement, _ROLE)

    def kill(self) -> None:
        """Kill the server, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Stop the server."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()

    def _start(self) -> None:
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._words("postgres", "-c", "listen_addresses="),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ends = time.monotonic() + _PATIENCE_SECONDS
        while subprocess.run(
            self._words("pg_isready", "--quiet"), check=False
        ).returncode:
            if time.monotonic() > ends:
                raise SystemExit((self.folder / "log").read_text())
            time.sleep(0.05)

    def _run(self, program: str, *words: str) -> None:
        command = self._words(program, *words)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{program}: {done.stderr}")

    def _words(self, program: str, *words: str) -> list[str]:
        """Return a command with its folder, as the user that it runs as."""
        folder = str(self.folder)
        place = {
            "initdb": ["--username", _ROLE, "--pgdata", f"{folder}/data"],
            "postgres": ["-D", f"{folder}/data", "-k", folder],
            "pg_basebackup": ["--checkpoint=fast", "--pgdata", f"{folder}/data"],
            "pg_isready": ["--host", folder],
        }.get(program, ["--host", folder, "--username", _ROLE])
        path = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path())
        drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        before = drop if os.geteuid() == 0 else []
        return [*before, str(path / program), *place, *words]


class Site:
    """
    Certificates, secrets, nodes and proxy.

    Args:
        folder: Private folder.

        databases: Primary and replica.
    """

    def __init__(self, folder: Path, databases: tuple[Database, Database]) -> None:
        now = datetime.now(UTC)
        authority = PrivateCA.create("Example cluster", now)
        self.ca_bundle = folder / "ca.pem"
        replace_file(self.ca_bundle, authority.certificate_pem())
        names = ["localhost", "127.0.0.1"]
        replace_file(folder / "server.pem", authority.issue_server(names, now))
        self._secrets = {
            name: base64.b64encode(os.urandom(32)).decode()
            for name in ("MASTER_KEY", "HMAC_KEY", "JWT_SECRET")
        }
        hosts = ",".join(str(one.folder) for one in databases)
        self._store = f"postgresql://{_ROLE}@/{_ROLE}?host={hosts}"
        self._folder = folder
        self._ports = {name: free_port() for name in NODES}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        port = free_port()
        self.endpoint = f"https://127.0.0.1:{port}"
        servers = "\n".join(
            f"    server {name} 127.0.0.1:{self._ports[name]}" for name in NODES
        )
        text = _PROXY.format(port=port, servers=servers)
        (folder / "haproxy.cfg").write_text(text)

    def url_of(self, name: str) -> str:
        """Return the address of one node, past the proxy."""
        return f"https://127.0.0.1:{self._ports[name]}"

    def token(self) -> str:
        """Return a bearer token for administration and use."""
        now = int(time.time())
        claims = {
            "sub": "example",
            "roles": ["Administrator", "Operator", "Auditor"],
            "iat": now,
            "exp": now + 3600,
        }
        key = OctKey.import_key(base64.b64decode(self._secrets["JWT_SECRET"]))
        return jwt.encode({"alg": "HS256", "typ": "JWT"}, claims, key)

    def start_node(self, name: str) -> None:
        """Start a node, and wait until it listens."""
        certificate = str(self._folder / "server.pem")
        command = [
            *(sys.executable, "-m", "hsm_server", "--store", self._store),
            *("--node-name", name, "--node-mark", str(self._folder / f"{name}.mark")),
            *("--bind", f"127.0.0.1:{self._ports[name]}", "--isolation", "inline"),
            *("--cert", certificate, "--key", certificate, "--lockout-after", "0"),
            *("--rate-limit-per-second", "0", "--address-limit-per-second", "0"),
        ]
        secrets = {f"FERROHSM_{name}": one for name, one in self._secrets.items()}
        with (self._folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                command,
                env={"PATH": os.environ["PATH"], **secrets},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._processes[name] = process
        if process.stdout is None or not process.stdout.readline():
            raise SystemExit((self._folder / f"{name}.log").read_text())

    def start_proxy(self) -> None:
        """Start HAProxy, which asks each node whether it is ready."""
        log: Any = (self._folder / "haproxy.log").open("w")
        with log:
            self._processes["haproxy"] = subprocess.Popen(
                ["haproxy", "-db", "-f", str(self._folder / "haproxy.cfg")],
                stdout=log,
                stderr=log,
                text=True,
            )

    def kill_node(self, name: str) -> None:
        """Kill a node."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Stop nodes and proxy."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait()
