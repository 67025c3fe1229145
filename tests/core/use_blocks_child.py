# SPDX-License-Identifier: MIT
"""
A program whose children encrypt with one key until they kill themselves.

Usage: ``python -m tests.core.use_blocks_child FOLDER KIND FIRST LAST``. Each child
opens the HSM, and dies by SIGKILL after a number of steps that its own number gives: a
step is a use, or a failpoint of a counter. What it has used is in the file ``used``, a
line each: the material, and how often it was used by then.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Final
from unittest.mock import patch

from hsm_core._internal.assembly.assembly import Parts, assemble
from hsm_core._internal.keyring.use_counters import Use, UseAccounts, UseRules
from hsm_core._internal.lib.failpoints import install
from hsm_core.factory import OpenHSM
from hsm_core.settings import Settings
from tests.core.changed_stores import DATA, Data, session_on
from tests.core.filesystem_child import die
from tests.core.forked import was_killed

LIMIT: Final = 400
_RULES: Final = UseRules(limit_of=lambda _: LIMIT, first_uses=2, most_uses=8)
_MOST_STEPS: Final = 14


def opened(data: Data) -> OpenHSM:
    """Open an HSM whose keys may be used so often."""

    def assemble_few(settings: Settings, parts: Parts) -> OpenHSM:
        return assemble(settings, replace(parts, use_rules=_RULES))

    with patch("hsm_core.factory.assemble", assemble_few):
        return data.open()


def use_until_killed(data: Data, number: int) -> None:
    """Encrypt, write down each use, and die."""
    left = Random(number).randint(1, _MOST_STEPS)
    used = os.open(data.folder.parent / "used", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    real = UseAccounts.take

    def step(name: str) -> None:
        nonlocal left
        left -= name.startswith("uses.")
        if left <= 0:
            die()

    def take(accounts: UseAccounts, use: Use, *, at_once: bool = False) -> None:
        real(accounts, use, at_once=at_once)
        material = use.version.material_id
        count = accounts._accounts[material].counts().uses  # noqa: SLF001
        os.write(used, f"{material} {count}\n".encode())
        step("uses.taken")

    with install(step), patch.object(UseAccounts, "take", take):
        session = session_on(opened(data))
        while True:
            session.encrypt("key", b"m")


def main(folder: str, kind: str, first: str, last: str) -> None:
    """Make one child after the other."""
    (data,) = (each(Path(folder)) for each in DATA if each.kind.value == kind)
    for number in range(int(first), int(last)):
        killed = was_killed(partial(use_until_killed, data, number))
        assert killed


if __name__ == "__main__":
    main(*sys.argv[1:])
