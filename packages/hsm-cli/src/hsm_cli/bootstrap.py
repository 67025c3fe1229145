# SPDX-License-Identifier: MIT
"""Puts the parts together: the only module that builds anything of the core."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_cli.settings import ClientSettings
from hsm_core.errors import InvalidInputError
from hsm_core.model import Record, RepairDetail

if TYPE_CHECKING:
    from hsm_cli.client import RemoteHSM
    from hsm_core.approver_keys import ApproverKeys

_POLICIES: Final = frozenset({".json", ".yaml", ".yml"})


class OfflineReport(Record, frozen=True, kw_only=True):
    """
    What an intact trail holds.

    Attributes:
        records: How many records were verified.
        first_seq: The oldest one; those before were pruned, and a record that was
            verified says so.
        head_seq: The newest one, -1 for an empty trail.
        head_hash: Its leaf hash, hex; compare it with one written down before.
        macs_checked: Whether the HMAC key was given. Without it only the chain was
            checked, which a forger can make anew.
        clean: Whether the trail was closed in order at its end.
        in_use: Whether a server has it open.
        torn_bytes: Length of an unfinished tail, which is no record.
        consents_checked: How many signed consents were checked; None where no keys of
            approvers were given.
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


class LedgerReport(Record, frozen=True, kw_only=True):
    """
    What an intact retention ledger holds.

    Attributes:
        records: How many records were verified.
        head_seq: The newest one, -1 for an empty ledger.
        head_hash: Its leaf hash, hex; compare it with one written down before.
        macs_checked: Whether the HMAC key was given.
        in_use: Whether a server has it open.
        purges: Purges that were done.
        aborted: Purges that were begun and not done.
        unfinished: Purges whose outcome is not there yet.
        anchors: Places of the ledger that the trail names, and that agree; None if it
            was not compared with the trail.
        former: How often, by the trail, a new ledger took the place of a lost one; what
            those attested is not in it. None if it was not compared with the trail.
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


def open_remote(settings: ClientSettings) -> RemoteHSM:
    """
    Return the HSM of the server that the settings name.

    Raises:
        ConfigurationError: A setting or a file can't be used.
    """
    from hsm_cli.client import RemoteHSM
    from hsm_cli.identity.tokens import open_token

    return RemoteHSM(
        settings.endpoint,
        token=open_token(
            settings.token, has_certificate=settings.client_cert is not None
        ),
        ca_bundle=settings.ca_bundle,
        client_cert=settings.client_cert,
        client_key=settings.client_key,
        insecure=settings.insecure,
        timeout_seconds=settings.timeout_seconds,
    )


def read_approver_file(path: Path) -> ApproverKeys:
    """
    Return the keys of approvers that a file names.

    Args:
        path: A policy (``.yaml``, ``.yml``, ``.json``), or lines of principal and key.

    Raises:
        ConfigurationError: It can't be read, or is no valid policy.
        InvalidInputError: A line names no key.
    """
    from hsm_core.approver_keys import read_approver_keys, read_key_lines
    from hsm_core.policies import load_policy, read_policy_file

    if path.suffix.lower() in _POLICIES:
        return read_approver_keys(load_policy(path).approver_keys)
    try:
        return read_key_lines(read_policy_file(path).decode())
    except UnicodeDecodeError:
        raise InvalidInputError(
            f"{path} is not UTF-8.", field="approver_keys"
        ) from None


def verify_trail(
    path: Path,
    hmac_key: bytes | None,
    progress: Callable[[int], None] | None,
    approver_keys: ApproverKeys | None = None,
) -> OfflineReport:
    """
    Verify a trail in files or in SQLite without a server.

    Args:
        path: The live segment, with closed ones beside it; or the database.

        hmac_key: 32 bytes, or None to check the chain only.

        progress: Called now and then with the number of records verified.

        approver_keys: Keys that signed consents are checked with; None leaves that.

    Raises:
        AuditTamperedError: The trail is damaged; ``facts`` name ``seq`` and ``reason``.
        WrongAuditKeyError: The key is not the trail's.
        ConfigurationError: There is no trail, or it can't be read.
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


def recover_trail(path: Path, hmac_key: bytes) -> RepairDetail:
    """
    Recover a forked trail in files; see `hsm_core.factory.recover_trail`.

    Raises:
        AuditTamperedError: It is damaged in another way; nothing was changed.
        WrongAuditKeyError: The key is not the trail's.
        ConfigurationError: There is no trail, it is not forked, or is in use.
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

        hmac_key: 32 bytes, or None to check the chains only.

        trail: The trail that knows it; None compares nothing.

        progress: Called now and then with the number of records verified.

    Raises:
        LedgerTamperedError: It is damaged, or not what the trail says of it.
        AuditTamperedError: The trail is damaged.
        WrongAuditKeyError: The key is not theirs.
        ConfigurationError: One of them is not there, or can't be read.
    """
    from hsm_core import factory

    found = factory.verify_ledger(path, hmac_key, trail=trail, progress=progress)
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
        former=None if trail is None else found.former,
    )
