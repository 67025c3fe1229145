# SPDX-License-Identifier: MIT
"""
The law: what must become of a key by each request, said a second time.

It is written from the documents, not from the product, and imports none of its rules.
A key is a value; a request makes another value of it, or is refused with one of a few
codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from hsm_core import operations as ops
from hsm_core.model import Caller, KeyState, Role
from hsm_core.operations import Operation

Kind: TypeAlias = type[Operation[Any]]

DAY: Final = 24 * 3600
_S: Final = KeyState
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_USES: Final[frozenset[Kind]] = frozenset(
    {ops.Sign, ops.Encrypt, ops.ComputeMac, ops.Verify, ops.Decrypt, ops.VerifyMac}
)
_READS: Final[frozenset[Kind]] = frozenset(
    {ops.DescribeKey, ops.ListVersions, ops.ListKeys, ops.Status}
)
_RENEWALS: Final[frozenset[Kind]] = frozenset(
    {
        *(ops.CreateKey, ops.RotateKey, ops.Rollback),
        *(ops.ActivateKey, ops.SuspendKey, ops.ResumeKey),
    }
)
_ENDS: Final[frozenset[Kind]] = frozenset(
    {ops.RevokeKey, ops.DestroyKey, ops.CancelDestroy}
)
_KEEPS: Final[frozenset[Kind]] = frozenset({ops.ExtendRetention, ops.HoldKey})
_LABELS: Final[frozenset[Kind]] = frozenset({ops.UpdateKey, ops.SetRotation})
_LOOKS: Final[frozenset[Kind]] = frozenset({ops.VerifyAudit, ops.VerifyStore})

GRANTED: Final[Mapping[Role, frozenset[Kind]]] = {
    Role.ADMINISTRATOR: (
        _READS | _RENEWALS | _ENDS | _LABELS | _LOOKS | _KEEPS | {ops.ReleaseKey}
    ),
    Role.OPERATOR: _READS | _RENEWALS | _USES,
    Role.AUDITOR: _READS | _LOOKS | _KEEPS,
    Role.SERVICE: _READS | _USES,
}
"""Who may do what of that which the simulation does."""


@dataclass(frozen=True, slots=True)
class Moment:
    """
    When something happens.

    Attributes:
        wall: What the clock says, in microseconds since 1970.
        passed: Seconds that really passed since the world began.
        doubt: Seconds more that the HSM may believe so far, because clocks were wrong.
    """

    wall: int
    passed: float
    doubt: float = 0.0

    @property
    def believed(self) -> float:
        """Seconds that the HSM may at most believe to have passed."""
        return self.passed + self.doubt


_BEGINNING: Final = Moment(0, 0.0)


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    A request that must fail.

    Attributes:
        codes: With which of these errors.
    """

    codes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Version:
    """
    A version of a key.

    Attributes:
        material: Number of the version that its material was made for.
        came_from: Its state before it waited for its end.
        active_since: When it became active.
        closed: When it was retired, or revoked if that came later.
        scheduled: When its purge was decided; None if it waits for none of its own.
        kept_until: What its retention was extended to, by the wall clock; 0 for no.
    """

    number: int
    state: KeyState
    material: int
    came_from: KeyState | None = None
    active_since: Moment = _BEGINNING
    closed: Moment = _BEGINNING
    scheduled: Moment | None = None
    kept_until: int = 0


@dataclass(frozen=True, slots=True)
class Key:
    """
    A key as it must be.

    Attributes:
        key_id: Empty until the HSM has said it.
        current: Number of the version that protects.
        destroy_at: By the wall clock, in microseconds; 0 where nobody wants that.
        destroy_asked: When that was asked for.
        waiting_days: For how long it is to wait.
        max_age_days: When the HSM rotates it; 0 for never.
        is_held: Whether nothing of it may be destroyed.
    """

    key_id: str
    name: str
    algorithm: str
    owner: str
    generation: int
    versions: tuple[Version, ...]
    current: int = 1
    tags: tuple[str, ...] = ()
    destroy_at: int = 0
    destroy_asked: Moment = _BEGINNING
    waiting_days: int = 0
    max_age_days: int = 0
    is_held: bool = False

    @property
    def current_version(self) -> Version:
        """The version that protects, if it is active."""
        return self.versions[self.current - 1]

    @property
    def is_destroyed(self) -> bool:
        """Whether it is gone for good."""
        return all(v.state is _S.DESTROYED for v in self.versions)

    def version(self, number: int) -> Version | None:
        """Return a version by number."""
        return next((v for v in self.versions if v.number == number), None)


