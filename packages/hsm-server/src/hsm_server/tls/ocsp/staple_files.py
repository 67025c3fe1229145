# SPDX-License-Identifier: MIT
"""OCSP responses in files, fetched by another program."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from hsm_server.tls.ocsp.errors import Fault, UnusableError
from hsm_server.tls.ocsp.response import (
    MAX_RESPONSE_BYTES,
    VerifiedResponse,
    check_response,
)
from hsm_server.tls.ocsp.subject import Subject
from hsm_server.tls.regular import open_regular

_MAX_FILE_BYTES: Final = 2 * MAX_RESPONSE_BYTES
_PEM: Final = re.compile(
    rb"-----BEGIN OCSP RESPONSE-----\s(.*?)\s?-----END OCSP RESPONSE-----", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Found:
    """
    Current content of the files.

    Attributes:
        answers: Responses by fingerprint of their certificate.
        useless: Files without a usable response, with the reason.
    """

    answers: dict[bytes, VerifiedResponse]
    useless: dict[Path, Fault]


def read_staples(
    paths: Sequence[Path], subjects: Sequence[Subject], now: datetime
) -> Found:
    """
    Read files, and give each response to the certificate that it is about.

    It is done again and again: nothing is concluded from a file's times.

    Args:
        paths: Of files with one response each, DER or PEM, at most 128 KiB.

        subjects: Certificates that are shown.

        now: In UTC.
    """
    found = Found({}, {})
    for path in paths:
        try:
            der = _read(path)
        except UnusableError as error:
            found.useless[path] = error.fault
            continue
        faults = [_give(der, subject, now, found) for subject in subjects]
        if None not in faults:
            found.useless[path] = _most_telling(faults)
    return found


def _give(der: bytes, subject: Subject, now: datetime, found: Found) -> Fault | None:
    try:
        found.answers[subject.fingerprint] = check_response(der, subject, now)
    except UnusableError as error:
        return error.fault
    return None


def _most_telling(faults: Sequence[Fault | None]) -> Fault:
    """Return why a response is of no use to the certificate that it is about."""
    for fault in faults:
        if fault is not None and fault is not Fault.OTHER_CERTIFICATE:
            return fault
    return Fault.OTHER_CERTIFICATE


def _read(path: Path) -> bytes:
    """Return a response as DER."""
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError:
        raise UnusableError(Fault.UNREADABLE) from None
    if len(data) > _MAX_FILE_BYTES:
        raise UnusableError(Fault.TOO_LARGE)
    pem = _PEM.search(data)
    if pem is None:
        return data
    try:
        return base64.b64decode(b"".join(pem[1].split()), validate=True)
    except binascii.Error:
        raise UnusableError(Fault.GARBAGE) from None
