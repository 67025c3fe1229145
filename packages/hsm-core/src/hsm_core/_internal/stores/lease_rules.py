# SPDX-License-Identifier: MIT
"""
Lease rules, independent of storage.

An implementation gives one step: read what is stored of a name, ask a rule what shall
stand there, and store that, with nobody in between. What was released or has expired
stays stored, because its epoch counts on.

Time is the injected clock's. A clock that is set back makes a lease last longer, never
shorter, so that two holders can't come of it; one that is set forward ends a lease for
its holder too, who judges by the same clock.
"""

from __future__ import annotations

import dataclasses
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, TypeAlias, TypeGuard

import msgspec

from hsm_core._internal.lib.stored_form import made_by_newer, newer_format
from hsm_core.errors import (
    InvalidInputError,
    LeaseHeldError,
    LeaseLostError,
    StoreUnavailableError,
)
from hsm_core.protocols import Clock, Lease, Leases

MAX_LEASE_BYTES: Final = 1024
"""Longest stored form of a lease."""

LeaseRule: TypeAlias = Callable[[Lease | None], Lease | None]
"""Returns the new stored form for the current one; None changes nothing."""

_NAME: Final = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_HOLDER: Final = re.compile(r"[!-~]{1,128}")
_MOST_SECONDS: Final = 30 * 24 * 3600
_FORMAT: Final = 1


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


class RuledLeases(ABC, Leases):
    """
    Leases over one step that an implementation makes.

    Args:
        clock: Tells when a lease has expired.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @abstractmethod
    def _change(self, name: str, rule: LeaseRule, /) -> Lease | None:
        """
        Replace the stored form of a name atomically, by a rule.

        Returns:
            What was stored, durably; None where the rule wanted no change.

        Raises:
            HSMError: Whatever the rule raises; nothing was changed.
            StoreUnavailableError: It can't be read or written.
        """

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
            return dataclasses.replace(found, expires_at=now + length)

        return self._made(lease.name, rule)

    def release(self, lease: Lease, /) -> None:
        """Release a lease; see `Leases.release`."""

        def rule(found: Lease | None) -> Lease | None:
            if not _is_same(found, lease) or not found.expires_at:
                return None
            return dataclasses.replace(found, expires_at=0)

        self._change(lease.name, rule)

    def _made(self, name: str, rule: Callable[[Lease | None], Lease]) -> Lease:
        made = self._change(name, rule)
        if made is None:
            raise StoreUnavailableError(f"The lease {name} was not stored.")
        return made


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
