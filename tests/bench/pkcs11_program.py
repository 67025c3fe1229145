# SPDX-License-Identifier: MIT
"""
A program that signs over PKCS#11, in a process of its own, for one can open one token.

Arguments are the compiled loop and the module. It prints ``ready`` when it has signed;
each line of its input is a number of signatures, after which it prints their seconds.
"""

import ctypes
import sys
import time

_WARM_UP = 50


def main(loop: str, module: str) -> None:
    """Sign as often as a number comes."""
    library = ctypes.CDLL(loop)
    library["bench_open"].restype = library["bench_sign"].restype = ctypes.c_ulong
    _check(library["bench_open"](module.encode()))
    _check(library["bench_sign"](ctypes.c_long(_WARM_UP)))
    _tell("ready")
    for line in sys.stdin:
        began = time.perf_counter()
        _check(library["bench_sign"](ctypes.c_long(int(line))))
        _tell(str(time.perf_counter() - began))


def _check(answer: int) -> None:
    if answer:
        raise SystemExit(f"PKCS#11 answered {answer:#x}.")


def _tell(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
