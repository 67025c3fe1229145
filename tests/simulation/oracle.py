# SPDX-License-Identifier: MIT
"""
The oracle: what must be true, known from acknowledged answers alone.

It keeps a model of every key by the `law`, everything that keys ever made, and what was
asked and never answered. After every step it compares the HSM, its disk and its trail
with that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeAlias

from msgspec import structs

from hsm_core import operations as ops
from hsm_core.model import ApprovalState, Caller, Integrity, KeyInfo, KeyState
from hsm_core.operations import Effect, Operation
from tests.simulation import law
from tests.simulation.consents import Ask, Consent, Consents, SteadyBounds
from tests.simulation.deciding import decided, note
from tests.simulation.disk import Disk
from tests.simulation.law import Key, Moment, Refusal
from tests.simulation.rules import PURGE, Bound, bound, demands_of
from tests.simulation.trail import COMMITTED, Entry, TrailReader

Expected: TypeAlias = Key | Refusal | None

_UNAVAILABLE: Final = frozenset(
    {"audit_unavailable", "outcome_unknown", "store_unavailable", "storage_full"}
)
"""Codes of faults: they say nothing of what is asked."""

_UNRECORDED: Final = frozenset({"audit_unavailable", "outcome_unknown"})
"""Refusals that the trail may lack, for it can't be written."""

_RECORDED: Final = frozenset({Effect.MUTATION, Effect.USE})

_FORGED: Final = frozenset(
    {"signature_mismatch", "mac_mismatch", "decryption_failed", "malformed"}
)


_S: Final = KeyState
_NAMING: Final = ("key_id", "approval_id", "name")


class ViolationError(AssertionError):
    """Something is not as it must be."""


@dataclass(frozen=True, slots=True)
class Item:
    """
    Something that a key made, and what it was made of.

    Attributes:
        is_forged: Whether somebody changed it afterwards.
    """

    key_id: str
    version: int
    message: bytes
    made: bytes
    is_forged: bool = False


@dataclass(slots=True)
class Request:
    """
    A request on its way.

    Attributes:
        expected: What it may lead to; more than one where others came between.
        item: What a Verify, Decrypt or VerifyMac processes.
        has_fault: Whether a fault of store or trail was planned for it.
        has_no_trail: Whether the trail can't be written.
        ask: What it needs of people.
        may_need_nobody: Whether it needs them only before, or only after, what others
            have begun.
        in_use: The approval that an operation has while this comes in its middle.
    """

    number: int
    caller: Caller
    operation: Operation[Any]
    idempotency_key: str | None = None
    item: Item | None = None
    expected: list[Expected] = field(default_factory=list)
    has_fault: bool = False
    has_no_trail: bool = False
    ask: Ask | None = None
    may_need_nobody: bool = False
    in_use: Consent | None = None

    def __str__(self) -> str:
        name = type(self.operation).__name__
        what = next(filter(None, (getattr(self.operation, n, "") for n in _NAMING)), "")
        return f"{self.caller.principal} {name} {str(what)[:8]}".rstrip()


@dataclass(frozen=True, slots=True)
class Lost:
    """
    A change that was asked for, and of which nobody heard what became.

    Attributes:
        before: The key as it was; None if the change makes one.
        after: The key as it is, if the change was made.
    """

    request: Request
    before: Key | None
    after: Key


