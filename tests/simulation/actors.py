# SPDX-License-Identifier: MIT
"""Who lives in the world, and what they do next."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

from hsm_core import operations as ops
from hsm_core.errors import (
    AuditUnavailableError,
    StorageFullError,
    StoreUnavailableError,
)
from hsm_core.model import ApprovalState, Caller, KeyState, Role
from hsm_core.operations import Effect, Operation
from tests.simulation.law import Key
from tests.simulation.oracle import Item, Request
from tests.simulation.rules import person
from tests.simulation.world import World, making, processing

_DAY: Final = 24 * 3600.0
_YEAR: Final = 365 * _DAY
_EARLIEST: Final = 800_000_000_000_000
_LATEST: Final = 6_000_000_000_000_000
"""The wall clock stays between the years 1995 and 2160."""

_NAMES: Final = ("payroll", "backup", "mail", "web", "archive")
_ALGORITHMS: Final = ("AES-256-GCM", "HMAC-SHA-256", "Ed25519")
_MOST_LIVING: Final = 5


def _person(principal: str, *roles: Role) -> Caller:
    return Caller(principal=principal, roles=frozenset(roles))


PEOPLE: Final = (
    _person("ada", Role.ADMINISTRATOR),
    _person("adam", Role.ADMINISTRATOR, Role.OPERATOR),
    _person("olga", Role.OPERATOR),
    _person("otto", Role.OPERATOR, Role.AUDITOR),
    _person("sven", Role.SERVICE),
    _person("aud", Role.AUDITOR),
    _person("ADA", Role.OPERATOR, Role.AUDITOR),
)
"""The last is the first under another spelling."""


def _somebody(world: World, *wanted: Role) -> Caller:
    """Return mostly one who may, sometimes anybody."""
    able = [person for person in PEOPLE if person.roles & set(wanted)]
    return world.rng.choice(PEOPLE if world.rng.random() < 0.1 else able)


def _some_key(world: World) -> Key | None:
    keys = world.oracle.living()
    if not keys or world.rng.random() < 0.05:
        keys = list(world.oracle.keys.values())
    return world.rng.choice(keys) if keys else None


def _reference(world: World, key: Key) -> str:
    return key.key_id if key.is_destroyed or world.rng.random() < 0.7 else key.name


# Operations.


def _new_key(world: World) -> tuple[Caller, Operation[Any]]:
    rng = world.rng
    return _somebody(world, Role.ADMINISTRATOR, Role.OPERATOR), ops.CreateKey(
        algorithm=rng.choice(_ALGORITHMS),
        name=rng.choice(_NAMES),
        staged=rng.random() < 0.15,
        tags=("prod",) if rng.random() < 0.4 else (),
    )


def _change_of(world: World, key: Key) -> tuple[Caller, Operation[Any]]:
    rng = world.rng
    weights, roles, makers = zip(*_CHANGES, strict=True)
    if (key.destroy_at or rng.random() < 0.1) and rng.random() < 0.3:
        wanted, make = _ADMINISTRATORS, _given_back
    else:
        wanted, make = rng.choices(list(zip(roles, makers, strict=True)), weights)[0]
    return _somebody(world, *wanted), make(world, key, _reference(world, key))


def _number(world: World, key: Key) -> int:
    return world.rng.randint(1, len(key.versions) + (world.rng.random() < 0.1))


def _rotated(world: World, key: Key, name: str) -> Operation[Any]:
    return ops.RotateKey(key_id=name, staged=world.rng.random() < 0.2)


def _rolled_back(world: World, key: Key, name: str) -> Operation[Any]:
    return ops.Rollback(key_id=name, version=_number(world, key))


def _activated(world: World, key: Key, name: str) -> Operation[Any]:
    number = _number(world, key) if world.rng.random() < 0.2 else None
    return ops.ActivateKey(key_id=name, version=number)


def _suspended_or_resumed(world: World, key: Key, name: str) -> Operation[Any]:
    rests = key.current_version.state is KeyState.SUSPENDED
    if rests is (world.rng.random() < 0.9):
        return ops.ResumeKey(key_id=name)
    return ops.SuspendKey(key_id=name, reason="holidays")


def _revoked(world: World, key: Key, name: str) -> Operation[Any]:
    rng = world.rng
    since = world.wall_time - timedelta(days=rng.choice((-1, 1, 400)))
    return ops.RevokeKey(
        key_id=name,
        version=_number(world, key) if rng.random() < 0.85 else None,
        reason="lost",
        compromised_at=since if rng.random() < 0.3 else None,
    )


def _destroyed(world: World, key: Key, name: str) -> Operation[Any]:
    return ops.DestroyKey(
        key_id=name, waiting_days=world.rng.choice((None, 0, 7, 30, 30))
    )


def _given_back(world: World, key: Key, name: str) -> Operation[Any]:
    return ops.CancelDestroy(key_id=name)


def _updated(world: World, key: Key, name: str) -> Operation[Any]:
    rng = world.rng
    return ops.UpdateKey(
        key_id=name,
        name=rng.choice(_NAMES) if rng.random() < 0.5 else None,
        owner=rng.choice(PEOPLE).principal if rng.random() < 0.4 else None,
        tags=rng.choice(((), ("prod",))) if rng.random() < 0.4 else None,
    )


def _scheduled(world: World, key: Key, name: str) -> Operation[Any]:
    return ops.SetRotation(
        key_id=name, max_age_days=world.rng.choice((None, 30, 90, 90))
    )


def _kept(world: World, key: Key, name: str) -> Operation[Any]:
    if key.is_held:
        return ops.ReleaseKey(key_id=name, reason="settled")
    if world.rng.random() < 0.5:
        return ops.HoldKey(key_id=name, reason="a case")
    until = world.wall_time + timedelta(days=world.rng.choice((-1, 10, 100)))
    return ops.ExtendRetention(key_id=name, version=_number(world, key), until=until)


_ADMINISTRATORS: Final = (Role.ADMINISTRATOR,)
_RENEWERS: Final = (Role.ADMINISTRATOR, Role.OPERATOR)

_CHANGES: Final[
    Sequence[
        tuple[float, tuple[Role, ...], Callable[[World, Key, str], Operation[Any]]]
    ]
] = (
    (8, _RENEWERS, _rotated),
    (4, _RENEWERS, _rolled_back),
    (3, _RENEWERS, _activated),
    (3, _RENEWERS, _suspended_or_resumed),
    (2, _ADMINISTRATORS, _revoked),
    (1.5, _ADMINISTRATORS, _destroyed),
    (1.5, _ADMINISTRATORS, _updated),
    (1.5, _ADMINISTRATORS, _scheduled),
    (0.7, _ADMINISTRATORS, _kept),
)


def _some_change(world: World) -> tuple[Caller, Operation[Any]]:
    living = world.oracle.living()
    if len(living) < 2 or (len(living) < _MOST_LIVING and world.rng.random() < 0.2):
        return _new_key(world)
    key = _some_key(world)
    assert key is not None
    return _change_of(world, key)


def _some_use(world: World) -> tuple[Caller, Operation[Any], Item | None] | None:
    rng, key = world.rng, _some_key(world)
    if key is None:
        return None
    user = _somebody(world, Role.OPERATOR, Role.SERVICE)
    items = list(world.oracle.items_of(key))
    if items and rng.random() < 0.5:
        item = rng.choice(items)
        if rng.random() < 0.1:
            item = _forged(world, item)
        return user, processing(key, item), item
    return user, making(key, rng.randbytes(rng.randint(0, 40))), None


def _forged(world: World, item: Item) -> Item:
    changed = bytearray(item.made)
    changed[world.rng.randrange(max(1, len(changed) - 16), len(changed))] ^= 1
    return Item(item.key_id, item.version, item.message, bytes(changed), True)


# Steps.


def _change(world: World) -> None:
    """Somebody changes a key; the power may go, or somebody else come between."""
    rng = world.rng
    caller, operation = _some_change(world)
    if rng.random() < 0.3:
        world.crash_at(rng.randint(1, 24))
    elif rng.random() < 0.3:
        world.between = _between
    key = f"key-{rng.getrandbits(64):x}" if rng.random() < 0.7 else None
    world.request(caller, operation, idempotency_key=key)
    world.between = None
    if world.will_crash:
        world.crash_at(0)
        if rng.random() < 0.5:
            world.crash()


def _use(world: World) -> None:
    """Somebody uses a key."""
    rng, found = world.rng, _some_use(world)
    if found is None:
        return
    caller, operation, item = found
    if rng.random() < 0.1:
        world.crash_at(rng.randint(1, 6))
    elif rng.random() < 0.2:
        world.between = _between
    world.request(caller, operation, item=item)
    world.between = None
    world.crash_at(0)


def _between(world: World, point: str, request: Request) -> None:
    """Let another person's request come in the middle of one, where no lock is held."""
    of_change = request.operation.effect is Effect.MUTATION
    wanted = {"mutation.after_intent", "mutation.after_outcome"}
    if not of_change and request.ask is None:
        wanted = {"audit.before_write"}
    if point not in (wanted if request.ask is None else wanted | _WITH_CONSENT):
        return
    if world.rng.random() < 0.5:
        return
    world.between = None
    if request.ask is not None:
        # Of the same approval only what does not wait for the request to end.
        found_step = _some_consent(world)
        if found_step is not None:
            world.request(*found_step)
        return
    if of_change and world.rng.random() < 0.5:
        found = _some_use(world)
        if found is not None:
            world.request(found[0], found[1], item=found[2])
        return
    caller, operation = _some_change(world)
    mine = world.oracle.find(getattr(request.operation, "key_id", ""))
    theirs = world.oracle.find(getattr(operation, "key_id", ""))
    if of_change and mine is theirs:
        return
    world.request(caller, operation)


