# SPDX-License-Identifier: MIT
"""
Tracing settings: the flag, or the standard OpenTelemetry variables.

The child processes have environments of their own, so the variables are read once,
here. Unsupported values are rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import click

from hsm_core.errors import ConfigurationError
from hsm_server.config.options.option import option
from hsm_server.config.settings import SAMPLERS, TracingSettings

_OTLP: Final = "OTEL_EXPORTER_OTLP_"
_TRACES: Final = "OTEL_EXPORTER_OTLP_TRACES_"
_PROTOCOL: Final = "http/protobuf"
_MOST_ATTRIBUTES: Final = 64


def tracing_options() -> list[click.Parameter]:
    """Return the flag."""
    return [
        option(
            "otel-endpoint",
            "Export traces to this OTLP endpoint (HTTP, protobuf), such as "
            "http://localhost:4318/v1/traces. Default: "
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT; "
            "without them tracing is off. Requires the extra 'otel'.",
            metavar="URL",
        ),
    ]


def tracing_settings(
    values: dict[str, Any], environment: Mapping[str, str]
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
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname)
        has_secret = parts.username is not None or parts.password is not None
    except ValueError:
        is_good = has_secret = False
    if has_secret:
        raise ConfigurationError("otel-endpoint must not contain a password.")
    if not is_good:
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
