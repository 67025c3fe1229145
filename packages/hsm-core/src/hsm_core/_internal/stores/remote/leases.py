# SPDX-License-Identifier: MIT
"""
Leases in a remote vault, and the writer lease of a key store there.

A lease is one object of a name, replaced only as it was read. What was released or has
expired stays stored, because its epoch counts on. An answer that got lost is looked
for: each call writes a random token with its lease, so that what it finds later is
either its own doing or somebody else's.

Time is the injected clock's. A clock that is set back makes a lease last longer, never
shorter, so that two holders can't come of it; one that is set forward ends a lease for
its holder too, who judges by the same clock.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias, TypeGuard

import msgspec

from hsm_core._internal.lib.encoding import made_by_newer, newer_format
from hsm_core.errors import (
    HSMError,
    InvalidInputError,
    LeaseHeldError,
    LeaseLostError,
    StoreLockedError,
    StoreUnavailableError,
    VaultConflictError,
)
from hsm_core.protocols import ABSENT, Clock, Entropy, Lease, Leases, RemoteKeyVault

_Rule: TypeAlias = Callable[[Lease | None], Lease | None]
"""Returns the lease to store in place of the current one; None changes nothing."""

_NAME: Final = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_HOLDER: Final = re.compile(r"[!-~]{1,128}")
_MOST_SECONDS: Final = 30 * 24 * 3600
_FORMAT: Final = 1
_CONFLICTS: Final = 64
_FAILURES: Final = 3
_TOKEN_BYTES: Final = 16

_WRITER: Final = "writer"
_SECONDS: Final = 30.0
_MARGIN_SECONDS: Final = 6.0
_RENEW_SECONDS: Final = 6.0
_POLL_SECONDS: Final = 1.0


class DamagedLeaseError(StoreUnavailableError):
    """The stored lease is invalid; waiting does not help."""


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    name: str
    holder: str
    epoch: int
    expires_at: int
    token: str = ""


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(_Stored)


def encode_lease(lease: Lease, token: str = "") -> bytes:
    """
    Return the stored form of a lease.

    Args:
        lease: What to store.

        token: Random; makes the stored form one that nobody else has written.
    """
    return _ENCODER.encode(
        _Stored(
            format=_FORMAT,
            name=lease.name,
            holder=lease.holder,
            epoch=lease.epoch,
            expires_at=lease.expires_at,
            token=token,
        )
    )


def decode_lease(name: str, stored: bytes) -> Lease:
    """
    Return the lease that a stored form is.

    Raises:
        DamagedLeaseError: It is none, or another name's.
        StoreUnavailableError: A newer release has written it.
    """
    try:
        found = _DECODER.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = f"The lease {name}"
        if newer := newer_format(stored, _FORMAT):
            raise StoreUnavailableError(made_by_newer(what, newer, _FORMAT)) from error
        raise DamagedLeaseError(f"{what} is damaged: it can't be decoded.") from error
    if found.format > _FORMAT:
        what = f"The lease {name}"
        raise StoreUnavailableError(made_by_newer(what, found.format, _FORMAT))
    if found.format != _FORMAT or found.name != name or found.epoch < 1:
        raise DamagedLeaseError(
            f"The lease {name} is damaged: its format, name or epoch is wrong."
        )
    return Lease(
        name=name,
        holder=found.holder,
        epoch=found.epoch,
        expires_at=found.expires_at,
    )


class RemoteLeases(Leases):
    """
    Leases as objects ``leases/NAME`` of a vault.

    Args:
        vault: Where they lie.

        clock: Tells when a lease has expired; the clocks of all holders must agree to
            within what a holder leaves before the end of its lease.

        entropy: Source of the tokens.
    """

    def __init__(self, vault: RemoteKeyVault, clock: Clock, entropy: Entropy) -> None:
        self._vault = vault
        self._clock = clock
        self._entropy = entropy

    def __repr__(self) -> str:
        return f"<RemoteLeases in {self._vault!r}>"

    def acquire(self, name: str, holder: str, seconds: float, /) -> Lease:
        """Acquire a free lease; see `Leases.acquire`."""
        if not _NAME.fullmatch(name):
            raise InvalidInputError(
                "name must be 1 to 64 lower-case letters, digits, dots and hyphens, "
                "a letter first.",
                field="name",
            )
        if not _HOLDER.fullmatch(holder):
            raise InvalidInputError(
                "holder must be 1 to 128 visible ASCII characters.", field="holder"
            )
        length = _microseconds(seconds)

        def rule(found: Lease | None) -> Lease:
            now = self._clock.now()
            if found is not None and found.expires_at > now:
                raise LeaseHeldError(
                    f"The lease {name} is held by {found.holder}.",
                    expires_at=found.expires_at,
                )
            epoch = 1 if found is None else found.epoch + 1
            return Lease(name=name, holder=holder, epoch=epoch, expires_at=now + length)

        return self._made(name, rule)

    def renew(self, lease: Lease, seconds: float, /) -> Lease:
        """Extend a lease from now; see `Leases.renew`."""
        length = _microseconds(seconds)

        def rule(found: Lease | None) -> Lease:
            now = self._clock.now()
            if not _is_same(found, lease) or found.expires_at <= now:
                raise LeaseLostError(f"The lease {lease.name} is lost.")
            return msgspec.structs.replace(found, expires_at=now + length)

        return self._made(lease.name, rule)

    def release(self, lease: Lease, /) -> None:
        """Release a lease; see `Leases.release`."""

        def rule(found: Lease | None) -> Lease | None:
            if not _is_same(found, lease) or not found.expires_at:
                return None
            return msgspec.structs.replace(found, expires_at=0)

        self._change(lease.name, rule)

    def _made(self, name: str, rule: Callable[[Lease | None], Lease]) -> Lease:
        made = self._change(name, rule)
        if made is None:
            raise StoreUnavailableError(f"The lease {name} was not stored.")
        return made

    def _change(self, name: str, rule: _Rule) -> Lease | None:
        token = self._entropy.random_bytes(_TOKEN_BYTES).hex()
        written: dict[bytes, Lease] = {}
        conflicts = failures = 0
        while True:
            try:
                return self._attempt(name, rule, token, written)
            except VaultConflictError as error:
                conflicts += 1
                if conflicts == _CONFLICTS:
                    raise StoreUnavailableError(
                        f"The lease {name} keeps changing; try again."
                    ) from error
            except StoreUnavailableError:
                # With nothing written yet, there is no lost answer to look for.
                failures += 1
                if failures == _FAILURES or not written:
                    raise

    def _attempt(
        self, name: str, rule: _Rule, token: str, written: dict[bytes, Lease]
    ) -> Lease | None:
        path = f"leases/{name}"
        found = self._vault.get(path)
        if found is not None and found.data in written:
            return written[found.data]
        wanted = rule(None if found is None else _decoded(name, path, found.data))
        if wanted is None:
            return None
        data = encode_lease(wanted, token)
        written[data] = wanted
        self._vault.put(path, data, expected=ABSENT if found is None else found.tag)
        return wanted


def _is_same(found: Lease | None, lease: Lease) -> TypeGuard[Lease]:
    return (
        found is not None
        and found.holder == lease.holder
        and found.epoch == lease.epoch
    )


def _microseconds(seconds: float) -> int:
    if not (math.isfinite(seconds) and 0 < seconds <= _MOST_SECONDS):
        raise InvalidInputError(
            f"seconds must be above 0 and at most {_MOST_SECONDS}.", field="seconds"
        )
    return max(1, round(seconds * 1_000_000))


def _decoded(name: str, path: str, stored: bytes) -> Lease:
    try:
        return decode_lease(name, stored)
    except DamagedLeaseError as error:
        raise DamagedLeaseError(
            f"{error} Stop every server that uses this key store, wait a minute, "
            f"delete the object {path}, then start a server."
        ) from error


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
        self._lease = self._leases.acquire(_WRITER, self._holder, _SECONDS)
        self._until = began + _SECONDS - _MARGIN_SECONDS

    def _renewed(self, lease: Lease) -> None:
        began = self._clock.monotonic()
        self._lease = self._leases.renew(lease, _SECONDS)
        self._until = began + _SECONDS - _MARGIN_SECONDS

    def _keep(self) -> None:
        while not self._ended.wait(self._renew_seconds):
            self.renew()
