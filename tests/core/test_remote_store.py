# SPDX-License-Identifier: MIT
"""A key store in a vault that loses answers, delivers late, lists old names or lies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hsm_core._internal.stores.remote.memory_vault import MemoryVault
from hsm_core._internal.stores.remote.records import RemoteKeyStore
from hsm_core.errors import (
    GenerationConflictError,
    HSMError,
    IntegrityError,
    KeyNotFoundError,
    KeyTamperedError,
    OperationAbortedError,
    OutcomeUnknownError,
    StorageFullError,
    StoreLockedError,
    StoreUnavailableError,
)
from hsm_core.protocols import OperationMark, VaultObject
from hsm_core.testing import FakeClock
from tests.core.forked import holds_in_child
from tests.core.key_support import everything, key_id_of, operation_of, page
from tests.core.remote_support import change, create, no_pauses, open_remote, settle
from tests.support import REPOSITORY

ONE = key_id_of(1)
DOCUMENT = f"keys/{ONE}/document"
MATERIAL = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Let tries follow each other at once."""
    with no_pauses():
        yield


@pytest.fixture
def vault() -> MemoryVault:
    """Give an empty vault."""
    return MemoryVault()


@pytest.fixture
def store(vault: MemoryVault, clock: FakeClock) -> Iterator[RemoteKeyStore]:
    """Give a store with one key."""
    opened = open_remote(vault, clock=clock)
    create(opened, 1)
    yield opened
    opened.close()


def leave_open(store: RemoteKeyStore, vault: MemoryVault) -> None:
    """Send a change of the key, whose put may arrive at any time from then on."""
    vault.hold("put", name=DOCUMENT, times=99)
    with pytest.raises(OutcomeUnknownError):
        store.commit(change(1, 2))
    vault.clear()


