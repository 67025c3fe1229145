# SPDX-License-Identifier: MIT
"""Approval requests: display, digest check and signed decisions."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Candidate, Source, encode_base64, hash_digest, hash_mus
from hsm_cli.io.output import neutral
from hsm_cli.io.results import instant
from hsm_cli.io.tables import Column, short_id
from hsm_cli.options import given_as_flag
from hsm_cli.parameters import one_of
from hsm_core.algorithms import HashAlgorithm
from hsm_core.consent import (
    ShownChange,
    ShownContext,
    ShownField,
    ShownOperation,
    check_shown,
    hidden_sha256,
    shown_sha256,
    statement,
)
from hsm_core.errors import IntegrityError
from hsm_core.model import ApprovalDemand
from hsm_core.operations import OPERATIONS
from hsm_core.operations.approvals import ApprovalInfo, DecisionInfo
from hsm_core.operations.keys import GetPublicKey
from hsm_core.operations.signing import Sign, SignBatch
from hsm_core.secret_input import is_literal_secret

CHANGE_HEADER = ("Field", "Before", "After", "")
FIELD_HEADER = ("Field", "Type", "Value")

_HEX_BYTES: Final = 32
"""Longest bytes that are shown as hex; longer ones are shown as base64."""

SIGNING: Final = (Sign.__name__, SignBatch.__name__)
"""Operations that sign data."""

_MEANINGS: Final = {
    cls.__name__: (cls.__doc__ or "").strip().partition("\n")[0] for cls in OPERATIONS
}


class ShownDifferentlyError(IntegrityError):
    """The displayed request does not have the digest that the server reports."""

    code = "shown_differently"


def checked_digest(approval: ApprovalInfo) -> str:
    """
    Compute the digest of a displayed request.

    Raises:
        ShownDifferentlyError: The server reports a different digest.
        InvalidInputError: The request can't be displayed completely.
    """
    check_shown(approval.operation)
    digest = shown_sha256(approval.salt, approval.operation)
    if not hmac.compare_digest(digest, approval.digest):
        raise ShownDifferentlyError(
            f"The content of approval request {approval.approval_id} does not match "
            "the digest that the server reports. Nothing was approved.",
            approval_id=approval.approval_id,
        )
    return digest


APPROVAL_COLUMNS: Final = (
    Column("Key", lambda found: _key(found), lambda found: _key(found)),
    Column("ID", lambda f: short_id(f.approval_id), lambda f: f.approval_id),
    Column("Operation", lambda found: found.operation.kind),
    Column("Requester", lambda found: found.operation.requester),
    Column("State", lambda found: found.state),
    Column("Missing", None, lambda found: "; ".join(found.missing)),
    Column("Created", None, lambda found: instant(found.created_at)),
    Column("Expires", lambda found: instant(found.expires_at)),
)
"""Columns of a table of `ApprovalInfo`."""


def _key(approval: ApprovalInfo) -> str:
    return approval.operation.key_name or short_id(approval.operation.key_id)


def approval_pairs(approval: ApprovalInfo) -> list[tuple[str, str]]:
    """Return the facts of an approval, without the fields of its operation."""
    shown = approval.operation
    context = shown.context or ShownContext()
    demands = "; ".join(demand.rule for demand in approval.demands)
    return [
        ("id", approval.approval_id),
        ("state", approval.state),
        ("operation", shown.kind),
        ("meaning", _MEANINGS.get(shown.kind, "unknown to this version of hsm-cli")),
        ("requester", shown.requester),
        ("requester's roles", ", ".join(context.requester_roles)),
        ("requester's address", context.requester_address),
        ("requester's certificate", _certificate(context)),
        ("key id", shown.key_id),
        ("key name", shown.key_name),
        ("key's owner", context.owner),
        ("key's tags", ", ".join(context.tags)),
        ("key's versions", str(context.versions) if context.versions else ""),
        ("key last used", _last_used(context)),
        ("algorithm", shown.algorithm),
        (_version_name(shown), str(shown.version) if shown.version else ""),
        ("undo", context.undo),
        ("rules lifted", ", ".join(context.frees_from)),
        ("rules", demands),
        ("missing", "; ".join(approval.missing)),
        ("uses left", str(approval.uses_left)),
        ("created", instant(approval.created_at)),
        ("expires", instant(approval.expires_at)),
        ("closed", instant(approval.closed_at)),
        *(("decision", decision_line(made)) for made in approval.decisions),
        ("digest", approval.digest),
    ]


def _certificate(context: ShownContext) -> str:
    parts = context.requester_certificate, context.requester_certificate_sha256
    return ", SHA-256 ".join(part for part in parts if part)


def _last_used(context: ShownContext) -> str:
    return context.last_used_at or ("never" if context.versions else "")


def describe_demand(demand: ApprovalDemand) -> str:
    """Return the approvals that one rule requires, in a few words."""
    who = "approver" if demand.quorum == 1 else "approvers"
    parts = [
        f"{demand.quorum} of {' or '.join(demand.roles)}"
        if demand.roles
        else f"{demand.quorum} {who}",
        *(f"1 of {role}" for role in demand.distinct_roles),
        "signed" if demand.signed else "",
        f"{demand.seconds} s",
        f"{demand.uses} uses" if demand.uses > 1 else "",
    ]
    return ", ".join(part for part in parts if part)


def _version_name(shown: ShownOperation) -> str:
    names = any(field.name == "version" for field in shown.fields)
    return "version" if names else "current version"


def decision_line(decision: DecisionInfo) -> str:
    """Return a decision as one line."""
    word = "approved" if decision.granted else "denied"
    parts = [
        f"{decision.principal} {word} {instant(decision.at)}",
        "signed" if decision.signed else "",
        "withdrawn" if decision.withdrawn else "",
        decision.comment,
    ]
    return ", ".join(part for part in parts if part)


def change_row(change: ShownChange) -> tuple[str, str, str, str]:
    """Return a changed field as cells below `CHANGE_HEADER`."""
    notes = [
        f"removed: {', '.join(change.removed)}" if change.removed else "",
        f"added: {', '.join(change.added)}" if change.added else "",
    ]
    return (
        change.name,
        change.before or "none",
        change.after or "none",
        "; ".join(note for note in notes if note),
    )


def field_row(field: ShownField, shown: ShownOperation) -> tuple[str, str, str]:
    """
    Return a field as cells below `FIELD_HEADER`.

    A key ID is followed by the key's name.
    """
    if field.text is not None:
        names = shown.context.names if shown.context else ()
        known = {other.name: other.text for other in names}
        known["key_id"] = shown.key_name
        name = known.get(field.name)
        return field.name, "text", f"{field.text} ({name})" if name else field.text
    if field.number is not None:
        return field.name, "number", str(field.number)
    if field.data is not None:
        return field.name, f"{len(field.data)} bytes", ", ".join(_bytes(field.data))
    if field.length is not None:
        value = f"not shown, salted SHA-256 {field.sha256}"
        return field.name, f"{field.length} bytes", value
    return field.name, "empty", ""


def matching_fields(
    invocation: Invocation, approval: ApprovalInfo, source: Source
) -> list[str]:
    """
    Return the fields of a signing request that hold a payload: bytes, digest or mu.

    Only signed data is compared, not contexts or references. Mu is computed with the
    public key of the signing version, and no context.

    Raises:
        UsageError: The operation does not sign.
        HSMError: The payload can't be read, or the public key can't be fetched.
    """
    shown = approval.operation
    if shown.kind not in SIGNING:
        raise click.UsageError(f"--file requires a request to sign, not {shown.kind}.")
    given = {f.name: f for f in shown.fields}
    found: list[str] = []
    for leaf in ("message", "digest", "mu"):
        fields = [f for n, f in given.items() if n.rpartition(".")[2] == leaf]
        if not fields:
            continue
        if leaf == "message":
            payload = source.read()
            found += [f.name for f in fields if _holds(f, payload, approval.salt)]
            continue
        if leaf == "mu":
            asked = GetPublicKey(key_id=shown.key_id, version=shown.version)
            key = invocation.prepare(asked)
            candidate = Candidate(key.version, key.algorithm, key.der)
            (made,) = hash_mus([candidate], b"", source, [], source.pieces())
        else:
            named = given.get("hash")
            name = HashAlgorithm((named and named.text) or HashAlgorithm.SHA_256)
            made = hash_digest(name, source, [], source.pieces())
        found += [f.name for f in fields if f.data == made]
    return found


def _holds(field: ShownField, payload: bytes, salt: bytes) -> bool:
    if field.length is not None:
        digest = hidden_sha256(salt, field.name, payload)
        return field.length == len(payload) and digest == field.sha256
    return field.data == payload


def _bytes(data: bytes) -> Iterator[str]:
    """Yield bytes as hex or base64, and as text if they are printable UTF-8."""
    if len(data) <= _HEX_BYTES:
        yield f"hex {data.hex()}"
    else:
        yield f"base64 {encode_base64(data)}"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    if text and text.isprintable() and neutral(text) == text:
        yield f"text {text}"


F = TypeVar("F", bound=Callable[..., Any])


def approval_operand(function: F) -> Any:
    """Add the parameter *approval_id*: ``ID`` or ``--approval-id``."""

    @click.argument("operand", required=False, metavar="[ID]")
    @click.option(
        "--approval-id", "option", metavar="ID", help="ID of the approval request."
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any, operand: str | None, option: str | None, **kwargs: Any
    ) -> Any:
        given = one_of(operand, option, name="ID", flag="--approval-id")
        invocation: Invocation = click.get_current_context().obj
        approval_id = invocation.whole_approval(given)
        return function(*args, approval_id=approval_id, **kwargs)

    return wrapper


def digest_option(function: F) -> Any:
    """Add the option ``--digest``."""
    return click.option(
        "--digest",
        default="",
        metavar="HEX",
        help="Continue only if the request has this digest.",
    )(function)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSigner:
    """
    Signer of a decision: a private key, a detached signature, or neither.

    Attributes:
        key: File of a private key.
        passphrase: Source of the passphrase of *key*.
        signature: File of a detached signature.
    """

    key: str | None
    passphrase: str | None
    signature: str | None

    @property
    def is_given(self) -> bool:
        """Whether the decision is signed."""
        return self.key is not None or self.signature is not None

    def sign(self, approval_id: str, digest: str, *, granted: bool) -> bytes | None:
        """Return the signature of a decision, or None if it is not signed."""
        if self.key is not None:
            # It loads all of the cryptography.
            from hsm_cli.io.key_files import passphrase_source, sign_with

            text = statement(approval_id, digest, granted=granted)
            return sign_with(self.key, text, passphrase_source(self.passphrase))
        if self.signature is not None:
            return Source(what="signature", path=self.signature).read()
        return None


def signing_options(function: F) -> Any:
    """Add the options of signatures to a command, which gets them as *signer*."""

    @click.option(
        "--sign-with",
        metavar="FILE",
        help="Sign the decision with this private key: Ed25519 or ECDSA P-256, in PEM "
        "or OpenSSH format.",
    )
    @click.option(
        "--passphrase",
        envvar="FERROHSM_PASSPHRASE",
        show_envvar=True,
        metavar="SECRET",
        help="Passphrase of an encrypted key: @FILE or fd:N. Default: prompt on the "
        "terminal.",
    )
    @click.option(
        "--signature",
        "signature_path",
        metavar="FILE",
        help="Detached signature of the statement that show --statement prints.",
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        sign_with: str | None,
        passphrase: str | None,
        signature_path: str | None,
        **kwargs: Any,
    ) -> Any:
        if sign_with is not None and signature_path is not None:
            raise click.UsageError(
                "--sign-with and --signature are mutually exclusive."
            )
        context = click.get_current_context()
        if given_as_flag(context, "passphrase") and is_literal_secret(passphrase or ""):
            raise click.UsageError(
                "Other users can see a passphrase on the command line. Pass "
                "--passphrase @FILE or fd:N."
            )
        signer = DecisionSigner(
            key=sign_with, passphrase=passphrase, signature=signature_path
        )
        return function(*args, signer=signer, **kwargs)

    return wrapper
