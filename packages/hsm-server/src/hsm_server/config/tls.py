# SPDX-License-Identifier: MIT
"""Settings of TLS: certificates of the server and of clients, and their checks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from hsm_core.errors import ConfigurationError
from hsm_core.model import Record
from hsm_server.config.annotations import (
    Address,
    Setting,
    build,
    parse_address,
    settings_in,
    split_url,
)

ACME_PRODUCTION: Final = "https://acme-v02.api.letsencrypt.org/directory"
ACME_STAGING: Final = "https://acme-staging-v02.api.letsencrypt.org/directory"

_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_MOST_CHARACTERS: Final = 253
_MOST_NAMES: Final = 100
_LONGEST_CONTACT: Final = 256


class TLSMode(StrEnum):
    """Source of the listener's certificate."""

    MANUAL = "manual"
    ACME = "acme"


class StatusCheck(StrEnum):
    """
    OCSP checks of client certificates.

    *soft* accepts clients if no responder answers, *hard* rejects them.
    """

    OFF = "off"
    SOFT = "soft"
    HARD = "hard"


class CertificateSettings(Record, frozen=True, kw_only=True):
    """Source of the listener's certificates; files are lists of the same length."""

    mode: Annotated[
        TLSMode,
        Setting(
            "tls-mode",
            "Source of the TLS certificate: 'manual' for files, 'acme' for a CA "
            "that supports ACME. 'acme' accepts the terms of the CA.",
            metavar="MODE",
        ),
    ] = TLSMode.MANUAL

    certs: Annotated[
        tuple[Path, ...],
        Setting(
            "cert",
            "TLS certificate chain, PEM, server certificate first. Required "
            "with --tls-mode manual. Repeatable, for several key types; accepts "
            "comma-separated values.",
            is_read_here=False,
        ),
    ] = ()
    keys: Annotated[
        tuple[Path, ...],
        Setting(
            "key",
            "Private key of the certificate, PEM, readable by its owner only. "
            "One for each --cert, in the same order.",
            is_read_here=False,
        ),
    ] = ()


class PairFiles(Record, frozen=True, kw_only=True):
    """
    PEM files of a certificate of the listener.

    Attributes:
        cert: Certificate chain, server certificate first.
        key: Its private key, unencrypted, readable by its owner only.
    """

    cert: Path
    key: Path


class ACMESettings(Record, frozen=True, kw_only=True):
    """
    Automatic issuance of the listener's certificate.

    Standard:
        RFC 8555; RFC 8737 and RFC 8738.
    """

    names: Annotated[
        tuple[str, ...],
        Meta(min_length=1, max_length=100),
        Setting(
            "acme-domain",
            "DNS name or IP address for the certificate. Required with "
            "--tls-mode acme. Repeatable; accepts comma-separated values.",
            metavar="NAME",
            default=None,
        ),
    ]
    contacts: Annotated[
        tuple[str, ...],
        Setting(
            "acme-contact",
            "Contact email address for the CA, with or without 'mailto:'. "
            "Repeatable; accepts comma-separated values.",
            metavar="MAIL",
        ),
    ] = ()
    cache: Annotated[
        Path,
        Setting(
            "acme-cache-dir",
            "Directory for the ACME account and certificate. Created if "
            "missing.  [default: acme beside the keys]",
            metavar="DIR",
            default=None,
        ),
    ] = Path("data/acme")
    directory_url: Annotated[
        str | None,
        Setting(
            "acme-directory-url",
            "ACME directory URL of another CA. Overrides --acme-use-production.",
            metavar="URL",
        ),
    ] = None
    is_production: Annotated[
        bool,
        Setting(
            "acme-use-production",
            "Use Let's Encrypt's production service. Default: its staging "
            "service, whose certificates clients do not trust.",
            is_negatable=False,
        ),
    ] = False
    authorities: Annotated[
        Path | None,
        Setting(
            "acme-ca-bundle",
            "CA certificates that verify the ACME server, PEM. Default: public "
            "web CAs.",
            is_read_here=False,
        ),
    ] = None
    http_address: Annotated[
        Address | None,
        Setting(
            "acme-http-bind",
            "Address for HTTP-01 challenges. The CA must reach it at port 80. "
            "Default: TLS-ALPN-01 on --bind, which the CA must reach at port "
            "443.",
            metavar="HOST:PORT",
            parse=parse_address,
        ),
    ] = None

    @property
    def directory(self) -> str:
        """Directory URL of the CA."""
        default = ACME_PRODUCTION if self.is_production else ACME_STAGING
        return self.directory_url or default


