# SPDX-License-Identifier: MIT
"""What fuzzing has found: inputs that once raised what their parser does not say."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

import pytest

from tests.fuzzing.catalogue import all_targets
from tests.fuzzing.target import Target

TARGETS: Final = all_targets()


def _with_broken_key(target: Target) -> bytes:
    """Return a CA whose public key is no point of its curve."""
    _, begin, rest = target.seeds[0].partition(b"-----BEGIN CERTIFICATE-----\n")
    body, end, _ = rest.partition(b"\n-----END CERTIFICATE-----")
    der = bytearray(base64.b64decode(body))
    at = der.index(b"\x03\x42\x00\x04") + 4
    der[at : at + 8] = bytes(8)
    return begin + base64.encodebytes(bytes(der)).rstrip() + end + b"\n"


def _of_strange_version(target: Target) -> bytes:
    """Return a certificate of version 19."""
    return target.seeds[0].replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x12", 1)


def _of_strange_feature(target: Target) -> bytes:
    """Return a certificate that names a TLS feature which is unknown."""
    feature = b"\x30\x03\x02\x01"
    whole = target.seeds[1]
    assert whole.count(feature + b"\x05") == 1
    return whole.replace(feature + b"\x05", feature + b"\x0a")


def _of_no_name(target: Target) -> bytes:
    """Return a revocation list whose issuer's name holds something else."""
    return target.seeds[0].replace(b"\x0c\x04root", b"\xcc\x04root", 1)


def _with_compressed_point(target: Target) -> bytes:
    """Return a key as OpenSSH never writes it."""
    kind = b"ecdsa-sha2-nistp256"
    parts = (kind, b"nistp256", b"\x02" + bytes(32))
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return kind + b" " + base64.b64encode(blob)


FINDINGS: Final[dict[str, tuple[str, bytes | Callable[[Target], bytes]]]] = {
    "name of a field is no UTF-8, key ring": ("key-ring", b"\x81\xa1\xb8\x01"),
    "name of a field is no UTF-8, lease": ("lease", b'{"\xc1":1}'),
    "name of a field is no UTF-8, account": ("acme-cache", b'{"\xc1":1}'),
    "name of a field is no UTF-8, child": (
        "child-messages",
        b"\x82\xa4type\xa5ready\xa1\xc1\x01",
    ),
    "text that is no UTF-8, baseline": (
        "audit-baseline",
        lambda target: target.seeds[1].replace(b"key-0", b"\x91\x91\x91\x91\x91"),
    ),
    "text that is no UTF-8, head mark": ("head-mark", b"\x01" * 58 + b"\x91" * 128),
    "public key is none": ("client-authorities", _with_broken_key),
    "name of an issuer is none": ("revocation-list", _of_no_name),
    "feature that is unknown": ("client-certificate", _of_strange_feature),
    "name of a table is no text": (
        "audit-database",
        lambda target: target.seeds[0].replace(b"tablehead", b"table\xc1ead", 1),
    ),
    "statement of a table is no text": (
        "keys-database",
        lambda target: target.seeds[0].replace(b"tablekeys", b"table\xc1eys", 1),
    ),
    "point that is compressed": ("approver-key", _with_compressed_point),
    "version of a certificate": ("client-certificate", _of_strange_version),
    "version in a chain": ("certificate-chain", _of_strange_version),
    "name of a certificate is a bit string": (
        "certificate-chain",
        lambda target: target.seeds[0].replace(b"\x0c\x03ada", b"\x03\x03\0da"),
    ),
}
"""Targets and inputs, or what makes an input of the target's seeds, by what it is."""


@pytest.mark.parametrize("finding", FINDINGS)
def test_what_was_found_is_refused(finding: str) -> None:
    """
    An input that was found is refused as any other that is not good.
    """
    name, made = FINDINGS[finding]
    target = TARGETS[name]
    data = made if isinstance(made, bytes) else made(target)
    assert data not in target.seeds
    assert target.read(data) == 0
