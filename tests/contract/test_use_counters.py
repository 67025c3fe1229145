# SPDX-License-Identifier: MIT
"""What every `UseCounters` promises, run over every implementation."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsm_core.errors import InvalidInputError
from hsm_core.protocols import UseCounters
from tests.contract.store_rows import ROWS, StoreRow

ONE, TWO = (str(uuid.UUID(int=number, version=4)) for number in (1, 2))
LOUD = "ABCDEF01-0000-4000-8000-000000000001"


@pytest.fixture(params=ROWS, ids=str)
def counters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UseCounters]:
    """Give open counters without a value."""
    row: StoreRow = request.param
    opened = row.open(tmp_path)
    yield opened.uses
    opened.keys.close()


class TestEveryImplementation:
    def test_put_and_get(self, counters: UseCounters) -> None:
        """
        A material has the value that was put last, and no other material has it.
        """
        counters.put(ONE, b"first")
        counters.put(ONE, b"second")

        assert b"second" == counters.get(ONE)
        assert counters.get(TWO) is None
        assert [ONE] == list(counters.material_ids())

    def test_first_value(self, counters: UseCounters) -> None:
        """
        A first value is there at once, and can be replaced and discarded.
        """
        counters.put_first(ONE, b"first")
        counters.put_first(TWO, b"other")
        counters.put(ONE, b"second")
        counters.discard(TWO)

        assert b"second" == counters.get(ONE)
        assert [ONE] == list(counters.material_ids())

    def test_replace(self, counters: UseCounters) -> None:
        """
        The value that was read last, or none, is replaced.
        """
        assert counters.replace(ONE, None, b"first")
        assert counters.replace(ONE, b"first", b"second")

        assert b"second" == counters.get(ONE)

    def test_discard(self, counters: UseCounters) -> None:
        """
        A discarded value is gone, and discarding what is not there is no error.
        """
        counters.put(ONE, b"value")
        counters.put(TWO, b"other")

        counters.discard(ONE)
        counters.discard(ONE)

        assert counters.get(ONE) is None
        assert [TWO] == list(counters.material_ids())

    @pytest.mark.parametrize("name", ["", "..", "../keys", "a/b", "x", LOUD])
    def test_names(self, counters: UseCounters, name: str) -> None:
        """
        What is no material's id reaches no store.
        """
        with pytest.raises(InvalidInputError):
            counters.put(name, b"value")
        with pytest.raises(InvalidInputError):
            counters.get(name)
        with pytest.raises(InvalidInputError):
            counters.discard(name)

    def test_many_threads(self, counters: UseCounters) -> None:
        """
        Threads that write different materials don't disturb each other.
        """
        names = [str(uuid.UUID(int=number, version=4)) for number in range(8)]

        def write(name: str) -> None:
            for number in range(5):
                counters.put(name, f"{name} {number}".encode())

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, names))

        assert {f"{name} 4".encode() for name in names} == set(map(counters.get, names))
        assert sorted(names) == sorted(counters.material_ids())