class ClientSettings(Record, frozen=True, kw_only=True):
    """Client certificates."""

    ca: Annotated[
        Path,
        Setting(
            "client-ca",
            "CA certificates for client certificates, PEM. Enables mutual TLS.",
            default=None,
            is_read_here=False,
        ),
    ]
    is_required: Annotated[
        bool,
        Setting(
            "client-auth",
            "Client certificates with --client-ca: 'required' or 'optional'.",
            metavar="KIND",
            texts={"required": True, "optional": False},
        ),
    ] = True
    crls: Annotated[
        tuple[Path, ...],
        Setting(
            "client-crl",
            "Revocation list of client certificates, PEM or DER. If set, each "
            "issuer needs one. Repeatable; accepts comma-separated values.",
            is_read_here=False,
        ),
    ] = ()
    status_check: Annotated[
        StatusCheck,
        Setting(
            "client-ocsp",
            "OCSP checks of client certificates: 'off', 'soft' (accept if no "
            "responder answers), or 'hard' (reject if no responder answers).",
            metavar="KIND",
        ),
    ] = StatusCheck.OFF
    has_identities: Annotated[
        bool,
        Setting(
            "client-cert-identities",
            "Authenticate clients by certificate alone, without a token, as the "
            "identities in the policy. The vault relies on the front end for "
            "the certificate: a compromised front end can impersonate any of "
            "them. Disabled by default; also --no-client-cert-identities.",
        ),
    ] = False


class TLSSettings(Record, frozen=True, kw_only=True):
    """
    TLS of the listener.

    Attributes:
        pairs: Certificates, at most one per key type; empty with ACME.
        acme: Issuance by a CA instead.
        client: Client certificates; None requests none.
    """

    allow_tls_1_2: Annotated[
        bool,
        Setting(
            "tls-allow-1-2",
            "Allow TLS 1.2 for clients without TLS 1.3. Such connections have "
            "no post-quantum protection. Disabled by default; also "
            "--no-tls-allow-1-2.",
        ),
    ] = False
    reload_interval_seconds: Annotated[
        float,
        Meta(ge=0, le=365 * 24 * 3600),
        Setting(
            "cert-reload-interval-secs",
            "Interval between checks of certificates and keys for changes, in "
            "seconds; 0 disables them. --client-ca and --client-crl are checked "
            "at least every 30 seconds. SIGHUP checks all files.",
        ),
    ] = 3600.0
    ca_key: Annotated[
        Path | None,
        Setting(
            "cert-ca-key",
            "Private key of the private CA that issued --cert, PEM, mode 0600. "
            "The server renews the certificate when a third of its lifetime "
            "remains. --cert and --key must be one file, with the key, the "
            "certificate and the CA certificate.",
            is_read_here=False,
        ),
    ] = None
    ocsp_responses: Annotated[
        tuple[Path, ...],
        Setting(
            "ocsp-response",
            "OCSP response to staple, DER or PEM, checked every minute. While "
            "it is valid, no responder is queried for its certificate. "
            "Repeatable, for several certificates; accepts comma-separated "
            "values.",
            is_read_here=False,
        ),
    ] = ()
    ocsp_refresh_interval_seconds: Annotated[
        float,
        Meta(ge=0, le=365 * 24 * 3600),
        Setting(
            "ocsp-refresh-interval-secs",
            "Interval between OCSP queries, in seconds. Shorter for responses "
            "valid for less than twice that; 0 disables queries.",
        ),
    ] = 14400.0
    pairs: tuple[PairFiles, ...]
    acme: ACMESettings | None = None
    client: ClientSettings | None = None


def tls_settings(values: Mapping[str, Any], folder: Path) -> TLSSettings:
    """
    Return the settings that parsed values stand for.

    Args:
        values: Parsed values.

        folder: Folder of the keys, the default location of ACME files.

    Raises:
        ConfigurationError: Settings don't fit together.
    """
    files = build(CertificateSettings, values)
    acme = _acme(values, folder) if files.mode is TLSMode.ACME else None
    if acme is None:
        _refuse_acme(values)
    found = build(
        TLSSettings,
        values,
        pairs=_pairs(files) if acme is None else _no_pairs(files),
        acme=acme,
        client=_client(values),
    )
    _check_renewal(found)
    return found


