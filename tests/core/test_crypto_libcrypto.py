# SPDX-License-Identifier: MIT
"""The operating system's OpenSSL as a provider."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import hmac
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from hsm_core._internal.crypto.der import subject_public_key_info
from hsm_core._internal.crypto.libcrypto import LibcryptoProvider, library
from hsm_core._internal.crypto.libcrypto.library import (
    Buffer,
    Libcrypto,
    LibcryptoError,
    find_libcrypto,
    key_from_private,
    key_from_public,
    key_from_seed,
)
from hsm_core._internal.crypto.libcrypto.provider import (
    KEMPrivateHandle,
    LibcryptoSignaturePrivateHandle,
)
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from hsm_core.errors import (
    HSMError,
    InvalidInputError,
    SignatureMismatchError,
    UnavailableError,
)
from tests.core.libcrypto_ledger import Ledger
from tests.support import no_descriptors, require_service

MESSAGE = b"a message"

ML_KEM, ML_DSA, SLH_DSA = (
    [row.algorithm for row in ALGORITHMS.values() if row.family is family]
    for family in (Family.ML_KEM, Family.ML_DSA, Family.SLH_DSA)
)
QUICK = [*ML_KEM, *ML_DSA, Algorithm.SLH_DSA_SHA2_128F]

PROVIDER = LibcryptoProvider()


@pytest.fixture(autouse=True)
def _openssl(request: pytest.FixtureRequest) -> None:
    """Skip what needs the library where there is none that will do."""
    if request.cls is not TestAbsence:
        require_service("The system's OpenSSL 3.5", PROVIDER.algorithms())


@pytest.fixture
def found() -> Libcrypto:
    """Give the library."""
    opened = find_libcrypto()
    assert opened is not None
    return opened


@cache
def material(algorithm: Algorithm) -> bytes:
    """Return one key of an algorithm, made once per run."""
    return PROVIDER.generate(algorithm, SystemEntropy())


@cache
def signing(algorithm: Algorithm) -> LibcryptoSignaturePrivateHandle:
    """Return a handle of `material`."""
    handle = PROVIDER.load(algorithm, material(algorithm))
    assert isinstance(handle, LibcryptoSignaturePrivateHandle)
    return handle


@cache
def decapsulating(algorithm: Algorithm) -> KEMPrivateHandle:
    """Return a handle of `material`."""
    handle = PROVIDER.load(algorithm, material(algorithm))
    assert isinstance(handle, KEMPrivateHandle)
    return handle


class TestAbsence:
    @pytest.mark.parametrize(
        "path", ["/nowhere/libcrypto.so.3", "libc.so.6", "text", "older"]
    )
    def test_nothing_is_served(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
    ) -> None:
        """
        A library that is missing, another, none or too old serves nothing.
        """
        if path == "older":
            monkeypatch.setattr(library, "MINIMUM_VERSION", 0x7000_0000)
        elif path == "text":
            path = str(tmp_path / "libcrypto.so.3")
            Path(path).write_text("not a library")
        provider = LibcryptoProvider(None if path == "older" else path)

        assert frozenset() == provider.algorithms()
        assert "" == provider.version

    def test_is_not_concluded_without_descriptors(self) -> None:
        """Where no file can be opened, a library may be there all the same."""
        provider = LibcryptoProvider("/nowhere/libcrypto.so.3")
        with no_descriptors(), pytest.raises(UnavailableError):
            provider.algorithms()

        assert frozenset() == provider.algorithms()

    def test_a_build_without_the_algorithms(self, tmp_path: Path) -> None:
        """
        A configuration that takes the algorithms away is obeyed, not an error.
        """
        configuration = tmp_path / "openssl.cnf"
        configuration.write_text(
            "openssl_conf = all\n[all]\nproviders = some\n"
            "[some]\nnull = on\n[on]\nactivate = 1\n"
        )

        answer = subprocess.run(
            (
                *(sys.executable, "-c"),
                "from hsm_core._internal.crypto.libcrypto import LibcryptoProvider\n"
                "print(len(LibcryptoProvider().algorithms()))",
            ),
            env={**os.environ, "OPENSSL_CONF": str(configuration)},
            capture_output=True,
            check=True,
            timeout=60,
        )

        assert (b"0\n", b"") == (answer.stdout, answer.stderr)


class TestLibrary:
    def test_opened_and_probed_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        The library is opened when first asked for, and each algorithm probed once.
        """
        opened: list[Ledger] = []
        real = ctypes.CDLL

        def record(path: str) -> Ledger:
            opened.append(Ledger(real(path)))
            return opened[-1]

        monkeypatch.setattr(ctypes, "CDLL", record)

        provider = LibcryptoProvider()

        assert [] == opened
        for _ in range(3):
            assert 18 == len(provider.algorithms())
            assert provider.version
        (ledger,) = opened
        assert 18 == ledger.called.count("EVP_PKEY_CTX_new_from_name")
        assert 3 == ledger.called.count("EVP_KEM_fetch")
        assert 15 == ledger.called.count("EVP_SIGNATURE_fetch")
        assert [] == ledger.held

    @pytest.mark.parametrize(
        ("call", "served"),
        [
            ("EVP_PKEY_CTX_new_from_name", []),
            ("EVP_KEM_fetch", [*ML_DSA, *SLH_DSA]),
            ("EVP_SIGNATURE_fetch", ML_KEM),
        ],
    )
    def test_half_there(
        self,
        found: Libcrypto,
        monkeypatch: pytest.MonkeyPatch,
        call: str,
        served: list[Algorithm],
    ) -> None:
        """
        What a build has keys of, but can't use them, is not served.
        """
        ledger = Ledger(found.functions)
        ledger.failing = {call}
        monkeypatch.setattr(ctypes, "CDLL", lambda path: ledger)

        assert set(served) == LibcryptoProvider().algorithms()

    def test_no_program_is_started(self) -> None:
        """
        Finding the library starts no compiler and no other program.
        """
        script = """
import os, sys
started = []
def watch(event, arguments):
    if event in {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"}:
        started.append(event)
sys.addaudithook(watch)
from hsm_core._internal.crypto.libcrypto import LibcryptoProvider
print(len(LibcryptoProvider().algorithms()), started)
"""
        answer = subprocess.run(
            (sys.executable, "-c", script), capture_output=True, check=True, timeout=60
        )

        assert b"18 []\n" == answer.stdout


