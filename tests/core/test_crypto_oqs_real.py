# SPDX-License-Identifier: MIT
"""The provider over a real liboqs: what the contract suite does not ask of it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from hsm_core._internal.crypto.der import read_private_key_info, seed_key_info
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._providers.oqs.library import (
    Absent,
    OqsLibrary,
    mechanism_name,
    open_library,
)
from hsm_core._providers.oqs.provider import OqsProvider
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from hsm_core.errors import InputSizeError

ENTROPY = SystemEntropy()
KEMS = [r.algorithm for r in ALGORITHMS.values() if r.family is Family.ML_KEM]


@pytest.fixture(scope="module")
def library() -> OqsLibrary:
    """Give the library, or skip: no package brings it, so no run can require it."""
    found = open_library()
    if isinstance(found, Absent):
        pytest.skip(found.reason)
    return found


@pytest.fixture
def provider(library: OqsLibrary) -> OqsProvider:
    """Give the provider over the library."""
    return OqsProvider(lambda: library)


def test_output(library: OqsLibrary) -> None:
    """
    Opening the library and serving all it has writes nothing at all.
    """
    program = (
        "from hsm_core._providers.oqs.provider import OqsProvider; import sys;"
        "sys.exit(not OqsProvider().algorithms())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_padding(library: OqsLibrary, provider: OqsProvider) -> None:
    """
    The binding pads a cut ciphertext in silence, and the provider refuses it.
    """
    for kem in provider.algorithms().intersection(KEMS):
        handle = provider.load(kem, provider.generate(kem, ENTROPY))
        _, ciphertext = handle.encapsulate()
        bare = library.binding.KeyEncapsulation(mechanism_name(kem))
        bare.generate_keypair_seed(bytes(64))
        accepted = bare.decap_secret(ciphertext[:-8])
        bare.free()

        assert len(accepted) == 32
        with pytest.raises(InputSizeError):
            handle.decapsulate(ciphertext[:-8])


def test_many_threads(provider: OqsProvider) -> None:
    """
    Many threads that make keys from seeds, sign and encapsulate don't mix them up.
    """
    signer, kem, hashed = (
        Algorithm.ML_DSA_44,
        Algorithm.ML_KEM_768,
        Algorithm.SLH_DSA_SHA2_128F,
    )
    if not {signer, kem, hashed} <= provider.algorithms():
        pytest.skip("This build of liboqs lacks what is mixed.")
    handle = provider.load(kem, provider.generate(kem, ENTROPY))
    seeds = [bytes([number]) * 32 for number in range(32)]
    parameters = signature_parameters(signer)

    def work(seed: bytes) -> tuple[bytes, bytes, bytes]:
        made = read_private_key_info(hashed, provider.generate(hashed, ENTROPY))
        private = provider.load(signer, seed_key_info(signer, seed))
        signature = private.sign(seed, parameters)
        private.verify(seed, signature, parameters)
        secret, ciphertext = handle.encapsulate()
        assert handle.decapsulate(ciphertext) == secret
        return private.public_der(), secret, made

    alone = [work(seed)[0] for seed in seeds]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(work, seeds * 8))

    assert [public for public, _, _ in together] == alone * 8
    assert len({secret for _, secret, _ in together}) == len(together)
    assert len({made for _, _, made in together}) == len(together)
