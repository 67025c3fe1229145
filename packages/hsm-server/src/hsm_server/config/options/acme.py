# SPDX-License-Identifier: MIT
"""Flags of ACME: automatic issuance of the TLS certificate."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from hsm_core.errors import ConfigurationError
from hsm_server.config.options.addresses import parse_address
from hsm_server.config.options.option import ListOption, option
from hsm_server.config.settings import ACMESettings

PRODUCTION: Final = "https://acme-v02.api.letsencrypt.org/directory"
STAGING: Final = "https://acme-staging-v02.api.letsencrypt.org/directory"

_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_MOST_CHARACTERS: Final = 253
_MOST_NAMES: Final = 100
_LONGEST_CONTACT: Final = 256


def acme_options() -> list[click.Parameter]:
    """Return the flags, in the order of the help."""
    return [
        option(
            "acme-domain",
            "DNS name or IP address for the certificate. Required with "
            "--tls-mode acme. Repeatable; accepts comma-separated values.",
            cls=ListOption,
            metavar="NAME",
        ),
        option(
            "acme-contact",
            "Contact email address for the CA, with or without 'mailto:'. "
            "Repeatable; accepts comma-separated values.",
            cls=ListOption,
            metavar="MAIL",
        ),
        option(
            "acme-cache-dir",
            "Directory for the ACME account and certificate. Created if "
            "missing.  [default: acme beside the keys]",
            type=click.Path(path_type=Path),
            metavar="DIR",
        ),
        *_authority(),
        option(
            "acme-http-bind",
            "Address for HTTP-01 challenges. The CA must reach it at port 80. "
            "Default: TLS-ALPN-01 on --bind, which the CA must reach at port "
            "443.",
            callback=_parse_bind,
            metavar="HOST:PORT",
        ),
    ]


def _authority() -> list[click.Parameter]:
    return [
        option(
            "acme-directory-url",
            "ACME directory URL of another CA. Overrides --acme-use-production.",
            metavar="URL",
        ),
        option(
            "acme-use-production",
            "Use Let's Encrypt's production service. Default: its staging "
            "service, whose certificates clients do not trust.",
            is_flag=True,
        ),
        option(
            "acme-ca-bundle",
            "CA certificates that verify the ACME server, PEM. Default: public "
            "web CAs.",
            type=click.Path(path_type=Path, readable=False),
            metavar="FILE",
        ),
    ]


def acme_settings(values: dict[str, Any], folder: Path) -> ACMESettings | None:
    """
    Return the settings that parsed options stand for, with ``--tls-mode acme``.

    Args:
        values: The parsed options.

        folder: Where account and certificate are kept by default.

    Raises:
        ConfigurationError: A value is not what it should be, or has no use.
    """
    if values["tls_mode"] != "acme":
        _refuse_useless(values)
        return None
    return ACMESettings(
        names=_names(values["acme_domain"]),
        contacts=tuple(map(_contact, values["acme_contact"])),
        cache=values["acme_cache_dir"] or folder / "acme",
        directory=_directory(values),
        authorities=values["acme_ca_bundle"],
        http_address=values["acme_http_bind"],
    )


def _refuse_useless(values: dict[str, Any]) -> None:
    for flag in (
        "acme-domain",
        "acme-contact",
        "acme-directory-url",
        "acme-use-production",
        "acme-ca-bundle",
        "acme-http-bind",
    ):
        if values[flag.replace("-", "_")]:
            raise ConfigurationError(f"--{flag} requires --tls-mode acme.")


def _names(given: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(map(_name, given)))
    if not names:
        raise ConfigurationError("--tls-mode acme requires --acme-domain.")
    if len(names) > _MOST_NAMES:
        raise ConfigurationError(
            f"--acme-domain accepts at most {_MOST_NAMES} names, got {len(names)}."
        )
    return names


def _name(text: str) -> str:
    """Return a name or an address in its usual form."""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    name = text.lower().removesuffix(".")
    if "*" in name:
        raise ConfigurationError(
            f"--acme-domain {text}: wildcard names are not supported, because "
            "they require DNS challenges."
        )
    if len(name) > _MOST_CHARACTERS or not all(map(_LABEL.match, name.split("."))):
        raise ConfigurationError(
            f"--acme-domain {text!r} must be an IP address or a DNS name. Pass "
            "internationalized names as A-labels (xn--…)."
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


def _directory(values: dict[str, Any]) -> str:
    url: str | None = values["acme_directory_url"]
    if url is None:
        return PRODUCTION if values["acme_use_production"] else STAGING
    try:
        parts = urlsplit(url)
        is_good = parts.scheme == "https" and bool(parts.hostname)
    except ValueError:
        is_good = False
    if not is_good:
        raise ConfigurationError(
            f"--acme-directory-url {url!r} must be an https:// URL."
        )
    return url


def _parse_bind(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    return None if value is None else parse_address(value)
