# SPDX-License-Identifier: MIT
"""Server settings: parsed, validated, immutable. Secrets are separate."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from hsm_core.model import Record, Role
from hsm_core.settings import Settings

MAX_TOKEN_BYTES: Final = 8192
"""Longest accepted bearer token, in bytes."""


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
    """Event loop of front ends and vault."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


class ProxyHeader(StrEnum):
    """Header that trusted proxies set to the client address."""

    FORWARDED = "forwarded"
    X_FORWARDED_FOR = "x-forwarded-for"


class StatusCheck(StrEnum):
    """
    OCSP checks of client certificates.

    *soft* accepts clients if no responder answers, *hard* rejects them.
    """

    OFF = "off"
    SOFT = "soft"
    HARD = "hard"


class PairFiles(Record, frozen=True, kw_only=True):
    """
    PEM files of a certificate of the listener.

    Attributes:
        cert: Certificate chain, server certificate first.
        key: Its private key, unencrypted, readable by its owner only.
    """

    cert: Path
    key: Path


class ClientSettings(Record, frozen=True, kw_only=True):
    """
    Client certificate settings.

    Attributes:
        ca: PEM file of CAs for client certificates.
        is_required: Whether to reject connections without a certificate.
        crls: Files of revocation lists, PEM or DER.
        status_check: OCSP check of client certificates.
    """

    ca: Path
    is_required: bool = True
    crls: tuple[Path, ...] = ()
    status_check: StatusCheck = StatusCheck.OFF


class ACMESettings(Record, frozen=True, kw_only=True):
    """
    ACME settings: automatic issuance of the listener's certificate.

    Attributes:
        names: Names of the server, DNS names as A-labels or IP addresses.
        contacts: Contact addresses, as URIs.
        cache: Directory of account and certificate.
        directory: Directory URL of the CA.
        authorities: PEM file of CAs that verify the CA's server; None uses public web
            CAs.
        http_address: Host and port for HTTP-01 challenges; None answers challenges on
            the listener.

    Standard:
        RFC 8555; RFC 8737 and RFC 8738.
    """

    names: Annotated[tuple[str, ...], Meta(min_length=1, max_length=100)]
    contacts: tuple[str, ...] = ()
    cache: Path = Path("data/acme")
    directory: str
    authorities: Path | None = None
    http_address: tuple[str, int] | None = None


class TLSSettings(Record, frozen=True, kw_only=True):
    """
    TLS of the listener.

    Attributes:
        pairs: Certificates, at most one per key type; empty with ACME.
        acme: ACME settings.
        client: Client certificate settings; None requests no certificate.
        allow_tls_1_2: Whether TLS 1.2 is allowed.
        reload_interval_seconds: Interval between checks of the files; 0 reads them only
            on reload.
        ocsp_responses: Files of OCSP responses, DER or PEM.
        ocsp_refresh_interval_seconds: Longest interval between OCSP queries for a
            server certificate; 0 disables queries.
    """

    pairs: tuple[PairFiles, ...]
    acme: ACMESettings | None = None
    client: ClientSettings | None = None
    allow_tls_1_2: bool = False
    reload_interval_seconds: Annotated[float, Meta(ge=0)] = 3600.0
    ocsp_responses: tuple[Path, ...] = ()
    ocsp_refresh_interval_seconds: Annotated[float, Meta(ge=0)] = 14400.0


class TokenRules(Record, frozen=True, kw_only=True):
    """
    Claims that a bearer token must have.

    Attributes:
        issuer: Required ``iss``; empty accepts any.
        audience: Required in ``aud``; empty rejects tokens with an audience.
        leeway_seconds: Allowed clock difference to the issuer.
        max_lifetime_seconds: Longest time from ``iat`` (or now) to ``exp``.
    """

    issuer: str = ""
    audience: str = ""
    leeway_seconds: Annotated[int, Meta(ge=0, le=300)] = 60
    max_lifetime_seconds: Annotated[int, Meta(ge=1)] = 24 * 3600


class TokenConfig(Record, frozen=True, kw_only=True):
    """
    Token keys: a file, or a URL of a JWK Set.

    Attributes:
        path: YAML or JSON file; None with a single secret.
        reload_seconds: Interval between checks of the file, and between fetches.
        key_set_url: URL of a JWK Set; empty for none.
        key_set_authorities: PEM file of CAs that verify that server; None uses the
            system's CAs.
        has_no_keys: Whether no key source and no secret is configured; then every token
            is rejected.
    """

    path: Path | None = None
    reload_seconds: Annotated[float, Meta(gt=0)] = 30.0
    key_set_url: str = ""
    key_set_authorities: Path | None = None
    has_no_keys: bool = False


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


