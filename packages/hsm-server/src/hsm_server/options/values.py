# SPDX-License-Identifier: MIT
"""From parsed options to settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hsm_core.settings import AuditSync, KeyStoreKind, Settings
from hsm_core.settings import Limits as CoreLimits
from hsm_server.settings import (
    HTTPLimits,
    LogFormat,
    LogLevel,
    ServerSettings,
    TLSFiles,
    TokenRules,
)

__all__ = ["settings_from"]


def settings_from(values: dict[str, Any]) -> ServerSettings:
    """Return the settings that parsed options stand for."""
    host, port = values["bind"]
    kind = KeyStoreKind(values["key_store"])
    audit_log: Path | None = values["audit_log"]
    if audit_log is None and kind is KeyStoreKind.FILESYSTEM:
        audit_log = Path("data/audit.log")
    limits = HTTPLimits(
        json_bytes=values["max_json_bytes"],
        payload_bytes=values["max_payload_bytes"],
        raw_bytes=values["max_raw_bytes"],
        aad_bytes=values["max_aad_bytes"],
        max_connections=values["max_connections"],
    )
    return ServerSettings(
        host=host,
        port=port,
        tls=TLSFiles(
            cert=values["cert"], key=values["key"], client_ca=values["client_ca"]
        ),
        core=Settings(
            key_store=kind,
            key_dir=values["key_dir"],
            audit_log=audit_log,
            audit_sync=AuditSync(values["audit_sync"]),
            accept_changed_store=values["accept_changed_store"],
            providers=values["provider"],
            enable_oqs=values["enable_oqs"],
            limits=CoreLimits(
                payload_bytes=max(limits.raw_bytes, limits.payload_bytes),
                aad_bytes=limits.aad_bytes,
            ),
        ),
        tokens=TokenRules(
            issuer=values["auth_jwt_issuer"],
            audience=values["auth_jwt_audience"],
            leeway_seconds=values["auth_jwt_leeway_secs"],
            max_lifetime_seconds=values["auth_jwt_max_lifetime_secs"],
        ),
        limits=limits,
        drain_timeout_seconds=values["drain_timeout_secs"],
        log_level=LogLevel(values["log_level"]),
        log_format=LogFormat(values["log_format"]),
    )
