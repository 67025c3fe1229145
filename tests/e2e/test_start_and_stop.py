# SPDX-License-Identifier: MIT
"""When a server starts, when it refuses to, and how it ends."""

import base64
import fcntl
import os
import re
import shutil
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.https import Client, NoAnswerError, client_context
from tests.e2e.processes import ServerExitError, ServerProcess, program
from tests.e2e.site import Site

USAGE, UNSAFE, WRONG_MASTER, WRONG_AUDIT = 2, 3, 4, 5
TAMPERED, LOCKED, DAMAGED, LISTEN = 6, 7, 8, 9


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Give a site whose server has made two keys, and was stopped in order."""
    site = Site(tmp_path_factory.mktemp("used") / "site")
    with site.start() as server:
        with site.client(server.port, "ada", "operator") as client:
            for name in ("one", "two"):
                body = {"algorithm": "EC-P256", "name": name}
                assert 201 == client.request("POST", "/api/v1/keys", body).status
        assert 0 == server.stop()
    return site


@pytest.fixture
def used(original: Site, tmp_path: Path) -> Iterator[Site]:
    """Give that site, of which the next test finds nothing changed."""
    kept = tmp_path / "kept"
    shutil.copytree(original.folder, kept)
    secrets = dict(original.secrets)
    yield original
    original.secrets = secrets
    shutil.rmtree(original.folder)
    shutil.copytree(kept, original.folder)


def contents(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """
    Return the mode of everything below a folder, time of change and bytes of files.

    A folder changes when the index of keys is read: SQLite has a log beside it then.
    """
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns if path.is_file() else 0,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


def refused(site: Site, *flags: str) -> ServerExitError:
    """Start a server that must refuse, and return how it did."""
    with pytest.raises(ServerExitError) as caught, site.start(*flags):
        pass
    assert "Traceback" not in caught.value.output
    assert caught.value.output.count("hsm-server: error:") <= 1
    return caught.value


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def damage_record(site: Site) -> None:
    """Change a record in the middle of the trail."""
    size = site.audit_log.stat().st_size
    flip(site.audit_log, size // 2)


def damage_ring(site: Site) -> None:
    """Change the sealed key ring."""
    (ring,) = (site.key_dir / "meta").glob("ring*")
    flip(ring, ring.stat().st_size - 1)


def cut_trail(site: Site) -> None:
    """Remove the last record."""
    lines = site.audit_log.read_bytes().splitlines(keepends=True)
    site.audit_log.write_bytes(b"".join(lines[:-1]))


def lose_trail(site: Site) -> None:
    """Remove the trail and all that lies beside it."""
    for path in site.data.glob("audit.log*"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda site: site.write_secret("master-key", bytes(32)), WRONG_MASTER),
        (lambda site: site.write_secret("hmac-key", bytes(32)), WRONG_AUDIT),
        (damage_record, TAMPERED),
        (cut_trail, TAMPERED),
        (lose_trail, TAMPERED),
        (damage_ring, DAMAGED),
    ],
    ids=["master-key", "hmac-key", "record", "cut", "lost", "ring"],
)
def test_refused_start_writes_nothing(
    used: Site, spoil: Callable[[Site], None], status: int
) -> None:
    """
    A wrong key, or damage, ends the start with its own status; nothing is written.
    """
    spoil(used)
    before = contents(used.data)

    error = refused(used)

    assert status == error.status
    assert before == contents(used.data)


@pytest.mark.parametrize(
    "find",
    [
        lambda site: site.secret_file("master-key"),
        lambda site: site.secret_file("jwt-secret"),
        lambda site: site.server_pair.key,
        lambda site: site.key_dir,
        lambda site: site.audit_log,
    ],
    ids=["master-key", "jwt-secret", "tls-key", "key-dir", "audit-log"],
)
def test_unsafe_modes_are_refused(used: Site, find: Callable[[Site], Path]) -> None:
    """
    What others may read is refused, with a status of its own.
    """
    path = find(used)
    path.chmod(path.stat().st_mode | 0o044)

    error = refused(used)

    assert UNSAFE == error.status


def test_second_server_is_refused(used: Site) -> None:
    """
    Two servers never share a store, nor an address; the first goes on working.
    """
    with used.start() as server:
        locked = refused(used)
        in_use = refused(used, "--bind", f"127.0.0.1:{server.port}")
        with used.client(server.port, "ada", "operator") as client:
            answer = client.request("GET", "/api/v1/keys/one")

    assert (LOCKED, LISTEN) == (locked.status, in_use.status)
    assert 200 == answer.status


def test_client_certificate_is_demanded(
    shared_site: Site, shared_server: ServerProcess, tmp_path: Path
) -> None:
    """
    Without a certificate of the right authority no request is answered.
    """
    stranger = Site(tmp_path / "stranger")
    bundle, token = shared_site.authority.bundle, shared_site.token("ada", "operator")

    for pair in (None, stranger.client_pair):
        context = client_context(bundle, pair)
        with Client(shared_server.port, context, token) as client:
            with pytest.raises(NoAnswerError):
                client.request("GET", "/healthz")


def test_old_tls_is_refused(shared_site: Site, shared_server: ServerProcess) -> None:
    """
    TLS 1.2 is not spoken.
    """
    context = client_context(shared_site.authority.bundle, shared_site.client_pair)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    with Client(shared_server.port, context) as client:
        with pytest.raises(NoAnswerError):
            client.request("GET", "/healthz")


def test_secret_from_a_descriptor(site: Site) -> None:
    """
    A secret may come through an inherited file descriptor.
    """
    reader, writer = os.pipe()
    os.write(writer, base64.b64encode(site.secrets["master-key"]))
    os.close(writer)
    shutil.copy(site.secret_file("master-key"), site.folder / "kept")
    site.secret_file("master-key").unlink()
    try:
        with site.start("--master-key", f"fd:{reader}", pass_fds=(reader,)) as server:
            assert 0 == server.stop()
    finally:
        os.close(reader)

    warnings = [line for line in server.output.splitlines() if "warning" in line]
    assert [] == [line for line in warnings if "run as root" not in line]


def test_log_that_nobody_reads_stops_nothing(site: Site) -> None:
    """
    A server whose log is a full pipe answers everything, and ends in order.
    """
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 16384)
    shell = f'exec "$0" "$@" 2>/proc/self/fd/{writer}'
    command = ["sh", "-c", shell, *program("hsm-server")]
    try:
        with site.start(command=command, pass_fds=(writer,)) as server:
            with site.client(server.port, "ada", "operator") as client:
                for _ in range(200):
                    assert 200 == client.request("GET", "/api/v1/keys").status
            assert 0 == server.stop()

        assert b'"event": ' in os.read(reader, 65536)
    finally:
        os.close(reader)
        os.close(writer)


def test_start_is_quick(used: Site) -> None:
    """
    A server computes little until it is ready, self-tests included.
    """
    with used.start() as server:
        status = server.stop()

    assert 0 == status
    assert 60 > server.ready_cpu_seconds
    assert re.search(r"listening on https://127\.0\.0\.1:\d+$", server.output, re.M)
