# SPDX-License-Identifier: MIT
"""The provider over the wheel ``pqcrypto``, without its children's lives."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.crypto.der import expanded_key_info, read_private_form
from hsm_core._internal.crypto.formats import shown_form
from hsm_core._internal.crypto.libcrypto import LibcryptoProvider
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._providers.pqcrypto.pool import WorkerPool
from hsm_core._providers.pqcrypto.provider import PqcryptoProvider
from hsm_core._providers.pqcrypto.worker import join
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, KeyFormat
from hsm_core.errors import (
    AlgorithmUnavailableError,
    InputSizeError,
    InvalidInputError,
    SignatureMismatchError,
    UnavailableError,
    UnsupportedOperationError,
)
from hsm_core.protocols import CryptoProvider
from tests.support import no_descriptors, require_service

PROVIDER = PqcryptoProvider()
SYSTEM = LibcryptoProvider()
ENTROPY = SystemEntropy()
SLH_DSA = [r.algorithm for r in ALGORITHMS.values() if r.family is Family.SLH_DSA]
SIGNER = Algorithm.SLH_DSA_SHA2_128F
KEM = Algorithm.ML_KEM_512
MESSAGE = b"a message"
CONTEXT = b"\0context\xff"


@pytest.fixture(autouse=True)
def _wheel() -> None:
    require_service("The package pqcrypto 1.0 or newer", PROVIDER.version)


def system(algorithm: Algorithm) -> LibcryptoProvider:
    """Return the system's OpenSSL, where it is new enough."""
    require_service(
        f"OpenSSL with {algorithm} on this system", algorithm in SYSTEM.algorithms()
    )
    return SYSTEM


@cache
def material(algorithm: Algorithm) -> bytes:
    """Return a key that the wheel made."""
    return PROVIDER.generate(algorithm, ENTROPY)


@cache
def signature(algorithm: Algorithm) -> bytes:
    """Return a signature with a context."""
    parameters = signature_parameters(algorithm, context=CONTEXT)
    return PROVIDER.load(algorithm, material(algorithm)).sign(MESSAGE, parameters)


def verify(
    provider: CryptoProvider,
    algorithm: Algorithm,
    given: bytes,
    message: bytes = MESSAGE,
    context: bytes = CONTEXT,
) -> None:
    """Check a signature with the public half alone."""
    public_der = PROVIDER.load(algorithm, material(algorithm)).public_der()
    parameters = signature_parameters(algorithm, context=context)
    provider.load_public(algorithm, public_der).verify(message, given, parameters)