class Oracle:
    """
    Knows what must be.

    Args:
        disk: The media, which it reads beside the HSM.

        ledger: The medium of the ledger.

        hmac_key: Of trail and ledger.

        moment: Tells when it is.

        strict: Whether the record of a use is durable before its answer.
    """

    def __init__(
        self,
        disk: Disk,
        ledger: Disk,
        hmac_key: bytes,
        moment: Callable[[], Moment],
        *,
        strict: bool,
    ) -> None:
        self.consents = Consents(SteadyBounds(moment().wall))
        self.keys: dict[str, Key] = {}
        self.items: list[Item] = []
        self.lost: list[Lost] = []
        self.settled: list[tuple[Lost, bool]] = []
        self.trail = TrailReader(disk, hmac_key)
        self.ledger = TrailReader(ledger, hmac_key)
        self.purged: list[tuple[str, int]] = []
        self._disk = disk
        self._moment = moment
        self._strict = strict

    def find(self, reference: str) -> Key | None:
        """Return the key of an id, or the living one of a name."""
        if reference in self.keys:
            return self.keys[reference]
        for key in self.keys.values():
            if key.name == reference and not key.is_destroyed:
                return key
        return None

    def living(self) -> list[Key]:
        """Return the keys that are not destroyed."""
        return [key for key in self.keys.values() if not key.is_destroyed]

    # What must become of a request.

    def expect(self, request: Request) -> list[Expected]:
        """Return what a request may lead to."""
        operation, caller = request.operation, request.caller
        if isinstance(operation, ops.Approve | ops.Deny | ops.CancelApproval):
            consent = self.consents.by_id.get(operation.approval_id)
            is_used = consent is not None and consent is request.in_use
            return [*decided(self.consents, operation, caller, in_use=is_used)]
        if_agreed = self._expect(request)
        ask = request.ask = self._ask(request)
        if ask is None or isinstance(if_agreed, Refusal):
            return [if_agreed]
        found: list[Expected] = []
        if self.consents.may_run(ask):
            found.append(if_agreed)
        if not self.consents.must_run(ask):
            found.append(law.refused("approval_required"))
        return found

    def concerns_people(self, request: Request) -> bool:
        """Return whether a request is about an approval, or needs one."""
        return hasattr(request.operation, "approval_id") or (
            self._ask(request) is not None
            and not isinstance(self._expect(request), Refusal)
        )

    def _ask(self, request: Request) -> Ask | None:
        operation, caller = request.operation, request.caller
        key = self.find(getattr(operation, "key_id", ""))
        demands = demands_of(operation, key)
        if key is None or not demands:
            return None
        return self.consents.ask(bound(caller.principal, operation, key), demands)

    def _expect(self, request: Request) -> Expected:
        """Return the key that a request makes, its refusal, or None for an answer."""
        operation, caller = request.operation, request.caller
        key = self.find(getattr(operation, "key_id", ""))
        names_key = hasattr(operation, "key_id")
        if not law.may(caller, type(operation)):
            codes = {"access_denied"} | ({"key_not_found"} if key is None else set())
            return Refusal(frozenset(codes))
        if isinstance(operation, ops.CreateKey | ops.UpdateKey) and operation.name:
            holder = self.find(operation.name)
            if holder is not None and holder is not key:
                return law.refused("name_taken", "wrong_state", "key_not_found")
        if isinstance(operation, ops.CreateKey):
            return law.new_key(operation, caller, self._moment())
        if names_key and key is None:
            return law.refused("key_not_found")
        if operation.effect is Effect.MUTATION:
            return law.outcome(operation, key, self._moment())
        if key is None or operation.effect is not Effect.USE:
            return None
        if request.item is None:
            allowed = law.protects(key)
        else:
            version = key.version(request.item.version)
            allowed = version is not None and law.processes(version)
        if not allowed:
            codes = {"wrong_state"}
            if request.item is not None and request.item.is_forged:
                codes |= _FORGED
            return Refusal(frozenset(codes))
        if request.item is not None and request.item.is_forged:
            return Refusal(_FORGED)
        return None

    def expect_after(
        self, request: Request, others: Sequence[Expected]
    ) -> list[Expected]:
        """Return what else a request may lead to where others come before it."""
        known, found = self.keys, list[Expected]()
        for other in others:
            if isinstance(other, Key):
                self.keys = {**known, other.key_id: other}
                found += self.expect(request)
        self.keys = known
        return found

    # What became of it.

    def answered(self, request: Request, result: Any) -> None:
        """
        Take an answer into account.

        Raises:
            ViolationError: It is not what had to be answered, or the trail lacks it.
        """
        wanted = [e for e in request.expected if not isinstance(e, Refusal)]
        _require(bool(wanted), f"{request} was answered, but must be refused")
        recorded = request.operation.effect in _RECORDED
        _require(
            not (request.has_no_trail and recorded),
            f"{request} was answered, though nothing can be recorded",
        )
        if isinstance(result, ops.ApprovalInfo):
            self._note_step(request, result)
            return
        if request.ask is not None and request.may_need_nobody:
            self._may_have_used(request.ask)
        elif request.ask is not None:
            self._note_use(request, request.ask)
        if request.operation.effect is Effect.MUTATION:
            key = _made(wanted, result)
            _require(key is not None, f"{request} made {result!r}, not {wanted}")
            assert key is not None
            self.keys[key.key_id] = key
            self._require_records(request, {"intent", "outcome"})
        elif request.operation.effect is Effect.USE:
            if request.item is None:
                self._note_item(request, result)
            elif isinstance(request.operation, ops.Decrypt):
                _require(
                    result.plaintext == request.item.message,
                    f"{request} gave another plaintext than was encrypted",
                )
            if self._strict:
                self._require_records(request, {"single"})

    def answered_again(self, request: Request, result: KeyInfo, lost: Lost) -> None:
        """Check the answer to a repeated request whose change had been made."""
        known = lost.before or self.keys.get(result.key_id)
        _require(
            known is not None and known.key_id == result.key_id,
            f"{request}, repeated, was answered with another key",
        )
        self._require_records(request, {"single"})

    def _note_step(self, request: Request, info: ops.ApprovalInfo) -> None:
        consent = self.consents.by_id[info.approval_id]
        if note(consent, request.operation, request.caller):
            self.consents.time.write()
        if consent is request.in_use and info.state is ApprovalState.RESERVED:
            info = structs.replace(info, state=consent.state)
        problem = self.consents.differs(info)
        _require(not problem, f"{request}: {problem}")
        records = self._records_of(request)
        _require(bool(records), f"{request} was answered before the trail had it")

    def _note_use(self, request: Request, ask: Ask) -> None:
        consent = ask.consent
        _require(
            consent is not None and self.consents.may_run(ask),
            f"{request} was done, and people have not agreed: {consent}",
        )
        assert consent is not None
        consent.review(ask.demands)
        consent.use()
        self.consents.time.write()

    def _may_have_used(self, ask: Ask) -> None:
        if ask.consent is not None:
            self.consents.lost_steps.append((ask.consent, Consent.use))

    def check_consent(self, info: ops.ApprovalInfo) -> None:
        """Compare a request for approval with what is known of it."""
        problem = self.consents.differs(info)
        _require(not problem, f"approval {problem}")

    def survey(self, infos: Sequence[ops.ApprovalInfo]) -> None:
        """Compare all requests for approval with what is known of them."""
        problem = self.consents.survey(infos)
        _require(not problem, f"approval {problem}")

    def refused(self, request: Request, code: str, approval_id: str = "") -> None:
        """
        Take a refusal into account.

        Raises:
            ViolationError: It should not have been refused, or not so; or the trail
                lacks it.
        """
        effect = request.operation.effect
        if request.has_fault and code in _UNAVAILABLE:
            if not request.has_no_trail:
                self.lose(request, is_certain=code != "outcome_unknown")
            return
        allowed = {
            c for e in request.expected if isinstance(e, Refusal) for c in e.codes
        }
        _require(
            code in allowed,
            f"{request} was refused with {code}; expected {request.expected}",
        )
        if code == "approval_required":
            assert request.ask is not None
            problem = self.consents.was_asked(approval_id, request.ask)
            _require(not problem, f"{request} was refused, but {problem}")
        if effect in _RECORDED and code not in _UNRECORDED:
            durable = self._strict or effect is Effect.MUTATION
            if durable:
                records = self._records_of(request)
                _require(
                    any(r.code == code for r in records),
                    f"{request} was refused with {code}, and the trail lacks it",
                )

    def lose(self, request: Request, *, is_certain: bool = False) -> None:
        """
        Note a request that was never answered.

        Args:
            request: As it was sent.

            is_certain: Whether nothing was done of what it asks for, for sure.
        """
        ask, consents = request.ask, self.consents
        if ask is not None:
            consents.lost_asks.append(ask)
        consent = consents.by_id.get(getattr(request.operation, "approval_id", ""))
        if consent is not None:
            step = partial(note, operation=request.operation, caller=request.caller)
            consents.lost_steps.append((consent, step))
        if request.operation.effect is not Effect.MUTATION:
            if ask is not None and ask.consent is not None:
                consents.lost_steps.append((ask.consent, Consent.use))
            return
        if is_certain:
            return
        before = self.find(getattr(request.operation, "key_id", ""))
        afters = [e for e in request.expected if isinstance(e, Key)]
        for after in afters[:1]:
            self.lost.append(Lost(request, before, after))

    def settle(self, infos: Sequence[KeyInfo]) -> None:
        """
        Find out what became of lost changes.

        Args:
            infos: All keys that are there, destroyed ones included.

        Raises:
            ViolationError: A key is neither as before nor as after.
        """
        found = {info.key_id: info for info in infos}
        for lost in self.lost:
            info = _of(lost, found, self.keys)
            done = info is not None and _is_like(info, lost.after)
            if done:
                assert info is not None
                self.keys[info.key_id] = replace(lost.after, key_id=info.key_id)
                ask = lost.request.ask
                if ask is not None and ask.consent is not None:
                    # That they had agreed when it was sent, was seen then.
                    ask.consent.review(ask.demands)
                    ask.consent.use()
            self.settled.append((lost, done))
        self.lost = []
        strangers = found.keys() - self.keys.keys()
        _require(not strangers, f"keys that nobody made: {strangers}")

    def _note_item(self, request: Request, result: Any) -> None:
        name = type(request.operation).__name__
        if name in _MADE:
            sent = getattr(request.operation, _SENT[name])
            made = getattr(result, _MADE[name])
            self.items.append(Item(result.key_id, result.version, sent, made))

    # What the HSM does by itself.

    def read_trail(self) -> None:
        """
        Follow the trail, and with it what the HSM changes by itself.

        Raises:
            ViolationError: It changed what it must not change yet.
        """
        for entry in self.trail.read():
            by = entry.facts.get("caller", {}).get("principal", "")
            is_change = entry.phase == "outcome" and entry.code in COMMITTED
            if entry.kind == "system.approval-requested" and is_change:
                self._note_own(entry, by)
            if entry.kind == "AllowPurges" and entry.code == "ok":
                self._spend(entry, "")
            is_own = by.startswith("system.") and not entry.kind.startswith("system.")
            if is_own and entry.code == "approval_required":
                _require(entry.kind == "RotateKey", f"the HSM waits to {entry.kind}")
                self._await(entry)
            if is_own and is_change:
                self._absorb(entry)

    def _note_own(self, entry: Entry, requester: str) -> None:
        """Note that retention or rotation asks people."""
        key_id = str(entry.fact("key_id"))
        if requester == "system.rotation":
            self._await(entry)
        if requester == "system.retention":
            about = Bound(requester, key_id, (("id", entry.fact("approval_id")),), 0)
            self.consents.add(
                entry.fact("approval_id"), self.consents.ask(about, (PURGE,))
            )

    def _spend(self, entry: Entry, key_id: str) -> None:
        """Require that people agreed to what retention does, and note its use."""
        self._agreed(entry, entry.fact("approval_id"), key_id).use()

    def _agreed(self, entry: Entry, approval_id: str, key_id: str) -> Consent:
        consent = self.consents.by_id.get(approval_id)
        _require(
            consent is not None
            and consent.bound is not None
            and consent.bound.kind == key_id
            and consent.state is ApprovalState.GRANTED
            # What was recovered was agreed to before, and it is late now.
            and (entry.code != "ok" or not self.consents.has_expired(consent)),
            f"{entry.kind} of {key_id}: nobody agreed: {consent}",
        )
        assert consent is not None
        return consent

    def _purge_step(self, entry: Entry, key: Key) -> Key:
        """Return what a step of a purge makes of a key; it must be due and agreed."""
        moment, number = self._moment(), int(entry.facts["parameters"]["version"])
        version = key.version(number)
        assert version is not None
        material = version.material
        same = [v for v in key.versions if v.material == material]
        if entry.kind == "CancelPurge":
            after = law.unscheduled(key, same)
            _require(after != key, f"{key} waited for no purge")
            return replace(after, generation=key.generation + 1)
        why = law.why_kept(key, material, moment)
        _require(not why, f"{entry.kind} of version {number} of {key}: {why}")
        if entry.kind == "SchedulePurge":
            _require(
                all(v.state in {_S.RETIRED, _S.REVOKED} for v in same),
                f"version {number} of {key} can't wait for a purge",
            )
            approval_id = entry.facts["parameters"].get("approval_id", "")
            self._agreed(entry, approval_id, key.key_id)
            return law.scheduled(key, material, moment)
        self._spend(entry, key.key_id)
        for each in same:
            waits = each.scheduled
            _require(
                waits is not None
                and moment.believed - waits.believed >= law.GRACE_SECONDS - 1,
                f"version {number} of {key} is purged before its grace is over",
            )
        _require(
            self._attested(key.key_id, number) == 1,
            f"the ledger has not one intent for version {number} of {key}",
        )
        self.purged.append((key.key_id, number))
        return law.purged(key, material)

    def _attested(self, key_id: str, number: int) -> int:
        """Return how many purges of a version were begun, and not given up."""
        found = set[str]()
        for entry in self.ledger.read_all():
            if entry.phase == "outcome" and entry.code != "ok":
                found.discard(entry.fact("operation_id"))
            elif (entry.fact("key_id"), entry.fact("version")) == (key_id, number):
                found.add(entry.fact("operation_id"))
        return len(found)

    def check_ledger(self) -> None:
        """
        Compare the ledger with what was purged.

        Raises:
            ViolationError: It attests too much, too little, or one purge twice.
        """
        self.read_trail()
        attested = [
            (e.fact("key_id"), e.fact("version"))
            for e in self.ledger.read_all()
            if e.phase == "outcome" and e.code == "ok"
        ]
        _require(
            sorted(attested) == sorted(self.purged),
            f"the ledger attests {attested}, and {self.purged} were purged",
        )

    def _await(self, entry: Entry) -> None:
        """Note that a rotation of the HSM's own waits for an approval."""
        key = self.keys[entry.fact("key_id")]
        operation = ops.RotateKey(key_id=key.key_id)
        ask = self.consents.ask(
            bound("system.rotation", operation, key), demands_of(operation, key)
        )
        problem = self.consents.was_asked(entry.fact("approval_id"), ask)
        _require(not problem, f"rotation waits, but {problem}")

    def _absorb(self, entry: Entry) -> None:
        key, moment = self.keys[entry.fact("key_id")], self._moment()
        by = entry.facts["caller"]["principal"]
        after: Key | Refusal
        match entry.kind:
            case "RotateKey":
                _require(law.may_rotate(key, moment), f"{key} is rotated too early")
                operation = ops.RotateKey(key_id=key.key_id)
                after = law.outcome(operation, key, moment)
                demands = demands_of(operation, key)
                if demands:
                    ask = self.consents.ask(bound(by, operation, key), demands)
                    consent = ask.consent
                    agreed = consent is not None and self.consents.may_run(ask)
                    _require(agreed, f"{key} was rotated; nobody agreed: {consent}")
                    assert consent is not None
                    consent.use()
            case "CompleteDestruction":
                _require(law.may_end(key, moment), f"{key} is destroyed too early")
                after = replace(law.destroyed(key), generation=key.generation + 1)
            case "SchedulePurge" | "CancelPurge" | "PurgeVersion":
                after = self._purge_step(entry, key)
            case _:
                raise ViolationError(f"the HSM did {entry.kind} by itself")
        assert isinstance(after, Key)
        self.keys[key.key_id] = after

    def overdue(self) -> list[Key]:
        """Return the keys that the HSM should have rotated or destroyed by now."""
        moment = self._moment()
        rotation = ops.RotateKey(key_id="")
        return [
            key
            for key in self.keys.values()
            if law.is_overdue(key, moment)
            if key.destroy_at or not demands_of(rotation, key)
        ]

    # What must be in the trail.

    def _records_of(self, request: Request) -> list[Entry]:
        self.read_trail()
        return self.trail.by_request.get(request.caller.request_id, [])

    def _require_records(self, request: Request, phases: set[str]) -> None:
        records = self._records_of(request)
        good = {r.phase for r in records if r.code == "ok"}
        _require(
            phases <= good,
            f"{request} was answered before the trail had it: {sorted(good)} of "
            f"{sorted(phases)}",
        )

    # What must be on the disk.

    def check_disk(self) -> None:
        """
        Compare the store with the trail, and both with what is known.

        Raises:
            ViolationError: They differ.
        """
        self.read_trail()
        doubtful = set(self.trail.waiting.values()) | {
            lost.before.key_id for lost in self.lost if lost.before
        }
        stored = {
            str(key_id): hashlib.sha256(document).hexdigest()
            for key_id, document in self._disk.documents.items()
        }
        makes_one = any(lost.before is None for lost in self.lost)
        for key_id in stored.keys() | self.trail.stored.keys():
            if key_id in doubtful or (makes_one and key_id not in self.keys):
                continue
            generation, digest = self.trail.stored.get(key_id, (0, ""))
            _require(
                stored.get(key_id) == digest,
                f"key {key_id} is not stored as the trail says",
            )
            known = self.keys.get(key_id)
            _require(
                known is not None and known.generation == generation,
                f"key {key_id} has generation {generation}, not that of {known}",
            )

    def check_key(self, info: KeyInfo, versions: ops.VersionList) -> None:
        """
        Compare a key as the HSM shows it with what is known.

        Raises:
            ViolationError: They differ.
        """
        key = self.keys[info.key_id]
        _require(_is_like(info, key), f"{info!r} {_shown(info)} is not {key}")
        _require(info.integrity is Integrity.OK, f"{key} is {info.integrity}")
        days = info.rotation.max_age_days if info.rotation else None
        _require(
            (info.version, bool(info.destroy_at), days or 0, info.tags)
            == (key.current, bool(key.destroy_at), key.max_age_days, key.tags),
            f"{_shown(info)} {info.destroy_at} {days} {info.tags} is not {key}",
        )
        _require(
            [(v.number, v.state) for v in key.versions]
            == [(v.version, v.state) for v in versions.items],
            f"{[(v.version, v.state) for v in versions.items]} are not those of {key}",
        )
        materials = [v.material_id for v in versions.items]
        for mine, version in zip(key.versions, versions.items, strict=True):
            _require(
                version.material_id == materials[mine.material - 1],
                f"version {mine.number} of {key} has another material",
            )

    def items_of(self, key: Key) -> Iterator[Item]:
        """Return what a key made."""
        return (item for item in self.items if item.key_id == key.key_id)


_MADE: Final = {"Sign": "signature", "Encrypt": "ciphertext", "ComputeMac": "mac"}
_SENT: Final = {"Sign": "message", "Encrypt": "plaintext", "ComputeMac": "message"}


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ViolationError(otherwise)


def _shown(info: KeyInfo) -> tuple[Any, ...]:
    return info.name, info.algorithm, info.generation, info.version, info.state


def _is_like(info: KeyInfo, key: Key) -> bool:
    return (info.name, info.generation, info.owner, str(info.algorithm)) == (
        key.name,
        key.generation,
        key.owner,
        key.algorithm,
    )


def _made(wanted: Sequence[Expected], info: KeyInfo) -> Key | None:
    for key in wanted:
        if isinstance(key, Key) and _is_like(info, key):
            if key.key_id in {"", info.key_id}:
                return replace(key, key_id=info.key_id)
    return None


def _of(lost: Lost, found: dict[Any, KeyInfo], known: dict[str, Key]) -> KeyInfo | None:
    if lost.before is not None:
        info = found.get(lost.before.key_id)
        _require(info is not None, f"key {lost.before} was lost")
        return info
    for key_id, info in found.items():
        if key_id not in known and info.name == lost.after.name:
            return info
    return None
