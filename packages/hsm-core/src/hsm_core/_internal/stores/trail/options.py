# SPDX-License-Identifier: MIT
"""Options for opening an audit log on any medium."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hsm_core._internal.audit.chain import Chain, OpenIntents
from hsm_core._internal.audit.mark import HeadMark
from hsm_core.errors import ConfigurationError
from hsm_core.protocols import Clock, Entropy
from hsm_core.settings import AuditSync

_MIN_KEY_BYTES: Final = 32
_LOG_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailOptions:
    """
    How a trail is written.

    Attributes:
        hmac_key: At least 32 bytes; what all keys of the trail are derived from.
        clock: Gives the time of each record.
        entropy: Gives the id of a new trail.
        sync: When a ticket is done.
        timeout_seconds: How long an append may take before it fails.
        node: Name of this node in the trail.
        reserve_bytes: Disk space that is kept back for when the disk is full.

    Raises:
        ConfigurationError: The key is too short.
    """

    hmac_key: bytes = field(repr=False)
    clock: Clock
    entropy: Entropy
    sync: AuditSync
    timeout_seconds: float
    node: str
    reserve_bytes: int = 0

    def __post_init__(self) -> None:
        if len(self.hmac_key) < _MIN_KEY_BYTES:
            raise ConfigurationError(
                f"The HMAC key must be at least {_MIN_KEY_BYTES} bytes."
            )

    def new_log_id(self) -> str:
        """Return the id of a new trail, 32 hex digits."""
        return self.entropy.random_bytes(_LOG_ID_BYTES).hex()

    def chain(self, log_id: str, mark: HeadMark, intents: OpenIntents) -> Chain:
        """Return what goes on where a trail ends."""
        return Chain(
            log_id=log_id,
            hmac_key=self.hmac_key,
            node=self.node,
            mark=mark,
            intents=intents,
        )
