# SPDX-License-Identifier: MIT
"""Callers: principal, roles and certificate."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from hsm_core.errors import InvalidInputError
from hsm_core.model.records import CertificateNames, CertificateText, Line, Record

__all__ = [
    "Caller",
    "PolicyIdentity",
    "Role",
    "TokenClaims",
    "parse_role",
]


class Role(StrEnum):
    """Role of a principal."""

    ADMINISTRATOR = "Administrator"
    OPERATOR = "Operator"
    AUDITOR = "Auditor"
    SERVICE = "Service"


_ROLES = {role.value.lower(): role for role in Role} | {"admin": Role.ADMINISTRATOR}


def parse_role(name: str) -> Role:
    """
    Return the role that a name stands for, in any case; ``admin`` is accepted.

    Raises:
        InvalidInputError: There is no such role.
    """
    try:
        return _ROLES[name.lower()]
    except KeyError:
        raise InvalidInputError(
            f"Unknown role {name[:32]!r}. Use one of {', '.join(Role)}.",
            field="roles",
        ) from None


class Caller(Record, frozen=True, kw_only=True):
    """
    Caller, with all facts that a rule can match.

    No string holds a control character.

    Attributes:
        principal: Name of the person or service, 1 to 128 characters.
        roles: Roles granted by the credential.
        credential_id: ID of the credential (for a token, its ``jti`` or hash).
        credential_key: Name of the key that vouched for it, as `CredentialKeys` has it;
            empty if there is none. The trail does not keep it.
        credential_rules: Names of the policy's identity rules that gave the roles, if
            the policy knows the principal by a token. The trail does not keep them.
        certificate_sha256: Fingerprint of the client certificate, lower-case hex.
        certificate_subject: Its subject, as RFC 4514 writes it.
        certificate_names: Its alternative names: ``dns:``, ``email:``, ``ip:`` or
            ``uri:``, and the name.
        source_address: Network address of the peer.
        interface: Interface that the request came through: ``rest``, ``console``,
            ``embedded``, ``pkcs11`` or ``ssh-agent``; empty for the HSM itself. No rule
            can match it.
        interface_claimed: What the caller's program says of itself, such as ``cli`` or
            ``pkcs11: p11tool uid 1000``; not verified.
        single_use: Whether the credential is single-use: a token with an ID that was
            not presented before.
        request_id: Correlates audit records with the caller's logs.
        deadline: Instant of the injected monotonic clock, in seconds, after which the
            request is not begun; 0 means none.
    """

    principal: Line
    roles: frozenset[Role]
    credential_id: Line = ""
    credential_key: Line = ""
    credential_rules: tuple[Line, ...] = ()
    certificate_sha256: Line = ""
    certificate_subject: CertificateText = ""
    certificate_names: CertificateNames = ()
    source_address: Line = ""
    interface: Line = ""
    interface_claimed: Line = ""
    single_use: bool = False
    request_id: Line = ""
    deadline: float = 0.0


class TokenClaims(Record, frozen=True, kw_only=True):
    """
    Claims of a token whose issuer, signature and times were verified.

    Attributes:
        issuer: Issuer whose key has signed it, as the policy names it.
        audiences: Its audiences.
        claims: All of its claims, as JSON values.
        key_name: Name of the key, as `CredentialKeys` has it.
    """

    issuer: str
    audiences: tuple[str, ...]
    claims: dict[str, Any]
    key_name: Line = ""


class PolicyIdentity(Record, frozen=True, kw_only=True):
    """
    Principal that the policy's *identities* give to a certificate or a token.

    Attributes:
        principal: Name of the principal.
        roles: Roles of the principal.
        credential_key: Value for `Caller.credential_key`.
        credential_rules: Value for `Caller.credential_rules`.
    """

    principal: Line
    roles: frozenset[Role]
    credential_key: Line
    credential_rules: tuple[Line, ...] = ()