def may(caller: Caller, kind: Kind) -> bool:
    """Return whether one of a caller's roles is granted an operation."""
    return any(kind in GRANTED[role] for role in caller.roles)


def protects(key: Key) -> bool:
    """Return whether a key may sign, encrypt and authenticate."""
    return key.current_version.state is _S.ACTIVE


def processes(version: Version) -> bool:
    """Return whether what a version made may be verified or decrypted."""
    return version.state in {_S.ACTIVE, _S.RETIRED}


def refused(*codes: str) -> Refusal:
    """Return a refusal with one of these codes."""
    return Refusal(frozenset(codes))


def new_key(operation: ops.CreateKey, caller: Caller, moment: Moment) -> Key:
    """Return the key that a request makes."""
    state = _S.STAGED if operation.staged else _S.ACTIVE
    return Key(
        key_id="",
        name=operation.name,
        algorithm=operation.algorithm,
        owner=caller.principal,
        generation=1,
        versions=(Version(1, state, 1, active_since=moment),),
        tags=operation.tags,
    )


def outcome(
    operation: Operation[Any], key: Key | None, moment: Moment
) -> Key | Refusal:
    """
    Return what a permitted request makes of its key.

    Args:
        operation: One that changes keys.

        key: The key that it names; None where there is none.

        moment: When.
    """
    if key is None:
        return refused("key_not_found")
    after = _RULES[type(operation)](operation, key, moment)
    if isinstance(after, Refusal):
        return after
    return replace(after, generation=key.generation + 1)


def _with_state(key: Key, number: int, state: KeyState, moment: Moment) -> Key:
    def moved(version: Version) -> Version:
        if version.number != number:
            return version
        fresh = state is _S.ACTIVE and version.state is _S.STAGED
        since = moment if fresh else version.active_since
        closed = moment if state is _S.RETIRED else version.closed
        return replace(version, state=state, active_since=since, closed=closed)

    return replace(key, versions=tuple(map(moved, key.versions)))


def _without_active(key: Key, moment: Moment) -> Key:
    if key.current_version.state is _S.ACTIVE:
        return _with_state(key, key.current, _S.RETIRED, moment)
    return key


def _with_new(key: Key, material: int | None, moment: Moment) -> Key:
    number = len(key.versions) + 1
    kept = _without_active(key, moment)
    fresh = Version(
        number,
        _S.ACTIVE,
        number if material is None else material,
        active_since=moment,
    )
    return replace(kept, versions=(*kept.versions, fresh), current=number)


def _staged(key: Key) -> Version | None:
    return next((v for v in key.versions if v.state is _S.STAGED), None)


def _rotated(operation: ops.RotateKey, key: Key, moment: Moment) -> Key | Refusal:
    if key.current_version.state not in {_S.ACTIVE, _S.REVOKED} or _staged(key):
        return refused("wrong_state")
    if operation.staged:
        number = len(key.versions) + 1
        waiting = Version(number, _S.STAGED, number)
        return replace(key, versions=(*key.versions, waiting))
    return _with_new(key, None, moment)


def _rolled_back(operation: ops.Rollback, key: Key, moment: Moment) -> Key | Refusal:
    source = key.version(operation.version)
    if key.current_version.state is not _S.ACTIVE:
        return refused("wrong_state", "key_not_found")
    if source is None:
        return refused("key_not_found")
    if source.state is not _S.RETIRED:
        return refused("wrong_state")
    return _with_new(key, source.material, moment)


def _activated(operation: ops.ActivateKey, key: Key, moment: Moment) -> Key | Refusal:
    wanted = _staged(key)
    if operation.version is not None:
        wanted = key.version(operation.version)
        if wanted is None:
            return refused("key_not_found")
    if wanted is None or wanted.state is not _S.STAGED:
        return refused("wrong_state")
    leaves = key.current_version.state in {_S.ACTIVE, _S.RETIRED, _S.REVOKED}
    if wanted is not key.current_version and not leaves:
        return refused("wrong_state")
    after = _with_state(_without_active(key, moment), wanted.number, _S.ACTIVE, moment)
    return replace(after, current=wanted.number)


