# SPDX-License-Identifier: MIT
"""Policy files: what is read, what is refused, and that nothing else happens."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core import policies
from hsm_core._internal.handlers.base import HANDLERS
from hsm_core._internal.keyring.versions import REVOKED_BY_POLICY
from hsm_core._internal.policy.facts import SYSTEM_GRANTS
from hsm_core._policies.rules import KNOWN_OPERATIONS, REVOCABLE
from hsm_core.errors import ConfigurationError, InvalidInputError, UnsafeFileModeError
from hsm_core.model import Role
from hsm_core.operations import OPERATIONS
from hsm_core.policies import built_in_text, load_policy, parse_policy
from hsm_core.settings import PolicyProfile


def rule(text: str) -> str:
    """Return a policy with one rule; *text* is in flow style."""
    return f"version: 1\nextends: default\nrules:\n  - {{name: a, {text}}}\n"


def match(text: str) -> str:
    """Return a policy with one rule of this match."""
    return rule(f"effect: deny, match: {{{text}}}")


def asking(demand: str) -> str:
    """Return a policy with one rule that demands approval."""
    return rule(f"effect: require-approval, approval: {{{demand}}}")


def named(name: str) -> str:
    """Return a policy with one rule of this name."""
    return rule("effect: deny").replace("name: a", f"name: {name}")


_KEYS: Final = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDyWpJvZ3PYr8ATNOG1fpt34Jz7kDaCa7ZrPu8wCyY44",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH95tTCuaDDRoGk+DSbslby0y7M7O5TCdCwKyvRfV3Gs",
)
REFUSED = {
    "empty": ("", "empty"),
    "a comment": ("# nothing", "empty"),
    "a list": ("- 1", "mapping"),
    "another version": ("version: 2", "version"),
    "no version": ("rules: []", "version"),
    "unknown field": ("version: 1\nrule: []", "unknown field `rule`"),
    "twice": ("version: 1\nversion: 1", "line 2: version: Duplicate field name"),
    "two documents": (
        "version: 1\n---\nversion: 1",
        "line 2: A policy must be a single YAML document",
    ),
    "anchor": ("version: &v 1", "Anchors"),
    "alias": ("a: &x [1]\nb: *x", "Anchors"),
    "merge key": ("version: 1\n<<: {rules: []}", "unknown field `<<`"),
    "tag": ("version: !!python/object/apply:os.system ['true']", "Tags"),
    "local tag": ("version: !int 1", "Tags"),
    "tagged name": ("!!str version: 1", "Anchors and tags"),
    "binary": ("version: !!binary aGk=", "Tags"),
    "a list as name": ("? [version]\n: 1", "A field name must be a string"),
    "hex": ("version: 0x1", "version"),
    "octal": ("version: 01", "written as in JSON"),
    "huge": (f"version: {'9' * 5000}", "written as in JSON"),
    "a float": ("version: 1.0", "version"),
    "deep": (f"version: {'[' * 20}{']' * 20}", "levels deep"),
    "deep JSON": ('{"a": ' * 20 + "1" + "}" * 20, "nested deeper"),
    "JSON twice": ('{"version": 1, "version": 1}', "duplicate name"),
    "broken": ("version: [1", "line 1: Not valid YAML"),
    "broken escape": ('version: "\\UFFFFFFFF"', "Not valid YAML"),
    "lone surrogate": ('description: "\\uD800"', "surrogate"),
    "control": ("version: 1\n#\x00", "line 2: Not valid YAML: the character U+0000"),
    "too long": ("#" * 300_000, "at most 262144 bytes"),
    "no such operation": (match("operations: [Fly]"), "Unknown operation"),
    "no such group": ("version: 1\ngrants: {Auditor: [fly]}", "Unknown operation"),
    "no such role": (match("roles: [Boss]"), "Boss"),
    "no such algorithm": (match("algorithms: [rsa-7]"), "rsa-7"),
    "no such family": (match("families: [Rot13]"), "family 'Rot13'"),
    "no such usage": (match("usages: [eat]"), "usage 'eat'"),
    "no such fact": (match("facts: [nice]"), "nice"),
    "no such category": (match("categories: [6]"), "categories[0]"),
    "no values": (match("tags: []"), "length >= 1"),
    "no network": (match("networks: [10.0.0.1/8]"), "valid network"),
    "no certificate": (match("certificates: [abc]"), "64 hex digits"),
    "any subject": (match("certificate_subjects: ['*']"), "A lone *"),
    "no kind of name": (match("certificate_names: [a.example]"), "must begin with"),
    "any name": (match("certificate_names: ['*']"), "must begin with"),
    "a star inside": (match("key_names: ['a*b']"), "only at the end"),
    "no zone": (match("time: {zone: Moon/Tranquility}"), "Unknown time zone"),
    "a machine's zone": (match("time: {zone: localtime}"), "Unknown time zone"),
    "leap seconds": (match("time: {zone: right/Europe/Vienna}"), "Unknown time zone"),
    "a path as zone": (match("time: {zone: ../../etc/passwd}"), "Unknown time zone"),
    "no clock": (match("time: {from: 25:00}"), "from"),
    "no span": (match("time: {from: 10:00, to: 10:00}"), "must differ"),
    "no offset": (match("time: {not_after: '2030-01-01T00:00:00'}"), "offset"),
    "backwards": (
        match("time: {not_before: 2030-01-01T00:00Z, not_after: 2029-01-01T00:00Z}"),
        "later than not_before",
    ),
    "quorum 0": (asking("quorum: 0"), "quorum"),
    "quorum too small": (
        asking("quorum: 1, distinct_roles: [Operator, Auditor]"),
        "quorum must be at least",
    ),
    "a role twice": (asking("distinct_roles: [Auditor, Auditor]"), "Duplicate role"),
    "approval of a denial": (rule("effect: deny, approval: {}"), "require-approval"),
    "no effect": (rule("effect: maybe"), "maybe"),
    "excepts everything": (rule("effect: deny, except: {}"), "excepts everything"),
    "name of a built-in": (named("pqc-restricted"), "Duplicate rule"),
    "name of a system": (named("system"), "reserved"),
    "name of no rule": (named("default-deny"), "reserved"),
    "name with a colon": (named("'a:b'"), "name"),
    "group of a built-in": (
        "version: 1\nextends: default\ngroups: {use: [Sign]}",
        "Duplicate group",
    ),
    "revoked keys sign": ("version: 1\nrevoked_uses: [Sign]", "allowed for revoked"),
    "one person twice": (
        f"version: 1\napprovers: {{Bob: [{_KEYS[0]}], bob: [{_KEYS[1]}]}}",
        "Duplicate approver",
    ),
}


@pytest.mark.parametrize(("text", "problem"), REFUSED.values(), ids=REFUSED)
def test_refused(text: str, problem: str) -> None:
    """What is no policy is refused with a sentence about it."""
    with pytest.raises(InvalidInputError) as caught:
        parse_policy(text)

    assert problem in str(caught.value)


def test_the_place_is_named() -> None:
    """Line and field stand in the message and in its facts."""
    with pytest.raises(InvalidInputError) as caught:
        parse_policy(
            "version: 1\nrules:\n- name: a\n  effect: deny\n  match:\n    x: 1"
        )

    assert {"line": 6, "field": "rules[0].match"} == dict(caught.value.facts)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("grants: {Operator: Sign}", "line 2: grants: Expected `array`, got `str`."),
        ("grants: {Chief: [Sign]}", "line 2: grants: Invalid enum value 'Chief', as "),
        ("groups: {a: [1]}", "line 2: groups: Expected `str`, got `int`."),
        ("approvers: {bob: []}", "line 2: approvers: Expected `array` of length >= 1."),
    ],
    ids=["value", "role", "item", "empty"],
)
def test_a_place_in_a_mapping(text: str, found: str) -> None:
    """Where only the mapping is known, it is named."""
    with pytest.raises(InvalidInputError) as caught:
        parse_policy(f"version: 1\n{text}")

    assert str(caught.value).startswith(found)


def test_values_of_other_types() -> None:
    """Whatever stands in the place of any value is refused, or is one, and no more."""
    whole = {
        "version": 1,
        "description": "d",
        "groups": {"g": ["Sign"]},
        "grants": {"Operator": ["g"]},
        "revoked_uses": ["Verify"],
        "rules": [
            {
                "name": "r",
                "effect": "require-approval",
                "match": {"operations": ["g"], "time": {"days": ["mon"]}},
                "except": {"tags": ["t"], "categories": [1]},
                "approval": {"quorum": 1, "roles": ["Operator"], "signed": False},
            }
        ],
        "approvers": {"olga": [_KEYS[0]]},
    }
    parse_policy(json.dumps(whole))
    refused = 0
    for other in _replaced(
        whole, [0, "", "x", None, True, 1.5, [], [[]], {}, {"x": 1}]
    ):
        try:
            parse_policy(json.dumps(other))
        except InvalidInputError:
            refused += 1

    assert refused > 200


def _replaced(value: Any, others: list[Any]) -> Iterator[Any]:
    """Give a tree with each of its values, in turn, replaced by each of the others."""
    yield from others
    if isinstance(value, dict):
        for name, inner in value.items():
            for new in _replaced(inner, others):
                yield {**value, name: new}
    if isinstance(value, list):
        for place, inner in enumerate(value):
            for new in _replaced(inner, others):
                yield [*value[:place], new, *value[place + 1 :]]


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text(text: str) -> None:
    """Any text is a policy, or is refused by the declared error."""
    for prefix in ("", "version: 1\n", "{"):
        try:
            parse_policy(prefix + text)
        except InvalidInputError:
            continue


_PIECES = st.sampled_from(
    [
        "version: 1\n", "rules:\n", "  - name: a\n", "    effect: deny\n", "- ", "? ",
        ": ", "!!python/name:os.system ", "&a ", "*a", "[", "]", "{", "}", "'", '"',
        "\\x", "|\n", ">\n", "%YAML 1.2\n", "%TAG ! tag:x:\n", "---\n", "...\n", "\t",
        "9" * 40, "1e999", ".inf", "2026-01-01", "22:00", "<<: ", "\u2028", "\ufeff",
        "match: ", "time: {from: 22:00}", "\n", "  ", "#", ",", "extends: strict\n",
    ]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=30).map("".join))
def test_any_heap_of_yaml(text: str) -> None:
    """Pieces of YAML in any order raise nothing but the declared error."""
    try:
        parse_policy(text)
    except InvalidInputError:
        pass


def test_times_are_texts() -> None:
    """22:00 is no number of base 60, nor is a date an object, nor off a no."""
    found = parse_policy(
        match(
            "key_names: [off, yes, 22:30, 2026-01-01], time: {from: 22:00, to: 06:00}"
        )
    )

    (made,) = (r for r in found.rules if r.name == "a")
    assert made.match.key.names is not None
    assert {"off", "yes", "22:30", "2026-01-01"} == made.match.key.names.exact
    assert made.match.window is not None
    assert (22 * 60, 6 * 60) == (made.match.window.begin, made.match.window.end)


def test_json() -> None:
    """JSON says the same as YAML, and has the same hash."""
    tree: dict[str, Any] = {
        "version": 1,
        "extends": "default",
        "rules": [{"name": "a", "effect": "deny", "match": {"tags": ["x"]}}],
    }

    found = parse_policy(msgspec.json.encode(tree).decode())

    assert parse_policy(match("tags: [x]")).policy_hash == found.policy_hash


WARNED = {
    "no algorithm": match("algorithms: [rsa-3072], families: [ML-KEM]"),
    "Unknown usage": match("algorithms: [ed25519], usages: [encrypt]"),
    "no key": match("operations: [Status], tags: [x]"),
    "excepted": rule("effect: deny, match: {tags: [x]}, except: {tags: [x, y]}"),
    "everything": rule("effect: deny"),
    "signatures": asking("signed: true"),
    "nothing": "version: 1",
    "batches granted alone": "version: 1\ngrants: {Operator: [SignBatch]}",
    "batches allowed alone": (
        "version: 1\nrules:\n  - {name: a, effect: allow, match: {operations: "
        "[SignBatch]}}\n  - {name: b, effect: require-approval, match: {operations: "
        "[PurgeVersion]}}\n"
    ),
    "together": match("operations: [describe, DecryptBatch]"),
    "labels of new keys": match("operations: [CreateKey], tags: [x]"),
    "a wildcard in a tag": match("tags: [pay*]"),
    "a wildcard in an owner": match("owners: [team-*]"),
    "upper case in a name": match("key_names: [Pay*]"),
    "a pattern as name": match("key_names: ['pay-[0-9]']"),
    "an exception of no key": rule("effect: deny, except: {key_names: ['pay?']}"),
    "one of two ends": match("operations: [DestroyKey, Sign]"),
    "the other end": match("operations: [RevokeKey]"),
    "one of two rotations": match("operations: [RotateKey]"),
}
FINE = {
    "for one item": match("operations: [Sign, Open, Decrypt]"),
    "both": match("operations: [Sign, SignBatch]"),
    "Duplicate group": match("operations: [use], tags: [x]"),
    "allowed": rule("effect: allow, match: {operations: [Sign]}"),
    "labels": match("operations: [CreateKey, UpdateKey], key_names: [x*]"),
    "new keys": match("operations: [CreateKey], facts: [pqc]"),
    "possible labels": match("tags: ['A:b/c@d'], owners: [Bob], key_names: [p*, a.b]"),
    "any name": match("operations: [Sign], key_names: ['*']"),
    "both ends": match("operations: [DestroyKey, RevokeKey]"),
    "an end by its group": match("operations: [life-cycle, Sign]"),
    "rotations": match("operations: [RotateKey, SetRotation]"),
    "an end allowed": rule("effect: allow, match: {operations: [DestroyKey]}"),
}


@pytest.mark.parametrize("text", FINE.values(), ids=FINE)
def test_not_warned(text: str) -> None:
    """A rule that misses nothing is not warned of."""
    assert () == parse_policy(text).warnings


@pytest.mark.parametrize("text", WARNED.values(), ids=WARNED)
def test_warned(text: str) -> None:
    """What was probably not meant is valid, and warned of."""
    assert parse_policy(text).warnings


@pytest.mark.parametrize("profile", PolicyProfile)
def test_built_in(profile: PolicyProfile) -> None:
    """The built-in policies are files like any other, and nothing is odd in them."""
    found = parse_policy(built_in_text(profile))

    assert () == found.warnings
    assert set(Role) == set(found.grants)


def test_operations_are_known() -> None:
    """A policy may name every operation, those that only the HSM asks for too."""
    granted = set[str]().union(*SYSTEM_GRANTS.values())
    internal = {kind.__name__ for kind in HANDLERS.keys() - set(OPERATIONS)}

    assert set(OPERATIONS) < HANDLERS.keys()
    assert granted | internal <= KNOWN_OPERATIONS
    assert policies.INTERNAL_OPERATIONS.isdisjoint(o.__name__ for o in OPERATIONS)
    assert REVOKED_BY_POLICY == REVOCABLE


def test_files(tmp_path: Path) -> None:
    """A file that is not there, not UTF-8 or not valid is named with the problem."""
    path = tmp_path / "policy.yaml"
    problems = []
    for content in (None, b"\xff", b"version: 2", b"#" * 300_000):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError) as caught:
            load_policy(path)
        problems.append(str(caught.value))

    assert all(str(path) in problem for problem in problems)
    assert "can't be read" in problems[0]
    assert "must be UTF-8" in problems[1]
    assert "line 1: version" in problems[2]
    assert "at most" in problems[3]


def test_files_that_others_may_change(tmp_path: Path) -> None:
    """A policy that others may write to is refused, and so is what is no file."""
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1")
    for mode in (0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(UnsafeFileModeError, match="by other users"):
            load_policy(path, for_use=True)
        load_policy(path)
    path.chmod(0o644)
    load_policy(path, for_use=True)
    if os.geteuid() == 0:
        os.chown(path, 12_345, 0)
        with pytest.raises(UnsafeFileModeError, match="by other users"):
            load_policy(path, for_use=True)
    path.unlink()
    os.mkfifo(path)
    for place in (path, tmp_path):
        with pytest.raises(ConfigurationError, match="can't be read"):
            load_policy(place)


def test_certificates_that_are_shared() -> None:
    """Whether a certificate is one person's is part of the policy, and of its hash."""
    usual = parse_policy("version: 1\n")
    same = parse_policy("version: 1\ndistinct_certificates: true\n")
    shared = parse_policy("version: 1\ndistinct_certificates: false\n")

    assert usual.distinct_certificates
    assert not shared.distinct_certificates
    assert usual.policy_hash == same.policy_hash != shared.policy_hash
