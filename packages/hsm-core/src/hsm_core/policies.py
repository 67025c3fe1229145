# SPDX-License-Identifier: MIT
"""
Policy files: parsing, validation and lookup. The HSM alone enforces a policy.

A file is YAML, or JSON if it begins with ``{``. The page *Policy* of the reference
documents its content.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from hsm_core._files import MAX_SETTING_BYTES, read_file_of_settings
from hsm_core._policies.certificate_identities import read_people
from hsm_core._policies.policy_file import (
    Lines,
    PolicyFile,
    misfit,
    policy_fault,
    read_tree,
    shown,
)
from hsm_core._policies.resolving import (
    Groups,
    read_groups,
    read_operations,
    read_revoked_uses,
    read_rule,
)
from hsm_core._policies.review import cut_down, readable, review, review_names
from hsm_core._policies.rules import (
    INTERNAL_OPERATIONS,
    KNOWN_OPERATIONS,
    Policy,
    PolicyRule,
)
from hsm_core._policies.token_identities import read_token_identities, review_claims
from hsm_core.approver_keys import read_approver_keys
from hsm_core.errors import ConfigurationError, InvalidInputError
from hsm_core.identities import identity
from hsm_core.model import Role
from hsm_core.settings import PolicyProfile

__all__ = [
    "INTERNAL_OPERATIONS",
    "KNOWN_OPERATIONS",
    "MAX_POLICY_BYTES",
    "Policy",
    "PolicyRule",
    "built_in_policy",
    "built_in_text",
    "load_policy",
    "parse_policy",
    "parse_policy_file",
    "read_policy_file",
    "without_withdrawn",
]

MAX_POLICY_BYTES: Final = MAX_SETTING_BYTES
"""Maximum size of a policy, in bytes of UTF-8."""


def parse_policy(text: str) -> Policy:
    """
    Return the policy that a text states.

    Raises:
        InvalidInputError: It is no valid policy. The message begins with the line,
            where it is known, and names the field; ``facts`` hold both, as ``line`` and
            ``field``.
        UnavailableError: A time zone in it can't be read now.
    """
    tree, lines = read_tree(text)
    if not isinstance(tree, dict):
        raise policy_fault("A policy must be a YAML mapping.")
    version = tree.get("version")
    if isinstance(version, int) and version > 1:
        at = ("version",)
        raise policy_fault(
            f"Policy version {version} requires a newer release; this release "
            "supports version 1.",
            at,
            lines.get(at, 0),
        )
    try:
        file = msgspec.convert(tree, PolicyFile)
    except msgspec.ValidationError as error:
        raise misfit(str(error), lines) from None
    try:
        return _resolve(file, text)
    except InvalidInputError as error:
        raise _with_line(error, lines) from None


def load_policy(path: Path, *, for_use: bool = False) -> Policy:
    """
    Return the policy that a file states.

    Args:
        path: The file.

        for_use: Whether it is to be in force, so that others must not write to it.

    Raises:
        ConfigurationError: It can't be read or is no valid policy; the message names
            file, line and field.
        UnsafeFileModeError: Others than root and this process' user may write to what
            is *for_use*.
    """
    return parse_policy_file(path, read_policy_file(path, for_use=for_use))


def read_policy_file(path: Path, *, for_use: bool = True) -> bytes:
    """
    Return what a policy file holds; of one that is too long, the beginning.

    Raises:
        ConfigurationError: It can't be read, or is no file; its name is said.
        UnsafeFileModeError: Others than root and this process' user may write to what
            is *for_use*.
    """
    return read_file_of_settings(
        path, field="policy_config", limit=MAX_SETTING_BYTES, check_writers=for_use
    ).data


def parse_policy_file(path: Path, data: bytes) -> Policy:
    """
    Return the policy that the bytes of a file state.

    Raises:
        ConfigurationError: They are no valid policy.
        UnavailableError: A time zone in them can't be read now.
    """
    try:
        return parse_policy(data.decode())
    except UnicodeDecodeError:
        problem = "It must be UTF-8."
    except InvalidInputError as error:
        problem = str(error)
    raise ConfigurationError(
        f"{path} is not a valid policy: {problem}", field="policy_config"
    )


def without_withdrawn(former: Policy, data: bytes) -> Policy:
    """
    Return a policy without what a file takes away that is not valid as a whole.

    It grants nothing that *former* doesn't, and is *former* itself where the file takes
    nothing away or says nothing, as where it is no YAML or not of version 1. Its *text*
    is that of *former*.
    """
    try:
        tree, _ = read_tree(data.decode())
    except (InvalidInputError, UnicodeDecodeError):
        return former
    if not isinstance(tree, dict) or tree.get("version") != 1:
        return former
    cut = cut_down(former, _base_of(tree), tree)
    return former if cut.policy_hash == former.policy_hash else cut


def _base_of(tree: Mapping[str, object]) -> Policy | None:
    """Return the policy that a faulty file extends; None if that can't be read."""
    name = readable(tree, "extends", str)
    if name is not None and name in set(PolicyProfile):
        return built_in_policy(PolicyProfile(name))
    return parse_policy("version: 1") if name == "" and "extends" not in tree else None


