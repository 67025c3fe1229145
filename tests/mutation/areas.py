# SPDX-License-Identifier: MIT
"""The areas whose tests are put to the proof, and the tests of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_CORE: Final = "packages/hsm-core/src/hsm_core"
_SERVER: Final = "packages/hsm-server/src/hsm_server"
_CLIENT: Final = "packages/hsm-client/src/hsm_client"


@dataclass(frozen=True, slots=True)
class Area:
    """
    Some modules, and tests that are quick and should notice any fault in them.

    Attributes:
        modules: Patterns of paths below the repository.
        tests: Files of tests, below the folder ``tests``.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def sources(self, root: Path) -> list[Path]:
        """Return the modules, in a fixed order."""
        return sorted({p for pattern in self.modules for p in root.glob(pattern)})


def _core(*names: str) -> tuple[str, ...]:
    return tuple(f"core/test_{name}.py" for name in names)


def _contract(*names: str) -> tuple[str, ...]:
    return tuple(f"contract/test_{name}.py" for name in names)


def _server(*names: str) -> tuple[str, ...]:
    return tuple(f"server/test_{name}.py" for name in names)


AREAS: Final = {
    "policy": Area(
        (f"{_CORE}/_internal/policy/*.py",),
        _core(
            *("policies", "policy_engine", "policy_explaining", "policy_pages"),
            *("policy_reload", "policy_replay", "visible_keys", "known_people"),
            *("updates", "dual_control", "token_identities"),
        ),
    ),
    "approvals": Area(
        (f"{_CORE}/_internal/approvals/*.py",),
        _core(
            *("approval_binding", "approval_crashes", "approval_files"),
            *("approval_format", "approval_ledger", "approval_tampering"),
            *("clock_steps", "destruction", "rollback", "slow_lane"),
            *("consent", "consent_signatures", "dual_control"),
            *("dual_control_faults", "maintenance", "presentation"),
            *("signed_consents", "withdrawn_approvers"),
        )
        + _contract("approval_machine", "approval_register"),
    ),
    "audit": Area(
        (
            f"{_CORE}/_internal/audit/*.py",
            f"{_CORE}/_internal/stores/filesystem/audit_stored.py",
        ),
        _core(
            *("audit_baseline", "audit_displaced", "audit_failures", "audit_format"),
            *("audit_healing", "audit_record", "audit_recovery"),
            *("audit_tampering", "audit_verify", "sqlite_audit", "tamper_trail"),
            *("trail_filters", "trail_walk"),
        )
        + _contract("audit_log", "audit_pruning"),
    ),
    "sealing": Area(
        (
            f"{_CORE}/_internal/keyring/key_ring.py",
            f"{_CORE}/_internal/crypto/ciphertexts.py",
        ),
        _core(
            *("sealing", "sealing_formats", "approval_format", "documents"),
            *("batches", "encoding", "kem_operations", "kem_sealing"),
            *("use_accounts", "uses"),
        ),
    ),
    "states": Area(
        (
            f"{_CORE}/_internal/keyring/versions.py",
            f"{_CORE}/_internal/keyring/documents.py",
        ),
        _core(
            *("lifecycle", "documents", "states", "staging", "destruction"),
            *("key_life", "scheduled_rotation", "slow_lane", "updates"),
            *("retention_consent", "retention_policy", "retention_purges"),
        ),
    ),
    "tokens": Area(
        tuple(
            f"{_SERVER}/identity/{name}.py"
            for name in (
                *("issuer_config", "token_config", "token_keys"),
                "token_verifier",
            )
        ),
        _server(
            *("access_tokens", "key_sets", "provider_keys", "spent_tokens"),
            *("token_config", "token_keys", "token_reload", "tokens"),
        ),
    ),
    "key-sets": Area(
        (
            f"{_SERVER}/identity/key_sets.py",
            f"{_SERVER}/identity/token_sources.py",
        ),
        _server("key_sets", "provider_keys", "token_reload", "token_watch"),
    ),
    "exchanges": Area(
        tuple(f"{_CLIENT}/{name}.py" for name in ("choosing", "exchange", "waiting")),
        tuple(
            f"client/test_{name}.py"
            for name in (
                *("connect", "exchange", "follow", "operations", "repetition"),
                "waiting",
            )
        ),
    ),
}
