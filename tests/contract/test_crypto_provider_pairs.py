# SPDX-License-Identifier: MIT
"""Providers of one algorithm understand each other, whichever comes first."""

from __future__ import annotations

import pytest

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core.algorithms import ALGORITHMS
from hsm_core.errors import AlgorithmUnavailableError
from tests.contract.provider_rows import (
    MESSAGE,
    PROVIDERS,
    ROWS,
    SIGNING,
    Row,
    flow,
    is_prompt,
    keeps_seeds,
    material,
    private,
    signature,
)

Pair = tuple[Row, Row]

PAIRS = [
    (one, other)
    for one in ROWS
    for other in ROWS
    if one != other and one[1] is other[1]
]
"""Every ordered pair of providers of one algorithm."""


def label(value: object) -> str | None:
    """Return a readable id of a pair."""
    if isinstance(value, tuple):
        (one, algorithm), (other, _) = value
        return f"{algorithm}-{one}-{other}"
    return None


def pairs(*, is_kem: bool) -> list[Pair]:
    """Return the pairs of KEMs, or of signatures that are made here."""
    return [
        (one, other)
        for one, other in PAIRS
        if ALGORITHMS[one[1]].is_kem is is_kem and (is_kem or one in SIGNING)
    ]


@pytest.mark.parametrize("pair", PAIRS, ids=label)
def test_same_key(pair: Pair) -> None:
    """Material of one provider is the same key to the other, and works there."""
    one, other = pair
    provider = PROVIDERS[other[0]]
    if not keeps_seeds(*other):
        with pytest.raises(AlgorithmUnavailableError, match="stored as a seed"):
            provider.load(other[1], material(one))
        return
    loaded = provider.load(other[1], material(one))

    assert private(one).public_der() == loaded.public_der()
    if is_prompt(other):
        flow(loaded)


@pytest.mark.parametrize("pair", pairs(is_kem=False), ids=label)
def test_signed_here_verified_there(pair: Pair) -> None:
    """A signature of one provider verifies with the other."""
    one, other = pair
    verifier = PROVIDERS[other[0]].load_public(other[1], private(one).public_der())

    verifier.verify(MESSAGE, signature(one), signature_parameters(one[1]))


@pytest.mark.parametrize(
    "pair",
    [p for p in pairs(is_kem=False) if is_prompt(p[0])],
    ids=label,
)
def test_with_context(pair: Pair) -> None:
    """So does one with the longest context."""
    one, other = pair
    parameters = signature_parameters(one[1], context=bytes(range(255)))
    made = private(one).sign(MESSAGE, parameters)
    verifier = PROVIDERS[other[0]].load_public(other[1], private(one).public_der())

    verifier.verify(MESSAGE, made, parameters)


@pytest.mark.parametrize("pair", pairs(is_kem=True), ids=label)
def test_encapsulated_there_decapsulated_here(pair: Pair) -> None:
    """What the other provider encapsulates to a public key, its owner finds."""
    one, other = pair
    sender = PROVIDERS[other[0]].load_public(other[1], private(one).public_der())
    secret, ciphertext = sender.encapsulate()

    assert secret == private(one).decapsulate(ciphertext)


@pytest.mark.parametrize(
    "pair", [p for p in pairs(is_kem=True) if keeps_seeds(*p[1])], ids=label
)
def test_same_rejection(pair: Pair) -> None:
    """Both reject a changed encapsulation with the same secret."""
    one, other = pair
    _, ciphertext = private(one).encapsulate()
    changed = ciphertext[:-1] + bytes([ciphertext[-1] ^ 1])
    loaded = PROVIDERS[other[0]].load(other[1], material(one))

    assert private(one).decapsulate(changed) == loaded.decapsulate(changed)
