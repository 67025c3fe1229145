# SPDX-License-Identifier: MIT
"""What the processes of a server have and lack, seen from outside."""

import base64
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.settings import SCRUBBING_ALLOCATOR
from hsm_server.processes.spawn import HELD_SIGNALS
from tests.server.family import (
    Family,
    create,
    descriptors,
    environment,
    listening,
    retrying,
    status,
    wait_until,
)
from tests.server.process import MASTER, Running, Site
from tests.server.support import SECRET, b64
from tests.support import REPOSITORY, require_service

_HOSTILE = """
import sys
from pathlib import Path
with Path({marker!r}).open("a") as file:
    file.write(" ".join(sys.orig_argv[1:]) + "\\n")
"""
_OPEN_TO_ALL = (
    *(sys.executable, "-c"),
    "import os, resource, sys\n"
    "os.umask(0)\n"
    "_, hard = resource.getrlimit(resource.RLIMIT_CORE)\n"
    "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))\n"
    "os.execv(sys.argv[1], sys.argv[1:])",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Give a folder to serve from."""
    return Site(tmp_path_factory.mktemp("hardening"))


@pytest.fixture(scope="module")
def pipe() -> Iterator[tuple[int, int]]:
    """Give both ends of a pipe that the starter of the server has open."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture(scope="module")
def server(site: Site, pipe: tuple[int, int]) -> Iterator[Running]:
    """Give a server with two front ends, started in surroundings that are careless."""
    folder = site.folder / "cwd"
    folder.mkdir()
    with site.serve(
        *("--workers", "2"),
        before=_OPEN_TO_ALL,
        changes={
            "LD_PRELOAD": "libc.so.6",
            "HOSTILE": "1",
            "AWS_SECRET_ACCESS_KEY": MASTER,
            "SSL_CERT_FILE": str(folder / "nothing"),
            "SSL_CERT_DIR": str(folder),
            "SSLKEYLOGFILE": str(folder / "keys-of-sessions"),
            "LC_ALL": "C.UTF-8",
        },
        descriptors=pipe,
        cwd=folder,
    ) as running:
        create(running, "signer")
        yield running
        assert 0 == running.stop()


@pytest.fixture
def family(server: Running) -> Family:
    """Give its processes, all at work."""
    found = Family(server)
    wait_until(lambda: len(found.front_ends) == 2)
    assert 200 == retrying(server, "/api/v1/keys/signer").status
    return found


def _secrets() -> list[bytes]:
    """Return the secrets of these servers, as they are and as base64."""
    keys = [base64.b64decode(MASTER), b"\10" * 32]
    return [*keys, *(b64(key).encode() for key in keys), SECRET]


def test_no_environment_holds_more_than_it_must(family: Family) -> None:
    """Only what a program needs to run is handed on, and so no secret."""
    others = [pid for pid in family.everybody if pid != family.vault]
    found = {name for pid in others for name in environment(pid)}

    assert {"PATH", "LC_ALL"} == found
    assert {*found, *SCRUBBING_ALLOCATOR} == set(environment(family.vault))


def test_no_secret_stands_in_an_argument_or_variable(family: Family) -> None:
    """Whoever lists processes learns nothing."""
    shown = b"".join(
        Path(f"/proc/{pid}/{name}").read_bytes()
        for pid in family.everybody
        for name in ("cmdline", "environ")
    )

    assert [] == [secret for secret in _secrets() if secret in shown]


def test_no_file_is_open_to_others(site: Site, family: Family) -> None:
    """What is written is its owner's alone, though it was started with umask 000."""
    assert not site.folder.stat().st_mode & 0o077
    paths = list((site.folder / "data").rglob("*"))
    opened = [path for path in paths if path.stat().st_mode & 0o077]

    assert {"keys", "audit.log"} <= {path.name for path in paths}
    assert [] == opened


def test_every_process_has_given_up_what_it_can(family: Family) -> None:
    """No new privileges, no core files, a strict mask, and no look inside."""
    for pid in family.everybody:
        fields = status(pid)
        assert "1" == fields["NoNewPrivs"]
        assert "0077" == fields["Umask"]
        assert (0, 0) == resource.prlimit(pid, resource.RLIMIT_CORE)
        # Who can't be dumped belongs to root, whoever it is.
        assert 0 == Path(f"/proc/{pid}/fd").stat().st_uid
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        # The vault's variables are all ours, and say how memory is overwritten.
        assert {b"-I", b"-E", *([b"-P"] if pid == family.vault else [])} & set(
            arguments
        )


def test_front_ends_have_no_capabilities(family: Family) -> None:
    """Not even where the server was started by root; nor has the TLS manager."""
    found = {
        status(pid)[name]
        for pid in (family.tls_manager, *family.front_ends)
        for name in ("CapEff", "CapPrm", "CapAmb")
    }

    assert {"0000000000000000"} == found


def test_a_front_end_holds_neither_secrets_nor_stores(
    site: Site, server: Running, family: Family
) -> None:
    """It has the listening socket; box, trail and store are others' alone."""
    for pid in family.front_ends:
        found = set(descriptors(pid).values())
        assert listening(server.address[1]) <= found
        assert not [path for path in found if "ferrohsm-secrets" in path]
        assert not [
            path for path in found if path.startswith(str(site.folder / "data"))
        ]


def test_the_tls_manager_holds_neither_sockets_nor_secrets(
    site: Site, server: Running, family: Family
) -> None:
    """It speaks with the supervisor alone; box, trail and store are others'."""
    found = set(descriptors(family.tls_manager).values())

    assert not listening(server.address[1]) & found
    assert not [path for path in found if "ferrohsm-secrets" in path]
    assert not [path for path in found if path.startswith(str(site.folder / "data"))]


def test_the_vault_holds_no_listening_socket(
    site: Site, server: Running, family: Family
) -> None:
    """It has the trail; network and box are others'."""
    found = set(descriptors(family.vault).values())

    assert str(site.audit) in found
    assert not listening(server.address[1]) & found
    assert not [path for path in found if "ferrohsm-secrets" in path]


def test_no_inherited_descriptor_is_kept(family: Family, pipe: tuple[int, int]) -> None:
    """A pipe that the starter had open ends up with nobody."""
    inherited = {os.readlink(f"/proc/self/fd/{end}") for end in pipe}
    kept = {
        path
        for pid in family.everybody
        for path in descriptors(pid).values()
        if path in inherited
    }

    assert set() == kept


def test_no_process_counts_in_the_files_of_another(family: Family) -> None:
    """A forked process maps no file of metrics that is its parent's."""
    for pid in (family.tls_manager, *family.front_ends):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "_supervisor.db" not in maps


def test_memory_is_locked_as_the_log_says(site: Site, family: Family) -> None:
    """The vault locks its memory where it may, and tells."""
    told = [line for line in site.log() if line["event"] == "open"][-1]
    locked = int(status(family.vault)["VmLck"].split()[0])

    assert told["memory_locked"] == (locked > 0)


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
def test_a_crash_leaves_no_core_file(
    site: Site, server: Running, family: Family, number: signal.Signals
) -> None:
    """However a process ends, nothing of its memory comes to a disk, or a log."""
    vault, front_ends = family.vault, family.front_ends
    for pid in (vault, front_ends[0]):
        os.kill(pid, number)
    wait_until(lambda: not {vault, front_ends[0]} & set(family.everybody))
    answer = retrying(server, "/api/v1/keys/signer")

    assert 200 == answer.status
    assert [] == list((site.folder / "cwd").iterdir())
    told = (site.folder / "log").read_bytes()
    assert [] == [secret for secret in _secrets() if secret in told]


def test_signals_for_all_do_no_harm_to_a_child(server: Running, family: Family) -> None:
    """Children leave it to the supervisor what signals mean."""
    children = [family.vault, *family.front_ends]
    for pid in children:
        for number in HELD_SIGNALS:
            os.kill(pid, number)
    answers = [server.send("GET", "/api/v1/keys/signer").status for _ in range(5)]

    assert [200] * 5 == answers
    assert children == [family.vault, *family.front_ends]


def test_no_process_runs_foreign_code(site: Site, tmp_path: Path) -> None:
    """What PYTHONPATH names may run in the command, and in no process that follows."""
    marker = tmp_path / "marker"
    (tmp_path / "sitecustomize.py").write_text(_HOSTILE.format(marker=str(marker)))
    # A folder above the package is no harm: it is not what the package comes from.
    path = tmp_path, REPOSITORY
    command = str(Path(sys.executable).parent / "hsm-server")
    stores = (
        *("--key-dir", str(tmp_path / "keys")),
        *("--audit-log", str(tmp_path / "audit.log")),
        *("--approval-dir", str(tmp_path / "approvals")),
    )
    with subprocess.Popen(
        [command, *site.command(*stores)[4:]],
        env=site.environment(PYTHONPATH=os.pathsep.join(map(str, path))),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        process.terminate()
        assert 0 == process.wait(60)
    (line,) = marker.read_text().splitlines()

    assert command in line


_LARGE_BUFFERS = """
import sys
from pathlib import Path
from hsm_server.system.hardening import return_large_buffers
if sys.argv[1] == "returned":
    return_large_buffers()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
before, small = resident(), []
for _ in range(3):
    large = [b"x" * (16 * 2**20 + n) for n in range(2)]
    small.append(b"y" * 100_000)
    del large
print(resident() - before)
"""


@pytest.mark.parametrize(("how", "is_kept"), [("returned", False), ("kept", True)])
def test_large_buffers_go_back_to_the_system(how: str, is_kept: bool) -> None:
    """What a few large bodies took is not kept for ever, as it would be by itself."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _LARGE_BUFFERS, how],
        capture_output=True,
        check=True,
    )

    kept = int(done.stdout) * os.sysconf("SC_PAGE_SIZE")
    assert is_kept == (kept > 8 * 2**20)


_HOLES = """
import sys
from pathlib import Path
from hsm_server.system.hardening import give_back_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
pieces = [b"x" * (64 * 1024 + n) for n in range(1024)]
full = resident()
del pieces[::2]
if sys.argv[1] == "given":
    give_back_memory()
print(full - resident())
"""


@pytest.mark.parametrize(("how", "is_kept"), [("given", False), ("kept", True)])
def test_holes_go_back_to_the_system(how: str, is_kept: bool) -> None:
    """What is free between buffers in use is not kept, as it would be by itself."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _HOLES, how], capture_output=True, check=True
    )

    given = int(done.stdout) * os.sysconf("SC_PAGE_SIZE")
    assert is_kept == (given < 16 * 2**20)


_NEW_CODE = """
import mmap, os, subprocess, sys
from hsm_server.system.hardening import refuse_new_code
def is_refused():
    try:
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except PermissionError:
        return True
    return False
if len(sys.argv) == 2:
    refuse_new_code(also_children=sys.argv[1] == "also")
    print(is_refused(), flush=True)
    subprocess.run([sys.executable, "-c", sys.orig_argv[2], "a", "child"], check=True)
else:
    print(is_refused())
"""


@pytest.mark.parametrize("which", ["also", "alone"])
def test_new_code_is_refused(which: str) -> None:
    """What can be written is not executed; children that need it may be left out."""
    release = [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]]
    require_service("A kernel from 6.6 on", release >= [6, 6])
    done = subprocess.run(
        [sys.executable, "-c", _NEW_CODE, which],
        capture_output=True,
        text=True,
        check=True,
    )

    assert ["True", str(which == "also")] == done.stdout.split()
