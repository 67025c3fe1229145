# SPDX-License-Identifier: MIT
"""HMAC key of an audit log or a ledger that is verified offline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, overload

import click

from hsm_core.secret_input import read_secret

_HMAC_KEY_BYTES: Final = 32


def hmac_key_option(
    what: str, *, required: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Add the option *hmac_key*: a source of a secret, or None.

    Args:
        what: Description of the key.

        required: Whether the option is required.
    """
    without = (
        ""
        if required
        else " Without it only the hash chain is checked, which an attacker can forge."
    )
    return click.option(
        "--hmac-key",
        envvar="FERROHSM_HMAC_KEY",
        show_envvar=True,
        required=required,
        metavar="SECRET",
        help=f"{what}: base64, @FILE or fd:N.{without}",
    )


@overload
def read_hmac_key(form: str) -> bytes: ...


@overload
def read_hmac_key(form: str | None) -> bytes | None: ...


def read_hmac_key(form: str | None) -> bytes | None:
    """
    Read an HMAC key of 32 bytes, or return None.

    Raises:
        InvalidInputError: It can't be read, or has a wrong length.
    """
    if form is None:
        return None
    return read_secret(
        form, field="hmac_key", minimum=_HMAC_KEY_BYTES, exact=_HMAC_KEY_BYTES
    )


def describe_checks(*, macs: bool) -> str:
    """Describe the checks that were made, with or without the key."""
    if macs:
        return "every MAC and the hash chain"
    return "the hash chain only, which an attacker can forge; pass --hmac-key"


def end_pair(*, is_clean: bool, in_use: bool) -> tuple[str, str]:
    """Return the state of the end of a log, as a name and a value."""
    if in_use:
        return "state", "in use by a server"
    return "closed cleanly", "yes" if is_clean else "no"
