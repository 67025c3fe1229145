# SPDX-License-Identifier: MIT
"""Private keys of every `CryptoProvider`: randomness, seeds and expanded forms."""

from __future__ import annotations

import pytest

from hsm_core._internal.crypto.der import (
    OCTET_STRING,
    SEQUENCE,
    element,
    private_key_info,
    read_private_form,
    read_private_key_info,
    read_public_key_info,
    seed_key_info,
)
from hsm_core._internal.crypto.expanded import expand
from hsm_core.algorithms import Algorithm, Family, spec
from hsm_core.errors import EntropyUnavailableError, InvalidInputError
from tests.contract.provider_rows import (
    PROVIDERS,
    Row,
    altered,
    keeps_seeds,
    label,
    material,
    private,
    rows,
)

_LATTICE = [r for r in rows(Family.ML_KEM, Family.ML_DSA) if keeps_seeds(*r)]
_FROM_SEED = [
    *_LATTICE,
    *(r for r in rows(Family.EDDSA, Family.ECDH, Family.SLH_DSA) if r[0] != "pqcrypto"),
]
each_lattice = pytest.mark.parametrize("row", _LATTICE, ids=label)


class Counting:
    """Entropy of known bytes, which remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def random_bytes(self, length: int, /) -> bytes:
        """Return numbers from zero."""
        self.asked.append(length)
        return bytes(range(length))


class Failing:
    """Entropy whose health test has failed."""

    def random_bytes(self, length: int, /) -> bytes:
        """Give nothing."""
        raise EntropyUnavailableError


@pytest.mark.parametrize("row", _FROM_SEED, ids=label)
def test_made_from_entropy(row: Row) -> None:
    """A key follows from what the given source drew, once and exactly."""
    source, size = Counting(), spec(row[1]).private_bytes
    if spec(row[1]).family is Family.SLH_DSA:
        size = size // 4 * 3  # the root follows from the three seeds

    first = PROVIDERS[row[0]].generate(row[1], source)

    assert [size] == source.asked
    assert bytes(range(size)) in first
    assert first == PROVIDERS[row[0]].generate(row[1], source)


@pytest.mark.parametrize("row", [r for r in rows() if r[0] != "composite"], ids=label)
def test_unhealthy_entropy(row: Row) -> None:
    """No key is made without healthy entropy, whoever draws its bytes."""
    with pytest.raises(EntropyUnavailableError):
        PROVIDERS[row[0]].generate(row[1], Failing())


@each_lattice
def test_seed_and_expanded_key(row: Row) -> None:
    """Both together are the key of the seed, if every byte is the seed's."""
    provider, algorithm = PROVIDERS[row[0]], row[1]
    seed, expanded = _parts(row)

    loaded = provider.load_foreign(algorithm, _both(algorithm, seed, expanded))

    assert private(row).public_der() == loaded.public_der()
    size = len(expanded)
    wrong = [altered(expanded, at) for at in (*range(0, size, size // 5), -1)]
    for other, beside in (
        *((seed, changed) for changed in (*wrong, bytes(size))),
        (altered(seed, 0), expanded),
    ):
        with pytest.raises(InvalidInputError, match="does not match its seed"):
            provider.load_foreign(algorithm, _both(algorithm, other, beside))


@each_lattice
def test_only_the_seed_is_kept(row: Row) -> None:
    """Material of ours with an expanded key beside the seed is refused."""
    with pytest.raises(InvalidInputError, match="more than the seed") as caught:
        PROVIDERS[row[0]].load(row[1], _both(row[1], *_parts(row)))

    assert "material" == caught.value.facts["field"]


@each_lattice
def test_expanded_key_alone(row: Row) -> None:
    """An expanded key without its seed is refused, with the reason."""
    provider, algorithm = PROVIDERS[row[0]], row[1]
    _, expanded = _parts(row)
    alone = private_key_info(algorithm, element(OCTET_STRING, expanded))
    loads = [provider.load_foreign, provider.load]
    # A provider without seeds may have made a stored key of ML-KEM-512.
    for load in loads[: 1 if spec(algorithm).exists_without_seed else 2]:
        with pytest.raises(InvalidInputError, match="expanded key without its seed"):
            load(algorithm, alone)


@each_lattice
def test_seed_of_another_length(row: Row) -> None:
    """A seed of another length, even none, is refused."""
    size = spec(row[1]).private_bytes
    for wrong in (0, 1, size - 1, size + 1):
        for load in (PROVIDERS[row[0]].load, PROVIDERS[row[0]].load_foreign):
            with pytest.raises(InvalidInputError) as caught:
                load(row[1], seed_key_info(row[1], bytes(wrong)))
            assert "material" == caught.value.facts["field"]


@pytest.mark.parametrize(
    "row", [r for r in rows(Family.SLH_DSA) if r[1].endswith("128f")], ids=label
)
def test_root_of_another_seed(row: Row) -> None:
    """A foreign key of SLH-DSA has the root that its seeds give, or is refused."""
    octets = read_private_key_info(row[1], material(row))

    PROVIDERS[row[0]].load_foreign(row[1], material(row))
    for position in (0, len(octets) // 2, len(octets) // 4 * 3, -1):
        wrong = private_key_info(row[1], altered(octets, position))
        with pytest.raises(InvalidInputError, match="root that does not match"):
            PROVIDERS[row[0]].load_foreign(row[1], wrong)


def _parts(row: Row) -> tuple[bytes, bytes]:
    """Return the seed of a key, and its expanded key."""
    seed = read_private_form(row[1], material(row)).seed
    raw = read_public_key_info(row[1], private(row).public_der())
    return seed, expand(row[1], seed, raw)


def _both(algorithm: Algorithm, seed: bytes, expanded: bytes) -> bytes:
    """Return PKCS#8 with seed and expanded key (RFC 9881 and 9935, section 6)."""
    parts = (element(OCTET_STRING, part) for part in (seed, expanded))
    return private_key_info(algorithm, element(SEQUENCE, *parts))
