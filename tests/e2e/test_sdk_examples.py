# SPDX-License-Identifier: MIT
"""The examples for who writes programs: each runs against what it is written for."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.testing import caller, memory_hsm
from tests.client.certificates import make_certificates
from tests.client.stub import TOKEN, Stub, answer, serving
from tests.e2e.people import PeopleSite
from tests.e2e.processes import ServerProcess
from tests.support import REPOSITORY, require_program

EXAMPLES = REPOSITORY / "examples"
SECONDS = 120.0
POLICY = """version: 1
extends: default
rules:
  - name: destruction
    effect: require-approval
    match: {operations: [DestroyKey]}
    approval: {roles: [Auditor]}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> PeopleSite:
    """Give a site where a destruction needs the consent of an Auditor."""
    made = PeopleSite(tmp_path_factory.mktemp("sdk") / "site")
    policy = made.folder / "policy.yaml"
    policy.touch(mode=0o600)
    policy.write_text(POLICY)
    return made


@pytest.fixture(scope="module")
def server(site: PeopleSite) -> Iterator[ServerProcess]:
    """Give a running server of that site."""
    with site.start("--policy-config", str(site.folder / "policy.yaml")) as running:
        yield running


def environment_for(site: PeopleSite, port: int) -> dict[str, str]:
    """Return what an example reads: where the server is, and who asks."""
    pair = site.pair("ada")
    plain = {n: v for n, v in os.environ.items() if not n.startswith("FERROHSM_")}
    return plain | {
        "FERROHSM_ENDPOINT": f"https://localhost:{port}",
        "FERROHSM_CA_BUNDLE": str(site.authority.bundle),
        "FERROHSM_CLIENT_CERT": str(pair.certificate),
        "FERROHSM_CLIENT_KEY": str(pair.key),
        "FERROHSM_AUTH_TOKEN": site.token("ada", "Operator", "Administrator"),
    }


def follow(
    command: list[str], site: PeopleSite, port: int, folder: Path
) -> tuple[int, str]:
    """Run an example, agree to what it asks for, and return how it ended."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment_for(site, port),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        told = ""
        for line in running.stdout:
            told += line
            if found := re.match(r"waiting for approval (\S+)", line):
                site.agree(port, found[1], (("anton", "Auditor"),))
        return running.wait(SECONDS), told


def recorded(site: PeopleSite, port: int, told: str) -> list[str]:
    """Return what the trail has under the request id that an example has shown."""
    found = re.search(r"request id (\S+)", told)
    assert found, told
    with site.client(port, "anton", "Auditor") as client:
        events = client.request("GET", "/api/v1/audit/events?limit=200").json["items"]
    return [
        entry["event"]["kind"]
        for entry in events
        if entry["event"].get("request_id") == found[1]
    ]


def test_python(site: PeopleSite, server: ServerProcess, tmp_path: Path) -> None:
    """The Python client takes its whole tour, and waits for somebody's consent."""
    tour = EXAMPLES / "python-sdk" / "tour.py"

    status, told = follow([sys.executable, str(tour)], site, server.port, tmp_path)

    assert 0 == status, told
    assert "another message: signature_mismatch" in told
    assert "decrypted after a rotation: treasure" in told
    assert "both sides have the same 32 bytes" in told
    assert "3 keys, newest first: tour-kem-" in told
    assert 1 == told.count("waiting for approval ")
    assert told.endswith("destroyed\n")


