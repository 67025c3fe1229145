# SPDX-License-Identifier: MIT
"""Audit logs and retention ledgers without a server: verify, read, recover."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, overload

import click

from hsm_core.errors import InvalidInputError
from hsm_core.model import Record, RepairDetail
from hsm_core.secret_input import read_secret

if TYPE_CHECKING:
    from hsm_core.approver_keys import ApproverKeys
    from hsm_core.factory import LedgerVerification
    from hsm_core.model import AuditEntry
    from hsm_core.operations import AuditPage, ListAuditEvents


_POLL: Final = 0.2
"""Seconds between two looks at the end of an audit log."""

_POLICIES: Final = frozenset({".json", ".yaml", ".yml"})


class OfflineReport(Record, frozen=True, kw_only=True):
    """
    Verification report of an intact audit log.

    Attributes:
        records: Number of verified records.
        first_seq: Sequence number of the oldest record; a verified record accounts for
            the pruned ones before it.
        head_seq: Sequence number of the newest record, -1 if the log is empty.
        head_hash: Its leaf hash, hex, to compare with an earlier copy.
        macs_checked: Whether the HMAC key was given. Without it only the hash chain was
            checked, which an attacker can forge.
        clean: Whether the log was closed cleanly; false without the HMAC key.
        in_use: Whether a server has it open.
        torn_bytes: Length of an incomplete last record.
        consents_checked: Number of verified signed approvals; None if no approver keys
            were given.
    """

    records: int
    first_seq: int
    head_seq: int
    head_hash: str
    log_id: str
    macs_checked: bool
    clean: bool
    torn_bytes: int
    consents_checked: int | None = None
    in_use: bool = False


class ClusterLogReport(Record, frozen=True, kw_only=True):
    """
    Verification report of the audit log of one node.

    Attributes:
        node: Node that writes it.
        log_id: Identifier of the log.
        records: Number of verified records.
        first_seq: Sequence number of the oldest record; a verified record accounts for
            the pruned ones before it.
        head_seq: Sequence number of the newest record, -1 if the log is empty.
        head_hash: Its leaf hash, hex, to compare with an earlier copy.
        clean: Whether the log was closed cleanly; false without the HMAC key.
    """

    node: str
    log_id: str
    records: int
    first_seq: int
    head_seq: int
    head_hash: str
    clean: bool


class LedgerReport(Record, frozen=True, kw_only=True):
    """
    Verification report of an intact retention ledger.

    Attributes:
        records: Number of verified records.
        head_seq: Sequence number of the newest record, -1 if the ledger is empty.
        head_hash: Its leaf hash, hex, to compare with an earlier copy.
        macs_checked: Whether the HMAC key was given.
        in_use: Whether a server has it open.
        purges: Completed purges.
        aborted: Purges that were started and aborted.
        unfinished: Purges without an outcome so far.
        anchors: Number of matching anchors in the audit log; None if the ledger was not
            compared with it.
        former: Number of lost ledgers that were replaced, from the audit log; their
            records are not in this one. None if the ledger was not compared with it.
    """

    records: int
    head_seq: int
    head_hash: str
    log_id: str
    macs_checked: bool
    clean: bool
    purges: int
    aborted: int
    unfinished: int
    anchors: int | None = None
    former: int | None = None
    in_use: bool = False


class ClusterReport(Record, frozen=True, kw_only=True):
    """
    Verification report of the intact audit logs of a cluster.

    Attributes:
        records: Number of verified records in all logs.
        macs_checked: Whether the HMAC key was given. Without it only the hash chains
            were checked, which an attacker can forge.
        consents_checked: Number of verified signed approvals; None if no approver keys
            were given.
        logs: Report of each log.
        ledger: Report of the retention ledger; None if there is none.
    """

    records: int
    macs_checked: bool
    consents_checked: int | None
    logs: tuple[ClusterLogReport, ...]
    ledger: LedgerReport | None = None


def read_approver_file(path: Path) -> ApproverKeys:
    """
    Read the approver keys of a file.

    Args:
        path: A policy (``.yaml``, ``.yml``, ``.json``), or lines of principal and key.

    Raises:
        ConfigurationError: It can't be read, or is not a valid policy.
        InvalidInputError: A line has no valid key.
    """
    from hsm_core.approver_keys import read_approver_keys, read_key_lines
    from hsm_core.policies import load_policy, read_policy_file

    if path.suffix.lower() in _POLICIES:
        return read_approver_keys(load_policy(path).approver_keys)
    try:
        return read_key_lines(read_policy_file(path).decode())
    except UnicodeDecodeError:
        raise InvalidInputError(
            f"{path} must be UTF-8 text.", field="approver_keys"
        ) from None


def verify_trail(
    path: Path,
    hmac_key: bytes | None,
    progress: Callable[[int], None] | None,
    approver_keys: ApproverKeys | None = None,
) -> OfflineReport:
    """
    Verify an audit log in files or in SQLite, without a server.

    Args:
        path: The live segment, in the directory of the closed ones; or the database.

        hmac_key: 32 bytes, or None to check only the hash chain.

        progress: Called periodically with the number of verified records.

        approver_keys: Keys to verify signed approvals with, or None.

    Raises:
        AuditTamperedError: The log is damaged; ``facts`` hold ``seq`` and ``reason``.
        WrongAuditKeyError: The key does not belong to the log.
        ConfigurationError: There is no log, or it can't be read.
    """
    from hsm_core.factory import ConsentAudit, open_verifier

    consents = None if approver_keys is None else ConsentAudit(approver_keys)
    look = None if consents is None else consents.look
    found = open_verifier(path, hmac_key).verify(progress, look)
    return OfflineReport(
        records=found.records,
        first_seq=found.first_seq,
        head_seq=found.head_seq,
        head_hash=found.head_hash,
        log_id=found.log_id,
        macs_checked=found.macs_checked,
        clean=found.clean,
        in_use=found.in_use,
        torn_bytes=found.torn_bytes,
        consents_checked=None if consents is None else consents.checked,
    )


def verify_cluster(
    store: str,
    hmac_key: bytes | None,
    progress: Callable[[int], None] | None,
    approver_keys: ApproverKeys | None = None,
) -> ClusterReport:
    """
    Verify the audit logs of a cluster and its retention ledger, without a server.

    Args:
        store: Address of the database, without password.

        hmac_key: 32 bytes, or None to check only the hash chains.

        progress: Called periodically with the number of verified records.

        approver_keys: Keys to verify signed approvals with, or None.

    Raises:
        AuditTamperedError: A log is damaged, or the logs contradict each other.
        LedgerTamperedError: The ledger is damaged, or does not match the logs.
        WrongAuditKeyError: The key does not belong to the logs.
        ConfigurationError: There is no cluster, or it can't be read.
    """
    from hsm_core import factory

    consents = None if approver_keys is None else factory.ConsentAudit(approver_keys)
    look = None if consents is None else consents.look
    found = factory.verify_cluster(store, hmac_key, progress, look)
    logs = tuple(
        ClusterLogReport(
            node=each.node,
            log_id=each.log.log_id,
            records=each.log.records,
            first_seq=each.log.first_seq,
            head_seq=each.log.head_seq,
            head_hash=each.log.head_hash,
            clean=each.log.clean,
        )
        for each in found.logs
    )
    return ClusterReport(
        records=sum(log.records for log in logs),
        macs_checked=hmac_key is not None,
        consents_checked=None if consents is None else consents.checked,
        logs=logs,
        ledger=None if found.ledger is None else _ledger_report(found.ledger),
    )


def read_trail(path: Path, hmac_key: bytes | None, query: ListAuditEvents) -> AuditPage:
    """
    Verify an audit log without a server, and return a page of its records.

    Raises:
        HSMError: See `hsm_core.factory.read_trail`.
    """
    from hsm_core import factory

    return factory.read_trail(path, hmac_key, query)


def follow_trail(
    path: Path,
    hmac_key: bytes | None,
    query: ListAuditEvents,
    show: Callable[[AuditEntry], None],
) -> NoReturn:
    """
    Verify an audit log in files without a server, and show records until Ctrl-C.

    Raises:
        HSMError: See `hsm_core.factory.follow_trail`.
    """
    from hsm_core import factory

    factory.follow_trail(path, hmac_key, query, show, partial(time.sleep, _POLL))


def recover_trail(path: Path, hmac_key: bytes) -> RepairDetail:
    """
    Recover a forked audit log in files; see `hsm_core.factory.recover_trail`.

    Raises:
        AuditTamperedError: It has other damage; nothing was changed.
        WrongAuditKeyError: The key does not belong to the log.
        ConfigurationError: There is no log, it is not forked, or is in use.
        AuditUnavailableError: It can't be read or written.
    """
    from hsm_core import factory

    return factory.recover_trail(path, hmac_key)


def verify_ledger(
    path: Path,
    hmac_key: bytes | None,
    trail: Path | None,
    progress: Callable[[int], None] | None,
) -> LedgerReport:
    """
    Verify a retention ledger without a server.

    Args:
        path: The ledger's live file.

        hmac_key: 32 bytes, or None to check only the hash chains.

        trail: Audit log to compare the ledger with, or None.

        progress: Called periodically with the number of verified records.

    Raises:
        LedgerTamperedError: It is damaged, or does not match the audit log.
        AuditTamperedError: The audit log is damaged.
        WrongAuditKeyError: The key does not belong to them.
        ConfigurationError: One of them is missing, or can't be read.
    """
    from hsm_core import factory

    found = factory.verify_ledger(path, hmac_key, trail=trail, progress=progress)
    return _ledger_report(found)


def _ledger_report(found: LedgerVerification) -> LedgerReport:
    return LedgerReport(
        records=found.chain.records,
        head_seq=found.chain.head_seq,
        head_hash=found.chain.head_hash,
        log_id=found.chain.log_id,
        macs_checked=found.chain.macs_checked,
        clean=found.chain.clean,
        in_use=found.chain.in_use,
        purges=found.purges,
        aborted=found.aborted,
        unfinished=found.unfinished,
        anchors=found.anchors,
        former=None if found.anchors is None else found.former,
    )


_HMAC_KEY_BYTES: Final = 32


def hmac_key_option(
    what: str, *, required: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Add the option *hmac_key*: a source of a secret, or None.

    Args:
        what: Description of the key.

        required: Whether the option is required.
    """
    without = (
        ""
        if required
        else " Without it only the hash chain is checked, which an attacker can forge."
    )
    return click.option(
        "--hmac-key",
        envvar="FERROHSM_HMAC_KEY",
        show_envvar=True,
        required=required,
        metavar="SECRET",
        help=f"{what}: base64, @FILE or fd:N.{without}",
    )


@overload
def read_hmac_key(form: str) -> bytes: ...


@overload
def read_hmac_key(form: str | None) -> bytes | None: ...


def read_hmac_key(form: str | None) -> bytes | None:
    """
    Read an HMAC key of 32 bytes, or return None.

    Raises:
        InvalidInputError: It can't be read, or has a wrong length.
    """
    if form is None:
        return None
    return read_secret(
        form, field="hmac_key", minimum=_HMAC_KEY_BYTES, exact=_HMAC_KEY_BYTES
    )


def describe_checks(*, macs: bool) -> str:
    """Describe the checks that were made, with or without the key."""
    if macs:
        return "every MAC and the hash chain"
    return "the hash chain only, which an attacker can forge; pass --hmac-key"


def end_pair(*, is_clean: bool, in_use: bool, macs: bool) -> tuple[str, str]:
    """Return the state of the end of a log, as a name and a value."""
    if in_use:
        return "state", "in use by a server"
    if not macs:
        return "closed cleanly", "not checked; pass --hmac-key"
    return "closed cleanly", "yes" if is_clean else "no"
