# SPDX-License-Identifier: MIT
"""Tokens that serve once, where a rule of the policy says so."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from hsm_core import operations as ops
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core.errors import AccessDeniedError
from hsm_core.factory import OpenHSM, open_async
from hsm_core.model import Role
from hsm_core.operations import ExplainPolicy, GenerateRandom, ListAuditEvents
from hsm_core.policies import Policy, built_in_policy, parse_policy
from hsm_core.settings import PolicyProfile
from hsm_core.testing import caller, memory_hsm
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.identity.token_verifier import Identity, ReplayCache
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from hsm_server.vault.local_vault import LocalVault
from tests.server.support import SECRET, SetClock, claims, mint, open_api

ONCE = parse_policy(
    "version: 1\nextends: default\nrules:\n"
    "  - {name: once, effect: deny, match: {operations: [GenerateRandom]},"
    " except: {single_use: true}}\n"
)
USUAL = parse_policy("version: 1\nextends: default\n")


def now_clock() -> SetClock:
    """Return a clock that stands still at this second."""
    return SetClock(float(int(time.time())))


class Place:
    """An HSM, and who lets people in, some time after both have begun."""

    def __init__(self, hsm: OpenHSM) -> None:
        self.hsm = hsm
        self.clock = now_clock()
        self.keeper = self.begin()
        self.clock.seconds += 100

    def begin(self) -> Gatekeeper:
        """Return a gatekeeper that has seen nothing yet but one request."""
        trust = TokenTrust.of_secret(SECRET, TokenRules(leeway_seconds=60))
        keeper = Gatekeeper(open_async(self.hsm), trust, lambda: None, self.clock)
        keeper.authenticate(Visitor(credential=self.token(jti="first")), spends=True)
        return keeper

    def token(self, *, age: int = 0, **changes: object) -> str:
        """Return a token that was made a while ago."""
        issued = int(self.clock.seconds) - age
        return mint(claims(**{"iat": issued, "exp": issued + 3600, **changes}))

    def is_let(self, token: str) -> bool:
        """Return whether that serves for what is to be asked once."""
        who = self.keeper.authenticate(Visitor(credential=token), spends=True).caller
        try:
            self.hsm.act_as(who).execute(GenerateRandom(length=1))
        except AccessDeniedError:
            return False
        return True


@pytest.fixture
def place() -> Iterator[Place]:
    """Give an HSM with the rule."""
    with memory_hsm(policy=ONCE) as hsm:
        yield Place(hsm)


def put_in_force(hsm: OpenHSM, policy: Policy) -> None:
    """Replace the policy."""
    hsm._services.policy.replace(RuleEngine(policy), 0)  # noqa: SLF001


def test_a_token_serves_once(place: Place) -> None:
    """Another one with the same id is the same; one without an id never serves."""
    first, again = place.token(jti="a"), place.token(jti="a", extra=1)

    assert [True, False, False] == [place.is_let(t) for t in (first, first, again)]
    assert place.is_let(place.token(jti="b"))
    assert not place.is_let(place.token())


def test_any_request_spends_it(place: Place) -> None:
    """Also one that the rule is not about; what only looks does not."""
    token, looked_at = place.token(jti="a"), place.token(jti="b")
    place.keeper.authenticate(Visitor(credential=token), spends=True)
    assert not place.keeper.authenticate(
        Visitor(credential=looked_at)
    ).caller.single_use

    assert not place.is_let(token)
    assert place.is_let(looked_at)


def test_the_first_request_of_a_quiet_server() -> None:
    """It is let, long after the start: nobody can have used its token before."""
    clock = now_clock()
    with memory_hsm(policy=ONCE) as hsm:
        trust = TokenTrust.of_secret(SECRET, TokenRules(leeway_seconds=60))
        keeper = Gatekeeper(open_async(hsm), trust, lambda: None, clock)
        clock.seconds += 61
        now = int(clock.seconds)
        token = mint(claims(jti="a", iat=now, exp=now + 300))

        assert keeper.authenticate(
            Visitor(credential=token), spends=True
        ).caller.single_use


def test_what_was_made_before_the_start(place: Place) -> None:
    """It may have been used before, so it is not fresh; nor is one without a time."""
    assert not place.is_let(place.token(jti="old", age=100))
    assert not place.is_let(place.token(jti="ahead", age=40))
    assert place.is_let(place.token(jti="new", age=39))
    assert not place.is_let(place.token(jti="when", iat=None))


def test_a_restart_lets_nothing_be_repeated(place: Place) -> None:
    """A vault that begins anew knows nothing of before, and believes nothing of it."""
    token = place.token(jti="a")
    assert place.is_let(token)
    place.keeper = place.begin()
    assert not place.is_let(token)
    place.clock.seconds += 61

    assert not place.is_let(token)
    assert place.is_let(place.token(jti="b"))


def test_off_by_default() -> None:
    """Without a rule nothing is remembered, recorded or refused."""
    with memory_hsm(policy=USUAL) as hsm:
        place = Place(hsm)
        token = place.token(jti="a")
        assert [True, True] == [place.is_let(token) for _ in range(2)]
        assert 0 == len(place.keeper._spent)  # noqa: SLF001
        page = hsm.act_as(caller(Role.AUDITOR)).execute(ListAuditEvents())

    assert not any("caller_single_use" in e.event.parameters for e in page.items)
    assert not built_in_policy(PolicyProfile.STRICT).asks_for_single_use


def test_a_rule_that_comes_later(place: Place) -> None:
    """What was used while nobody wanted to know is not fresh."""
    put_in_force(place.hsm, USUAL)
    token = place.token(jti="a")
    assert place.is_let(token)
    put_in_force(place.hsm, ONCE)

    assert not place.is_let(token)
    place.clock.seconds += 61
    assert not place.is_let(token)
    assert place.is_let(place.token(jti="b"))


def _identity(token_id: str, issued_at: float, ends: float = 5000.0) -> Identity:
    return Identity(
        principal="ann",
        roles=frozenset(),
        credential_id=token_id,
        expires_at=ends,
        not_before=-1,
        certificate_sha256=frozenset(),
        key_name="k",
        token_id=token_id,
        issued_at=issued_at,
    )


def test_of_many_at_one_time_one_wins() -> None:
    """Whatever the threads do."""
    spent = ReplayCache(lambda: 1000.0)
    spent.spend(_identity("x", 0), 60)
    wins: list[bool] = []
    start = threading.Barrier(8)

    def spend() -> None:
        start.wait()
        wins.extend(spent.spend(_identity(f"t{n}", 2000), 60) for n in range(200))

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (200, 1600) == (sum(wins), len(wins))


def test_memory_is_bounded() -> None:
    """While it is full nothing is fresh; what has expired makes room."""
    now = [1000.0]
    spent = ReplayCache(lambda: now[0], most=10)
    spent.spend(_identity("x", 0), 60)
    found = [
        spent.spend(_identity(f"t{n}", 2000, ends=3000.0 + n), 60) for n in range(12)
    ]
    assert [True] * 10 + [False] * 2 == found
    now[0] = 3000.5
    assert spent.spend(_identity("y", 2900), 60)
    assert not spent.spend(_identity("z", 2900), 60)
    assert not spent.spend(_identity("t9", 2000), 60)

    assert 10 == len(spent)


def test_it_is_recorded_explained_and_replayed(place: Place) -> None:
    """The trail names the rule, and what a policy said of it is said again."""
    token = place.token(jti="a")
    assert [True, False] == [place.is_let(token) for _ in range(2)]
    auditor = place.hsm.act_as(caller(Role.AUDITOR))
    page = auditor.execute(ListAuditEvents())
    asked = [e.event for e in page.items if e.event.kind == "GenerateRandom"]
    done, refused = sorted(asked, key=lambda event: event.seq)
    tried = auditor.execute(ops.TestPolicy(policy=ONCE.text))
    explained = [
        auditor.execute(
            ExplainPolicy(
                operation="GenerateRandom",
                principal="ann",
                roles=(Role.OPERATOR,),
                single_use=fresh,
            )
        ).outcome.value
        for fresh in (True, False)
    ]

    assert ("once", "access_denied") == (refused.rule, refused.code)
    assert done.parameters["caller_single_use"]
    assert "caller_single_use" not in refused.parameters
    assert () == tried.changes
    assert ["allow", "deny"] == explained


def test_another_policy_hash() -> None:
    """The condition is part of what the hash says; without it, it is what it was."""
    other = parse_policy(ONCE.text.replace("true", "false"))

    assert 3 == len({ONCE.policy_hash, other.policy_hash, USUAL.policy_hash})
    assert USUAL.policy_hash == built_in_policy(PolicyProfile.DEFAULT).policy_hash


async def test_over_http() -> None:
    """The second request is denied, and the first of another token is not."""
    clock = now_clock()
    with memory_hsm(policy=ONCE) as hsm:
        async with open_api(gateway=open_async(hsm), clock=clock) as api:

            async def ask(jti: str) -> int:
                now = int(clock.seconds)
                token = mint(claims(jti=jti, iat=now, exp=now + 300))
                answer = await api.send(
                    "POST", "/random", token=token, body={"length": 1}
                )
                return answer.status

            assert 403 == await ask("too early")
            clock.seconds += 100
            found = [await ask(jti) for jti in ("a", "a", "b")]

    assert [200, 403, 200] == found


async def test_what_is_not_done_spends_it_too() -> None:
    """What can't be read of a request that names a key is no second chance."""
    clock = now_clock()
    with memory_hsm(policy=ONCE) as hsm:
        async with open_api(gateway=open_async(hsm), clock=clock) as api:
            clock.seconds += 100
            now = int(clock.seconds)
            token = mint(claims(jti="a", iat=now, exp=now + 300))
            found = [
                (await api.send("POST", path, token=token, body=body)).status
                for path, body in (
                    ("/keys/signer/sign", {"message": 5}),
                    ("/random", {"length": 1}),
                )
            ]

    assert [422, 403] == found


async def test_a_view_spends_it_too(place: Place) -> None:
    """Also one that does not end."""
    vault = LocalVault(open_async(place.hsm), place.keeper)
    visitor = Visitor(credential=place.token(jti="a", roles=["Auditor"]))
    view = ListAuditEvents(ascending=True)
    pages = vault.follow(visitor, view, known=lambda _: None)
    async with contextlib.aclosing(pages):
        await anext(pages)

    assert not place.keeper.authenticate(visitor, spends=True).caller.single_use


def test_a_time_that_was_set_back(place: Place) -> None:
    """No token of before a reset serves, and one that was used stays used."""
    used = place.token(jti="a")
    assert place.is_let(used)
    unused = place.token(jti="b")
    place.clock.seconds -= 50
    place.keeper.on_clock_reset()

    assert [False, False] == [place.is_let(t) for t in (used, unused)]
    assert not place.is_let(place.token(jti="c"))
    place.clock.seconds += 100
    assert place.is_let(place.token(jti="d"))
