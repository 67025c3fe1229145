# SPDX-License-Identifier: MIT
"""
Writer lease of a vault, renewed by a thread.

The holder stops some seconds before others may take the lease, so clocks may differ by
that much. After a kill, the next process waits until the lease ends; a renewal
meanwhile shows that the holder is alive.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Final

from hsm_core.errors import (
    HSMError,
    LeaseHeldError,
    LeaseLostError,
    StoreLockedError,
    StoreUnavailableError,
)
from hsm_core.protocols import Clock, Lease, Leases

_NAME: Final = "writer"
_SECONDS: Final = 30.0
_MARGIN_SECONDS: Final = 6.0
_RENEW_SECONDS: Final = 6.0
_POLL_SECONDS: Final = 1.0


class WriterLease:
    """
    Exclusive right to write a vault.

    Args:
        leases: Where the lease lies.

        clock: Tells when it ends.

        holder: Who takes it; unique among all processes.

        renew_seconds: How often it is renewed.
    """

    def __init__(
        self,
        leases: Leases,
        clock: Clock,
        holder: str,
        *,
        renew_seconds: float = _RENEW_SECONDS,
    ) -> None:
        self._leases = leases
        self._clock = clock
        self._holder = holder
        self._renew_seconds = renew_seconds
        self._lease: Lease | None = None
        self._until = 0.0
        self._ended = threading.Event()
        self._changing = threading.Lock()
        self._thread = threading.Thread(
            target=self._keep, name="hsm-core-lease", daemon=True
        )

    @property
    def epoch(self) -> int:
        """Epoch of this lease: the number of leases up to this one."""
        return self._lease.epoch if self._lease else 0

    @property
    def is_held(self) -> bool:
        """Whether no other process can be writing now."""
        lease = self._lease
        return (
            lease is not None
            and self._clock.monotonic() < self._until
            and self._clock.now() < lease.expires_at - _MARGIN_SECONDS * 1_000_000
        )

    def begin(self, *, patient: bool) -> None:
        """
        Acquire the lease, and keep renewing it.

        Args:
            patient: Wait for the end of a lease that nobody renews.

        Raises:
            StoreLockedError: Another process has it.
            StoreUnavailableError: It can't be read or written.
        """
        first_end: object = None
        until = time.monotonic() + _SECONDS + _MARGIN_SECONDS
        while True:
            try:
                self._take()
                break
            except LeaseHeldError as error:
                end = error.facts.get("expires_at")
                first_end = end if first_end is None else first_end
                waited = not patient or time.monotonic() > until
                if waited or end != first_end:
                    raise StoreLockedError(
                        f"Another process has the key store open: {error}"
                    ) from error
            time.sleep(_POLL_SECONDS)
        self._thread.start()

    def resume(self) -> bool:
        """
        Acquire the lease again after its loss.

        Returns:
            Whether anybody else may have written meanwhile.

        Raises:
            StoreUnavailableError: Another process has it, or it can't be told.
        """
        with self._changing:
            if self.is_held:
                return False
            before = self.epoch
            if self._lease is not None:
                # It may only have been too late for comfort.
                with suppress(LeaseLostError):
                    self._renewed(self._lease)
                    return False
            try:
                self._take()
            except LeaseHeldError as error:
                raise StoreUnavailableError(
                    "Another process has the key store open."
                ) from error
            return self.epoch != before + 1

    def end(self, *, release: bool) -> None:
        """
        Release the lease.

        Args:
            release: Let others have it at once, not only when the lease ends by itself.
        """
        self._ended.set()
        with self._changing:
            lease, self._lease = self._lease, None
        if lease is not None and release:
            with suppress(HSMError):
                self._leases.release(lease)
        if self._thread.is_alive():
            self._thread.join(timeout=_RENEW_SECONDS)

    def renew(self) -> None:
        """Renew the lease if it is still held; the thread calls this."""
        with self._changing:
            if self._lease is None or self._ended.is_set():
                return
            try:
                self._renewed(self._lease)
            except LeaseLostError:
                self._until = 0.0
            except StoreUnavailableError:
                pass  # There is time for more tries, or it ends.

    def _take(self) -> None:
        began = self._clock.monotonic()
        self._lease = self._leases.acquire(_NAME, self._holder, _SECONDS)
        self._until = began + _SECONDS - _MARGIN_SECONDS

    def _renewed(self, lease: Lease) -> None:
        began = self._clock.monotonic()
        self._lease = self._leases.renew(lease, _SECONDS)
        self._until = began + _SECONDS - _MARGIN_SECONDS

    def _keep(self) -> None:
        while not self._ended.wait(self._renew_seconds):
            self.renew()
