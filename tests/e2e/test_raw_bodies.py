# SPDX-License-Identifier: MIT
"""Bare bytes over TLS, up to the limit and one byte more, and files without a limit."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from tests.e2e.family import members
from tests.e2e.https import Client
from tests.e2e.site import Site

MiB = 1024 * 1024
LIMIT = 64 * MiB
FILE_BYTES = 300 * MiB
MEMORY_BYTES = 160 * MiB
MEASURED = """
import re, sys
from hsm_cli.main import run
code = run(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(code)
"""
"""Runs a command and prints the most memory that it took, in KiB."""

RAW = {
    "Content-Type": "application/octet-stream",
    "Accept": "application/octet-stream",
}


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Site, int, int]]:
    """Give a server with a hybrid key and two signers."""
    site = Site(tmp_path_factory.mktemp("raw") / "site")
    with site.start() as server:
        with site.client(server.port, "ada", "operator") as client:
            for algorithm, name in (
                ("P-256 + ML-KEM-768", "mailbox"),
                ("ML-DSA-65", "signer"),
                ("EC-P256", "classical"),
            ):
                body = {"algorithm": algorithm, "name": name}
                assert 201 == client.request("POST", "/api/v1/keys", body).status
        yield site, server.port, server.pid
        assert 0 == server.stop()


@pytest.fixture
def client(place: tuple[Site, int, int]) -> Iterator[Client]:
    """Give a connection of an operator."""
    site, port, _ = place
    with site.client(port, "ada", "operator") as opened:
        yield opened


def memory(pid: int, name: str) -> int:
    """Return a figure of a process's memory, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def test_the_longest_message(place: tuple[Site, int, int], client: Client) -> None:
    """
    What is sealed at the limit opens again, though the ciphertext is longer.

    The vault holds both at most, and a front end one of them.
    """
    message = os.urandom(MiB) * (LIMIT // MiB)
    _, _, server = place
    (vault,), front_ends = members(server, "vault"), members(server, "front end")
    before = {pid: memory(pid, "VmRSS") for pid in (vault, *front_ends)}

    sealed = client.request("POST", "/api/v1/keys/mailbox/seal", message, RAW)
    opened = client.request("POST", "/api/v1/keys/mailbox/open", sealed.body, RAW)

    taken = {pid: memory(pid, "VmHWM") - before[pid] for pid in before}
    assert (200, 200) == (sealed.status, opened.status)
    assert 2 * LIMIT < taken.pop(vault) < 2.2 * LIMIT
    assert all(most < 1.2 * LIMIT for most in taken.values()), taken
    assert len(sealed.body) > LIMIT
    assert message == opened.body
    assert "application/octet-stream" == opened.headers["content-type"]
    told = json.loads(opened.headers["ferrohsm-result"])
    assert {"key_id", "version"} == told.keys()


def test_one_byte_more(client: Client) -> None:
    """
    Above the limit the answer names it, and the server goes on.
    """
    path = "/api/v1/keys/mailbox/seal"
    refused = client.request(
        "POST", path, b"", RAW | {"Content-Length": str(LIMIT + 1)}
    )

    assert (413, "payload_too_large") == (refused.status, refused.code)
    assert LIMIT == refused.json["facts"]["maximum"]


def test_fields_in_the_query(client: Client) -> None:
    """
    A context travels beside a bare message as base64, and binds the signature.
    """
    context = quote_plus("/+8=")
    signed = client.request(
        "POST", f"/api/v1/keys/signer/sign?context={context}", b"hello", RAW
    )
    body = {"message": "aGVsbG8=", "context": "/+8="}
    signature = {
        "signature": base64.b64encode(signed.body).decode(),
    }
    path = "/api/v1/keys/signer/verify"

    assert 3309 == len(signed.body)
    assert 200 == client.request("POST", path, body | signature).status
    del body["context"]
    refused = client.request("POST", path, body | signature)
    assert (422, "signature_mismatch") == (refused.status, refused.code)


@pytest.mark.parametrize("name", ["signer", "classical"])
def test_a_long_file_takes_little_memory(
    place: tuple[Site, int, int], tmp_path: Path, name: str
) -> None:
    """
    The client signs a file larger than the memory that it takes, and verifies it.
    """
    site, port, _ = place
    path, signature = tmp_path / "image", tmp_path / "image.sig"
    with path.open("wb") as file:
        file.truncate(FILE_BYTES)
    command = [
        *(sys.executable, "-c", MEASURED),
        *("--endpoint", f"https://localhost:{port}"),
        *("--ca-bundle", str(site.authority.bundle)),
        *("--client-cert", str(site.client_pair.certificate)),
        *("--client-key", str(site.client_pair.key), "--actor", "ada"),
    ]
    sign = ("sign", name, "--in", str(path), "--out", str(signature))
    verify = ("verify", name, "--in", str(path), "--signature", str(signature))

    for words in (sign, verify):
        done = subprocess.run(
            [*command, *words], env=site.environment(), capture_output=True, check=True
        )
        assert int(done.stdout.split()[-1]) * 1024 < MEMORY_BYTES
