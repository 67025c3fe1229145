# SPDX-License-Identifier: MIT
"""The provider over the wheel ``pqcrypto``, without its children's lives."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.crypto.der import (
    expanded_key_info,
    private_key_info,
    read_private_form,
    read_private_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.formats import shown_form
from hsm_core._internal.crypto.libcrypto import LibcryptoProvider
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._providers.pqcrypto.pool import WorkerPool
from hsm_core._providers.pqcrypto.provider import PqcryptoProvider
from hsm_core._providers.pqcrypto.worker import join
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, KeyFormat, spec
from hsm_core.errors import (
    AlgorithmUnavailableError,
    EntropyUnavailableError,
    InputSizeError,
    InvalidInputError,
    SignatureMismatchError,
    UnavailableError,
    UnsupportedOperationError,
)
from hsm_core.protocols import CryptoProvider
from tests.support import require_service

PROVIDER = PqcryptoProvider()
SYSTEM = LibcryptoProvider()
ENTROPY = SystemEntropy()
SLH_DSA = [r.algorithm for r in ALGORITHMS.values() if r.family is Family.SLH_DSA]
FAST = [algorithm for algorithm in SLH_DSA if algorithm.value.endswith("f")]
SIGNER = Algorithm.SLH_DSA_SHA2_128F
KEM = Algorithm.ML_KEM_512
MESSAGE = b"a message"
CONTEXT = b"\0context\xff"
EVERY_SET = pytest.mark.parametrize("algorithm", SLH_DSA)
EVERY_FAST_SET = pytest.mark.parametrize("algorithm", FAST)


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

    def test_unhealthy_entropy(self) -> None:
        """
        No key is made without healthy entropy, though the wheel draws elsewhere.
        """

        class Stuck:
            def random_bytes(self, length: int, /) -> bytes:
                raise EntropyUnavailableError

        for algorithm in (SIGNER, KEM):
            with pytest.raises(EntropyUnavailableError):
                PROVIDER.generate(algorithm, Stuck())

    def test_keys_differ(self) -> None:
        """
        Two keys are never the same.
        """
        for algorithm in (SIGNER, KEM):
            assert material(algorithm) != PROVIDER.generate(algorithm, ENTROPY)


class TestSLHDSA:
    @EVERY_SET
    def test_key_moves(self, algorithm: Algorithm) -> None:
        """
        A key of either provider loads into the other, fully checked, and is the same.
        """
        other = system(algorithm)
        ours = PROVIDER.load(algorithm, material(algorithm))
        theirs = other.generate(algorithm, ENTROPY)

        moved = other.load_foreign(algorithm, material(algorithm))
        back = PROVIDER.load(algorithm, theirs)

        assert moved.public_der() == ours.public_der()
        assert back.public_der() == other.load(algorithm, theirs).public_der()

    @EVERY_FAST_SET
    def test_system_verifies(self, algorithm: Algorithm) -> None:
        """
        The system's OpenSSL verifies what is signed here, with its context only.
        """
        other = system(algorithm)

        verify(other, algorithm, signature(algorithm))
        with pytest.raises(SignatureMismatchError):
            verify(other, algorithm, signature(algorithm), context=b"")

    @EVERY_FAST_SET
    def test_verifies_system(self, algorithm: Algorithm) -> None:
        """
        What the system's OpenSSL signs with a moved key verifies here.
        """
        parameters = signature_parameters(algorithm, context=CONTEXT)
        theirs = system(algorithm).load(algorithm, material(algorithm))

        verify(PROVIDER, algorithm, theirs.sign(MESSAGE, parameters))

    def test_hedged(self) -> None:
        """
        Two signatures over the same message differ, and both verify.
        """
        parameters = signature_parameters(SIGNER, context=CONTEXT)
        again = PROVIDER.load(SIGNER, material(SIGNER)).sign(MESSAGE, parameters)

        verify(PROVIDER, SIGNER, again)
        assert again != signature(SIGNER)

    @pytest.mark.parametrize("size", [0, 1, 254, 255])
    def test_context(self, size: int) -> None:
        """
        A context of up to 255 bytes is signed and verified.
        """
        context = bytes(range(size))
        parameters = signature_parameters(SIGNER, context=context)
        made = PROVIDER.load(SIGNER, material(SIGNER)).sign(b"", parameters)

        verify(PROVIDER, SIGNER, made, b"", context)
        with pytest.raises(SignatureMismatchError):
            verify(PROVIDER, SIGNER, made, b"", context[:-1] if size else b"\0")

    def test_long_context(self) -> None:
        """
        A context of 256 bytes is refused before the wheel is asked.
        """
        parameters = replace(signature_parameters(SIGNER), context=bytes(256))
        handle = PROVIDER.load(SIGNER, material(SIGNER))

        with pytest.raises(InputSizeError, match="context"):
            handle.sign(MESSAGE, parameters)
        with pytest.raises(InputSizeError, match="context"):
            handle.verify(MESSAGE, signature(SIGNER), parameters)

    def test_digest(self) -> None:
        """
        A digest and a mu are refused: whole messages are signed.
        """
        handle = PROVIDER.load(SIGNER, material(SIGNER))
        plain = signature_parameters(SIGNER)
        for parameters in (
            replace(plain, prehashed=True),
            replace(plain, external_mu=True),
        ):
            with pytest.raises(UnsupportedOperationError):
                handle.sign(bytes(64), parameters)

    @given(st.binary(max_size=20_000))
    def test_any_signature(self, given: bytes) -> None:
        """
        Whatever is given as signature, of whatever length, it is a mismatch.
        """
        with pytest.raises(SignatureMismatchError):
            verify(PROVIDER, SIGNER, given)

    @given(st.integers(-2, 2).filter(bool))
    def test_length_of_signature(self, change: int) -> None:
        """
        A right signature that was cut or continued is a mismatch.
        """
        right = signature(SIGNER)
        with pytest.raises(SignatureMismatchError):
            verify(PROVIDER, SIGNER, right[:change] if change < 0 else right + b"\0")

    @given(st.integers(0, 17087), st.integers(0, 7))
    def test_altered_signature(self, position: int, bit: int) -> None:
        """
        A signature in which one bit is another is a mismatch.
        """
        altered = bytearray(signature(SIGNER))
        altered[position] ^= 1 << bit
        with pytest.raises(SignatureMismatchError):
            verify(PROVIDER, SIGNER, bytes(altered))

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

    def test_wrong_root(self) -> None:
        """
        A foreign key whose public root is not that of its seeds is refused.
        """
        octets = read_private_key_info(SIGNER, material(SIGNER))
        wrong = private_key_info(SIGNER, octets[:-1] + bytes([octets[-1] ^ 1]))

        with pytest.raises(InvalidInputError, match="root"):
            PROVIDER.load_foreign(SIGNER, wrong)
        PROVIDER.load_foreign(SIGNER, material(SIGNER))

    @pytest.mark.parametrize("size", [0, 16, 63, 65, 96])
    def test_wrong_length(self, size: int) -> None:
        """
        A private key of another length is refused, whoever made it.
        """
        wrong = private_key_info(SIGNER, bytes(size))

        for load in (PROVIDER.load, PROVIDER.load_foreign):
            with pytest.raises(InvalidInputError):
                load(SIGNER, wrong)

    def test_other_set(self) -> None:
        """
        A key of another parameter set of the same sizes is refused.
        """
        other = Algorithm.SLH_DSA_SHAKE_128F
        public_der = PROVIDER.load(SIGNER, material(SIGNER)).public_der()

        with pytest.raises(InvalidInputError):
            PROVIDER.load(other, material(SIGNER))
        with pytest.raises(InvalidInputError):
            PROVIDER.load_public(other, public_der)

    def test_others_go_on(self) -> None:
        """
        While a slow set signs, other threads of this process are not held up.
        """
        slow = Algorithm.SLH_DSA_SHAKE_128S
        handle = PROVIDER.load(slow, material(slow))
        parameters = signature_parameters(slow)
        signing = threading.Thread(target=lambda: handle.sign(MESSAGE, parameters))
        began = time.monotonic()
        signing.start()
        longest, last = 0.0, began
        while signing.is_alive():
            time.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        signing.join()

        assert longest < (last - began) / 2

    def test_says_nothing(self) -> None:
        """
        Neither the representation of a key nor that of its parts shows it.
        """
        handle = PROVIDER.load(SIGNER, material(SIGNER))

        assert repr(handle) == f"<SLHDSAPrivateHandle {SIGNER}>"


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
    def test_round_trip(self) -> None:
        """
        What is encapsulated is decapsulated, and each secret is another.
        """
        handle = PROVIDER.load(KEM, material(KEM))
        public = PROVIDER.load_public(KEM, handle.public_der())

        (first, ciphertext), (second, _) = public.encapsulate(), public.encapsulate()

        assert handle.decapsulate(ciphertext) == first != second

    def test_moves_to_system(self) -> None:
        """
        The system's OpenSSL takes a key of ours, and rejects with the same secrets.
        """
        ours = PROVIDER.load(KEM, material(KEM))
        theirs = system(KEM).load(KEM, material(KEM))
        secret, ciphertext = ours.encapsulate()
        other_secret, other_ciphertext = theirs.encapsulate()
        changed = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]

        assert theirs.public_der() == ours.public_der()
        assert theirs.decapsulate(ciphertext) == secret
        assert ours.decapsulate(other_ciphertext) == other_secret
        assert ours.decapsulate(changed) == theirs.decapsulate(changed) != secret

    def test_seed_stays(self) -> None:
        """
        A key that is kept as its seed can't be used here, and the error says who can.
        """
        theirs = system(KEM).generate(KEM, ENTROPY)

        with pytest.raises(AlgorithmUnavailableError, match=r"OpenSSL 3\.5"):
            PROVIDER.load(KEM, theirs)

    def test_public_keys_move(self) -> None:
        """
        Public keys move both ways, whatever form the private one is kept in.
        """
        other = system(KEM)
        theirs = other.load(KEM, other.generate(KEM, ENTROPY))
        secret, ciphertext = PROVIDER.load_public(
            KEM, theirs.public_der()
        ).encapsulate()
        ours = PROVIDER.load(KEM, material(KEM))
        back, returned = other.load_public(KEM, ours.public_der()).encapsulate()

        assert theirs.decapsulate(ciphertext) == secret
        assert ours.decapsulate(returned) == back

    def test_foreign(self) -> None:
        """
        No private key is imported: without its seed nothing of it can be checked.
        """
        theirs = system(KEM).generate(KEM, ENTROPY)

        with pytest.raises(InvalidInputError, match="without the seed"):
            PROVIDER.load_foreign(KEM, material(KEM))
        with pytest.raises(AlgorithmUnavailableError, match=r"OpenSSL 3\.5"):
            PROVIDER.load_foreign(KEM, theirs)
        with pytest.raises(InvalidInputError):
            PROVIDER.load_foreign(KEM, theirs[:-1])

    def test_export_as_seed(self) -> None:
        """
        A key without a seed does not leave as one, for it would be empty.
        """
        assert shown_form(KEM, KeyFormat.PKCS8, material(KEM)) == material(KEM)
        with pytest.raises(UnsupportedOperationError, match="has no seed"):
            shown_form(KEM, KeyFormat.SEED, material(KEM))

    def test_refused_by_system(self) -> None:
        """
        As foreign material, such a key is refused by the system's OpenSSL as well.
        """
        with pytest.raises(InvalidInputError, match="expanded"):
            system(KEM).load_foreign(KEM, material(KEM))

    @pytest.mark.parametrize("size", [0, 1, 767, 769, 1088])
    def test_length_of_ciphertext(self, size: int) -> None:
        """
        A ciphertext of another length is refused, and the right one is named.
        """
        handle = PROVIDER.load(KEM, material(KEM))

        with pytest.raises(InputSizeError, match="768") as caught:
            handle.decapsulate(bytes(size))
        assert caught.value.facts["field"] == "ciphertext"

    def test_unreduced_public_key(self) -> None:
        """
        A public key with a coefficient above the modulus is refused when it is loaded.
        """
        raw = b"\xff" * spec(KEM).public_bytes

        with pytest.raises(InvalidInputError, match="not a valid public key"):
            PROVIDER.load_public(KEM, subject_public_key_info(KEM, raw))

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
