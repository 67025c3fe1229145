# SPDX-License-Identifier: MIT
"""
Finds secrets in the memory of a running process, whatever they are dressed as.

Every guise of every secret is cut into windows of eight bytes, at each of its places,
and memory is read as numbers of eight bytes: those of both that are equal come out of
one pass, however many secrets there are. What is found so is compared byte by byte. So
not only whole secrets are found, but also what is left of one, from 16 bytes on.
"""

import base64
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

_WINDOW = 8
_CHUNK_BYTES = 256 * 1024
_OVERLAP_BYTES = 4096
_TEXT_OCTETS = 96
_DIGIT_BITS = 30
_KERNELS = ("[vvar", "[vsyscall")
_NOTHING = bytes(_CHUNK_BYTES + _OVERLAP_BYTES)


@dataclass(frozen=True)
class Guise:
    """
    One way in which a secret may look.

    Attributes:
        secret: Name of the secret.
        dress: What it is dressed as.
        octets: How it looks.
        enough: How many of them, one after the other, are a finding.
    """

    secret: str
    dress: str
    octets: bytes
    enough: int


@dataclass(frozen=True)
class Finding:
    """A secret in memory, or a part of it."""

    secret: str
    dress: str
    length: int
    address: int
    mapping: str

    def __str__(self) -> str:
        """Return what a reader of a failed test wants to know."""
        place = self.mapping or "anonymous memory"
        return f"{self.length} bytes of {self.secret} as {self.dress} in {place}"


def guises(name: str, secret: bytes) -> Iterator[Guise]:
    """
    Return how a secret may look in memory.

    Raw also is PKCS#8, or any other frame; base64 also is PEM, for what stands in one
    of its lines is enough. Of a secret longer than 96 bytes, texts are looked for by
    the first of these.

    Args:
        name: What to call it.

        secret: At least 16 bytes, so that none of these is found by chance.
    """
    assert len(secret) >= 16, name
    start = secret[:_TEXT_OCTETS]
    numbers = [str(octet) for octet in start]
    yield Guise(name, "raw", secret, 16)
    yield Guise(name, "limbs", secret[::-1], 16)
    yield Guise(name, "digits of an int", _digits(int.from_bytes(secret)), 16)
    yield Guise(name, "hex", start.hex().encode(), 32)
    yield Guise(name, "HEX", start.hex().upper().encode(), 32)
    yield Guise(name, "decimal", str(int.from_bytes(start)).encode(), 32)
    yield Guise(name, "list", ",".join(numbers).encode(), 40)
    yield Guise(name, "list with blanks", ", ".join(numbers).encode(), 48)
    for offset in range(3):
        # The first and last characters depend on what stands beside the secret.
        data = bytes(offset) + start
        text = base64.b64encode(data[: len(data) // 3 * 3])[4 if offset else 0 :]
        yield Guise(name, "base64", text, 20)
        if text.translate(_URLSAFE) != text:
            yield Guise(name, "base64url", text.translate(_URLSAFE), 20)


_URLSAFE = bytes.maketrans(b"+/", b"-_")


def _digits(number: int) -> bytes:
    """Return a number as Python keeps it: 30 bits in each four bytes."""
    digits = b""
    while number:
        digits += (number & ((1 << _DIGIT_BITS) - 1)).to_bytes(4, "little")
        number >>= _DIGIT_BITS
    return digits


class Wanted:
    """
    Secrets that are looked for.

    Args:
        secrets: By name, each at least 16 bytes.
    """

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self.names = frozenset(secrets)
        self._guises = [g for name in secrets for g in guises(name, secrets[name])]
        self._windows: dict[int, list[int]] = {}
        for number, guise in enumerate(self._guises):
            self._add(number, guise.octets)
        # Eight zeros are everywhere, and are no secret.
        self._windows.pop(0, None)

    def _add(self, number: int, octets: bytes) -> None:
        # One list for each guise, and not for each window, of which there are millions.
        own = [number]
        for start in range(len(octets) - _WINDOW + 1):
            word = int.from_bytes(octets[start : start + _WINDOW], "little")
            before = self._windows.setdefault(word, own)
            if before is not own:
                self._windows[word] = [*before, number]

    def find(self, data: bytes) -> Iterator[tuple[int, Guise, int]]:
        """Return where in *data* (in steps of 8 bytes) what stands, and how long."""
        words = memoryview(data)[: len(data) // _WINDOW * _WINDOW].cast("Q")
        seen = set()
        for word in self._windows.keys() & words:
            window = word.to_bytes(_WINDOW, "little")
            for number in self._windows[word]:
                for found in _matches(data, self._guises[number], window):
                    if found not in seen:
                        seen.add(found)
                        yield found


def _matches(
    data: bytes, guise: Guise, window: bytes
) -> Iterator[tuple[int, Guise, int]]:
    """Return every place where enough of a guise stands round a window."""
    inner = guise.octets.find(window)
    at = data.find(window)
    while at >= 0:
        first, last, octets = at, at + _WINDOW, guise.octets
        left, right = inner, inner + _WINDOW
        while left and first and octets[left - 1] == data[first - 1]:
            left, first = left - 1, first - 1
        while right < len(octets) and last < len(data) and octets[right] == data[last]:
            right, last = right + 1, last + 1
        if last - first >= min(guise.enough, len(octets)):
            yield first, guise, last - first
        at = data.find(window, at + 1)


def scan(pid: int, wanted: Wanted) -> list[Finding]:
    """
    Look for secrets in all readable memory of a process.

    Args:
        pid: The process. It may go on running.

        wanted: What to look for.

    Raises:
        PermissionError: This process may not look there.
    """
    found: dict[tuple[int, str], Finding] = {}
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        mappings = _mappings(pid)
        for start, end in _joined(mappings):
            for address, data in _pieces(memory.fileno(), start, end):
                for at, guise, length in wanted.find(data):
                    place = address + at
                    name = next(n for a, b, n in mappings if a <= place < b)
                    finding = Finding(guise.secret, guise.dress, length, place, name)
                    before = found.get((place, guise.secret))
                    # Pieces overlap, and the end of one may cut a secret in two.
                    if before is None or before.length < length:
                        found[place, guise.secret] = finding
    return list(found.values())


def _mappings(pid: int) -> list[tuple[int, int, str]]:
    """Return start, end and name of what is readable."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        place, rights, *_, name = [*line.split(None, 5), ""][:6]
        if "r" in rights and not name.startswith(_KERNELS):
            start, end = (int(number, 16) for number in place.split("-"))
            found.append((start, end, name))
    return found


def _joined(mappings: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, int]]:
    """Return neighbours as one: what is looked for may lie in two of them."""
    begun = 0, 0
    for start, end, _ in mappings:
        if begun[1] == start:
            begun = begun[0], end
            continue
        yield begun
        begun = start, end
    yield begun


def _pieces(memory: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Return memory in pieces that overlap; what holds zeros alone is left out."""
    for address in range(start, end, _CHUNK_BYTES):
        first = max(start, address - _OVERLAP_BYTES)
        size = min(end, address + _CHUNK_BYTES) - first
        try:
            data = os.pread(memory, size, first)
        except OSError:
            # Pages behind the end of a mapped file, or unmapped a moment ago.
            continue
        if data != _NOTHING[: len(data)]:
            yield first, data


def require_memory() -> None:
    """Skip the running test unless the memory of other processes may be read."""
    if os.geteuid() != 0:
        pytest.skip("Only root may read the memory of processes that forbid it.")


def summary(findings: Iterable[Finding]) -> list[str]:
    """Return findings as sorted lines, for comparison with an empty list."""
    return sorted(map(str, findings))