class HTTPLimits(Record, frozen=True, kw_only=True):
    """
    Limits of a request or connection.

    Attributes:
        json_bytes: Largest JSON body.
        payload_bytes: Largest byte string inside a JSON body, after decoding.
        raw_bytes: Largest ``application/octet-stream`` body.
        aad_bytes: Largest additional authenticated data.
        line_bytes: Longest request line; a query may hold 64 KiB of additional data in
            base64 with every character escaped.
        header_bytes: Longest header field.
        max_connections: Concurrent connections; fewer if the limit of open files
            requires it.
        max_connections_per_address: Concurrent connections per network address.
        handshake_timeout_seconds: Time limit of a TLS handshake.
        head_timeout_seconds: Time limit for the head of a request.
        body_timeout_seconds: Time limit for a body.
        keepalive_seconds: Time before an idle connection is closed.
    """

    json_bytes: Annotated[int, Meta(ge=1024)] = 2 * 1024 * 1024
    payload_bytes: Annotated[int, Meta(ge=1)] = 1024 * 1024
    raw_bytes: Annotated[int, Meta(ge=1)] = 64 * 1024 * 1024
    aad_bytes: Annotated[int, Meta(ge=0)] = 64 * 1024
    line_bytes: Annotated[int, Meta(ge=1024)] = 272 * 1024
    header_bytes: Annotated[int, Meta(ge=1024)] = 32 * 1024
    max_connections: Annotated[int, Meta(ge=1)] = 1000
    max_connections_per_address: Annotated[int, Meta(ge=1)] = 500
    handshake_timeout_seconds: Annotated[float, Meta(gt=0)] = 10.0
    head_timeout_seconds: Annotated[float, Meta(gt=0)] = 10.0
    body_timeout_seconds: Annotated[float, Meta(gt=0)] = 60.0
    keepalive_seconds: Annotated[float, Meta(gt=0)] = 75.0


class RateLimits(Record, frozen=True, kw_only=True):
    """
    Rate limits per caller and per network address.

    Attributes:
        per_second: Units per second and caller; 0 is unlimited.
        burst: Burst per caller, in units.
        address_per_second: Requests per second and address, except from recently
            authenticated clients; 0 is unlimited.
        address_burst: Burst per address.
        free_failures: Failed authentications of an address before a lockout; 0 disables
            lockouts.
    """

    per_second: Annotated[float, Meta(ge=0)] = 0.0
    burst: Annotated[int, Meta(ge=1)] = 200
    address_per_second: Annotated[float, Meta(ge=0)] = 0.0
    address_burst: Annotated[int, Meta(ge=1)] = 200
    free_failures: Annotated[int, Meta(ge=0)] = 0


class ProxySettings(Record, frozen=True, kw_only=True):
    """
    Trusted proxies.

    Attributes:
        networks: Networks of trusted proxies, as text; empty trusts none.
        header: Header with the client address; others are ignored.
    """

    networks: tuple[str, ...] = ()
    header: ProxyHeader = ProxyHeader.X_FORWARDED_FOR


class MetricsSettings(Record, frozen=True, kw_only=True):
    """
    Access to ``/metrics``.

    Attributes:
        address: Host and port of a separate loopback listener without TLS; None uses
            the main listener.
        token_sha256: SHA-256 of the required bearer token, hex; empty requires none.
            The token is long enough to resist a search by its hash.
    """

    address: tuple[str, int] | None = None
    token_sha256: str = ""


class ConsoleSettings(Record, frozen=True, kw_only=True):
    """
    The web console.

    Attributes:
        is_on: Whether it is served.
        idle_seconds: Idle timeout of a session.
        absolute_seconds: Maximum lifetime of a session.
    """

    is_on: bool = True
    idle_seconds: Annotated[float, Meta(gt=0)] = 15 * 60.0
    absolute_seconds: Annotated[float, Meta(gt=0)] = 8 * 3600.0


SAMPLERS: Final = (
    *("always_on", "always_off", "traceidratio"),
    *("parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"),
)
"""Names of OpenTelemetry samplers."""


class TracingSettings(Record, frozen=True, kw_only=True):
    """
    Export of traces.

    Attributes:
        endpoint: URL for OTLP over HTTP; empty disables tracing.
        service_name: Name of this service.
        attributes: Further resource attributes, by name.
        sampler: One of `SAMPLERS`.
        ratio: Ratio of sampled requests, for ratio samplers.
        certificate: PEM file of CAs that verify the endpoint; None uses public web CAs.
    """

    endpoint: str = ""
    service_name: str = "hsm-server"
    attributes: tuple[tuple[str, str], ...] = ()
    sampler: str = "parentbased_always_on"
    ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    certificate: Path | None = None


class ServerSettings(Record, frozen=True, kw_only=True):
    """
    All settings of the server, except its secrets.

    Attributes:
        port: Port; 0 selects a free one.
        core: Settings of the HSM.
        rates: Rate limits.
        proxies: Trusted proxies.
        workers: Number of front ends, with isolated keys.
        event_loop: Event loop of front ends and vault.
        console: The web console.
        drain_timeout_seconds: Time for requests in flight to finish at shutdown.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8443
    tls: TLSSettings | None = None
    core: Settings = Settings()
    tokens: TokenRules = TokenRules()
    token_config: TokenConfig = TokenConfig()
    oidc: OIDCSettings | None = None
    limits: HTTPLimits = HTTPLimits()
    rates: RateLimits = RateLimits()
    proxies: ProxySettings = ProxySettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    console: ConsoleSettings = ConsoleSettings()
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    event_loop: EventLoop = EventLoop.ASYNCIO
    drain_timeout_seconds: Annotated[float, Meta(ge=0)] = 7.0
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.JSON


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