def _suspended(operation: ops.SuspendKey, key: Key, moment: Moment) -> Key | Refusal:
    if key.current_version.state is not _S.ACTIVE:
        return refused("wrong_state")
    return _with_state(key, key.current, _S.SUSPENDED, moment)


def _resumed(operation: ops.ResumeKey, key: Key, moment: Moment) -> Key | Refusal:
    if key.current_version.state is not _S.SUSPENDED:
        return refused("wrong_state")
    return _with_state(key, key.current, _S.ACTIVE, moment)


_REVOCABLE: Final = frozenset({_S.STAGED, _S.ACTIVE, _S.RETIRED, _S.SUSPENDED})


def _revoked(operation: ops.RevokeKey, key: Key, moment: Moment) -> Key | Refusal:
    told, wanted = operation.compromised_at, key.versions
    if told is not None and told > _EPOCH + timedelta(microseconds=moment.wall):
        return refused("invalid_input", "key_not_found")
    if operation.version is not None:
        version = key.version(operation.version)
        if version is None:
            return refused("key_not_found")
        if version.state not in _REVOCABLE:
            return refused("wrong_state")
        wanted = (version,)
    burnt = {v.material for v in wanted}
    after = tuple(
        replace(v, state=_S.REVOKED, closed=moment)
        if v.material in burnt and v.state in _REVOCABLE
        else v
        for v in key.versions
    )
    if after == key.versions:
        return refused("wrong_state")
    return replace(key, versions=after)


def destroyed(key: Key) -> Key:
    """Return a key whose material is gone, in the same generation."""
    gone = tuple(replace(v, state=_S.DESTROYED) for v in key.versions)
    return replace(key, versions=gone, destroy_at=0)


def _ended(operation: ops.DestroyKey, key: Key, moment: Moment) -> Key | Refusal:
    days = operation.waiting_days or 0
    if key.is_destroyed or key.is_held:
        return refused("wrong_state")
    if key.destroy_at:
        too_early = bool(days) or moment.wall < key.destroy_at
        return refused("wrong_state") if too_early else destroyed(key)
    if not days:
        return destroyed(key)
    waiting = tuple(
        v
        if v.state in {_S.PURGE_SCHEDULED, _S.DESTROYED}
        else replace(v, state=_S.PURGE_SCHEDULED, came_from=v.state)
        for v in key.versions
    )
    return replace(
        key,
        versions=waiting,
        destroy_at=moment.wall + days * DAY * 1_000_000,
        destroy_asked=moment,
        waiting_days=days,
    )


def _given_back(
    operation: ops.CancelDestroy, key: Key, moment: Moment
) -> Key | Refusal:
    if not key.destroy_at:
        return refused("wrong_state")
    back = tuple(
        replace(v, state=v.came_from, came_from=None)
        if v.came_from is not None and v.scheduled is None
        else v
        for v in key.versions
    )
    return replace(key, versions=back, destroy_at=0)


def _updated(operation: ops.UpdateKey, key: Key, moment: Moment) -> Key | Refusal:
    if key.is_destroyed:
        return refused("wrong_state")
    name, owner, tags = operation.name, operation.owner, operation.tags
    if (name, owner, tags, operation.description) == (None, None, None, None):
        return refused("invalid_input")
    return replace(
        key,
        name=key.name if name is None else name,
        owner=key.owner if owner is None else owner,
        tags=key.tags if tags is None else tags,
    )


def _scheduled(operation: ops.SetRotation, key: Key, moment: Moment) -> Key | Refusal:
    if key.is_destroyed:
        return refused("wrong_state")
    return replace(key, max_age_days=operation.max_age_days or 0)


def _held(operation: ops.HoldKey, key: Key, moment: Moment) -> Key | Refusal:
    if key.is_destroyed or key.is_held:
        return refused("wrong_state")
    spared = key if key.destroy_at else unscheduled(key, key.versions)
    return replace(spared, is_held=True)


def _let_go(operation: ops.ReleaseKey, key: Key, moment: Moment) -> Key | Refusal:
    return replace(key, is_held=False) if key.is_held else refused("wrong_state")


