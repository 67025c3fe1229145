# SPDX-License-Identifier: MIT
"""Tokens of other issuers in a policy file: identities by issuer, audience, claims."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from hsm_core._policies.certificate_identities import KnownPerson, check_principal
from hsm_core._policies.policy_file import ClaimValue, IdentitySection, Path
from hsm_core._policies.policy_file import policy_fault as fault
from hsm_core.errors import AuthenticationError
from hsm_core.identities import identity, is_presentable, is_reserved
from hsm_core.model import PolicyIdentity, Role, TokenClaims

_POINTER: Final = "/"
_ESCAPES: Final = (("~1", "/"), ("~0", "~"))
_IN_FIELDS: Final = {"iss": "issuer", "aud": "audience"}


def claim_at(claims: Mapping[str, Any], name: str) -> Any:
    """
    Return a claim by name, or a member of one by JSON Pointer; None if it is absent.

    Standard:
        RFC 6901, without elements of arrays.
    """
    if not name.startswith(_POINTER):
        return claims.get(name)
    found: Any = claims
    for step in name[1:].split("/"):
        for escape, character in _ESCAPES:
            step = step.replace(escape, character)
        found = found.get(step) if isinstance(found, dict) else None
    return found


class ClaimTerms(msgspec.Struct, frozen=True):
    """
    Condition about one claim.

    Attributes:
        claim: Its name, or a JSON Pointer.
        texts: Accepted texts.
        others: Accepted numbers and truth values, as JSON: true is not 1.
        prefixes: Accepted beginnings of text.
    """

    claim: str
    texts: frozenset[str]
    others: frozenset[str]
    prefixes: tuple[str, ...]

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Return whether the claim, or an element of its list, has a value of these."""
        found = claim_at(claims, self.claim)
        return any(map(self._accepts, found if isinstance(found, list) else [found]))

    def _accepts(self, value: object) -> bool:
        if isinstance(value, str):
            return value in self.texts or value.startswith(self.prefixes)
        return isinstance(value, bool | int) and json.dumps(value) in self.others

    def may_hold_with(self, other: ClaimTerms) -> bool:
        """Return whether a value may meet both conditions."""
        if not self.texts.isdisjoint(other.texts):
            return True
        if not self.others.isdisjoint(other.others):
            return True
        return _may_begin(self, other.prefixes) or _may_begin(other, self.prefixes)

    def stated(self) -> list[object]:
        """Return it in a form that can be hashed."""
        return [self.claim, sorted(self.texts), sorted(self.others), self.prefixes]


def _may_begin(terms: ClaimTerms, prefixes: tuple[str, ...]) -> bool:
    """Return whether text that meets a condition may begin with one of the prefixes."""
    return bool(prefixes) and any(
        text.startswith(prefixes) for text in (*terms.texts, *terms.prefixes)
    )


class TokenIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """
    Identity rule: tokens of an issuer for an audience, with these claims.

    Attributes:
        principal: Name of the principal, or the text before it if a claim names it.
        principal_claim: Claim of the name; empty if *principal* is the name.
        claims: Conditions that must all hold; at least one.
    """

    principal: str
    principal_claim: str
    roles: frozenset[Role]
    issuer: str
    audience: str
    claims: tuple[ClaimTerms, ...]

    @property
    def name(self) -> str:
        """Name of the rule, another one as soon as other tokens match."""
        text = json.dumps(self._said())
        return hashlib.sha256(b"token " + text.encode()).hexdigest()

    def _said(self) -> list[object]:
        who = self.principal if self.principal_claim else identity(self.principal)
        asked = [terms.stated() for terms in self.claims]
        return [who, self.principal_claim, self.issuer, self.audience, asked]

    def stated(self) -> list[object]:
        """Return it in a form that can be hashed."""
        return [self.principal, sorted(self.roles), self._said()]

    def missing(self, token: TokenClaims) -> list[str]:
        """Return the conditions that a token does not meet, as fields of the rule."""
        found = [] if token.issuer == self.issuer else ["issuer"]
        if self.audience not in token.audiences:
            found.append("audience")
        return found + [
            f"claims.{terms.claim}"
            for terms in self.claims
            if not terms.holds(token.claims)
        ]

    def principal_of(self, token: TokenClaims) -> str | None:
        """Return the principal of a token; None if the rule does not match."""
        if token.issuer != self.issuer or self.audience not in token.audiences:
            return None
        if not all(terms.holds(token.claims) for terms in self.claims):
            return None
        if not self.principal_claim:
            return self.principal
        said = claim_at(token.claims, self.principal_claim)
        if not isinstance(said, str) or not said:
            return None
        found = self.principal + said
        return None if is_reserved(found) or not is_presentable(found) else found


def identity_of_token(
    rules: Sequence[TokenIdentity], people: Sequence[KnownPerson], token: TokenClaims
) -> PolicyIdentity | None:
    """
    Return the principal of a token, with the roles of all rules that match.

    Args:
        rules: Rules of the policy.

        people: People whom certificates identify.

        token: Verified claims.

    Returns:
        None if no rule matches.

    Raises:
        AuthenticationError: Rules that match name several principals, or a claim names
            a principal to whom the policy gives other credentials.
    """
    found = [(rule, name) for rule in rules if (name := rule.principal_of(token))]
    if not found:
        return None
    if len({identity(name) for _, name in found}) > 1:
        raise AuthenticationError
    named = [name for rule, name in found if not rule.principal_claim]
    principal = named[0] if named else found[0][1]
    if not named and identity(principal) in _given_names(rules, people):
        raise AuthenticationError
    by_role: dict[Role, str] = {}
    for rule, _ in found:
        for role in rule.roles:
            by_role.setdefault(role, rule.name)
    return PolicyIdentity(
        principal=principal,
        roles=frozenset(by_role),
        credential_key=token.key_name,
        credential_rules=tuple(sorted(set(by_role.values()))),
    )


