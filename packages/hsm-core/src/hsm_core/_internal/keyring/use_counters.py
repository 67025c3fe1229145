# SPDX-License-Identifier: MIT
"""
Use counters: how often a key's material protected data, and its limit.

Counts belong to material, so that a rolled-back version continues the count of its
source. Blocks of uses are reserved durably in advance: a crash counts too many uses,
never too few. The nodes of a cluster reserve blocks in the same value, so that all of
them together stay below the limit; a block of a node that died counts as used. If a
value was altered or removed, its material can't protect new data; existing ciphertexts
can still be decrypted.
"""

from __future__ import annotations

import hmac
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias

import msgspec

from hsm_core._internal.keyring.documents import KeyDocument, VersionDocument
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.keyring.stored_keys import TamperedKeys, tampering
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.time.clock import instant, microseconds
from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import (
    GenerationConflictError,
    StoreUnavailableError,
    UnavailableError,
    UseLimitError,
)
from hsm_core.model import Integrity, KeyId, KeyState, UseInfo
from hsm_core.protocols import Clock, KeyStore, UseCounters

_START: Final = b"FHKU\x01"
_SHARED_START: Final = b"FHKU\x02"
_COUNTS: Final = struct.Struct(">5sBQQQ")
_SERIAL: Final = struct.Struct(">Q")
_MAC_BYTES: Final = 32
_WARNED: Final = 1
_SHARES: Final = 8
"""A block takes one part of so many of what is left: other nodes need some of it."""
_ORPHAN_SECONDS: Final = 3600
"""Time after which a value without a key is of no change under way on another node."""

MacOf = Callable[[str, bytes], bytes]
"""MAC of a material's counts, bound to the store."""

_NEWEST: Final = 64


class UseValue(NamedTuple):
    """
    Upper bound of a material's counts; larger counts are stored first.

    Attributes:
        size: Bytes that were protected.
        last_used_at: Microseconds since 1970, or 0.
        warned: Whether the audit log has the warning near the limit.
    """

    uses: int = 0
    size: int = 0
    last_used_at: int = 0
    warned: bool = False


def encode_value(
    material_id: str, value: UseValue, mac_of: MacOf, serial: int = 0
) -> bytes:
    """
    Return the stored form of a material's counts.

    Args:
        material_id: The material.

        value: Its counts.

        mac_of: Key of the form.

        serial: How many values it had before, where nodes share it; 0 for the first
            one, and on a single machine.
    """
    start = _SHARED_START if serial else _START
    flags = _WARNED if value.warned else 0
    counts = _COUNTS.pack(start, flags, value.uses, value.size, value.last_used_at)
    if serial:
        counts += _SERIAL.pack(serial)
    return counts + mac_of(material_id, counts)


def serial_of(stored: bytes | None) -> int:
    """Return the serial number of an authenticated stored form; 0 for none."""
    if stored is None or not stored.startswith(_SHARED_START):
        return 0
    serial: int = _SERIAL.unpack_from(stored, _COUNTS.size)[0]
    return serial


def decode_value(material_id: str, stored: bytes, mac_of: MacOf) -> UseValue | None:
    """Authenticate and decode a stored form; None if it was altered."""
    counts, mac = stored[:-_MAC_BYTES], stored[-_MAC_BYTES:]
    if len(counts) not in {_COUNTS.size, _COUNTS.size + _SERIAL.size}:
        return None
    if not hmac.compare_digest(mac, mac_of(material_id, counts)):
        return None
    start, flags, uses, size, last_used_at = _COUNTS.unpack_from(counts)
    known = _START if len(counts) == _COUNTS.size else _SHARED_START
    if start != known or flags & ~_WARNED:
        return None
    return UseValue(uses, size, last_used_at, bool(flags))


def _limit_of(algorithm: str) -> int:
    return spec(Algorithm(algorithm)).use_limit


