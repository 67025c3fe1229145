# SPDX-License-Identifier: MIT
"""Options of approval decisions: approval ID, digest, signature."""

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
    """Add the parameter *approval_id*: ``ID`` or ``--approval-id``."""

    @click.argument("operand", required=False, metavar="[ID]")
    @click.option(
        "--approval-id", "option", metavar="ID", help="UUID of the approval request."
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any, operand: str | None, option: str | None, **kwargs: Any
    ) -> Any:
        approval_id = one_of(operand, option, name="ID", flag="--approval-id")
        return function(*args, approval_id=approval_id, **kwargs)

    return wrapper


def digest_option(function: F) -> Any:
    """Add the option ``--digest``."""
    return click.option(
        "--digest",
        default="",
        metavar="HEX",
        help="Continue only if the request has this digest.",
    )(function)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSigner:
    """
    Signer of a decision: a private key, a detached signature, or neither.

    Attributes:
        key: File of a private key.
        passphrase: Source of the passphrase of *key*.
        signature: File of a detached signature.
    """

    key: str | None
    passphrase: str | None
    signature: str | None

    @property
    def is_given(self) -> bool:
        """Whether the decision is signed."""
        return self.key is not None or self.signature is not None

    def sign(self, approval_id: str, digest: str, *, granted: bool) -> bytes | None:
        """Return the signature of a decision, or None if it is not signed."""
        if self.key is not None:
            # It loads all of the cryptography.
            from hsm_cli.identity.signing_keys import passphrase_source, sign_with

            text = statement(approval_id, digest, granted=granted)
            return sign_with(self.key, text, passphrase_source(self.passphrase))
        if self.signature is not None:
            return Source(what="signature", path=self.signature).read()
        return None


def signing_options(function: F) -> Any:
    """Add the options of signatures to a command, which gets them as *signer*."""

    @click.option(
        "--sign-with",
        metavar="FILE",
        help="Sign the decision with this private key: Ed25519 or ECDSA P-256, in PEM "
        "or OpenSSH format.",
    )
    @click.option(
        "--passphrase",
        envvar="FERROHSM_PASSPHRASE",
        show_envvar=True,
        metavar="SECRET",
        help="Passphrase of an encrypted key: @FILE or fd:N. Default: prompt on the "
        "terminal.",
    )
    @click.option(
        "--signature",
        "signature_path",
        metavar="FILE",
        help="Detached signature of the statement that show --statement prints.",
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
            raise click.UsageError(
                "--sign-with and --signature are mutually exclusive."
            )
        context = click.get_current_context()
        if given_as_flag(context, "passphrase") and is_literal_secret(passphrase or ""):
            raise click.UsageError(
                "Other users can see a passphrase on the command line. Pass "
                "--passphrase @FILE or fd:N."
            )
        signer = DecisionSigner(
            key=sign_with, passphrase=passphrase, signature=signature_path
        )
        return function(*args, signer=signer, **kwargs)

    return wrapper
