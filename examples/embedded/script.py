# SPDX-License-Identifier: MIT
"""
An HSM inside a script: keys in a folder, a trail beside them, no server.

    python3 script.py FOLDER FILE

signs FILE with a key that is made on the first run, and writes FILE.sig. Keys and trail
lie in FOLDER/data, the two secrets that open them in FOLDER/secrets: a backup must not
hold both.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from hsm_core.errors import KeyNotFoundError
from hsm_core.factory import open_hsm
from hsm_core.model import Caller, Role
from hsm_core.session import Session
from hsm_core.settings import KeyStoreKind, Settings

__all__ = ["main"]


def main(folder: Path, file: Path) -> None:
    """Sign a file."""
    data, secrets_folder = folder / "data", folder / "secrets"
    for place in (folder, data, secrets_folder):
        place.mkdir(mode=0o700, exist_ok=True)
    settings = Settings(
        key_store=KeyStoreKind.FILESYSTEM,
        key_dir=data / "keys",
        audit_log=data / "audit.log",
    )
    caller = Caller(principal="build", roles=frozenset({Role.OPERATOR}))
    with open_hsm(
        settings,
        master_key=_secret(secrets_folder / "master-key"),
        hmac_key=_secret(secrets_folder / "hmac-key"),
    ) as gateway:
        session = Session(gateway.act_as(caller))
        try:
            key = session.describe("release").key_id
        except KeyNotFoundError:
            key = session.create_key("ML-DSA-65", name="release").key_id
        made = session.sign(key, file.read_bytes())
        session.verify(key, file.read_bytes(), made.signature)
    file.with_name(file.name + ".sig").write_bytes(made.signature)
    print(f"{file.name} signed by version {made.version} of {made.key_id}")


def _secret(path: Path) -> bytes:
    """Return a secret of 32 bytes, made if there is none."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(secrets.token_bytes(32))
    return path.read_bytes()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