def _given_names(
    rules: Iterable[TokenIdentity], people: Iterable[KnownPerson]
) -> set[str]:
    """Return the principals that a policy itself names, as they are compared."""
    names = {identity(person.principal) for person in people}
    return names | {identity(r.principal) for r in rules if not r.principal_claim}


def read_token_identities(
    sections: Sequence[IdentitySection], path: Path
) -> tuple[TokenIdentity, ...]:
    """
    Return the identity rules about tokens, in a stable order.

    Raises:
        InvalidInputError: A rule is incomplete, or what is sufficient for one principal
            is sufficient for another.
    """
    found: list[TokenIdentity] = []
    for number, section in enumerate(sections):
        if not section.is_about_tokens:
            continue
        at = (*path, number)
        rule = read_token_identity(section, at)
        for other in found:
            _check_apart(rule, other, at)
        found.append(rule)
    return tuple(sorted(found, key=lambda rule: json.dumps(rule.stated())))


def read_token_identity(section: IdentitySection, path: Path) -> TokenIdentity:
    """
    Return the identity rule of a section.

    Raises:
        InvalidInputError: A field is missing, or has no valid value.
    """
    if section.has_certificate_conditions:
        raise fault(
            "An entry matches certificates or tokens, not both. Make two entries.", path
        )
    if (section.principal is None) == (section.principal_claim is None):
        raise fault("Set either principal or principal_claim.", path)
    if section.principal_prefix is not None and section.principal_claim is None:
        raise fault(
            "principal_prefix requires principal_claim.", (*path, "principal_prefix")
        )
    if section.principal is not None:
        check_principal(section.principal, (*path, "principal"))
    for name in ("issuer", "audience", "claims"):
        if not getattr(section, name):
            raise fault(
                f"{name} is required: an entry for tokens has issuer, audience and at "
                "least one claim.",
                path,
            )
    said = section.claims or {}
    return TokenIdentity(
        principal=section.principal or section.principal_prefix or "",
        principal_claim=section.principal_claim or "",
        roles=frozenset(section.roles),
        issuer=section.issuer or "",
        audience=section.audience or "",
        claims=tuple(
            _read_claim(name, said[name], (*path, "claims", name))
            for name in sorted(said)
        ),
    )


_SEPARATORS: Final = frozenset("/:.-_@|")


def review_claims(rules: Iterable[TokenIdentity]) -> Iterator[str]:
    """
    Yield warnings about rules that say more than was meant.

    That is prefixes without an end, and claims that give one person two names.
    """
    naming: dict[str, str] = {}
    for rule in rules:
        claim = rule.principal_claim and naming.setdefault(
            rule.issuer, rule.principal_claim
        )
        if claim != rule.principal_claim:
            yield (
                f"Entries for {rule.issuer} take principals from {claim} and from "
                f"{rule.principal_claim}. A person with two names could approve their "
                "own requests. Use one claim."
            )
        for terms in rule.claims:
            for prefix in terms.prefixes:
                if prefix[-1] not in _SEPARATORS:
                    yield (
                        f"The identity of {rule.principal or rule.principal_claim} "
                        f"matches every {terms.claim} that begins with {prefix!r}. End "
                        "the prefix with a separator, such as '/'."
                    )


def _read_claim(name: str, said: ClaimValue, path: Path) -> ClaimTerms:
    if name in _IN_FIELDS:
        raise fault(f"Set {_IN_FIELDS[name]} instead.", path)
    texts, others, prefixes = set[str](), set[str](), set[str]()
    for value in said if isinstance(said, tuple) else (said,):
        if not isinstance(value, str):
            others.add(json.dumps(value))
        elif "*" not in value:
            texts.add(value)
        elif value.index("*") < len(value) - 1 or value == "*":
            raise fault(
                "The wildcard * is allowed only at the end, after other text.", path
            )
        else:
            prefixes.add(value[:-1])
    return ClaimTerms(
        name, frozenset(texts), frozenset(others), tuple(sorted(prefixes))
    )


def _check_apart(rule: TokenIdentity, other: TokenIdentity, path: Path) -> None:
    if rule.principal_claim and other.principal_claim:
        if _may_share_names(rule, other):
            raise fault(
                f"Principals of this entry and of another one for {other.issuer} can "
                "have the same name. Set a principal_prefix that the other does not "
                "begin with.",
                path,
            )
    elif not (
        rule.principal_claim
        or other.principal_claim
        or identity(rule.principal) == identity(other.principal)
    ) and (_may_be_both(rule, other) or _may_be_both(other, rule)):
        raise fault(
            f"These conditions also match {other.principal}. A token must identify one "
            "principal.",
            path,
        )


def _may_share_names(rule: TokenIdentity, other: TokenIdentity) -> bool:
    """Return whether claims of two sources of names may give the same name."""
    one, two = identity(rule.principal), identity(other.principal)
    sources = {(r.issuer, r.principal_claim, r.principal) for r in (rule, other)}
    return len(sources) > 1 and (one.startswith(two) or two.startswith(one))


def _may_be_both(one: TokenIdentity, other: TokenIdentity) -> bool:
    """Return whether a token that is sufficient for *one* may be so for *other*."""
    if (one.issuer, one.audience) != (other.issuer, other.audience):
        return False
    mine = {terms.claim: terms for terms in one.claims}
    return all(
        terms.claim in mine and mine[terms.claim].may_hold_with(terms)
        for terms in other.claims
    )
