# SPDX-License-Identifier: MIT
"""Errors between a record store and its medium."""

from hsm_core.errors import IntegrityError, StoreUnavailableError


class UnsettledError(StoreUnavailableError):
    """
    A change was made, or may have been, or may be later; it is known after `reopen`.

    A later sync of what was written before must not be trusted.
    """


class DamagedRecordError(IntegrityError):
    """What lies in the place of a record is none, or longer than any."""
