# SPDX-License-Identifier: MIT
"""
Fuzzes one target, guided by coverage; it does not return.

``python -m tests.fuzzing.child TARGET SLOWEST`` takes the options of libFuzzer after
it, the folder of the corpus last: seeds are written there by this process, for they go
with the keys that it has made. SLOWEST is a file: the input that took most processor
time is written there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["hsm_cli", "hsm_client", "hsm_core", "hsm_server"],
    enable_loader_override=False,
):
    import hsm_server.tls.openssl  # noqa: F401 (before anything loads cryptography)
    from tests.fuzzing.catalogue import all_targets


def main(name: str, slowest: Path, options: list[str]) -> None:
    """Fuzz one target until libFuzzer has done what its options say."""
    target = all_targets()[name]
    for number, content in enumerate(target.seeds):
        Path(options[-1], f"seed-{number}").write_bytes(content)
    longest = 0.0

    def run(data: bytes) -> None:
        nonlocal longest
        begin = time.thread_time()
        target.read(data)
        passed = time.thread_time() - begin
        if passed > longest:
            longest = passed
            slowest.write_bytes(data)

    atheris.Setup([sys.argv[0], *options], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
