# SPDX-License-Identifier: MIT
"""A server whose keys lie in object storage, which goes away and comes back."""

import time

from tests.core.s3_server import object_storage
from tests.e2e.site import Site

SECONDS = 60.0


def test_keys_in_object_storage(site: Site) -> None:
    """Keys are there after a restart; while storage is away, each request says so."""
    with object_storage() as storage:
        flags = ["--key-store", f"s3://{storage.new_bucket()}/hsm"]
        environment = site.environment() | storage.environment
        with site.start(*flags, environment=environment) as server:
            assert (
                0 == site.cli(server.port, "create", "aes", "--name", "box").returncode
            )
            first = site.cli(
                server.port, "encrypt", "box", "--in", "-", "--out", "-", data=b"dawn"
            ).stdout
            assert 0 == server.stop()

        with site.start(*flags, environment=environment) as server:
            client = site.client(server.port, "ada", "operator")
            storage.fault = lambda method, path: "503"
            refused = client.request(
                "POST", "/api/v1/keys", {"algorithm": "EC-P256", "name": "late"}
            )
            assert (503, "store_unavailable") == (refused.status, refused.code)
            storage.fault = lambda method, path: ""
            until = time.monotonic() + SECONDS
            done = site.cli(server.port, "create", "EC-P256", "--name", "late")
            while done.returncode and time.monotonic() < until:
                done = site.cli(server.port, "create", "EC-P256", "--name", "late")
            assert 0 == done.returncode, done.stderr
            opened = site.cli(
                server.port, "decrypt", "box", "--in", "-", "--out", "-", data=first
            )
            assert b"dawn" == opened.stdout, opened.stderr
            client.close()
            assert 0 == server.stop()

        logs = "".join(path.read_text() for path in site.logs.iterdir())
        assert "test-secret-key" not in logs
        assert "test-access-key" not in logs
    site.verify_log()
