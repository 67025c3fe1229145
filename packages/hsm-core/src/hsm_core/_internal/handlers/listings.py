# SPDX-License-Identifier: MIT
"""
Listings of keys that were made a moment ago, and are still true.

A listing is kept under who asked, with which roles, for what, and under the scope that
the policy gave them: all that a rule can match is in that. So policy and roles are
asked each time, and nobody is shown another's view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from hsm_core._internal.lib.cache import BoundedCache
from hsm_core.model import Caller, Role
from hsm_core.operations import KeyPage, ListKeys
from hsm_core.protocols import Clock, KeyScope

_MOST_PAGES: Final = 128
_MOST_ITEMS: Final = 100
"""Maximum length of a cached page, in items."""

_Key: TypeAlias = tuple[str, frozenset[Role], ListKeys, KeyScope]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A page, the state of all keys that it shows, and when it was made."""

    page: KeyPage
    state: object
    made_at: float


class Listings:
    """
    Keeps pages for some seconds, or until any key has changed. Safe for many threads.

    Args:
        seconds: How long; 0 keeps nothing.

        clock: Time.

        state: Tells the state of all keys: two that are equal mean that none changed.
    """

    def __init__(
        self, seconds: float, clock: Clock, state: Callable[[], object]
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._state = state
        self._pages: BoundedCache[_Key, _Kept] = BoundedCache(_MOST_PAGES)

    def page(
        self,
        caller: Caller,
        operation: ListKeys,
        scope: KeyScope,
        make: Callable[[], KeyPage],
    ) -> KeyPage:
        """
        Return a page.

        Args:
            caller: Who asks; was let in.

            operation: What for, resolved.

            scope: What they may see now.

            make: Makes it, where none is kept that is still true.
        """
        if not self._seconds:
            return make()
        key = (caller.principal, caller.roles, operation, scope)
        # Taken before the page is made, so that what changes meanwhile is noticed.
        state, now = self._state(), self._clock.monotonic()
        kept = self._pages.get(key)
        if kept and kept.state == state and now - kept.made_at < self._seconds:
            return kept.page
        page = make()
        if len(page.items) <= _MOST_ITEMS:
            self._pages.put(key, _Kept(page, state, now))
        return page
