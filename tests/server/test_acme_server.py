# SPDX-License-Identifier: MIT
"""
A real server whose certificate comes from a real CA, and all that may go wrong.

The CA refuses every fifth request for its nonce. Somebody opens connections all the
time, for the very name that is proved, and not one may fail.
"""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from acme import client, messages
from cryptography import x509
from josepy.jwk import JWKEC

from hsm_server.tls.acme.authority import Network
from hsm_server.tls.acme.cache import Cache
from tests.server.acme_support import (
    NAME,
    ACMESite,
    Responder,
    Visitors,
    children,
    reload,
)
from tests.server.family import wait_until
from tests.server.pebble import Names, names_served
from tests.server.process import Running
from tests.support import require_mounts, require_program

TLS_MANAGER = "hsm_server.processes.tls_manager"
NAMES = (NAME, "127.0.0.1")


@pytest.fixture(scope="module")
def names() -> Iterator[Names]:
    """Give DNS."""
    with names_served() as served:
        yield served


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Give a folder on a small disk, or why there is none."""
    folder = tmp_path_factory.mktemp("cache")
    command = ["mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "tmpfs"]
    try:
        subprocess.run([*command, str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        yield folder, type(error).__name__
        return
    yield folder, ""
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def responder() -> Iterator[Responder]:
    """Give who answers questions by OCSP."""
    with Responder() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    names: Names,
    small: tuple[Path, str],
    responder: Responder,
) -> Iterator[ACMESite]:
    """Give a folder to serve from; the CA is not there yet."""
    folder = tmp_path_factory.mktemp("acme")
    found = ACMESite(folder, names.port, names=NAMES, ocsp=responder.url)
    responder.pebble = found.pebble
    found.cache = small[0] / "acme"
    yield found
    found.pebble.stop()


@pytest.fixture(scope="module")
def server(site: ACMESite) -> Iterator[tuple[Running, Visitors]]:
    """Give a server that began without a CA, and who visits it."""
    with (
        site.serve("--workers", "2") as running,
        Visitors(site) as visitors,
    ):
        wait_until(site.alarms)
        assert not site.has_issued()
        assert site.alarms() == ["Cannot connect to the CA."]
        site.pebble.start()
        reload(running)
        wait_until(site.has_issued)
        yield running, visitors


@pytest.fixture
def running(server: tuple[Running, Visitors], site: ACMESite) -> Iterator[Running]:
    """Give a server with a certificate, and see that nobody was turned away."""
    running, visitors = server
    wait_until(lambda: site.metric(running, "ferrohsm_tls_alarm{", 'part="acme"') == 0)
    yield running
    visitors.check()


def certificate_file(site: ACMESite) -> Path:
    """Return where the certificate is kept."""
    return site.folder_of_ca() / "certificate.pem"


def order(site: ACMESite, running: Running) -> None:
    """Have another certificate ordered, as an operator can."""
    certificate_file(site).unlink(missing_ok=True)
    reload(running)


def has_another(site: ACMESite, before: x509.Certificate) -> Callable[[], bool]:
    """Return a condition: another certificate of a CA is shown, and kept."""

    def condition() -> bool:
        shown = site.shown()
        return (
            shown.serial_number != before.serial_number
            and shown.issuer != shown.subject
            and certificate_file(site).exists()
        )

    return condition


class TestIssuing:
    """How a certificate comes to be."""

    def test_it_is_issued_where_clients_need_certificates(
        self, running: Running, site: ACMESite
    ) -> None:
        """Names and addresses are proved on the listener itself, to who has none."""
        names = site.shown().extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        challenges = site.metric(
            running, "ferrohsm_tls_handshakes_total", 'outcome="challenge"'
        )
        next_order = site.metric(running, "ferrohsm_acme_next_order_seconds")

        assert [NAME] == names.value.get_values_for_type(x509.DNSName)
        assert ["127.0.0.1"] == list(
            map(str, names.value.get_values_for_type(x509.IPAddress))
        )
        # The CA looks from three places.
        assert 2 <= challenges
        assert 1 <= site.metric(running, "ferrohsm_acme_orders_total", "issued")
        days = (next_order - time.time()) / (24 * 3600)
        assert 58 < days < 62

    def test_it_is_stapled(
        self, running: Running, site: ACMESite, tmp_path: Path
    ) -> None:
        """As one from a file is, and a foreign client finds it good."""
        root, (cert, key) = tmp_path / "root.pem", site.client
        root.write_bytes(site.pebble.root())
        command = [
            *(require_program("openssl"), "s_client", "-status"),
            *("-connect", f"127.0.0.1:{site.port}", "-servername", NAME),
            *("-verify_hostname", NAME, "-verify_return_error"),
            *("-CAfile", str(root), "-cert", str(cert), "-key", str(key)),
        ]

        def output() -> str:
            return subprocess.run(
                command, input="", capture_output=True, text=True, check=True
            ).stdout

        wait_until(lambda: "Cert Status: good" in output())
        assert "Verify return code: 0 (ok)" in output()

    def test_what_is_kept_is_its_owners(self, running: Running, site: ACMESite) -> None:
        """Folders have mode 0700, and files 0600; nothing unfinished is left."""
        folder = site.folder_of_ca()
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}

        assert 0o700 == site.cache.stat().st_mode & 0o777
        assert 0o700 == folder.stat().st_mode & 0o777
        assert {
            "account-key.pem": 0o600,
            "account.json": 0o600,
            "certificate.pem": 0o600,
            "directory.txt": 0o600,
        } == modes


class TestFaults:
    """What may go wrong, and how it ends."""

    @pytest.mark.parametrize(
        "step", ["Added order", "Starting 3 validations", "Issued certificate"]
    )
    def test_a_tls_manager_is_killed(
        self, running: Running, site: ACMESite, step: str
    ) -> None:
        """At any step: the next one begins anew, and nobody notices."""
        before, seen = site.shown(), site.pebble.has_logged(step)
        (tls_manager,) = children(running, TLS_MANAGER)
        order(site, running)
        site.pebble.wait_for(step, seen + 1)
        os.kill(tls_manager, signal.SIGKILL)

        wait_until(has_another(site, before))
        assert [tls_manager] != children(running, TLS_MANAGER)

    def test_a_ca_dies_and_forgets(self, running: Running, site: ACMESite) -> None:
        """It is asked again, and told anew who we are."""
        before, seen = site.shown(), site.pebble.has_logged("Added order")
        account = (site.folder_of_ca() / "account.json").read_bytes()
        alarms = len(site.alarms())
        order(site, running)
        site.pebble.wait_for("Added order", seen + 1)
        site.pebble.stop()
        wait_until(lambda: len(site.alarms()) > alarms)
        during = site.shown()
        site.pebble.start()
        reload(running)

        wait_until(has_another(site, before))
        assert before.serial_number == during.serial_number
        assert account != (site.folder_of_ca() / "account.json").read_bytes()

    def test_a_challenge_is_blocked(
        self, running: Running, site: ACMESite, names: Names
    ) -> None:
        """The alarm says which name; the CA is not asked again at once."""
        before, seen = site.shown(), site.pebble.has_logged("Added order")
        names.point(NAME, "127.0.0.2")
        try:
            order(site, running)
            wait_until(
                lambda: any("Validation failed" in text for text in site.alarms())
            )
            wait = site.metric(running, "ferrohsm_acme_next_order_seconds")
        finally:
            names.point_back(NAME)

        assert before.serial_number == site.shown().serial_number
        assert 200 < wait - time.time() < 310
        assert NAME in site.alarms()[-1]
        assert seen + 1 == site.pebble.has_logged("Added order")
        reload(running)
        wait_until(has_another(site, before))

    def test_the_disk_is_full(
        self, running: Running, site: ACMESite, small: tuple[Path, str]
    ) -> None:
        """What was issued is used all the same, and kept when there is room."""
        require_mounts(small[1])
        before, filler = site.shown(), small[0] / "filler"
        certificate_file(site).unlink()
        fill(filler)
        reload(running)
        wait_until(lambda: site.alarms("acme_cache"))
        wait_until(lambda: site.shown().serial_number != before.serial_number)
        used, seen = site.shown(), site.pebble.has_logged("Added order")
        filler.unlink()
        reload(running)

        wait_until(certificate_file(site).exists)
        reload(running)
        assert used.serial_number == site.shown().serial_number
        assert used in x509.load_pem_x509_certificates(
            certificate_file(site).read_bytes()
        )
        assert seen == site.pebble.has_logged("Added order")

    def test_without_room_for_an_account_nothing_is_ordered(
        self, running: Running, site: ACMESite, small: tuple[Path, str]
    ) -> None:
        """A CA is not to issue what is lost at once, again and again."""
        require_mounts(small[1])
        before, filler = site.shown(), small[0] / "filler"
        seen = site.pebble.has_logged("Added order")
        certificate_file(site).unlink()
        (site.folder_of_ca() / "account-key.pem").unlink()
        fill(filler)
        reload(running)
        wait_until(lambda: "Cannot write" in site.alarms()[-1])
        orders = site.pebble.has_logged("Added order")
        filler.unlink()
        reload(running)

        wait_until(has_another(site, before))
        assert seen == orders


class TestRenewal:
    """When there is another one before the first has expired."""

    def test_the_ca_says_when(self, running: Running, site: ACMESite) -> None:
        """A certificate that it has revoked it wants renewed at once (RFC 9773)."""
        before = site.shown()
        revoke(site, before)
        reload(running)

        wait_until(has_another(site, before))


def revoke(site: ACMESite, certificate: x509.Certificate) -> None:
    """Have the CA revoke a certificate, as its owner can."""
    cache = Cache(site.cache, site.pebble.directory)
    key, account = cache.account_key(), cache.account()
    assert key is not None
    assert account is not None
    network = Network(JWKEC(key=key), site.pebble.bundle)
    network.account = messages.RegistrationResource(
        body=messages.Registration(), uri=account.uri
    )
    directory = client.ClientV2.get_directory(site.pebble.directory, network)
    client.ClientV2(directory, network).revoke(certificate, 1)


class TestNextStart:
    """What a server does that has been there before."""

    def test_it_serves_from_its_cache_and_renews_in_time(
        self, server: tuple[Running, Visitors], site: ACMESite
    ) -> None:
        """Nothing is ordered without need; here challenges are answered over HTTP."""
        running, visitors = server
        before = site.shown()
        visitors.check()
        visitors.pause()
        assert 0 == running.stop()
        site.pebble.stop()
        more = ("--workers", "2", "--acme-http-bind", f"127.0.0.1:{site.http_port}")
        with site.serve(*more) as again:
            visitors.go_on()
            kept, alarms = site.shown(), len(site.alarms())
            orders = site.metric(again, "ferrohsm_acme_orders_total")
            site.pebble.start(validity_seconds=12)
            order(site, again)
            wait_until(has_another(site, before))
            short = site.shown()
            wait_until(has_another(site, short))
            renewed, now = site.shown(), datetime.now(UTC)
            challenges = site.metric(
                again, "ferrohsm_tls_handshakes_total", 'outcome="challenge"'
            )
            alarms_after = len(site.alarms())
            visitors.check()
            visitors.pause()
            assert 0 == again.stop()
        visitors.stop()

        assert before == kept
        assert 0 == orders
        assert 0 == challenges
        assert alarms == alarms_after
        assert renewed.not_valid_before_utc <= now < renewed.not_valid_after_utc


def test_all_in_one_process(tmp_path: Path, names: Names) -> None:
    """The same with ``--isolation inline``; and who waits for a CA ends at once."""
    site = ACMESite(tmp_path / "inline", names.port, isolation="inline")
    site.pebble.start()
    try:
        more = ("--acme-http-bind", f"127.0.0.1:{site.http_port}")
        with site.serve(*more) as running:
            wait_until(site.has_issued)
            plain = http.client.HTTPConnection("127.0.0.1", site.http_port, timeout=60)
            with contextlib.closing(plain):
                plain.request("GET", "/.well-known/acme-challenge/x")
                status = plain.getresponse().status
            silent = socket.create_connection(("127.0.0.1", site.http_port))
            os.kill(site.pebble.pid, signal.SIGSTOP)
            order(site, running)
            time.sleep(0.5)
            began = time.monotonic()
            exit_code = running.stop()
            seconds = time.monotonic() - began
            silent.close()
    finally:
        site.pebble.stop()

    assert 404 == status
    assert 0 == exit_code
    assert 9 > seconds  # A call that hangs is given up after 10.


def fill(path: Path) -> None:
    """Leave no block free."""
    with path.open("wb", buffering=0) as file:
        for size in (4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
