# SPDX-License-Identifier: MIT
"""
NIST's ACVP vectors against the provider over the system's OpenSSL.

These are the groups whose inputs no user may give: expanded private keys.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from hsm_core._internal.crypto.libcrypto.library import (
    Libcrypto,
    find_libcrypto,
    key_from_private,
)
from hsm_core._internal.crypto.libcrypto.provider import (
    KEMPrivateHandle,
    LibcryptoSignaturePrivateHandle,
)
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core.algorithms import Algorithm
from tests.support import require_service, vectors_folder
from tests.vectors.deterministic import sign_deterministic


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


def test_decapsulation(openssl: Libcrypto) -> None:
    """
    Good encapsulations give their secret, changed ones the one of implicit rejection.
    """
    ran = 0
    for algorithm, case in cases("ML-KEM-encapDecap-FIPS203", function="decapsulation"):
        raw, ciphertext, secret = data(case, "dk", "c", "k")
        key = key_from_private(openssl, algorithm, raw)
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
        key = key_from_private(openssl, algorithm, raw)
        handle = LibcryptoSignaturePrivateHandle(key, key.public_bytes())

        assert signature == sign_deterministic(handle, message, parameters)
        handle.verify(message, signature, parameters)
        ran += 1
    assert 45 == ran
