# SPDX-License-Identifier: MIT
"""
Effective settings: checks of parsed values that depend on each other.

The child processes have environments of their own, so the standard variables of
OpenTelemetry are read here, once. Unsupported values are rejected.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from hsm_core.errors import ConfigurationError
from hsm_core.secret_input import read_secret_text
from hsm_server.config.annotations import build, split_url
from hsm_server.config.core import core_settings
from hsm_server.config.settings import (
    SAMPLERS,
    ConsoleSettings,
    HTTPLimits,
    Isolation,
    LaunchSettings,
    MetricsSettings,
    ProxySettings,
    RateLimits,
    ServerSettings,
    TokenConfig,
    TokenRules,
    TracingSettings,
)
from hsm_server.config.tls import tls_settings

TOKEN_KEYS: Final = ("auth_jwt_config", "auth_jwt_jwks_url", "auth_jwt_secret")
"""Sources of keys of own tokens; the last is ignored beside the others."""

SIGN_IN: Final = (*TOKEN_KEYS, "token_issuers", "client_cert_identities")
"""Ways to authenticate; all but the last are for bearer tokens."""

_TOKEN: Final = re.compile(r"[!-~]{32,512}\Z")
_OTLP: Final = "OTEL_EXPORTER_OTLP_"
_TRACES: Final = "OTEL_EXPORTER_OTLP_TRACES_"
_PROTOCOL: Final = "http/protobuf"
_MOST_ATTRIBUTES: Final = 64


def settings_from(values: Mapping[str, Any]) -> ServerSettings:
    """
    Return the settings that parsed values stand for.

    Raises:
        ConfigurationError: Settings don't fit together.
    """
    limits = build(HTTPLimits, values)
    core = core_settings(values, limits)
    return build(
        ServerSettings,
        values,
        tls=tls_settings(values, core.folder),
        core=core,
        tokens=build(TokenRules, values),
        token_config=_token_config(values),
        limits=limits,
        rates=build(RateLimits, values),
        proxies=build(ProxySettings, values),
        console=console_settings(values),
        metrics=metrics_settings(values),
        tracing=tracing_settings(values, os.environ),
    )


def check_sign_in(values: Mapping[str, Any]) -> None:
    """
    Check that there is a way to authenticate.

    Raises:
        ConfigurationError: There is none.
    """
    if not any(map(values.get, SIGN_IN)):
        raise ConfigurationError(
            "Missing option: a way to authenticate. Set auth-jwt-secret (environment "
            "variable FERROHSM_JWT_SECRET), auth-jwt-config, auth-jwt-jwks-url, "
            "token-issuers or client-cert-identities."
        )


def _token_config(values: Mapping[str, Any]) -> TokenConfig:
    found = build(TokenConfig, values, has_no_keys=not any(map(values.get, TOKEN_KEYS)))
    if found.key_set_authorities is not None and not found.key_set_url:
        raise ConfigurationError("--auth-jwt-jwks-ca requires --auth-jwt-jwks-url.")
    return found


def console_settings(values: Mapping[str, Any]) -> ConsoleSettings:
    """
    Return the settings of the console.

    Raises:
        ConfigurationError: A session would be idle for longer than it may last.
    """
    found = build(ConsoleSettings, values)
    if found.idle_seconds > found.absolute_seconds:
        raise ConfigurationError(
            "--session-idle-secs must not exceed --session-absolute-secs."
        )
    return found


def metrics_settings(values: Mapping[str, Any]) -> MetricsSettings:
    """
    Return the settings of the metrics.

    Raises:
        UnsafeFileModeError: Others than its owner may read the token.
        ConfigurationError: The token is none, or the address is not of loopback.
    """
    address, path = values["metrics_bind"], values["metrics_token_file"]
    if address is not None and not is_loopback(address.host):
        raise ConfigurationError(
            f"--metrics-bind {address.host} must be a loopback address, such as "
            "127.0.0.1, because it does not use TLS."
        )
    digest = "" if path is None else _hash_of(path)
    return build(MetricsSettings, values, token_sha256=digest)


def metrics_warning(settings: ServerSettings) -> str:
    """Return a warning if other hosts can read the metrics, or an empty text."""
    metrics, tls = settings.metrics, settings.tls
    asks_for_certificates = (
        tls is not None and tls.client is not None and tls.client.is_required
    )
    is_closed = metrics.address is not None or metrics.token_sha256
    if is_closed or asks_for_certificates or is_loopback(settings.bind.host):
        return ""
    return (
        f"/metrics is readable by every client that reaches {settings.bind.host}. "
        "Pass --metrics-token-file or --metrics-bind to restrict access."
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hash_of(path: Path) -> str:
    token = read_secret_text(f"@{path}", field="--metrics-token-file")
    if not _TOKEN.match(token):
        raise ConfigurationError(
            "--metrics-token-file must contain one line of 32 to 512 printable "
            "ASCII characters without spaces.",
            field="--metrics-token-file",
        )
    return hashlib.sha256(token.encode()).hexdigest()


def root_warning(launched: LaunchSettings) -> str:
    """Return a warning if processes run as root, or an empty text."""
    if os.geteuid() != 0:
        return ""
    if launched.isolation is Isolation.INLINE:
        return (
            "The server runs as root, including the process that accepts "
            "connections. Start it as another user, or pass --isolation process "
            "with --vault-user and --front-end-user."
        )
    users = {
        "--vault-user": launched.vault_user,
        "--front-end-user": launched.front_end_user,
    }
    flags = [flag for flag, user in users.items() if user is None or user.uid == 0]
    if not flags:
        return ""
    named = " and ".join(flags)
    return (
        f"The server and its child processes run as root. Pass {named} to run "
        "them as other users, or start the server as another user."
    )


def tracing_settings(
    values: Mapping[str, Any], environment: Mapping[str, str]
) -> TracingSettings:
    """
    Return the settings that the option and the variables stand for.

    Raises:
        ConfigurationError: They say something that is not supported.
    """
    endpoint = values["otel_endpoint"] or _standard_endpoint(environment)
    if not endpoint:
        return TracingSettings()
    _check_url(endpoint)
    _refuse_others(environment)
    sampler, ratio = _sampler(environment)
    certificate = _standard("CERTIFICATE", environment)
    attributes = _attributes(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    named = attributes.pop("service.name", "") or "hsm-server"
    return TracingSettings(
        endpoint=endpoint,
        service_name=environment.get("OTEL_SERVICE_NAME", "") or named,
        attributes=tuple(attributes.items()),
        sampler=sampler,
        ratio=ratio,
        certificate=Path(certificate) if certificate else None,
    )


def _standard(name: str, environment: Mapping[str, str]) -> str:
    """Return a variable for traces, else that for everything."""
    return environment.get(_TRACES + name, "") or environment.get(_OTLP + name, "")


def _standard_endpoint(environment: Mapping[str, str]) -> str:
    is_off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_off or environment.get("OTEL_TRACES_EXPORTER", "") == "none":
        return ""
    if own := environment.get(f"{_TRACES}ENDPOINT", ""):
        return own
    base = environment.get(f"{_OTLP}ENDPOINT", "")
    return f"{base.rstrip('/')}/v1/traces" if base else ""


def _check_url(url: str) -> None:
    parts = split_url(url)
    if parts is not None and "@" in parts.netloc:
        raise ConfigurationError("otel-endpoint must not contain a password.")
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError("otel-endpoint must be an http:// or https:// URL.")


def _refuse_others(environment: Mapping[str, str]) -> None:
    exporter = environment.get("OTEL_TRACES_EXPORTER", "") or "otlp"
    if exporter not in {"otlp", "none"}:
        raise ConfigurationError("OTEL_TRACES_EXPORTER must be otlp or none.")
    if _standard("PROTOCOL", environment) not in {"", _PROTOCOL}:
        raise ConfigurationError(f"{_OTLP}PROTOCOL must be {_PROTOCOL}.")
    if _standard("HEADERS", environment):
        raise ConfigurationError(
            f"{_OTLP}HEADERS is not supported, because front ends hold no "
            "secrets. Let a local collector add the headers."
        )


def _sampler(environment: Mapping[str, str]) -> tuple[str, float]:
    name = environment.get("OTEL_TRACES_SAMPLER", "") or "parentbased_always_on"
    if name not in SAMPLERS:
        raise ConfigurationError(
            f"OTEL_TRACES_SAMPLER must be one of {', '.join(SAMPLERS)}."
        )
    text = environment.get("OTEL_TRACES_SAMPLER_ARG", "") or "1.0"
    if not name.endswith("traceidratio"):
        return name, 1.0
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        raise ConfigurationError(
            "OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1."
        )
    return name, ratio


def _attributes(text: str) -> dict[str, str]:
    """
    Parse ``OTEL_RESOURCE_ATTRIBUTES``: names and escaped values.

    Raises:
        ConfigurationError: It has another form.
    """
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if len(pairs) > _MOST_ATTRIBUTES or not all(n.strip() and s for n, s, _ in pairs):
        raise ConfigurationError(
            "OTEL_RESOURCE_ATTRIBUTES must be comma-separated name=value pairs."
        )
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}
