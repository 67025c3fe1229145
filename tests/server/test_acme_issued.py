# SPDX-License-Identifier: MIT
"""A CA that issues what can't be shown: nothing of it is, and nothing is lost."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from hsm_server.tls.acme.cache import Stored, first_pair
from tests.pki import CLIENT, SERVER, self_signed_root
from tests.server.acme_hostile import HostileCA
from tests.server.acme_issuer import issue_by
from tests.server.support import until
from tests.server.test_acme_task import World, stored

DAY = timedelta(days=1)
ROOT = self_signed_root("Issuer")
Chain = Sequence[x509.Certificate]


class _Half:
    """Stands for a private key where only its public half is needed."""

    def __init__(self, public: Any) -> None:
        self._public = public

    def public_key(self) -> Any:
        """Return the public half."""
        return self._public


def chain_for(
    key: Any, *, use: Any = SERVER, begin: timedelta = -DAY, end: timedelta = DAY
) -> Chain:
    """Issue for a public key."""
    issued = ROOT.issue("server", use=use, key=_Half(key), begin=begin, end=end)
    return (issued.certificate, *issued.above)


def good(key: Any) -> Chain:
    """Issue what was asked for."""
    return chain_for(key, end=90 * DAY)


def expired(key: Any) -> Chain:
    """Issue one whose time is over."""
    return chain_for(key, begin=-2 * DAY, end=-DAY)


def not_yet_valid(key: Any) -> Chain:
    """Issue one whose time is still to come."""
    return chain_for(key, begin=DAY, end=90 * DAY)


def of_another_key(key: Any) -> Chain:
    """Issue one that others can use."""
    return chain_for(ec.generate_private_key(ec.SECP256R1()).public_key())


def for_clients(key: Any) -> Chain:
    """Issue one that is no server's."""
    return chain_for(key, use=CLIENT)


def of_another_issuer(key: Any) -> Chain:
    """Issue one that is not signed by what follows it."""
    return (chain_for(key)[0], self_signed_root("Other").certificate)


BAD: dict[str, tuple[Callable[[Any], Chain], str]] = {
    "expired": (expired, "expired at"),
    "not yet valid": (not_yet_valid, "is not valid before"),
    "another key": (of_another_key, "for another key"),
    "for clients": (for_clients, "is not a server certificate"),
    "another issuer": (of_another_issuer, "is not a chain"),
}


def leaf_of(certificate: Stored) -> bytes:
    """Return the server's own certificate, DER."""
    return certificate.leaf.public_bytes(Encoding.DER)


async def test_what_is_good_is_shown_and_kept(tmp_path: Path, ca: HostileCA) -> None:
    """The CA of these tests can do it right, too."""
    issue_by(ca, good)
    world = World(tmp_path, ca)
    async with world.running():
        await until(lambda: world.published)
    kept = world.cache.certificate()

    assert kept is not None
    assert leaf_of(kept) == world.published[-1].pairs[0].chain[0]
    assert {} == world.alarms.reasons


@pytest.mark.parametrize("name", BAD)
async def test_what_is_bad_is_never_shown(
    tmp_path: Path, ca: HostileCA, name: str
) -> None:
    """The placeholder stays, an alarm says why, and the CA is left alone a while."""
    issue, text = BAD[name]
    issue_by(ca, issue)
    world = World(tmp_path, ca)
    before = world.active.state
    async with world.running():
        reason = await world.alarmed()
        await asyncio.sleep(0.1)
    again = first_pair(world.settings, datetime.now(UTC))
    shown = x509.load_der_x509_certificate(again.chain[0])

    assert text in reason
    assert [] == world.published
    assert before == world.active.state
    assert shown.issuer == shown.subject
    assert 1 == ca.seen.count("POST /newOrder")


@pytest.mark.parametrize("name", ["expired", "not yet valid", "another key"])
async def test_what_is_bad_displaces_nothing(
    tmp_path: Path, ca: HostileCA, name: str
) -> None:
    """At a renewal, what is still good is shown on, after a restart as well."""
    issue, text = BAD[name]
    issue_by(ca, issue)
    due = stored(age=80 * DAY)
    World(tmp_path, ca).cache.keep_certificate(due)
    world = World(tmp_path, ca)
    async with world.running():
        reason = await world.alarmed()
    again = World(tmp_path, ca)

    assert text in reason
    assert [] == world.published
    assert leaf_of(due) == world.active.state.pairs[0].chain[0]
    assert leaf_of(due) == again.active.state.pairs[0].chain[0]


async def test_what_is_not_valid_yet_is_kept_where_there_is_no_other(
    tmp_path: Path, ca: HostileCA
) -> None:
    """The clock may be behind the CA's, and a CA counts orders."""
    issue_by(ca, not_yet_valid)
    world = World(tmp_path, ca)
    world.cache.keep_certificate(stored(age=91 * DAY))
    async with world.running():
        await world.alarmed()
    kept = world.cache.certificate()

    assert [] == world.published
    assert kept is not None
    assert datetime.now(UTC) < kept.leaf.not_valid_before_utc
