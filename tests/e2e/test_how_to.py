# SPDX-License-Identifier: MIT
"""The how-to guides work when their blocks are typed after those of their index."""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.e2e.newcomer import READY_SECONDS, SHELL, SIGN_IN, WAIT, Newcomer, sh_blocks
from tests.support import REPOSITORY, free_port, require_program, require_service

GUIDES = REPOSITORY / "docs" / "how-to"
Served: TypeAlias = tuple[Newcomer, subprocess.Popen[bytes]]
NEW_NAME = re.compile(r"(?:create|import|derive) [^\n|]*?--name ([\w-]+)")
SECONDS = 120.0

TOLD = {
    "use-keys-in-libraries": ["CN=web.example,O=Example", "ssh-ed25519", "web.pem: OK"],
    "use-keys-with-ssh": [
        "laptop (ED25519)",
        "logged in",
        "host: key exchange as a host, for sshd",
        "laptop: login as ",
        "welcome",
        "certified",
        "without an agent",
        'Good "git" signature for ada@example.com',
    ],
    "use-keys-with-pkcs11": [
        "token label        : ada",
        "Verified OK",
        "Valid signature: release-key",
        "pkcs11: pkcs11-tool uid",
        "Verifying against public key in the token... ok",
        "TLS1.3",
        "ssh-rsa",
    ],
    "use-keys-with-openssl": [
        "web.pem: OK",
        "PKCS#11 PROVIDER URI",
        "for your eyes",
        "TLSv1.3",
        "served by nginx",
    ],
    "use-keys-with-java-and-nss": [
        "code-key, PrivateKeyEntry",
        "jar verified.",
        ":code-key",
        "CMS Verification successful",
        "Number of verified signatures: 1",
        "Valid signature: code-key",
    ],
    "encrypt-and-authenticate": ["card 4711", "exit code 6"],
    "write-a-policy": ["valid, 6 rules", "allow (role:Operator)"],
    "use-rest-with-curl": ["payload.sig", "key_not_found"],
    "use-the-command-line": [
        "Did you mean list?",
        "Valid signature: notary, version 1, ML-DSA-65",
        "curl --request POST",
        'key_names: ["notary"]',
        "approval request",
    ],
    "sign-large-files": ["Valid signature: "],
    "hybrid-encryption": ["attack at dawn", "draft-ietf-lamps-pq-composite-kem"],
    "import-and-export": ["imported", "old-signer"],
    "life-of-a-key": ["staged", "2026-01-31T12:00:00Z", "purge_scheduled", "team"],
    "data-keys": ["of 3865470566 (0 %)", "retired"],
    "recover-a-store": ["keys verified"],
    "full-disk": ["audit  ", "available"],
    "prune-the-audit-log": ["Audit log intact: "],
    "choose-providers": ["pyca", "SLH-DSA-SHA2-128s"],
    "dual-control": [
        "exit code 11",
        "as agreed",
        "consumed",
        "destroyed",
        "exit code 2",
        "2, all valid",
    ],
    "batches": ["invoice 3", "signature_mismatch"],
}

PORTS = ("2222", "2560", "4433", "4434", "4435", "4436")
"""Ports of programs that guides start."""

END = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
"""Ends what a guide left running, which would keep its output open."""

PROGRAMS = {
    "dual-control": ["ssh-keygen"],
    "use-keys-with-ssh": ["git", "ssh-keygen", "sshd"],
    "use-keys-with-pkcs11": ["certtool", "gnutls-serv", "p11tool", "pkcs11-tool"],
    "use-keys-with-openssl": ["curl", "nginx", "openssl"],
    "use-keys-with-java-and-nss": [
        *("certutil", "jarsigner", "keytool", "modutil", "osslsigncode", "p7sign"),
    ],
}
"""Programs that guides need."""

OF_SESSION = frozenset({"use-keys-with-java-and-nss"})
"""Guides for the session ``programs`` alone: Java is large."""
RUN = [
    name
    for name in TOLD
    if name not in OF_SESSION or os.environ.get("FERROHSM_PROGRAMS")
]

