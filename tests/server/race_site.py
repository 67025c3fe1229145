# SPDX-License-Identifier: MIT
"""A server in processes of its own, sixteen connections to it, and who governs it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from hsm_core.rest import API_PREFIX
from tests.core.race_support import CROWD, OPEN, Refused
from tests.pki import Issuer, self_signed_root
from tests.server.family import wait_until
from tests.server.pem_files import pem
from tests.server.process import Running, Site, client_context
from tests.server.support import b64, claims
from tests.server.token_kit import Signer, signer, write_config

USERS: Final = "ES256"
"""Names the key of the tokens of who uses keys."""

ADMINS: Final = "HS256"
MESSAGE: Final = b64(b"m" * 100)
_addresses = count(1)


def new_address() -> str:
    """Return an address of this machine that nobody has connected from."""
    number = next(_addresses)
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


class Clients:
    """
    An authority of client certificates, and the list of those it has revoked.

    Args:
        folder: Where its files are.

        issuer: The authority.

        listed: Issuer of the list, if it is not written as in the certificates.
    """

    def __init__(
        self,
        folder: Path,
        issuer: Issuer | None = None,
        listed: x509.Name | None = None,
    ) -> None:
        self._issuer = issuer or self_signed_root("Clients")
        self._listed = listed
        self._folder = folder
        self._revoked: list[Any] = []
        self.ca, self.crl = folder / "clients.pem", folder / "clients.crl"
        self.ca.write_bytes(pem(self._issuer.certificate))
        self._publish()

    def issue(self, name: str) -> tuple[Any, tuple[Path, Path]]:
        """Return a new certificate, and its files."""
        issued = self._issuer.issue(name)
        return issued, issued.write(self._folder, name)

    def revoke(self, *clients: Any) -> None:
        """Let the list name more."""
        self._revoked += [client.certificate for client in clients]
        self._publish()

    def restore(self, *clients: Any) -> None:
        """Let the list name these no more."""
        for client in clients:
            self._revoked.remove(client.certificate)
        self._publish()

    def _publish(self) -> None:
        new = self._folder / "new.crl"
        lists = self._issuer.revocation_list(*self._revoked, issuer=self._listed)
        new.write_bytes(lists)
        new.replace(self.crl)


class Connection:
    """
    One connection that stays open.

    Args:
        server: Where it leads.

        context: Whom to trust, and what to show.

        token: What is shown with each request.

        address: Where it comes from.
    """

    def __init__(
        self, server: Running, context: ssl.SSLContext, token: str, address: str
    ) -> None:
        self._line = http.client.HTTPSConnection(
            *server.address, context=context, timeout=60, source_address=(address, 0)
        )
        self.token = token
        self.answered: list[str] = []

    def open(self) -> None:
        """Connect, and ask for nothing."""
        self._line.connect()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """
        Send a request, and return what is answered.

        Raises:
            Refused: It is a problem, or nothing: ``closed``.
        """
        headers = {"Authorization": f"Bearer {self.token}"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body), "application/json"
        return self._ask(
            lambda: self._line.request(method, API_PREFIX + path, data, headers)
        )

    def _ask(self, send: Callable[[], None]) -> Any:
        try:
            send()
            response = self._line.getresponse()
            read = response.read()
        except (OSError, http.client.HTTPException):
            self._line.close()
            raise Refused("closed") from None
        found = json.loads(read)
        if response.status >= 300:
            raise Refused(str(found["code"]))
        self.answered.append(response.headers["X-Request-Id"])
        return found

    def sign(self, key: str) -> None:
        """Use a key."""
        self.ask("POST", f"/keys/{key}/sign", {"message": MESSAGE})

    def sign_slowly(self, key: str, meanwhile: Callable[[], None]) -> None:
        """Use a key, and do something before the second half of the request is sent."""
        data = json.dumps({"message": MESSAGE}).encode()

        def send() -> None:
            self._line.putrequest("POST", f"{API_PREFIX}/keys/{key}/sign")
            self._line.putheader("Authorization", f"Bearer {self.token}")
            self._line.putheader("Content-Type", "application/json")
            self._line.putheader("Content-Length", str(len(data)))
            self._line.endheaders(data[:8])
            meanwhile()
            self._line.send(data[8:])

        self._ask(send)

    def close(self) -> None:
        """End it."""
        self._line.close()


class RaceSite:
    """
    A server that reads its files again when it is told to, or soon.

    Args:
        site: Where it lies.

        clients: Whose certificates it lets in.

        server: It runs.
    """

    def __init__(self, site: Site, clients: Clients, server: Running) -> None:
        self._site = site
        self.clients = clients
        self.server = server
        self._admin = self.connect(_admin_token(), "127.0.0.1")

    def connect(
        self, token: str, address: str, shown: tuple[Path, Path] | None = None
    ) -> Connection:
        """Return a connection with a token, and a certificate if it is given."""
        context = client_context(self._site.authority, shown)
        return Connection(self.server, context, token, address)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask as the administrator, again if the connection had been ended."""
        # Many trials take longer than a token lives.
        self._admin.token = _admin_token()
        try:
            return self._admin.ask(method, path, body)
        except Refused as refused:
            if refused.code != "closed":
                raise
            return self._admin.ask(method, path, body)

    def close(self) -> None:
        """End the administrator's connection."""
        self._admin.close()

    def create(self) -> str:
        """Make a key, and return its id."""
        return str(self.ask("POST", "/keys", {"algorithm": "p256"})["key_id"])

    def put_policy(self, policy: str) -> None:
        """Put a policy in force, and return when it is."""
        before = self.ask("GET", "/policy")["policy"]
        (self._site.folder / "policy.yaml").write_text(policy)
        self.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: before != self.ask("GET", "/policy")["policy"])

    def trust(self, *signers: Signer) -> None:
        """Let the file of token keys hold these, beside the administrator's."""
        _write_keys(self._site.folder, *signers)
        self.server.process.send_signal(signal.SIGHUP)

    def head(self) -> int:
        """Return the number of the newest record."""
        return int(self.ask("GET", "/status")["audit"]["head_seq"])

    def uses_since(self, seq: int, end: str = "") -> tuple[set[str], list[str]]:
        """
        Return the ids of the requests of the crowd that are on record as done.

        Args:
            seq: The record behind which they stand.

            end: The kind of the record behind which none may stand.

        Returns:
            All of them; and those behind that record.
        """
        found, behind, ended = set[str](), list[str](), False
        at: int | None = seq + 1
        while at is not None:
            path = f"/audit/events?ascending=true&limit=1000&start_seq={at}"
            page = self.ask("GET", path)
            for entry in page["items"]:
                event = entry["event"]
                who = event.get("caller") or {}
                if who.get("principal") == CROWD and event["code"] == "ok":
                    found.add(event["request_id"])
                    behind += [event["kind"]] if ended else []
                is_done = (event["phase"], event["code"]) != ("intent", "ok")
                ended = ended or (event["kind"] == end and is_done)
            at = page["next_seq"]
        assert ended or not end
        return found, behind


