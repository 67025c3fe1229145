# SPDX-License-Identifier: MIT
"""Everything that one server and its clients need, in a folder of its own."""

import base64
import os
import secrets
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

from tests.cli.support import run_here
from tests.e2e.certificates import Authority, Pair, make_authority
from tests.e2e.https import Client, client_context
from tests.e2e.processes import ServerProcess, program
from tests.e2e.tokens import mint
from tests.support import overriding

SECRETS = ("master-key", "hmac-key", "jwt-secret")
"""Files of 32 random bytes each, as base64."""


class Site:
    """
    Certificates, secrets, data and logs of one server.

    Args:
        folder: Made with mode 0700 if absent; everything lies below it.

        kind: Where keys, trail and approvals lie: ``filesystem`` or ``sqlite``.

    Attributes:
        trail_folder: Where trail and approvals lie; may be changed before a start.
    """

    def __init__(self, folder: Path, kind: str = "filesystem") -> None:
        self.kind = kind
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        self.data = self.trail_folder = folder / "data"
        self.logs = folder / "logs"
        self.logs.mkdir(mode=0o700)
        self.authority: Authority = make_authority(folder / "certificates")
        self.server_pair: Pair = self.authority.issue("server", server=True)
        self.client_pair: Pair = self.authority.issue("client", server=False)
        self.secrets: dict[str, bytes] = {}
        for name in SECRETS:
            self.write_secret(name, secrets.token_bytes(32))
        self.context: ssl.SSLContext = client_context(
            self.authority.bundle, self.client_pair
        )
        self._starts = 0

    @property
    def key_dir(self) -> Path:
        """Directory of the key store."""
        return self.data / "keys"

    @property
    def audit_log(self) -> Path:
        """Live file of the trail, or its database."""
        is_file = self.kind == "filesystem"
        return self.trail_folder / ("audit.log" if is_file else "audit.sqlite")

    @property
    def database(self) -> Path:
        """Database of the keys, where they are in one."""
        return self.data / "keys.sqlite"

    def secret_file(self, name: str) -> Path:
        """Return where a secret lies."""
        return self.folder / name

    def write_secret(self, name: str, value: bytes) -> None:
        """Write a secret to its file, as base64."""
        path = self.secret_file(name)
        path.touch(mode=0o600)
        path.write_text(base64.b64encode(value).decode() + "\n")
        self.secrets[name] = value

    def server_arguments(self) -> list[str]:
        """Return the flags of a server over this site's data; no secret is in them."""
        return [
            *("--bind", "127.0.0.1:0"),
            *("--cert", str(self.server_pair.certificate)),
            *("--key", str(self.server_pair.key)),
            *("--client-ca", str(self.authority.bundle)),
            *("--rate-limit-per-second", "0", "--address-limit-per-second", "0"),
            *("--lockout-after", "0"),
            *self._store_arguments(),
        ]

    def _store_arguments(self) -> list[str]:
        if self.kind == "filesystem":
            return [
                *("--key-dir", str(self.key_dir)),
                *("--audit-log", str(self.audit_log)),
                *("--approval-dir", str(self.audit_log.with_name("approvals"))),
            ]
        approvals = self.audit_log.with_name("approvals.sqlite")
        return [
            *("--key-store", "sqlite", "--sqlite-path", str(self.database)),
            *("--audit-store", "sqlite", "--audit-sqlite-path", str(self.audit_log)),
            *("--approval-store", "sqlite", "--approval-sqlite-path", str(approvals)),
        ]

    def environment(self) -> dict[str, str]:
        """Return an environment in which server and client find their secrets."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("FERROHSM_")
        }
        return kept | {
            "FERROHSM_MASTER_KEY": f"@{self.secret_file('master-key')}",
            "FERROHSM_HMAC_KEY": f"@{self.secret_file('hmac-key')}",
            "FERROHSM_JWT_SECRET": f"@{self.secret_file('jwt-secret')}",
        }

    def start(
        self,
        *arguments: str,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        pass_fds: Sequence[int] = (),
    ) -> ServerProcess:
        """
        Start a server and wait until it listens.

        Args:
            arguments: More flags; a repeated one takes the place of the site's.

            command: Program to run in the server's place, with the same flags.

            environment: In place of `environment`.

            wait: Whether to wait for the ready line.

            pass_fds: File descriptors that the server inherits.
        """
        self._starts += 1
        server = ServerProcess(
            [
                *(command or program("hsm-server")),
                *overriding([*self.server_arguments(), *arguments]),
            ],
            environment if environment is not None else self.environment(),
            self.logs / f"server-{self._starts:04d}.log",
            pass_fds,
        )
        if wait:
            server.wait_ready()
        return server

    def token(self, principal: str, *roles: str) -> str:
        """Return a bearer token that this site's server accepts for an hour."""
        return mint(self.secrets["jwt-secret"], principal, roles)

    def client(
        self, port: int, principal: str, *roles: str, timeout_seconds: float = 60.0
    ) -> Client:
        """Return a client of the server on *port*, who has these roles."""
        token = self.token(principal, *roles)
        return Client(port, self.context, token, timeout_seconds)

    def cli(
        self,
        port: int,
        *words: str,
        actor: str = "ada",
        roles: str = "operator",
        data: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the client in this process, with *data* on its input."""
        command = self.cli_words(port, *words, actor=actor, roles=roles)
        variables = environment if environment is not None else self.environment()
        with mock.patch.dict(os.environ, variables, clear=True):
            done = run_here(*command, stdin=data)
        return subprocess.CompletedProcess(
            command, done.code, done.out, done.err.encode()
        )

    def cli_words(
        self, port: int, *words: str, actor: str = "ada", roles: str = "operator"
    ) -> list[str]:
        """Return a command line of the client, without the program."""
        return [
            *("--endpoint", f"https://localhost:{port}"),
            *("--ca-bundle", str(self.authority.bundle)),
            *("--client-cert", str(self.client_pair.certificate)),
            *("--client-key", str(self.client_pair.key)),
            *("--actor", actor, "--roles", roles),
            *words,
        ]

    def verify_log(self, *, path: Path | None = None) -> None:
        """
        Verify the trail offline with the client.

        Raises:
            AssertionError: It is not whole.
        """
        with mock.patch.dict(os.environ, self.environment(), clear=True):
            done = run_here(
                *("audit", "verify", "--audit-path", str(path or self.audit_log)),
                *("--hmac-key", f"@{self.secret_file('hmac-key')}"),
            )
        if done.code:
            raise AssertionError(f"The trail does not verify: {done.text}{done.err}")
