# SPDX-License-Identifier: MIT
"""Renewal by the private CA: in time, in one step, and not by a foreign key."""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from hsm_core.errors import ConfigurationError, HSMError
from hsm_core.private_ca import SERVER_DAYS, PrivateCA
from hsm_server.config.tls import PairFiles, TLSSettings
from hsm_server.tls.certificates import der_of
from hsm_server.tls.files import parse_pairs, read_pair_files
from hsm_server.tls.manager import tasks_for
from hsm_server.tls.renewal import RenewalTask, renew
from hsm_server.tls.sources import first_state
from hsm_server.tls.state import ActiveState, Alarms, ServerPair, TLSState
from tests.server.ocsp_support import FakeClock
from tests.server.support import until
from tests.server.test_acme_options import parsed
from tests.server.test_tls_manager import World

DAY = timedelta(days=1)
LIFE = timedelta(days=SERVER_DAYS)
NAMES = ("localhost", "127.0.0.1")


class Renewed(World):
    """Certificate of a private CA, and a TLS manager of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.now = datetime.now(UTC)
        self.authority = PrivateCA.create("An HSM", self.now)
        self.path, self.key = folder / "server.pem", folder / "ca.key"
        self.key.write_bytes(self.authority.key_pem())
        self.key.chmod(0o600)
        self.settings = TLSSettings(
            pairs=(PairFiles(cert=self.path, key=self.path),), ca_key=self.key
        )

    def issue(self, age: timedelta) -> bytes:
        """Let the file hold a certificate of this age; return it, DER."""
        self.path.write_bytes(self.authority.issue_server(NAMES, self.now - age))
        self.path.chmod(0o600)
        return self.held

    @property
    def held(self) -> bytes:
        """The certificate in the file, DER."""
        return der_of(x509.load_pem_x509_certificates(self.path.read_bytes())[0])

    def renew(self) -> bool:
        """Renew, and return whether something was due."""
        return renew(self.path, self.key, self.now) is None


@pytest.fixture
def renewed(tmp_path: Path) -> Renewed:
    """Give a private CA."""
    return Renewed(tmp_path)


class TestRenewal:
    """One look at the file."""

    def test_when_a_third_remains(self, renewed: Renewed) -> None:
        """Not before; and then once."""
        young = renewed.issue(LIFE * 2 / 3 - DAY)
        assert not renewed.renew()
        assert young == renewed.held
        old = renewed.issue(LIFE * 2 / 3 + DAY)

        assert renewed.renew()

        assert old != renewed.held
        assert 0o600 == renewed.path.stat().st_mode & 0o777
        assert not renewed.renew()

    def test_failures_change_nothing(self, renewed: Renewed, tmp_path: Path) -> None:
        """Another CA's key, one that others can read, one that is none, no space."""
        old = renewed.issue(LIFE - DAY)
        other = tmp_path / "other.key"
        other.write_bytes(PrivateCA.create("An HSM", renewed.now).key_pem())
        other.chmod(0o600)
        shared = tmp_path / "shared.key"
        shared.write_bytes(renewed.key.read_bytes())
        shared.chmod(0o644)
        for key, problem in (
            (other, "does not match"),
            (shared, "mode 0644"),
            (tmp_path / "none.key", "can't be read"),
        ):
            with pytest.raises(HSMError, match=problem):
                renew(renewed.path, key, renewed.now)

            assert old == renewed.held

    def test_a_file_without_the_ca(self, renewed: Renewed) -> None:
        """The message says what the file must hold."""
        renewed.issue(LIFE - DAY)
        data, _, _ = renewed.path.read_bytes().rpartition(b"-----BEGIN CERT")
        renewed.path.write_bytes(data)

        with pytest.raises(ConfigurationError, match="two certificates"):
            renewed.renew()

    def test_an_expired_certificate_at_start(self, renewed: Renewed) -> None:
        """A server that was off for a year starts."""
        old = renewed.issue(4 * LIFE)

        state = first_state(renewed.settings)

        assert (renewed.held,) == state.pairs[0].chain
        assert old != renewed.held

    def test_one_of_a_clock_that_was_ahead(self, renewed: Renewed) -> None:
        """After the clock is set right, a server starts, and a running one renews."""
        renewed.issue(-LIFE)

        state = first_state(renewed.settings)

        assert (renewed.held,) == state.pairs[0].chain
        renewed.issue(-LIFE)
        assert renewed.renew()
        assert not renewed.renew()

    def test_one_out_of_time_that_can_t_be_renewed(self, renewed: Renewed) -> None:
        """The reason is that of the failed renewal."""
        for age in (4 * LIFE, -LIFE):
            renewed.issue(age)
            renewed.key.unlink(missing_ok=True)

            with pytest.raises(HSMError, match="cert-ca-key"):
                first_state(renewed.settings)

    def test_one_that_is_due_and_can_t_be_renewed(self, renewed: Renewed) -> None:
        """The server starts with it, and the task raises an alarm."""
        old = renewed.issue(LIFE - DAY)
        renewed.key.unlink()

        assert (old,) == first_state(renewed.settings).pairs[0].chain


