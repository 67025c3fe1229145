# SPDX-License-Identifier: MIT
"""
What is in the memory of a server's processes: keys in the vault, while they live.

``FERROHSM_LEAKS`` says how many keys of each algorithm are made. Of the slow sets of
SLH-DSA, whose keys and signatures take seconds, there are five at most. By default one
of each is made, and of the slow sets only of the first.
"""

import base64
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hsm_core.algorithms import Algorithm, Family, spec
from hsm_core.settings import SCRUBBING_ALLOCATOR
from hsm_server.processes.spawn import scrubbed
from tests.e2e.family import children as children_of
from tests.e2e.key_uses import KeyUser
from tests.e2e.leaks import find, sealed_secrets
from tests.e2e.memory import Wanted, guises, require_memory, scan, summary
from tests.e2e.processes import ServerProcess
from tests.e2e.site import SECRETS, Site
from tests.support import copy_in_use, require_service

COUNT = int(os.environ.get("FERROHSM_LEAKS", "1"))
MOST_SLOW = 5
ROLES = ("operator", "administrator")
KINDS = ("supervisor", "tls", "front1", "front2")


def is_slow(algorithm: Algorithm) -> bool:
    """Return whether keys of an algorithm take seconds to be made."""
    return spec(algorithm).family is Family.SLH_DSA and algorithm.endswith("s")


@dataclass
class Life:
    """
    What was seen of a server during the life of its keys.

    Attributes:
        keys: Private parts of all keys, by name.
        alive: Names of what was found in the vault before the keys' end.
        outside: What was found outside the vault, by process.
        told: Arguments and environment of every process.
        passed: Secrets that passed through a front end, in the supervisor.
        left: What was found in the vault after the keys' end.
    """

    keys: dict[str, bytes]
    alive: set[str] = field(default_factory=set)
    outside: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, bytes] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def environment(site: Site) -> dict[str, str]:
    """Return an environment that holds the secrets themselves, and not their files."""
    return {
        name: base64.b64encode(site.secrets[value.rpartition("/")[2]]).decode()
        if name in {"FERROHSM_MASTER_KEY", "FERROHSM_HMAC_KEY", "FERROHSM_JWT_SECRET"}
        else value
        for name, value in site.environment().items()
    }


ALGORITHMS = [
    algorithm
    for algorithm in Algorithm
    if COUNT > 1 or not is_slow(algorithm) or algorithm is Algorithm.SLH_DSA_SHA2_128S
]


def use_keys(user: KeyUser) -> None:
    """Make and use keys of every algorithm, and give a third of them two versions."""
    for algorithm in ALGORITHMS:
        slow = is_slow(algorithm)
        for number in range(min(COUNT, MOST_SLOW) if slow else COUNT):
            user.use_everything(algorithm, number)
    quick = [name for name in user.keys if not name.endswith(("s-0", "s-1"))]
    for name in quick[::3]:
        user.rotate(name)


