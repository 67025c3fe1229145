# SPDX-License-Identifier: MIT
"""What people decide with: which approval they mean, its digest, and their pen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from hsm_cli.io.files import Source
from hsm_cli.io.operands import one_of
from hsm_cli.options.flags import given_as_flag
from hsm_core.consent import statement
from hsm_core.secret_input import is_literal_secret

F = TypeVar("F", bound=Callable[..., Any])


def approval_operand(function: F) -> Any:
    """Give a command its *approval_id*: as ``ID``, or with ``--approval-id``."""

    @click.argument("operand", required=False, metavar="[ID]")
    @click.option("--approval-id", "option", metavar="ID", help="UUID of the approval.")
    @functools.wraps(function)
    def wrapper(
        *args: Any, operand: str | None, option: str | None, **kwargs: Any
    ) -> Any:
        approval_id = one_of(operand, option, name="ID", flag="--approval-id")
        return function(*args, approval_id=approval_id, **kwargs)

    return wrapper


def digest_option(function: F) -> Any:
    """Give a command its *digest*."""
    return click.option(
        "--digest",
        default="",
        metavar="HEX",
        help="Go on only if this is the digest of what is asked for.",
    )(function)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pen:
    """
    With what somebody signs their decision, if they do.

    Attributes:
        key: File of a private key.
        passphrase: Where that of the key is.
        signature: File of a signature that was made elsewhere.
    """

    key: str | None
    passphrase: str | None
    signature: str | None

    @property
    def is_there(self) -> bool:
        """Whether they sign."""
        return self.key is not None or self.signature is not None

    def sign(self, approval_id: str, digest: str, *, granted: bool) -> bytes | None:
        """Return the signature, or None."""
        if self.key is not None:
            # It loads all of the cryptography.
            from hsm_cli.identity.signing_keys import passphrase_source, sign_with

            text = statement(approval_id, digest, granted=granted)
            return sign_with(self.key, text, passphrase_source(self.passphrase))
        if self.signature is not None:
            return Source(what="signature", path=self.signature).read()
        return None


def signing_options(function: F) -> Any:
    """Give a command its *pen*."""

    @click.option(
        "--sign-with",
        metavar="FILE",
        help="Sign it with a private key of your own: Ed25519 or ECDSA P-256, as PEM "
        "or as OpenSSH writes it.",
    )
    @click.option(
        "--passphrase",
        envvar="FERROHSM_PASSPHRASE",
        show_envvar=True,
        metavar="SECRET",
        help="Of an encrypted key: @FILE or fd:N. Else it is asked for.",
    )
    @click.option(
        "--signature",
        "signature_path",
        metavar="FILE",
        help="A signature that was made elsewhere, over what show --statement prints.",
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        sign_with: str | None,
        passphrase: str | None,
        signature_path: str | None,
        **kwargs: Any,
    ) -> Any:
        if sign_with is not None and signature_path is not None:
            raise click.UsageError("Give --sign-with or --signature, not both.")
        context = click.get_current_context()
        if given_as_flag(context, "passphrase") and is_literal_secret(passphrase or ""):
            raise click.UsageError(
                "Other users could see the passphrase; give --passphrase @FILE or fd:N."
            )
        pen = Pen(key=sign_with, passphrase=passphrase, signature=signature_path)
        return function(*args, pen=pen, **kwargs)

    return wrapper
