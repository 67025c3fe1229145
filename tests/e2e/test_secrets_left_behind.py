# SPDX-License-Identifier: MIT
"""After a session nothing secret lies about: not in files, not in what was printed."""

import base64
import hmac
import json
import os

import pytest

from tests.e2e.leaks import find, sealed_secrets
from tests.e2e.processes import ServerProcess
from tests.e2e.site import SECRETS, Site

HYBRID = "MLKEM768-ECDH-P256-SHA3-256"
ALGORITHMS = (
    *("AES-256-GCM", "HMAC-SHA-256", "Ed25519", "EC-P256", "RSA-2048"),
    *("ML-DSA-44", "ML-KEM-768", "HKDF-SHA-256", HYBRID),
)
MARKERS = {
    "plaintext": b"marker: the plaintext of a letter",
    "aad": b"marker: what is authenticated beside it",
    "message": b"marker: the message that is signed",
    "sealed": b"marker: a message for a hybrid key",
    "item": b"marker: one of many in a batch",
    "malformed": b"marker: inside a body that is broken",
    "password": b"marker: in the query, where it is not wanted",
}


class Session:
    """Does a little of everything, and keeps what was printed."""

    def __init__(self, site: Site, server: ServerProcess) -> None:
        self._site = site
        self._server = server
        self._home = site.folder / "home"
        self._home.mkdir()
        self.printed: dict[str, bytes] = {}
        self.received: dict[str, bytes] = {}
        self.tokens = {
            "good token": site.token("ada", "operator", "auditor"),
            "bad token": site.token("ada", "operator")[:-4] + "AAAA",
        }

    def cli(self, *words: str, data: bytes = b"") -> bytes:
        """Run the client; keep its standard error, and return the rest."""
        environment = self._site.environment() | {"HOME": str(self._home)}
        done = self._site.cli(
            self._server.port,
            *words,
            roles="operator,administrator",
            data=data,
            environment=environment,
        )
        self.printed[f"stderr of {' '.join(words)[:40]}"] = done.stderr
        return done.stdout

    def use_every_algorithm(self) -> None:
        """Make keys, use them, change them, and make mistakes with them."""
        for algorithm in ALGORITHMS:
            name = algorithm.lower()
            self.printed[name] = self.cli("create", algorithm, "--name", name)
            self.printed[f"{name} 2"] = self.cli("rotate", name, "--json")
        aad = ("--aad", MARKERS["aad"].decode(), "--in", "-", "--out", "-")
        sealed = self.cli("encrypt", "aes-256-gcm", *aad, data=MARKERS["plaintext"])
        opened = self.cli("decrypt", "aes-256-gcm", *aad, data=sealed)
        assert MARKERS["plaintext"] == opened
        self.cli("decrypt", "aes-256-gcm", "--in", "-", data=sealed)
        for name in ("ed25519", "ec-p256", "rsa-2048"):
            message = ("--in", "-", "--json")
            answer = self.cli("sign", name, *message, data=MARKERS["message"])
            self.printed[f"signature {name}"] = answer
        self.cli("sign", "aes-256-gcm", "--in", "-", data=MARKERS["message"])
        self.cli("mac", "hmac-sha-256", "--in", "-", data=MARKERS["message"])
        self.cli("destroy", "hmac-sha-256", "--yes")

    def agree_on_secrets(self) -> None:
        """Get shared secrets and data keys, and give keys that were made elsewhere."""
        for name in ("ml-kem-768", HYBRID.lower()):
            made = json.loads(self.cli("encapsulate", name, "--json"))
            secret = base64.b64decode(made["shared_secret"])
            taken = self.cli("decapsulate", name, made["ciphertext"], "--out", "-")
            assert secret == taken
            self.received[f"shared secret of {name}"] = secret
            sealed = self.cli("seal", name, "--in", "-", data=MARKERS["sealed"])
            self.cli("open", name, sealed.decode().strip())
            self.printed[f"sealed to {name}"] = sealed
        wrapped = json.loads(self.cli("data-key", "aes-256-gcm", "--json"))
        self.received["data key"] = base64.b64decode(wrapped["plaintext"])
        self.printed["rewrapped"] = self.cli(
            "rewrap", "aes-256-gcm", wrapped["ciphertext"]
        )
        item = {"plaintext": base64.b64encode(MARKERS["item"]).decode()}
        batch = ("encrypt", "aes-256-gcm", "--batch", "-")
        self.printed["batch"] = self.cli(*batch, data=json.dumps(item).encode())

    def move_keys(self) -> None:
        """Import a seed, wrapped here, derive a key, and export one."""
        self.cli("create", "RSA-3072", "--name", "transport", "--usage", "wrap,unwrap")
        seed = os.urandom(32)
        self.received["imported seed"] = seed
        wrapping = ("--wrapping-key", "transport")
        new = ("--algorithm", "ML-DSA-65", "--format", "seed", "--name", "imported")
        self.printed["import"] = self.cli("import", "-", *new, *wrapping, data=seed)
        bad = ("--algorithm", "ML-DSA-65", "--wrapped", *wrapping)
        self.cli("import", "-", *bad, data=seed)
        derived = ("AES-256-GCM", "--from", "hkdf-sha-256", "--name", "derived")
        self.printed["derive"] = self.cli("derive", *derived)
        self.cli("create", "EC-P256", "--name", "leaves", "--exportable")
        self.printed["export"] = self.cli("export", "leaves", *wrapping)

    def make_mistakes(self) -> None:
        """Send what is refused before it becomes an operation."""
        path = "/api/v1/keys/ed25519/sign"
        broken = b'{"message": "' + MARKERS["malformed"] + b'", "message": 1'
        wrong = json.dumps({"message": MARKERS["malformed"].decode()}).encode()
        query = "?password=" + MARKERS["password"].decode().replace(" ", "+")
        for name, token in self.tokens.items():
            headers = {
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
            }
            with self._site.client(self._server.port, "ada", "operator") as client:
                for number, body in enumerate((broken, wrong)):
                    answer = client.request("POST", path, body, headers)
                    assert 400 <= answer.status < 500
                    self.printed[f"refusal {name} {number}"] = answer.body
                answer = client.request("GET", "/api/v1/keys" + query, None, headers)
                self.printed[f"query {name}"] = answer.body

    def look_around(self) -> None:
        """Ask for everything that the server tells of itself."""
        with self._site.client(self._server.port, "grace", "auditor") as client:
            for path in ("/healthz", "/metrics", "/api/v1/status", "/api/v1/keys"):
                self.printed[path] = client.request("GET", path).body
            events = client.request("GET", "/api/v1/audit/events?limit=1000")
            self.printed["events"] = events.body