def _repeat(world: World) -> None:
    """Whoever got no answer sends the request again."""
    settled, world.oracle.settled = world.oracle.settled, []
    for lost, was_made in settled[-1:]:
        if lost.request.idempotency_key is not None:
            world.repeat(lost, was_made)


def _decide(world: World) -> None:
    """Somebody says what they think of a request, or its requester gives it up."""
    rng = world.rng
    found = _some_consent(world)
    if found is None:
        return
    caller, operation = found
    if rng.random() < 0.15:
        world.crash_at(rng.randint(1, 12))
    world.request(caller, operation)
    world.crash_at(0)


def _some_consent(world: World) -> tuple[Caller, Operation[Any]] | None:
    rng, known = world.rng, list(world.oracle.consents)
    wanted = [c for c in known if c.is_open] if rng.random() < 0.9 else known
    if not wanted:
        return None
    consent = rng.choice(wanted)
    own = [p for p in PEOPLE if person(p.principal) == person(consent.requester)]
    caller = rng.choice(own if own and rng.random() < 0.15 else PEOPLE)
    approval_id = consent.approval_id
    kind = rng.random()
    if kind < 0.82:
        return caller, world.approval(approval_id, "well")
    if kind < 0.92:
        return caller, ops.Deny(approval_id=approval_id, reason="not now")
    return caller, ops.CancelApproval(approval_id=approval_id)


