# SPDX-License-Identifier: MIT
"""
A program whose pairs of children use one key on one database until they die.

Usage: ``python -m tests.core.postgresql_uses_child URL JOURNAL ROUNDS``. Each child
counts uses, writes each of them into the journal, and dies by SIGKILL after a number of
steps that its own number gives, or ends once nothing is left. A step is a use, or a
failpoint of a counter.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

from hsm_core._internal.keyring.use_counters import UseRules
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.postgresql.connection import read_location
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.use_counters import PostgresUseCounters
from hsm_core.errors import StoreUnavailableError, UseLimitError
from tests.core.filesystem_child import die
from tests.core.uses_support import KEY, accounts_over, use

LIMIT: Final = 600
RULES: Final = UseRules(limit_of=lambda _: LIMIT, first_uses=2, most_uses=8)
_MOST_STEPS: Final = 60


def use_until_killed(url: str, journal: Path, number: int) -> None:
    """Use the key, write down each use, and die."""
    random = Random(number)
    left = random.randint(1, _MOST_STEPS)
    used = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def step(name: str) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            die()

    accounts = accounts_over(
        PostgresUseCounters(ClusterDatabase(read_location(url))), rules=RULES
    )
    with install(step):
        while True:
            wanted = random.randint(1, 4)
            try:
                accounts.take(use(wanted))
            except StoreUnavailableError:
                continue
            os.write(used, f"{wanted}\n".encode())
            step("taken")


def main(url: str, journal: str, rounds: str) -> None:
    """Make one pair of children after the other."""
    first_value(url)  # It also loads the driver, once for all children.
    for number in range(0, 2 * int(rounds), 2):
        children = [_begun(url, Path(journal), number + each) for each in range(2)]
        for child in children:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status in {0, -signal.SIGKILL}


def _begun(url: str, journal: Path, number: int) -> int:
    child = os.fork()
    if not child:
        try:
            with suppress(UseLimitError):
                use_until_killed(url, journal, number)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def first_value(url: str) -> None:
    """Store the first value of the key's material."""
    database = ClusterDatabase(read_location(url))
    accounts_over(PostgresUseCounters(database), rules=RULES).open(KEY, KEY.versions)
    database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
