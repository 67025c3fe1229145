# SPDX-License-Identifier: MIT
"""PKCS#11 URIs (RFC 7512) of keys, also in the form of a PEM file."""

from __future__ import annotations

import base64
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from hsm_cli.interfaces.pkcs11.names import id_of
from hsm_cli.interfaces.pkcs11.objects import KEY_TYPES
from hsm_cli.interfaces.pkcs11.token import padded
from hsm_core.algorithms import Family, spec
from hsm_core.errors import UnsupportedOperationError
from hsm_core.model import KeyInfo

_SECRET: Final = frozenset({Family.AEAD, Family.KEY_WRAP, Family.MAC, Family.KDF})
_ALLOWED: Final = ":[]@!$'()*+,=&"
"""Characters beside unreserved ones that stand for themselves in a value."""

_PEM_NAME: Final = "PKCS#11 PROVIDER URI"
_PEM_TITLE: Final = b"PKCS#11 Provider URI v1.0"
_PEM_WIDTH: Final = 64

_SEQUENCE: Final = 0x30
_UTF8_STRING: Final = 0x0C
_VISIBLE_STRING: Final = 0x1A


class ObjectType(StrEnum):
    """Type of an object, the attribute *type* of a URI."""

    PRIVATE = "private"
    PUBLIC = "public"
    CERT = "cert"
    SECRET_KEY = "secret-key"  # noqa: S105 (a type, no secret)


def uri_of(info: KeyInfo, label: str, kind: ObjectType | None = None) -> str:
    """
    Return the URI of a key's current version, which stays the same after a rotation.

    Args:
        info: The key.

        label: Label of the token.

        kind: Type of the object; None means the key itself: private or secret.

    Raises:
        UnsupportedOperationError: PKCS#11 does not support the algorithm.
    """
    family = None if info.algorithm is None else spec(info.algorithm).family
    if family not in KEY_TYPES:
        raise UnsupportedOperationError(
            f"PKCS#11 does not support {info.algorithm} keys.", field="key_id"
        )
    own = ObjectType.SECRET_KEY if family in _SECRET else ObjectType.PRIVATE
    token = quote(padded(label, 32).rstrip(), safe=_ALLOWED)
    identifier = "".join(f"%{byte:02X}" for byte in id_of(info, info.version))
    return f"pkcs11:token={token};id={identifier};type={kind or own}"


def pem_of(uri: str) -> str:
    """Return the PEM file that OpenSSL's PKCS#11 provider reads as the key of a URI."""
    parts = _der(_VISIBLE_STRING, _PEM_TITLE) + _der(_UTF8_STRING, uri.encode())
    text = base64.b64encode(_der(_SEQUENCE, parts)).decode()
    lines = [text[i : i + _PEM_WIDTH] for i in range(0, len(text), _PEM_WIDTH)]
    return "\n".join(
        (f"-----BEGIN {_PEM_NAME}-----", *lines, f"-----END {_PEM_NAME}-----", "")
    )


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content
