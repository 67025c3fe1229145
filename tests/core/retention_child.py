# SPDX-License-Identifier: MIT
"""
A process that sweeps over a store.

Usage: ``python -m tests.core.retention_child FOLDER KEY_STORE SECONDS [PLACE]``. It
opens what lies there, with clocks that go ahead by so many seconds, and prints
``open``, or ``locked`` and ends. It sweeps until the policy is believed and once by it,
and prints ``swept`` or the code of what was raised. At a failpoint named *PLACE* it
prints ``at`` and waits for a line. At the end it waits for a line too.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from hsm_core._internal.lib.failpoints import install
from hsm_core.errors import HSMError, StoreLockedError
from tests.core.ripe_material import MovedClock, adopt_policy, open_at, settings_of


def say(word: str) -> None:
    """Print a word at once."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(folder: Path, key_store: str, seconds: float, place: str = "") -> None:
    """Sweep."""

    def wait(name: str) -> None:
        if name == place:
            say("at")
            sys.stdin.readline()

    clock = MovedClock(seconds)
    with ExitStack() as stack:
        stack.enter_context(install(wait))
        try:
            gateway = stack.enter_context(
                open_at(settings_of(folder, key_store), clock)
            )
        except StoreLockedError:
            say("locked")
            return
        say("open")
        try:
            adopt_policy(gateway, clock)
            say("swept")
        except HSMError as error:
            say(error.code)
        sys.stdin.readline()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), *sys.argv[4:])