class UseRules(msgspec.Struct, frozen=True, kw_only=True):
    """
    Limits of uses, and sizes of reserved blocks.

    A block doubles each time one is used up: a busy key seldom waits for the disk, and
    a crash adds little to the count of a key that is seldom used.

    Attributes:
        limit_of: Uses that the material of an algorithm has, by its name; 0 for any.
        first_uses: Size of the first block.
        most_uses: Size of the largest one.
        first_bytes: The same for protected bytes.
        most_bytes: The same for protected bytes.
        near_percent: Share of the limit that is worth a warning.
    """

    limit_of: Callable[[str], int] = _limit_of
    first_uses: int = 2**10
    most_uses: int = 2**20
    first_bytes: int = 2**20
    most_bytes: int = 2**30
    near_percent: int = 80


class UseAccount:
    """
    Counts of one material. Thread-safe.

    Args:
        limit: Uses that it has; 0 for any number.

        rules: Sizes of blocks.

    Attributes:
        growing: Held while a block is reserved in the store; never by a mere `take`.
        is_loaded: Whether what is stored has been read.
        is_closed: Whether it accepts no more uses.
        is_doubtful: Whether the store may have lost its newest block.
        is_stale: Whether another node may have removed the value.
        last_used_at: Microseconds since 1970, or 0.
        limit: As given.
        stored: Stored form that was read or written last; None if there was none.
        warned: Whether the audit log has the warning near the limit.
    """

    def __init__(self, limit: int, rules: UseRules) -> None:
        self.limit = limit
        self.growing = threading.Lock()
        self.is_loaded = self.is_closed = self.warned = False
        self.is_doubtful = self.is_stale = False
        self.last_used_at = 0
        self.stored: bytes | None = None
        self._rules = rules
        self._near = -(-limit * rules.near_percent // 100)
        self._lock = threading.Lock()
        self._uses = self._size = self._ceiling = 0
        self._first = self._first_size = 0
        self._stored = UseValue()
        self._more_uses, self._more_bytes = rules.first_uses, rules.first_bytes
        self._is_own = self._may_be_lost = False

    def take(self, uses: int, size: int, now: int) -> bool:
        """Count a use and return True, or False where nothing is reserved for it."""
        with self._lock:
            total, total_size = self._uses + uses, self._size + size
            if total > self._ceiling or total_size > self._stored.size:
                return False
            self._uses, self._size, self.last_used_at = total, total_size, now
            return True

    def load(
        self, value: UseValue, stored: bytes | None, *, lost: UseValue | None = None
    ) -> None:
        """Start with a stored value, of which all counts as used; see `added`."""
        with self._lock:
            self._uses, self._size = value.uses, value.size
            self.last_used_at = max(self.last_used_at, value.last_used_at)
            self._settle(value, stored)
            self._first, self._first_size = (lost or value).uses, (lost or value).size
            self._is_own = lost is not None and lost != value
            self.is_loaded = True

    def follow(self, value: UseValue, stored: bytes | None) -> None:
        """Count what other nodes have reserved or given back as used, or unused."""
        with self._lock:
            uses = value.uses - self._stored.uses
            size = value.size - self._stored.size
            self._uses, self._size = self._uses + uses, self._size + size
            self._first, self._first_size = self._first + uses, self._first_size + size
            self.last_used_at = max(self.last_used_at, value.last_used_at)
            self._is_own = self._is_own and stored == self.stored
            self._settle(value, stored)

    def is_older(self, value: UseValue, stored: bytes) -> bool:
        """
        Return whether a stored form is older than one that was read or written here.

        One that lacks this node's block follows an older one. The newest may be lost
        with a fail-over, if it was written here: its block is then added again.
        """
        with self._lock:
            known, found = serial_of(self.stored), serial_of(stored)
            if self._is_own and self._may_be_lost:
                return found < known - 1
            block = self._stored.uses - self._first
            lacks_it = value.uses < block and not self._may_be_lost
            is_other = 0 < found == known and stored != self.stored
            return found < known or is_other or lacks_it

    def doubt(self) -> None:
        """Allow no more uses before the block is added again to what is stored."""
        with self._lock:
            self.is_doubtful = self._may_be_lost = True
            self._ceiling = -1

    def reread(self) -> None:
        """Allow no more uses before the stored value is read again."""
        with self._lock:
            self.is_stale = True
            self._ceiling = -1

    def added(self, value: UseValue) -> UseValue:
        """Return a stored value with the uses of the newest block added again."""
        with self._lock:
            uses = value.uses + self._uses - self._first
            size = value.size + self._size - self._first_size
            return value._replace(
                uses=min(uses, self.limit) if self.limit else uses, size=size
            )

    def exceeds(self, uses: int) -> bool:
        """Return whether so many more are over the limit."""
        return bool(self.limit) and self._uses + uses > self.limit

    def comes_near(self, uses: int) -> bool:
        """Return whether so many more cross the share that is worth a warning."""
        near = bool(self.limit) and self._uses + uses >= self._near
        return near and not self.warned

    def enlarged(self, uses: int, size: int, *, warned: bool) -> UseValue:
        """Return the value to store before this much can be taken."""
        with self._lock:
            reserved, reserved_size = self._stored.uses, self._stored.size
            if self._uses + uses > reserved:
                more = self._more_uses
                if self.limit:
                    more = min(more, (self.limit - self._uses) // _SHARES)
                reserved = self._uses + max(uses, more)
            if self._size + size > reserved_size:
                reserved_size = self._size + max(size, self._more_bytes)
            return UseValue(reserved, reserved_size, self.last_used_at, warned)

    def adopt(self, value: UseValue, stored: bytes) -> None:
        """Adopt the stored value as reserved."""
        with self._lock:
            if value.uses > self._stored.uses:
                self._more_uses = min(2 * self._more_uses, self._rules.most_uses)
            if value.size > self._stored.size:
                self._more_bytes = min(2 * self._more_bytes, self._rules.most_bytes)
            self._settle(value, stored)
            self._first, self._first_size = self._uses, self._size
            self._is_own = True

    def close(self) -> UseValue | None:
        """Stop, and return exact counts if they differ from the stored value."""
        with self._lock:
            self.is_closed = True
            self._ceiling = -1
            exact = self._exact()
            return exact if exact != self._stored else None

    def counts(self) -> UseValue:
        """Return exact counts; of other nodes, what they have reserved."""
        with self._lock:
            return self._exact()

    def seen_in(self, value: UseValue) -> UseValue:
        """Return a stored value without what is reserved here and not used."""
        with self._lock:
            if not self.is_loaded:
                return value
            return value._replace(
                uses=value.uses + self._uses - self._stored.uses,
                size=value.size + self._size - self._stored.size,
            )

    def _exact(self) -> UseValue:
        return UseValue(self._uses, self._size, self.last_used_at, self.warned)

    def _settle(self, value: UseValue, stored: bytes | None) -> None:
        self._stored, self.stored, self.warned = value, stored, value.warned
        self._may_be_lost = self.is_doubtful
        self._ceiling = value.uses
        if self.limit and not self.warned:
            self._ceiling = min(self._ceiling, self._near - 1)
        if self.is_closed or self.is_doubtful or self.is_stale:
            self._ceiling = -1

    def is_near(self, uses: int) -> bool:
        """Return whether so many in all are worth a warning."""
        return bool(self.limit) and uses >= self._near


class Use(NamedTuple):
    """
    Use of a version's material by one operation.

    Attributes:
        uses: How often it protects something; 0 only notes when it was used.
        size: Bytes that it protects.
    """

    key: KeyDocument
    version: VersionDocument
    uses: int = 1
    size: int = 0


NearLimit: TypeAlias = Callable[[Use, int, int], None]
"""
Callback for a material near its limit: the use, its count, the limit.

Its exceptions stop the use.
"""


class NoRoomError(Exception):
    """The disk must be asked, and the caller can't wait for it."""


class UseAccounts:
    """
    Accounts of all materials over a `UseCounters`. Thread-safe.

    Args:
        counters: Not trusted.

        ring: Opened key ring.

        store: Reveals concurrent changes of a key.

        tampered: Register of keys that fail integrity checks.

        clock: For the instant of the last use.

        on_near_limit: Called once for each material.

        rules: Limits and sizes of blocks.
    """

    def __init__(
        self,
        counters: UseCounters,
        ring: KeyRing,
        store: KeyStore,
        tampered: TamperedKeys,
        clock: Clock,
        *,
        on_near_limit: NearLimit = lambda use, uses, limit: None,
        rules: UseRules | None = None,
    ) -> None:
        self._counters = counters
        self._mac_of = ring.counter_mac
        self._store = store
        self._tampered = tampered
        self._clock = clock
        self._on_near_limit = on_near_limit
        self._rules = rules or UseRules()
        self._accounts: dict[str, UseAccount] = {}
        self._is_shared = counters.is_shared
        self._guard = threading.Lock()
        self._materials: dict[str, set[str]] = {}
        self._fresh: set[str] = set()
        self._orphans: dict[str, float] = {}
        self._is_closed = False

    def take(self, use: Use, *, at_once: bool = False) -> None:
        """
        Count a use that is about to be made; it is made only if this returns.

        Args:
            use: What is taken.

            at_once: Don't wait for the disk.

        Raises:
            NoRoomError: With *at_once*, the disk would have to be asked.
            UseLimitError: The material has no such number of uses left.
            KeyTamperedError: Its counter was changed or removed.
            GenerationConflictError: The key was changed meanwhile.
            StoreUnavailableError: The counter can't be read or written.
        """
        account = self._accounts.get(use.version.material_id)
        if account is None:
            account = self.account_of(use.key, use.version)
        if account.take(use.uses, use.size, self._clock.now()):
            return
        if at_once:
            raise NoRoomError
        with account.growing:
            self._take_slowly(account, use)

    def touch(self, key: KeyDocument, version: VersionDocument) -> None:
        """Note that a version was used for something that is not counted."""
        self.account_of(key, version).last_used_at = self._clock.now()

    def has_limit(self, algorithm: str) -> bool:
        """Return whether material of this algorithm has a limited number of uses."""
        return bool(self._rules.limit_of(algorithm))

    def open(self, key: KeyDocument, versions: Iterable[VersionDocument]) -> list[str]:
        """
        Store the first value of each new material that has a limit.

        To be called before the document that names them is committed, so that a value
        that is missing later was removed.

        Returns:
            The materials.

        Raises:
            StoreUnavailableError: It can't be stored.
        """
        if not self.has_limit(key.algorithm):
            return []
        fresh = [version.material_id for version in versions]
        self._fresh.update(fresh)
        for material_id in fresh:
            value = encode_value(material_id, UseValue(), self._mac_of)
            self._counters.put_first(material_id, value)
        if fresh:
            # From now on the key protects with these, not with what is suspected.
            self._tampered.trust(key.key_id)
        return fresh

    def discard(self, key_id: str, material_ids: Iterable[str]) -> None:
        """Remove the values of a key's materials; the next start does what fails."""
        for material_id in material_ids:
            self._drop(key_id, material_id)
            with suppress(StoreUnavailableError):
                self._counters.discard(material_id)
            self._fresh.discard(material_id)

    def forfeit(self, key: KeyDocument) -> None:
        """
        Remove the values of a key's materials that have a limit, durably.

        This material can't protect new data afterwards, because its count is unknown.

        Raises:
            StoreUnavailableError: One can't be.
        """
        for version in key.versions:
            # What is stored now counts, whatever was known.
            self._drop(key.key_id, version.material_id)
            if self.has_limit(key.algorithm):
                self._counters.discard(version.material_id)

    def _drop(self, key_id: str, material_id: str) -> None:
        account = self._accounts.pop(material_id, None)
        if account is not None:
            with account.growing:
                account.close()
        with self._guard:
            left = self._materials.pop(key_id, set()) - {material_id}
            if left:
                self._materials[key_id] = left

    def orphans(self) -> set[str]:
        """
        Return the materials that have a value and were not made by this HSM.

        Another node stores the first value of a material before the key that has it.
        With other nodes, these are the materials that a call an hour ago found, too.

        Raises:
            StoreUnavailableError: They can't be read.
        """
        found = set(self._counters.material_ids()) - self._fresh
        if not self._is_shared:
            return found
        now = self._clock.monotonic()
        self._orphans = {name: self._orphans.get(name, now) for name in found}
        old = now - _ORPHAN_SECONDS
        return {name for name, at in self._orphans.items() if at < old}

    def tidy(self, orphans: Iterable[str]) -> None:
        """
        Remove the values of these materials, which no key has.

        Raises:
            StoreUnavailableError: One can't be.
        """
        for material_id in orphans:
            self._counters.discard(material_id)

    def info(
        self, key: KeyDocument, version: VersionDocument
    ) -> tuple[UseInfo | None, Integrity]:
        """
        Return what is known of a version's use, and whether it can be believed.

        Raises:
            StoreUnavailableError: The counter can't be read.
        """
        if version.state is KeyState.DESTROYED:
            return None, Integrity.OK
        account = self.account_of(key, version)
        if account.is_loaded and not self._is_shared:
            return self._shown(account, account.counts()), Integrity.OK
        value, _, found = self._judge(version.material_id, account.limit)
        if value is not None:
            return self._shown(account, account.seen_in(value)), Integrity.OK
        if self._has_moved(key):
            return None, Integrity.OK
        if version.state is KeyState.ACTIVE:
            self._tampered.suspect(key.key_id, found)
        return None, found

    def last_used_at(self, key: KeyDocument) -> int:
        """
        Return when a key was last used, in microseconds since 1970; 0 if never.

        Its newest versions are looked at, 64 of them; what can't be read or believed of
        a counter is left out.
        """
        found = 0
        for version in key.versions[-_NEWEST:]:
            with suppress(StoreUnavailableError):
                use, _ = self.info(key, version)
                if use is not None and use.last_used_at is not None:
                    found = max(found, microseconds(use.last_used_at))
        return found

    def reread(self, key_id: str) -> None:
        """
        Read the values of a key's materials again before their next use.

        To be called when a key has changed: another node may have removed them, as it
        does where a count is unknown.

        Args:
            key_id: The key; empty for all.
        """
        with self._guard:
            for each in [key_id] if key_id else self._materials:
                for material_id in self._materials.get(each, ()):
                    account = self._accounts.get(material_id)
                    if account is not None:
                        account.reread()

    def doubt_blocks(self) -> None:
        """
        Add the newest block of each material again before it is used.

        To be called once a database that may have lost the newest changes is in use,
        such as a standby that was promoted.
        """
        for account in list(self._accounts.values()):
            account.doubt()

    def close(self, timeout_seconds: float) -> None:
        """
        Stop, and store exact counts.

        What can't be stored, or not within the limit, keeps what was reserved for it.
        """
        self._is_closed = True
        deadline = self._clock.monotonic() + timeout_seconds
        for material_id, account in list(self._accounts.items()):
            with account.growing:
                account.close()
                if account.is_doubtful or self._clock.monotonic() > deadline:
                    continue
                with suppress(StoreUnavailableError):
                    self._store_exact(material_id, account)

    def account_of(self, key: KeyDocument, version: VersionDocument) -> UseAccount:
        """Return the account of a version's material."""
        material_id = version.material_id
        account = self._accounts.get(material_id)
        if account is None:
            new = UseAccount(self._rules.limit_of(key.algorithm), self._rules)
            with self._guard:
                account = self._accounts.setdefault(material_id, new)
                if self._is_shared:
                    self._materials.setdefault(key.key_id, set()).add(material_id)
        return account

    def _take_slowly(self, account: UseAccount, use: Use) -> None:
        if self._is_closed:
            raise UnavailableError("The HSM is closed.")
        if account.is_closed or self._has_moved(use.key):
            raise GenerationConflictError
        if not account.is_loaded:
            account.load(*self._read(use.key, use.version))
        while not account.take(use.uses, use.size, self._clock.now()):
            if account.is_doubtful:
                self._add_again(account, use)
            elif account.is_stale:
                self._read_again(account, use)
            else:
                self._enlarge(account, use)

    def _enlarge(self, account: UseAccount, use: Use) -> None:
        if account.exceeds(use.uses) or account.comes_near(use.uses):
            self._follow(account, use)
        used = account.counts().uses
        if account.exceeds(use.uses):
            raise UseLimitError(
                f"Version {use.version.version} of this key was used {used} times "
                f"of at most {account.limit}; {use.uses} more would exceed the "
                "limit. Rotate the key.",
                version=use.version.version,
                uses=used,
                limit=account.limit,
            )
        warned = account.warned
        if account.comes_near(use.uses):
            self._on_near_limit(use, used + use.uses, account.limit)
            warned = True
        value = account.enlarged(use.uses, use.size, warned=warned)
        failpoint("uses.before_put")
        stored = self._replace(use.version.material_id, account.stored, value)
        failpoint("uses.after_put")
        if stored is None:
            self._follow(account, use)
        else:
            account.adopt(value, stored)

    def _follow(self, account: UseAccount, use: Use) -> None:
        """Read what other nodes have reserved, if there are any."""
        if self._is_shared:
            value, stored = self._read(use.key, use.version)
            if stored is None:
                account.load(value, None)
            else:
                account.follow(value, stored)

    def _read_again(self, account: UseAccount, use: Use) -> None:
        account.is_stale = False
        try:
            self._follow(account, use)
        except BaseException:
            account.reread()
            raise

    def _add_again(self, account: UseAccount, use: Use) -> None:
        """Count the newest block once more, which the store may have lost."""
        account.is_doubtful = False
        try:
            value, stored = self._read(use.key, use.version)
            after = account.added(value)
            if after != value:
                stored = self._replace(use.version.material_id, stored, after)
        except BaseException:
            account.doubt()
            raise
        if stored is None and after != value:
            account.doubt()
        else:
            account.load(after, stored, lost=value)

    def _replace(
        self, material_id: str, before: bytes | None, value: UseValue
    ) -> bytes | None:
        """Store a value, and return its stored form; None if others were first."""
        serial = serial_of(before) + 1 if self._is_shared else 0
        stored = encode_value(material_id, value, self._mac_of, serial)
        done = self._counters.replace(material_id, before, stored)
        return stored if done else None

    def _read(
        self, key: KeyDocument, version: VersionDocument
    ) -> tuple[UseValue, bytes | None]:
        """Return what is stored of a material, authenticated, and its stored form."""
        limit = self._rules.limit_of(key.algorithm)
        value, stored, found = self._judge(version.material_id, limit)
        if value is not None:
            return value, stored
        if self._has_moved(key):
            # The material may just have been destroyed, and its counter with it.
            raise GenerationConflictError
        self._tampered.suspect(key.key_id, found)
        raise tampering(
            KeyId(key.key_id),
            f"the use counter of version {version.version} is {found}, so it "
            "can't protect new data; rotate the key.",
            found,
        )

    def _judge(
        self, material_id: str, limit: int
    ) -> tuple[UseValue | None, bytes | None, Integrity]:
        stored = self._counters.get(material_id)
        if stored is None:
            # Where there is no limit, the first value is stored with the first use.
            if limit:
                return None, None, Integrity.MISSING
            return UseValue(), None, Integrity.OK
        value = decode_value(material_id, stored, self._mac_of)
        account = self._accounts.get(material_id)
        if value is None or (account is not None and account.is_older(value, stored)):
            return None, stored, Integrity.TAMPERED
        return value, stored, Integrity.OK

    def _store_exact(self, material_id: str, account: UseAccount) -> None:
        """Store what was used, and nothing reserved; retry if another node is first."""
        while (exact := account.close()) is not None:
            before = account.stored
            if not account.is_loaded:
                # It was used only for what is not counted.
                known, before, _ = self._judge(material_id, account.limit)
                if known is None:
                    return
                exact = known._replace(last_used_at=exact.last_used_at)
            if (after := self._replace(material_id, before, exact)) is not None:
                account.load(exact, after)
                return
            known, stored, _ = self._judge(material_id, account.limit)
            if known is None or stored is None or account.is_doubtful:
                return  # Another node has destroyed the material meanwhile.
            account.follow(known, stored)

    def _shown(self, account: UseAccount, counts: UseValue) -> UseInfo:
        last_used_at = max(counts.last_used_at, account.last_used_at)
        return UseInfo(
            uses=counts.uses,
            limit=account.limit,
            bytes=counts.size,
            last_used_at=instant(last_used_at) if last_used_at else None,
            near_limit=account.is_near(counts.uses),
        )

    def _has_moved(self, key: KeyDocument) -> bool:
        entry = self._store.entry(key.key_id)
        return entry is None or entry.generation > key.generation