class TestServed:
    def test_algorithms(self) -> None:
        """
        SLH-DSA and ML-KEM-512 are served, never ML-DSA, whose contexts are cut there.
        """
        assert PROVIDER.algorithms() == {*SLH_DSA, KEM}

    @pytest.mark.parametrize(
        "preparation",
        [
            "sys.modules['pqcrypto'] = None",
            "sys.modules['pqcrypto'] = types.ModuleType('pqcrypto')",
            "m = types.ModuleType('pqcrypto'); m.__version__ = '0.3.4'; "
            "m.__file__ = '/x/pqcrypto/__init__.py'; sys.modules['pqcrypto'] = m",
        ],
        ids=["missing", "another package", "before 1.0"],
    )
    def test_no_wheel(self, preparation: str) -> None:
        """
        Where the wheel is missing or of another API, nothing is served nor raised.
        """
        program = (
            f"import sys, types; {preparation}\n"
            "from hsm_core._providers.pqcrypto.provider import PqcryptoProvider\n"
            "p = PqcryptoProvider(); print(repr(p.version), len(p.algorithms()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )

        assert (done.stdout, done.stderr) == ("'' 0\n", "")

    def test_no_descriptors(self) -> None:
        """
        Where no file can be opened, it is looked for again when one can.
        """
        provider = PqcryptoProvider()
        with no_descriptors(), pytest.raises(UnavailableError):
            provider.algorithms()

        assert provider.algorithms() == PROVIDER.algorithms()

    def test_no_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A signature that can't be verified for lack of memory is not called wrong.
        """
        public_der = PROVIDER.load(SIGNER, material(SIGNER)).public_der()
        handle = PROVIDER.load_public(SIGNER, public_der)
        monkeypatch.setattr(
            handle, "_module", Mock(**{"verify.side_effect": MemoryError})
        )

        with pytest.raises(MemoryError):
            handle.verify(MESSAGE, signature(SIGNER), signature_parameters(SIGNER))

    def test_unserved(self) -> None:
        """
        A key of what is not served is refused, in every way of asking.
        """
        for algorithm in (Algorithm.ML_DSA_44, Algorithm.ML_KEM_768):
            with pytest.raises(AlgorithmUnavailableError):
                PROVIDER.generate(algorithm, ENTROPY)
            with pytest.raises(AlgorithmUnavailableError):
                PROVIDER.load(algorithm, b"")
            with pytest.raises(AlgorithmUnavailableError):
                PROVIDER.load_public(algorithm, b"")


class TestSLHDSA:
    @given(st.binary(max_size=20_000))
    def test_any_signature(self, given: bytes) -> None:
        """
        Whatever is given as signature, of whatever length, it is a mismatch.
        """
        with pytest.raises(SignatureMismatchError):
            verify(PROVIDER, SIGNER, given)

    def test_long_message(self) -> None:
        """
        A long message is verified too, in a child, with both answers.
        """
        message = bytes(3 * 1024 * 1024)
        parameters = signature_parameters(SIGNER, context=CONTEXT)
        made = PROVIDER.load(SIGNER, material(SIGNER)).sign(message, parameters)

        verify(PROVIDER, SIGNER, made, message)
        with pytest.raises(SignatureMismatchError):
            verify(PROVIDER, SIGNER, made, message + b"\0")

    def test_too_long_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A message that does not fit a frame is refused, and the limit is named.
        """
        place = "hsm_core._providers.pqcrypto.worker.REQUEST_BYTES"
        monkeypatch.setattr(place, 3 * 1024 * 1024)
        handle = PROVIDER.load(SIGNER, material(SIGNER))
        message, parameters = bytes(3 * 1024 * 1024), signature_parameters(SIGNER)

        with pytest.raises(InputSizeError, match="3080192"):
            handle.sign(message, parameters)
        with pytest.raises(InputSizeError, match="3080192"):
            handle.verify(message, signature(SIGNER), parameters)


class Answering(WorkerPool):
    """Children that all give one answer."""

    def __init__(self, *fields: bytes) -> None:
        super().__init__(lambda: ())
        self._answer = join(*fields)

    def ask(self, request: bytes) -> bytes:
        """Return the answer."""
        return self._answer


class TestAnswers:
    @pytest.mark.parametrize(
        "fields",
        [
            (b"failed", b"ValueError"),
            (b"done",),
            (b"done", b"short"),
            (b"done", b"", b""),
        ],
    )
    def test_sign(self, fields: tuple[bytes, ...]) -> None:
        """
        A failure, or a signature of another length, is given to nobody.
        """
        handle = PqcryptoProvider(Answering(*fields)).load(SIGNER, material(SIGNER))

        with pytest.raises(UnavailableError, match="pqcrypto"):
            handle.sign(MESSAGE, signature_parameters(SIGNER))

    def test_generate(self) -> None:
        """
        Halves that don't belong together, or are of other lengths, are no key.
        """
        for public, private in (
            (bytes(32), b"\1" * 64),
            (bytes(31), bytes(64)),
            (bytes(32), bytes(63)),
        ):
            pool = Answering(b"done", public, private)
            with pytest.raises(UnavailableError, match="pqcrypto"):
                PqcryptoProvider(pool).generate(SIGNER, ENTROPY)

    def test_no_interpreter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Where no interpreter can be started, nobody could sign, and KEMs are left.
        """
        monkeypatch.setattr(sys, "executable", "")

        assert PqcryptoProvider().algorithms() == {KEM}


class TestMLKEM512:
    def test_export_as_seed(self) -> None:
        """
        A key without a seed does not leave as one, for it would be empty.
        """
        assert shown_form(KEM, KeyFormat.PKCS8, material(KEM)) == material(KEM)
        with pytest.raises(UnsupportedOperationError, match="has no seed"):
            shown_form(KEM, KeyFormat.SEED, material(KEM))

    @pytest.mark.parametrize("distance", [33, 64, 65, 864])
    def test_hash(self, distance: int) -> None:
        """
        A key whose public part is not what its hash says is refused (FIPS 203, 7.3).
        """
        expanded = bytearray(read_private_form(KEM, material(KEM)).expanded)
        expanded[-distance] ^= 1
        wrong = expanded_key_info(KEM, bytes(expanded))

        for provider in (PROVIDER, system(KEM)):
            with pytest.raises(
                InvalidInputError, match="does not match its private key"
            ):
                provider.load(KEM, wrong)
