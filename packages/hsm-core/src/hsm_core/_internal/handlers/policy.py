# SPDX-License-Identifier: MIT
"""The policy about itself: ShowPolicy, ExplainPolicy, TestPolicy."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.audit.reading import lines_from
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.handlers.base import (
    Answer,
    Handler,
    HandlerDependencies,
    Speed,
    answers,
    check_known,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import KeyDocument, key_facts
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core._internal.policy.explaining import change_of, explain, was_decided
from hsm_core._internal.policy.facts import StatedFacts
from hsm_core._internal.time.clock import instant, microseconds
from hsm_core._policies.certificate_identities import (
    KnownPerson,
    person_of,
    plain_fingerprint,
)
from hsm_core._policies.rules import KEYED, MAKING, PolicyRule, address_of
from hsm_core._policies.token_identities import TokenIdentity, identity_of_token
from hsm_core.algorithms import parse_algorithm
from hsm_core.errors import (
    AuthenticationError,
    InvalidInputError,
    KeyNotFoundError,
    MalformedError,
)
from hsm_core.identities import token_issuer
from hsm_core.model import AuditEvent, Caller, KeyId, TokenClaims
from hsm_core.policies import KNOWN_OPERATIONS, parse_policy
from hsm_core.protocols import KeyFacts
from hsm_core.wire import scan_json

_MOST_CHANGES: Final = 1000
_BLOCK: Final = 1000
_OF_MADE: Final = ("algorithm", "usages")
_STATED: Final = (*_OF_MADE, "name", "owner", "tags")
_STATING: Final = MAKING | {ops.UpdateKey.__name__}
_OTHER_KEYS: Final = {o.__name__: o.other_keys for o in ops.OPERATIONS}
_NAME_TYPES: Final = ("dns:", "email:", "ip:", "uri:")
_SHA256: Final = re.compile("[0-9a-f]{64}")
_ABOUT_A_KEY: Final = KEYED - MAKING - {ops.ListKeys.__name__}
"""Operations that can be explained for an existing key."""


@answers(ops.ShowPolicy)
def show_policy(
    services: HandlerDependencies, context: RequestContext[ops.ShowPolicy]
) -> ops.PolicyInfo:
    """Return the policy in force, and whether the present file is it."""
    holder = services.policy
    policy = holder.loaded.policy
    return ops.PolicyInfo(
        policy=policy.policy_hash,
        source=holder.source,
        text=policy.text,
        warnings=policy.warnings,
        loaded_at=instant(holder.loaded_at),
        failures=holder.failures,
        problem=holder.finding,
    )


@handles(ops.ExplainPolicy)
class ExplainPolicyHandler(Handler[ops.ExplainPolicy, ops.PolicyExplanation]):
    """Say what the policy would say."""

    speed = Speed.POOLED

    def resolve(
        self, operation: ops.ExplainPolicy, document: KeyDocument | None, /
    ) -> ops.ExplainPolicy:
        """Refuse an operation that there is not, and facts that it does not have."""
        check_known(operation.operation, KNOWN_OPERATIONS, field="operation")
        _check_facts(operation)
        return _with_plain_caller(operation)

    def perform(
        self, context: RequestContext[ops.ExplainPolicy], /
    ) -> Answer[ops.PolicyExplanation]:
        """
        Ask the policy in force, as if that caller asked for that.

        Raises:
            InvalidInputError: The answer depends on a key that is not named.
        """
        operation, engine = context.operation, self._services.policy.loaded
        caller = _known(
            operation.token_claims,
            Caller(
                principal=operation.principal,
                roles=frozenset(operation.roles),
                certificate_sha256=operation.certificate_sha256,
                certificate_subject=operation.certificate_subject,
                certificate_names=operation.certificate_names,
                source_address=operation.source_address,
                single_use=operation.single_use,
            ),
            engine,
            self._services.policy.people,
        )
        algorithm = operation.algorithm
        asked = StatedFacts(
            kind=operation.operation,
            algorithm=parse_algorithm(algorithm).value if algorithm else None,
            usages=tuple(usage.value for usage in operation.usages),
            name=operation.name,
            owner=operation.owner,
            tags=operation.tags,
        )
        keys = [
            self._key(context, operation.key_id) if operation.key_id else None,
            *(self._key(context, other) for other in operation.other_key_ids),
        ]
        now = self._services.clock.now()
        at = now if operation.at is None else microseconds(operation.at)
        found = explain(engine, asked, caller, keys, at)
        _check_algorithm(operation, found, engine, caller, at)
        _check_keys(operation, found, engine, caller, at)
        return Answer(found)

    def _key(
        self, context: RequestContext[ops.ExplainPolicy], reference: str
    ) -> KeyFacts:
        """Return the facts of a key, if who asks may know them."""
        entry = self._services.inventory.entry(reference)
        if entry is None:
            raise KeyNotFoundError
        facts = key_facts(self._services.inventory.document(KeyId(entry.key_id)))
        described = context.policy.decide(
            ops.DescribeKey(key_id=entry.key_id),
            context.caller,
            facts,
            at=self._services.clock.now(),
        )
        if not described.allowed or described.approvals:
            raise KeyNotFoundError
        return facts


def _check_facts(operation: ops.ExplainPolicy) -> None:
    """
    Refuse what the request that is asked about could not say.

    Raises:
        InvalidInputError: It makes or changes no key, and facts of one are given; or it
            is about no key, and one is named.
    """
    kind = operation.operation
    for field in _STATED:
        given = getattr(operation, field) not in (None, "", ())
        if given and kind not in (MAKING if field in _OF_MADE else _STATING):
            raise InvalidInputError(
                f"{kind} has no field {field}. Pass key_id to name an existing key.",
                field=field,
            )
    if len(operation.other_key_ids) > len(_OTHER_KEYS.get(kind, ())):
        raise InvalidInputError(
            f"{kind} refers to no other keys.", field="other_key_ids"
        )
    if operation.key_id and kind not in _ABOUT_A_KEY:
        raise InvalidInputError(f"key_id does not apply to {kind}.", field="key_id")


def _with_plain_caller(operation: ops.ExplainPolicy) -> ops.ExplainPolicy:
    """
    Return a question with the fingerprint as rules compare it.

    Raises:
        InvalidInputError: What it says of the caller could be true of nobody: an
            alternative name without a type, or what is no fingerprint or no address.
    """
    for name in operation.certificate_names:
        if not name.startswith(_NAME_TYPES):
            raise InvalidInputError(
                f"certificate_names must begin with {', '.join(_NAME_TYPES)}, got "
                f"{name[:64]!r}.",
                field="certificate_names",
            )
    address = operation.source_address
    if address and address_of(address) is None:
        raise InvalidInputError(
            f"source_address must be an IP address, got {address[:64]!r}.",
            field="source_address",
        )
    plain = plain_fingerprint(operation.certificate_sha256)
    if plain and _SHA256.fullmatch(plain) is None:
        raise InvalidInputError(
            "certificate_sha256 must be 64 hex digits, with or without colons.",
            field="certificate_sha256",
        )
    return msgspec.structs.replace(operation, certificate_sha256=plain)


def _check_keys(
    operation: ops.ExplainPolicy,
    found: ops.PolicyExplanation,
    engine: RuleEngine,
    caller: Caller,
    at: int,
) -> None:
    """
    Refuse to answer without all keys of a request where rules are about some of them.

    Raises:
        InvalidInputError: Rules or grants would hold or not, by the key.
    """
    kind = operation.operation
    lacks_key = not operation.key_id and kind in _ABOUT_A_KEY
    lacks_other = len(operation.other_key_ids) < len(_OTHER_KEYS.get(kind, ()))
    is_denied = any(rule.holds and rule.effect == "deny" for rule in found.rules)
    if is_denied or not (lacks_key or lacks_other):
        return
    names = engine.undecided(kind, caller, at)
    if kind == ops.UpdateKey.__name__:
        # It is decided by what may be done with the key before and after.
        about = (rule for rule in engine.policy.rules if rule.is_about_keys)
        names = tuple(
            f"rule {rule.name}"
            for rule in about
            if not KEYED.isdisjoint(rule.match.operations or KEYED)
        )
    if names:
        field = "key_id" if lacks_key else "other_key_ids"
        raise InvalidInputError(
            f"{field} is required: the decision on {kind} depends on the key "
            f"({', '.join(names)}).",
            field=field,
        )


def _check_algorithm(
    operation: ops.ExplainPolicy,
    found: ops.PolicyExplanation,
    engine: RuleEngine,
    caller: Caller,
    at: int,
) -> None:
    """
    Refuse to answer without the algorithm of a new key where rules are about it.

    Raises:
        InvalidInputError: Rules would hold or not, by the algorithm.
    """
    kind = operation.operation
    if operation.algorithm or kind not in MAKING:
        return
    open_rules = engine.undecided(kind, caller, at)
    names = {
        held.rule.name
        for held in engine.rules_about(kind)
        if f"rule {held.rule.name}" in open_rules
        and _is_about_algorithm(held.rule, has_usages=bool(operation.usages))
    }
    is_denied = any(
        rule.holds and rule.effect == "deny" and rule.name not in names
        for rule in found.rules
    )
    if names and not is_denied:
        raise InvalidInputError(
            f"algorithm is required: the decision on {kind} depends on it "
            f"(rule {', rule '.join(sorted(names))}).",
            field="algorithm",
        )


def _is_about_algorithm(rule: PolicyRule, *, has_usages: bool) -> bool:
    """Return whether a rule is about the algorithm, or about usages that it implies."""
    keys = [c.key for c in (rule.match, rule.exclusion) if c is not None]
    return any(
        key.algorithms is not None or (key.usages is not None and not has_usages)
        for key in keys
    )


def _known(
    claims: str, caller: Caller, engine: RuleEngine, people: Iterable[KnownPerson]
) -> Caller:
    """Return a caller with the name that was passed, or that of their credential."""
    if caller.principal:
        if claims:
            raise InvalidInputError(
                "token_claims must be omitted if principal is set.",
                field="token_claims",
            )
        return caller
    if caller.roles:
        raise InvalidInputError(
            "roles must be omitted unless principal is set.", field="roles"
        )
    if claims:
        return _named_by_token(claims, caller, engine)
    try:
        person = person_of(people, caller)
    except AuthenticationError:
        raise InvalidInputError(
            "The policy maps this certificate to several principals, so it can't sign "
            "in alone.",
            field="certificate_sha256",
        ) from None
    if person is None:
        raise InvalidInputError(
            "Pass principal, or a certificate or token that the policy maps to a "
            "principal.",
            field="principal",
        )
    return msgspec.structs.replace(
        caller, principal=person.principal, roles=person.roles
    )


def _named_by_token(claims: str, caller: Caller, engine: RuleEngine) -> Caller:
    """Return a caller with the principal that the identity rules give to a token."""
    rules = engine.policy.token_identities
    token = _token_of(claims, {rule.issuer for rule in rules})
    try:
        known = identity_of_token(rules, engine.policy.people, token)
    except AuthenticationError:
        raise InvalidInputError(
            "The policy maps this token to several principals, or its claim to a "
            "principal with other credentials, so it is rejected.",
            field="token_claims",
        ) from None
    if known is None:
        raise InvalidInputError(_why_nobody(rules, token), field="token_claims")
    return msgspec.structs.replace(caller, principal=known.principal, roles=known.roles)


def _token_of(text: str, issuers: Collection[str]) -> TokenClaims:
    try:
        claims = scan_json(text.encode())
    except MalformedError as error:
        raise InvalidInputError(
            f"token_claims: {error}", field="token_claims"
        ) from None
    if not isinstance(claims, dict):
        raise InvalidInputError(
            "token_claims must be a JSON object.", field="token_claims"
        )
    said = claims.get("aud")
    audiences = said if isinstance(said, list) else [said]
    return TokenClaims(
        issuer=token_issuer(claims, issuers),
        audiences=tuple(one for one in audiences if isinstance(one, str)),
        claims=claims,
    )


def _why_nobody(rules: Sequence[TokenIdentity], token: TokenClaims) -> str:
    """Return the conditions of the nearest rule that a token does not meet."""
    if not token.issuer:
        return "No identity rule of the policy names this token's issuer."
    of_issuer = [rule for rule in rules if rule.issuer == token.issuer]
    nearest = min(of_issuer, key=lambda r: (len(r.missing(token)), -len(r.claims)))
    missing = nearest.missing(token)
    if not missing:
        return "The claim named by principal_claim holds no valid principal name."
    return (
        "No identity rule of the policy matches this token. The nearest one differs "
        f"in {', '.join(missing)}."
    )


@handles(ops.TestPolicy)
class TestPolicyHandler(Handler[ops.TestPolicy, ops.PolicyTest]):
    """Replay the trail against a policy that is not in force."""

    speed = Speed.SLOW

    def perform(
        self, context: RequestContext[ops.TestPolicy], /
    ) -> Answer[ops.PolicyTest]:
        """Verify a range of the trail, and decide again on every request in it."""
        operation = context.operation
        policy = parse_policy(operation.policy)
        engine = RuleEngine(policy)
        verified = self._services.verify(operation.start_seq, operation.limit)
        changes, decided, seq = list[ops.PolicyChange](), 0, verified.start_seq
        end = verified.start_seq + verified.verified
        while seq < end and len(changes) < _MOST_CHANGES:
            for event in self._events(seq, min(_BLOCK, end - seq)):
                seq = event.seq + 1
                decided += was_decided(event)
                change = change_of(event, engine)
                if change is not None:
                    changes.append(change)
                if len(changes) >= _MOST_CHANGES:
                    break
        return Answer(
            ops.PolicyTest(
                policy=policy.policy_hash,
                warnings=policy.warnings,
                start_seq=verified.start_seq,
                next_seq=seq if seq <= verified.head_seq else None,
                requests=decided,
                changes=tuple(changes),
            )
        )

    def _events(self, seq: int, limit: int) -> list[AuditEvent]:
        first, lines = lines_from(self._services.audit, seq, limit)
        numbered = enumerate(islice(lines, limit), first)
        return [event_of(line, number) for number, line in numbered]
