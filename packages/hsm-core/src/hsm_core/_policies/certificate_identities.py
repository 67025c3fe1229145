# SPDX-License-Identifier: MIT
"""Client certificates in a policy file: identities and conditions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from hsm_core._policies.policy_file import IdentitySection, Path, policy_fault
from hsm_core.errors import AuthenticationError
from hsm_core.identities import identity, is_presentable, is_reserved
from hsm_core.model import Caller, Record, Role

T = TypeVar("T")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ALTERNATIVE_NAMES: Final = ("dns:", "email:", "ip:", "uri:")


def given(
    section: Record, name: str, path: Path, read: Callable[[Any, Path], T]
) -> T | None:
    """Return the value of a field, read at its path; None where it is not given."""
    value = getattr(section, name)
    return None if value is None else read(value, (*path, name))


def read_certificates(names: tuple[str, ...], path: Path) -> frozenset[str]:
    """
    Return fingerprints in lower case, without colons.

    Raises:
        InvalidInputError: One is none.
    """
    found = set()
    for number, name in enumerate(names):
        plain = plain_fingerprint(name)
        if _SHA256.fullmatch(plain) is None:
            raise policy_fault(
                "A SHA-256 fingerprint must be 64 hex digits.",
                (*path, number),
            )
        found.add(plain)
    return frozenset(found)


def plain_fingerprint(name: str) -> str:
    """Return a fingerprint as it is compared: in lower case, without colons."""
    return name.replace(":", "").lower()


def check_alternative_name(name: str, path: Path) -> None:
    """
    Check that an alternative name says of which kind it is.

    Raises:
        InvalidInputError: It does not.
    """
    if not name.startswith(_ALTERNATIVE_NAMES):
        raise policy_fault(
            f"A certificate name must begin with {', '.join(_ALTERNATIVE_NAMES)}.", path
        )


_VOUCHER: Final = "certificate "
"""Prefix of section names; names of token keys are hexadecimal."""


class KnownPerson(msgspec.Struct, frozen=True, kw_only=True):
    """
    Somebody whom a client certificate names.

    Attributes:
        certificates: Fingerprints, one of which it must have; None where that is not
            asked, and so of the others.
    """

    principal: str
    roles: frozenset[Role]
    certificates: frozenset[str] | None = None
    subjects: frozenset[str] | None = None
    names: frozenset[str] | None = None

    def is_named_by(self, caller: Caller) -> bool:
        """Return whether a caller's certificate is theirs."""
        return (
            (
                self.certificates is None
                or caller.certificate_sha256.lower() in self.certificates
            )
            and (self.subjects is None or caller.certificate_subject in self.subjects)
            and (
                self.names is None
                or not self.names.isdisjoint(caller.certificate_names)
            )
        )

    @property
    def credential_key(self) -> str:
        """
        What stands in the place of a token's key in `Caller.credential_key`.

        It is another one as soon as another certificate would do.
        """
        asked = [self.certificates, self.subjects, self.names]
        said = [None if terms is None else sorted(terms) for terms in asked]
        text = json.dumps([identity(self.principal), said])
        return _VOUCHER + hashlib.sha256(text.encode()).hexdigest()

    @property
    def trust_names(self) -> dict[str, str]:
        """Names of the pairs of person and certificate, by fingerprint or nothing."""
        asked = [self.subjects, self.names]
        said = [None if terms is None else sorted(terms) for terms in asked]
        return {
            sha256: hashlib.sha256(
                json.dumps([identity(self.principal), said, sha256]).encode()
            ).hexdigest()
            for sha256 in (self.certificates or {""})
        }

    def without(self, withdrawn: Collection[str]) -> KnownPerson | None:
        """Return this person without some of `trust_names`; None without any."""
        names = self.trust_names.items()
        kept = {sha256 for sha256, name in names if name not in withdrawn}
        if self.certificates is None or not kept:
            return self if kept else None
        return replace(self, certificates=frozenset(kept))

    def stated(self) -> list[object]:
        """Return it in a form that can be hashed."""
        return [self.principal, sorted(self.roles), self.credential_key]


def person_of(people: Iterable[KnownPerson], caller: Caller) -> KnownPerson | None:
    """
    Return whom the certificate of a caller names; None if nobody.

    Raises:
        AuthenticationError: It names several, so nobody knows who it is.
    """
    found = [person for person in people if person.is_named_by(caller)]
    if len(found) > 1:
        raise AuthenticationError
    return found[0] if found else None


def read_people(
    sections: Sequence[IdentitySection], path: Path
) -> tuple[KnownPerson, ...]:
    """
    Return the people of a policy file, by name.

    Raises:
        InvalidInputError: A name is nobody's, or the same certificate names two.
    """
    found: list[KnownPerson] = []
    for number, section in enumerate(sections):
        at = (*path, number)
        if section.is_about_tokens:
            continue
        person = _read_person(section, at)
        for other in found:
            _check_apart(person, other, at)
        found.append(person)
    return tuple(sorted(found, key=lambda person: person.principal))


def check_principal(principal: str, path: Path) -> None:
    """
    Check a name that the policy gives to a principal.

    Raises:
        InvalidInputError: It is not presentable, or reserved for the HSM.
    """
    if not is_presentable(principal):
        raise policy_fault(
            "A principal must be printable text in NFC, without leading or trailing "
            "spaces or invisible characters.",
            path,
        )
    if is_reserved(principal):
        raise policy_fault("This name is reserved for the HSM.", path)


def _read_person(section: IdentitySection, path: Path) -> KnownPerson:
    if section.principal is None:
        raise policy_fault("principal is required.", path)
    check_principal(section.principal, (*path, "principal"))
    if not section.has_certificate_conditions:
        raise policy_fault(
            "At least one condition is required: about a certificate, or issuer, "
            "audience and claims.",
            path,
        )
    person = KnownPerson(
        principal=section.principal,
        roles=frozenset(section.roles),
        certificates=given(section, "certificates", path, read_certificates),
        subjects=given(section, "certificate_subjects", path, _read_whole),
        names=given(section, "certificate_names", path, _read_whole),
    )
    for place, name in enumerate(section.certificate_names or ()):
        check_alternative_name(name, (*path, "certificate_names", place))
    return person


def _read_whole(values: tuple[str, ...], path: Path) -> frozenset[str]:
    for number, value in enumerate(values):
        if value.endswith("*"):
            raise policy_fault(
                "The wildcard * is not allowed here. Give the whole value.",
                (*path, number),
            )
    return frozenset(values)


def _check_apart(person: KnownPerson, other: KnownPerson, path: Path) -> None:
    if identity(person.principal) == identity(other.principal):
        raise policy_fault(
            "Duplicate principal. List all values in one entry.",
            (*path, "principal"),
        )
    if _may_be_both(person, other) or _may_be_both(other, person):
        raise policy_fault(
            f"These conditions also match {other.principal}. A certificate must "
            "identify one principal.",
            path,
        )


def _may_be_both(one: KnownPerson, other: KnownPerson) -> bool:
    """Return whether what is enough to be the one may be enough to be the other."""
    pairs = (
        (one.certificates, other.certificates),
        (one.subjects, other.subjects),
        (one.names, other.names),
    )
    return all(
        theirs is None or (mine is not None and not mine.isdisjoint(theirs))
        for mine, theirs in pairs
    )
