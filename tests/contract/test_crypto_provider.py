# SPDX-License-Identifier: MIT
"""What every `CryptoProvider` promises of keys, over every algorithm it has here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.selftest import known_answer_test
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, AESMode, Algorithm, Family, spec
from hsm_core.errors import (
    AlgorithmUnavailableError,
    DecryptionError,
    InvalidInputError,
    SignatureMismatchError,
    UnsupportedOperationError,
)
from hsm_core.protocols import KeyHandle, OAEPParameters
from tests.contract.provider_rows import (
    PROVIDERS,
    Row,
    flow,
    keeps_seeds,
    label,
    material,
    private,
    public,
    rows,
)

every = pytest.mark.parametrize("row", rows(), ids=label)
but_rsa = pytest.mark.parametrize(
    "row", [r for r in rows() if ALGORITHMS[r[1]].family is not Family.RSA], ids=label
)
"""Making another RSA key takes long."""

all_sets = pytest.mark.parametrize("row", rows(slow=True), ids=label)
asymmetric = pytest.mark.parametrize(
    "row", [r for r in rows(slow=True) if ALGORITHMS[r[1]].is_asymmetric], ids=label
)

_SIGNATURE, _KEM = {"sign", "verify"}, {"encapsulate", "decapsulate"}
_OFFERED = {
    Family.AEAD: {"seal", "open"},
    Family.RSA: {*_SIGNATURE, "encrypt", "decrypt", "decrypt_pkcs1"},
    Family.ECDSA: {*_SIGNATURE, "agree"},
    Family.EDDSA: _SIGNATURE,
    Family.ECDH: {"agree"},
    Family.AES: {"encrypt_raw", "decrypt_raw"},
    Family.MAC: {"mac"},
    Family.KEY_WRAP: {"wrap", "unwrap"},
    Family.KDF: {"derive"},
    Family.ML_KEM: _KEM,
    Family.ML_DSA: _SIGNATURE,
    Family.SLH_DSA: _SIGNATURE,
    Family.COMPOSITE_KEM: _KEM,
    Family.COMPOSITE_SIGNATURE: _SIGNATURE,
}
_PUBLIC = {"verify", "encrypt", "encapsulate"}
"""What a public key can do, where its family offers it."""


def _outcomes(handle: KeyHandle) -> dict[str, str]:
    """Return by method "offered", or the algorithm that a refusal names."""
    signs = spec(handle.algorithm).is_signature
    parameters = signature_parameters(handle.algorithm if signs else Algorithm.RSA_2048)
    oaep, outcomes = OAEPParameters(), {}
    attempts: dict[str, Callable[[], object]] = {
        "sign": lambda: handle.sign(b"", parameters),
        "verify": lambda: handle.verify(b"", b"", parameters),
        "seal": lambda: handle.seal(bytes(12), b"", b""),
        "open": lambda: handle.open(bytes(12), b"", b""),
        "encrypt": lambda: handle.encrypt(b"", oaep),
        "decrypt": lambda: handle.decrypt(b"", oaep),
        "decrypt_pkcs1": lambda: handle.decrypt_pkcs1(b""),
        "encrypt_raw": lambda: handle.encrypt_raw(AESMode.CTR, bytes(16), b""),
        "decrypt_raw": lambda: handle.decrypt_raw(AESMode.CTR, bytes(16), b""),
        "mac": lambda: handle.mac(b""),
        "encapsulate": handle.encapsulate,
        "decapsulate": lambda: handle.decapsulate(b""),
        "agree": lambda: handle.agree(b""),
        "derive": lambda: handle.derive(b"", b"", 1),
        "wrap": lambda: handle.wrap(b"", padded=True),
        "unwrap": lambda: handle.unwrap(b"", padded=True),
    }
    for name, attempt in attempts.items():
        outcomes[name] = "offered"
        try:
            attempt()
        except UnsupportedOperationError as error:
            outcomes[name] = str(error.facts["algorithm"])
        except (InvalidInputError, DecryptionError, SignatureMismatchError):
            continue
    return outcomes


def _offered(outcomes: dict[str, str]) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome == "offered"}


@pytest.mark.parametrize("name", PROVIDERS)
def test_names_itself(name: str) -> None:
    """A provider says its name, its version, and always the same algorithms."""
    provider = PROVIDERS[name]

    assert name == provider.name
    assert provider.version
    assert provider.algorithms() == provider.algorithms()
    assert provider.algorithms() <= set(Algorithm)


@all_sets
def test_sizes(row: Row) -> None:
    """Keys are as long as the table says, in the one form that is kept."""
    sizes, made, der = spec(row[1]), material(row), private(row).public_der()

    assert bool(der) is sizes.is_asymmetric
    assert sizes.key_bytes == (0 if sizes.is_asymmetric else len(made))
    if sizes.public_bytes:
        assert der.startswith(b"\x30")
        assert sizes.public_bytes < len(der) <= sizes.public_bytes + 40


@but_rsa
def test_generated_keys_differ(row: Row) -> None:
    """Two keys are never the same."""
    name, algorithm = row

    assert material(row) != PROVIDERS[name].generate(algorithm, SystemEntropy())


@every
def test_known_answers(row: Row) -> None:
    """The self-test passes, whether or not this provider serves the algorithm here."""
    known_answer_test(row[1], PROVIDERS[row[0]])


@every
def test_there_and_back(row: Row) -> None:
    """What a key makes it takes again; loaded anew it is the same key."""
    again = PROVIDERS[row[0]].load(row[1], material(row))

    flow(private(row))
    flow(again)

    assert private(row).public_der() == again.public_der()


@every
def test_foreign(row: Row) -> None:
    """Material from elsewhere is the same key, or is refused for want of a seed."""
    provider, algorithm = PROVIDERS[row[0]], row[1]
    if not keeps_seeds(*row):
        with pytest.raises(InvalidInputError, match="without the seed"):
            provider.load_foreign(algorithm, material(row))
        return
    foreign = provider.load_foreign(algorithm, material(row))

    assert private(row).public_der() == foreign.public_der()


@all_sets
def test_public_half(row: Row) -> None:
    """A public key comes out as it went in; symmetric keys have none."""
    provider, algorithm = PROVIDERS[row[0]], row[1]
    if not ALGORITHMS[algorithm].is_asymmetric:
        with pytest.raises(InvalidInputError):
            provider.load_public(algorithm, bytes(32))
        return

    assert private(row).public_der() == public(row).public_der()


@all_sets
def test_no_material(row: Row) -> None:
    """What is no private key of the algorithm is refused, foreign or not."""
    provider, algorithm, made = PROVIDERS[row[0]], row[1], material(row)
    wrong = [b"", made[:-1], made + b"\0", b"\x30" + made, bytes(len(made) + 1)]
    wrong += [material(other) for other in _others(row)]

    for data in wrong:
        for load in (provider.load, provider.load_foreign):
            with pytest.raises((InvalidInputError, AlgorithmUnavailableError)):
                load(algorithm, data)


@asymmetric
def test_no_public_key(row: Row) -> None:
    """What is no public key of the algorithm is refused, and the field named."""
    provider, algorithm = PROVIDERS[row[0]], row[1]
    der = private(row).public_der()
    wrong = [b"", der[:-1], der + b"\0", b"\x30" + der, material(row)]
    wrong += [private(other).public_der() for other in _others(row)]

    for data in wrong:
        with pytest.raises(InvalidInputError) as caught:
            provider.load_public(algorithm, data)
        assert "public_key" == caught.value.facts["field"]


@all_sets
def test_shows_nothing(row: Row) -> None:
    """Handles and providers show an algorithm and a name, and no key."""
    handles = [private(row)]
    if ALGORITHMS[row[1]].is_asymmetric:
        handles.append(public(row))
    for shown in (*map(repr, handles), repr(PROVIDERS[row[0]])):
        for secret in (material(row)[-16:], material(row)[:16]):
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown
    assert all(row[1] in repr(handle) for handle in handles)


@every
def test_refuses_what_the_algorithm_has_not(row: Row) -> None:
    """A private key refuses what its algorithm does not offer, by its name."""
    outcomes = _outcomes(private(row))
    without = set() if spec(row[1]).shared_secret_bytes else {"agree"}

    assert {row[1].value, "offered"} == set(outcomes.values())
    assert _OFFERED[spec(row[1]).family] - without == _offered(outcomes)


@asymmetric
def test_refuses_what_needs_the_private_half(row: Row) -> None:
    """A public key verifies, encrypts and encapsulates at most."""
    offered = _offered(_outcomes(public(row)))

    assert offered == _OFFERED[spec(row[1]).family] & _PUBLIC


@pytest.mark.parametrize(
    "row",
    [r for r in rows() if spec(r[1]).family not in {Family.RSA, Family.SLH_DSA}],
    ids=label,
)
def test_many_threads(row: Row) -> None:
    """A handle serves many threads at a time."""
    handle = private(row)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(flow, handle) for _ in range(8)]:
            done.result()


def _others(row: Row) -> list[Row]:
    """Return the rows of the same provider next to one, whose keys are not its own."""
    served = [r for r in rows(slow=True) if r[0] == row[0]]
    at = served.index(row)
    near = (served[at - 1], served[(at + 1) % len(served)])
    return [other for other in near if _is_distinct(row[1], other[1])]


def _is_distinct(one: Algorithm, other: Algorithm) -> bool:
    """Return whether a key tells the two apart; bare keys of one length are alike."""
    first, second = ALGORITHMS[one], ALGORITHMS[other]
    return first.is_asymmetric != second.is_asymmetric or (
        first.is_asymmetric or first.key_bytes != second.key_bytes
    )
