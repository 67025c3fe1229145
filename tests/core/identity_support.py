# SPDX-License-Identifier: MIT
"""Policies with identities to test with, and what they know of somebody."""

from __future__ import annotations

from hsm_core.model import PolicyIdentity
from hsm_core.policies import Policy, parse_policy


def policy(*sections: str, more: str = "") -> Policy:
    """Return a policy with these identities, each in flow style."""
    rows = "".join(f"  - {{{section}}}\n" for section in sections)
    return parse_policy(f"version: 1\nextends: default\n{more}identities:\n{rows}")


def known(found: PolicyIdentity | None) -> tuple[str, set[str]] | None:
    """Return name and roles."""
    if found is None:
        return None
    return found.principal, {role.value for role in found.roles}