class TestLostAnswers:
    @pytest.mark.parametrize("times", [1, 2])
    @pytest.mark.parametrize("fate", ["lose_answers", "refuse"])
    def test_of_the_document(
        self, store: RemoteKeyStore, vault: MemoryVault, fate: str, times: int
    ) -> None:
        """
        A put whose answer got lost is looked for, and sent again if it was not done.
        """
        getattr(vault, fate)("put", name=DOCUMENT, times=times)

        store.commit(change(1, 2))

        assert store.available
        assert 2 == store.entry(ONE).generation  # type: ignore[union-attr]
        assert b"second" == store.get_blob(ONE, 2)

    def test_of_every_put(self, store: RemoteKeyStore, vault: MemoryVault) -> None:
        """
        If no put is answered, the outcome is unknown, and opening again finds it.
        """
        made = change(1, 2)
        vault.lose_answers("put", name=DOCUMENT, times=99)
        vault.refuse("get", name=DOCUMENT, times=99)

        with pytest.raises(OutcomeUnknownError) as caught:
            store.commit(made)

        assert {"operation_id": operation_of(2)} == caught.value.facts
        assert not store.available
        with pytest.raises(StoreUnavailableError):
            store.entry(ONE)
        settle(store, vault)
        assert made.document == store.get(ONE).document
        assert OperationMark(key_id=ONE, aborted=False) == store.find_operation(
            operation_of(2)
        )

    def test_of_no_put(self, store: RemoteKeyStore, vault: MemoryVault) -> None:
        """
        If every put is refused without a word, it was not done, and can be done later.
        """
        before = list(store.scan())
        vault.refuse("put", name=DOCUMENT, times=99)
        with pytest.raises(OutcomeUnknownError):
            store.commit(change(1, 2))
        with pytest.raises(StoreUnavailableError):
            store.reopen()
        assert not store.available

        settle(store, vault)

        assert before == list(store.scan())
        assert store.find_operation(operation_of(2)) is None
        store.commit(change(1, 2))

    def test_of_a_blob(self, store: RemoteKeyStore, vault: MemoryVault) -> None:
        """
        A blob that could not be put leaves everything as it was, and is put again.
        """
        before = everything(store)
        vault.hold("put", name=f"keys/{ONE}/v", times=99)
        with pytest.raises(StoreUnavailableError) as caught:
            store.commit(change(1, 2))

        assert not isinstance(caught.value, OutcomeUnknownError)
        assert store.available
        assert before == everything(store)
        vault.clear()
        assert 1 == vault.deliver()
        made = replace(change(1, 2), blobs={2: b"another"})
        store.commit(made)
        assert b"another" == store.get_blob(ONE, 2)

    def test_of_a_removal(self, store: RemoteKeyStore, vault: MemoryVault) -> None:
        """
        A blob that can't be deleted is left to be discarded; the store serves on.
        """
        vault.refuse("delete", times=99)

        store.commit(change(1, 2, removed=(1,)))

        assert store.available
        assert store.get_blob(ONE, 1) is not None
        with pytest.raises(StoreUnavailableError):
            store.discard_blobs(ONE, (1,))
        vault.clear()
        store.discard_blobs(ONE, (1,))
        assert store.get_blob(ONE, 1) is None
        assert 2 == store.entry(ONE).generation  # type: ignore[union-attr]

    @given(
        data=st.data(),
        fate=st.sampled_from(["lose_answers", "refuse", "hold"]),
        call=st.sampled_from(["put", "get", "delete"]),
        after=st.integers(0, 6),
        times=st.integers(1, 12),
    )
    @settings(max_examples=150, deadline=None)
    def test_whatever_is_lost(
        self, data: st.DataObject, fate: str, call: str, after: int, times: int
    ) -> None:
        """
        What is said to be done is there, what is said to fail is not, and stays so.
        """
        vault = MemoryVault()
        clock = FakeClock()
        store = open_remote(vault, clock=clock)
        with no_pauses():
            create(store, 1)
            old = store.get(ONE).document
            getattr(vault, fate)(call, after=after, times=times)
            outcome: HSMError | None = None
            try:
                store.commit(change(1, 2, removed=(1,)))
            except HSMError as error:
                outcome = error
            if data.draw(st.booleans()):
                vault.deliver()
            settle(store, vault)
            vault.deliver()
            if store.get(ONE).document != old:
                # As an HSM does, for a blob that could not be deleted at once.
                store.discard_blobs(ONE, (1,))
            found = everything(store)
            mark = store.find_operation(operation_of(2))
            store.close()
            clock.advance(60)
            with_others = open_remote(vault, clock=clock, holder="second")
            assert found == everything(with_others)
            with_others.close()

        made = {ONE: (change(1, 2).document, {2: b"second"})}
        documents = {key: document for key, (document, _) in found.items()}
        is_done = documents == {ONE: change(1, 2).document}
        assert is_done or documents == {ONE: old}
        assert is_done == (mark is not None)
        assert not is_done or made == found
        if outcome is None:
            assert made == found
        elif not isinstance(outcome, OutcomeUnknownError):
            assert not is_done


