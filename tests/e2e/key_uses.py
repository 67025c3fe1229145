# SPDX-License-Identifier: MIT
"""Makes keys of every algorithm on a running server, and does all that they can."""

import base64
from collections.abc import Mapping
from typing import Any

from hsm_core.algorithms import Algorithm, Family, KeyUsage, spec
from tests.e2e.https import Client

_TRANSPORT = "transport"
_MESSAGE = b"a message that is not secret"
_WRAP = frozenset({KeyUsage.WRAP, KeyUsage.UNWRAP})


class KeyUser:
    """
    Somebody who uses keys.

    Args:
        client: Of an operator.

        marker: At least 16 bytes that stand for everything that is encrypted.

    Attributes:
        client: May be replaced: a server closes what is idle for long.
        keys: Ids of the keys that were made, by name.
        passing: Secrets that pass through a front end, as they must, by name.
    """

    def __init__(self, client: Client, marker: bytes) -> None:
        self.client = client
        self._marker = marker
        self.keys: dict[str, str] = {}
        self.passing: dict[str, bytes] = {"plaintext": marker}
        self.create(_TRANSPORT, Algorithm.AES_256_KW, *_WRAP)

    def post(self, path: str, **body: object) -> dict[str, Any]:
        """Send an operation, and return its result; bytes go and come as base64."""
        plain = {name: _plain(value) for name, value in body.items()}
        answer = self.client.request("POST", f"/api/v1{path}", plain)
        assert answer.status in {200, 201}, (path, answer.body)
        result: dict[str, Any] = answer.json
        return result

    def create(self, name: str, algorithm: Algorithm, *usages: KeyUsage) -> None:
        """Make a key that may leave, wrapped."""
        given: Mapping[str, object] = {"usages": sorted(usages)} if usages else {}
        made = self.post(
            "/keys", algorithm=algorithm, name=name, exportable=True, **given
        )
        self.keys[name] = made["key_id"]

    def use_everything(self, algorithm: Algorithm, number: int) -> None:
        """Make the keys that show all that an algorithm can do, and do it."""
        row, name = spec(algorithm), f"{algorithm.lower()}-{number}"
        if row.default_usages - _WRAP - {KeyUsage.DERIVE}:
            self.create(name, algorithm)
            if row.family is not Family.AES:  # It has no REST route.
                self._use(name, row.default_usages)
            self.post(f"/keys/{name}/export", wrapping_key_id=_TRANSPORT)
        if KeyUsage.WRAP in row.usages:
            self.create(f"{name}-wraps", algorithm, *_WRAP)
            self._move(f"{name}-wraps", algorithm)
        if KeyUsage.DERIVE in row.usages:
            self.create(f"{name}-derives", algorithm, KeyUsage.DERIVE)
            self._derive(f"{name}-derives", has_peer=row.family is not Family.KDF)

    def rotate(self, name: str) -> None:
        """Make another version."""
        self.post(f"/keys/{name}/rotate")

    def revoke(self, name: str) -> None:
        """Let nobody use a key any more."""
        self.post(f"/keys/{name}/revoke", reason="for the sake of a test")

    def destroy(self, name: str) -> None:
        """Destroy a key."""
        answer = self.client.request("DELETE", f"/api/v1/keys/{self.keys[name]}")
        assert answer.status == 200, answer.body

    def _fail(self, path: str, **body: object) -> None:
        """Ask for what is refused, so that errors have had the key in their hands."""
        plain = {name: _plain(value) for name, value in body.items()}
        answer = self.client.request("POST", f"/api/v1{path}", plain)
        assert 400 <= answer.status < 500, (path, answer.body)

    def _use(self, name: str, usages: frozenset[KeyUsage]) -> None:
        self._fail(f"/keys/{name}/decrypt", ciphertext=_MESSAGE)
        if KeyUsage.SIGN in usages:
            made = self.post(f"/keys/{name}/sign", message=_MESSAGE)
            signature = base64.b64decode(made["signature"])
            self.post(f"/keys/{name}/verify", message=_MESSAGE, signature=signature)
            self._fail(f"/keys/{name}/verify", message=b"", signature=signature)
        if KeyUsage.MAC in usages:
            self.post(f"/keys/{name}/mac", message=_MESSAGE)
        if KeyUsage.ENCAPSULATE in usages:
            made = self.post(f"/keys/{name}/encapsulate")
            self.passing[f"secret of {name}"] = base64.b64decode(made["shared_secret"])
            self.post(f"/keys/{name}/decapsulate", ciphertext=made["ciphertext"])
            sealed = self.post(f"/keys/{name}/seal", plaintext=self._marker)
            self.post(f"/keys/{name}/open", ciphertext=sealed["ciphertext"])
        elif KeyUsage.ENCRYPT in usages:
            made = self.post(f"/keys/{name}/encrypt", plaintext=self._marker)
            self.post(f"/keys/{name}/decrypt", ciphertext=made["ciphertext"])
            made = self.post(f"/keys/{name}/data-key")
            self.passing[f"data key of {name}"] = base64.b64decode(made["plaintext"])

    def _move(self, name: str, algorithm: Algorithm) -> None:
        """Take a key out, wrapped, and in again as another one."""
        moved = Algorithm.AES_128_GCM
        if algorithm is Algorithm.RSA_2048:
            # It is too weak for anything else.
            moved = algorithm
        self.create(f"{name}-out", moved)
        made = self.post(f"/keys/{name}-out/export", wrapping_key_id=name)
        body = {"algorithm": moved, "wrapping_key_id": name, "name": f"{name}-in"}
        imported = self.post("/import", **body, wrapped=made["wrapped"])
        self.keys[f"{name}-in"] = imported["key_id"]
        self._fail("/import", **body, wrapped=_MESSAGE)

    def _derive(self, name: str, *, has_peer: bool) -> None:
        body: dict[str, object] = {"algorithm": "AES-256-GCM", "base_key_id": name}
        if has_peer:
            found = self.client.request("GET", f"/api/v1/keys/{name}/public-key")
            body["peer_public_key"] = found.json["der"]
        made = self.post("/derive", **body, name=f"{name}-derived")
        self.keys[f"{name}-derived"] = made["key_id"]


def _plain(value: object) -> object:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
