# SPDX-License-Identifier: MIT
"""What the policy says to a request, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hsm_core import wire
from hsm_core.errors import AccessDeniedError
from hsm_core.model import PolicyOutcome
from hsm_core.operations import ExplainPolicy, PolicyExplanation
from hsm_server.tls.client_certificates import readable_facts
from hsm_server.ui.keys.presenters import Badge
from hsm_server.ui.view import View

_MAY_ASK: Final = frozenset({"Administrator", "Auditor"})
_OUTCOMES: Final = {
    PolicyOutcome.ALLOW: Badge("allowed", "ok"),
    PolicyOutcome.APPROVAL: Badge("needs approval", "warn"),
    PolicyOutcome.DENY: Badge("denied", "bad"),
}


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule about an operation or a twin of it, and what it lacks to hold."""

    name: str
    effect: str
    operation: str
    holds: bool
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """
    What the policy says.

    Attributes:
        twins: Operations that it is decided as, besides itself.
        rule: Which rule decides.
        needed: What is needed, a sentence each.
        rules: Every rule about the operation; those that hold come first.
    """

    operation: str
    twins: tuple[str, ...]
    outcome: Badge
    rule: str
    needed: tuple[str, ...]
    rules: Sequence[RuleRow]
    policy: str


def explained(operation: str, explanation: PolicyExplanation) -> Explained:
    """Return an explanation as a page shows it."""
    rules = [
        RuleRow(rule.name, rule.effect, rule.operation, rule.holds, rule.missing)
        for rule in explanation.rules
    ]
    return Explained(
        operation,
        explanation.decided_as[1:],
        _OUTCOMES[explanation.outcome],
        explanation.rule,
        explanation.needed,
        sorted(rules, key=lambda rule: not rule.holds),
        explanation.policy,
    )


async def explain_for_me(
    view: View, operation: str, key_id: str = "", **facts: Any
) -> Explained | None:
    """
    Ask what the policy would say to whoever looks at the page.

    Returns:
        None where they may not be told; for most roles nobody is even asked, since
        each refusal is recorded.
    """
    if not _MAY_ASK & set(view.who.roles):
        return None
    shown = readable_facts(view.visitor.certificate)
    try:
        return await explain_for(
            view,
            operation,
            view.who.principal,
            view.who.roles,
            key_id=key_id,
            certificate_sha256=shown.sha256,
            certificate_subject=shown.subject,
            certificate_names=list(shown.names),
            source_address=view.visitor.address,
            **facts,
        )
    except AccessDeniedError:
        return None


async def explain_for(
    view: View, operation: str, principal: str, roles: Sequence[str], **facts: Any
) -> Explained:
    """
    Ask what the policy would say to somebody.

    Raises:
        InvalidInputError: There is no such operation or role.
        AccessDeniedError: Whoever looks at the page may not be told.
    """
    tree = {
        "operation": operation,
        "principal": principal,
        "roles": list(roles),
        **facts,
    }
    asked = wire.convert(tree, ExplainPolicy)
    return explained(operation, await view.execute(asked))
