# SPDX-License-Identifier: MIT
"""What is known of each request for approval, from answers alone, and what follows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from hsm_core.model import ApprovalState, Caller
from hsm_core.operations import ApprovalInfo
from tests.simulation.rules import Bound, Demand, Saying, are_met, person

_S: Final = ApprovalState
_ROUNDED: Final = 1
"""By how many seconds two sums of the same times may differ here."""

_OPEN: Final = frozenset({_S.PENDING, _S.GRANTED})


class SteadyBounds:
    """
    Between which instants the HSM's steady time must be.

    It never goes back in one life, and begins each at least where the trail and the
    approvals end; it follows the wall clock forwards, whenever somebody looks.

    Attributes:
        low: It is at least this, in microseconds since 1970.
        high: It is at most this.
    """

    def __init__(self, wall: int) -> None:
        self.low = self.high = wall
        self._written = 0

    def pass_by(self, seconds: float, wall: int) -> None:
        """Let time pass, by a clock that may be wrong."""
        self.low += int(seconds * 1_000_000)
        self.high = max(self.high + int(seconds * 1_000_000), wall)

    def see(self, wall: int) -> None:
        """The clock says this now, whether the HSM looks or not."""
        self.high = max(self.high, wall)

    def look(self, wall: int) -> None:
        """The HSM looks at its clock for an approval."""
        self.low, self.high = max(self.low, wall), max(self.high, wall)

    def write(self) -> None:
        """The HSM has written down when it is, durably."""
        self._written = max(self._written, self.low)

    def begin(self, newest: int, wall: int) -> None:
        """Begin another life; *newest* is the time of the newest record."""
        self.low = max(newest, self._written, wall)
        self.see(wall)


@dataclass(slots=True)
class Consent:
    """
    A request for approval.

    Attributes:
        bound: What it is for; None where the HSM itself asks.
        began_low: When it was made, at the earliest, in microseconds since 1970.
        began_high: The same at the latest.
        said: By person.
    """

    approval_id: str
    requester: str
    bound: Bound | None
    demands: tuple[Demand, ...]
    began_low: int
    began_high: int
    state: ApprovalState = _S.PENDING
    said: dict[str, Saying] = field(default_factory=dict)
    uses_left: int = 1

    @property
    def is_open(self) -> bool:
        """Whether something can still become of it, if its time has not come."""
        return self.state in _OPEN

    @property
    def seconds(self) -> int:
        """For how long it is good."""
        return min(demand.seconds for demand in self.demands)

    def is_met(self, demands: Iterable[Demand] = ()) -> bool:
        """Return whether enough people agree to what was demanded, and is now."""
        return are_met((*self.demands, *demands), self.said, self.requester)

    def say(self, caller: Caller, *, granted: bool) -> None:
        """Note what a person said."""
        self.said[person(caller.principal)] = Saying(granted, caller.roles)
        if not granted:
            self.state = _S.DENIED
        elif self.is_met():
            self.state = _S.GRANTED

    def cancel(self) -> None:
        """Note that its requester wants it no more."""
        self.state = _S.CANCELLED

    def use(self) -> None:
        """Note that an operation was done by it."""
        self.uses_left -= 1
        if self.uses_left <= 0:
            self.state = _S.CONSUMED

    def review(self, demands: Iterable[Demand]) -> None:
        """Demand besides what is demanded now."""
        new = tuple(demand for demand in demands if demand not in self.demands)
        if new and self.is_open:
            self.demands += new
            self.uses_left = min(self.uses_left, *(demand.uses for demand in new))
            if not self.is_met():
                self.state = _S.PENDING


@dataclass(frozen=True, slots=True)
class Ask:
    """
    What a request needs of people.

    Attributes:
        consent: The request for it that is open, if there is one.
        low: When it was sent, at the earliest, in microseconds since 1970.
        high: The same at the latest.
    """

    bound: Bound
    demands: tuple[Demand, ...]
    consent: Consent | None
    low: int
    high: int


Step: TypeAlias = Callable[[Consent], object]


class Consents:
    """
    All requests for approval.

    Args:
        time: Bounds of the HSM's steady time.

    Attributes:
        lost_asks: What was asked for, and nobody heard whether it was noted.
        lost_steps: What was said or done, and nobody heard whether it was noted.
    """

    def __init__(self, time: SteadyBounds) -> None:
        self.time = time
        self.by_id: dict[str, Consent] = {}
        self.lost_asks: list[Ask] = []
        self.lost_steps: list[tuple[Consent, Step]] = []

    def __iter__(self) -> Iterator[Consent]:
        return iter(self.by_id.values())

    def has_expired(self, consent: Consent) -> bool:
        """Return whether its time has come for sure."""
        ends = consent.began_high + (consent.seconds + _ROUNDED) * 1_000_000
        return consent.state is _S.EXPIRED or self.time.low >= ends

    def may_have_expired(self, consent: Consent) -> bool:
        """Return whether its time may have come."""
        ends = consent.began_low + (consent.seconds - _ROUNDED) * 1_000_000
        return consent.state is _S.EXPIRED or self.time.high >= ends

    def ask(self, bound: Bound, demands: tuple[Demand, ...]) -> Ask:
        """Return what a request needs; a granted approval for it goes first."""
        found = [c for c in self if c.bound == bound and c.is_open]
        found.sort(key=lambda consent: consent.state is not _S.GRANTED)
        known = next(iter(found), None)
        return Ask(bound, demands, known, self.time.low, self.time.high)

    def may_run(self, ask: Ask) -> bool:
        """Return whether people have agreed, so that it may be done."""
        consent = ask.consent
        return (
            consent is not None
            and consent.state is _S.GRANTED
            and consent.is_met(ask.demands)
            and not self.has_expired(consent)
        )

    def must_run(self, ask: Ask) -> bool:
        """Return whether nothing is left to wait for."""
        consent = ask.consent
        return (
            self.may_run(ask)
            and consent is not None
            and not self.may_have_expired(consent)
        )

    def add(self, approval_id: str, ask: Ask) -> Consent:
        """Note a new request."""
        consent = Consent(
            approval_id=approval_id,
            requester=ask.bound.requester,
            bound=ask.bound,
            demands=ask.demands,
            began_low=ask.low,
            began_high=ask.high,
            uses_left=min(demand.uses for demand in ask.demands),
        )
        self.by_id[approval_id] = consent
        return consent

    def was_asked(self, approval_id: str, ask: Ask) -> str:
        """
        Take note of what somebody has to wait for.

        Returns:
            What is wrong with it, or nothing.
        """
        known = self.by_id.get(approval_id)
        if ask.consent is not None and ask.consent is known:
            ask.consent.review(ask.demands)
            return ""
        if known is not None:
            return f"it waits for {known}"
        if ask.consent is not None:
            if not self.may_have_expired(ask.consent):
                return f"it must wait for {ask.consent}"
            ask.consent.state = _S.EXPIRED
        self.add(approval_id, ask)
        self.time.write()
        return ""

    def differs(self, info: ApprovalInfo) -> str:
        """
        Compare a request with what the HSM shows of it; find out what was lost.

        Returns:
            What is wrong, or nothing.
        """
        consent = self.by_id.get(info.approval_id)
        if consent is None:
            return self._adopted(info)
        steps = [step for lost, step in self.lost_steps if lost is consent]
        problem = self._problem(consent, info)
        for step in steps if problem else ():
            tried = copy.deepcopy(consent)
            step(tried)
            if not self._problem(tried, info):
                step(consent)
                problem = ""
                break
        if not problem and info.state is _S.EXPIRED:
            consent.state = _S.EXPIRED
        return f"{info.approval_id} {problem}" if problem else ""

    def survey(self, infos: Iterable[ApprovalInfo]) -> str:
        """Compare all; return what is wrong, or nothing."""
        seen = set[str]()
        for info in infos:
            seen.add(info.approval_id)
            problem = self.differs(info)
            if problem:
                return problem
        self.lost_asks, self.lost_steps = [], []
        gone = self.by_id.keys() - seen
        return f"{gone} are gone" if gone else ""

    def _adopted(self, info: ApprovalInfo) -> str:
        for ask in self.lost_asks:
            asked = ask.bound.requester, ask.bound.kind
            if asked == (info.operation.requester, info.operation.kind):
                consent = self.add(info.approval_id, ask)
                return self._problem(consent, info)
        return f"{info.approval_id} was asked for by nobody"

    def _problem(self, consent: Consent, info: ApprovalInfo) -> str:
        said = {person(d.principal): d.granted for d in info.decisions}
        wanted = {who: saying.granted for who, saying in consent.said.items()}
        if info.state is _S.EXPIRED:
            if not consent.is_open and consent.state is not _S.EXPIRED:
                return f"is expired, and was {consent.state}"
            if not self.may_have_expired(consent):
                return "is expired, and its time has not come"
            return "" if said == wanted else f"has {said}, not {wanted}"
        if consent.is_open and self.has_expired(consent):
            return f"is {info.state}, and its time has come"
        left = consent.uses_left
        if (info.state, info.uses_left, said) != (consent.state, left, wanted):
            shown = info.state, info.uses_left, said
            return f"is {shown}, not {(consent.state, left, wanted)}"
        return ""
