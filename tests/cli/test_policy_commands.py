# SPDX-License-Identifier: MIT
"""Tests of the commands below ``policy``."""

import json
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from hsm_core import operations as ops
from hsm_core.errors import ApprovalRequiredError
from hsm_core.model import Role
from hsm_core.policies import built_in_text, parse_policy
from hsm_core.settings import PolicyProfile
from hsm_core.testing import caller, memory_hsm
from tests.cli.support import Shell

NIGHT = """\
version: 1
extends: default
rules:
  - name: no-new-keys
    effect: deny
    match:
      operations: [CreateKey]
      principals: [alice]
"""


@pytest.mark.parametrize("profile", PolicyProfile)
def test_show_a_built_in(
    monkeypatch: pytest.MonkeyPatch, profile: PolicyProfile
) -> None:
    """A built-in policy is printed as it stands, with no server."""
    shown = Shell(monkeypatch, None)("policy", "show", "--profile", profile.value)

    assert (0, built_in_text(profile)) == (shown.code, shown.text)


def test_show_what_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's policy is printed as it was written."""
    with memory_hsm() as gateway:
        shown = Shell(monkeypatch, gateway.act_as(caller()))("policy", "show")

    assert (0, built_in_text(PolicyProfile.DEFAULT)) == (shown.code, shown.text)


def test_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A valid file passes; another is refused with line and field."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(NIGHT)
    bad.write_text(NIGHT.replace("CreateKey", "MakeKey"))
    shell = Shell(monkeypatch, None)

    passed, refused = (shell("policy", "check", str(path)) for path in (good, bad))

    assert (0, 2) == (passed.code, refused.code)
    assert passed.text.startswith("valid, 5 rules, policy ")
    assert "line 7: rules[0].match.operations[0]: Unknown operation" in refused.err


def test_check_warns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was probably not meant is told beside the result."""
    path = tmp_path / "policy.yaml"
    path.write_text(
        NIGHT.replace("principals: [alice]", "tags: [a]\n    except: {tags: [a]}")
    )

    checked = Shell(monkeypatch, None)("policy", "check", str(path))

    assert 0 == checked.code
    assert "warning: Rule no-new-keys never matches" in checked.err


def test_explain(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what would happen, by which rule, and what would be needed."""
    with memory_hsm() as gateway:
        shell = Shell(monkeypatch, gateway.act_as(caller()))
        words = "policy explain Sign --principal bob --role auditor".split()
        denied = shell(*words)
        allowed = shell(*words, "--role", "operator", "--json")
        restricted = shell(
            *"policy explain CreateKey --principal bob --role operator".split(),
            *"--algorithm ml-dsa-87".split(),
        )

    assert "Sign requires one of these roles: Operator, Service." in denied.text
    assert "deny (default-deny)" in denied.text
    assert ("allow", "role:Operator") == (allowed.json["outcome"], allowed.json["rule"])
    assert "deny (pqc-restricted)" in restricted.text


def test_explain_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its claims say who that is; the token itself is sent nowhere."""
    rule = (
        "{principal: ci, roles: [Service], issuer: 'https://i.example', "
        "audience: hsm, claims: {repository: app, ref: main}}"
    )
    policy = parse_policy(f"version: 1\nextends: default\nidentities:\n  - {rule}\n")
    claims = {"iss": "https://i.example", "aud": "hsm", "repository": "app"}
    parts = ({"alg": "RS256"}, {**claims, "ref": "main"}, {**claims, "ref": "other"})
    head, good, bad = (
        urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in parts
    )
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(f"{head}.{good}.c2VjcmV0\n")
    with memory_hsm(policy=policy) as gateway:
        shell = Shell(monkeypatch, gateway.act_as(caller()))
        found = shell("policy", "explain", "Sign", "--token", f"@{path}")
        other = shell("policy", "explain", "Sign", "--token", f"{head}.{bad}.c2VjcmV0")
        none = shell("policy", "explain", "Sign", "--token", "nonsense")

    assert 0 == found.code
    assert "The token belongs to ci (Service)." in found.err
    assert "allow (role:Service)" in found.text
    assert "differs in claims.ref" in other.err
    assert "other users can see TOKEN" in other.err
    assert "three parts" in none.err


def test_explain_a_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says as which other operations a request is decided, and which rule is met."""
    rule = "{name: sealed, effect: deny, match: {operations: [Open]}}"
    policy = parse_policy(f"version: 1\nextends: default\nrules:\n  - {rule}\n")
    with memory_hsm(policy=policy) as gateway:
        hsm = gateway.act_as(caller())
        key = hsm.execute(ops.CreateKey(algorithm="ML-KEM-768", name="mailbox")).key_id
        shell = Shell(monkeypatch, hsm)
        found = shell(
            *"policy explain Decapsulate --principal bob --role operator".split(),
            "--key-id",
            key,
        )

    assert "Decided as Decapsulate, Open; the strictest decision applies." in found.err
    assert "deny (sealed)" in found.text
    assert "Open" in found.text


