# SPDX-License-Identifier: MIT
"""
Calls of one `Session.sign`: Python functions and modules of the core on its path.

``python -m tests.tooling.calls`` prints them for an HSM in files, after a warm-up, in
the thread of the caller; with ``--all`` each function with the number of its calls.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from hsm_core.factory import open_hsm
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller


def calls_of(work: Callable[[], object]) -> Counter[tuple[str, str]]:
    """Return the core's functions that a call runs, by module and name."""
    found: Counter[tuple[str, str]] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        module = str(frame.f_globals.get("__name__"))
        if event == "call" and module.partition(".")[0] == "hsm_core":
            found[module, frame.f_code.co_qualname] += 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def calls_of_sign() -> Counter[tuple[str, str]]:
    """Return the calls of a signature with a P-256 key that was used before."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(key_dir=Path(folder) / "keys")
        with open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)) as hsm:
            session = Session(hsm.act_as(caller()))
            key_id = session.create_key("EC-P256").key_id
            for _ in range(3):
                session.sign(key_id, b"message")
            return calls_of(lambda: session.sign(key_id, b"message"))


def main() -> None:
    """Print the numbers, and each function if asked for."""
    found = calls_of_sign()
    modules = {module for module, _ in found}
    print(f"{found.total()} calls in {len(modules)} modules")  # noqa: T201 (output)
    if "--all" in sys.argv[1:]:
        for (module, name), count in found.items():
            print(f"{count:4} {module}.{name}")  # noqa: T201 (output)


if __name__ == "__main__":
    main()
