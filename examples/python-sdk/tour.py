# SPDX-License-Identifier: MIT
"""
What a program does with an HSM on a server, step by step.

Where the server is and who asks stands in the environment or in a connection profile;
see the README beside this.
"""

from __future__ import annotations

import sys
import uuid
from typing import Final

import hsm_client
from hsm_core import User
from hsm_core.operations import Encapsulate

__all__ = ["main"]

_HYBRID: Final = "MLKEM768-X25519-SHA3-256"
_APPROVAL_SECONDS: Final = 300.0


def main() -> int:
    """Take the tour; return 0 if everything was as it should."""
    run = uuid.uuid4().hex[:8]
    try:
        with hsm_client.connect(wait_seconds=_APPROVAL_SECONDS, notify=tell) as hsm:
            sign(hsm, run)
            encrypt(hsm, run)
            encapsulate(hsm, run)
            walk(hsm, run)
            destroy(hsm, run)
    except hsm_client.HSMError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1
    return 0


def tell(note: str) -> None:
    """Print a note at once, because somebody is waited for."""
    print(note, flush=True)


def sign(hsm: User, run: str) -> None:
    """Sign, verify, and see that another message does not pass."""
    key = hsm.create("Ed25519", name=f"tour-sign-{run}", tags=[run])
    signature = key.sign(b"release 1.0")
    print(f"signed by {key.name}, version {key.verify(b'release 1.0', signature)}")
    try:
        key.verify(b"release 6.6", signature)
    except hsm_client.InvalidSignature as error:
        print(f"another message: {error.code}")
    else:
        raise AssertionError("A wrong signature was taken for a good one.")


def encrypt(hsm: User, run: str) -> None:
    """Encrypt, rotate, and decrypt what the older version encrypted."""
    key = hsm.create("AES-256-GCM", name=f"tour-aes-{run}", tags=[run])
    ciphertext = key.encrypt(b"treasure", aad=b"box 7")
    key.rotate()
    plaintext = key.decrypt(ciphertext, aad=b"box 7")
    print(f"decrypted after a rotation: {plaintext.decode()}")


def encapsulate(hsm: User, run: str) -> None:
    """Agree on a secret with a hybrid key: an attacker must break both halves."""
    key = hsm.create(_HYBRID, name=f"tour-kem-{run}", tags=[run])
    # Any operation of the reference can be executed, with or without a method.
    ours = hsm.execute(Encapsulate(key_id=key.id))
    theirs = key.decapsulate(ours.ciphertext)
    if ours.shared_secret != theirs:
        raise AssertionError("The two sides have different secrets.")
    print(f"{_HYBRID}: both sides have the same {len(theirs)} bytes")


def walk(hsm: User, run: str) -> None:
    """List keys."""
    names = [key.name for key in hsm.keys(tags=[run])]
    print(f"{len(names)} keys, newest first: {', '.join(names)}")


def destroy(hsm: User, run: str) -> None:
    """Destroy a key; where the policy requires approval, wait for it."""
    key = hsm.key(f"tour-sign-{run}").destroy()
    print(key.state)


if __name__ == "__main__":
    sys.exit(main())
