# SPDX-License-Identifier: MIT
"""What came of trying a key out, in words and bytes."""

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
from hsm_server.ui.keys.payloads import Shown, shown


@dataclass(frozen=True, slots=True)
class Tried:
    """
    What a trial has given.

    Attributes:
        sentence: What happened.
        is_good: Whether that is good news.
        parts: Bytes that came out.
    """

    sentence: str
    is_good: bool
    parts: tuple[Shown, ...] = ()


def _good(sentence: str, *parts: Shown) -> Tried:
    return Tried(sentence, True, parts)


def say_signature(result: Signature) -> Tried:
    """Show a signature, and how it was made."""
    chosen = (result.scheme, result.hash, result.encoding)
    how = ", ".join(choice.value for choice in chosen if choice is not None)
    return _good(
        f"Version {result.version} has signed it ({how}).",
        shown("Signature", result.signature),
    )


def say_verified(result: Verified) -> Tried:
    """Say which version a signature or code is of."""
    return _good(f"It is good: version {result.version} has made it.")


def say_ciphertext(result: Ciphertext) -> Tried:
    """Show a ciphertext."""
    return _good(
        f"Version {result.version} has encrypted it.",
        shown("Ciphertext", result.ciphertext),
    )


def say_plaintext(result: Plaintext) -> Tried:
    """Show what was decrypted, as text where it is some."""
    return _good(
        f"Version {result.version} has decrypted it.",
        shown("Plaintext", result.plaintext, is_text=True, is_secret=True),
    )


def say_encapsulation(result: Encapsulation) -> Tried:
    """Show a fresh secret, and what opens to it."""
    return _good(
        f"A fresh shared secret, encapsulated for version {result.version}.",
        shown("Encapsulation", result.ciphertext),
        shown("Shared secret", result.shared_secret, is_secret=True),
    )


def say_shared_secret(result: SharedSecret) -> Tried:
    """Show what an encapsulation opens to, which is a secret in any case."""
    return _good(
        f"Version {result.version} has opened it. What was made for another key, or "
        "was changed, gives another secret and no error.",
        shown("Shared secret", result.shared_secret, is_secret=True),
    )


def say_mac(result: Mac) -> Tried:
    """Show a message authentication code."""
    return _good(
        f"Version {result.version} has computed it.", shown("Code", result.mac)
    )
