# SPDX-License-Identifier: MIT
"""The key of a trail or a ledger that is verified here, without a server."""

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
    Give a command *hmac_key*: a form of secret, or None.

    Args:
        what: Whose key it is, and when it is to be given.

        required: The command can't do without it.
    """
    without = (
        ""
        if required
        else " Without it only the chain is checked, which a forger can make anew."
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
    Return the key that a form of secret stands for, 32 bytes, or None.

    Raises:
        InvalidInputError: It can't be read, or has another length.
    """
    if form is None:
        return None
    return read_secret(
        form, field="hmac_key", minimum=_HMAC_KEY_BYTES, exact=_HMAC_KEY_BYTES
    )


def checked(*, macs: bool) -> str:
    """Say what was checked, with or without the key."""
    if macs:
        return "every MAC and the chain"
    return "the chain only, which a forger can make anew; give --hmac-key"


def end_pair(*, is_clean: bool, in_use: bool) -> tuple[str, str]:
    """Return how a trail or a ledger ends, as a name and a value."""
    if in_use:
        return "state", "open: the server runs"
    return "closed in order", "yes" if is_clean else "no"
