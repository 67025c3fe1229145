# SPDX-License-Identifier: MIT
"""Flags about a CA: what they mean, and what is refused."""

from pathlib import Path
from typing import Any

import click
import pytest

from hsm_core.errors import ConfigurationError
from hsm_server.config.options import options
from hsm_server.config.plan import Plan, pack_plan, read_plan
from hsm_server.config.settings import ServerSettings
from hsm_server.config.tls import (
    ACME_PRODUCTION,
    ACMESettings,
    TLSSettings,
    tls_settings,
)

SECRETS = ("--master-key", "@root.key", "--hmac-key", "@audit.key")
ACME = ("--tls-mode", "acme", "--acme-domain", "hsm.example.com")


def parsed(*arguments: str) -> TLSSettings:
    """Return the settings that flags stand for."""
    command = click.Command("test", params=options())
    context = command.make_context("test", [*SECRETS, *arguments])
    return tls_settings(context.params, Path("data"))


def acme(*arguments: str) -> ACMESettings:
    """Return what they say about a CA."""
    found = parsed(*ACME, *arguments).acme
    assert found is not None
    return found


def test_the_rest_has_defaults() -> None:
    """A certificate for trials, and no port but the listener's."""
    settings = parsed(*ACME)

    assert () == settings.pairs
    assert (
        ACMESettings(names=("hsm.example.com",), cache=Path("data/acme"))
        == settings.acme
    )


def test_names_are_repeated_or_stand_with_commas() -> None:
    """In their usual form, each once."""
    found = acme(
        "--acme-domain", "A.Example., b.example,::0001", "--acme-domain", "b.example"
    )

    assert ("hsm.example.com", "a.example", "b.example", "::1") == found.names


def test_contacts_are_addresses_of_mail() -> None:
    """With or without the scheme."""
    found = acme("--acme-contact", "a@example.com,mailto:b@example.com")

    assert ("mailto:a@example.com", "mailto:b@example.com") == found.contacts


def test_which_ca() -> None:
    """A directory comes before the service of Let's Encrypt."""
    other = "https://ca.example/dir"

    assert ACME_PRODUCTION == acme("--acme-use-production").directory
    assert other == acme("--acme-directory-url", other).directory
    assert (
        other == acme("--acme-use-production", "--acme-directory-url", other).directory
    )


def test_challenges_over_http_have_an_address() -> None:
    """Which all processes are told."""
    found = parsed(*ACME, "--acme-http-bind", "[::]:80")
    plan = Plan(settings=ServerSettings(tls=found), url="")

    assert found.acme is not None
    assert ("::", 80) == found.acme.http_address
    assert plan == read_plan(pack_plan(plan))
    assert plan.has_challenge_socket
    assert not Plan(
        settings=ServerSettings(tls=parsed(*ACME)), url=""
    ).has_challenge_socket


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no name": (("--tls-mode", "acme"), "requires --acme-domain"),
    "a wildcard": (
        (*ACME, "--acme-domain", "*.example.com"),
        "wildcard names are not supported",
    ),
    "no name at all": (
        (*ACME, "--acme-domain", "a b"),
        "must be an IP address or a DNS name",
    ),
    "other letters": ((*ACME, "--acme-domain", "bücher.example"), "xn--"),
    "a label of hyphens": (
        (*ACME, "--acme-domain", "-a.example"),
        "must be an IP address or a DNS name",
    ),
    "an empty label": (
        (*ACME, "--acme-domain", "a..example"),
        "must be an IP address or a DNS name",
    ),
    "too long a name": (
        (*ACME, "--acme-domain", "a." * 127 + "a"),
        "must be an IP address or a DNS name",
    ),
    "too many names": (
        (*ACME, "--acme-domain", ",".join(f"n{n}.example" for n in range(100))),
        "got 101",
    ),
    "no mail": ((*ACME, "--acme-contact", "https://a"), "not a valid email address"),
    "mail with more": (
        (*ACME, "--acme-contact", "a@b?c=d"),
        "not a valid email address",
    ),
    "no https": ((*ACME, "--acme-directory-url", "http://ca/"), "https://"),
    "no URL": ((*ACME, "--acme-directory-url", "https://["), "https://"),
    "a file": ((*ACME, "--cert", "cert.pem"), "--cert can't be used with"),
    "a key": ((*ACME, "--key", "key.pem"), "--key can't be used with"),
    "names without the mode": (
        ("--cert", "c", "--key", "k", "--acme-domain", "a.example"),
        "--acme-domain requires",
    ),
    "a CA without the mode": (
        ("--cert", "c", "--key", "k", "--acme-use-production"),
        "--acme-use-production requires",
    ),
    "no certificate": ((), "Missing option '--cert'"),
    "no key": (("--cert", "c"), "Missing option '--key'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_sense_is_refused(name: str) -> None:
    """One message, which names the flag."""
    arguments, text = REFUSED[name]

    with pytest.raises(ConfigurationError) as caught:
        parsed(*arguments)

    assert text in str(caught.value)
    assert "--" in str(caught.value)


@pytest.mark.parametrize("address", ["80", "a:b", ":80", "a:99999"])
def test_another_address_is_refused(address: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(click.BadParameter, match="HOST:PORT"):
        parsed(*ACME, "--acme-http-bind", address)


def test_variables_hold_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """With commas between them, as on the command line."""
    monkeypatch.setenv("FERROHSM_ACME_DOMAIN", "a.example,b.example")
    values: dict[str, Any] = (
        click.Command("test", params=options())
        .make_context("test", [*SECRETS, "--tls-mode", "acme"])
        .params
    )
    found = tls_settings(values, Path("data")).acme

    assert found is not None
    assert ("a.example", "b.example") == found.names
