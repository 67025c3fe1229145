# SPDX-License-Identifier: MIT
"""
What a program does with an HSM over the network, step by step.

Where the server is and who asks stands in the environment; see the README beside this.
"""

from __future__ import annotations

import os
import sys
import uuid
from typing import Final

from ferrohsm import ApprovalPendingError, Client, ProblemError, decode, encode

__all__ = ["main"]

_NEEDED: Final = ("FERROHSM_ENDPOINT", "FERROHSM_AUTH_TOKEN", "FERROHSM_CA_BUNDLE")
_CERTIFICATE: Final = ("FERROHSM_CLIENT_CERT", "FERROHSM_CLIENT_KEY")
_HYBRID: Final = "MLKEM768-X25519-SHA3-256"
_APPROVAL_SECONDS: Final = 300.0


def main() -> int:
    """Take the tour; return 0 if everything was as it should."""
    where = os.environ
    if missing := [name for name in _NEEDED if not where.get(name)]:
        sys.stderr.write(f"Set {' and '.join(missing)}; the README here shows how.\n")
        return 2
    shown = [where[name] for name in _CERTIFICATE if where.get(name)]
    if len(shown) == 1:
        sys.stderr.write(f"Set both {' and '.join(_CERTIFICATE)}, or neither.\n")
        return 2
    client = Client(
        where["FERROHSM_ENDPOINT"],
        where["FERROHSM_AUTH_TOKEN"],
        ca_bundle=where["FERROHSM_CA_BUNDLE"],
        certificate=(shown[0], shown[1]) if shown else None,
    )
    run = uuid.uuid4().hex[:8]
    try:
        sign(client, run)
        encrypt(client, run)
        encapsulate(client, run)
        walk(client, run)
        destroy(client, run)
    except ProblemError as problem:
        sys.stderr.write(f"{problem.code}: {problem}\n")
        return 1
    finally:
        client.close()
    return 0


def sign(client: Client, run: str) -> None:
    """Sign, verify, and see that another message does not pass."""
    new = {"algorithm": "Ed25519", "name": f"tour-sign-{run}", "tags": [run]}
    key = client.change("/keys", new).body["key_id"]
    message = encode(b"release 1.0")
    made = client.use(f"/keys/{key}/sign", {"message": message})
    signature = made.body["signature"]
    client.use(f"/keys/{key}/verify", {"message": message, "signature": signature})
    print(f"signed; the record in the trail has the request id {made.request_id}")
    other = {"message": encode(b"release 6.6"), "signature": signature}
    try:
        client.use(f"/keys/{key}/verify", other)
    except ProblemError as problem:
        print(f"another message: {problem.code}")
    else:
        raise AssertionError("A wrong signature was taken for a good one.")


def encrypt(client: Client, run: str) -> None:
    """Encrypt, rotate, and decrypt what the older version encrypted."""
    new = {"algorithm": "AES-256-GCM", "name": f"tour-aes-{run}", "tags": [run]}
    # Sent twice under one idempotency key, as after an answer that was lost.
    first = client.change("/keys", new, idempotency_key=f"create-{run}").body
    again = client.change("/keys", new, idempotency_key=f"create-{run}").body
    if first["key_id"] != again["key_id"]:
        raise AssertionError("One request made two keys.")
    path, aad = f"/keys/{first['key_id']}", encode(b"box 7")
    sealed = client.use(
        f"{path}/encrypt", {"plaintext": encode(b"treasure"), "aad": aad}
    ).body
    client.change(f"{path}/rotate", {})
    opened = client.use(
        f"{path}/decrypt", {"ciphertext": sealed["ciphertext"], "aad": aad}
    ).body
    print(f"decrypted after a rotation: {decode(opened['plaintext']).decode()}")


def encapsulate(client: Client, run: str) -> None:
    """Agree on a secret with a hybrid key: an attacker must break both halves."""
    new = {"algorithm": _HYBRID, "name": f"tour-kem-{run}", "tags": [run]}
    path = f"/keys/{client.change('/keys', new).body['key_id']}"
    ours = client.use(f"{path}/encapsulate", {}).body
    theirs = client.use(f"{path}/decapsulate", {"ciphertext": ours["ciphertext"]}).body
    if ours["shared_secret"] != theirs["shared_secret"]:
        raise AssertionError("The two sides have different secrets.")
    length = len(decode(ours["shared_secret"]))
    print(f"{_HYBRID}: both sides have the same {length} bytes")


def walk(client: Client, run: str) -> None:
    """List keys two at a time."""
    names = [key["name"] for key in client.pages(tags=run, per_page=2)]
    print(f"{len(names)} keys, newest first: {', '.join(names)}")


def destroy(client: Client, run: str) -> None:
    """Destroy a key; where policy asks for it, wait for others to agree."""
    path = f"/keys/tour-sign-{run}"
    try:
        client.delete(path)
    except ApprovalPendingError as pending:
        number = pending.approval["approval_id"]
        print(f"waiting for approval {number}", flush=True)
        state = client.wait(pending.approval, _APPROVAL_SECONDS)
        if state != "granted":
            raise SystemExit(f"The approval is {state}.") from None
        client.delete(path)
    print("destroyed")


if __name__ == "__main__":
    sys.exit(main())