def _use_consent(world: World) -> None:
    """Whoever asked for approval sends the request again, perhaps once too often."""
    rng = world.rng
    asked = [(c, o) for c, o in world.asked.items()]
    if not asked:
        return
    approval_id, (caller, operation) = rng.choice(asked[-6:])
    consent = world.oracle.consents.by_id.get(approval_id)
    granted = consent is not None and consent.state is ApprovalState.GRANTED
    if not granted and rng.random() < 0.6:
        return
    if rng.random() < 0.3:
        world.crash_at(rng.randint(1, 40))
    elif rng.random() < 0.3:
        world.between = _between
    world.request(caller, operation)
    world.between = None
    world.crash_at(0)


def _outlive(world: World) -> None:
    """An approval is too old, perhaps not by a clock that is set back; who tries it?"""
    rng = world.rng
    known = [c for c in world.oracle.consents if c.is_open]
    if not known:
        return
    consent = rng.choice(known)
    world.go_on(consent.seconds * rng.uniform(0.5, 1.5))
    if not world.has_good_clock:
        world.set_clock(-consent.seconds * rng.uniform(0, 3))
    if rng.random() < 0.3:
        world.restart()
    sent = world.asked.get(consent.approval_id)
    if sent is not None and rng.random() < 0.5:
        world.request(*sent)
    else:
        caller = rng.choice(PEOPLE)
        world.request(caller, world.approval(consent.approval_id))
    world.survey()


