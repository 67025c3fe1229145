# SPDX-License-Identifier: MIT
"""A real server process: TLS, exit codes, start, drain and restart."""

import base64
import contextlib
import hashlib
import json
import os
import shlex
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hsm_core.factory import open_hsm
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import FakeClock, caller
from tests.pki import self_signed_root
from tests.server.family import counter, create, wait_until
from tests.server.pem_files import pem, serve_by, write_pair
from tests.server.process import MASTER, Site, client_context, connect, request
from tests.server.support import Authority, b64, b64url, claims, mint
from tests.support import free_port

both = pytest.mark.parametrize("site", ["process", "inline"], indirect=True)
"""Runs a test with keys in a process of their own, and with everything in one."""


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """Give a folder to serve from."""
    return Site(tmp_path, getattr(request, "param", "process"))


@both
def test_it_serves_drains_and_starts_again(site: Site) -> None:
    """A key outlives the server; SIGTERM and SIGINT end with 0, however often sent."""
    token = mint()
    with site.serve() as server:
        create(server, "signer")
        server.send("GET", "/api/v1/status", token=token)
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "clock reset" in {line["event"] for line in site.log()})
        assert 0.0 == counter(server, "ferrohsm_clock_behind_seconds")
        arguments = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        assert 0 == server.process.returncode
    assert "stopped" == site.log()[-1]["event"]
    with site.serve() as server:
        answer = server.send("GET", "/api/v1/keys/signer")
        assert 200 == answer.status
        counted = server.send("GET", "/metrics").body.decode()
        assert 'requests_total{code="ok",operation="DescribeKey"} 1.0' in counted
        server.process.send_signal(signal.SIGINT)
        assert 0 == server.process.wait(60)

    log = site.log()
    assert "stopped" == log[-1]["event"]
    steps = [line["step"] for line in log if line["event"] == "starting"]
    assert 2 * ["self-tests", "key store", "audit log", "rollback check"] == steps
    told = [line["event"] for line in log if line["level"] in {"warning", "error"}]
    assert {"clock reset"} >= {*told}
    assert MASTER.encode() not in arguments
    everything = b"".join(
        path.read_bytes() for path in site.folder.rglob("*") if path.is_file()
    )
    assert token.encode() not in everything
    assert MASTER.encode() not in everything
    for path in (site.folder / "data").rglob("*"):
        assert 0 == stat.S_IMODE(path.stat().st_mode) & 0o077, path


@both
def test_an_older_tls_is_spoken_on_demand(site: Site) -> None:
    """With a flag, clients that know nothing newer are served."""
    with site.serve("--tls-allow-1-2") as server:
        found = []
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(site.authority)
            context.maximum_version = version
            with (
                socket.create_connection(server.address) as bare,
                context.wrap_socket(bare, server_hostname="localhost") as tls,
            ):
                found.append(tls.version())

    assert ["TLSv1.2", "TLSv1.3"] == found


def test_a_clock_reset_ends_no_start() -> None:
    """SIGUSR1 before the server runs is ignored."""
    program = (
        "import os, signal, hsm_server.main, hsm_server.commands.serve as module\n"
        "module.check_places = lambda *_: os.kill(os.getpid(), signal.SIGUSR1)\n"
        "hsm_server.main.main([], standalone_mode=True)\n"
    )
    command = [sys.executable, "-c", program]
    secret = base64.b64encode(bytes(range(32))).decode()
    names = ("FERROHSM_MASTER_KEY", "FERROHSM_HMAC_KEY")
    ended = subprocess.run(
        command,
        env=os.environ | dict.fromkeys(names, secret),
        capture_output=True,
        check=False,
        timeout=120,
    )

    assert 2 == ended.returncode
    assert b"a way to authenticate" in ended.stderr


