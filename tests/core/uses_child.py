# SPDX-License-Identifier: MIT
"""
A program that counts uses and is killed while it does.

Usage: ``python -m tests.core.uses_child FOLDER``. For each changing call of the file
system that eight uses make, a child kills itself with SIGKILL before it. What it
answered by then is the length of the file ``answers-N``, its store is ``store-N``.
Prints the number of stores.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from tests.core.filesystem_child import die
from tests.core.filesystem_support import CHANGES, FaultyOS, patched
from tests.core.forked import was_killed
from tests.core.uses_support import KEY, accounts_over, use

_USES = 8


def count(folder: Path, nth: int) -> None:
    """Make uses, and write each down as answered."""
    store = FilesystemKeyStore(folder / f"store-{nth}")
    accounts = accounts_over(store.uses)
    accounts.open(KEY, KEY.versions)
    answers = os.open(folder / f"answers-{nth}", os.O_WRONLY | os.O_CREAT)
    with patched(FaultyOS(lambda name, args: die(), nth, nth, CHANGES)):
        for _ in range(_USES):
            accounts.take(use(1, 5))
            os.write(answers, b".")


def main(folder: Path) -> int:
    """Make all stores and return their number."""
    nth = 1
    while was_killed(lambda n=nth: count(folder, n)):  # type: ignore[misc]
        nth += 1
    return nth


if __name__ == "__main__":
    sys.stdout.write(str(main(Path(sys.argv[1]))))