class TestTwoProcesses:
    def test_second_opener(self, store: RemoteKeyStore, vault: MemoryVault) -> None:
        """
        A store that is open can't be opened, and stays as it is.
        """
        with pytest.raises(StoreLockedError, match="first"):
            open_remote(vault, holder="second")

        assert store.available

    def test_paused_process(
        self, store: RemoteKeyStore, vault: MemoryVault, clock: FakeClock
    ) -> None:
        """
        A process that slept over its lease can't change what the next one asked for.
        """
        leave_open(store, vault)
        clock.advance(31)
        second = open_remote(vault, clock=clock, holder="second")

        found = second.refresh(ONE)
        second.abort(operation_of(2))

        assert 0 == vault.deliver()
        assert found == second.entry(ONE) == second.refresh(ONE)
        assert 1 == len(everything(second))
        with pytest.raises(StoreUnavailableError):
            store.reopen()
        second.close()
        store.reopen()
        assert OperationMark(key_id=None, aborted=True) == store.find_operation(
            operation_of(2)
        )

    def test_lost_lease(
        self, store: RemoteKeyStore, vault: MemoryVault, clock: FakeClock
    ) -> None:
        """
        Without its lease a store answers nothing; opened again it sees what others did.
        """
        clock.advance(25)
        assert not store.available
        for call in (
            lambda: store.entry(ONE),
            lambda: store.get(ONE),
            lambda: store.commit(change(1, 2)),
            lambda: store.uses.put(MATERIAL, b"1"),
            lambda: store.uses.get(MATERIAL),
        ):
            with pytest.raises(StoreUnavailableError, match="lost its writer lease"):
                call()
        clock.advance(10)
        second = open_remote(vault, clock=clock, holder="second")
        create(second, 2)
        with pytest.raises(StoreUnavailableError, match="Another process"):
            store.reopen()
        second.close()

        store.reopen()

        assert [key_id_of(2), ONE] == page(store)
        create(store, 3)

    def test_lost_lease_and_an_unreadable_vault(
        self, store: RemoteKeyStore, vault: MemoryVault, clock: FakeClock
    ) -> None:
        """
        Until all was read again, nothing is answered, and nothing is replaced after.
        """
        clock.advance(35)
        second = open_remote(vault, clock=clock, holder="second")
        second.commit(change(1, 2))
        create(second, 2, operation=9)
        second.close()
        theirs = vault.objects[DOCUMENT]
        vault.refuse("get", name=f"keys/{key_id_of(2)}", times=99)

        with pytest.raises(StoreUnavailableError):
            store.reopen()
        vault.clear()

        assert not store.available
        with pytest.raises(StoreUnavailableError):
            store.commit(change(1, 3))
        assert theirs == vault.objects[DOCUMENT]
        store.reopen()
        assert 2 == store.entry(ONE).generation  # type: ignore[union-attr]
        with pytest.raises(GenerationConflictError):
            store.commit(change(1, 3))

    def test_late_renewal(
        self, store: RemoteKeyStore, vault: MemoryVault, clock: FakeClock
    ) -> None:
        """
        A lease that was too old for comfort, and that nobody took, goes on.
        """
        clock.advance(25)
        calls = len(vault.calls)

        store.reopen()

        assert store.available
        assert not [call for call in vault.calls[calls:] if call[0] == "list"]

    def test_put_on_its_way_at_the_end(
        self, store: RemoteKeyStore, vault: MemoryVault, clock: FakeClock
    ) -> None:
        """
        Who closes with a put on its way keeps others out until its lease ends.
        """
        leave_open(store, vault)

        store.close()

        with pytest.raises(StoreLockedError):
            open_remote(vault, clock=clock, holder="second")
        clock.advance(31)
        open_remote(vault, clock=clock, holder="second").close()

    def test_child(self, store: RemoteKeyStore) -> None:
        """
        A process that was forked can't use the store.
        """

        def is_refused() -> bool:
            with pytest.raises(StoreUnavailableError, match="parent"):
                store.entry(ONE)
            return True

        assert holds_in_child(is_refused)


