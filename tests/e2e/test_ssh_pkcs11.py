# SPDX-License-Identifier: MIT
"""OpenSSH uses keys over PKCS#11: a certificate authority, and the key of a server."""

import getpass
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hsm_core
from tests.e2e.test_ssh_sessions import SECONDS, SSHD, running
from tests.support import free_port, require_program, require_service

MODULES = Path("/usr/lib")
pytestmark = pytest.mark.skipif(
    "FERROHSM_PROGRAMS" not in os.environ, reason="nox -s programs runs it"
)


class Site:
    """A token with two keys, and p11-kit's module that finds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "run" / "pkcs11.sock"
        require_program("ssh-keygen")
        found = list(MODULES.glob("*/pkcs11/p11-kit-client.so"))
        require_service("p11-kit's client module", found)
        self.module = str(found[0])
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "P11_KIT_SERVER_ADDRESS": f"unix:path={self.socket}",
        }
        root = folder / "root.key"
        with hsm_core.open(folder / "hsm", root=root, create=True) as hsm:
            ada = hsm.as_user("ada", roles=["administrator"])
            ada.create("EC-P256", name="authority")
            ada.create("EC-P256", name="host")

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve the token."""
        words = [sys.executable, "-m", "hsm_cli", "--actor", "ada"]
        words += ["--roles", "operator", "pkcs11", "serve"]
        words += ["--embedded", str(self.folder / "hsm")]
        words += ["--root-key", str(self.folder / "root.key")]
        words += ["--socket", str(self.socket)]
        with running(words, self.folder / "token.log", self.socket.exists):
            yield

    def run(self, *words: str, **more: str) -> str:
        """Run a program that uses the token; return what it prints."""
        done = subprocess.run(
            words,
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def public_key(self, name: str) -> Path:
        """Return a file with the public key of a key, as OpenSSH reads it."""
        listed = self.run("ssh-keygen", "-D", self.module).splitlines()
        (line,) = (one for one in listed if one.endswith(f" {name}"))
        file = self.folder / f"{name}.pub"
        file.write_text(f"{line}\n")
        return file

    def new_key(self, name: str) -> Path:
        """Return a new key of a user, in files."""
        file = self.folder / name
        words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file))
        self.run(*words)
        return file


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give the token while it is served."""
    site = Site(tmp_path_factory.mktemp("ssh"))
    with site.serving():
        yield site


def test_a_certificate_authority(site: Site) -> None:
    """ssh-keygen issues a certificate with a key of the HSM, and a host trusts it."""
    authority, user = site.public_key("authority"), site.new_key("user")

    site.run(
        *("ssh-keygen", "-D", site.module, "-s", str(authority), "-I", "of ada"),
        *("-n", getpass.getuser(), "-V", "+1h", str(user.with_suffix(".pub"))),
    )

    shown = site.run("ssh-keygen", "-L", "-f", f"{user}-cert.pub")
    fingerprint = site.run("ssh-keygen", "-l", "-f", str(authority)).split()[1]
    assert f"Signing CA: ECDSA {fingerprint}" in shown
    host = site.new_key("other-host")
    settings = f"HostKey {host}\nTrustedUserCAKeys {authority}\n"
    with server(site, settings) as port:
        public = host.with_suffix(".pub").read_text()
        assert "arrived\n" == log_in(site, port, public, "-i", str(user))


def test_the_key_of_a_server(site: Site) -> None:
    """A server proves its identity with a key of the HSM, which ssh-agent loads."""
    user, agent = site.new_key("visitor"), site.folder / "agent.sock"
    askpass = site.folder / "askpass"
    askpass.write_text("#!/bin/sh\necho none\n")
    askpass.chmod(0o700)
    words = ["ssh-agent", "-D", "-a", str(agent), "-P", f"{MODULES}/*"]
    public = site.public_key("host")
    settings = (
        f"HostKey {public}\nHostKeyAgent {agent}\n"
        f"AuthorizedKeysFile {user}.pub\nStrictModes no\n"
    )
    log, given = site.folder / "agent.log", dict(site.environment)
    with running(words, log, agent.exists, given):
        site.run(
            *("ssh-add", "-s", site.module),
            SSH_AUTH_SOCK=str(agent),
            SSH_ASKPASS=str(askpass),
            SSH_ASKPASS_REQUIRE="force",
        )
        with server(site, settings) as port:
            found = log_in(site, port, public.read_text(), "-i", str(user))

    assert "arrived\n" == found


@contextmanager
def server(site: Site, settings: str) -> Iterator[int]:
    """Run sshd with settings; give its port."""
    require_service("OpenSSH's server", SSHD.exists())
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    file, log = site.folder / "sshd_config", site.folder / f"sshd-{port}.log"
    file.write_text(f"Port {port}\nListenAddress 127.0.0.1\nPidFile none\n{settings}")
    words = [str(SSHD), "-D", "-e", "-f", str(file)]
    with running(words, log, lambda: b"listening" in log.read_bytes()):
        yield port


def log_in(site: Site, port: int, host: str, *words: str) -> str:
    """Log in to a server whose public key is known; return what a command prints."""
    known = site.folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {host}")
    return site.run(
        *("ssh", "-F", "none", "-p", str(port), "-o", "BatchMode=yes"),
        *("-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={known}"),
        *(*words, f"{getpass.getuser()}@127.0.0.1", "echo arrived"),
    )
