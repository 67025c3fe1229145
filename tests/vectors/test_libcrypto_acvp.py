# SPDX-License-Identifier: MIT
"""
NIST's ACVP vectors against the provider over the system's OpenSSL.

These are the groups whose inputs no user may give: the randomness of an encapsulation,
of a key or of a signature, and expanded private keys.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from hsm_core._internal.crypto.der import (
    private_key_info,
    read_public_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.libcrypto import LibcryptoProvider
from hsm_core._internal.crypto.libcrypto.library import (
    Libcrypto,
    find_libcrypto,
    key_from_expanded,
)
from hsm_core._internal.crypto.libcrypto.provider import (
    KEMPrivateHandle,
    KEMPublicHandle,
    LibcryptoSignaturePrivateHandle,
)
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core.algorithms import Algorithm
from hsm_core.errors import InvalidInputError
from tests.support import require_service, vectors_folder
from tests.vectors.deterministic import encapsulate_from, sign_deterministic

PROVIDER = LibcryptoProvider()


@pytest.fixture
def openssl() -> Libcrypto:
    """Give the system's libcrypto, or skip where none will do."""
    found = find_libcrypto()
    require_service("The system's OpenSSL 3.5", found)
    assert found is not None
    return found


@cache
def groups(name: str) -> list[dict[str, Any]]:
    """Return the test groups of a file."""
    path = vectors_folder("acvp") / f"{name}.json.gz"
    content: dict[str, list[dict[str, Any]]] = json.loads(
        gzip.decompress(path.read_bytes())
    )
    return content["testGroups"]


def cases(name: str, **wanted: object) -> Iterator[tuple[Algorithm, dict[str, Any]]]:
    """Give algorithm and case of all groups that have these properties."""
    for group in groups(name):
        if all(group.get(key) == value for key, value in wanted.items()):
            for case in group["tests"]:
                yield Algorithm(group["parameterSet"]), case | case.get("expected", {})


def data(case: dict[str, Any], *names: str) -> Iterator[bytes]:
    """Give the values of a case, as bytes."""
    for name in names:
        yield bytes.fromhex(case[name])


@pytest.mark.parametrize(
    ("name", "parts", "public", "count"),
    [
        ("ML-KEM-keyGen-FIPS203", ("d", "z"), "ek", 75),
        ("ML-DSA-keyGen-FIPS204", ("seed",), "pk", 75),
        ("SLH-DSA-keyGen-FIPS205", ("skSeed", "skPrf", "pkSeed"), "pk", 120),
    ],
)
@pytest.mark.usefixtures("openssl")
def test_key_generation(
    name: str, parts: tuple[str, ...], public: str, count: int
) -> None:
    """
    From a seed follows the one key.
    """
    ran = 0
    for algorithm, case in cases(name):
        material = PROVIDER.material_from_seed(algorithm, b"".join(data(case, *parts)))

        der = PROVIDER.load(algorithm, material).public_der()
        assert [read_public_key_info(algorithm, der)] == [*data(case, public)]
        if "skSeed" in case:
            (octets,) = data(case, "sk")
            assert private_key_info(algorithm, octets) == material
        ran += 1
    assert count == ran


@pytest.mark.usefixtures("openssl")
def test_encapsulation() -> None:
    """
    From a chosen m follow the one secret and encapsulation.
    """
    ran = 0
    for algorithm, case in cases("ML-KEM-encapDecap-FIPS203", function="encapsulation"):
        raw, message, secret, ciphertext = data(case, "ek", "m", "k", "c")
        public = PROVIDER.load_public(
            algorithm, subject_public_key_info(algorithm, raw)
        )
        assert isinstance(public, KEMPublicHandle)

        assert (secret, ciphertext) == encapsulate_from(public, message)
        ran += 1
    assert 75 == ran


@pytest.mark.usefixtures("openssl")
def test_encapsulation_keys() -> None:
    """
    A key is loaded if it passes the check of FIPS 203, section 7.2, and else refused.
    """
    outcomes = []
    for algorithm, case in cases(
        "ML-KEM-encapDecap-FIPS203", function="encapsulationKeyCheck"
    ):
        (raw,) = data(case, "ek")
        try:
            PROVIDER.load_public(algorithm, subject_public_key_info(algorithm, raw))
        except InvalidInputError:
            outcomes.append((False, case["testPassed"]))
        else:
            outcomes.append((True, case["testPassed"]))

    assert 30 == len(outcomes)
    assert all(ours == expected for ours, expected in outcomes)
    assert {True, False} == {expected for _, expected in outcomes}


def test_decapsulation(openssl: Libcrypto) -> None:
    """
    Good encapsulations give their secret, changed ones the one of implicit rejection.
    """
    ran = 0
    for algorithm, case in cases("ML-KEM-encapDecap-FIPS203", function="decapsulation"):
        raw, ciphertext, secret = data(case, "dk", "c", "k")
        key = key_from_expanded(openssl, algorithm, raw)
        handle = KEMPrivateHandle(key, key.public_bytes())

        assert secret == handle.decapsulate(ciphertext)
        ran += 1
    assert 30 == ran


@pytest.mark.parametrize("external_mu", [False, True])
def test_deterministic_signatures(openssl: Libcrypto, external_mu: bool) -> None:
    """
    The deterministic variant gives the one signature, of a message or of mu.
    """
    kind: dict[str, object] = (
        {"externalMu": True} if external_mu else {"preHash": "pure"}
    )
    ran = 0
    for algorithm, case in cases("ML-DSA-sigGen-FIPS204", deterministic=True, **kind):
        raw, signature = data(case, "sk", "signature")
        (message,) = data(case, "mu" if external_mu else "message")
        (context,) = (b"",) if external_mu else data(case, "context")
        parameters = signature_parameters(
            algorithm, context=context, external_mu=external_mu
        )
        key = key_from_expanded(openssl, algorithm, raw)
        handle = LibcryptoSignaturePrivateHandle(key, key.public_bytes())

        assert signature == sign_deterministic(handle, message, parameters)
        handle.verify(message, signature, parameters)
        ran += 1
    assert 45 == ran
