# SPDX-License-Identifier: MIT
"""Conversion of parsed options to settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from hsm_core.errors import ConfigurationError
from hsm_core.settings import (
    ApprovalStoreKind,
    AuditStoreKind,
    AuditSync,
    KeyStoreKind,
    PolicyProfile,
    Settings,
)
from hsm_core.settings import Limits as CoreLimits
from hsm_server.config.options.console import console_settings
from hsm_server.config.options.metrics import metrics_settings
from hsm_server.config.options.rates import proxy_settings, rate_limits
from hsm_server.config.options.tls import tls_settings
from hsm_server.config.options.tracing import tracing_settings
from hsm_server.config.settings import (
    EventLoop,
    HTTPLimits,
    LogFormat,
    LogLevel,
    ServerSettings,
    TokenConfig,
    TokenRules,
)

TOKEN_KEYS: Final = ("auth_jwt_config", "auth_jwt_jwks_url", "auth_jwt_secret")
"""Options of token keys; the last is ignored beside the others."""


def settings_from(values: dict[str, Any]) -> ServerSettings:
    """Return the settings that parsed options stand for."""
    host, port = values["bind"]
    limits = HTTPLimits(
        json_bytes=values["max_json_bytes"],
        payload_bytes=values["max_payload_bytes"],
        raw_bytes=values["max_raw_bytes"],
        aad_bytes=values["max_aad_bytes"],
        max_connections=values["max_connections"],
        max_connections_per_address=values["max_connections_per_address"],
    )
    core = _core(values, limits)
    return ServerSettings(
        host=host,
        port=port,
        tls=tls_settings(values, core.folder),
        core=core,
        tokens=TokenRules(
            issuer=values["auth_jwt_issuer"],
            audience=values["auth_jwt_audience"],
            leeway_seconds=values["auth_jwt_leeway_secs"],
            max_lifetime_seconds=values["auth_jwt_max_lifetime_secs"],
        ),
        token_config=TokenConfig(
            path=values["auth_jwt_config"],
            reload_seconds=values["auth_jwt_reload_secs"],
            key_set_url=values["auth_jwt_jwks_url"],
            key_set_authorities=_key_set_authorities(values),
            has_no_keys=not any(map(values.get, TOKEN_KEYS)),
        ),
        limits=limits,
        rates=rate_limits(values),
        proxies=proxy_settings(values),
        console=console_settings(values),
        metrics=metrics_settings(values),
        tracing=tracing_settings(values, os.environ),
        workers=values["workers"],
        event_loop=EventLoop(values["event_loop"]),
        drain_timeout_seconds=values["drain_timeout_secs"],
        log_level=LogLevel(values["log_level"]),
        log_format=LogFormat(values["log_format"]),
    )


def _key_set_authorities(values: dict[str, Any]) -> Path | None:
    found: Path | None = values["auth_jwt_jwks_ca"]
    if found is not None and not values["auth_jwt_jwks_url"]:
        raise ConfigurationError("--auth-jwt-jwks-ca requires --auth-jwt-jwks-url.")
    return found


_PLACES: Final = (
    "audit_log",
    "audit_sqlite_path",
    "approval_dir",
    "approval_sqlite_path",
)
"""Options with a default location beside the keys."""


def _places(values: dict[str, Any]) -> Settings:
    """Return settings that say where everything lies, and nothing else."""
    given = {name: values[name] for name in _PLACES if values[name] is not None}
    in_memory = values["key_store"] == KeyStoreKind.MEMORY
    if in_memory:
        given.setdefault("audit_log", None)
    places = Settings(
        key_store=values["key_store"],
        key_dir=values["key_dir"],
        sqlite_path=values["sqlite_path"],
        audit_store=AuditStoreKind(values["audit_store"]),
        approval_store=values["approval_store"]
        or (ApprovalStoreKind.MEMORY if in_memory else ApprovalStoreKind.FILE),
        retention_config=values["retention_config"],
        retention_ledger=values["retention_ledger"],
        **given,
    )
    in_database = places.audit_store == AuditStoreKind.SQLITE
    trail = places.audit_sqlite_path if in_database else places.audit_log
    if places.retention_config and trail and places.retention_ledger is None:
        ledger = trail.parent / "retention-ledger.log"
        return msgspec.structs.replace(places, retention_ledger=ledger)
    return places


def _core(values: dict[str, Any], limits: HTTPLimits) -> Settings:
    return msgspec.structs.replace(
        _places(values),
        audit_sync=AuditSync(values["audit_sync"]),
        audit_timeout_seconds=values["audit_timeout_secs"],
        audit_reserve_bytes=values["audit_reserve_bytes"],
        audit_retention_days=values["audit_retention_days"],
        audit_retention_interval_seconds=values["audit_retention_interval_secs"],
        approval_retention_days=values["approval_retention_days"],
        approval_retention_interval_seconds=values["approval_retention_interval_secs"],
        retention_interval_seconds=values["retention_interval_secs"],
        retention_grace_seconds=values["retention_grace_secs"],
        retention_max_purges=values["retention_max_purges"],
        list_cache_seconds=values["list_cache_ttl_secs"],
        backup_dir=values["backup_dir"],
        scrub_interval_seconds=values["scrub_interval_secs"],
        accept_changed_store=values["accept_changed_store"],
        destroy_waiting_days=values["destroy_waiting_days"],
        destruction_interval_seconds=values["destroy_interval_secs"],
        rotation_interval_seconds=values["rotation_interval_secs"],
        providers=values["provider"],
        enable_oqs=values["enable_oqs"],
        policy_profile=PolicyProfile(values["policy_profile"]),
        policy_config=values["policy_config"],
        policy_reload_interval_seconds=values["policy_reload_interval_secs"],
        certificate_identities=values["client_cert_identities"],
        limits=CoreLimits(
            payload_bytes=max(limits.raw_bytes, limits.payload_bytes),
            aad_bytes=limits.aad_bytes,
        ),
    )