def _check_renewal(settings: TLSSettings) -> None:
    if settings.ca_key is None:
        return
    if settings.acme is not None:
        raise ConfigurationError(
            "--cert-ca-key can't be used with --tls-mode acme, because the CA "
            "issues the certificate."
        )
    if len(settings.pairs) != 1 or settings.pairs[0].cert != settings.pairs[0].key:
        raise ConfigurationError(
            "--cert-ca-key requires one --cert, and the same file as --key: key and "
            "certificate are renewed together."
        )


def _pairs(files: CertificateSettings) -> tuple[PairFiles, ...]:
    settings = settings_in(CertificateSettings)
    for setting, found in (
        (settings["certs"], files.certs),
        (settings["keys"], files.keys),
    ):
        if not found:
            raise ConfigurationError(
                f"Missing option '--{setting.flag}' (env var: '{setting.variable}')."
            )
    if len(files.certs) != len(files.keys):
        raise ConfigurationError(
            f"--cert is given {len(files.certs)} times and --key {len(files.keys)} "
            "times. Pass one --key for each --cert."
        )
    return tuple(
        PairFiles(cert=cert, key=key)
        for cert, key in zip(files.certs, files.keys, strict=True)
    )


def _no_pairs(files: CertificateSettings) -> tuple[PairFiles, ...]:
    for flag, found in (("cert", files.certs), ("key", files.keys)):
        if found:
            raise ConfigurationError(
                f"--{flag} can't be used with --tls-mode acme, because the "
                "CA issues the certificate."
            )
    return ()


def _client(values: Mapping[str, Any]) -> ClientSettings | None:
    if values["client_ca"] is not None:
        return build(ClientSettings, values)
    # Without CAs, none of the others has a use.
    other = build(ClientSettings, values, ca=Path())
    for flag, is_given in {
        "client-auth optional": not other.is_required,
        "client-crl": other.crls,
        f"client-ocsp {other.status_check}": other.status_check is not StatusCheck.OFF,
        "client-cert-identities": other.has_identities,
    }.items():
        if is_given:
            raise ConfigurationError(f"--{flag} requires --client-ca.")
    return None


def _acme(values: Mapping[str, Any], folder: Path) -> ACMESettings:
    """
    Return the settings of ACME in their usual form.

    Raises:
        ConfigurationError: A value is not what it should be.
    """
    found = build(ACMESettings, values)
    if found.directory_url is not None:
        _check_directory(found.directory_url)
    return msgspec.structs.replace(
        found,
        names=_names(found.names),
        contacts=tuple(map(_contact, found.contacts)),
        cache=values["acme_cache_dir"] or folder / "acme",
    )


def _refuse_acme(values: Mapping[str, Any]) -> None:
    for name, setting in settings_in(ACMESettings).items():
        # A directory may be configured for both modes.
        if values[setting.name] and name != "cache":
            raise ConfigurationError(f"--{setting.flag} requires --tls-mode acme.")


def _names(texts: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(map(_name, texts)))
    if not names:
        raise ConfigurationError("--tls-mode acme requires --acme-domain.")
    if len(names) > _MOST_NAMES:
        raise ConfigurationError(
            f"--acme-domain accepts at most {_MOST_NAMES} names, got {len(names)}."
        )
    return names


def _name(text: str) -> str:
    """Return a name or an address in its usual form."""
    if "*" in text:
        raise ConfigurationError(
            f"--acme-domain {text}: wildcard names are not supported, because "
            "they require DNS challenges."
        )
    try:
        return parse_host(text)
    except ValueError as error:
        raise ConfigurationError(f"--acme-domain {text!r} {error}") from None


def parse_host(text: str) -> str:
    """
    Return a DNS name or an IP address in its usual form.

    Raises:
        ValueError: It is neither.
    """
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    name = text.lower().removesuffix(".")
    if len(name) > _MOST_CHARACTERS or not all(map(_LABEL.match, name.split("."))):
        raise ValueError(
            "must be an IP address or a DNS name. Pass internationalized names as "
            "A-labels (xn--…)."
        )
    return name


def _contact(text: str) -> str:
    address = text.removeprefix("mailto:")
    if not address.isascii() or not 3 <= len(address) <= _LONGEST_CONTACT:
        address = ""
    user, _, host = address.partition("@")
    if not user or not host or re.search(r"[\s@?#]", host):
        raise ConfigurationError(
            f"--acme-contact {text!r} is not a valid email address."
        )
    return f"mailto:{address}"


def _check_directory(url: str) -> None:
    parts = split_url(url)
    if parts is None or parts.scheme != "https" or not parts.hostname:
        raise ConfigurationError(
            f"--acme-directory-url {url!r} must be an https:// URL."
        )
