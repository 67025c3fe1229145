# SPDX-License-Identifier: MIT
"""
A server that kills itself when it reaches a named point for the Nth time.

It serves as hsm-server does, with a handler at the failpoints of the core, which only
code in the same process can install, and with small segments of the trail::

    dying_server.py POINT N FLAG...
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

import hsm_server.tls.openssl  # noqa: F401 (before anything else of cryptography)
from hsm_core._internal.lib.failpoints import install
from hsm_core.secret_input import read_secret
from hsm_server.bootstrap.inline import serve
from hsm_server.commands.serve import serve as command
from hsm_server.config.loading import settings_from
from hsm_server.config.settings import Secrets
from hsm_server.system.sockets import bind

_SEGMENT_BYTES: Final = 32 * 1024


def dying_at(point: str, times: int) -> Callable[[str], None]:
    """Return a handler that kills this process at the *times*-th pass of *point*."""
    passes = itertools.count(1)

    def handle(name: str) -> None:
        if name == point and next(passes) == times:
            os.kill(os.getpid(), signal.SIGKILL)

    return handle


def run(flags: Sequence[str]) -> None:
    """Serve with the flags of hsm-server."""
    values = command.make_context("serve", list(flags)).params
    settings = settings_from(values)
    core = msgspec.structs.replace(settings.core, audit_segment_bytes=_SEGMENT_BYTES)
    master_key, hmac_key, jwt_secret = (
        read_secret(values[name], field=name, minimum=32, exact=None)
        for name in ("master_key", "hmac_key", "auth_jwt_secret")
    )
    serve(
        msgspec.structs.replace(settings, core=core),
        Secrets(master_key=master_key, hmac_key=hmac_key, jwt_secret=jwt_secret),
        lambda: [bind(*settings.bind)],
        on_ready=_announce,
        read_token_secret=lambda: jwt_secret,
    )


def _announce(url: str) -> None:
    sys.stdout.write(f"hsm-server: listening on {url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with install(dying_at(sys.argv[1], int(sys.argv[2]))):
        run(sys.argv[3:])
