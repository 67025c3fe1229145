# SPDX-License-Identifier: MIT
"""
A program that signs in children of its own, and ends or forks in a way that is tested.

Usage: ``python -m tests.core.pqcrypto_parent SCENARIO``. Prints the process ids of its
children, and what became of the signatures.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._providers.pqcrypto.pool import WorkerPool
from hsm_core._providers.pqcrypto.provider import PqcryptoProvider, worker_command
from hsm_core.algorithms import Algorithm
from hsm_core.protocols import KeyHandle

QUICK = Algorithm.SLH_DSA_SHA2_128F
SLOW = Algorithm.SLH_DSA_SHAKE_192S


def say(*words: object) -> None:
    """Print one line at once."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def handle(pool: WorkerPool, algorithm: Algorithm) -> KeyHandle:
    """Return a new key pair."""
    provider = PqcryptoProvider(pool)
    return provider.load(algorithm, provider.generate(algorithm, SystemEntropy()))


def sign(key: KeyHandle) -> int:
    """Sign and verify, and return the signature's length."""
    parameters = signature_parameters(key.algorithm)
    signature = key.sign(b"message", parameters)
    key.verify(b"message", signature, parameters)
    return len(signature)


def busy(pool: WorkerPool) -> None:
    """Print the child's id while it computes."""
    key = handle(pool, SLOW)
    threading.Thread(target=lambda: sign(key), daemon=True).start()
    time.sleep(0.1)
    say(*pool.pids())


def fork(pool: WorkerPool) -> None:
    """Sign here, in a process that was forked off, and here again."""
    key = handle(pool, QUICK)
    before = pool.pids()
    child = os.fork()
    if not child:
        say("forked", sign(key), before != pool.pids())
        pool.close()
        os._exit(0)
    os.waitpid(child, 0)
    say("here", sign(key), before == pool.pids())


def main(scenario: str) -> None:
    """Run a scenario."""
    pool = WorkerPool(worker_command)
    if scenario == "fork":
        fork(pool)
    elif scenario == "busy":
        busy(pool)
        sys.stdin.read()
    elif scenario == "busy-exit":
        busy(pool)
    else:
        sign(handle(pool, QUICK))
        say(*pool.pids())
        if scenario == "idle":
            sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
