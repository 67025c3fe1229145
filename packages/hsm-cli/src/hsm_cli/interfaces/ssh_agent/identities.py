# SPDX-License-Identifier: MIT
"""Identities of an agent: keys of the HSM with tags for SSH, and certificates."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from hsm_cli.interfaces.ssh_agent.certificates import read_certificate_file
from hsm_cli.interfaces.ssh_agent.signatures import ALGORITHMS, encode_public_key
from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.errors import HSMError, KeyNotFoundError
from hsm_core.model import KeyInfo, KeyState
from hsm_core.operations import DescribeKey, GetPublicKey, ListKeys
from hsm_core.protocols import HSM

PREFIX: Final = "ssh-"
"""Beginning of tags that say what a key signs."""

_MOST: Final = 256
"""Identities of an agent. Servers disconnect clients that try so many keys anyway."""

_FRESH_SECONDS: Final = 10.0
"""Time in which a signature does not read the keys again."""


class OfferedKey(msgspec.Struct, frozen=True):
    """
    Key or certificate that the agent offers.

    Attributes:
        blob: Public key, or certificate with it.
        public_key: Public key.
        comment: Name of the key, or its ID.
    """

    blob: bytes
    public_key: bytes
    key_id: str
    version: int
    algorithm: Algorithm
    tags: frozenset[str]
    comment: str


class Identities:
    """
    Keys that the agent offers. Thread-safe.

    Args:
        keys: Names or IDs of the keys; if empty, all active keys with a tag for SSH.

        certificates: Files with certificates of users. They are read for each list, so
            renewed ones are used at once.

        log: Gets a line for each key or certificate that can't be used, once.
    """

    def __init__(
        self,
        keys: Sequence[str],
        certificates: Sequence[Path],
        log: Callable[[str], None],
    ) -> None:
        self._keys = keys
        self._certificates = certificates
        self._log = log
        self._lock = threading.Lock()
        self._blobs: dict[tuple[str, int], bytes] = {}
        self._known: dict[bytes, OfferedKey] = {}
        self._read_at = float("-inf")
        self._warned: set[str] = set()

    def read(self, hsm: HSM) -> list[OfferedKey]:
        """
        Return all identities, as they are now.

        Raises:
            HSMError: They can't be read.
        """
        found = list(self._found(hsm))
        if len(found) > _MOST:
            self._warn(f"Only {_MOST} of {len(found)} identities are offered.")
            del found[_MOST:]
        known = {one.blob: one for one in found}
        with self._lock:
            self._known, self._read_at = known, time.monotonic()
        return list(known.values())

    def find(self, hsm: HSM, blob: bytes) -> OfferedKey | None:
        """
        Return the identity of a public key or certificate, or None.

        Keys are read once in ten seconds, however many unknown ones are asked for.

        Raises:
            HSMError: It can't be read.
        """
        with self._lock:
            is_fresh = time.monotonic() < self._read_at + _FRESH_SECONDS
        if not is_fresh:
            self.read(hsm)
        with self._lock:
            return self._known.get(blob)

    def forget(self) -> None:
        """Read the keys again before the next signature."""
        with self._lock:
            self._read_at = float("-inf")

    def _found(self, hsm: HSM) -> Iterator[OfferedKey]:
        plain = [one for info in self._infos(hsm) if (one := self._identity(hsm, info))]
        by_key = {one.public_key: one for one in plain}
        for path in self._certificates:
            try:
                blob, certificate = read_certificate_file(path)
            except HSMError as error:
                self._warn(str(error))
                continue
            owner = by_key.get(certificate.public_key)
            if owner is not None and certificate.is_current:
                yield msgspec.structs.replace(owner, blob=blob)
        yield from plain

    def _infos(self, hsm: HSM) -> Iterator[KeyInfo]:
        for key in self._keys:
            with suppress(KeyNotFoundError):  # access reports it
                yield hsm.execute(DescribeKey(key_id=key))
        if self._keys:
            return
        operation = ListKeys(search=PREFIX, state=KeyState.ACTIVE, per_page=100)
        while True:
            page = hsm.execute(operation)
            yield from page.items
            if not page.next_cursor:
                return
            operation = msgspec.structs.replace(operation, cursor=page.next_cursor)

    def _identity(self, hsm: HSM, info: KeyInfo) -> OfferedKey | None:
        tags = frozenset(tag for tag in info.tags if tag.startswith(PREFIX))
        reason = _unsuitable(info, tags)
        if reason:
            if self._keys:
                self._warn(f"Key {info.name or info.key_id} {reason}.")
            return None
        assert info.algorithm is not None  # noqa: S101 (for the type checker)
        public_key = self._public_key(hsm, info)
        return OfferedKey(
            blob=public_key,
            public_key=public_key,
            key_id=info.key_id,
            version=info.version,
            algorithm=info.algorithm,
            tags=tags,
            comment=info.name or info.key_id,
        )

    def _warn(self, text: str) -> None:
        with self._lock:
            is_new = text not in self._warned
            self._warned.add(text)
        if is_new:
            self._log(f"ssh-agent: {text}")

    def _public_key(self, hsm: HSM, info: KeyInfo) -> bytes:
        known = (info.key_id, info.version)
        with self._lock:
            blob = self._blobs.get(known)
        if blob is None:
            operation = GetPublicKey(key_id=info.key_id, version=info.version)
            blob = encode_public_key(hsm.execute(operation))
            with self._lock:
                self._blobs[known] = blob
        return blob


def _unsuitable(info: KeyInfo, tags: frozenset[str]) -> str:
    """Return why a key is not offered; empty if it is."""
    if info.algorithm not in ALGORITHMS:
        return "has an algorithm that SSH does not support"
    if KeyUsage.SIGN not in info.usages:
        return "has no usage sign"
    if info.state is not KeyState.ACTIVE:
        return f"is {info.state}"
    if not tags:
        return "has no tag that says what to sign, such as ssh-login"
    return ""
