# SPDX-License-Identifier: MIT
"""The server within what the files for systemd and containers leave it."""

from __future__ import annotations

import base64
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import ServerProcess, program
from tests.e2e.site import Site
from tests.support import REPOSITORY, require_mounts, require_program

DEPLOY = REPOSITORY / "examples" / "deploy"
WAIT_SECONDS = 60.0
READ_ONLY = """
mount --make-rprivate / &&
mount -t tmpfs -o mode=700 tmpfs "$1" &&
mount -o remount,bind,ro / &&
for place in /tmp /var/tmp /run; do
    mount --bind "$place" "$place" && mount -o remount,bind,ro "$place" || exit
done &&
cd / && mount -t tmpfs -o mode=700 tmpfs "$1" && shift && exec "$@"
"""
"""Run a command where nothing can be written but one folder and /dev/shm."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="Only root can do this.")


class OpenSite(Site):
    """A server that demands no certificate of its clients."""

    def server_arguments(self) -> list[str]:
        """See `Site.server_arguments`."""
        words = super().server_arguments()
        at = words.index("--client-ca")
        return words[:at] + words[at + 2 :]


def check_health(server: ServerProcess, **variables: str) -> int:
    """Run the health check of the image, and return its exit status."""
    bind = {"FERROHSM_BIND": f"0.0.0.0:{server.port}"}
    done = subprocess.run(
        [sys.executable, "-I", str(DEPLOY / "healthcheck.py")],
        env=os.environ | bind | variables,
        timeout=WAIT_SECONDS,
        check=False,
    )
    return done.returncode


def test_the_health_check_tells_a_server_from_none(site: Site) -> None:
    """It is content with a server that serves, and with no other."""
    bundle = str(site.authority.bundle)
    with site.start() as server:
        assert 0 == check_health(server, FERROHSM_CLIENT_CA=bundle)
        # This server refuses who has no certificate, which nobody told the check.
        assert 1 == check_health(server)
        assert 0 == server.stop()

    assert 1 == check_health(server, FERROHSM_CLIENT_CA=bundle)


def test_the_health_check_reads_the_answer(tmp_path: Path) -> None:
    """Where no certificate is demanded, what the server says of itself counts."""
    with OpenSite(tmp_path / "site").start() as server:
        assert 0 == check_health(server)
        for child in children_of(server.pid, "bootstrap.vault"):
            os.kill(child, signal.SIGSTOP)

        # The last answer is told again for a second.
        deadline = time.monotonic() + WAIT_SECONDS
        while check_health(server) == 0:
            assert time.monotonic() < deadline


def children_of(parent: int, module: str) -> list[int]:
    """Return the ids of child processes that run a module."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            above = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if int(above) == parent and module in command:
            found.append(int(folder.name))
    return found


def wait_for_another(parent: int, module: str, former: list[int]) -> list[int]:
    """Wait until a module runs in other processes than before; return their ids."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := children_of(parent, module)) or found == former:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def uid_of(process: int) -> int:
    """Return the user that a process runs as."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"^Uid:\s+(\d+)\s+\1\s+\1\s+\1$", status, re.MULTILINE)
    assert found, status
    return int(found[1])


@pytest.fixture
def shared_site() -> Iterator[Site]:
    """Give a server's place that other users can reach into."""
    folder = Path(tempfile.mkdtemp(prefix="ferrohsm-users-"))
    folder.chmod(0o711)
    yield Site(folder / "site")
    shutil.rmtree(folder)


def give_away(site: Site, vault: pwd.struct_passwd, front: pwd.struct_passwd) -> None:
    """Give each user what the guide says, and no more."""
    site.folder.chmod(0o711)
    site.data.mkdir(mode=0o700)
    for path in (site.data, *map(site.secret_file, site.secrets)):
        os.chown(path, vault.pw_uid, vault.pw_gid)
    os.chown(site.server_pair.key, front.pw_uid, front.pw_gid)
    for path in (site.server_pair.certificate, site.authority.bundle):
        path.chmod(0o644)
        path.parent.chmod(0o711)


def confined() -> list[str]:
    """Return how to run a program with the capabilities of the drop-in alone."""
    text = (DEPLOY / "separate-users.conf").read_text()
    found = re.search(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
    assert found
    names = [name.removeprefix("CAP_").lower() for name in found[1].split()]
    kept = ",".join(["-all", *(f"+{name}" for name in names)])
    setpriv = require_program("setpriv")
    return [setpriv, f"--bounding-set={kept}", f"--inh-caps={kept}", "--no-new-privs"]


def can_run_python(user: pwd.struct_passwd) -> bool:
    """Return whether a user can reach this environment, which may be in root's home."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", "import hsm_server"],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def ask(site: Site, server: ServerProcess, *words: str) -> int:
    """Run the client, whose secret belongs to nobody, and return its exit status."""
    secret = base64.b64encode(site.secrets["jwt-secret"]).decode()
    environment = site.environment() | {"FERROHSM_JWT_SECRET": secret}
    return site.cli(server.port, *words, environment=environment).returncode


@as_root
def test_separate_users_with_the_least_of_root(shared_site: Site) -> None:
    """With the drop-in's capabilities it serves, is restarted, and ends in order."""
    site = shared_site
    vault, front = pwd.getpwnam("daemon"), pwd.getpwnam("nobody")
    if not can_run_python(vault):
        pytest.skip("Other users can't run the Python of this environment.")
    give_away(site, vault, front)
    users = ("--vault-user", vault.pw_name, "--front-end-user", front.pw_name)

    with site.start(*users, command=[*confined(), *program("hsm-server")]) as server:
        (keys,) = children_of(server.pid, "bootstrap.vault")
        (tls,) = children_of(server.pid, "processes.tls_manager")
        fronts = children_of(server.pid, "processes.front_end")
        users_of = [uid_of(process) for process in (keys, tls, fronts[0])]
        assert [vault.pw_uid, front.pw_uid, front.pw_uid] == users_of
        assert 0 == ask(site, server, "create", "EC-P256")
        # A front end that hangs is another user's, and killed all the same.
        os.kill(fronts[0], signal.SIGSTOP)
        assert wait_for_another(server.pid, "processes.front_end", fronts)
        deadline = time.monotonic() + WAIT_SECONDS
        while ask(site, server, "list"):
            assert time.monotonic() < deadline
        assert 0 == server.stop()

    assert {vault.pw_uid} == {path.stat().st_uid for path in site.data.rglob("*")}


@pytest.fixture
def site_on_disk() -> Iterator[Site]:
    """Give a site that lies in no file system in memory, where all may write."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Site(Path(folder) / "site")


@as_root
def test_a_root_that_is_read_only(site_on_disk: Site) -> None:
    """Nothing is written but below the folder of keys and trail, and in memory."""
    require_mounts(why_not())
    site = site_on_disk
    site.data.mkdir(mode=0o700)
    shell = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(site.data)]

    with site.start(command=[*shell, *program("hsm-server")]) as server:
        assert 0 == site.cli(server.port, "create", "EC-P256").returncode
        there = Path(f"/proc/{server.pid}/root")
        with pytest.raises(OSError, match="Read-only"):
            (there / site.folder.relative_to("/") / "x").touch()
        assert 0 == server.stop()


def why_not() -> str:
    """Return why no file system can be mounted; empty if one can."""
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip()
