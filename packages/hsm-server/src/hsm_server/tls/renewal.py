# SPDX-License-Identifier: MIT
"""
Renewal of a server certificate by the private CA that issued it.

Key, certificate and CA certificate are one file, which is replaced atomically. After a
crash it holds the former pair or the new one, and both are valid.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509

from hsm_core.errors import ConfigurationError, HSMError
from hsm_core.private_ca import PrivateCA
from hsm_core.private_files import replace_file
from hsm_core.secret_input import read_secret_text
from hsm_server.certificates import UNREADABLE
from hsm_server.config.exit_codes import ListenError
from hsm_server.system.standard_streams import sentence
from hsm_server.tls.state import ActiveState, Alarms, Clock, SystemClock, first_of

if TYPE_CHECKING:
    from hsm_server.observability.logs import Logger

_PART: Final = "renewal"
_REMAINING: Final = 3
"""A certificate is renewed when less than one part in three of its life remains."""

_LONGEST_SECONDS: Final = 3600.0
"""Maximum sleep: the wall clock may be set meanwhile."""


def renew(path: Path, ca_key: Path, now: datetime) -> datetime | None:
    """
    Renew a certificate that is due, or that a wrong clock made for a later time.

    Args:
        path: File of key, certificate and CA certificate, PEM.

        ca_key: Private key of the CA, PEM.

        now: Current time, UTC.

    Returns:
        When it is due, or None if it was renewed.

    Raises:
        HSMError: It can't be renewed; the file is as it was.
    """
    leaf, issuer = _chain(path)
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    due = leaf.not_valid_after_utc - life / _REMAINING
    if leaf.not_valid_before_utc <= now < due:
        return due
    # Refuses a key that other users can read.
    key = read_secret_text(f"@{ca_key}", field="--cert-ca-key")
    data = PrivateCA.load(key.encode(), issuer).renew_server(leaf, now)
    try:
        replace_file(path, data)
    except OSError as error:
        raise ListenError(
            f"Cannot write the renewed certificate {path} ({error.strerror})."
        ) from None
    return None


def renew_at_start(path: Path, ca_key: Path, now: datetime) -> None:
    """
    Renew a certificate that is due, before the server starts.

    Raises:
        HSMError: It is not valid now, and can't be renewed.
    """
    try:
        renew(path, ca_key, now)
    except HSMError:
        # While it is valid, the task raises an alarm and tries again.
        leaf = _chain(path)[0]
        if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
            raise


def _chain(path: Path) -> tuple[x509.Certificate, x509.Certificate]:
    """Return the certificate and the CA certificate of a file."""
    try:
        leaf, issuer = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ListenError(
            f"Cannot read the certificate {path} ({error.strerror})."
        ) from None
    except UNREADABLE:
        raise ConfigurationError(
            f"{path} must contain two certificates, that of the server and that of "
            "the private CA, to be renewed with --cert-ca-key."
        ) from None
    return leaf, issuer


class RenewalTask:
    """
    Task of the TLS manager: renews the server certificate.

    Args:
        path: See `renew`.

        ca_key: See `renew`.

        reload: Puts a changed file in force.

        alarms: Receive failures.

        logger: Logs renewals.

        clock: Wall clock.
    """

    def __init__(
        self,
        path: Path,
        ca_key: Path,
        reload: Callable[[ActiveState], Awaitable[None]],
        alarms: Alarms,
        logger: Logger,
        clock: Clock | None = None,
    ) -> None:
        self._path = path
        self._ca_key = ca_key
        self._reload = reload
        self._alarms = alarms
        self._logger = logger
        self._clock = clock or SystemClock()
        self._wake = asyncio.Event()
        alarms.watch(_PART)

    async def run(self, active: ActiveState, /) -> None:
        """See `Task`."""
        while True:
            wait = timedelta(seconds=_LONGEST_SECONDS)
            try:
                due = await asyncio.to_thread(
                    renew, self._path, self._ca_key, self._clock.now()
                )
            except HSMError as error:
                self._alarms.begin(_PART, sentence(error))
            else:
                self._alarms.end(_PART)
                if due is None:
                    self._logger.info("certificate renewed")
                    # Where that fails, the files have an alarm of their own.
                    with contextlib.suppress(HSMError):
                        await self._reload(active)
                    continue
                wait = min(wait, due - self._clock.now())
            seconds = max(0.0, wait.total_seconds())
            await first_of(self._clock.sleep(seconds), self._wake.wait())
            self._wake.clear()

    async def reload(self, active: ActiveState, /) -> None:
        """See `Task`; retries a failed renewal at once."""
        self._wake.set()
