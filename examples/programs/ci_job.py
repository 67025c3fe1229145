# SPDX-License-Identifier: MIT
"""
Job of a build pipeline: sign the checksums of everything in a folder.

    python3 ci_job.py dist

writes dist/SHA256SUMS, dist/SHA256SUMS.sig and dist/release.pem, and checks the result
as a customer does: with the public key alone. It exits with 1 if anything is wrong.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

import hsm_core
from hsm_core import HSMError, Key, User

SUMS, SIGNATURE, PUBLIC = "SHA256SUMS", "SHA256SUMS.sig", "release.pem"


def checksums(folder: Path) -> bytes:
    """Return the lines of ``sha256sum`` for each file of a release."""
    files = sorted(p for p in folder.iterdir() if p.suffix in {".whl", ".gz", ".deb"})
    if not files:
        raise FileNotFoundError(f"{folder} holds no .whl, .gz or .deb file.")
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}" for p in files]
    return "\n".join([*lines, ""]).encode()


def sign(key: Key, folder: Path) -> None:
    """Sign the checksums, and write the public key beside them."""
    sums = checksums(folder)
    (folder / SUMS).write_bytes(sums)
    (folder / SIGNATURE).write_bytes(key.sign(sums))
    (folder / PUBLIC).write_text(key.public_key().pem)


def check(folder: Path) -> None:
    """Verify the signature without the HSM; a wrong one raises InvalidSignature."""
    public = load_pem_public_key((folder / PUBLIC).read_bytes())
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise TypeError("The release key is an EC key.")
    signature = (folder / SIGNATURE).read_bytes()
    public.verify(signature, (folder / SUMS).read_bytes(), ec.ECDSA(SHA256()))


def run(user: User, folder: Path) -> None:
    """Sign and check a folder."""
    key = user.create("EC-P256", name="ci-release", exist_ok=True)
    sign(key, folder)
    check(folder)
    print(f"signed by {key!r}")


def main(folder: Path) -> int:
    """Return 0 if the folder is signed and the signature verifies."""
    try:
        if "FERROHSM_ENDPOINT" in os.environ:
            import hsm_client

            with hsm_client.connect() as user:
                run(user, folder)
        else:
            with hsm_core.open("keys", root="root.key", create=True) as hsm:
                run(hsm.as_user("ci", roles=["operator"]), folder)
    except (HSMError, OSError) as error:
        print(f"not signed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