class TestStaleLists:
    def test_key_that_is_not_listed(self, vault: MemoryVault, clock: FakeClock) -> None:
        """
        What a list lacks is found when it is asked for, and never taken for new.
        """
        store = open_remote(vault, clock=clock)
        vault.freeze_lists()
        made = create(store, 1)
        store.close()
        second = open_remote(vault, clock=clock)
        assert second.entry(ONE) is None

        with pytest.raises(GenerationConflictError):
            create(second, 1, operation=9)

        assert made.entry == second.entry(ONE)
        second.close()
        third = open_remote(vault, clock=clock)
        assert made.entry == third.refresh(ONE)
        assert made.document == third.get(ONE).document
        third.rebuild()
        assert [ONE] == page(third)
        assert [ONE] == [stored.key_id for stored in third.scan()]
        third.close()

    def test_key_that_is_still_listed(
        self, store: RemoteKeyStore, vault: MemoryVault, clock: FakeClock
    ) -> None:
        """
        A listed name without an object is no key.
        """
        vault.freeze_lists()
        store.close()
        del vault.objects[DOCUMENT]

        second = open_remote(vault, clock=clock)

        assert [] == page(second)
        assert [] == list(second.scan())
        second.close()

    def test_abort_that_is_not_listed(
        self, vault: MemoryVault, clock: FakeClock
    ) -> None:
        """
        An abort mark of an earlier process is asked for, not looked up in a list.
        """
        store = open_remote(vault, clock=clock)
        vault.freeze_lists()
        store.abort(operation_of(1))
        store.close()
        second = open_remote(vault, clock=clock)

        with pytest.raises(OperationAbortedError):
            create(second, 1)

        second.close()
        third = open_remote(vault, clock=clock)
        assert OperationMark(key_id=None, aborted=True) == third.find_operation(
            operation_of(1)
        )
        third.close()


class TestUntrusted:
    def test_document_gone(self, store: RemoteKeyStore, vault: MemoryVault) -> None:
        """
        A known key whose object is gone is missing, and never "not found".
        """
        del vault.objects[DOCUMENT]

        with pytest.raises(KeyTamperedError) as caught:
            store.get(ONE)
        with pytest.raises(HSMError):
            store.commit(change(1, 2))

        assert {"key_id": ONE, "integrity": "missing"} == caught.value.facts
        assert [(ONE, b"")] == [(s.key_id, s.document) for s in store.scan()]
        with pytest.raises(KeyTamperedError):
            store.get(ONE)
        assert store.refresh(ONE) is None
        with pytest.raises(KeyNotFoundError):
            store.get(ONE)

    @pytest.mark.parametrize(
        "data",
        [b"", b"junk", b"\xff" * (17 * 1024 * 1024)],
        ids=["empty", "junk", "long"],
    )
    def test_document_replaced(
        self, store: RemoteKeyStore, vault: MemoryVault, clock: FakeClock, data: bytes
    ) -> None:
        """
        Whatever lies there is handed on to be authenticated, unless it is too long.
        """
        vault.objects[DOCUMENT] = data
        short = data if len(data) < 1024 else b""

        assert short == store.get(ONE).document
        assert hashlib.sha256(short).hexdigest() == store.refresh(ONE).digest  # type: ignore[union-attr]
        store.close()
        second = open_remote(vault, clock=clock)
        assert [ONE] == [found.key_id for found in second.digests()]
        second.close()

    def test_changed_behind(self, store: RemoteKeyStore, vault: MemoryVault) -> None:
        """
        A change on an object that somebody replaced is refused, and his object stays.
        """
        vault.objects[DOCUMENT] = b"junk"

        with pytest.raises(GenerationConflictError):
            store.commit(change(1, 2))

        assert b"junk" == vault.objects[DOCUMENT]

    def test_changed_behind_an_unreadable_vault(
        self, store: RemoteKeyStore, vault: MemoryVault
    ) -> None:
        """
        A conflict whose other document could not be taken over is met again.
        """
        vault.objects[DOCUMENT] = b"junk"
        vault.refuse("get", name=DOCUMENT, after=2, times=9)
        with pytest.raises(StoreUnavailableError):
            store.commit(change(1, 2))
        vault.clear()

        with pytest.raises(GenerationConflictError):
            store.commit(change(1, 3))

        assert b"junk" == vault.objects[DOCUMENT]

    def test_document_gone_while_in_doubt(
        self, store: RemoteKeyStore, vault: MemoryVault
    ) -> None:
        """
        A known key stays known, if what was in doubt is gone when it is looked for.
        """
        leave_open(store, vault)
        del vault.objects[DOCUMENT]

        store.reopen()

        with pytest.raises(KeyTamperedError):
            store.get(ONE)

    def test_moved_to_another_place(
        self, store: RemoteKeyStore, vault: MemoryVault
    ) -> None:
        """
        The same document in an object with another tag can be changed.
        """
        document = vault.objects[DOCUMENT].split(b"\n", 1)[1]
        vault.objects[DOCUMENT] = document

        store.commit(change(1, 2))

        assert 2 == store.entry(ONE).generation  # type: ignore[union-attr]

    def test_meta_of_great_length(
        self, store: RemoteKeyStore, vault: MemoryVault
    ) -> None:
        """
        A small value that is not small is no value of ours.
        """
        vault.objects["meta/ring"] = bytes(1024 * 1024 + 1)

        with pytest.raises(IntegrityError):
            store.read_meta("ring")

    def test_strange_names(self, store: RemoteKeyStore, vault: MemoryVault) -> None:
        """
        Objects of other names are left alone, whatever they are.
        """
        strange = (
            "keys/x/document",
            "keys/../document",
            f"keys/{ONE}/other",
            "keys/",
            "zzz",
        )
        vault.objects.update(dict.fromkeys(strange, b"junk"))
        vault.objects["uses/README"] = b"junk"

        store.rebuild()

        assert [ONE] == page(store)
        assert [] == store.uses.material_ids()
        assert set(strange) <= vault.objects.keys()