@pytest.mark.parametrize(
    ("absent", "told"),
    [
        (("FERROHSM_ENDPOINT",), "set FERROHSM_ENDPOINT"),
        (
            (
                *("FERROHSM_AUTH_TOKEN", "FERROHSM_CLIENT_CERT"),
                "FERROHSM_CLIENT_KEY",
            ),
            "There is no credential",
        ),
        (("FERROHSM_CLIENT_KEY",), "holds no private key"),
        (("FERROHSM_CLIENT_CERT", "FERROHSM_CLIENT_KEY"), "certificate required"),
    ],
)
def test_python_says_what_is_missing(
    site: PeopleSite, server: ServerProcess, absent: tuple[str, ...], told: str
) -> None:
    """A missing setting is named; a certificate is missed by the server alone."""
    environment = environment_for(site, server.port)
    for name in absent:
        del environment[name]

    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "python-sdk" / "tour.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert 0 != done.returncode
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def go_tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the compiled tour of the Go client."""
    go = require_program("go")
    program = tmp_path_factory.mktemp("go") / "tour"
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
    for command in (["build", "-o", str(program), "./cmd/tour"], ["vet", "./..."]):
        subprocess.run(
            [go, *command],
            cwd=EXAMPLES / "go-sdk",
            env=environment,
            check=True,
            timeout=5 * SECONDS,  # the first time, it compiles the standard library
        )
    return program


def test_go(
    site: PeopleSite, server: ServerProcess, go_tour: Path, tmp_path: Path
) -> None:
    """The Go client does the same, signs a request, and serves TLS by a key there."""
    status, told = follow([str(go_tour)], site, server.port, tmp_path)

    assert 0 == status, told
    assert "another message: signature_mismatch" in told
    assert "decrypted after a rotation: treasure" in told
    assert "both sides have the same 32 bytes" in told
    assert "the request for a certificate is signed by its key" in told
    assert "TLS 1.3 served by a key in the HSM: hello" in told
    assert told.endswith("destroyed\n")
    assert ["Sign"] == recorded(site, server.port, told)


@pytest.fixture
def stubs(tmp_path: Path) -> Iterator[tuple[Stub, Stub, Path]]:
    """Give two servers and the file of the authority that vouches for both."""
    certificates = make_certificates(tmp_path)
    with (
        memory_hsm() as opened,
        serving(opened.act_as(caller()), certificates) as one,
        serving(opened.act_as(caller()), certificates) as other,
    ):
        yield one, other, certificates.ca


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (307, b"", "status 307"),
        (201, b"", "the answer (status 201) is not one of an HSM"),
        (201, b"<html>", "the answer (status 201) is not one of an HSM"),
        (502, b"<html>", "status 502"),
    ],
)
def test_go_trusts_no_other_answer(
    stubs: tuple[Stub, Stub, Path], go_tour: Path, status: int, body: bytes, told: str
) -> None:
    """The Go client takes neither token nor data elsewhere, nor an empty answer."""
    one, other, authority = stubs
    one.faults.append(
        answer(status, "text/html", body, {"Location": f"{other.endpoint}/elsewhere"})
    )

    done = subprocess.run(
        [go_tour],
        env={
            "FERROHSM_ENDPOINT": one.endpoint,
            "FERROHSM_CA_BUNDLE": str(authority),
            "FERROHSM_AUTH_TOKEN": TOKEN,
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert told in done.stderr
    assert (1, 0) == (len(one.received), len(other.received))


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("body", [b"{}", b"null", b'{"version":null}', b"<html>"])
def test_go_takes_no_incomplete_answer(
    stubs: tuple[Stub, Stub, Path], go_tour: Path, place: int, body: bytes
) -> None:
    """No key, signature or verification comes from an answer that does not name it."""
    one, _, authority = stubs
    for _ in range(place):
        one.faults.append(lambda handler, request: handler.behave(request))
    one.faults.append(answer(200, "application/json", body))

    done = subprocess.run(
        [go_tour],
        env={
            "FERROHSM_ENDPOINT": one.endpoint,
            "FERROHSM_CA_BUNDLE": str(authority),
            "FERROHSM_AUTH_TOKEN": TOKEN,
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert "the answer (status 200) is not one of an HSM" in done.stderr
    assert (place + 1, "") == (len(one.received), done.stdout)


def test_go_sends_no_token_in_the_clear(
    stubs: tuple[Stub, Stub, Path], go_tour: Path
) -> None:
    """The Go client takes an endpoint without TLS for a mistake."""
    _, _, authority = stubs
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.setblocking(False)

        done = subprocess.run(
            [go_tour],
            env={
                "FERROHSM_ENDPOINT": f"http://127.0.0.1:{plain.getsockname()[1]}",
                "FERROHSM_CA_BUNDLE": str(authority),
                "FERROHSM_AUTH_TOKEN": TOKEN,
            },
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

        assert "the endpoint must be https://" in done.stderr
        with pytest.raises(BlockingIOError):
            plain.accept()
