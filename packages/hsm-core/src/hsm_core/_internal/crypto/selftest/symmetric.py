# SPDX-License-Identifier: MIT
"""Self-tests of AEAD, MAC, key wrap and key derivation."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial
from typing import Final

from hsm_core._internal.crypto.selftest.checks import (
    MESSAGE,
    Case,
    Pair,
    altered,
    failure,
)
from hsm_core.algorithms import spec
from hsm_core.errors import DecryptionError

_NONCE: Final = bytes(12)
_DERIVED_BYTES: Final = 100
"""More than one block of every hash."""


def check_aead(case: Case) -> None:
    """Encrypt, decrypt, and refuse a wrong tag."""
    handle, known = case.private(), case.known
    nonce, aad, ciphertext = known["nonce"], known["aad"], known["ciphertext"]
    case.expect("ciphertext", handle.seal(nonce, known["plaintext"], aad))
    case.expect("plaintext", handle.open(nonce, ciphertext, aad))
    _expect_refusal(case, "tag", lambda: handle.open(nonce, altered(ciphertext), aad))


def check_mac(case: Case) -> None:
    """Compute a MAC."""
    case.expect("mac", case.private().mac(case.known["message"]))


def check_wrap(case: Case) -> None:
    """Wrap and unwrap with and without padding, and refuse what was changed."""
    for name, padded in (("kw", False), ("kwp", True)):
        data, wrapped = case.known[f"{name}_data"], case.known[f"{name}_wrapped"]
        handle = case.provider.load(case.algorithm, case.known[f"{name}_key"])
        case.expect(f"{name}_wrapped", handle.wrap(data, padded=padded))
        case.expect(f"{name}_data", handle.unwrap(wrapped, padded=padded))
        unwrap = partial(handle.unwrap, altered(wrapped), padded=padded)
        _expect_refusal(case, f"{name} check", unwrap)


def check_derivation(case: Case) -> None:
    """Derive a key."""
    known = case.known
    derived = case.private().derive(
        known["salt"], known["info"], len(known["derived_key"])
    )
    case.expect("derived_key", derived)


def pair_aead(pair: Pair) -> None:
    """Check that what was encrypted is decrypted, and was encrypted."""
    sealed = pair.public.seal(_NONCE, MESSAGE, b"")
    opened = pair.private.open(_NONCE, sealed, b"")
    pair.expect(holds=opened == MESSAGE and not sealed.startswith(MESSAGE))


def pair_mac(pair: Pair) -> None:
    """Compare with the MAC that the standard library computes."""
    expected = hmac.digest(pair.material, MESSAGE, _hash_name(pair))
    pair.expect(holds=hmac.compare_digest(expected, pair.private.mac(MESSAGE)))


def pair_wrap(pair: Pair) -> None:
    """Check that what was wrapped is unwrapped, and was wrapped."""
    for padded in (False, True):
        data = MESSAGE if padded else MESSAGE[:24]
        wrapped = pair.private.wrap(data, padded=padded)
        unwrapped = pair.private.unwrap(wrapped, padded=padded)
        pair.expect(holds=unwrapped == data and data not in wrapped)


def pair_derivation(pair: Pair) -> None:
    """Compare with HKDF over the HMAC of the standard library (RFC 5869, 2.2, 2.3)."""
    name = _hash_name(pair)
    extracted = hmac.digest(_NONCE, pair.material, name)
    expected = block = b""
    for counter in range(1, 5):
        block = hmac.digest(extracted, block + MESSAGE + bytes([counter]), name)
        expected += block
    derived = pair.private.derive(_NONCE, MESSAGE, _DERIVED_BYTES)
    pair.expect(holds=hmac.compare_digest(expected[:_DERIVED_BYTES], derived))


def _hash_name(pair: Pair) -> str:
    """Return what the standard library calls the hash of HMAC or HKDF."""
    return f"sha{8 * spec(pair.algorithm).key_bytes}"


def _expect_refusal(case: Case, what: str, attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except DecryptionError:
        return
    raise failure(case.algorithm, f"accepted a wrong {what}")
