# SPDX-License-Identifier: MIT
"""Operations that arrive in pieces, within bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core.errors import HSMError, OverloadedError, PayloadTooLargeError
from hsm_server.ipc.frames import MAX_WAITING
from hsm_server.ipc.requests import Assemblies


def test_pieces_in_order() -> None:
    """Pieces of several operations come together, each in its own order."""
    assemblies = Assemblies(100)

    for piece in (b"a", b"b", b"c"):
        assemblies.add(1, piece)
        assemblies.add(2, piece.upper())

    assert b"abcd" == assemblies.complete(1, b"d")
    assert b"ABCD" == assemblies.complete(2, b"D")
    assert 1 not in assemblies


def test_the_longest() -> None:
    """An operation may be as long as is said, and no longer."""
    assemblies = Assemblies(10)
    assemblies.add(1, b"x" * 9)
    assemblies.add(2, b"x" * 9)

    assert 10 == len(assemblies.complete(1, b"x"))
    with pytest.raises(PayloadTooLargeError) as caught:
        assemblies.complete(2, b"xx")
    assert 10 == caught.value.facts["maximum"]


def test_too_long_in_pieces() -> None:
    """Of an operation that has become too long, the rest is not kept either."""
    assemblies = Assemblies(10)

    for _ in range(100):
        assemblies.add(1, b"x" * 5)

    assert 1 in assemblies
    with pytest.raises(PayloadTooLargeError):
        assemblies.complete(1, b"")
    assert b"y" * 10 == assemblies.complete(2, b"y" * 10)


def test_too_much_at_once() -> None:
    """What is under way counts until it is dropped, also when it is complete."""
    assemblies = Assemblies(10)
    for number in range(1, 9):
        assemblies.complete(number, b"x" * 10)

    with pytest.raises(OverloadedError):
        assemblies.complete(9, b"x")
    assemblies.drop(3)

    assert b"x" * 10 == assemblies.complete(10, b"x" * 10)


def test_clearing() -> None:
    """After everything is forgotten there is room for as much again."""
    assemblies = Assemblies(10)
    for number in range(1, 9):
        assemblies.add(number, b"x" * 10)

    assemblies.clear()

    for number in range(11, 19):
        assert b"y" * 10 == assemblies.complete(number, b"y" * 10)


def test_full() -> None:
    """Operations that were begun are counted, however short they are."""
    assemblies = Assemblies(10)

    for number in range(MAX_WAITING):
        assert not assemblies.is_full
        assemblies.add(number, b"")

    assert assemblies.is_full


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "complete", "drop"]),
        st.integers(1, 12),
        st.integers(0, 12),
    ),
    max_size=60,
)


@given(STEPS)
def test_accounts(steps: list[tuple[str, int, int]]) -> None:
    """Whatever comes, all that is dropped leaves room for as much as at the start."""
    assemblies = Assemblies(10)
    for name, number, size in steps:
        try:
            match name:
                case "add":
                    assemblies.add(number, b"x" * size)
                case "complete":
                    assert 10 >= len(assemblies.complete(number, b"x" * size))
                case _:
                    assemblies.drop(number)
        except HSMError:
            assert number not in assemblies

    for number in range(1, 13):
        assemblies.drop(number)

    for number in range(21, 29):
        assert 10 == len(assemblies.complete(number, b"y" * 10))
