# SPDX-License-Identifier: MIT
"""
Wycheproof's tests of ML-KEM and ML-DSA.

The API draws its own randomness. So what a test expects of given randomness is
compared with a provider's own function for known answers, besides what the API itself
must answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from hsm_core import primitives
from hsm_core._internal.crypto.der import (
    expanded_key_info,
    read_public_key_info,
    seed_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.libcrypto.provider import LibcryptoSignaturePrivateHandle
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core.algorithms import Algorithm
from hsm_core.errors import DecryptionError, InvalidInputError
from tests.vectors.deterministic import encapsulate_from, sign_deterministic
from tests.vectors.key_forms import both_key_info, libcrypto
from tests.vectors.tally import LOADING, Tally, Test
from tests.vectors.wycheproof import Group, octets


def compare_encapsulation(
    algorithm: Algorithm,
    tally: Tally,
    test: Test,
    given: tuple[bytes, bytes],
    expected: tuple[bytes, bytes],
) -> None:
    """
    Refuse to encapsulate with given randomness; compare what a provider makes of it.

    Args:
        algorithm: An ML-KEM algorithm.

        tally: What counts it.

        test: The test.

        given: Encapsulation key and message m.

        expected: Shared secret and encapsulation.
    """
    der = subject_public_key_info(algorithm, given[0])
    encapsulate: Callable[..., object] = primitives.encapsulate
    primitives.load_public_key(algorithm, der)
    tally.refuse(
        test,
        "given randomness",
        TypeError,
        partial(encapsulate, algorithm, der, given[1]),
    )
    handle = cast("Any", libcrypto().load_public(algorithm, der))
    made = encapsulate_from(handle, given[1])
    tally.compare_inside(algorithm, test, made, expected)


def compare_key_generation(
    algorithm: Algorithm, seed: bytes, public: bytes, expanded: bytes
) -> None:
    """Check that a seed gives a key, alone and with the expanded key beside it."""
    pair = primitives.private_key_from_seed(algorithm, seed)
    assert public == read_public_key_info(algorithm, pair.public_der)
    both = primitives.load_private_key(
        algorithm, both_key_info(algorithm, seed, expanded)
    )
    assert pair.public_der == both.public_der()


def compare_secret(
    algorithm: Algorithm, seed: bytes, ciphertext: bytes, secret: bytes
) -> None:
    """Check what a seed makes of an encapsulation."""
    key = seed_key_info(algorithm, seed)
    if primitives.decapsulate(algorithm, key, ciphertext) != secret:
        raise DecryptionError


def _run_decapsulation(group: Group, tally: Tally) -> None:
    algorithm = Algorithm(group["parameterSet"])

    def attempt(test: Test) -> None:
        seed = octets(test, "seed")
        pair = primitives.private_key_from_seed(algorithm, seed)
        if test["result"] == "valid":
            raw = read_public_key_info(algorithm, pair.public_der)
            assert raw == octets(test, "ek")
        compare_secret(algorithm, seed, octets(test, "c"), octets(test, "K"))

    for test in group["tests"]:
        tally.judge(algorithm, test, partial(attempt, test), LOADING)


def _run_kem_generation(group: Group, tally: Tally) -> None:
    algorithm = Algorithm(group["parameterSet"])
    for test in group["tests"]:
        seed, ek, dk = (octets(test, name) for name in ("seed", "ek", "dk"))
        tally.judge(
            algorithm, test, partial(compare_key_generation, algorithm, seed, ek, dk)
        )


def _run_encapsulation(group: Group, tally: Tally) -> None:
    algorithm = Algorithm(group["parameterSet"])
    for test in group["tests"]:
        ek = octets(test, "ek")
        if test["result"] == "valid":
            compare_encapsulation(
                algorithm,
                tally,
                test,
                (ek, octets(test, "m")),
                (octets(test, "K"), octets(test, "c")),
            )
            continue
        der = subject_public_key_info(algorithm, ek)
        load = partial(primitives.load_public_key, algorithm, der)
        tally.judge(algorithm, test, load, LOADING)


def _run_expanded_decapsulation(group: Group, tally: Tally) -> None:
    algorithm = Algorithm(group["parameterSet"])
    for test in group["tests"]:
        der = expanded_key_info(algorithm, octets(test, "dk"))
        load = partial(primitives.load_private_key, algorithm, der)
        tally.refuse(test, "expanded key", InvalidInputError, load)


def _run_expanded_signing(group: Group, tally: Tally, algorithm: Algorithm) -> None:
    der = expanded_key_info(algorithm, octets(group, "privateKey"))
    for test in group["tests"]:
        load = partial(primitives.load_private_key, algorithm, der)
        tally.refuse(test, "expanded key", InvalidInputError, load)


def _run_signing(group: Group, tally: Tally) -> None:
    algorithm = Algorithm(group["algorithm"])
    if "privateSeed" not in group:
        _run_expanded_signing(group, tally, algorithm)
        return
    seed, public = octets(group, "privateSeed"), octets(group, "publicKey")

    def attempt(test: Test) -> None:
        pair = primitives.private_key_from_seed(algorithm, seed)
        if material := octets(group, "privateKeyPkcs8"):
            handle = primitives.load_private_key(algorithm, material)
            assert pair.public_der == handle.public_der()
        assert public == read_public_key_info(algorithm, pair.public_der)
        given = _message(algorithm, pair.public_der, test)
        verify = partial(primitives.verify, algorithm, pair.public_der)
        verify(primitives.sign(algorithm, pair.material, **given), **given)
        verify(octets(test, "sig"), **given)

    for test in group["tests"]:
        tally.judge(algorithm, test, partial(attempt, test), LOADING)
        if test["result"] == "valid" and "rnd" not in test:
            signature = _deterministic(algorithm, seed, test)
            tally.compare_inside(algorithm, test, signature, octets(test, "sig"))


def _message(algorithm: Algorithm, public_der: bytes, test: Test) -> dict[str, Any]:
    """Return what is signed: a message with its context, or mu where there is none."""
    if "msg" not in test:
        return {"mu": octets(test, "mu")}
    message, context = octets(test, "msg"), octets(test, "ctx")
    if "mu" in test:
        mu = primitives.external_mu(algorithm, public_der, message, context)
        assert mu == octets(test, "mu")
    return {"message": message, "context": context}


def _deterministic(algorithm: Algorithm, seed: bytes, test: Test) -> bytes:
    handle = libcrypto().load(algorithm, seed_key_info(algorithm, seed))
    is_mu = "msg" not in test
    parameters = signature_parameters(
        algorithm,
        external_mu=is_mu,
        context=b"" if is_mu else octets(test, "ctx"),
    )
    data = octets(test, "mu" if is_mu else "msg")
    return sign_deterministic(
        cast("LibcryptoSignaturePrivateHandle", handle), data, parameters
    )


def _run_verification(group: Group, tally: Tally) -> None:
    algorithm = Algorithm(group["algorithm"])
    der = octets(group, "publicKeyDer")
    try:
        key: primitives.Key = primitives.load_public_key(algorithm, der)
    except InvalidInputError:
        assert {"invalid"} == {test["result"] for test in group["tests"]}
        key = der

    def attempt(test: Test) -> None:
        primitives.verify(
            algorithm,
            key,
            octets(test, "sig"),
            octets(test, "msg"),
            context=octets(test, "ctx"),
        )

    for test in group["tests"]:
        tally.judge(algorithm, test, partial(attempt, test), LOADING)


QUANTUM_SAFE: Final[dict[str, Callable[[Group, Tally], None]]] = {
    "MLKEMDecapsValidationTest": _run_expanded_decapsulation,
    "MLKEMEncapsTest": _run_encapsulation,
    "MLKEMKeyGen": _run_kem_generation,
    "MLKEMTest": _run_decapsulation,
    "MlDsaSign": _run_signing,
    "MlDsaVerify": _run_verification,
}
"""How groups are run, by their type."""
