# SPDX-License-Identifier: MIT
"""Facts and checks that the blocking and the asynchronous objects share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

from hsm_core.algorithms import Algorithm, KeyUsage, parse_algorithm
from hsm_core.errors import ConflictError, InvalidInputError
from hsm_core.model import KeyId, KeyInfo, KeyState, Role, parse_role
from hsm_core.operations import ApprovalInfo, AuditVerification, join_ranges

DAMAGED: Final = "damaged"
"""State shown for a key whose stored form failed its integrity check."""


class KeyMetadata:
    """
    Metadata of a key, as of the last call that returned it.

    Attributes:
        info: All metadata.
    """

    info: KeyInfo

    @property
    def id(self) -> KeyId:
        """Key ID, a UUID; it never changes."""
        return self.info.key_id

    @property
    def name(self) -> str:
        """Unique name, or empty."""
        return self.info.name

    @property
    def algorithm(self) -> Algorithm | None:
        """Algorithm; None if the stored form of the key is damaged."""
        return self.info.algorithm

    @property
    def version(self) -> int:
        """Number of the current version, from 1."""
        return self.info.version

    @property
    def state(self) -> KeyState | None:
        """State of the current version; None if the stored form is damaged."""
        return self.info.state

    def __repr__(self) -> str:
        """Return name or ID, algorithm, version, number of versions and state."""
        info = self.info
        name = f"{type(self).__name__} {info.name or info.key_id}"
        if info.algorithm is None or info.state is None:
            return f"<{name}, {DAMAGED}>"
        count = f" of {info.versions}" if info.versions else ""
        return f"<{name} {info.algorithm} version {info.version}{count}, {info.state}>"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AuditReport:
    """
    Result of a verification of the whole audit log; damage raises an error instead.

    Attributes:
        records: Number of records verified.
        head_seq: Sequence number of the newest record; in a cluster, that of the last
            of *logs*.
        head_hash: Its leaf hash, 64 hex digits; store it elsewhere to compare later.
        logs: Result for each log, with its node and ID; several in a cluster.
    """

    records: int
    head_seq: int
    head_hash: str
    logs: tuple[AuditVerification, ...]

    def __repr__(self) -> str:
        return f"<AuditReport intact, {self.records} records>"


def audit_report(ranges: Iterable[AuditVerification]) -> AuditReport:
    """Return the report of a verification, range by range."""
    logs = join_ranges(ranges)
    return AuditReport(
        records=sum(log.verified for log in logs),
        head_seq=logs[-1].head_seq,
        head_hash=logs[-1].head_hash,
        logs=logs,
    )


def roles_of(roles: Iterable[Role | str]) -> frozenset[Role]:
    """
    Return roles by their names, in any case.

    Raises:
        InvalidInputError: There is none, one is unknown, or *roles* is one string.
    """
    found = frozenset(parse_role(str(role)) for role in strings_of("roles", roles))
    if not found:
        raise InvalidInputError(
            f"roles must not be empty. Use one or more of {', '.join(Role)}.",
            field="roles",
        )
    return found


def usages_of(usages: Iterable[KeyUsage | str]) -> tuple[KeyUsage, ...]:
    """
    Return key usages by their names.

    Raises:
        InvalidInputError: One is unknown, or *usages* is one string.
    """
    return tuple(_usage_of(usage) for usage in strings_of("usages", usages))


def _usage_of(name: str) -> KeyUsage:
    try:
        return KeyUsage(name)
    except ValueError:
        raise InvalidInputError(
            f"Unknown usage {name[:32]!r}. Use one or more of {', '.join(KeyUsage)}.",
            field="usages",
        ) from None


def state_of(state: KeyState | str | None) -> KeyState | None:
    """
    Return a state by its name; None for None.

    Raises:
        InvalidInputError: There is no such state.
    """
    try:
        return None if state is None else KeyState(state)
    except ValueError:
        raise InvalidInputError(
            f"Unknown state {str(state)[:32]!r}. Use one of {', '.join(KeyState)}.",
            field="state",
        ) from None


def strings_of(field: str, values: Iterable[str]) -> tuple[str, ...]:
    """
    Return several strings; one string instead of several is an error, not its letters.

    Raises:
        InvalidInputError: *values* is a string, not iterable, or holds something else.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        _refuse_type(field, 'several strings, such as ["a", "b"]', values)
    found = tuple(values)
    for value in found:
        if not isinstance(value, str):
            _refuse_type(field, "strings only", value)
    return found


def data_of(field: str, value: object) -> bytes:
    """
    Return bytes.

    Raises:
        InvalidInputError: *value* is something else, such as text.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        raise InvalidInputError(
            f"{field} must be bytes, got str. Encode it: {field}.encode().",
            field=field,
        )
    _refuse_type(field, "bytes", value)


def approval_of(approval: ApprovalInfo) -> ApprovalInfo:
    """
    Return an approval request that somebody has read before deciding.

    Raises:
        InvalidInputError: *approval* is only an ID, or something else.
    """
    if not isinstance(approval, ApprovalInfo):
        _refuse_type(
            "approval", "an ApprovalInfo, as approval(ID) returns it", approval
        )
    return approval


def check_same_algorithm(info: KeyInfo, algorithm: str) -> None:
    """
    Check that a key that exists already has the algorithm asked for.

    Raises:
        ConflictError: It has another one.
    """
    wanted = parse_algorithm(algorithm)
    if info.algorithm is not wanted:
        raise ConflictError(
            f"The key {info.name} exists with the algorithm {info.algorithm}, not "
            f"{wanted}. Choose another name.",
            field="algorithm",
        )


def _refuse_type(field: str, wanted: str, value: object) -> NoReturn:
    raise InvalidInputError(
        f"{field} must be {wanted}, got {type(value).__name__}.", field=field
    )