class _Strange(MemoryVault):
    """A vault of somebody else's that answers what it likes."""

    answer: Callable[[], object] | None = None
    only = ""

    def get(self, name: str, /) -> VaultObject | None:
        if self.answer is None or self.only or name.startswith("leases/"):
            return super().get(name)
        return self.answer()  # type: ignore[return-value]

    def put(self, name: str, data: bytes, /, *, expected: str | None = None) -> str:
        if self.answer is None or name.startswith("leases/"):
            return super().put(name, data, expected=expected)
        return self.answer()  # type: ignore[return-value]

    def list(self, prefix: str, /, *, after: str = "", limit: int = 1000) -> list[str]:
        if self.answer is None:
            return super().list(prefix, after=after, limit=limit)
        return self.answer()  # type: ignore[return-value]

    def delete(self, name: str, /) -> None:
        if self.answer is None:
            super().delete(name)
        else:
            self.answer()


def _fail() -> object:
    raise RuntimeError("a driver's own")


class TestStrangeVaults:
    @pytest.mark.parametrize(
        "answer",
        [
            _fail,
            lambda: VaultObject("text", "t"),  # type: ignore[arg-type]
            lambda: VaultObject(b"", ""),
            lambda: 7,
        ],
    )
    def test_answers(self, answer: Callable[[], object]) -> None:
        """
        Whatever a vault raises or returns, only documented errors come of it.
        """
        vault = _Strange()
        store = open_remote(vault)
        create(store, 1)
        before = dict(vault.objects)
        vault.answer = answer

        for call in (
            lambda: store.get(ONE),
            lambda: store.get_blob(ONE, 1),
            lambda: store.commit(change(1, 2)),
            lambda: store.refresh(ONE),
            lambda: store.find_operation(operation_of(9)),
            lambda: store.abort(operation_of(9)),
            lambda: store.write_meta("ring", b""),
            lambda: store.read_meta("ring"),
            lambda: store.uses.get(MATERIAL),
            lambda: store.uses.put(MATERIAL, b""),
        ):
            with pytest.raises(StoreUnavailableError):
                call()

        vault.answer = None
        if not store.available:
            store.reopen()
        store.close()
        changed = {name for name in vault.objects if name not in before}
        assert not {name for name in changed if not name.startswith("leases/")}

    @pytest.mark.parametrize(
        "names", [[f"keys/{n}" for n in range(1000)], ["a"] * 1000]
    )
    def test_endless_list(self, names: list[str]) -> None:
        """
        A list that begins again after its last page ends in an error.
        """
        vault = _Strange()
        store = open_remote(vault)
        vault.answer = lambda: names

        with pytest.raises(StoreUnavailableError, match="twice"):
            store.rebuild()

        vault.answer = None
        store.close()

    def test_no_room(self) -> None:
        """
        A vault that says that there is no room is believed: nothing was changed.
        """

        def refuse() -> object:
            raise StorageFullError

        vault = _Strange()
        store = open_remote(vault)
        create(store, 1)
        before = dict(vault.objects)
        for made in (change(1, 2), replace(change(1, 2), blobs={}, operation_id="a")):
            vault.only = "put"
            vault.answer = refuse
            with pytest.raises(StorageFullError):
                store.commit(made)
            vault.answer = None

        assert store.available
        assert before == vault.objects
        store.close()


