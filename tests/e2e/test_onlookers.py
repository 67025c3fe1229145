# SPDX-License-Identifier: MIT
"""Nobody looks into a server's processes, neither while they run nor when they die."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.memory import require_memory
from tests.e2e.processes import ServerProcess, program
from tests.e2e.site import Site
from tests.support import require_program

FLAGS = ("--isolation", "process", "--workers", "2")
NOBODY = 65534

LOOK = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid, seen = int(sys.argv[1]), []
for name in ("mem", "environ", "maps", "auxv"):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            if name != "mem":
                file.read(1)
        seen.append(name)
    except PermissionError:
        pass
if libc.ptrace(16, pid, None, None) == 0:
    seen.append("ptrace")
print(*seen)
"""


def wait_for_end(pid: int) -> None:
    """Wait until a process is gone, or only its exit status is left."""
    for _ in range(3000):
        try:
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return
        if status[0] == "Z":
            return
        time.sleep(0.01)
    raise TimeoutError(f"Process {pid} does not end.")


@pytest.fixture
def cores(tmp_path: Path) -> Path:
    """Give a folder in which a process that dies badly leaves its memory, or skip."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" in pattern or pattern.startswith("|"):
        pytest.skip(f"Core files go elsewhere: {pattern}.")
    folder = tmp_path / "cores"
    folder.mkdir()
    subprocess.run([*unlimited(folder), "sh", "-c", "kill -SEGV $$"], check=False)
    found = list(folder.iterdir())
    if not found:
        pytest.skip("This machine writes no core files.")
    for file in found:
        file.unlink()
    return folder


def unlimited(folder: Path) -> list[str]:
    """Return how to run a program in a folder, with core files of any size."""
    script = 'cd "$0" && ulimit -c unlimited && exec "$@"'
    return ["sh", "-c", script, str(folder)]


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
def test_no_process_leaves_a_core_file(
    site: Site, cores: Path, number: signal.Signals
) -> None:
    """
    Whichever process dies badly, no core file is written, even where limits allow it.
    """
    command = [*unlimited(cores), *program("hsm-server")]

    with site.start(*FLAGS, command=command) as server:
        for kind in ("front1", "tls", "vault", "supervisor"):
            pid = server.processes()[kind]
            os.kill(pid, number)
            wait_for_end(pid)
            if kind != "supervisor":
                wait_for_all(server)

    assert [] == list(cores.iterdir())


def wait_for_all(server: ServerProcess) -> None:
    """Wait until whatever has died was started again."""
    for _ in range(3000):
        if len(server.processes()) == 5:
            return
        time.sleep(0.01)
    raise TimeoutError("There are not all processes again.")


def test_core_files_have_no_room(site: Site) -> None:
    """
    No process of a server may write a core file, or raise that limit again.
    """
    require_memory()
    with site.start(*FLAGS) as server:
        limits = {
            kind: resource.prlimit(pid, resource.RLIMIT_CORE)
            for kind, pid in server.processes().items()
        }

    assert {"supervisor", "vault", "tls", "front1", "front2"} == limits.keys()
    assert {(0, 0)} == set(limits.values())


@pytest.fixture
def open_site() -> Iterator[Site]:
    """Give a site in a folder that every user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Site(Path(folder) / "site")


def powerless(uid: int) -> list[str]:
    """Return how to run a program as a user without any capability, or skip."""
    ids = ("--reuid", str(uid), "--regid", str(uid), "--clear-groups")
    command = [
        *(require_program("setpriv"), *ids, "--inh-caps=-all", "--bounding-set=-all"),
        # Only what a shell starts has lost them all.
        *("sh", "-c", 'exec "$0" "$@"'),
    ]
    tried = [*command, sys.executable, "-I", "-c", "import hsm_server"]
    if subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip(f"User {uid} may not read this Python environment.")
    return command


@pytest.mark.parametrize("uid", [0, NOBODY])
def test_same_user_sees_nothing(open_site: Site, uid: int) -> None:
    """
    A process of the server's own user can neither read its memory nor trace it.
    """
    require_memory()
    user = powerless(uid)
    for path in (open_site.folder, *open_site.folder.rglob("*")):
        shutil.chown(path, uid, uid)

    def looks(pid: int) -> list[str]:
        look = [*user, sys.executable, "-I", "-c", LOOK, str(pid)]
        done = subprocess.run(look, capture_output=True, check=True, text=True)
        return done.stdout.split()

    with subprocess.Popen([*user, "sleep", "600"]) as usual:
        time.sleep(0.5)
        shown = looks(usual.pid)
        usual.kill()
    with open_site.start(*FLAGS, command=[*user, *program("hsm-server")]) as server:
        seen = {kind: looks(pid) for kind, pid in server.processes().items()}
        uids = {uid_of(pid) for pid in server.processes().values()}

    if "mem" not in shown:
        pytest.skip("On this machine, users may not look into their own processes.")
    kinds = ("supervisor", "vault", "tls", "front1", "front2")
    assert {kind: [] for kind in kinds} == seen
    assert {uid} == uids


def uid_of(pid: int) -> int:
    """Return the user of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[1])
    raise AssertionError("A process has a user.")
