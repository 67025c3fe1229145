# SPDX-License-Identifier: MIT
"""Policy in force: holder, identification by certificate, reload of the file."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from hsm_core import policies
from hsm_core._internal.lib.cells import Cell
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core._policies.certificate_identities import KnownPerson, person_of
from hsm_core._policies.token_identities import TokenIdentity, identity_of_token
from hsm_core.errors import (
    AuditUnavailableError,
    ConfigurationError,
    HSMError,
    UnavailableError,
)
from hsm_core.model import Caller, MessageDetail, Phase, PolicyIdentity, TokenClaims
from hsm_core.protocols import AuditDraft, AuditLog, Clock, SharedTrust

_PEOPLE: Final = "people"
_LATE: Final = (
    "The policy names people or certificates that another node has removed. They are "
    "rejected. Deploy that node's policy file to this node."
)


def _trust_names(people: Iterable[KnownPerson]) -> list[str]:
    return [name for person in people for name in person.trust_names.values()]


class PolicyHolder:
    """
    Holds the engine in force; putting another in its place is one step.

    Args:
        engine: The first.

        source: ``file``, or the name of a built-in policy.

        loaded_at: When it was read, in microseconds since 1970.

    Attributes:
        loaded: The engine that was put in force last.
        engine: The engine in force: the same, or without time while the clock is wrong.
        source: The same.
        loaded_at: When the policy in force was read.
        problem: Why the file that lies there now is not in force; else empty.
        failures: How often a file was refused since the HSM was opened.
        changes: Bumped by each engine that is put in force.
        people: People whom certificates alone name, without those whom a node of the
            cluster has removed.
    """

    def __init__(self, engine: RuleEngine, source: str, loaded_at: int) -> None:
        self.loaded = self.engine = engine
        self._is_clock_wrong = False
        self._lock = threading.Lock()
        self.source = source
        self.loaded_at = loaded_at
        self.problem = ""
        self.failures = 0
        self.changes = Cell()
        self._trust: SharedTrust | None = None
        self.people = engine.policy.people

    @property
    def finding(self) -> str:
        """The problem, or that the policy names whom or what another node removed."""
        is_late = self.people != self.engine.policy.people
        return self.problem or (_LATE if is_late else "")

    def follow(self, trust: SharedTrust) -> None:
        """Give nobody access whom any node of the cluster has removed."""
        self._trust = trust
        trust.on_change(self._follow_trust)
        self._follow_trust()

    def declare_people(self) -> None:
        """
        Withdraw the people whom the policy no longer names from all nodes.

        Raises:
            HSMError: It can't be done now; to be done again.
        """
        if self._trust is not None:
            names = _trust_names(self.engine.policy.people)
            self._trust.declare(_PEOPLE, trusted=names)

    def _follow_trust(self) -> None:
        with self._lock:
            self._find_people()

    def _find_people(self) -> None:
        people = self.engine.policy.people
        if self._trust is not None:
            withdrawn = self._trust.withdrawn(_PEOPLE, _trust_names(people))
            kept = (person.without(withdrawn) for person in people)
            people = tuple(person for person in kept if person is not None)
        self.people = people

    def policy_hash(self) -> str:
        """Return the hash of the policy in force, hex."""
        return self.engine.policy_hash

    def replace(self, engine: RuleEngine, loaded_at: int, *, problem: str = "") -> None:
        """Put another engine in force, for what begins from now on."""
        self.loaded_at = loaded_at
        self.problem = problem
        with self._lock:
            self._use(engine)

    def doubt_clock(self, is_wrong: bool) -> None:
        """Decide without time from now on, or with it again."""
        with self._lock:
            if is_wrong is not self._is_clock_wrong:
                self._is_clock_wrong = is_wrong
                self._use(self.loaded)

    def _use(self, engine: RuleEngine) -> None:
        self.loaded = engine
        self.engine = engine.without_time() if self._is_clock_wrong else engine
        self._find_people()
        self.changes.bump()

    def refuse(self, problem: str) -> None:
        """Remember that a file could not be put in force."""
        self.problem = problem
        self.failures += 1

    def settle(self) -> None:
        """Forget a problem: what lies there is what is in force."""
        self.problem = ""


class Recogniser:
    """
    Knows the people whom certificates and tokens name.

    Args:
        policy: What is in force.

        is_on: Whether a certificate alone names anybody.
    """

    def __init__(self, policy: PolicyHolder, *, is_on: bool) -> None:
        self._policy = policy
        self._is_on = is_on

    @property
    def asks_for_single_use(self) -> bool:
        """Whether a rule in force distinguishes tokens that were used."""
        return self._policy.engine.policy.asks_for_single_use

    def identify(self, caller: Caller) -> PolicyIdentity | None:
        """
        Return whom a caller's certificate names; None if nobody.

        Raises:
            AuthenticationError: It names several.
        """
        if not self._is_on:
            return None
        person = person_of(self.people(), caller)
        if person is None:
            return None
        return PolicyIdentity(
            principal=person.principal,
            roles=person.roles,
            credential_key=person.credential_key,
        )

    def identify_token(self, token: TokenClaims) -> PolicyIdentity | None:
        """
        Return the principal of a token; None if nobody.

        Raises:
            AuthenticationError: It names several.
        """
        policy = self._policy.engine.policy
        return identity_of_token(policy.token_identities, policy.people, token)

    def token_identities(self) -> tuple[TokenIdentity, ...]:
        """Return the identity rules about tokens that are in force."""
        return self._policy.engine.policy.token_identities

    def people(self) -> tuple[KnownPerson, ...]:
        """Return the people whom certificates alone name now."""
        return self._policy.people if self._is_on else ()


_SHOWN_CHARACTERS: Final = 300
_NOT_SHARED: Final = (
    "People removed from the policy may still have access on other nodes:"
)


class PolicyReloader:
    """
    Reads one policy file again and again.

    Args:
        path: The file; None where the policy is a built-in one, which never changes.

        holder: Holds what is in force.

        audit: The trail.

        clock: Time.

    Attributes:
        on_change: Called with the problem, or with nothing after a success.
    """

    def __init__(
        self, path: Path | None, holder: PolicyHolder, audit: AuditLog, clock: Clock
    ) -> None:
        self._path = path
        self._holder = holder
        self._audit = audit
        self._clock = clock
        self._lock = threading.Lock()
        self._in_force = _digest(holder.engine.policy.text.encode())
        self._refused = self._seen = ""
        self._owed: list[AuditDraft] = []
        self._is_shared = path is None
        self.on_change: Callable[[str], None] = lambda problem: None

    def begin(self) -> None:
        """Withdraw people whom the file stopped to name while the node was down."""
        with self._lock:
            self._share()

    def poll(self) -> None:
        """Load the file if its content has been stable for some time."""
        self._read(is_whole=False)

    def reload(self) -> str:
        """Put what the file holds in force now; return why not, or nothing."""
        self._read(is_whole=True)
        return self._holder.problem

    def _read(self, *, is_whole: bool) -> None:
        if self._path is None:
            return
        with self._lock:
            self._write_owed()
            self._share()
            try:
                data = policies.read_policy_file(self._path)
            except ConfigurationError as error:
                self._seen = ""
                self._refuse(str(error), str(error))
                return
            digest = _digest(data)
            was_seen = is_whole or digest == self._seen
            self._seen = digest
            if digest == self._in_force:
                self._refused = ""
                if self._holder.problem and self._is_shared:
                    self._holder.settle()
                    self.on_change("")
            elif was_seen and (is_whole or digest != self._refused):
                self._try(data, digest)

    def _try(self, data: bytes, digest: str) -> None:
        assert self._path is not None  # noqa: S101 (for the type checker)
        try:
            policy = policies.parse_policy_file(self._path, data)
        except (ConfigurationError, UnavailableError) as error:
            self._withdraw(data, digest, str(error))
            # What can't be read now is tried again, though the content is the same.
            is_faulty = isinstance(error, ConfigurationError)
            self._refuse(str(error), digest if is_faulty else str(error))
            return
        try:
            self._put_in_force(RuleEngine(policy), f"file {digest}")
        except AuditUnavailableError as error:
            if not self._holder.problem:
                self._holder.refuse(f"The new policy could not be recorded: {error}")
                self.on_change(self._holder.problem)
            # What a valid file takes away is gone as soon as what a faulty one does.
            self._withdraw(data, digest, self._holder.problem)
            return
        self._in_force, self._refused = digest, ""
        self._is_shared = False
        if self._share():
            self.on_change("")

    def _withdraw(self, data: bytes, digest: str, problem: str) -> None:
        """Grant no more what a file takes away that can't be put in force."""
        former = self._holder.engine.policy
        policy = policies.without_withdrawn(former, data)
        if policy is former:
            return
        engine = RuleEngine(policy)
        text = f"the previous policy minus the grants that file {digest} removes"
        # It is in force without its record, too: nothing is granted by it.
        self._holder.replace(engine, self._clock.now(), problem=problem)
        self._record_or_owe("system.policy-loaded", engine.policy_hash, text)
        # The content of before grants more, and is news again.
        self._in_force = ""
        self._is_shared = False
        self._share()

    def _share(self) -> bool:
        """
        Withdraw removed people from all nodes of a cluster; if it fails, later.

        Returns:
            Whether it is done.
        """
        if not self._is_shared:
            try:
                self._holder.declare_people()
            except HSMError as error:
                problem = f"{_NOT_SHARED} {error}"
                if problem != self._holder.problem:
                    self._holder.problem = problem
                    self.on_change(problem)
            else:
                self._is_shared = True
        return self._is_shared

    def _refuse(self, problem: str, mark: str) -> None:
        """Keep what is in force; count and tell once what is wrong with a content."""
        if mark == self._refused:
            self._holder.problem = problem
            return
        self._refused = mark
        self._holder.refuse(problem)
        self.on_change(problem)
        self._record_or_owe(
            "system.policy-refused",
            self._holder.policy_hash(),
            problem[:_SHOWN_CHARACTERS],
            code=ConfigurationError.code,
        )

    def _record_or_owe(
        self, kind: str, policy_hash: str, text: str, *, code: str = "ok"
    ) -> None:
        """Record it, with the next reading of the file if the trail is not there."""
        self._owed.append(_draft(kind, policy_hash, text, code))
        self._write_owed()

    def _write_owed(self) -> None:
        try:
            if self._owed:
                self._audit.append(self._owed, durable=True, reserved=True).wait()
                self._owed = []
        except AuditUnavailableError:
            pass  # That is an alarm of its own.

    def _put_in_force(self, engine: RuleEngine, text: str) -> None:
        """
        Record an engine, in force from its record on; without one, the former stays.

        Raises:
            AuditUnavailableError: It can't be recorded.
        """
        holder = self._holder
        former = holder.loaded, holder.loaded_at, holder.problem
        draft = _draft("system.policy-loaded", engine.policy_hash, text)

        def change() -> list[AuditDraft]:
            # No use by the former policy is recorded behind this.
            holder.replace(engine, self._clock.now())
            return [*self._owed, draft]

        try:
            self._audit.append(change, durable=True, reserved=True).wait()
        except AuditUnavailableError:
            if holder.loaded is engine:
                holder.replace(former[0], former[1], problem=former[2])
            raise
        self._owed = []


def _draft(kind: str, policy_hash: str, text: str, code: str = "ok") -> AuditDraft:
    return AuditDraft(
        phase=Phase.SINGLE,
        kind=kind,
        code=code,
        policy=policy_hash,
        detail=MessageDetail(text=text),
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
