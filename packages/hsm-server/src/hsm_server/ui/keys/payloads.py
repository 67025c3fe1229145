# SPDX-License-Identifier: MIT
"""Small inputs and outputs of keys as people type and read them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hsm_core.errors import InvalidInputError, PayloadTooLargeError
from hsm_server.ui.forms import Form

MOST_BYTES: Final = 64 * 1024
"""Longest input that is tried out here, in bytes."""

_LONGEST_HEX: Final = 1024


@dataclass(frozen=True, slots=True)
class Shown:
    """
    Bytes to show.

    Attributes:
        label: What they are.
        text: As text, where they are printable UTF-8 and meant to be read; or None.
        hex: Empty for what is long.
        is_secret: Whether they are only to be seen by who asks for it.
    """

    label: str
    length: int
    base64: str
    hex: str
    text: str | None
    is_secret: bool


def shown(
    label: str, data: bytes, *, is_text: bool = False, is_secret: bool = False
) -> Shown:
    """Return bytes as a page shows them."""
    return Shown(
        label,
        len(data),
        base64.b64encode(data).decode(),
        data.hex() if len(data) <= _LONGEST_HEX else "",
        _readable(data) if is_text else None,
        is_secret,
    )


def _readable(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    plain = all(character.isprintable() or character in "\n\t" for character in text)
    return text if plain else None


def given_bytes(form: Form, name: str) -> bytes:
    """
    Return what was given in a field, or the file ``<name>_file`` in its place.

    Its neighbour ``<name>_form`` says how the field is to be read.

    Raises:
        InvalidInputError: It is not written so, or there is a file besides.
        PayloadTooLargeError: It is too long to be tried out here.
    """
    text, data = form.get(name), form.file(f"{name}_file")
    if text and data:
        raise InvalidInputError("Give a text or a file, and not both.", field=name)
    data = data or _read(text, form.get(f"{name}_form", "text"), name)
    if len(data) > MOST_BYTES:
        raise PayloadTooLargeError(name, actual=len(data), maximum=MOST_BYTES)
    return data


def _read(text: str, form: str, name: str) -> bytes:
    if form not in _READERS:
        raise InvalidInputError("Say how it is written.", field=name)
    try:
        return _READERS[form](text)
    except (binascii.Error, ValueError):
        raise InvalidInputError(f"This is not {form}.", field=name) from None


def _base64(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)


_READERS: Final[dict[str, Callable[[str], bytes]]] = {
    "text": str.encode,
    "base64": _base64,
    "hex": bytes.fromhex,
}
FORMS: Final = tuple(_READERS)
"""How an input may be written down."""