class TestCryptography:
    """The OpenSSL inside cryptography is another library in the same process."""

    def test_pythons_own_modules(self, found: Libcrypto) -> None:
        """
        A refusal leaves no error behind that Python's ssl would take for its own.
        """
        algorithm = Algorithm.ML_KEM_512
        bad = subject_public_key_info(algorithm, b"\xff" * 800)
        with pytest.raises(InvalidInputError):
            PROVIDER.load_public(algorithm, bad)
        assert 0 == found.functions.ERR_peek_last_error()
        parameters = signature_parameters(Algorithm.ML_DSA_44)
        with pytest.raises(SignatureMismatchError):
            signing(Algorithm.ML_DSA_44).verify(MESSAGE, bytes(2420), parameters)

        assert 0 == found.functions.ERR_peek_last_error()
        assert ssl.create_default_context().get_ciphers()
        digest = hashlib.sha256(MESSAGE).digest()
        assert digest == hashlib.new("sha256", MESSAGE).digest()
        assert 32 == len(hmac.digest(b"key", MESSAGE, "sha256"))


Action = Callable[[LibcryptoProvider], object]


def key_actions() -> dict[str, Action]:
    """Return uses of the provider, which together make every call that it makes."""
    kem, signs, slh = (
        Algorithm.ML_KEM_512,
        Algorithm.ML_DSA_44,
        Algorithm.SLH_DSA_SHA2_128F,
    )
    parameters = signature_parameters(signs, context=b"context")
    signature = signing(signs).sign(MESSAGE, parameters)
    _, ciphertext = decapsulating(kem).encapsulate()
    public = decapsulating(kem).public_der()
    return {
        "generate": lambda p: p.generate(slh, SystemEntropy()),
        "load": lambda p: p.load(slh, material(slh)),
        "load_public": lambda p: p.load_public(kem, public),
        "encapsulate": lambda p: p.load_public(kem, public).encapsulate(),
        "decapsulate": lambda p: p.load(kem, material(kem)).decapsulate(ciphertext),
        "sign": lambda p: p.load(signs, material(signs)).sign(MESSAGE, parameters),
        "verify": lambda p: p.load(signs, material(signs)).verify(
            MESSAGE, signature, parameters
        ),
    }