def _extended(
    operation: ops.ExtendRetention, key: Key, moment: Moment
) -> Key | Refusal:
    version = key.version(operation.version)
    until = int((operation.until - _EPOCH).total_seconds() * 1_000_000)
    if version is None:
        return refused("key_not_found")
    if version.state is _S.DESTROYED:
        return refused("wrong_state")
    if until <= max(moment.wall, version.kept_until):
        return refused("invalid_input")
    same = tuple(v for v in key.versions if v.material == version.material)
    spared = key if key.destroy_at else unscheduled(key, same)
    return replace(
        spared,
        versions=tuple(
            replace(v, kept_until=until) if v.number == version.number else v
            for v in spared.versions
        ),
    )


def unscheduled(key: Key, versions: Iterable[Version]) -> Key:
    """Return a key some of whose versions wait for no purge any more."""
    numbers = {v.number for v in versions if v.scheduled is not None}
    back = tuple(
        replace(v, state=v.came_from, came_from=None, scheduled=None)
        if v.number in numbers and v.came_from is not None
        else v
        for v in key.versions
    )
    return replace(key, versions=back)


_WINDOW_DAYS: Final = 60
_PROD_DAYS: Final = 30
GRACE_SECONDS: Final = 7 * DAY
"""As in ``retention.yaml``, and in the settings."""


def why_kept(key: Key, material: int, moment: Moment) -> str:
    """Return why old material must stay, or nothing."""
    same = [v for v in key.versions if v.material == material]
    if key.is_held:
        return "it is held"
    if key.current in {v.number for v in same}:
        return "it is the current one"
    if any(v.state in {_S.ACTIVE, _S.STAGED, _S.SUSPENDED} for v in same):
        return "it is in use"
    days = _PROD_DAYS if "prod" in key.tags else _WINDOW_DAYS
    for version in same:
        if moment.believed - version.closed.believed < days * DAY - _A_SECOND:
            return f"version {version.number} is too young"
        if moment.wall < version.kept_until:
            return f"version {version.number} is kept for longer"
    return ""


def scheduled(key: Key, material: int, moment: Moment) -> Key:
    """Return a key of which some material waits for its purge."""
    return replace(
        key,
        generation=key.generation + 1,
        versions=tuple(
            replace(v, state=_S.PURGE_SCHEDULED, came_from=v.state, scheduled=moment)
            if v.material == material and v.state is not _S.DESTROYED
            else v
            for v in key.versions
        ),
    )


def purged(key: Key, material: int) -> Key:
    """Return a key of which some material is gone."""
    return replace(
        key,
        generation=key.generation + 1,
        versions=tuple(
            replace(v, state=_S.DESTROYED, scheduled=None)
            if v.material == material
            else v
            for v in key.versions
        ),
    )


_A_SECOND: Final = 1.0
"""By how much two sums of the same times may differ here."""


def may_rotate(key: Key, moment: Moment) -> bool:
    """Return whether the HSM may rotate a key by itself."""
    believed = moment.believed - key.current_version.active_since.believed
    return _is_rotated(key) and believed >= key.max_age_days * DAY - _A_SECOND


def may_end(key: Key, moment: Moment) -> bool:
    """Return whether the HSM may destroy a key by itself."""
    believed = moment.believed - key.destroy_asked.believed
    wanted = key.destroy_at > 0 and not key.is_held
    return wanted and believed >= key.waiting_days * DAY - _A_SECOND


def is_overdue(key: Key, moment: Moment) -> bool:
    """Return whether the HSM should have rotated or destroyed a key by now."""
    if key.destroy_at and not key.is_held:
        waited = moment.passed - key.destroy_asked.passed
        return waited >= key.waiting_days * DAY
    age = moment.passed - key.current_version.active_since.passed
    return _is_rotated(key) and age >= key.max_age_days * DAY


def _is_rotated(key: Key) -> bool:
    is_active = key.current_version.state is _S.ACTIVE
    return key.max_age_days > 0 and is_active and _staged(key) is None


_RULES: Final[Mapping[Kind, Callable[[Any, Key, Moment], Key | Refusal]]] = {
    ops.ActivateKey: _activated,
    ops.CancelDestroy: _given_back,
    ops.ExtendRetention: _extended,
    ops.HoldKey: _held,
    ops.ReleaseKey: _let_go,
    ops.DestroyKey: _ended,
    ops.ResumeKey: _resumed,
    ops.RevokeKey: _revoked,
    ops.Rollback: _rolled_back,
    ops.RotateKey: _rotated,
    ops.SetRotation: _scheduled,
    ops.SuspendKey: _suspended,
    ops.UpdateKey: _updated,
}
