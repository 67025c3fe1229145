# SPDX-License-Identifier: MIT
"""Settings of the server: parsed, validated, immutable. Secrets stand apart."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from hsm_core.model import Record, Role
from hsm_core.settings import Settings

MAX_TOKEN_BYTES: Final = 8192
"""Longest bearer token that is looked at, in bytes."""


class LogLevel(StrEnum):
    """Least severe level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a line of the log is written."""

    JSON = "json"
    CONSOLE = "console"


class Isolation(StrEnum):
    """Whether keys are kept in a process of their own."""

    PROCESS = "process"
    INLINE = "inline"


class EventLoop(StrEnum):
    """What front ends and vault run on."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


class ProxyHeader(StrEnum):
    """Header field in which trusted proxies say for whom they ask."""

    FORWARDED = "forwarded"
    X_FORWARDED_FOR = "x-forwarded-for"


class StatusCheck(StrEnum):
    """
    Whether client certificates are asked after by OCSP.

    *soft* lets in those of whom nothing can be learnt, *hard* doesn't.
    """

    OFF = "off"
    SOFT = "soft"
    HARD = "hard"


class PairFiles(Record, frozen=True, kw_only=True):
    """
    PEM files of a certificate that the listener shows.

    Attributes:
        cert: Certificate chain, the server's own first.
        key: Its private key, not encrypted, readable by its owner alone.
    """

    cert: Path
    key: Path


class ClientSettings(Record, frozen=True, kw_only=True):
    """
    Which client certificates are let in.

    Attributes:
        ca: PEM file of those who may have signed them.
        is_required: Whether a connection without one is refused.
        crls: Files of revocation lists, PEM or DER.
        status_check: Whether their OCSP responders are asked.
    """

    ca: Path
    is_required: bool = True
    crls: tuple[Path, ...] = ()
    status_check: StatusCheck = StatusCheck.OFF


class ACMESettings(Record, frozen=True, kw_only=True):
    """
    Where the listener's certificate comes from, if a CA issues it by itself.

    Attributes:
        names: Of the server, DNS names as A-labels or IP addresses.
        contacts: Whom the CA may write to, as URIs.
        cache: Folder of account and certificate.
        directory: URL where the CA begins.
        authorities: PEM file of those who may have signed the CA's own certificate;
            None takes those that the web trusts.
        http_address: Host and port where challenges are answered over HTTP; None
            answers them on the listener.

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
        pairs: Certificates to choose from, at most one for each kind of key; none
            where a CA issues the certificate.
        acme: How it does so.
        client: If given, clients show certificates too.
        allow_tls_1_2: Whether TLS 1.2 is spoken too.
        reload_interval_seconds: How often files are looked at for a change; 0 for
            never, but when a reload is asked for.
        ocsp_responses: Files of staples, DER or PEM.
        ocsp_refresh_interval_seconds: Longest time between two questions about a
            certificate of ours; 0 asks nobody.
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
    What a bearer token must say, besides being authentic.

    Attributes:
        issuer: Required ``iss``; empty accepts any.
        audience: Required in ``aud``; empty refuses tokens that name an audience.
        leeway_seconds: How far the issuer's clock may be off.
        max_lifetime_seconds: Longest time from ``iat`` (or now) to ``exp``.
    """

    issuer: str = ""
    audience: str = ""
    leeway_seconds: Annotated[int, Meta(ge=0, le=300)] = 60
    max_lifetime_seconds: Annotated[int, Meta(ge=1)] = 24 * 3600


class TokenConfig(Record, frozen=True, kw_only=True):
    """
    The keys that tokens are verified with: a file of them, or where to fetch them.

    Attributes:
        path: YAML or JSON; None where there is one secret.
        reload_seconds: How often it is looked at for a change, and keys are fetched.
        key_set_url: Where public keys are fetched from as a JWK Set; empty for nowhere.
        key_set_authorities: PEM file of those who may have signed that server's
            certificate; None takes those that the system trusts.
        has_no_keys: Whether there is nothing of all that, nor a secret: then every
            token is refused.
    """

    path: Path | None = None
    reload_seconds: Annotated[float, Meta(gt=0)] = 30.0
    key_set_url: str = ""
    key_set_authorities: Path | None = None
    has_no_keys: bool = False


