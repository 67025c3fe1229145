# SPDX-License-Identifier: MIT
"""What every `RemoteKeyVault` promises, run over every implementation."""

from __future__ import annotations

import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsm_core.errors import (
    ConfigurationError,
    StoreUnavailableError,
    VaultConflictError,
)
from hsm_core.protocols import ABSENT, RemoteKeyVault
from tests.contract.vault_rows import ROWS, VaultRow, share_vault

LONGEST = ("0" + string.ascii_lowercase + string.digits + "._-" * 60)[:196] + "/z.-"


@pytest.fixture(params=ROWS, ids=str)
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RemoteKeyVault]:
    """Give an empty vault."""
    row: VaultRow = request.param
    opened = row.open(tmp_path)
    yield opened
    opened.close()


class TestObjects:
    @pytest.mark.parametrize(
        "data",
        [b"", b"\0\xff\r\n", bytes(range(256)) * 4096],
        ids=["empty", "short", "long"],
    )
    @pytest.mark.parametrize("name", ["a", "0/1/2/3", LONGEST])
    def test_put_and_get(self, vault: RemoteKeyVault, name: str, data: bytes) -> None:
        """
        An object comes back byte by byte, with the tag that its put gave.
        """
        tag = vault.put(name, data)

        found = vault.get(name)

        assert found is not None
        assert (data, tag) == (found.data, found.tag)
        assert tag

    def test_nothing(self, vault: RemoteKeyVault) -> None:
        """
        What was never put is not there, though something with a longer name is.
        """
        vault.put("a/b", b"")

        assert vault.get("a") is None
        assert vault.get("a/b/c") is None

    def test_tags(self, vault: RemoteKeyVault) -> None:
        """
        A tag stays as long as the object does, and changes with it.
        """
        first = vault.put("a", b"one")
        vault.put("b", b"other")
        kept = vault.get("a")
        second = vault.put("a", b"two")

        assert kept is not None
        assert first == kept.tag
        assert first != second

    def test_delete(self, vault: RemoteKeyVault) -> None:
        """
        A deleted object is gone at once; deleting what is not there is no error.
        """
        vault.put("a", b"1")
        vault.put("ab", b"2")

        vault.delete("a")
        vault.delete("a")

        assert vault.get("a") is None
        assert ["ab"] == vault.list("")


class TestPreconditions:
    def test_absent(self, vault: RemoteKeyVault) -> None:
        """
        An object that must not be there is put once, and again after it was deleted.
        """
        vault.put("a", b"1", expected=ABSENT)

        with pytest.raises(VaultConflictError):
            vault.put("a", b"2", expected=ABSENT)

        found = vault.get("a")
        assert found is not None
        assert b"1" == found.data
        vault.delete("a")
        vault.put("a", b"3", expected=ABSENT)

    def test_tag(self, vault: RemoteKeyVault) -> None:
        """
        An object is replaced only where it has the expected tag; the old one conflicts.
        """
        first = vault.put("a", b"1")
        second = vault.put("a", b"2", expected=first)

        with pytest.raises(VaultConflictError):
            vault.put("a", b"3", expected=first)

        found = vault.get("a")
        assert found is not None
        assert (b"2", second) == (found.data, found.tag)

    def test_tag_of_nothing(self, vault: RemoteKeyVault) -> None:
        """
        What is not there has no tag, so expecting one conflicts and puts nothing.
        """
        tag = vault.put("a", b"1")
        vault.delete("a")

        with pytest.raises(VaultConflictError):
            vault.put("a", b"2", expected=tag)

        assert vault.get("a") is None

    def test_none(self, vault: RemoteKeyVault) -> None:
        """
        Without a precondition an object is replaced whatever it is.
        """
        vault.put("a", b"1")

        vault.put("a", b"2")

        found = vault.get("a")
        assert found is not None
        assert b"2" == found.data

    def test_one_of_many(self, vault: RemoteKeyVault) -> None:
        """
        Of many puts that expect the same, one is done.
        """

        def put(number: int) -> bool:
            try:
                vault.put("a", b"%d" % number, expected=ABSENT)
            except VaultConflictError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert 1 == sum(pool.map(put, range(8)))

    def test_no_update_is_lost(self, vault: RemoteKeyVault) -> None:
        """
        A number that many raise by reading and expecting is raised by each of them.
        """
        vault.put("a", b"0")

        def count_up(times: int) -> None:
            while times:
                found = vault.get("a")
                assert found is not None
                try:
                    vault.put("a", b"%d" % (int(found.data) + 1), expected=found.tag)
                except VaultConflictError:
                    continue
                times -= 1

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(count_up, [4] * 3))

        found = vault.get("a")
        assert found is not None
        assert b"12" == found.data


class TestLists:
    NAMES = ("a", "a-b", "a.b", "a/1", "a/10", "a/2", "a_b", "aa", "b/1")

    @pytest.fixture(autouse=True)
    def objects(self, vault: RemoteKeyVault) -> None:
        """Put some objects into the vault, in no order."""
        for name in reversed(self.NAMES):
            vault.put(name, b"")

    @pytest.mark.parametrize("prefix", ["", "a", "a/", "a/1", "b", "c", "b/1"])
    def test_prefix(self, vault: RemoteKeyVault, prefix: str) -> None:
        """
        The names that begin so come in the order of their characters.
        """
        expected = [name for name in sorted(self.NAMES) if name.startswith(prefix)]

        assert expected == vault.list(prefix)

    @pytest.mark.parametrize("limit", [1, 2, 4, 9])
    def test_pages(self, vault: RemoteKeyVault, limit: int) -> None:
        """
        Pages join to the whole, and only the last is short.
        """
        pages = [vault.list("", limit=limit)]
        while len(pages[-1]) == limit:
            pages.append(vault.list("", after=pages[-1][-1], limit=limit))

        assert sorted(self.NAMES) == [name for page in pages for name in page]

    def test_after_a_name_that_is_not_there(self, vault: RemoteKeyVault) -> None:
        """
        A page begins behind a name whether it is there or not.
        """
        assert ["a/10", "a/2"] == vault.list("a/", after="a/1")
        assert ["a/2"] == vault.list("a/", after="a/15")


class TestGuide:
    def test_share_that_is_not_mounted(self, tmp_path: Path) -> None:
        """
        A directory without its lock file is refused, and never an empty vault.
        """
        with pytest.raises(ConfigurationError):
            share_vault().open_share(str(tmp_path))

        (tmp_path / "lock").touch()
        vault: RemoteKeyVault = share_vault().open_share(str(tmp_path))
        (tmp_path / "lock").unlink()
        for call in (
            lambda: vault.get("a"),
            lambda: vault.put("a", b""),
            lambda: vault.list(""),
            lambda: vault.delete("a"),
        ):
            with pytest.raises(StoreUnavailableError):
                call()