def test_kills_during_a_renewal(renewed: Renewed) -> None:
    """The file holds a pair that the server starts with: the former, or the new one."""
    for step, is_new in ((1, False), (2, False), (3, True)):
        old = renewed.issue(LIFE - DAY)
        pid = os.fork()
        if pid == 0:
            seen = 0

            def hook(event: str, args: tuple[object, ...], stop_at: int = step) -> None:
                nonlocal seen
                if event in {"tempfile.mkstemp", "os.rename"}:
                    seen += 1
                    if seen == stop_at:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            try:
                renewed.renew()
            finally:
                os._exit(0)
        was_killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])

        assert was_killed != is_new
        assert is_new == (old != renewed.held)
        _pairs(renewed)


class TestTask:
    """The task of the TLS manager."""

    async def test_it_puts_a_renewed_certificate_in_force(
        self, renewed: Renewed
    ) -> None:
        """No restart, no signal: the certificate is published when it is due."""
        old = renewed.issue(LIFE * 2 / 3 + DAY)
        first = TLSState(generation=0, pairs=_pairs(renewed))
        active = ActiveState(first, renewed.publish)
        tasks = tasks_for(
            renewed.settings, renewed.alarms, renewed.metrics, renewed.logger
        )

        running = [asyncio.create_task(task.run(active)) for task in tasks]
        try:
            await until(lambda: bool(renewed.published))
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

        assert renewed.held == renewed.shown != old
        assert 1 == len(renewed.log("certificate renewed"))
        assert 0.0 == renewed.alarm("renewal")

    async def test_its_alarm_ends_when_the_key_is_back(self, renewed: Renewed) -> None:
        """A failed renewal is tried again every hour."""
        renewed.issue(LIFE - DAY)
        key = renewed.key.read_bytes()
        renewed.key.unlink()
        clock = FakeClock(renewed.now)
        active = ActiveState(
            TLSState(generation=0, pairs=_pairs(renewed)), renewed.publish
        )
        reloads: list[ActiveState] = []

        async def reload(active: ActiveState) -> None:
            reloads.append(active)

        alarms = Alarms(renewed.logger, renewed.metrics)
        task = RenewalTask(
            renewed.path, renewed.key, reload, alarms, renewed.logger, clock
        )
        running = asyncio.create_task(task.run(active))
        try:
            await until(lambda: renewed.alarm("renewal") == 1.0)
            renewed.key.write_bytes(key)
            renewed.key.chmod(0o600)
            await clock.advance(3600)
            await until(lambda: bool(reloads))
        finally:
            running.cancel()
            await asyncio.wait([running])

        assert 0.0 == renewed.alarm("renewal")


def _pairs(renewed: Renewed) -> tuple[ServerPair, ...]:
    pairs = renewed.settings.pairs
    return parse_pairs(pairs, read_pair_files(pairs), renewed.now)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--cert=a.pem", "--key=b.pem"], "the same file as --key"),
        (["--cert=a.pem,b.pem", "--key=a.pem,b.pem"], "requires one --cert"),
        (["--tls-mode=acme", "--acme-domain=a.example"], "with --tls-mode acme"),
    ],
)
def test_what_can_t_be_renewed(words: list[str], problem: str) -> None:
    """Key and certificate in two files could be separated by a crash."""
    with pytest.raises(ConfigurationError, match=problem):
        parsed("--cert-ca-key=ca.key", *words)
