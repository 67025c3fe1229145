# SPDX-License-Identifier: MIT
"""Private attributes of the paddings of ``cryptography``."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import padding as paddings
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

__all__ = ["hash_of_prehashed", "label_of", "mask_hash_of", "salt_of"]


def hash_of_prehashed(algorithm: Prehashed) -> object:
    """Return the hash that data was made by."""
    return algorithm._algorithm  # noqa: SLF001


def mask_hash_of(padding: paddings.PSS | paddings.OAEP) -> object:
    """Return the hash of the mask generation function, which is MGF1."""
    return padding.mgf._algorithm  # noqa: SLF001


def label_of(padding: paddings.OAEP) -> bytes:
    """Return the label of OAEP."""
    return padding._label or b""  # noqa: SLF001


def salt_of(padding: paddings.PSS) -> object:
    """Return the length of the salt, in bytes, or what stands for one."""
    return padding._salt_length  # noqa: SLF001