class TestCountersAndMeta:
    def test_late_counter(self, store: RemoteKeyStore, vault: MemoryVault) -> None:
        """
        A counter is never set back by a put that arrives late.
        """
        store.uses.put(MATERIAL, b"1")
        vault.hold("put", name="uses/", times=99)
        with pytest.raises(StoreUnavailableError):
            store.uses.put(MATERIAL, b"2")
        vault.clear()
        store.uses.put(MATERIAL, b"3")

        assert 0 == vault.deliver()
        assert b"3" == store.uses.get(MATERIAL)

    @pytest.mark.parametrize("fate", ["lose_answers", "refuse"])
    def test_lost_counter(
        self, store: RemoteKeyStore, vault: MemoryVault, fate: str
    ) -> None:
        """
        A lost answer is looked for, and the next put goes on from there.
        """
        getattr(vault, fate)("put", name="uses/", times=2)

        store.uses.put(MATERIAL, b"1")
        store.uses.put(MATERIAL, b"2")

        assert b"2" == store.uses.get(MATERIAL)

    def test_counter_changed_behind(
        self, store: RemoteKeyStore, vault: MemoryVault
    ) -> None:
        """
        A counter that somebody replaced is written over, from what is there.
        """
        store.uses.put(MATERIAL, b"1")
        vault.objects[f"uses/{MATERIAL}"] = b"0"

        store.uses.put(MATERIAL, b"2")

        assert b"2" == store.uses.get(MATERIAL)

    def test_late_meta(self, store: RemoteKeyStore, vault: MemoryVault) -> None:
        """
        A small value is never set back by a put that arrives late.
        """
        store.write_meta("ring", b"1")
        vault.hold("put", name="meta/", times=99)
        with pytest.raises(StoreUnavailableError):
            store.write_meta("ring", b"2")
        vault.clear()
        store.write_meta("ring", b"3")

        assert 0 == vault.deliver()
        assert b"3" == store.read_meta("ring")


class TestFormat:
    def test_objects(self, store: RemoteKeyStore, vault: MemoryVault) -> None:
        """
        Objects have the names and the frame that the reference page gives.
        """
        page_text = (REPOSITORY / "docs" / "reference" / "formats-keys.md").read_text()
        store.write_meta("ring", b"1")
        store.uses.put(MATERIAL, b"2")
        store.abort(operation_of(9))
        frame, document = vault.objects[DOCUMENT].split(b"\n", 1)

        assert {
            "meta/ring",
            f"uses/{MATERIAL}",
            f"aborted/{operation_of(9)}",
            DOCUMENT,
            f"keys/{ONE}/v00000001",
            "leases/writer",
        } == vault.objects.keys()
        assert re.fullmatch(rb"ferrohsm-document 1 1 [0-9a-f]{32}", frame)
        assert document == store.get(ONE).document
        for text in ("`ferrohsm-document 1 EPOCH TOKEN`", "`keys/KEY-ID/document`"):
            assert text in page_text
