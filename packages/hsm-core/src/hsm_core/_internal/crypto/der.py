# SPDX-License-Identifier: MIT
"""
Keys as DER: SubjectPublicKeyInfo and PKCS#8.

Keys of curves, post-quantum keys and composites are raw bytes under an OID, so one
writer and one strict reader serve them all, whatever their provider can read itself.
Only what the writer would write is accepted: definite and shortest lengths, no trailing
bytes.

Standard:
    ITU-T X.690, section 10 (DER); RFC 5958; RFC 9881, 9909 and 9935, sections 4 and 6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import InvalidInputError

SEQUENCE: Final = 0x30
OCTET_STRING: Final = 0x04
_BIT_STRING: Final = 0x03
_OID: Final = 0x06
_SEED: Final = 0x80
_VERSION_0: Final = b"\x02\x01\x00"

_NULL: Final = b"\x05\x00"


@dataclass(frozen=True, slots=True)
class PrivateForm:
    """
    Parts of a private key of ML-KEM or ML-DSA in PKCS#8.

    Attributes:
        seed: Empty if only the expanded key was there.
        expanded: Empty if only the seed was there; nobody has checked it.
    """

    seed: bytes = field(repr=False)
    expanded: bytes = field(repr=False)


def invalid_key(algorithm: Algorithm, field: str, words: str) -> InvalidInputError:
    """Return the error for a key that can't be used, and why."""
    return InvalidInputError(
        f"{field} {words}.", field=field, algorithm=algorithm.value
    )


def bad_material(algorithm: Algorithm, reason: str) -> InvalidInputError:
    """Return the error for unusable private-key material."""
    return invalid_key(algorithm, "material", f"of {algorithm} {reason}")


def wrong_root(algorithm: Algorithm) -> InvalidInputError:
    """Return the error for a key of SLH-DSA whose root is not that of its seeds."""
    return bad_material(algorithm, "holds a public root that does not match its seeds")


def not_material(algorithm: Algorithm) -> InvalidInputError:
    """Return the error for material of another algorithm or form."""
    words = f"is not a private key of {algorithm} in PKCS#8, DER"
    return invalid_key(algorithm, "material", words)


def not_public_key(algorithm: Algorithm) -> InvalidInputError:
    """Return the error for a public key of another algorithm or form."""
    words = f"is not a SubjectPublicKeyInfo of {algorithm}, in DER"
    return invalid_key(algorithm, "public_key", words)


def bad_public_key(algorithm: Algorithm) -> InvalidInputError:
    """Return the error for a well-formed public key with an invalid value."""
    words = f"is not a valid public key of {algorithm}"
    return invalid_key(algorithm, "public_key", words)


def subject_public_key_info(algorithm: Algorithm, raw: bytes) -> bytes:
    """Return SubjectPublicKeyInfo of a raw public key."""
    return element(
        SEQUENCE, algorithm_identifier(algorithm), element(_BIT_STRING, b"\0", raw)
    )


def read_public_key_info(algorithm: Algorithm, der: bytes) -> bytes:
    """
    Return the raw public key of SubjectPublicKeyInfo.

    Raises:
        InvalidInputError: It is not the one form of a key of this algorithm.
    """
    raw = der[-spec(algorithm).public_bytes :]
    if der != subject_public_key_info(algorithm, raw):
        raise not_public_key(algorithm)
    return raw


def private_key_info(algorithm: Algorithm, octets: bytes) -> bytes:
    """Return PKCS#8, version 0, whose private key is these octets."""
    return element(
        SEQUENCE,
        _VERSION_0,
        algorithm_identifier(algorithm),
        element(OCTET_STRING, octets),
    )


def read_private_key_info(algorithm: Algorithm, der: bytes) -> bytes:
    """
    Return the private-key octets of PKCS#8, version 0, without attributes.

    Raises:
        InvalidInputError: It is not PKCS#8 of this algorithm, in DER.
    """
    start = _VERSION_0 + algorithm_identifier(algorithm)
    try:
        body = _only(SEQUENCE, der)
        if body.startswith(start):
            return _only(OCTET_STRING, body[len(start) :])
    except NotDERError:
        pass
    raise not_material(algorithm)


