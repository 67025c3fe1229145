# SPDX-License-Identifier: MIT
"""
A vault in memory, which fails as vaults over a network do.

Tags follow from the content alone, as the ETags of object storage may.
"""

from __future__ import annotations

import hashlib
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import Final, TypeVar

from hsm_core.errors import StoreUnavailableError, VaultConflictError
from hsm_core.protocols import ABSENT, RemoteKeyVault, VaultObject

_LOST: Final = "lost"
_REFUSED: Final = "refused"
_HELD: Final = "held"

R = TypeVar("R")


class MemoryVault(RemoteKeyVault):
    """
    Objects in a dictionary, and failures that a test plans.

    A call is named ``get``, ``put``, ``list`` or ``delete``. The objects stay when it
    is closed, so that another store can be opened over it.
    """

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._planned: dict[str, tuple[str, str, int, int]] = {}
        self._delays: dict[str, float] = {}
        self._held: list[Callable[[], object]] = []
        self._listed: list[str] | None = None
        self.calls: list[tuple[str, str]] = []

    def __repr__(self) -> str:
        return f"<MemoryVault of {len(self._objects)} objects>"

    # What a test plans

    def lose_answers(
        self, call: str, *, name: str = "", after: int = 0, times: int = 1
    ) -> None:
        """
        Do what is asked, and raise nevertheless.

        Args:
            call: Which.

            name: Only where the object's name begins with this.

            after: How many calls still succeed.

            times: How many then fail.
        """
        self._planned[call] = (_LOST, name, after, times)

    def refuse(
        self, call: str, *, name: str = "", after: int = 0, times: int = 1
    ) -> None:
        """Raise, and do nothing; see `lose_answers`."""
        self._planned[call] = (_REFUSED, name, after, times)

    def hold(
        self, call: str, *, name: str = "", after: int = 0, times: int = 1
    ) -> None:
        """Raise, and do it when `deliver` is called; see `lose_answers`."""
        self._planned[call] = (_HELD, name, after, times)

    def delay(self, call: str, seconds: float) -> None:
        """Let every such call take so long."""
        self._delays[call] = seconds

    def freeze_lists(self) -> None:
        """Let lists show what is there now, whatever is put or deleted later."""
        with self._lock:
            self._listed = sorted(self._objects)

    def clear(self) -> None:
        """Plan nothing any more, and show the present in lists; what is held stays."""
        with self._lock:
            self._planned.clear()
            self._delays.clear()
            self._listed = None

    def deliver(self) -> int:
        """Do what was held back, as far as it can be done; return how much could."""
        held, self._held = self._held, []
        done = 0
        for act in held:
            try:
                act()
            except VaultConflictError:
                continue
            done += 1
        return done

    @property
    def objects(self) -> dict[str, bytes]:
        """What is there, by name; a test may change it, as a stranger would."""
        return self._objects

    # The vault

    def get(self, name: str, /) -> VaultObject | None:
        """See `RemoteKeyVault.get`."""

        def act() -> VaultObject | None:
            data = self._objects.get(name)
            return None if data is None else VaultObject(data, _tag(data))

        return self._call("get", name, act)

    def put(self, name: str, data: bytes, /, *, expected: str | None = None) -> str:
        """See `RemoteKeyVault.put`."""

        def act() -> str:
            present = self._objects.get(name)
            tag = ABSENT if present is None else _tag(present)
            if expected not in (None, tag):
                raise VaultConflictError
            self._objects[name] = data
            return _tag(data)

        return self._call("put", name, act)

    def list(self, prefix: str, /, *, after: str = "", limit: int = 1000) -> list[str]:
        """See `RemoteKeyVault.list`."""

        def act() -> list[str]:
            listed = self._listed
            every = sorted(self._objects) if listed is None else listed
            begin = bisect_right(every, after)
            return [n for n in every[begin:] if n.startswith(prefix)][:limit]

        return self._call("list", prefix, act)

    def delete(self, name: str, /) -> None:
        """See `RemoteKeyVault.delete`."""
        self._call("delete", name, lambda: self._objects.pop(name, None))

    def close(self) -> None:
        """Do nothing: what is in memory needs no connection."""

    def _call(self, call: str, name: str, act: Callable[[], R]) -> R:
        if delay := self._delays.get(call):
            time.sleep(delay)
        with self._lock:
            self.calls.append((call, name))
            fate = self._fate(call, name)
            if fate == _HELD:
                self._held.append(act)
            if fate in (_HELD, _REFUSED):
                raise StoreUnavailableError(f"{call} failed, as planned.")
            answer = act()
        if fate == _LOST:
            raise StoreUnavailableError(f"The answer to {call} is lost, as planned.")
        return answer

    def _fate(self, call: str, name: str) -> str:
        fate, begin, after, times = self._planned.get(call, ("", "", 0, 0))
        if not times or not name.startswith(begin):
            return ""
        if after:
            self._planned[call] = (fate, begin, after - 1, times)
            return ""
        self._planned[call] = (fate, begin, 0, times - 1)
        return fate


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