STARTS_ITS_OWN = {
    "back-up-and-restore": ["key verified"],
    "create-an-hsm": [
        "is the root key of this server",
        "exit code 11",
        "Removed grace.",
        "notAfter=",
    ],
    "upgrade": ["key verified", "intact", "before"],
    "restart-and-reload": [
        "bootstrap.vault",
        "processes.front_end",
        "operational",
    ],
    "require-client-certificates": [
        "without a certificate: curl says 56",
        "Peer signature type: ecdsa_secp256r1_sha256",
        "Peer signature type: mldsa65",
        "Negotiated TLS1.3 group: X25519MLKEM768",
    ],
    "tokens": ['{"keys":[{"kty":"EC","crv":"P-256",'],
    "sqlite": ["audit.sqlite", "keys.sqlite", "approvals.sqlite", "intact"],
    "staple-ocsp": [
        "Cert Status: good",
        "The certificate CN=localhost is revoked",
    ],
}
"""Guides that start a server, and what they show."""


def script_of(name: str) -> str:
    """Return the prelude and the blocks of a guide, with a folder and ports."""
    blocks = blocks_of(name)
    for port in PORTS:
        blocks = blocks.replace(port, str(free_port()))
    return f"{SHELL}{END}mkdir {name} && cd {name}\n{blocks}"


def blocks_of(name: str) -> str:
    """Return the shell blocks of a guide."""
    return "".join(sh_blocks((GUIDES / f"{name}.md").read_text()))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a reader who has signed in to the practice HSM, and the server's shell."""
    newcomer = Newcomer(tmp_path_factory.mktemp("guides") / "clone")
    with newcomer.serving() as shell:
        status, told = newcomer.run(SIGN_IN)
        assert 0 == status, told
        yield newcomer, shell


@pytest.fixture(scope="module")
def reader(clone: Served) -> Newcomer:
    """Give that reader while the practice server runs."""
    newcomer, shell = clone
    assert shell.poll() is None
    return newcomer


@pytest.fixture(scope="module")
def reader_alone(clone: Served) -> Newcomer:
    """Give that reader when the practice server has ended."""
    newcomer, shell = clone
    os.killpg(shell.pid, signal.SIGINT)
    assert 0 == shell.wait(READY_SECONDS), newcomer.log.read_text()
    return newcomer


@pytest.mark.parametrize("name", RUN)
def test_guide(reader: Newcomer, name: str) -> None:
    """Every block of a guide succeeds in order, and shows what it should."""
    for program in PROGRAMS.get(name, ()):
        found = shutil.which(program) or Path("/usr/sbin", program).exists()
        require_service(f"The program {program}", found)

    status, told = reader.run(script_of(name), SECONDS)

    assert 0 == status, told
    for text in TOLD[name]:
        assert text in told


@pytest.mark.parametrize("name", STARTS_ITS_OWN)
def test_guide_that_starts_a_server(reader_alone: Newcomer, name: str) -> None:
    """Every block of a guide succeeds in order while no other server runs."""
    require_program("ps")

    status, told = reader_alone.run(f"set -m\n{script_of(name)}", SECONDS)

    assert 0 == status, told
    for text in STARTS_ITS_OWN[name]:
        assert text in told
    assert "reload failed" not in told


def test_names_of_keys_are_different() -> None:
    """No guide creates a key under a name that another guide uses."""
    used = Counter[str]()
    for name in TOLD:
        used.update(set(NEW_NAME.findall(blocks_of(name))))

    assert {} == {name: count for name, count in used.items() if count > 1}
    assert "payroll" in used


def test_waits_are_bounded() -> None:
    """No block of a guide waits in a loop of its own, but for the one that all use."""
    loops = re.compile(r"^\s*(?:until|while) ", re.MULTILINE)
    pages = sorted(GUIDES.glob("*.md"))

    assert [] == [
        page.name
        for page in pages
        if any(loops.search(b.removesuffix(WAIT)) for b in sh_blocks(page.read_text()))
    ]