def read_raw_private_key(algorithm: Algorithm, der: bytes) -> bytes:
    """
    Return the private key of PKCS#8 that holds raw bytes, such as one of SLH-DSA.

    Raises:
        InvalidInputError: It is not PKCS#8 of this algorithm, or of another length.
    """
    octets = read_private_key_info(algorithm, der)
    if len(octets) != spec(algorithm).private_bytes:
        raise bad_material(algorithm, f"has a private key of {len(octets)} bytes")
    return octets


def seed_key_info(algorithm: Algorithm, seed: bytes) -> bytes:
    """Return PKCS#8 of a seed, in the form that RFC 9881 and RFC 9935 recommend."""
    return private_key_info(algorithm, element(_SEED, seed))


def expanded_key_info(algorithm: Algorithm, expanded: bytes) -> bytes:
    """Return PKCS#8 of an expanded key, where its provider has no seed to keep."""
    return private_key_info(algorithm, element(OCTET_STRING, expanded))


def read_private_form(algorithm: Algorithm, der: bytes) -> PrivateForm:
    """
    Read PKCS#8 of ML-KEM or ML-DSA in any of its three forms: seed, expanded, both.

    Raises:
        InvalidInputError: It is none of them, or a part is of another length.
    """
    octets = read_private_key_info(algorithm, der)
    short, long = spec(algorithm).private_bytes, spec(algorithm).expanded_bytes
    try:
        if octets[:1] == bytes([_SEED]):
            form, sizes = PrivateForm(_only(_SEED, octets), b""), (short, 0)
        elif octets[:1] == bytes([OCTET_STRING]):
            form, sizes = PrivateForm(b"", _only(OCTET_STRING, octets)), (0, long)
        else:
            seed, rest = _first(OCTET_STRING, _only(SEQUENCE, octets))
            form = PrivateForm(seed, _only(OCTET_STRING, rest))
            sizes = (short, long)
    except NotDERError:
        raise not_material(algorithm) from None
    if (len(form.seed), len(form.expanded)) != sizes:
        raise not_material(algorithm)
    return form


class NotDERError(Exception):
    """The bytes are not the expected DER element."""


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """
    Yield the elements of DER that follow one another: tag, and the whole element.

    Raises:
        NotDERError: The bytes are something else.
    """
    while data:
        _, rest = _first(data[0], data)
        yield data[0], data[: len(data) - len(rest)]
        data = rest


def element(tag: int, *parts: bytes) -> bytes:
    """Return an element of DER: tag, length, and its parts."""
    body = b"".join(parts)
    return bytes([tag]) + _length(len(body)) + body


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


def _first(tag: int, data: bytes) -> tuple[bytes, bytes]:
    """Return the content of the first element, and what follows it."""
    if len(data) < 2 or data[0] != tag:
        raise NotDERError
    start = 2 if data[1] < 0x80 else 2 + (data[1] & 0x7F)
    size = data[1] if data[1] < 0x80 else int.from_bytes(data[2:start], "big")
    body, rest = data[start : start + size], data[start + size :]
    if len(body) != size or data[1:start] != _length(size):
        raise NotDERError
    return body, rest


def _only(tag: int, data: bytes) -> bytes:
    body, rest = _first(tag, data)
    if rest:
        raise NotDERError
    return body


@cache
def algorithm_identifier(algorithm: Algorithm) -> bytes:
    """
    Return AlgorithmIdentifier, whose parameters are a named curve, NULL or nothing.

    Standard:
        RFC 3279, section 2.3.1 (RSA); RFC 5480, section 2.1.1 (EC); RFC 8410 and those
        of post-quantum keys (nothing).
    """
    row = spec(algorithm)
    parameters = _NULL if row.modulus_bits else b""
    if row.curve_oid:
        parameters = object_identifier(row.curve_oid)
    return element(SEQUENCE, object_identifier(row.oid), parameters)


def object_identifier(dotted: str) -> bytes:
    """Return OBJECT IDENTIFIER."""
    first, second, *arcs = map(int, dotted.split("."))
    return element(_OID, b"".join(map(_base128, (40 * first + second, *arcs))))


def _base128(number: int) -> bytes:
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(0x80 | (number & 0x7F))
    return bytes(reversed(groups))