CALLS = [
    "EVP_PKEY_CTX_new_from_name",
    "EVP_PKEY_CTX_new_from_pkey",
    "EVP_PKEY_CTX_set_params",
    "EVP_PKEY_decapsulate",
    "EVP_PKEY_decapsulate_init",
    "EVP_PKEY_encapsulate",
    "EVP_PKEY_encapsulate_init",
    "EVP_PKEY_generate",
    "EVP_PKEY_get_raw_private_key",
    "EVP_PKEY_get_raw_public_key",
    "EVP_PKEY_keygen_init",
    "EVP_PKEY_new_raw_private_key_ex",
    "EVP_PKEY_new_raw_public_key_ex",
    "EVP_PKEY_sign",
    "EVP_PKEY_sign_message_init",
    "EVP_PKEY_verify",
    "EVP_PKEY_verify_message_init",
]


class TestOwnership:
    @pytest.fixture
    def ledger(
        self, found: Libcrypto, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Ledger]:
        """Give the ledger of the library that the next provider opens."""
        made = Ledger(found.functions)
        monkeypatch.setattr(ctypes, "CDLL", lambda path: made)
        yield made
        made.failing.clear()

    def test_nothing_is_kept(self, ledger: Ledger) -> None:
        """
        After any use, what was made in the library has been freed, and once only.
        """
        provider = LibcryptoProvider()
        called: set[str] = set()
        provider.algorithms()
        for name, action in key_actions().items():
            ledger.called.clear()

            action(provider)

            gc.collect()
            assert [] == ledger.held, name
            called.update(ledger.called)
        assert set(CALLS) <= called

    @pytest.mark.parametrize("call", CALLS)
    def test_failing_calls(self, ledger: Ledger, call: str) -> None:
        """
        Whichever call fails, an error comes out, and all is freed all the same.
        """
        provider = LibcryptoProvider()
        actions = key_actions()
        provider.algorithms()
        failed = 0
        for name, action in actions.items():
            ledger.called.clear()
            ledger.failing = {call}
            try:
                action(provider)
            except (LibcryptoError, HSMError):
                failed += 1
            else:
                assert call not in ledger.called, name

            gc.collect()
            assert [] == ledger.held, name
        assert failed


class TestBuffer:
    def test_overwritten(self, found: Libcrypto) -> None:
        """
        A secret answer is overwritten once it was taken, or was not.
        """
        with Buffer(found, 8) as buffer:
            ctypes.memmove(buffer.memory, b"a secret", 8)
            taken = buffer.taken()

        assert (b"a secret", bytes(8)) == (taken, buffer.memory.raw)


@pytest.mark.parametrize("make", [key_from_seed, key_from_private, key_from_public])
def test_lengths_before_the_library(
    found: Libcrypto, make: Callable[[Libcrypto, Algorithm, bytes], object]
) -> None:
    """
    No key is asked of the library by bytes that are not as long as they must be.
    """
    for algorithm in QUICK:
        for size in (0, 1, 5000):
            with pytest.raises(ValueError, match=r"Expected \d+ bytes"):
                make(found, algorithm, bytes(size))


class TestThreads:
    def test_first_use_by_many(self) -> None:
        """
        A provider that many threads ask first at the same time serves all of them.
        """
        provider = LibcryptoProvider()

        def work(number: int) -> bytes:
            seed = bytes([number % 2]) * 64
            made = provider.material_from_seed(Algorithm.ML_KEM_512, seed)
            return provider.load(Algorithm.ML_KEM_512, made).public_der()

        with ThreadPoolExecutor(8) as pool:
            assert 2 == len({*pool.map(work, range(32))})
