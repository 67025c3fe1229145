# SPDX-License-Identifier: MIT
"""
Server settings: each is named once, with type, limits, default, flag and help.

`Setting` annotates the fields that operators set. Options of the command line,
environment variables and the reference page derive from them. The HSM's own settings
are fields of `hsm_core.settings.Settings`, which `hsm_server.config.core` annotates.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from hsm_core.model import Record, Role
from hsm_core.settings import Settings
from hsm_server.config.annotations import (
    Address,
    Setting,
    User,
    parse_address,
    parse_key_set_url,
    parse_network,
    parse_user,
)
from hsm_server.config.tls import TLSSettings

MAX_TOKEN_BYTES: Final = 8192
"""Longest accepted bearer token, in bytes."""


CONSOLE_PROVIDER: Final = "console"
"""Source of fetched keys that are of the console's provider; no issuer is named so."""


class LogLevel(StrEnum):
    """Minimum severity of log messages."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """Format of log messages."""

    JSON = "json"
    CONSOLE = "console"


class Isolation(StrEnum):
    """Isolation of the keys from the network."""

    PROCESS = "process"
    INLINE = "inline"


class EventLoop(StrEnum):
    """Event loop of front ends and vault; AUTO is uvloop where it is installed."""

    AUTO = "auto"
    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


class ProxyHeader(StrEnum):
    """Header that trusted proxies set to the client address."""

    FORWARDED = "forwarded"
    X_FORWARDED_FOR = "x-forwarded-for"


class LaunchSettings(Record, frozen=True, kw_only=True):
    """Settings of the start alone: no process of the server keeps them."""

    oidc_config: Annotated[
        Path | None,
        Setting(
            "oidc-config",
            "OpenID Connect provider for sign-in to the console, YAML or JSON.",
        ),
    ] = None
    token_issuers: Annotated[
        Path | None,
        Setting(
            "token-issuers",
            "Issuers whose access tokens the API accepts (OpenID Connect, GitHub, "
            "GitLab, Kubernetes, SPIFFE), YAML or JSON. The identities of the policy "
            "give principals and roles.",
        ),
    ] = None
    isolation: Annotated[
        Isolation,
        Setting(
            "isolation",
            "Where keys are held: 'process' for a separate vault process, "
            "'inline' for the process that accepts connections (development "
            "only).",
            metavar="MODE",
        ),
    ] = Isolation.PROCESS
    vault_user: Annotated[
        User | None,
        Setting(
            "vault-user",
            "System user of the vault process. Requires a start as root.",
            metavar="USER",
            parse=parse_user,
        ),
    ] = None
    front_end_user: Annotated[
        User | None,
        Setting(
            "front-end-user",
            "System user of the front ends. Requires a start as root. It needs "
            "read access to the TLS certificate and private key, and to nothing "
            "else.",
            metavar="USER",
            parse=parse_user,
        ),
    ] = None


class SecretSettings(Record, frozen=True, kw_only=True):
    """Secrets as they are given, or where they are; see `hsm_core.secret_input`."""

    master_key: Annotated[
        str,
        Setting(
            "master-key",
            "Root key that encrypts all keys: 32 bytes.",
            metavar="SECRET",
            is_secret=True,
        ),
    ]
    hmac_key: Annotated[
        str,
        Setting(
            "hmac-key",
            "HMAC key of the audit log: 32 bytes.",
            metavar="SECRET",
            is_secret=True,
        ),
    ]
    token_secret: Annotated[
        str,
        Setting(
            "auth-jwt-secret",
            "HS256 key that verifies bearer tokens: at least 32 bytes. Required "
            "unless --auth-jwt-config, --auth-jwt-jwks-url, --token-issuers or "
            "--client-cert-identities is set.",
            metavar="SECRET",
            variable="FERROHSM_JWT_SECRET",
            is_secret=True,
        ),
    ] = ""


class TokenConfig(Record, frozen=True, kw_only=True):
    """
    Keys of bearer tokens: a file, or a URL of a JWK Set.

    Attributes:
        has_no_keys: Whether no key source and no secret is configured; then every token
            is rejected.
    """

    path: Annotated[
        Path | None,
        Setting(
            "auth-jwt-config",
            "File with keys that verify tokens, YAML or JSON. Replaces "
            "--auth-jwt-secret. Reloaded when it changes.",
            variable="FERROHSM_JWT_CONFIG",
        ),
    ] = None
    key_set_url: Annotated[
        str,
        Setting(
            "auth-jwt-jwks-url",
            "HTTPS URL of a JWK Set with public keys that verify tokens. Used "
            "together with the keys of --auth-jwt-config.",
            metavar="URL",
            parse=parse_key_set_url,
        ),
    ] = ""
    key_set_authorities: Annotated[
        Path | None,
        Setting(
            "auth-jwt-jwks-ca",
            "CA certificates that verify the JWK Set server, PEM. Default: the "
            "system's CAs.",
            is_read_here=False,
        ),
    ] = None
    reload_seconds: Annotated[
        float,
        Meta(ge=0.5, le=3600),
        Setting(
            "auth-jwt-reload-secs",
            "Interval between checks of --auth-jwt-config for changes and "
            "fetches of the JWK Set, in seconds.",
        ),
    ] = 30.0
    has_no_keys: bool = False


class TokenRules(Record, frozen=True, kw_only=True):
    """Claims that a bearer token must have."""

    issuer: Annotated[
        str,
        Setting(
            "auth-jwt-issuer",
            "Required issuer (iss) of tokens.",
            metavar="TEXT",
            variable="FERROHSM_JWT_ISSUER",
        ),
    ] = ""
    audience: Annotated[
        str,
        Setting(
            "auth-jwt-audience",
            "Required audience (aud) of tokens. If unset, tokens with an "
            "audience are rejected.",
            metavar="TEXT",
        ),
    ] = ""
    leeway_seconds: Annotated[
        int,
        Meta(ge=0, le=300),
        Setting(
            "auth-jwt-leeway-secs",
            "Allowed clock difference to the token issuer, in seconds. "
            "--auth-jwt-config can override it.",
        ),
    ] = 60
    max_lifetime_seconds: Annotated[
        int,
        Meta(ge=1),
        Setting(
            "auth-jwt-max-lifetime-secs",
            "Maximum lifetime of a token, in seconds.",
        ),
    ] = 24 * 3600


class OIDCSettings(Record, frozen=True, kw_only=True):
    """
    OpenID Connect provider for sign-in to the console.

    Attributes:
        issuer: Issuer: an ``https`` URL, under which its metadata is published.
        client_id: Client ID of this server; the required audience of ID tokens.
        redirect_uri: Registered redirect URI.
        client_secret_file: File of the client secret; None relies on PKCE.
        ca_bundle: PEM file of CAs that verify the provider; None uses public web CAs.
        jwks_file: Its keys (RFC 7517); None fetches them from its ``jwks_uri``.
        title: Name on the sign-in page.
        scopes: Requested scopes, with ``openid``.
        principal_claim: Claim of the principal.
        roles_claim: Claim of the roles; dots separate nested objects.
        roles: Roles by value of that claim; other values are ignored.
        leeway_seconds: Allowed clock difference to the provider.
    """

    issuer: str
    client_id: str
    redirect_uri: str
    client_secret_file: Path | None = None
    ca_bundle: Path | None = None
    jwks_file: Path | None = None
    title: str = "single sign-on"
    scopes: tuple[str, ...] = ("openid",)
    principal_claim: str = "sub"
    roles_claim: str = "roles"
    roles: dict[str, Role]
    leeway_seconds: Annotated[int, Meta(ge=0, le=300)] = 60


class TokenIssuer(Record, frozen=True, kw_only=True):
    """
    Issuer whose access tokens the API accepts.

    Attributes:
        issuer: Its ``iss``, or a SPIFFE trust domain (``spiffe://…``).
        jwks_file: File of its keys (RFC 7517); None fetches them.
        jwks_url: Where its keys are fetched; by default the ``jwks_uri`` of its
            metadata.
        ca_bundle: PEM file of CAs that verify that server; None uses public web CAs.
    """

    issuer: str
    jwks_file: Path | None = None
    jwks_url: str = ""
    ca_bundle: Path | None = None


class HTTPLimits(Record, frozen=True, kw_only=True):
    """
    Limits of a request or connection.

    Attributes:
        line_bytes: Longest request line; a query may hold 64 KiB of additional data in
            base64 with every character escaped.
        header_bytes: Longest header field.
        handshake_timeout_seconds: Time limit of a TLS handshake.
        head_timeout_seconds: Time limit for the head of a request.
        body_timeout_seconds: Time limit for a body.
        keepalive_seconds: Time before an idle connection is closed.
    """

    json_bytes: Annotated[
        int,
        Meta(ge=1024),
        Setting("max-json-bytes", "Maximum size of a JSON body, in bytes."),
    ] = 2 * 1024 * 1024
    payload_bytes: Annotated[
        int,
        Meta(ge=1),
        Setting(
            "max-payload-bytes",
            "Maximum size of a decoded byte string in a JSON body, in bytes.",
        ),
    ] = 1024 * 1024
    raw_bytes: Annotated[
        int,
        Meta(ge=1),
        Setting(
            "max-raw-bytes",
            "Maximum size of an application/octet-stream body, in bytes.",
        ),
    ] = 64 * 1024 * 1024
    aad_bytes: Annotated[
        int,
        Meta(ge=0),
        Setting(
            "max-aad-bytes",
            "Maximum size of additional authenticated data, in bytes.",
        ),
    ] = 64 * 1024
    max_connections: Annotated[
        int,
        Meta(ge=1),
        Setting(
            "max-connections",
            "Maximum number of concurrent connections. Reduced automatically "
            "if the limit of open files is lower.",
        ),
    ] = 1000
    max_connections_per_address: Annotated[
        int,
        Meta(ge=1),
        Setting(
            "max-connections-per-address",
            "Maximum number of concurrent connections per network address.",
        ),
    ] = 500
    line_bytes: Annotated[int, Meta(ge=1024)] = 272 * 1024
    header_bytes: Annotated[int, Meta(ge=1024)] = 32 * 1024
    handshake_timeout_seconds: Annotated[float, Meta(gt=0)] = 10.0
    head_timeout_seconds: Annotated[float, Meta(gt=0)] = 10.0
    body_timeout_seconds: Annotated[float, Meta(gt=0)] = 60.0
    keepalive_seconds: Annotated[float, Meta(gt=0)] = 75.0


class RateLimits(Record, frozen=True, kw_only=True):
    """Rate limits per caller and per network address."""

    divided: Annotated[
        bool,
        Setting(
            "divide-rate-limits",
            "Divide the rate limits of callers and of network addresses by the number "
            "of live nodes of the cluster. Disabled by default.",
        ),
    ] = False
    per_second: Annotated[
        float,
        Meta(ge=0),
        Setting(
            "rate-limit-per-second",
            "Rate limit per caller, in units per second: a fast operation costs "
            "1, a change or an RSA signature 4, a slow operation 50, a batch "
            "the sum of its items. 0 disables the limit.",
        ),
    ] = 100.0
    burst: Annotated[
        int, Meta(ge=1), Setting("rate-limit-burst", "Burst per caller, in units.")
    ] = 200
    address_per_second: Annotated[
        float,
        Meta(ge=0),
        Setting(
            "address-limit-per-second",
            "Rate limit per network address, in requests per second. Clients "
            "that authenticated within the last minute are exempt. Checked "
            "before authentication. 0 disables the limit.",
        ),
    ] = 100.0
    address_burst: Annotated[
        int,
        Meta(ge=1),
        Setting("address-limit-burst", "Burst per network address, in requests."),
    ] = 200
    free_failures: Annotated[
        int,
        Meta(ge=0),
        Setting(
            "lockout-after",
            "Failed authentications of an address before a lockout of 1, 2, 4, "
            "up to 60 seconds. Credentials accepted within the last minute are "
            "exempt. 0 disables lockouts.",
        ),
    ] = 20


NO_RATE_LIMITS: Final = RateLimits(
    per_second=0.0, address_per_second=0.0, free_failures=0
)


class ProxySettings(Record, frozen=True, kw_only=True):
    """Trusted proxies."""

    networks: Annotated[
        tuple[str, ...],
        Setting(
            "trusted-proxy",
            "Trusted proxy network (CIDR): its forwarded client addresses are "
            "accepted. Repeatable; accepts comma-separated values. Default: "
            "none.",
            metavar="CIDR",
            parse=parse_network,
        ),
    ] = ()
    header: Annotated[
        ProxyHeader,
        Setting(
            "trusted-proxy-header",
            "Header that holds the forwarded client address. Others are ignored.",
            metavar="NAME",
        ),
    ] = ProxyHeader.X_FORWARDED_FOR


class MetricsSettings(Record, frozen=True, kw_only=True):
    """
    Access to ``/metrics``.

    Attributes:
        token_sha256: SHA-256 of the required bearer token, hex; empty requires none.
            The token is long enough to resist a search by its hash.
    """

    address: Annotated[
        Address | None,
        Setting(
            "metrics-bind",
            "Serve /metrics on this loopback address only, without TLS. "
            "Default: on --bind.",
            metavar="HOST:PORT",
            parse=parse_address,
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        Setting(
            "metrics-token-file",
            "File with the bearer token that /metrics requires: 32 to 512 "
            "characters, mode 0600. Default: no token.",
        ),
    ] = None
    token_sha256: str = ""


class ConsoleSettings(Record, frozen=True, kw_only=True):
    """The web console."""

    is_on: Annotated[
        bool,
        Setting(
            "console",
            "Serve the web console under /ui. Enabled by default; disable with "
            "--no-console.",
        ),
    ] = True
    idle_seconds: Annotated[
        int,
        Meta(ge=30, le=86400),
        Setting(
            "session-idle-secs",
            "Idle timeout of a console session, in seconds.",
        ),
    ] = 15 * 60
    absolute_seconds: Annotated[
        int,
        Meta(ge=60, le=7 * 86400),
        Setting(
            "session-absolute-secs",
            "Maximum lifetime of a console session, in seconds. A session also "
            "ends when its token or certificate expires.",
        ),
    ] = 8 * 3600


SAMPLERS: Final = (
    *("always_on", "always_off", "traceidratio"),
    *("parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"),
)
"""Names of OpenTelemetry samplers."""


class TracingSettings(Record, frozen=True, kw_only=True):
    """
    Export of traces, from the standard variables of OpenTelemetry.

    Attributes:
        endpoint: URL for OTLP over HTTP; empty disables tracing.
        service_name: Name of this service.
        attributes: Further resource attributes, by name.
        sampler: One of `SAMPLERS`.
        ratio: Ratio of sampled requests, for ratio samplers.
        certificate: PEM file of CAs that verify the endpoint; None uses public web CAs.
    """

    endpoint: Annotated[
        str,
        Setting(
            "otel-endpoint",
            "Export traces to this OTLP endpoint (HTTP, protobuf), such as "
            "http://localhost:4318/v1/traces. Default: "
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT; "
            "without them tracing is off. Requires the extra 'otel'.",
            metavar="URL",
        ),
    ] = ""
    service_name: str = "hsm-server"
    attributes: tuple[tuple[str, str], ...] = ()
    sampler: str = "parentbased_always_on"
    ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    certificate: Path | None = None


class ServerSettings(Record, frozen=True, kw_only=True):
    """
    All settings of the server, except its secrets.

    Attributes:
        bind: Address of the listener; port 0 selects a free one.
        core: Settings of the HSM.
        rates: Rate limits; none unless they are given.
    """

    bind: Annotated[
        Address,
        Setting(
            "bind",
            "Address to listen on. Port 0 selects a free port.",
            metavar="HOST:PORT",
            parse=parse_address,
        ),
    ] = Address("127.0.0.1", 8443)
    tls: TLSSettings | None = None
    core: Settings = Settings()
    tokens: TokenRules = TokenRules()
    token_config: TokenConfig = TokenConfig()
    oidc: OIDCSettings | None = None
    token_issuers: tuple[TokenIssuer, ...] = ()
    limits: HTTPLimits = HTTPLimits()
    rates: RateLimits = NO_RATE_LIMITS
    proxies: ProxySettings = ProxySettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    console: ConsoleSettings = ConsoleSettings()
    workers: Annotated[
        int,
        Meta(ge=1, le=64),
        Setting(
            "workers",
            "Number of front-end processes. Always 1 with --isolation inline.",
        ),
    ] = 1
    event_loop: Annotated[
        EventLoop,
        Setting(
            "event-loop",
            "Event loop of front ends and vault: 'uvloop', which uses less CPU and "
            "memory, 'asyncio', or 'auto': uvloop if installed.",
            metavar="KIND",
        ),
    ] = EventLoop.AUTO
    drain_timeout_seconds: Annotated[
        float,
        Meta(ge=0),
        Setting(
            "drain-timeout-secs",
            "Time for requests in flight to finish after SIGTERM, in seconds. "
            "The server exits at most 3 seconds later.",
        ),
    ] = 7.0
    log_level: Annotated[
        LogLevel,
        Setting("log-level", "Minimum severity of log messages on standard error."),
    ] = LogLevel.INFO
    log_format: Annotated[
        LogFormat, Setting("log-format", "Format of log messages.")
    ] = LogFormat.JSON


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """
    Secrets of the server.

    Attributes:
        master_key: Root key, 32 bytes.
        hmac_key: Key of the audit log, 32 bytes.
        jwt_secret: HS256 key of bearer tokens, at least 32 bytes; None with other token
            keys.
    """

    master_key: bytes
    hmac_key: bytes
    jwt_secret: bytes | None = None
