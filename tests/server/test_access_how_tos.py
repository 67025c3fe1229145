# SPDX-License-Identifier: MIT
"""The files in the guides on access tokens are valid, and map tokens of that shape."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

from hsm_core.errors import AuthenticationError
from hsm_core.factory import open_async
from hsm_core.policies import Policy, parse_policy
from hsm_core.testing import memory_hsm
from hsm_server.config.settings import TokenRules
from hsm_server.identity.issuer_config import load_token_issuers
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from tests.server.issuer_kit import ISSUED
from tests.server.support import SECRET
from tests.support import REPOSITORY

GUIDES: Final[dict[str, tuple[str, ...]]] = {
    "accept-access-tokens": ("keycloak", "entra"),
    "github-actions": ("github",),
    "gitlab-ci": ("gitlab",),
    "kubernetes": ("kubernetes",),
    "spiffe": ("spiffe",),
}
"""Guides, and the tokens that their policies map, in order."""

OTHERS: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "keycloak": ({"typ": "ID"}, {"realm_access": {"roles": ["staff"]}}),
    "entra": ({"oid": "another"}, {"roles": []}),
    "github": (
        {"repository": "example/other"},
        {"repository_owner_id": "66"},
        {"environment": None},
    ),
    "gitlab": ({"project_id": "21"}, {"ref_protected": "false"}, {"ref_type": "tag"}),
    "kubernetes": (
        {"kubernetes.io": {"namespace": "other"}},
        {"kubernetes.io": {"namespace": "build"}},
    ),
    "spiffe": ({"sub": "spiffe://example.org/ns/build/sb/x"},),
}
"""Changes that make a token of another job, person or workload."""


def files_in(guide: str, name: str) -> list[str]:
    """Return the files of this name that a guide shows."""
    text = (REPOSITORY / "docs" / "how-to" / f"{guide}.md").read_text()
    return re.findall(rf"```yaml\n(# {re.escape(name)}\n.*?)```", text, re.DOTALL)


def principal(policy: Policy, name: str, **changes: Any) -> str | None:
    """Return the principal of a token under a policy."""
    own = TokenTrust.of_secret(SECRET, TokenRules())
    with memory_hsm(policy=policy) as hsm:
        issuers = [ISSUED[name].trust()]
        guard = Gatekeeper(open_async(hsm), own, lambda: None, issuers=issuers)
        try:
            token = ISSUED[name].token(**changes)
            return guard.authenticate(Visitor(credential=token)).caller.principal
        except AuthenticationError:
            return None


@pytest.mark.parametrize("guide", GUIDES)
def test_guide(tmp_path: Path, guide: str) -> None:
    """The issuers are those of the rules, which map the right tokens only."""
    (issuers,) = files_in(guide, "issuers.yaml")
    path = tmp_path / "issuers.yaml"
    path.write_text(issuers)
    known = {issuer.issuer for issuer in load_token_issuers(path)}
    policies = [parse_policy(text) for text in files_in(guide, "policy.yaml")]

    assert len(GUIDES[guide]) == len(policies)
    assert ISSUED[GUIDES[guide][0]].issuer in known
    for name, policy in zip(GUIDES[guide], policies, strict=True):
        assert () == policy.warnings
        assert ISSUED[name].expected[0] == principal(policy, name)
        for changes in OTHERS[name]:
            assert principal(policy, name, **changes) is None, changes
