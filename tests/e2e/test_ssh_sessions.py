# SPDX-License-Identifier: MIT
"""OpenSSH logs in over forwarded agents: the agent learns it, and decides by key."""

import getpass
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

import hsm_core
from tests.support import free_port, require_program, require_service

SSHD = Path("/usr/sbin/sshd")
SECONDS = 60


@contextmanager
def running(
    words: list[str],
    log: Path,
    is_ready: Callable[[], object],
    environment: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Run a program until the block ends."""
    with log.open("wb") as file:
        process = _start(words, file, environment)
        try:
            deadline = time.monotonic() + SECONDS
            while not is_ready():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)


def _start(
    words: list[str], log: IO[bytes], environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
        cwd=Path(log.name).parent,
    )


class Site:
    """An agent with an HSM in its process, and an sshd that trusts its keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "run" / "agent.sock"
        self.agent_log = folder / "agent.log"
        require_program("ssh")
        require_service("OpenSSH's server", SSHD.exists())
        root = folder / "root.key"
        with hsm_core.open(folder / "hsm", root=root, create=True) as hsm:
            ada = hsm.as_user("ada", roles=["administrator"])
            ada.create("Ed25519", name="staying", tags=["ssh-login"])
            ada.create("Ed25519", name="roaming", tags=["ssh-login", "ssh-forward"])

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run agent and server."""
        hsm = ("--embedded", str(self.folder / "hsm"))
        root = ("--root-key", str(self.folder / "root.key"))
        user = ("--actor", "ada", "--roles", "operator")
        agent = [sys.executable, "-m", "hsm_cli", *user, "ssh-agent", *hsm, *root]
        agent += ["--socket", str(self.socket)]
        with running(agent, self.agent_log, self.socket.exists):
            self._write_files()
            log = self.folder / "sshd.log"
            sshd = [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")]
            with running(sshd, log, lambda: b"listening" in log.read_bytes()):
                yield

    def _write_files(self) -> None:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        host = self.folder / "host"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host)],
            check=True,
            timeout=SECONDS,
        )
        keys = self.run("ssh-add", "-L").stdout
        for line in keys.splitlines():
            (self.folder / f"{line.split()[2]}.pub").write_text(f"{line}\n")
        (self.folder / "authorized_keys").write_text(keys)
        public = host.with_suffix(".pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {host}\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\n"
            "PidFile none\n"
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program that uses the agent."""
        return subprocess.run(
            words,
            env={"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": str(self.socket)},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    def ssh(self, key: str) -> list[str]:
        """Return a command that logs in with one key, and forwards the agent."""
        return [
            *("ssh", "-A", "-F", "none", "-p", str(self.port)),
            *("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={self.folder}/known_hosts"),
            *("-i", str(self.folder / f"{key}.pub")),
            f"{getpass.getuser()}@127.0.0.1",
        ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give agent and server while they run."""
    site = Site(tmp_path_factory.mktemp("ssh"))
    with site.serving():
        yield site


@pytest.mark.parametrize("key", ["staying", "roaming"])
def test_the_next_host_is_reached_with_a_key_that_roams(site: Site, key: str) -> None:
    """
    A host that has the forwarded agent logs in further with keys tagged ssh-forward.
    """
    further = shlex.join([*site.ssh(key), "echo arrived"])

    found = site.run(*site.ssh(key), f"echo first; {further}")

    expected = "first\narrived\n" if key == "roaming" else "first\n"
    assert found.stdout == expected, found.stderr
    logins = site.agent_log.read_text().count(f"{key}: login as ")
    assert logins == (2 if key == "roaming" else 1)  # the other key is not even listed


def test_files_are_not_signed_for_another_host(site: Site) -> None:
    """
    What a host asks for over the forwarded agent is refused by its kind first.
    """
    sign = f"echo text | ssh-keygen -Y sign -n file -f {site.folder}/roaming.pub"

    found = site.run(*site.ssh("roaming"), sign)

    assert "SSH SIGNATURE" not in found.stdout
    assert "the key has no tag ssh-sign:file" in site.agent_log.read_text()
