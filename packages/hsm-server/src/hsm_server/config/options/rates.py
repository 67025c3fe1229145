# SPDX-License-Identifier: MIT
"""Flags of rate limits and trusted proxies."""

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
            "Rate limit per caller, in units per second: a fast operation costs "
            "1, a change or an RSA signature 4, a slow operation 50, a batch "
            "the sum of its items. 0 disables the limit.",
            default=100.0,
            type=click.FloatRange(0),
        ),
        option(
            "rate-limit-burst",
            "Burst per caller, in units.",
            default=200,
            type=click.IntRange(1),
        ),
    ]


def _addresses() -> list[click.Parameter]:
    return [
        option(
            "address-limit-per-second",
            "Rate limit per network address, in requests per second. Clients "
            "that authenticated within the last minute are exempt. Checked "
            "before authentication. 0 disables the limit.",
            default=100.0,
            type=click.FloatRange(0),
        ),
        option(
            "address-limit-burst",
            "Burst per network address, in requests.",
            default=200,
            type=click.IntRange(1),
        ),
        option(
            "lockout-after",
            "Failed authentications of an address before a lockout of 1, 2, 4, "
            "up to 60 seconds. Credentials accepted within the last minute are "
            "exempt. 0 disables lockouts.",
            default=20,
            type=click.IntRange(0),
        ),
    ]


def _proxies() -> list[click.Parameter]:
    return [
        option(
            "trusted-proxy",
            "Trusted proxy network (CIDR): its forwarded client addresses are "
            "accepted. Repeatable; accepts comma-separated values. Default: "
            "none.",
            cls=ListOption,
            callback=_parse_networks,
            metavar="CIDR",
        ),
        option(
            "trusted-proxy-header",
            "Header that holds the forwarded client address. Others are ignored.",
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
    """Return the rate limits."""
    return RateLimits(
        per_second=values["rate_limit_per_second"],
        burst=values["rate_limit_burst"],
        address_per_second=values["address_limit_per_second"],
        address_burst=values["address_limit_burst"],
        free_failures=values["lockout_after"],
    )


def proxy_settings(values: dict[str, Any]) -> ProxySettings:
    """Return the trusted proxies."""
    return ProxySettings(
        networks=values["trusted_proxy"],
        header=ProxyHeader(values["trusted_proxy_header"]),
    )
