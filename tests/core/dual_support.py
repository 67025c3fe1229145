# SPDX-License-Identifier: MIT
"""What the tests of dual control share: people, a policy that demands, an HSM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.policy.engine import RuleEngine, policy_of
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalDemand, AuditEvent, Caller, Role
from hsm_core.operations import ApprovalInfo, Operation
from hsm_core.protocols import HSM, Decision, KeyFacts
from hsm_core.settings import Settings
from hsm_core.testing import caller, memory_hsm

TWO_PEOPLE = ApprovalDemand(rule="two-people")


class DemandingPolicy(RuleEngine):
    """
    The built-in policy, and demands by the name of the operation; both may change.

    Attributes:
        demands: By operation.
        blocked: Principals who may do nothing any more.
    """

    def __init__(self, **demands: ApprovalDemand) -> None:
        super().__init__(policy_of(Settings()))
        self.demands: dict[str, Sequence[ApprovalDemand]] = {
            kind: (demand,) for kind, demand in demands.items()
        }
        self.blocked: set[str] = set()

    def judge(
        self, kind: str, caller: Caller, sides: tuple[KeyFacts, ...], at: int
    ) -> Decision:
        """Decide by roles, and demand."""
        decision = super().judge(kind, caller, sides, at)
        if caller.principal in self.blocked:
            return msgspec.structs.replace(decision, allowed=False, rule="blocked")
        demands = self.demands.get(kind, ())
        return msgspec.structs.replace(decision, approvals=tuple(demands))


@contextmanager
def dual_hsm(policy: DemandingPolicy, **facts: Any) -> Iterator[OpenHSM]:
    """Open an HSM in memory under a policy that demands."""
    with memory_hsm(**facts) as gateway:
        holder = gateway._services.policy  # noqa: SLF001 (no file says this)
        holder.replace(policy, 0)
        yield gateway


def person(gateway: OpenHSM, name: str, *roles: Role, certificate: str = "") -> HSM:
    """Return the HSM as a person sees it, by default an administrator and operator."""
    who = replace_certificate(caller(*roles, principal=name), certificate)
    return gateway.act_as(who)


def replace_certificate(who: Caller, certificate: str) -> Caller:
    """Return a caller with a client certificate."""
    return Caller(
        principal=who.principal,
        roles=who.roles,
        credential_id=f"token-{who.principal}",
        certificate_sha256=certificate,
        request_id=who.request_id,
    )


def ask(hsm: HSM, operation: Operation[Any], **facts: Any) -> ApprovalInfo:
    """Send an operation that needs approval, and return what others are asked."""
    with pytest.raises(errors.ApprovalRequiredError) as caught:
        hsm.execute(operation, **facts)
    asked = caught.value.approval
    assert isinstance(asked, ApprovalInfo)
    assert asked.approval_id == caught.value.facts["approval_id"]
    return asked


def approve(hsm: HSM, asked: ApprovalInfo) -> ApprovalInfo:
    """Approve what was asked."""
    return hsm.execute(ops.Approve(approval_id=asked.approval_id, digest=asked.digest))


def agreed(gateway: OpenHSM) -> tuple[HSM, str, ApprovalInfo]:
    """Let ann ask to sign, and bob approve; return ann, the key and the approval."""
    ann, key = person(gateway, "ann"), ed25519(gateway)
    asked = ask(ann, sign(key))
    approve(person(gateway, "bob"), asked)
    return ann, key, asked


def ed25519(gateway: OpenHSM, name: str = "signer") -> str:
    """Make a signing key under a policy that demands nothing for that."""
    made = person(gateway, "maker").execute(
        ops.CreateKey(algorithm="ed25519", name=name)
    )
    return made.key_id


def sign(key_id: str, message: bytes = b"m1") -> ops.Sign:
    """Return a request to sign."""
    return ops.Sign(key_id=key_id, message=message)


def events_of(
    gateway: OpenHSM, wanted: Callable[[AuditEvent], bool] = lambda event: True
) -> list[AuditEvent]:
    """Return the events of the trail in order."""
    auditor = gateway.act_as(caller(Role.AUDITOR, principal="trail-reader"))
    page = auditor.execute(ops.ListAuditEvents(limit=1000, ascending=True))
    return [entry.event for entry in page.items if wanted(entry.event)]
