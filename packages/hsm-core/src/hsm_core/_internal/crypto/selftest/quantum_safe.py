# SPDX-License-Identifier: MIT
"""Self-tests of ML-KEM, ML-DSA, SLH-DSA and the composites of them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Final

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.selftest.checks import (
    MESSAGE,
    Case,
    Pair,
    altered,
    expect,
    expect_mismatch,
    expect_signature,
)
from hsm_core.algorithms import spec
from hsm_core.errors import AlgorithmUnavailableError, DecryptionError
from hsm_core.protocols import KeyHandle

_Z_BYTES: Final = 32
_SECRET_BYTES: Final = 32


def check_ml_kem(case: Case) -> None:
    """
    Make a key from its seed, and take both paths of decapsulation.

    Standard:
        FIPS 203, algorithm 18: a ciphertext that was changed gives the secret of
        implicit rejection, which is known too.
    """
    try:
        handle = case.private()
    except AlgorithmUnavailableError:
        _check_expanded_ml_kem(case)
        return
    case.expect("public_key", handle.public_der())
    case.expect("shared_secret", handle.decapsulate(case.known["ciphertext"]))
    rejecting = case.provider.load(case.algorithm, case.known["rejecting_key"])
    rejected = rejecting.decapsulate(case.known["rejected_ciphertext"])
    case.expect("rejected_secret", rejected)
    _round_trip(case, handle, case.public())


def _check_expanded_ml_kem(case: Case) -> None:
    """Do the same with an expanded key, for a provider that takes no seeds."""
    key = case.known["expanded_key"]
    handle = case.provider.load(case.algorithm, key)
    case.expect("public_key", handle.public_der())
    case.expect("shared_secret", handle.decapsulate(case.known["ciphertext"]))
    changed = altered(case.known["ciphertext"])
    # z ends the key (FIPS 203, algorithm 16), and J(z || c) is the secret.
    expected = hashlib.shake_256(key[-_Z_BYTES:] + changed).digest(_SECRET_BYTES)
    rejected = handle.decapsulate(changed)
    expect(case.algorithm, "rejected secret", holds=rejected == expected)
    _round_trip(case, handle, case.public())


def check_composite_kem(case: Case) -> None:
    """Decapsulate, see that each half of the ciphertext counts, and go round once."""
    handle, ciphertext = case.private(), case.known["ciphertext"]
    case.expect("public_key", handle.public_der())
    case.expect("shared_secret", handle.decapsulate(ciphertext))
    for position in (0, -1):
        # What is no point of the curve is refused; anything else changes the secret.
        with suppress(DecryptionError):
            other = handle.decapsulate(altered(ciphertext, position))
            differs = other != case.known["shared_secret"]
            expect(case.algorithm, "secret of a changed ciphertext", holds=differs)
    _round_trip(case, handle, case.public())


def check_ml_dsa(case: Case) -> None:
    """Make a key from its seed; verify and sign with a context, and with mu."""
    private, public = case.private(), case.public()
    case.expect("public_key", private.public_der())
    check_known_signature(case)
    message, mu = case.known["message"], case.known["mu"]
    plain = signature_parameters(case.algorithm, context=case.known["context"])
    external = signature_parameters(case.algorithm, external_mu=True)
    expect_signature(public, mu, case.known["signature"], external)
    public.verify(message, private.sign(message, plain), plain)
    public.verify(message, private.sign(mu, external), plain)


def check_slh_dsa(case: Case) -> None:
    """Find the public half in the private one, verify, and verify what was signed."""
    private, public = case.private(), case.public()
    case.expect("public_key", private.public_der())
    check_known_signature(case)
    message = case.known["message"]
    parameters = signature_parameters(case.algorithm, context=case.known["context"])
    public.verify(message, private.sign(message, parameters), parameters)


def check_composite_signature(case: Case) -> None:
    """Verify, see that each half of the signature counts, and verify what was made."""
    private, public, message = case.private(), case.public(), case.known["message"]
    case.expect("public_key", private.public_der())
    check_known_signature(case)
    parameters = signature_parameters(case.algorithm, context=case.known["context"])
    border = spec(spec(case.algorithm).components[0]).signature_bytes
    for position in (0, border - 1, -1):
        wrong = altered(case.known["signature"], position)
        expect_mismatch(public, message, wrong, parameters)
    public.verify(message, private.sign(message, parameters), parameters)


def check_known_signature(case: Case) -> None:
    """Verify a known signature, and refuse it for what was not signed."""
    public, known = case.public(), case.known
    parameters = signature_parameters(case.algorithm, context=known["context"])
    expect_signature(public, known["message"], known["signature"], parameters)
    other = signature_parameters(case.algorithm, context=altered(known["context"]))
    expect_mismatch(public, known["message"], known["signature"], other)
    wrong = altered(known["signature"])
    expect_mismatch(public, known["message"], wrong, parameters)


def pair_kem(pair: Pair) -> None:
    """Check that the private half finds what the public half encapsulated."""
    secret, ciphertext = pair.public.encapsulate()
    pair.expect(holds=pair.private.decapsulate(ciphertext) == secret)


def pair_ml_dsa(pair: Pair) -> None:
    """Sign and verify with a context, as every signature of the family can."""
    parameters = signature_parameters(pair.algorithm, context=b"context")
    pair.public.verify(MESSAGE, pair.private.sign(MESSAGE, parameters), parameters)


def _round_trip(case: Case, private: KeyHandle, public: KeyHandle) -> None:
    secret, ciphertext = public.encapsulate()
    decapsulated = private.decapsulate(ciphertext)
    expect(case.algorithm, "encapsulation", holds=decapsulated == secret)
    again, _ = public.encapsulate()
    expect(case.algorithm, "randomness", holds=again != secret)