def token_of(who: Signer, **changes: Any) -> str:
    """Return a token of the crowd, or of whom the changes say."""
    said = claims(**{"sub": CROWD, "iat": int(time.time()) - 5, **changes})
    kid = ADMINS if isinstance(who.key, bytes) else None
    header = {"alg": who.algorithm} | ({"kid": kid} if kid else {})
    return who.token_of(header, said)


def _admin_token() -> str:
    return token_of(signer(ADMINS), sub="admin")


def _write_keys(folder: Path, *signers: Signer) -> Path:
    sections = [signer(ADMINS).section(ADMINS)]
    sections += [one.section(f"user-{at}") for at, one in enumerate(signers)]
    return write_config(folder / "jwt.json", sections)


@contextlib.contextmanager
def race_site(folder: Path, kind: str) -> Iterator[RaceSite]:
    """Run a server with keys and trail in files or in SQLite."""
    site, clients = Site(folder), Clients(folder)
    policy = folder / "policy.yaml"
    policy.write_text(OPEN)
    policy.chmod(0o600)
    config = _write_keys(folder, signer(USERS))
    more = ["--key-store", kind]
    if kind == "sqlite":
        more += ["--sqlite-path", str(folder / "data/keys.sqlite")]
        more += ["--audit-store", "sqlite"]
        more += ["--audit-sqlite-path", str(folder / "data/audit.sqlite")]
    with site.serve(
        *more,
        *("--policy-config", str(policy), "--audit-sync", "bounded"),
        *("--auth-jwt-config", str(config), "--auth-jwt-leeway-secs", "0"),
        *("--client-auth", "optional", "--lockout-after", "20"),
        *("--client-ca", str(clients.ca), "--client-crl", str(clients.crl)),
    ) as server:
        racing = RaceSite(site, clients, server)
        with contextlib.closing(racing):
            yield racing
        assert 0 == server.stop()
