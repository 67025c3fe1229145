# SPDX-License-Identifier: MIT
"""SoftHSM2's token objects in a loop of C, so that no interpreter slows it."""

from __future__ import annotations

import ctypes
import os
import secrets
from functools import cache
from pathlib import Path
from typing import Final

from hsm_core.algorithms import Algorithm
from tests.bench.harness import Loop
from tests.bench.peers.native import AbsentError, compiled

_PLACES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/opt/softhsm/lib/softhsm/libsofthsm2.so",
)
_KINDS: Final = {
    Algorithm.RSA_2048: 0,
    Algorithm.RSA_4096: 1,
    Algorithm.EC_P256: 2,
    Algorithm.ED25519: 3,
    Algorithm.AES_256_GCM: 4,
}


class SoftHSM:
    """
    A token of its own in a folder, with one key of each algorithm when it is needed.

    A process can open one only, for PKCS #11 is initialised once.

    Args:
        folder: Where token and compiled loops are put.

    Raises:
        AbsentError: SoftHSM2 is not installed, or there is no compiler.
    """

    def __init__(self, folder: Path) -> None:
        module = next((place for place in _PLACES if Path(place).is_file()), None)
        if module is None:
            raise AbsentError("SoftHSM2 is not installed")
        self._library = compiled("softhsm_loops", folder, "dl")
        for name in ("open", "generate", "sign", "encrypt"):
            self._library[f"bench_{name}"].restype = ctypes.c_ulong
        tokens = folder / "tokens"
        tokens.mkdir(mode=0o700)
        settings = folder / "softhsm2.conf"
        settings.write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(settings)
        pin = secrets.token_hex(16).encode()
        _check(self._library["bench_open"](module.encode(), pin))
        self._key = cache(self._new_key)

    def signing(self, algorithm: Algorithm) -> Loop:
        """Return a loop that signs 32 bytes; for ECDSA they stand for a digest."""
        kind, key = _KINDS[algorithm], self._key(algorithm)

        def loop(times: int) -> None:
            sign = self._library["bench_sign"]
            _check(sign(kind, ctypes.c_ulong(key), ctypes.c_long(times)))

        return loop

    def encrypting(self, size: int) -> Loop:
        """Return a loop that encrypts so many bytes with AES-256-GCM."""
        key = self._key(Algorithm.AES_256_GCM)

        def loop(times: int) -> None:
            _check(
                self._library["bench_encrypt"](
                    ctypes.c_ulong(key), ctypes.c_long(size), ctypes.c_long(times)
                )
            )

        return loop

    def new_keys(self, algorithm: Algorithm) -> Loop:
        """Return a loop that makes keys which stay in the token."""

        def loop(times: int) -> None:
            for _ in range(times):
                self._new_key(algorithm)

        return loop

    def _new_key(self, algorithm: Algorithm) -> int:
        key = ctypes.c_ulong()
        _check(self._library["bench_generate"](_KINDS[algorithm], ctypes.byref(key)))
        return key.value


def _check(answer: int) -> None:
    if answer:
        raise RuntimeError(f"SoftHSM2 answered {answer:#x}.")
