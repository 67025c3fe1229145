# SPDX-License-Identifier: MIT
"""
A process with an HSM in it, which uses keys of every quick algorithm and then waits.

It is run with a folder and the number of opened keys to keep as arguments, and root and
audit key, as hex, in a line each of its input. It prints the name of each key in the
order in which they were used, then an empty line, and ends with its input.
"""

import sys
from pathlib import Path

from hsm_core import operations as ops
from hsm_core.algorithms import AESMode, Algorithm, Family, KeyUsage, spec
from hsm_core.factory import open_hsm
from hsm_core.model import Caller, Role
from hsm_core.protocols import HSM
from hsm_core.settings import Settings

_MESSAGE = b"a message"


def use(hsm: HSM, name: str, algorithm: Algorithm) -> None:
    """Do with a key what needs its private part."""
    row_usages = spec(algorithm).default_usages
    if KeyUsage.SIGN in row_usages:
        hsm.execute(ops.Sign(key_id=name, message=_MESSAGE))
    elif KeyUsage.MAC in row_usages:
        hsm.execute(ops.ComputeMac(key_id=name, message=_MESSAGE))
    elif KeyUsage.ENCAPSULATE in row_usages:
        sent = hsm.execute(ops.Encapsulate(key_id=name))
        hsm.execute(ops.Decapsulate(key_id=name, ciphertext=sent.ciphertext))
    elif spec(algorithm).family is Family.AES:
        mode, iv = AESMode.CTR, bytes(16)
        hsm.execute(ops.RawEncrypt(key_id=name, plaintext=_MESSAGE, mode=mode, iv=iv))
    elif KeyUsage.ENCRYPT in row_usages:
        made = hsm.execute(ops.Encrypt(key_id=name, plaintext=_MESSAGE))
        hsm.execute(ops.Decrypt(key_id=name, ciphertext=made.ciphertext))
    elif KeyUsage.WRAP in row_usages:
        other = ops.CreateKey(
            algorithm=Algorithm.AES_128_KW, name=f"{name}-out", exportable=True
        )
        hsm.execute(other)
        hsm.execute(ops.ExportKey(key_id=f"{name}-out", wrapping_key_id=name))
    else:
        new = ops.DeriveKey(
            algorithm=Algorithm.AES_256_GCM, base_key_id=name, name=f"{name}-derived"
        )
        hsm.execute(new)


def main() -> None:
    """Use keys, and wait."""
    folder, entries = Path(sys.argv[1]), int(sys.argv[2])
    master_key, hmac_key = (bytes.fromhex(sys.stdin.readline()) for _ in range(2))
    settings = Settings(
        key_dir=folder / "keys",
        audit_log=folder / "audit.log",
        key_cache_entries=entries,
    )
    roles = frozenset({Role.OPERATOR, Role.ADMINISTRATOR})
    caller = Caller(principal="ada", roles=roles)
    with open_hsm(settings, master_key=master_key, hmac_key=hmac_key) as gateway:
        hsm = gateway.act_as(caller)
        for algorithm in Algorithm:
            row = spec(algorithm)
            if row.family is Family.SLH_DSA or row.family is Family.ECDH:
                continue
            name = algorithm.lower()
            hsm.execute(ops.CreateKey(algorithm=algorithm, name=name))
            use(hsm, name, algorithm)
            sys.stdout.write(f"{name}\n")
        sys.stdout.write("\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
