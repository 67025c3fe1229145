"""The tree over a trail is the one that RFC 6962 defines, whatever is left of it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.audit.merkle import CompactRange
from hsm_core._internal.audit.record import leaf_hash
from hsm_core.errors import MalformedError

# The leaves that Certificate Transparency's own tests use.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def _tree_hash(leaves: list[bytes]) -> bytes:
    """Return MTH(D[n]) by the very words of RFC 6962, section 2.1."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = _tree_hash(leaves[:split]), _tree_hash(leaves[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


def _range_of(leaves: list[bytes]) -> CompactRange:
    found = CompactRange()
    for leaf in leaves:
        found.append(leaf_hash(leaf))
    return found


def test_the_published_roots_come_out() -> None:
    """Trees of one to eight leaves have the roots that are known of them."""
    assert hashlib.sha256().hexdigest() == CompactRange().root()
    assert ROOTS == [_range_of(LEAVES[: n + 1]).root() for n in range(len(LEAVES))]
    assert ROOTS == [_tree_hash(LEAVES[: n + 1]).hex() for n in range(len(LEAVES))]


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_any_tree_has_the_root_of_the_definition(leaves: list[bytes]) -> None:
    """The root of a compact range is that of the recursive definition."""
    assert _tree_hash(leaves).hex() == _range_of(leaves).root()


@given(st.lists(st.binary(max_size=8), max_size=70), st.integers(0, 70))
def test_a_range_goes_on_from_its_roots_alone(leaves: list[bytes], cut: int) -> None:
    """Roots that were stored lead to the same tree as never having stopped."""
    cut = min(cut, len(leaves))
    stored = _range_of(leaves[:cut])
    resumed = CompactRange(cut, stored.roots)
    for leaf in leaves[cut:]:
        resumed.append(leaf_hash(leaf))

    assert cut.bit_count() == len(stored.roots)
    assert _range_of(leaves).roots == resumed.roots
    assert len(leaves) == resumed.size


def test_the_roots_are_those_of_complete_subtrees() -> None:
    """Of seven leaves those of the first four, the next two and the last are kept."""
    found = _range_of(LEAVES[:7]).roots

    assert (ROOTS[3], _tree_hash(LEAVES[4:6]).hex(), leaf_hash(LEAVES[6])) == found


@pytest.mark.parametrize(
    ("size", "roots"),
    [
        (1, ()),
        (0, (ROOTS[0],)),
        (3, (ROOTS[0],)),
        (-1, (ROOTS[0],)),
        (1, (ROOTS[0][:-2],)),
        (1, (ROOTS[0].upper(),)),
        (1, ("g" * 64,)),
    ],
)
def test_roots_that_can_not_be_are_refused(size: int, roots: tuple[str, ...]) -> None:
    """There are as many roots as the size has bits set, each of 64 hex digits."""
    with pytest.raises(MalformedError):
        CompactRange(size, roots)
