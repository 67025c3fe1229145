# SPDX-License-Identifier: MIT
"""Sixteen connections that use a key, in the middle of which that comes to an end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.core.race_support import OPEN, SHUT, THREADS, Crowd, Refused, Seen, Work
from tests.server.family import wait_until
from tests.server.race_site import (
    USERS,
    Connection,
    RaceSite,
    new_address,
    race_site,
    token_of,
)
from tests.server.token_kit import signer

TRIALS = int(os.environ.get("FERROHSM_RACES", "1"))
KINDS = ("filesystem", "sqlite") if TRIALS > 1 else ("filesystem",)
CHANGES = {"revoke": "RevokeKey", "suspend": "SuspendKey"}
numbers = count()


@pytest.fixture(scope="module", params=KINDS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RaceSite]:
    """Give a server, once for each kind of store."""
    with race_site(tmp_path_factory.mktemp("races"), request.param) as running:
        yield running


@contextlib.contextmanager
def crowd_of(
    site: RaceSite, token: str = "", shown: tuple[Path, Path] | None = None
) -> Iterator[list[Connection]]:
    """Give sixteen connections from a new address."""
    address = new_address()
    token = token or token_of(signer(USERS))
    lines = [site.connect(token, address, shown) for _ in range(THREADS)]
    with contextlib.ExitStack() as stack:
        for line in lines:
            stack.callback(line.close)
        yield lines


def play(
    site: RaceSite,
    lines: list[Connection],
    works: list[Work],
    end: Work,
    *codes: str,
    kind: str = "",
) -> list[Seen]:
    """
    Let all use a key, end that, and compare answers with the trail.

    Args:
        site: The server.

        lines: The connections.

        works: What each does.

        end: Ends it.

        codes: What is answered then.

        kind: Of the record that tells of it, if there is one.
    """
    head = site.head()

    def later() -> None:
        time.sleep(random.random() * 0.01)
        end()

    seen = Crowd(frozenset(codes)).run([[work] for work in works], later)

    assert [0] * THREADS == [one.late for one in seen]
    assert {frozenset[str]()} == {frozenset(one.other) for one in seen}
    answered = {name for line in lines for name in line.answered}
    assert (answered, []) == site.uses_since(head, kind)
    return seen


def signing(lines: list[Connection], key: str) -> list[Work]:
    """Return what each connection does."""
    return [partial(line.sign, key) for line in lines]


@pytest.mark.parametrize("_", range(TRIALS))
@pytest.mark.parametrize("change", CHANGES)
def test_a_key_that_ends(site: RaceSite, change: str, _: int) -> None:
    """Who asks after the answer to the change gets nothing."""
    key = site.create()
    end = partial(site.ask, "POST", f"/keys/{key}/{change}", {})
    with crowd_of(site) as lines:
        works = signing(lines, key)
        play(site, lines, works, end, "wrong_state", kind=CHANGES[change])


@pytest.mark.parametrize("_", range(TRIALS))
def test_a_label_that_denies(site: RaceSite, _: int) -> None:
    """A rule about tags counts from the answer to the change on."""
    key = site.create()
    end = partial(site.ask, "PATCH", f"/keys/{key}", {"tags": ["frozen"]})
    with crowd_of(site) as lines:
        works = signing(lines, key)
        play(site, lines, works, end, "access_denied", kind="UpdateKey")


@pytest.mark.parametrize("_", range(TRIALS))
def test_a_policy_that_denies(site: RaceSite, _: int) -> None:
    """Once anybody is shown the new policy, nobody is served by the former."""
    with crowd_of(site) as lines:
        works = signing(lines, site.create())
        end, kind = partial(site.put_policy, SHUT), "system.policy-loaded"
        play(site, lines, works, end, "access_denied", kind=kind)
    site.put_policy(OPEN)


@pytest.mark.parametrize("_", range(TRIALS))
def test_a_window_that_begins(site: RaceSite, _: int) -> None:
    """A rule with an instant denies from then on."""
    instant = time.time() + 1
    shown = datetime.fromtimestamp(instant, UTC).isoformat()
    site.put_policy(
        f"{OPEN}  - {{name: late, effect: deny, match: "
        f'{{operations: [use], time: {{not_before: "{shown}"}}}}}}\n'
    )
    with crowd_of(site) as lines:
        works = signing(lines, site.create())
        play(site, lines, works, partial(wait_for, instant), "access_denied")
    site.put_policy(OPEN)


def wait_for(instant: float) -> None:
    """Wait until an instant is over."""
    while time.time() <= instant:
        time.sleep(0.002)


@pytest.mark.parametrize("_", range(TRIALS))
def test_a_token_that_expires(site: RaceSite, _: int) -> None:
    """It counts no more from its second on, over a connection that is known too."""
    instant = int(time.time()) + 2
    token = token_of(signer(USERS), exp=instant)
    with crowd_of(site, token) as lines:
        works = signing(lines, site.create())
        end = partial(wait_for, instant)
        play(site, lines, works, end, "authentication_failed", "rate_limited")


@pytest.mark.parametrize("_", range(TRIALS))
def test_a_secret_that_is_withdrawn(site: RaceSite, _: int) -> None:
    """Once one of its tokens is refused, no other is served."""
    probe = site.connect(token_of(signer(USERS), sub="probe"), new_address())

    def is_refused() -> bool:
        try:
            probe.ask("GET", "/status")
        except Refused as refused:
            return refused.code == "authentication_failed"
        return False

    def end() -> None:
        site.trust()
        wait_until(is_refused)

    with crowd_of(site) as lines:
        works = signing(lines, site.create())
        play(site, lines, works, end, "authentication_failed", "rate_limited")
    site.trust(signer(USERS))
    wait_until(lambda: not is_refused())
    probe.close()


def revoke(site: RaceSite, client: Any, files: tuple[Path, Path]) -> None:
    """Revoke a certificate; return when a connection with it is refused."""

    def is_refused() -> bool:
        line = site.connect(token_of(signer(USERS), sub="probe"), new_address(), files)
        try:
            line.ask("GET", "/status")
        except Refused:
            return True
        finally:
            line.close()
        return False

    site.clients.revoke(client)
    site.server.process.send_signal(signal.SIGHUP)
    wait_until(is_refused)


@pytest.mark.parametrize("_", range(TRIALS))
def test_a_client_that_is_revoked(site: RaceSite, _: int) -> None:
    """Once a connection of its certificate is refused, all others have ended."""
    client, files = site.clients.issue(f"client-{next(numbers)}")
    with crowd_of(site, shown=files) as lines:
        works = signing(lines, site.create())
        end = partial(revoke, site, client, files)
        play(site, lines, works, end, "closed", "overloaded")


def test_a_request_that_ends_after_its_client_was_revoked(site: RaceSite) -> None:
    """It is not begun: whoever is accepted still may send it again."""
    client, files = site.clients.issue(f"client-{next(numbers)}")
    key = site.create()
    line = site.connect(token_of(signer(USERS)), new_address(), files)
    line.sign(key)
    head = site.head()

    with pytest.raises(Refused, match=r"overloaded|closed"):
        line.sign_slowly(key, partial(revoke, site, client, files))

    line.close()
    assert (set(), []) == site.uses_since(head)


@pytest.mark.parametrize("_", range(TRIALS))
def test_an_address_that_is_locked_out(site: RaceSite, _: int) -> None:
    """Tokens that it has not shown before are not looked at, good ones neither."""
    key = site.create()
    address = new_address()
    fresh = count()
    good = signer(USERS)

    def use(line: Connection) -> None:
        line.token = token_of(good, jti=f"{address}-{next(fresh)}")
        line.sign(key)

    forger = site.connect(token_of(signer(USERS, 1), sub="forger"), address)

    def end() -> None:
        for _ in range(30):
            with contextlib.suppress(Refused):
                forger.ask("GET", "/status")

    lines = [site.connect("", address) for _ in range(THREADS)]
    play(site, lines, [partial(use, line) for line in lines], end, "rate_limited")
    for line in [*lines, forger]:
        line.close()


def test_a_token_that_serves_once(site: RaceSite) -> None:
    """Of sixteen requests with it at once one is answered, which is on record."""
    site.put_policy(
        f"{OPEN}  - {{name: once, effect: deny, match: {{operations: [use]}}, "
        "except: {single_use: true}}\n"
    )
    key = site.create()
    # What was made before anybody asked for that is not fresh.
    first = site.connect(token_of(signer(USERS), jti="first"), new_address())
    with pytest.raises(Refused):
        first.sign(key)
    first.close()
    wait_for(time.time() + 1.1)
    for _ in range(TRIALS):
        token = token_of(
            signer(USERS), jti=f"once-{next(numbers)}", iat=int(time.time())
        )
        head, begin = site.head(), threading.Barrier(THREADS)

        def use(line: Connection, begin: threading.Barrier = begin) -> str:
            line.open()
            begin.wait(60)
            try:
                line.sign(key)
            except Refused as refused:
                return refused.code
            return "ok"

        with crowd_of(site, token) as lines, ThreadPoolExecutor(THREADS) as pool:
            codes = Counter(pool.map(use, lines))

        assert {"ok": 1, "access_denied": THREADS - 1} == codes
        assert 1 == len(site.uses_since(head)[0])
    site.put_policy(OPEN)
