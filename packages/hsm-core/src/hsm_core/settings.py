# SPDX-License-Identifier: MIT
"""Settings of the core: parsed, validated, immutable. Secrets are not among them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, field

from hsm_core.model import Record

__all__ = [
    "CIPHERTEXT_OVERHEAD_BYTES",
    "AuditSync",
    "KeyStoreKind",
    "Limits",
    "PolicyProfile",
    "Settings",
]


CIPHERTEXT_OVERHEAD_BYTES: Final = 4096
"""What an envelope may add to the longest payload, an encapsulation included."""


class KeyStoreKind(StrEnum):
    """Which key store to open."""

    FILESYSTEM = "filesystem"
    MEMORY = "memory"


class AuditSync(StrEnum):
    """
    When the answer to a use goes out.

    ``strict``: after the sync that covers its record. ``bounded``: after the write; the
    sync follows within 20 ms or 512 records, so a power cut can lose that much and a
    kill nothing. Lifecycle records always wait for the sync.
    """

    STRICT = "strict"
    BOUNDED = "bounded"


class PolicyProfile(StrEnum):
    """
    A built-in policy.

    ``strict`` asks for the approval of other people before a key of the strongest and
    some strong post-quantum algorithms is made, imported, rotated, rolled back or
    destroyed. Approvals can't be collected yet, so it refuses these.
    """

    DEFAULT = "default"
    STRICT = "strict"


class Limits(Record, frozen=True, kw_only=True):
    """
    Largest sizes the core accepts, in bytes.

    Attributes:
        payload_bytes: Message, plaintext or ciphertext.
        aad_bytes: Additional authenticated data.
    """

    payload_bytes: Annotated[int, Meta(ge=1)] = 64 * 1024 * 1024
    aad_bytes: Annotated[int, Meta(ge=0)] = 64 * 1024


class Settings(Record, frozen=True, kw_only=True):
    """
    Everything that opening an HSM needs, except its secrets.

    Attributes:
        key_dir: Directory of the filesystem store; made with mode 0700 if absent.
        audit_log: Live file of the trail. None keeps the trail in memory, which only
            a memory store may do.
        audit_segment_bytes: Size at which a segment of the trail is closed.
        audit_timeout_seconds: How long an answer waits for the trail before it fails.
        node: Name of this node in the trail.
        pool_threads: Threads for slow operations under an event loop; changes of keys
            and long reads have this many each.
        accept_changed_store: Open although the key store is not the one that the trail
            knows; the trail records that. For the restore of an older copy.
        key_cache_entries: Opened key versions kept in memory.
        providers: Order of providers by algorithm name, where it differs from the
            default.
        enable_oqs: Whether the provider ``oqs`` (liboqs) is looked for. Its makers say
            that it is not for production.
        policy_profile: Which built-in policy is in force.
    """

    key_store: KeyStoreKind = KeyStoreKind.FILESYSTEM
    key_dir: Path = Path("data/keys")
    audit_log: Path | None = Path("data/audit.log")
    audit_sync: AuditSync = AuditSync.STRICT
    audit_segment_bytes: Annotated[int, Meta(ge=4096)] = 64 * 1024 * 1024
    audit_timeout_seconds: Annotated[float, Meta(gt=0)] = 5.0
    node: Annotated[str, Meta(max_length=64)] = ""
    pool_threads: Annotated[int, Meta(ge=1, le=64)] = 4
    accept_changed_store: bool = False
    key_cache_entries: Annotated[int, Meta(ge=1)] = 1024
    limits: Limits = Limits()
    providers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    enable_oqs: bool = False
    policy_profile: PolicyProfile = PolicyProfile.DEFAULT