def end_keys(user: KeyUser) -> None:
    """Revoke a third of the keys, and destroy the others."""
    for number, name in enumerate(list(user.keys)):
        if number % 3 == 1:
            user.revoke(name)
        else:
            user.destroy(name)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Give what was seen of a server from the first key to the last."""
    require_memory()
    folder = tmp_path_factory.mktemp("memory")
    site = Site(folder / "site")
    flags = ("--isolation", "process", "--workers", "2")
    with site.start(*flags, environment=environment(site)) as server:
        processes = server.processes()
        with site.client(server.port, "ada", *ROLES) as client:
            user = KeyUser(client, secrets.token_bytes(32))
            use_keys(user)
            copy_in_use(site.key_dir, folder / "copy")
            keys = sealed_secrets(folder / "copy", site.secrets["master-key"])
            wanted = Wanted(keys | site.secrets)
            life = Life(keys)
            look_outside(life, processes, wanted)
            passing = Wanted(user.passing)
            life.passed = summary(scan(processes["supervisor"], passing))
            life.alive = {found.secret for found in scan(processes["vault"], wanted)}
        with site.client(server.port, "ada", *ROLES) as user.client:
            end_keys(user)
        life.left = summary(scan(processes["vault"], Wanted(keys)))
        assert processes == server.processes()
        assert 0 == server.stop()
    life.told |= {"log": server.output.encode()}
    life.outside["arguments"] = find(site.secrets, life.told)
    return life


def look_outside(life: Life, processes: dict[str, int], wanted: Wanted) -> None:
    """Look for secrets in every process but the vault."""
    for kind, pid in processes.items():
        for file in ("environ", "cmdline"):
            life.told[f"{file} of {kind}"] = Path(f"/proc/{pid}/{file}").read_bytes()
        if kind != "vault":
            life.outside[kind] = summary(scan(pid, wanted))


def test_vault_alone_has_keys(life: Life) -> None:
    """
    No key, root, audit key or token secret is in any other process.
    """
    expected: dict[str, list[str]] = {kind: [] for kind in (*KINDS, "arguments")}

    assert expected == life.outside


def test_supervisor_has_no_payload(life: Life) -> None:
    """
    What a front end must see, plaintexts and shared secrets, the supervisor never does.
    """
    assert [] == life.passed


def test_scan_sees_the_vault(life: Life) -> None:
    """
    The same search finds root, audit key, token secret and keys where they are.
    """
    algorithms = {
        algorithm
        for algorithm in ALGORITHMS
        for name in life.alive
        if name.startswith(f"{algorithm.lower()}-")
    }

    # Of keys of HMAC and HKDF, the library keeps what it made of them, not themselves.
    unseen = {a for a in ALGORITHMS if spec(a).family in {Family.MAC, Family.KDF}}
    assert set(SECRETS) <= life.alive
    assert set(ALGORITHMS) - unseen <= algorithms


def test_nothing_is_left_in_the_vault(life: Life) -> None:
    """
    After keys were destroyed or revoked, nothing of their private parts is in memory.
    """
    assert [] == life.left


def test_vault_alone_scrubs(site: Site) -> None:
    """
    The vault overwrites what it frees, and heeds no variable of whoever started it.
    """
    given = {
        "PYTHONMALLOC": "pymalloc",
        "PYTHONVERBOSE": "0",
        "GLIBC_TUNABLES": "x",
        "LD_BIND_NOT": "1",
    }
    require_memory()
    flags = ("--isolation", "process", "--workers", "1")

    with site.start(*flags, environment=site.environment() | given) as server:
        found = {
            kind: {
                name: value
                for name, value in environment_of(pid).items()
                if name.startswith(("PYTHON", "GLIBC_", "LD_"))
            }
            for kind, pid in server.processes().items()
        }

    nothing: dict[str, dict[str, str]] = {
        k: {} for k in ("supervisor", "tls", "front1")
    }
    assert nothing | {"vault": SCRUBBING_ALLOCATOR} == found


def test_key_of_the_certificate_stays_outside(site: Site) -> None:
    """
    Front ends and the TLS manager have it, supervisor and vault never.
    """
    require_memory()
    keys = {"before": private_number(site.server_pair.key)}
    flags = ("--isolation", "process", "--workers", "1")
    with site.start(*flags) as server:
        site.authority.issue("server", server=True)
        keys["after"] = private_number(site.server_pair.key)
        os.kill(server.pid, signal.SIGHUP)
        wait_for_reload(server)
        with site.client(server.port, "ada", *ROLES) as client:
            assert 200 == client.request("GET", "/api/v1/status").status
        found = {
            kind: {finding.secret for finding in scan(pid, Wanted(keys))}
            for kind, pid in server.processes().items()
        }

    assert (set(), set()) == (found["supervisor"], found["vault"])
    assert "after" in found["front1"]
    assert "after" in found["tls"]


def private_number(path: Path) -> bytes:
    """Return the private number of a key on P-256, 32 bytes, from its PEM."""
    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value.to_bytes(32)


def wait_for_reload(server: ServerProcess) -> None:
    """Wait until the TLS manager has read its files again."""
    for _ in range(600):
        if re.search(
            r'"reloaded".*"child": "tls"|"child": "tls".*"reloaded"', server.output
        ):
            return
        time.sleep(0.05)
    raise TimeoutError(server.output)


def test_children_of_the_vault_keep_nothing(site: Site) -> None:
    """
    Processes that compute for a provider keep no key longer than they need it.
    """
    require_memory()
    require_service("The package pqcrypto", find_spec("pqcrypto"))
    algorithm = Algorithm.SLH_DSA_SHA2_128F
    flags = ("--isolation", "process", "--provider", f"{algorithm}=pqcrypto")
    with site.start(*flags) as server:
        with site.client(server.port, "ada", *ROLES) as client:
            user = KeyUser(client, secrets.token_bytes(32))
            for number in range(3):
                user.use_everything(algorithm, number)
        copy_in_use(site.key_dir, site.folder / "copy")
        keys = sealed_secrets(site.folder / "copy", site.secrets["master-key"])
        vault = server.processes()["vault"]
        children = children_of(vault)

        left = [line for pid in children for line in summary(scan(pid, Wanted(keys)))]
        with site.client(server.port, "ada", *ROLES) as user.client:
            for name in list(user.keys):
                user.destroy(name)
        after = summary(scan(vault, Wanted(keys)))

    assert children
    assert ([], []) == (left, after)


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment of a process."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


@pytest.mark.parametrize("kept", [1, 1024])
def test_evicted_keys_leave_nothing(tmp_path: Path, kept: int) -> None:
    """
    Of a key that had to make room for others, nothing stays in memory.
    """
    require_memory()
    master_key, hmac_key = secrets.token_bytes(32), secrets.token_bytes(32)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.embedded_hsm", str(tmp_path), str(kept)],
        env=scrubbed(os.environ) | dict(SCRUBBING_ALLOCATOR),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{master_key.hex()}\n{hmac_key.hex()}\n")
        child.stdin.flush()
        names = [line.strip() for line in takewhile(str.strip, child.stdout)]
        copy_in_use(tmp_path / "keys", tmp_path / "copy")
        keys = sealed_secrets(tmp_path / "copy", master_key)

        findings = scan(child.pid, Wanted(keys))

        child.stdin.close()
    found = {finding.secret.partition(" v")[0] for finding in findings}
    if kept == 1:
        assert {names[-1]} == found
    else:
        assert len(found) > len(names) // 2


PLANT = """
import ctypes, mmap, sys
across, *others = [bytes.fromhex(word) for word in sys.stdin.readline().split()]
area = mmap.mmap(-1, 2 * mmap.PAGESIZE)
start = mmap.PAGESIZE - len(across) // 2
area[start : start + len(across)] = across
middle = ctypes.addressof(ctypes.c_char.from_buffer(area)) + mmap.PAGESIZE
libc = ctypes.CDLL(None)
assert libc.mprotect(ctypes.c_void_p(middle), ctypes.c_size_t(mmap.PAGESIZE), 1) == 0
del across
print("planted", flush=True)
sys.stdin.readline()
"""


@contextmanager
def planted(across: bytes, *others: bytes) -> Iterator[int]:
    """Give a process that keeps these bytes, the first across two mappings."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", PLANT],
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(" ".join(data.hex() for data in (across, *others)) + "\n")
        child.stdin.flush()
        assert "planted\n" == child.stdout.readline()
        yield child.pid
        child.stdin.close()


