# SPDX-License-Identifier: MIT
"""Listings that are shown again: true, quick, and nobody else's."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.handlers import inspection
from hsm_core._internal.handlers.inspection import Listings
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import Caller, KeyState, Role
from hsm_core.operations import KeyPage, ListKeys
from hsm_core.protocols import KeyScope
from hsm_core.session import Session
from hsm_core.settings import KeyStoreKind, Settings
from hsm_core.testing import FakeClock

ADMIN = Caller(principal="root", roles=frozenset({Role.ADMINISTRATOR}))
OPERATOR = Caller(principal="alice", roles=frozenset({Role.OPERATOR}))
SCOPE = KeyScope((), ())
PAGE = KeyPage(items=(), total=0, page=1, per_page=50)


def told_apart(
    one: tuple[str, frozenset[Role], str, list[str]],
) -> tuple[str, frozenset[Role], str, tuple[str, ...]]:
    """Return what makes one who asks another."""
    name, roles, search, tags = one
    return name, roles, search, tuple(tags)


class Kept:
    """Listings with a clock and a state that are set by hand."""

    def __init__(self, seconds: float = 5.0) -> None:
        self.clock = FakeClock()
        self.state = 0
        self.made = 0
        self.found = Listings(seconds, self.clock, lambda: self.state)

    def make(self) -> KeyPage:
        """Make a page, and count that."""
        self.made += 1
        return PAGE

    def ask(
        self,
        caller: Caller = OPERATOR,
        operation: ListKeys | None = None,
        scope: KeyScope = SCOPE,
    ) -> None:
        """Ask for a page."""
        self.found.page(caller, operation or ListKeys(), scope, self.make)


class TestListings:
    def test_the_same_is_shown_again(self) -> None:
        """For five seconds, and not longer."""
        kept = Kept()
        for _ in range(3):
            kept.ask()
        before = kept.made
        kept.clock.advance(5)
        kept.ask()

        assert (1, 2) == (before, kept.made)

    def test_what_changes_meanwhile_is_noticed(self) -> None:
        """A page that was made while a key changed is not shown again."""
        kept = Kept()

        def make() -> KeyPage:
            kept.state += 1
            return kept.make()

        kept.found.page(OPERATOR, ListKeys(), SCOPE, make)
        kept.ask()

        assert 2 == kept.made

    def test_zero_keeps_nothing(self) -> None:
        """Each listing is made anew."""
        kept = Kept(0.0)
        kept.ask()
        kept.ask()

        assert 2 == kept.made

    def test_long_pages_are_not_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Memory is bounded in items, not in pages alone."""
        monkeypatch.setattr(inspection, "_MOST_ITEMS", -1)
        kept = Kept()
        kept.ask()
        kept.ask()

        assert 2 == kept.made

    @given(
        who=st.lists(
            st.tuples(
                st.sampled_from(["alice", "alicé", "alice\u0301", "bob", "alice,bob"]),
                st.frozensets(st.sampled_from(Role), min_size=1),
                st.sampled_from(["", "a", "a,b"]),
                st.lists(st.sampled_from(["a", "b", "a,b"]), max_size=2),
            ),
            max_size=8,
            unique_by=told_apart,
        )
    )
    def test_nobody_is_shown_what_was_made_for_another(
        self, who: list[tuple[str, frozenset[Role], str, list[str]]]
    ) -> None:
        """Another name, other roles or other filters: another page."""
        kept = Kept()
        for name, roles, search, tags in who:
            caller = Caller(principal=name, roles=roles)
            kept.ask(caller, ListKeys(search=search, tags=tuple(tags)))

        assert len(who) == kept.made


def keeping(folder: Path) -> OpenHSM:
    """Open an HSM that shows listings again for an hour."""
    settings = Settings(
        key_store=KeyStoreKind.MEMORY,
        audit_log=folder / "audit.log",
        list_cache_seconds=3600,
    )
    return open_hsm(settings, master_key=b"m" * 32, hmac_key=b"h" * 32)


def names(hsm: OpenHSM, who: Caller = OPERATOR) -> list[str]:
    """Return the names of the keys that somebody sees."""
    return [key.name for key in Session(hsm.act_as(who)).keys()]


class TestListedKeys:
    def test_a_listing_is_always_of_now(self, tmp_path: Path) -> None:
        """Whatever was changed through the HSM is in the next listing."""
        with keeping(tmp_path) as hsm:
            session = Session(hsm.act_as(ADMIN))
            first = session.create_key("ed25519", name="first")
            before = names(hsm)
            session.create_key("ed25519", name="second")
            after = names(hsm)
            session.revoke(first.key_id, reason="test")
            (state,) = {
                key.state
                for key in Session(hsm.act_as(OPERATOR)).keys()
                if key.name == "first"
            }

        assert ["first"] == before
        assert ["first", "second"] == sorted(after)
        assert KeyState.REVOKED == state

    def test_roles_are_asked_each_time(self, tmp_path: Path) -> None:
        """Who may list no more is refused, though their page is still kept."""
        with keeping(tmp_path) as hsm:
            Session(hsm.act_as(ADMIN)).create_key("ed25519", name="first")
            assert ["first"] == names(hsm)
            nobody = Caller(principal="alice", roles=frozenset())

            with pytest.raises(PermissionError):
                names(hsm, nobody)
