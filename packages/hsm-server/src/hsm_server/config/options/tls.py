# SPDX-License-Identifier: MIT
"""Flags about TLS: what the listener shows, and whom it lets in."""

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
            "Where the certificate comes from: files ('manual'), or a CA that issues "
            "it by itself ('acme'), to whose terms this agrees.",
            default="manual",
            type=click.Choice(["manual", "acme"]),
            metavar="MODE",
        ),
        option(
            "tls-allow-1-2",
            "Speak TLS 1.2 too, with clients that know no better; then neither ML-KEM "
            "nor ML-DSA protects them. TLS 1.3 alone by default, and with "
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
            "Certificate chain, PEM, the server's own certificate first; needed with "
            "--tls-mode manual. May be repeated, for keys of several kinds, or "
            "several with commas between.",
            type=_FILE,
            cls=ListOption,
            metavar="FILE",
        ),
        option(
            "key",
            "Its private key, PEM, readable by its owner alone; one for each --cert, "
            "in the same order.",
            type=_FILE,
            cls=ListOption,
            metavar="FILE",
        ),
        option(
            "cert-reload-interval-secs",
            "How often certificates and keys are looked at for a change, in seconds; "
            "0 for never. --client-ca and --client-crl are every 30 seconds at least. "
            "After SIGHUP they all are.",
            default=3600,
            type=click.FloatRange(0, 365 * 24 * 3600),
        ),
    ]


def _staples() -> list[click.Parameter]:
    return [
        option(
            "ocsp-response",
            "OCSP response to staple, DER or PEM, looked at every minute. While it is "
            "good, nobody is asked about its certificate. May be repeated, for several "
            "certificates, or several with commas between.",
            type=_FILE,
            cls=ListOption,
            metavar="FILE",
        ),
        option(
            "ocsp-refresh-interval-secs",
            "How often the OCSP responder that a certificate names is asked about it, "
            "in seconds, or more often where a response is good for less than twice "
            "that; 0 for never.",
            default=14400,
            type=click.FloatRange(0, 365 * 24 * 3600),
        ),
    ]


def _client_certificates() -> list[click.Parameter]:
    return [
        option(
            "client-ca",
            "Demand client certificates that one of these signed, PEM.",
            type=_FILE,
            metavar="FILE",
        ),
        option(
            "client-auth",
            "Whether a connection without client certificate is refused ('required') "
            "or not ('optional'), where there is a --client-ca.",
            default="required",
            type=click.Choice(["required", "optional"]),
            metavar="KIND",
        ),
        option(
            "client-crl",
            "Revocation list of client certificates, PEM or DER. May be repeated, or "
            "several with commas between; then each issuer needs one.",
            type=_FILE,
            cls=ListOption,
            metavar="FILE",
        ),
        option(
            "client-ocsp",
            "Whether the OCSP responders that client certificates name are asked "
            "('soft', 'hard'), and who is refused of whom they tell nothing ('hard').",
            default=StatusCheck.OFF.value,
            type=click.Choice([kind.value for kind in StatusCheck]),
            metavar="KIND",
        ),
        option(
            "client-cert-identities",
            "Let in with a client certificate alone, without a token, whom the "
            "policy's identities name. Who opens a connection with it, the process "
            "that keeps the keys only has from the front end: one that was taken over "
            "can be any of them. Not by default, nor with "
            "--no-client-cert-identities.",
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
            f"--cert is given {len(certs)} times and --key {len(keys)} times; each "
            "certificate needs its key."
        )
    return tuple(
        PairFiles(cert=cert, key=key) for cert, key in zip(certs, keys, strict=True)
    )


def _no_pairs(values: dict[str, Any]) -> tuple[PairFiles, ...]:
    for flag in ("cert", "key"):
        if values[flag]:
            raise ConfigurationError(
                f"--{flag} is of no use with --tls-mode acme: the CA issues the "
                "certificate."
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
                raise ConfigurationError(f"--{flag} is of no use without --client-ca.")
        return None
    return ClientSettings(
        ca=values["client_ca"],
        is_required=is_required,
        crls=values["client_crl"],
        status_check=status_check,
    )
