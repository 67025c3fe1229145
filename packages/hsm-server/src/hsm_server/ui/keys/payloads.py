# SPDX-License-Identifier: MIT
"""Inputs and outputs of test operations, as text, base64 or hex."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hsm_core.errors import InvalidInputError, PayloadTooLargeError
from hsm_server.ui.forms import Form

MOST_BYTES: Final = 64 * 1024
"""Maximum length of an input, in bytes."""

_LONGEST_HEX: Final = 1024


@dataclass(frozen=True, slots=True)
class OutputBytes:
    """
    Bytes as a page shows them.

    Attributes:
        label: Label.
        text: As text, if requested and printable UTF-8; else None.
        hex: Empty if longer than 1024 bytes.
        is_secret: Whether they are folded until requested.
    """

    label: str
    length: int
    base64: str
    hex: str
    text: str | None
    is_secret: bool


def shown(
    label: str, data: bytes, *, is_text: bool = False, is_secret: bool = False
) -> OutputBytes:
    """Return bytes as a page shows them."""
    return OutputBytes(
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


def read_bytes(form: Form, name: str) -> bytes:
    """
    Return the bytes of a field, or of the file ``<name>_file``.

    ``<name>_form`` is the field's encoding.

    Raises:
        InvalidInputError: It is not in its encoding, or there is a file too.
        PayloadTooLargeError: It is longer than `MOST_BYTES`.
    """
    text, data = form.get(name), form.file(f"{name}_file")
    if text and data:
        raise InvalidInputError("Enter text or choose a file, not both.", field=name)
    data = data or _read(text, form.get(f"{name}_form", "text"), name)
    if len(data) > MOST_BYTES:
        raise PayloadTooLargeError(name, actual=len(data), maximum=MOST_BYTES)
    return data


def _read(text: str, form: str, name: str) -> bytes:
    if form not in _READERS:
        raise InvalidInputError("Encoding must be text, base64 or hex.", field=name)
    try:
        return _READERS[form](text)
    except (binascii.Error, ValueError):
        raise InvalidInputError(f"Not valid {form}.", field=name) from None


def _base64(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)


_READERS: Final[dict[str, Callable[[str], bytes]]] = {
    "text": str.encode,
    "base64": _base64,
    "hex": bytes.fromhex,
}
FORMS: Final = tuple(_READERS)
"""Encodings of an input."""
