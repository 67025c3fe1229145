# SPDX-License-Identifier: MIT
"""
Sign files with a key that never leaves the HSM.

    python3 script.py FILE...

writes FILE.sig beside each file, and the public key as release.pem. The key is created
on the first run. Without a server, the HSM is in the folder ``keys``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hsm_core
from hsm_core import User


@contextmanager
def open_user() -> Iterator[User]:
    """Give the HSM of a server if there is one, else the one in this folder."""
    if "FERROHSM_ENDPOINT" in os.environ:
        import hsm_client

        with hsm_client.connect() as user:
            yield user
    else:
        with hsm_core.open("keys", root="root.key", create=True) as hsm:
            yield hsm.as_user("build", roles=["operator"])


def main(files: list[str]) -> None:
    """Sign files."""
    with open_user() as user:
        key = user.create("ML-DSA-65", name="release", exist_ok=True)
        for name in files:
            content = Path(name).read_bytes()
            signature = key.sign(content)
            key.verify(content, signature)
            Path(f"{name}.sig").write_bytes(signature)
            print(f"{name} signed by {key.name}, version {key.version}")
        Path("release.pem").write_text(key.public_key().pem)


if __name__ == "__main__":
    main(sys.argv[1:])