def places(site: Site, session: Session) -> dict[str, bytes]:
    """Return all that was printed, and every file but those that we wrote."""
    found = dict(session.printed)
    for folder in (site.data, site.logs, site.folder / "home"):
        for path in folder.rglob("*"):
            if path.is_file():
                found[str(path.relative_to(site.folder))] = path.read_bytes()
    return found


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_nothing_is_left_behind(site: Site, end: str) -> None:
    """
    No key, token, secret or payload is in a stored file, a log, an answer or a message.
    """
    with site.start("--log-level", "debug") as server:
        session = Session(site, server)
        session.use_every_algorithm()
        session.agree_on_secrets()
        session.move_keys()
        session.make_mistakes()
        session.look_around()
        if end == "stop":
            assert 0 == server.stop()
    keys = sealed_secrets(site.key_dir, site.secrets["master-key"])
    tokens = {name: token.encode() for name, token in session.tokens.items()}
    signatures = {
        f"signature of {name}": base64.urlsafe_b64decode(token[-43:] + "=")
        for name, token in session.tokens.items()
    }
    secrets = {name: site.secrets[name] for name in SECRETS}

    looked_at = places(site, session)

    found_keys = {name.partition(" v")[0] for name in keys}
    assert {name.lower() for name in ALGORITHMS} - {"hmac-sha-256"} | {
        *("transport", "imported", "derived", "leaves"),
    } == found_keys
    assert {"imported v1 seed"} == {
        name for name, key in keys.items() if key == session.received["imported seed"]
    }
    for name in ("import", "derive", "export", "rewrapped", "batch"):
        assert session.printed[name], name
    assert len(looked_at) > 40
    wanted = keys | tokens | signatures | secrets | MARKERS | session.received
    assert [] == find(wanted, looked_at)


@pytest.mark.parametrize("before", range(4))
def test_search_sees_through_disguise(before: int) -> None:
    """
    A secret is found raw, as hex, and as base64 with anything beside it.
    """
    secret = os.urandom(32)
    stuff = os.urandom(before)
    places = {
        "raw": stuff + secret,
        "hex": stuff + secret.hex().encode(),
        "capitals": secret.hex().upper().encode(),
        "base64": base64.b64encode(stuff + secret + stuff),
        "base64url": base64.urlsafe_b64encode(stuff + secret + stuff),
        "decimal": str(int.from_bytes(secret)).encode(),
        "elsewhere": os.urandom(1000),
    }

    found = {line.rpartition(" in ")[2] for line in find({"secret": secret}, places)}

    assert places.keys() - {"elsewhere"} == found


def test_opened_secrets_are_real(site: Site) -> None:
    """
    What is searched for are the keys themselves: a ring that is theirs opens them.
    """
    with site.start() as server:
        with site.client(server.port, "ada", "operator") as client:
            body = {"algorithm": "HMAC-SHA-256", "name": "real"}
            client.request("POST", "/api/v1/keys", body)
            message = {"message": base64.b64encode(b"hello").decode()}
            answer = client.request("POST", "/api/v1/keys/real/mac", message).json
        assert 0 == server.stop()

    ((name, key),) = sealed_secrets(site.key_dir, site.secrets["master-key"]).items()

    assert "real v1 key" == name
    assert hmac.digest(key, b"hello", "sha256") == base64.b64decode(answer["mac"])