@pytest.mark.parametrize("streams", ["0<&- 1>&- 2>&-", ">/dev/full 2>&1", "| true"])
def test_missing_streams_stop_nothing(site: Site, streams: str) -> None:
    """Without standard streams it serves, and nothing is written into its files."""
    address = ("127.0.0.1", free_port())
    command = shlex.join(site.command("--bind", f"127.0.0.1:{address[1]}"))
    script = f"{{ {command}; echo $? > code; }} {streams}"
    with subprocess.Popen(
        ["/bin/sh", "-c", script],
        env=site.environment(),
        cwd=site.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as shell:
        context = client_context(site.authority)
        body = {"algorithm": "Ed25519", "name": "signer"}
        status = 0
        end = time.monotonic() + 300
        while not status and time.monotonic() < end:
            with contextlib.suppress(OSError):
                status = request(address, context, "POST", "/api/v1/keys", body).status
            time.sleep(0.1)
        (server,) = _processes_with(f"127.0.0.1:{address[1]}")
        os.kill(server, signal.SIGTERM)
        shell.wait(120)

    assert 201 == status
    assert "0" == (site.folder / "code").read_text().strip()
    with site.serve() as again:
        assert 200 == again.send("GET", "/api/v1/keys/signer").status


def _processes_with(argument: str) -> list[int]:
    """Return the processes that were started with an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # Others, which are none of ours, end meanwhile.
        with contextlib.suppress(OSError):
            if argument.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


@both
def test_client_certificates_are_demanded(site: Site) -> None:
    """With --client-ca nobody else gets in; the certificate is the caller's fact."""
    identity = site.authority.issue("client", server=False)
    stranger = Authority(site.folder, "Other CA").issue("stranger", server=False)
    good = client_context(site.authority, identity)
    certificate = x509.load_pem_x509_certificate(identity[0].read_bytes())
    digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    with site.serve("--client-ca", str(site.authority.path)) as server:
        for context in (
            client_context(site.authority),
            client_context(site.authority, stranger),
        ):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                server.send("GET", "/healthz", context=context)
        assert 200 == server.send("GET", "/api/v1/status", context=good).status
        bound = mint(claims(cnf={"x5t#S256": b64url(digest)}))
        other = mint(claims(cnf={"x5t#S256": b64url(bytes(32))}))
        path = "/api/v1/audit/events"
        answer = server.send("GET", path, context=good, token=bound)
        assert 200 == answer.status
        assert 401 == server.send("GET", path, context=good, token=other).status
        again = server.send("GET", path, context=good, token=bound)

    callers = [entry["event"].get("caller", {}) for entry in again.json["items"]]
    assert digest.hex() in {caller.get("certificate_sha256") for caller in callers}


@both
def test_requests_in_flight_are_finished(site: Site) -> None:
    """After SIGTERM a body that is under way is still read, done and answered."""
    with site.serve() as server:
        tls = connect(server.address, client_context(site.authority))
        body = json.dumps({"algorithm": "Ed25519", "name": "last"}).encode()
        tls.sendall(
            b"POST /api/v1/keys HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\n"
            + f"Authorization: Bearer {mint()}\r\n".encode()
            + f"Content-Length: {len(body)}\r\n".encode()
            + b"Expect: 100-continue\r\n\r\n"
        )
        # It is in flight when the server asks for its body.
        assert tls.recv(4096).startswith(b"HTTP/1.1 100")
        tls.sendall(body[:5])
        server.process.send_signal(signal.SIGTERM)
        wait_until(partial(_is_refused, server.address))
        tls.sendall(body[5:])
        answer = tls.recv(4096)
        assert answer.startswith(b"HTTP/1.1 201")
        assert 0 == server.process.wait(60)
        tls.close()
    with site.serve() as server:
        assert 200 == server.send("GET", "/api/v1/keys/last").status


@both
def test_a_body_that_is_refused_is_not_asked_for(site: Site) -> None:
    """Who expects to be asked for a body that is too long, is not asked."""
    with site.serve() as server:
        tls = connect(server.address, client_context(site.authority))
        tls.sendall(
            b"POST /api/v1/keys HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\n"
            + f"Authorization: Bearer {mint()}\r\n".encode()
            + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = tls.recv(4096)
        tls.close()

    assert answer.startswith(b"HTTP/1.1 413")


def _is_refused(address: tuple[str, int]) -> bool:
    """Return whether nobody accepts connections there."""
    try:
        socket.create_connection(address, timeout=60).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


@both
def test_a_drain_has_an_end(site: Site) -> None:
    """A client that never finishes does not keep the server from ending."""
    with site.serve("--drain-timeout-secs", "0.5") as server:
        tls = connect(server.address, client_context(site.authority))
        tls.sendall(
            b"POST /api/v1/random HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\n"
            + f"Authorization: Bearer {mint()}\r\n".encode()
            + b"Content-Length: 100\r\n\r\n{"
        )
        time.sleep(0.3)
        began = time.monotonic()
        assert 0 == server.stop()
        tls.close()

    assert time.monotonic() - began < 60


def test_a_wrong_provider_is_told(site: Site) -> None:
    """An order of providers that can't be kept starts no server, writes nothing."""
    code, message = site.fails("--provider", "Ed25519=nobody")

    assert 2 == code
    assert "'nobody' for Ed25519 is not available. Available: pyca" in message
    assert not site.keys.exists()
    assert not site.audit.exists()


def test_an_address_in_use_is_told(site: Site) -> None:
    """Exit code 9, before any key is touched."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = site.fails("--bind", f"127.0.0.1:{port}")

    assert 9 == code
    assert f"Cannot listen on 127.0.0.1:{port}: the address is in use." in message
    assert not site.keys.exists()


@pytest.mark.parametrize("host", ["203.0.113.1", "nowhere.invalid"])
def test_an_address_that_is_not_ours_is_told(site: Site, host: str) -> None:
    """Exit code 9 for what can't be bound or resolved."""
    code, message = site.fails("--bind", f"{host}:8443")

    assert 9 == code
    assert host in message


@both
@pytest.mark.parametrize("option", ["--client-ca", "--client-crl"])
@pytest.mark.parametrize("mode", [0o666, 0o620])
def test_no_server_trusts_clients_by_a_file_that_others_write(
    site: Site, option: str, mode: int
) -> None:
    """Who may write it could let in themselves, or somebody who was locked out."""
    issuer = self_signed_root("clients")
    ca, crl = site.folder / "clients.pem", site.folder / "clients.crl"
    ca.write_bytes(pem(issuer.certificate))
    crl.write_bytes(issuer.revocation_list())
    path = {"--client-ca": ca, "--client-crl": crl}[option]
    path.chmod(mode)
    code, message = site.fails("--client-ca", str(ca), "--client-crl", str(crl))

    assert 9 == code
    assert f"{path} is writable by other users." in message


def _flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_no_server_starts_with_an_expired_certificate(
    tmp_path: Path, isolation: str
) -> None:
    """Exit code 9, and until when it was valid; nothing is written."""
    site = Site(tmp_path, isolation)
    past: dict[str, Any] = {"begin": timedelta(days=-2), "end": timedelta(days=-1)}
    write_pair(site.cert, site.key, serve_by(self_signed_root("A CA"), "ECDSA", **past))
    code, message = site.fails()

    assert 9 == code
    assert "expired at" in message
    assert not (site.folder / "data").exists()


def test_a_tampered_key_does_not_stop_the_others(site: Site) -> None:
    """It is listed as tampered, and its neighbours go on."""
    with site.serve() as server:
        create(server, "signer")
        create(server, "other")
        assert 0 == server.stop()
    documents = site.keys.rglob("key.json")
    (document,) = (path for path in documents if b'"other"' in path.read_bytes())
    _flip_byte(document, document.stat().st_size // 2)
    with site.serve() as server:
        listing = server.send("GET", "/api/v1/keys").json["items"]
        (bad_id,) = (k["key_id"] for k in listing if k["integrity"] == "tampered")
        message = {"message": b64(b"x")}
        good = server.send("POST", "/api/v1/keys/signer/sign", message)
        bad = server.send("POST", f"/api/v1/keys/{bad_id}/sign", message)
        health = server.send("GET", "/healthz")

    assert {"ok", "tampered"} == {key["integrity"] for key in listing}
    assert 200 == good.status
    assert (409, "key_tampered") == (bad.status, bad.code)
    assert (200, "degraded") == (health.status, health.json["status"])


def test_it_starts_under_its_command_too() -> None:
    """The installed program is the same as the module."""
    done = subprocess.run(
        ["hsm-server", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": str(Path(sys.executable).parent)},
    )

    assert done.stdout.startswith("hsm-server, version ")


def test_a_pruning_that_fails_is_logged(site: Site) -> None:
    """An old record that was altered keeps all records, and the log says why."""
    clock = FakeClock(time.time_ns() // 1000 - 40 * 86400 * 1_000_000)
    settings = Settings(
        key_dir=site.keys, audit_log=site.audit, audit_segment_bytes=4096
    )
    with open_hsm(
        settings, master_key=b"\7" * 32, hmac_key=b"\10" * 32, clock=clock
    ) as hsm:
        for number in range(20):
            clock.advance(86400)
            Session(hsm.act_as(caller())).create_key("AES-256-GCM", name=f"{number}")
    segment = min(site.audit.parent.glob("audit.log.0*"))
    segment.write_bytes(segment.read_bytes().replace(b"system.start", b"system.stArt"))

    with site.serve("--audit-retention-days", "10"):
        wait_until(lambda: "audit pruning impaired" in str(site.log()))
    [told] = [one for one in site.log() if one["event"] == "audit pruning impaired"]
    assert "error" == told["level"]
    assert "damaged at record 1:" in told["reason"]
