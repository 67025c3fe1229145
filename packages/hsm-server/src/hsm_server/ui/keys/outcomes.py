# SPDX-License-Identifier: MIT
"""Results of test operations on a key."""

from __future__ import annotations

from dataclasses import dataclass

from hsm_core.operations import (
    Ciphertext,
    Encapsulation,
    Mac,
    Plaintext,
    SharedSecret,
    Signature,
    Verified,
)
from hsm_server.ui.keys.payloads import OutputBytes, shown


@dataclass(frozen=True, slots=True)
class TrialResult:
    """
    Result of a test operation.

    Attributes:
        sentence: Summary.
        is_good: Whether it succeeded.
        parts: Output bytes.
    """

    sentence: str
    is_good: bool
    parts: tuple[OutputBytes, ...] = ()


def _good(sentence: str, *parts: OutputBytes) -> TrialResult:
    return TrialResult(sentence, True, parts)


def show_signature(result: Signature) -> TrialResult:
    """Show a signature and its parameters."""
    chosen = (result.scheme, result.hash, result.encoding)
    how = ", ".join(choice.value for choice in chosen if choice is not None)
    return _good(
        f"Signed by version {result.version} ({how}).",
        shown("Signature", result.signature),
    )


def show_verified(result: Verified) -> TrialResult:
    """Name the version that made a signature."""
    return _good(f"Valid signature (version {result.version}).")


def show_verified_mac(result: Verified) -> TrialResult:
    """Name the version that made a MAC."""
    return _good(f"Valid MAC (version {result.version}).")


def show_ciphertext(result: Ciphertext) -> TrialResult:
    """Show a ciphertext."""
    return _good(
        f"Encrypted by version {result.version}.",
        shown("Ciphertext", result.ciphertext),
    )


def show_plaintext(result: Plaintext) -> TrialResult:
    """Show a plaintext, as text if printable."""
    return _good(
        f"Decrypted by version {result.version}.",
        shown("Plaintext", result.plaintext, is_text=True, is_secret=True),
    )


def show_encapsulation(result: Encapsulation) -> TrialResult:
    """Show a fresh shared secret and its encapsulation."""
    return _good(
        f"Fresh shared secret, encapsulated for version {result.version}.",
        shown("Encapsulation", result.ciphertext),
        shown("Shared secret", result.shared_secret, is_secret=True),
    )


def show_shared_secret(result: SharedSecret) -> TrialResult:
    """Show a decapsulated shared secret."""
    return _good(
        f"Decapsulated by version {result.version}. An altered encapsulation, or one "
        "for another key, yields a different secret and no error.",
        shown("Shared secret", result.shared_secret, is_secret=True),
    )


def show_mac(result: Mac) -> TrialResult:
    """Show a message authentication code."""
    return _good(f"Computed by version {result.version}.", shown("MAC", result.mac))
