# SPDX-License-Identifier: MIT
"""
Has sslyze hold the listener against Mozilla's modern profile, on both event loops.

Run as a program, with the path of sslyze: it needs an older cryptography than the
server does, and so lives in an environment of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import hsm_server.tls.openssl  # noqa: F401 (before other users of cryptography)
from tests.pki import SERVER, self_signed_root
from tests.server.tls_support import serving, state_of


def scan(sslyze: str, kind: str) -> None:
    """
    Scan a server on one loop.

    Raises:
        SystemExit: It does not keep to the profile; what differs is printed.
    """
    root = self_signed_root("Root")
    state = state_of(root.issue("localhost", use=SERVER).pair)
    with tempfile.TemporaryDirectory() as folder, serving(state, kind) as server:
        bundle, _ = root.write(Path(folder), "root")
        done = subprocess.run(
            [
                *(sslyze, "--mozilla_config=modern"),
                *(f"--certinfo_ca_file={bundle}", f"localhost:{server.port}"),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    _, _, verdict = done.stdout.partition("COMPLIANCE AGAINST TLS CONFIGURATION")
    sys.stdout.write(f"{kind}:{verdict or done.stdout + done.stderr}\n")
    if done.returncode or "OK - Compliant." not in verdict:
        raise SystemExit(1)


if __name__ == "__main__":
    for loop in ("asyncio", "uvloop"):
        scan(sys.argv[1], loop)
