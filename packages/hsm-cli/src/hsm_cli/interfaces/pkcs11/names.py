# SPDX-License-Identifier: MIT
"""CKA_LABEL, CKA_ID and CKA_ALLOWED_MECHANISMS of a key: its name, tags and ID."""

from __future__ import annotations

import base64
import re
import uuid
from typing import Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_core.model import KeyInfo

_LABEL: Final = "pkcs11-label:"
_ID: Final = "pkcs11-id:"
_MECHANISMS: Final = "pkcs11-mechanisms:"
_NAME: Final = re.compile(rb"[0-9a-z][0-9a-z._-]{0,63}")
_UUID_BYTES: Final = 16
_VERSION_BYTES: Final = 4
_LONGEST_TAG: Final = 64


def label_of(info: KeyInfo) -> bytes:
    """Return CKA_LABEL: the label given by a program, or the name, or the ID."""
    given = _given(info, _LABEL)
    return (info.name or info.key_id).encode() if given is None else given


def id_of(info: KeyInfo, version: int) -> bytes:
    """
    Return CKA_ID: the ID that a program gave or the key's, with an older version.

    So the current version has the same CKA_ID for as long as the key exists.
    """
    given = _given(info, _ID)
    current = uuid.UUID(info.key_id).bytes if given is None else given
    if version == info.version:
        return current
    return current + version.to_bytes(_VERSION_BYTES, "big")


def candidates(identifier: bytes) -> list[str]:
    """Return what finds the keys of a CKA_ID: key IDs, and tags (with a colon)."""
    found = []
    for part in (identifier, identifier[:-_VERSION_BYTES]):
        if len(part) == _UUID_BYTES:
            found.append(str(uuid.UUID(bytes=part)))
        tag = _ID + _text(part)
        if part and len(tag) <= _LONGEST_TAG:
            found.append(tag)
    return found


def label_candidates(label: bytes) -> list[str]:
    """Return what finds the keys of a CKA_LABEL: a name, and a tag (with a colon)."""
    found = [label.decode()] if _NAME.fullmatch(label) else []
    tag = _LABEL + _text(label)
    return [*found, tag] if len(tag) <= _LONGEST_TAG else found


def name_from(label: bytes) -> str:
    """Return the name of a key with this label; empty if it can't be one."""
    # The form of a UUID is an ID's.
    is_name = _NAME.fullmatch(label) and len(label) != len(str(uuid.UUID(int=0)))
    return label.decode() if is_name else ""


def label_tag(label: bytes) -> str:
    """
    Return the tag that holds a label.

    Raises:
        CryptokiError: It is longer than 37 bytes.
    """
    return _tag(_LABEL, label)


def id_tag(identifier: bytes) -> str:
    """
    Return the tag that holds a CKA_ID.

    Raises:
        CryptokiError: It is longer than 40 bytes.
    """
    return _tag(_ID, identifier)


def mechanisms_tag(kinds: tuple[int, ...]) -> str:
    """
    Return the tag that holds the mechanisms that a key is for.

    Raises:
        CryptokiError: They are too many for a tag.
    """
    tag = _MECHANISMS + ".".join(f"{kind:x}" for kind in kinds)
    if len(tag) > _LONGEST_TAG:
        raise CryptokiError(
            ck.CKR_ATTRIBUTE_VALUE_INVALID,
            "CKA_ALLOWED_MECHANISMS lists too many mechanisms: at most "
            f"{_LONGEST_TAG - len(_MECHANISMS)} characters, in hex, joined by dots.",
        )
    return tag


def mechanisms_of(info: KeyInfo) -> tuple[int, ...] | None:
    """
    Return the mechanisms that a key is for; None if it is for all.

    A tag that can't be read allows none.
    """
    for tag in info.tags:
        if tag.startswith(_MECHANISMS):
            parts = tag[len(_MECHANISMS) :].split(".")
            try:
                return tuple(int(part, 16) for part in parts)
            except ValueError:
                return ()
    return None


def without(tags: tuple[str, ...], tag: str) -> tuple[str, ...]:
    """Return tags without those that hold the same as *tag*."""
    kind = tag[: tag.index(":") + 1]
    return tuple(one for one in tags if not one.startswith(kind))


def _tag(kind: str, data: bytes) -> str:
    tag = kind + _text(data)
    if len(tag) > _LONGEST_TAG:
        raise CryptokiError(
            ck.CKR_ATTRIBUTE_VALUE_INVALID,
            f"CKA_LABEL takes at most 37 bytes, CKA_ID 40, got {len(data)}.",
        )
    return tag


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _given(info: KeyInfo, kind: str) -> bytes | None:
    for tag in info.tags:
        if tag.startswith(kind):
            text = tag[len(kind) :]
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            except ValueError:
                return None
    return None
