# SPDX-License-Identifier: MIT
"""Flags of TLS: certificates of the server and of clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from hsm_core.errors import ConfigurationError
from hsm_server.config.options.acme import acme_options, acme_settings
from hsm_server.config.options.names import environment_name
from hsm_server.config.options.option import ListOption, option
from hsm_server.config.settings import (
    ClientSettings,
    PairFiles,
    StatusCheck,
    TLSSettings,
)

# Who may read it is the front end's user, which this process may not be.
_FILE: Final = click.Path(path_type=Path, readable=False)


def tls_options() -> list[click.Parameter]:
    """Return the flags, in the order of the help."""
    return [
        option(
            "tls-mode",
            "Source of the TLS certificate: 'manual' for files, 'acme' for a CA "
            "that supports ACME. 'acme' accepts the terms of the CA.",
            default="manual",
            type=click.Choice(["manual", "acme"]),
            metavar="MODE",
        ),
        option(
            "tls-allow-1-2",
            "Allow TLS 1.2 for clients without TLS 1.3. Such connections have "
            "no post-quantum protection. Disabled by default; also "
            "--no-tls-allow-1-2.",
            also="--no-tls-allow-1-2",
            default=False,
            show_default=False,
        ),
        *_own_certificate(),
        *acme_options(),
        *_staples(),
        *_client_certificates(),
    ]


def _own_certificate() -> list[click.Parameter]:
    return [
        option(
            "cert",
            "TLS certificate chain, PEM, server certificate first. Required "
            "with --tls-mode manual. Repeatable, for several key types; accepts "
            "comma-separated values.",
            type=_FILE,
            cls=ListOption,
            metavar="FILE",
        ),
        option(
            "key",
            "Private key of the certificate, PEM, readable by its owner only. "
            "One for each --cert, in the same order.",
            type=_FILE,
            cls=ListOption,
            metavar="FILE",
        ),
        option(
            "cert-reload-interval-secs",
            "Interval between checks of certificates and keys for changes, in "
            "seconds; 0 disables them. --client-ca and --client-crl are checked "
            "at least every 30 seconds. SIGHUP checks all files.",
            default=3600,
            type=click.FloatRange(0, 365 * 24 * 3600),
        ),
    ]


def _staples() -> list[click.Parameter]:
    return [
        option(
            "ocsp-response",
            "OCSP response to staple, DER or PEM, checked every minute. While "
            "it is valid, no responder is queried for its certificate. "
            "Repeatable, for several certificates; accepts comma-separated "
            "values.",
            type=_FILE,
            cls=ListOption,
            metavar="FILE",
        ),
        option(
            "ocsp-refresh-interval-secs",
            "Interval between OCSP queries, in seconds. Shorter for responses "
            "valid for less than twice that; 0 disables queries.",
            default=14400,
            type=click.FloatRange(0, 365 * 24 * 3600),
        ),
    ]


def _client_certificates() -> list[click.Parameter]:
    return [
        option(
            "client-ca",
            "CA certificates for client certificates, PEM. Enables mutual TLS.",
            type=_FILE,
            metavar="FILE",
        ),
        option(
            "client-auth",
            "Whether --client-ca makes a client certificate 'required' or 'optional'.",
            default="required",
            type=click.Choice(["required", "optional"]),
            metavar="KIND",
        ),
        option(
            "client-crl",
            "Revocation list of client certificates, PEM or DER. If set, each "
            "issuer needs one. Repeatable; accepts comma-separated values.",
            type=_FILE,
            cls=ListOption,
            metavar="FILE",
        ),
        option(
            "client-ocsp",
            "OCSP checks of client certificates: 'off', 'soft' (accept if no "
            "responder answers), or 'hard' (reject if no responder answers).",
            default=StatusCheck.OFF.value,
            type=click.Choice([kind.value for kind in StatusCheck]),
            metavar="KIND",
        ),
        option(
            "client-cert-identities",
            "Authenticate clients by certificate alone, without a token, as the "
            "identities in the policy. The vault relies on the front end for "
            "the certificate: a compromised front end can impersonate any of "
            "them. Disabled by default; also --no-client-cert-identities.",
            also="--no-client-cert-identities",
            default=False,
            show_default=False,
        ),
    ]


def tls_settings(values: dict[str, Any], folder: Path) -> TLSSettings:
    """
    Return the settings that parsed options stand for.

    Args:
        values: The parsed options.

        folder: Of the keys; what a CA issues is kept there by default.

    Raises:
        ConfigurationError: Flags don't fit together.
    """
    acme = acme_settings(values, folder)
    return TLSSettings(
        pairs=_pairs(values) if acme is None else _no_pairs(values),
        acme=acme,
        client=_client(values),
        allow_tls_1_2=values["tls_allow_1_2"],
        reload_interval_seconds=values["cert_reload_interval_secs"],
        ocsp_responses=values["ocsp_response"],
        ocsp_refresh_interval_seconds=values["ocsp_refresh_interval_secs"],
    )


def _pairs(values: dict[str, Any]) -> tuple[PairFiles, ...]:
    certs, keys = values["cert"], values["key"]
    for flag, given in (("cert", certs), ("key", keys)):
        if not given:
            variable = environment_name(flag)
            raise ConfigurationError(
                f"Missing option '--{flag}' (env var: '{variable}')."
            )
    if len(certs) != len(keys):
        raise ConfigurationError(
            f"--cert is given {len(certs)} times and --key {len(keys)} times. "
            "Pass one --key for each --cert."
        )
    return tuple(
        PairFiles(cert=cert, key=key) for cert, key in zip(certs, keys, strict=True)
    )


def _no_pairs(values: dict[str, Any]) -> tuple[PairFiles, ...]:
    for flag in ("cert", "key"):
        if values[flag]:
            raise ConfigurationError(
                f"--{flag} cannot be combined with --tls-mode acme, because the "
                "CA issues the certificate."
            )
    return ()


def _client(values: dict[str, Any]) -> ClientSettings | None:
    is_required = values["client_auth"] == "required"
    status_check = StatusCheck(values["client_ocsp"])
    if values["client_ca"] is None:
        for flag, is_given in {
            "client-auth optional": not is_required,
            "client-crl": values["client_crl"],
            f"client-ocsp {status_check}": status_check is not StatusCheck.OFF,
            "client-cert-identities": values["client_cert_identities"],
        }.items():
            if is_given:
                raise ConfigurationError(f"--{flag} requires --client-ca.")
        return None
    return ClientSettings(
        ca=values["client_ca"],
        is_required=is_required,
        crls=values["client_crl"],
        status_check=status_check,
    )