class OIDCSettings(Record, frozen=True, kw_only=True):
    """
    A provider by which people sign in to the console.

    Attributes:
        issuer: Names it: an ``https`` URL, under which its metadata are found.
        client_id: What it knows this server as; ID tokens must be meant for it.
        redirect_uri: Where it sends people back to, as it was told.
        client_secret_file: Holds what this server shows to it; None where PKCE is
            enough.
        ca_bundle: PEM file of those who may have signed its certificate; None takes
            those that the web trusts.
        jwks_file: Its keys (RFC 7517); None has them fetched from where its metadata
            say.
        title: What people call it.
        scopes: What is asked for; ``openid`` is among them.
        principal_claim: Where an ID token says who somebody is.
        roles_claim: Where it says what they may be; dots lead into objects.
        roles: Roles by what stands there; what is not here means nothing.
        leeway_seconds: How far its clock may be off.
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
    What one request may cost.

    Attributes:
        json_bytes: Largest JSON body.
        payload_bytes: Largest byte string inside a JSON body, after decoding.
        raw_bytes: Largest ``application/octet-stream`` body.
        aad_bytes: Largest additional authenticated data.
        line_bytes: Longest request line; a query may hold 64 KiB of additional data in
            base64 with every character escaped.
        header_bytes: Longest header field.
        max_connections: Connections at one time; fewer if descriptors are scarce.
        max_connections_per_address: Of these, how many one network address may have.
        handshake_timeout_seconds: How long a TLS handshake may take.
        head_timeout_seconds: How long the head of a request may take to arrive.
        body_timeout_seconds: How long a body may take to arrive.
        keepalive_seconds: How long an idle connection stays open.
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
    How much one caller, or one network address, may ask for.

    Attributes:
        per_second: What a caller gets each second, in quick operations; 0 for no limit.
        burst: What a caller may spend at once.
        address_per_second: Requests of one address each second, of those who were not
            found good a moment ago; 0 for no limit.
        address_burst: How many of these may come at once.
        free_failures: Failed authentications of one address before it is locked out;
            0 locks nobody out.
    """

    per_second: Annotated[float, Meta(ge=0)] = 0.0
    burst: Annotated[int, Meta(ge=1)] = 200
    address_per_second: Annotated[float, Meta(ge=0)] = 0.0
    address_burst: Annotated[int, Meta(ge=1)] = 200
    free_failures: Annotated[int, Meta(ge=0)] = 0


class ProxySettings(Record, frozen=True, kw_only=True):
    """
    Who is believed when they say for whom they ask.

    Attributes:
        networks: Networks of trusted proxies, as text; without any, nobody is.
        header: The one header field that these set; others are not looked at.
    """

    networks: tuple[str, ...] = ()
    header: ProxyHeader = ProxyHeader.X_FORWARDED_FOR


class MetricsSettings(Record, frozen=True, kw_only=True):
    """
    Who may read ``/metrics``, and where.

    Attributes:
        address: Host and port of a listener of its own, without TLS, on loopback; None
            shows the page where everything else is.
        token_sha256: SHA-256 of the bearer token that is asked for, hex; empty asks
            for none. The token is long enough for nobody to find it by its hash.
    """

    address: tuple[str, int] | None = None
    token_sha256: str = ""


class ConsoleSettings(Record, frozen=True, kw_only=True):
    """
    The web console.

    Attributes:
        is_on: Whether it is served.
        idle_seconds: After how long without use a session ends.
        absolute_seconds: After how long it ends however much it is used.
    """

    is_on: bool = True
    idle_seconds: Annotated[float, Meta(gt=0)] = 15 * 60.0
    absolute_seconds: Annotated[float, Meta(gt=0)] = 8 * 3600.0


SAMPLERS: Final = (
    *("always_on", "always_off", "traceidratio"),
    *("parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"),
)
"""Names of rules by which requests have spans (OpenTelemetry's own)."""


class TracingSettings(Record, frozen=True, kw_only=True):
    """
    Where spans of requests are sent.

    Attributes:
        endpoint: URL that takes OTLP over HTTP; empty sends none.
        service_name: What this service is called.
        attributes: What else is said of it, by name.
        sampler: One of `SAMPLERS`.
        ratio: How many of all requests have one, where the sampler asks.
        certificate: PEM file of those who may have signed the endpoint's certificate;
            None takes those that the web trusts.
    """

    endpoint: str = ""
    service_name: str = "hsm-server"
    attributes: tuple[tuple[str, str], ...] = ()
    sampler: str = "parentbased_always_on"
    ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    certificate: Path | None = None


class ServerSettings(Record, frozen=True, kw_only=True):
    """
    Everything the server needs, except its secrets.

    Attributes:
        port: 0 takes any free one.
        core: Settings of the HSM inside.
        rates: How much one caller may ask for.
        proxies: Whose word about addresses counts.
        workers: Front ends, where keys are in a process of their own.
        event_loop: What they and the vault run on.
        console: The web console.
        drain_timeout_seconds: How long requests in flight may finish at the end.
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
    What the server must keep to itself.

    Attributes:
        master_key: Root of the sealed keys, 32 bytes.
        hmac_key: Key of the audit trail, 32 bytes.
        jwt_secret: HS256 key of bearer tokens, at least 32 bytes; None where a file
            says which keys count.
    """

    master_key: bytes
    hmac_key: bytes
    jwt_secret: bytes | None = None
