# SPDX-License-Identifier: MIT
"""The units of the interfaces for programs, for the systemd of a user."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import Shell
from tests.support import REPOSITORY, require_program

UNITS = REPOSITORY / "examples" / "deploy" / "user"
PROGRAM = "/usr/local/bin/hsm-cli"
INTERFACES = ("pkcs11", "ssh-agent")


def value(unit: str, key: str) -> str:
    """Return what a unit says under a key that it holds once."""
    (found,) = re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("interface", INTERFACES)
def test_the_service_runs_the_command(interface: str, shell: Shell) -> None:
    """The command exists; the socket is the default one, private to the user."""
    program, *words = shlex.split(value(f"ferrohsm-{interface}.service", "ExecStart"))
    socket = f"ferrohsm-{interface}.socket"

    assert shell(*words, "--help").text.startswith(f"Usage: hsm-cli {' '.join(words)} ")
    assert (PROGRAM, interface) == (program, words[0])
    assert f"%t/ferrohsm/{interface}.sock" == value(socket, "ListenStream")
    assert ("0600", "0700") == (
        value(socket, "SocketMode"),
        value(socket, "DirectoryMode"),
    )


@pytest.mark.parametrize("interface", INTERFACES)
def test_systemd_takes_the_units(interface: str, tmp_path: Path) -> None:
    """No unit has a key or value that systemd doesn't know."""
    program = tmp_path / "hsm-cli"
    program.touch(mode=0o755)
    names = [f"ferrohsm-{interface}.{kind}" for kind in ("socket", "service")]
    for name in names:
        text = (UNITS / name).read_text()
        (tmp_path / name).write_text(text.replace(PROGRAM, str(program)))

    done = subprocess.run(
        [require_program("systemd-analyze"), "--no-pager", "--user", "verify"]
        + [str(tmp_path / name) for name in names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )

    assert (0, "") == (done.returncode, done.stderr)