@cache
def built_in_text(profile: PolicyProfile) -> str:
    """Return the file of a built-in policy."""
    name = f"{profile.value}.yaml"
    return (files("hsm_core") / "profiles" / name).read_text(encoding="utf-8")


@cache
def built_in_policy(profile: PolicyProfile) -> Policy:
    """Return a built-in policy."""
    return parse_policy(built_in_text(profile))


def _resolve(file: PolicyFile, text: str) -> Policy:
    base = built_in_policy(file.extends) if file.extends is not None else None
    groups = read_groups(file, base.groups if base else {})
    grants = _grants(file, base, groups)
    if file.revoked_uses is not None or base is None:
        named = file.revoked_uses or ()
        revoked_uses = read_revoked_uses(named, ("revoked_uses",))
    else:
        revoked_uses = base.revoked_uses
    rules = _rules(file, base, groups)
    approver_keys = _approver_keys(file)
    token_identities = read_token_identities(file.identities, ("identities",))
    return Policy(
        groups=groups,
        grants=grants,
        revoked_uses=revoked_uses,
        rules=rules,
        approver_keys=approver_keys,
        people=read_people(file.identities, ("identities",)),
        token_identities=token_identities,
        distinct_certificates=file.distinct_certificates,
        warnings=(
            *review(grants, rules, approver_keys),
            *review_names(file.rules, {rule.name: rule for rule in rules}),
            *review_claims(token_identities),
        ),
        text=text,
    )


def _grants(
    file: PolicyFile, base: Policy | None, groups: Groups
) -> Mapping[Role, frozenset[str]]:
    found = dict(base.grants) if base else dict.fromkeys(Role, frozenset[str]())
    for role, names in file.grants.items():
        found[role] = read_operations(names, groups, ("grants", role.value))
    return found


def _rules(
    file: PolicyFile, base: Policy | None, groups: Groups
) -> tuple[PolicyRule, ...]:
    found = {rule.name: rule for rule in base.rules} if base else {}
    for number, section in enumerate(file.rules):
        if section.name in found:
            raise policy_fault(
                f"Duplicate rule name {section.name!r}.", ("rules", number, "name")
            )
        found[section.name] = read_rule(section, groups, ("rules", number))
    return tuple(found[name] for name in sorted(found))


def _approver_keys(file: PolicyFile) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for principal, keys in file.approvers.items():
        person = identity(principal)
        if person in found:
            raise policy_fault(
                "Duplicate approver: an equivalent name is already listed.",
                ("approvers", principal),
            )
        found[person] = keys
        try:
            read_approver_keys(found)
        except InvalidInputError as error:
            raise policy_fault(str(error), ("approvers", principal)) from None
    return found


def _with_line(error: InvalidInputError, lines: Lines) -> InvalidInputError:
    field = str(error.facts.get("field", ""))
    path = next((place for place in lines if shown(place) == field), ())
    if not path or "line" in error.facts:
        return error
    return policy_fault(str(error).removeprefix(f"{field}: "), path, lines[path])
