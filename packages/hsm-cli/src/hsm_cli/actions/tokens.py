# SPDX-License-Identifier: MIT
"""Tokens that are given to a command: reading and decoding."""

from __future__ import annotations

import base64
import binascii
import sys
from typing import Any, Final

from hsm_cli.io.files import STDIN
from hsm_cli.io.output import print_note
from hsm_core.errors import InvalidInputError, MalformedError
from hsm_core.secret_input import is_literal_secret, read_secret_text

_LONGEST_BYTES: Final = 64 * 1024


def read_token(given: str, *, is_typed: bool) -> str:
    """
    Return a token that is given as such, or as @FILE, fd:N, or - for standard input.

    Args:
        given: The token, or its place.

        is_typed: Whether it is on the command line; then other users can see a token.

    Raises:
        HSMError: It can't be read.
    """
    if given == STDIN:
        if sys.stdin is None:
            raise InvalidInputError("Standard input is closed.", field="auth_token")
        data = sys.stdin.buffer.read(_LONGEST_BYTES)
        return data.decode("ascii", "replace").strip()
    if is_typed and is_literal_secret(given):
        print_note(
            "warning: other users can see TOKEN on the command line. Use @FILE, fd:N "
            "or - for standard input."
        )
    return read_secret_text(given, field="auth_token").strip()


def token_parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Return header and claims of a token; they are not verified.

    Raises:
        MalformedError: It is not a JWT in compact form.
    """
    from hsm_core import wire

    segments = token.split(".")
    if len(segments) != 3:
        raise MalformedError("The token is not a JWT: it must have three parts.")
    try:
        header, claims = (wire.scan_json(_unpadded(text)) for text in segments[:2])
    except (MalformedError, binascii.Error, ValueError):
        raise MalformedError("The token is not a JWT: it can't be decoded.") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise MalformedError(
            "The token is not a JWT: header and claims must be JSON objects."
        )
    return header, claims


def _unpadded(segment: str) -> bytes:
    return base64.b64decode(
        segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True
    )
