# SPDX-License-Identifier: MIT
"""Stable reads of files that may be written concurrently."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from hsm_core.errors import HSMError
from hsm_server.config.exit_codes import ListenError
from hsm_server.tls.files import Contents, digest_of

_PAUSE_SECONDS: Final = 0.02
_MOST_READINGS: Final = 50


def settled(
    read: Callable[[], Contents],
    known: bytes = b"",
    pause: Callable[[float], object] = time.sleep,
) -> Contents:
    """
    Return the content of files after two identical reads.

    What is there twice in a row counts as written, and so does an error.

    Args:
        read: Returns what they hold now, or raises `HSMError`.

        known: Digest of what they may hold at once, for it is no news.

        pause: Waits for so many seconds.

    Raises:
        HSMError: They can't be read.
        ListenError: They change all the time.
    """
    before: Contents | str | None = None
    for _ in range(_MOST_READINGS):
        try:
            found = read()
            if found == before or digest_of(found) == known:
                return found
            before = found
        except HSMError as error:
            if before == str(error):
                raise
            before = str(error)
        pause(_PAUSE_SECONDS)
    raise ListenError("The certificate and key files changed while they were read.")
