# SPDX-License-Identifier: MIT
"""Modules that are not loaded, or not before they are used."""

import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import sys
from pathlib import Path
from hsm_core.factory import open_hsm
from hsm_core.settings import Settings
folder = Path(sys.argv[1])
settings = Settings(store=f"sqlite:{folder}/s")
open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32), test_all=False).close()
rooms = ("_internal.cluster", "assembly.cluster", "postgresql")
print(*sorted(n for n in sys.modules if any(room in n for room in rooms)))
print(*sorted(n for n in sys.modules if n.startswith("psycopg")))
"""


def test_one_machine_loads_nothing_of_a_cluster(tmp_path: Path) -> None:
    """What only nodes need costs others no memory and no time at start."""
    (tmp_path / "s").mkdir(mode=0o700)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("package", "late"),
    [("model", "Approval"), ("operations", "Sign"), ("algorithms", "ALGORITHMS")],
)
def test_what_is_loaded_late_is_exported(package: str, late: str) -> None:
    """Who imports all names gets those, too, that are loaded on first use."""
    program = f"from hsm_core.{package} import *; {late}"
    subprocess.run([sys.executable, "-c", program], check=True)
