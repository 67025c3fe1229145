# SPDX-License-Identifier: MIT
"""Flags about how much somebody may ask for, and from where it comes."""

from __future__ import annotations

import ipaddress
from typing import Any

import click

from hsm_server.config.options.option import ListOption, option
from hsm_server.config.settings import ProxyHeader, ProxySettings, RateLimits


def rate_options() -> list[click.Parameter]:
    """Return the flags, in the order of the help."""
    return [*_callers(), *_addresses(), *_proxies()]


def _callers() -> list[click.Parameter]:
    return [
        option(
            "rate-limit-per-second",
            "What one caller gets each second: a quick operation costs 1, a change or "
            "an RSA signature 4, a slow one 50, a batch the sum of its items. 0 for no "
            "limit.",
            default=100.0,
            type=click.FloatRange(0),
        ),
        option(
            "rate-limit-burst",
            "What one caller may spend at once.",
            default=200,
            type=click.IntRange(1),
        ),
    ]


def _addresses() -> list[click.Parameter]:
    return [
        option(
            "address-limit-per-second",
            "Requests of one network address each second, of those whose credential "
            "was not good within the last minute; looked at before anything else. 0 "
            "for no limit.",
            default=100.0,
            type=click.FloatRange(0),
        ),
        option(
            "address-limit-burst",
            "How many of these may come at once.",
            default=200,
            type=click.IntRange(1),
        ),
        option(
            "lockout-after",
            "Failed authentications of one address after which it must wait 1, 2, 4, "
            "up to 60 seconds; credentials that were good within the last minute go "
            "on. 0 locks nobody out.",
            default=20,
            type=click.IntRange(0),
        ),
    ]


def _proxies() -> list[click.Parameter]:
    return [
        option(
            "trusted-proxy",
            "Network of proxies that are believed when they say for whom they ask. May "
            "be repeated, or several with commas between. Without it nobody is.",
            cls=ListOption,
            callback=_parse_networks,
            metavar="CIDR",
        ),
        option(
            "trusted-proxy-header",
            "The header field in which they say it; no other is looked at.",
            default=ProxyHeader.X_FORWARDED_FOR.value,
            type=click.Choice([header.value for header in ProxyHeader]),
            metavar="NAME",
        ),
    ]


def _parse_networks(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(text)) for text in value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


def rate_limits(values: dict[str, Any]) -> RateLimits:
    """Return how much somebody may ask for."""
    return RateLimits(
        per_second=values["rate_limit_per_second"],
        burst=values["rate_limit_burst"],
        address_per_second=values["address_limit_per_second"],
        address_burst=values["address_limit_burst"],
        free_failures=values["lockout_after"],
    )


def proxy_settings(values: dict[str, Any]) -> ProxySettings:
    """Return whose word about addresses counts."""
    return ProxySettings(
        networks=values["trusted_proxy"],
        header=ProxyHeader(values["trusted_proxy_header"]),
    )