def _purge(world: World) -> None:
    """A version grows old, people agree that it goes, or do not, and time passes."""
    rng = world.rng
    old = [k for k in world.oracle.living() if not k.tags and k.destroy_at == 0]
    if old and rng.random() < 0.7:
        world.request(PEOPLE[1], ops.RotateKey(key_id=rng.choice(old).key_id))
        world.go_on(_DAY * rng.uniform(55, 80))
    for _ in range(3):
        world.go_on(3700)
    known = world.oracle.consents
    asked = [c for c in known if c.is_open and c.requester == "system.retention"]
    for consent in asked:
        _agree(world, consent.approval_id)
    if not asked:
        return
    for hours in (1.1, 1.1, 7 * 24, 1.1, 1.1):
        if rng.random() < 0.25:
            world.crash_at(rng.randint(1, 60))
        world.go_on(hours * 3600)
        world.crash_at(0)
        if rng.random() < 0.1:
            _change(world)
    # What the power interrupted is brought to its end first.
    for _ in range(3):
        world.go_on(3700)
    world.oracle.check_ledger()


def _agree(world: World, approval_id: str) -> None:
    rng = world.rng
    people = [PEOPLE[2], PEOPLE[5]] if rng.random() < 0.7 else list(PEOPLE)
    for caller in rng.sample(people, len(people)):
        if rng.random() < 0.03:
            world.request(caller, ops.Deny(approval_id=approval_id, reason="no"))
        elif rng.random() < 0.9:
            world.request(caller, world.approval(approval_id))


def _wait(world: World) -> None:
    """Time passes."""
    days = world.rng.choice((0.001, 0.1, 1, 7, 30, 90))
    world.go_on(days * _DAY * world.rng.random())


def _set_clock(world: World) -> None:
    """Somebody sets the clock: by a second to ten years, forwards or backwards."""
    rng = world.rng
    if world.has_good_clock:
        return
    seconds = math.exp(rng.uniform(0, math.log(10 * _YEAR))) * rng.choice((1, -1))
    if rng.random() < 0.4:
        seconds = world.error_of_clock
    after = world.time.now() + seconds * 1_000_000
    if _EARLIEST < after < _LATEST:
        world.set_clock(seconds)
        if rng.random() < 0.5:
            world.work()


def _crash(world: World) -> None:
    """The power goes; perhaps again while it starts."""
    if world.rng.random() < 0.4:
        world.crash_at(world.rng.randint(1, 6))
    world.crash()


def _restart(world: World) -> None:
    """Somebody stops the HSM and starts it again."""
    world.restart()


def _trouble(world: World) -> None:
    """The disk fails for a while."""
    rng, faults = world.rng, world.faults
    caller, operation = _some_change(world)
    kind = rng.choice(("refused", "full", "unknown", "outcome", "intent", "trail"))
    world.say(f"the disk fails: {kind}")
    match kind:
        case "refused":
            faults.plan("store.commit", StoreUnavailableError())
        case "full":
            faults.plan("store.commit", StorageFullError())
        case "unknown":
            faults.plan_unknown_commit(made=rng.random() < 0.5)
        case "outcome" | "intent":
            faults.plan(f"audit.append.{kind}", AuditUnavailableError())
        case _:
            _lose_trail(world)
            return
    world.request(caller, operation, has_fault=True)
    faults.clear()
    world.go_on(2)


def _lose_trail(world: World) -> None:
    world.faults.fail_trail()
    for _ in range(world.rng.randint(1, 3)):
        caller, operation = _some_change(world)
        world.request(caller, operation, has_fault=True, has_no_trail=True)
        found = _some_use(world)
        if found is not None:
            caller, operation, item = found
            world.request(
                caller, operation, item=item, has_fault=True, has_no_trail=True
            )
    world.check_status(is_well=False)
    world.faults.heal_trail()
    world.go_on(11)
    world.check_status(is_well=True)


_WITH_CONSENT: Final = frozenset({"approval.reserved"})

Step: TypeAlias = Callable[[World], None]

STEPS: Final[Sequence[tuple[float, Step]]] = (
    (10, _change),
    (9, _use),
    (9, _decide),
    (6, _use_consent),
    (1, _outlive),
    (1.5, _purge),
    (5, _wait),
    (1.5, _set_clock),
    (0.8, _crash),
    (0.4, _restart),
    (1, _trouble),
)


def act(world: World) -> None:
    """Let the next thing happen."""
    weights, steps = zip(*STEPS, strict=True)
    if world.oracle.settled and world.rng.random() < 0.7:
        _repeat(world)
    else:
        world.rng.choices(steps, weights)[0](world)