@pytest.mark.parametrize("size", [16, 32, 57, 256])
def test_search_sees_through_disguise(size: int) -> None:
    """
    A secret is found in every guise, whole or by halves, and across mappings.
    """
    require_memory()
    dresses = {
        f"{guise.dress} {number}": guise
        for number, guise in enumerate(guises("", bytes(size)))
    }
    wanted = {name: secrets.token_bytes(size) for name in ("across", "absent")}
    shown = []
    for number, name in enumerate(dresses):
        wanted[name] = secrets.token_bytes(size)
        dressed = list(guises(name, wanted[name]))[min(number, 9)]
        shown.append(secrets.token_bytes(number % 8) + dressed.octets)

    with planted(wanted["across"], *shown) as pid:
        found = {finding.secret for finding in scan(pid, Wanted(wanted))}

    assert wanted.keys() - {"absent"} == found


@pytest.mark.parametrize("before", [48, 49, 50])
def test_search_reads_pem(before: int) -> None:
    """
    A secret is found in PEM, wherever its lines break.
    """
    require_memory()
    secret = secrets.token_bytes(32)
    stuff = secrets.token_bytes(before - 20)
    text = base64.encodebytes(stuff + secret + stuff)

    with planted(stuff, text) as pid:
        found = {finding.dress for finding in scan(pid, Wanted({"whole": secret}))}

    assert {"base64"} == found - {"base64url"}


def test_search_finds_halves() -> None:
    """
    Of a secret whose other half was overwritten, the rest is found.
    """
    require_memory()
    secret = secrets.token_bytes(32)

    with planted(bytes(32), secret[:16], secret[16:]) as pid:
        found = scan(pid, Wanted({"whole": secret}))

    assert {("raw", 16)} <= {(finding.dress, finding.length) for finding in found}
    assert all(
        finding.length < len(secret) for finding in found if finding.dress == "raw"
    )