def test_explain_what_depends_on_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never answers for another key than was meant, nor for none."""
    policy = parse_policy(
        "version: 1\nextends: default\nrules:\n  - {name: frozen, effect: deny, "
        "match: {operations: [Sign], key_names: [release]}}\n"
    )
    with memory_hsm(policy=policy) as gateway:
        hsm = gateway.act_as(caller())
        hsm.execute(ops.CreateKey(algorithm="ed25519", name="release"))
        shell = Shell(monkeypatch, hsm)
        sign = "policy explain Sign --principal bob --role operator".split()
        renamed = shell(*sign, "--name", "release")
        keyless = shell(*sign)
        denied = [shell(*sign, flag, "release") for flag in ("--key", "--key-id")]
        batch = shell(
            *"policy explain SignBatch --principal bob --role operator".split()
        )
        useless = [
            shell(*sign, "--key", "release", *words)
            for words in (("--tags", "a"), ("--algorithm", "ed25519"), ("--owner", "b"))
        ]
        status = shell(
            *"policy explain Status --principal bob --role operator".split(),
            *("--key", "release"),
        )

    assert (2, True) == (renamed.code, "Sign has no field name" in renamed.err)
    assert "Pass key_id" in renamed.err
    for outcome in (keyless, batch):
        assert (2, True) == (outcome.code, "on the key (rule frozen)" in outcome.err)
    assert all("deny (frozen)" in outcome.text for outcome in denied)
    assert [2, 2, 2, 2] == [outcome.code for outcome in (*useless, status)]


def test_explain_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is asked about may be known by the certificate, and is then told."""
    policy = parse_policy(
        "version: 1\nextends: default\nidentities:\n"
        "  - {principal: ci, roles: [Service], certificate_names: ['dns:ci.example']}\n"
    )
    with memory_hsm(policy=policy) as gateway:
        shell = Shell(monkeypatch, gateway.act_as(caller()))
        found = shell(*"policy explain Sign --certificate-name dns:ci.example".split())
        unknown = shell(*"policy explain Sign --certificate-subject CN=ci".split())

    assert "The certificate belongs to ci (Service)." in found.err
    assert found.text.startswith("Rule") or "allow (role:Service)" in found.text
    assert (2, "") == (unknown.code, unknown.text)


def test_test_demands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A request for which more people would have to agree is listed, with how many."""
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nextends: default\nrules:\n"
        "  - {name: two, effect: require-approval, match: {tags: [dual], operations: "
        "[DestroyKey]}, approval: {quorum: 2, roles: [Auditor], signed: true}}\n"
    )
    with memory_hsm() as gateway:
        hsm = gateway.act_as(caller())
        key = hsm.execute(ops.CreateKey(algorithm="ed25519", tags=("dual",)))
        with pytest.raises(ApprovalRequiredError):
            hsm.execute(ops.DestroyKey(key_id=key.key_id))
        changed = Shell(monkeypatch, hsm)("policy", "test", str(path))

    assert 6 == changed.code
    assert "approval (approval:dual-control; 1 approver, 3600 s)" in changed.text
    assert "2 of Auditor, signed, 3600 s" in changed.text


def test_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Requests of the past that a policy would answer otherwise are listed."""
    path = tmp_path / "policy.yaml"
    path.write_text(NIGHT)
    with memory_hsm() as gateway:
        for name in ("alice", "bob"):
            who = caller(Role.ADMINISTRATOR, principal=name)
            gateway.act_as(who).execute(ops.CreateKey(algorithm="ed25519"))
        shell = Shell(monkeypatch, gateway.act_as(caller(principal="carol")))
        changed = shell("policy", "test", str(path))
        path.write_text("version: 1\nextends: default\n")
        same = shell("policy", "test", str(path))

    assert (6, 0) == (changed.code, same.code)
    assert "deny (no-new-keys)" in changed.text
    assert "1 decisions would change" in changed.text
    assert "bob" not in changed.text
    assert ", 0 decisions would change" in same.text
