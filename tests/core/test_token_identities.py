# SPDX-License-Identifier: MIT
"""Identity rules about tokens: principal and roles by issuer, audience and claims."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hsm_core import operations as ops
from hsm_core.errors import AuthenticationError, HSMError, InvalidInputError
from hsm_core.factory import OpenHSM
from hsm_core.identities import token_issuer
from hsm_core.model import ApprovalState, Caller, Role, TokenClaims
from hsm_core.policies import Policy
from hsm_core.settings import Settings
from hsm_core.testing import caller, memory_hsm
from tests.core.identity_support import known, policy
from tests.core.test_withdrawn_approvers import (
    Keys,
    asked_by_ann,
    granted,
    made,
    put_in_force,
    rotate,
)

ISSUER, AUDIENCE = "https://id.example.com/realms/hsm", "ferrohsm"
OF: Final = f"issuer: '{ISSUER}', audience: {AUDIENCE}"
OPERATORS: Final = (
    f"principal_claim: preferred_username, roles: [Operator], {OF}, "
    "claims: {/realm_access/roles: hsm-operators}"
)
AUDITORS: Final = (
    f"principal_claim: preferred_username, roles: [Auditor], {OF}, "
    "claims: {/realm_access/roles: hsm-auditors}"
)
CI: Final = (
    f"principal: ci, roles: [Service], {OF}, "
    "claims: {repository: example/app, ref: [refs/heads/main, 'refs/tags/v*']}"
)


def token(**claims: Any) -> TokenClaims:
    """Return the claims of a token of the issuer."""
    return TokenClaims(
        issuer=ISSUER, audiences=(AUDIENCE,), claims=claims, key_name="key-1"
    )


def person(name: object = "olga", *groups: object) -> TokenClaims:
    """Return the claims of a person in groups."""
    return token(preferred_username=name, realm_access={"roles": list(groups)})


SECTIONS: Final = (OPERATORS, AUDITORS, CI)
MAIN: Final = {"repository": "example/app", "ref": "refs/heads/main"}
ANSWERS: Final[dict[str, tuple[TokenClaims, tuple[str, set[str]] | None]]] = {
    "one group": (person("olga", "hsm-operators", "x"), ("olga", {"Operator"})),
    "both groups": (
        person("olga", "hsm-auditors", "hsm-operators"),
        ("olga", {"Operator", "Auditor"}),
    ),
    "no group": (person("olga", "staff"), None),
    "group as text": (
        token(preferred_username="olga", realm_access={"roles": "hsm-operators"}),
        ("olga", {"Operator"}),
    ),
    "a role of ours is no group": (person("olga", "Operator"), None),
    "no name": (token(realm_access={"roles": ["hsm-operators"]}), None),
    "empty name": (person("", "hsm-operators"), None),
    "name as number": (person(7, "hsm-operators"), None),
    "name as list": (person(["olga"], "hsm-operators"), None),
    "name as object": (person({"olga": 1}, "hsm-operators"), None),
    "reserved name": (person("system.purge", "hsm-operators"), None),
    "invisible in the name": (person("ol\u200bga", "hsm-operators"), None),
    "long name": (person("o" * 129, "hsm-operators"), None),
    "roles as object": (
        token(preferred_username="o", realm_access={"roles": {"hsm-operators": 1}}),
        None,
    ),
    "roles in a list": (person("olga", ["hsm-operators"]), None),
    "pointer into text": (
        token(preferred_username="olga", realm_access="hsm-operators"),
        None,
    ),
    "claim with a slash in its name": (
        token(preferred_username="olga", **{"/realm_access/roles": "hsm-operators"}),
        None,
    ),
    "whole value": (token(**MAIN), ("ci", {"Service"})),
    "prefix": (token(**{**MAIN, "ref": "refs/tags/v1.0"}), ("ci", {"Service"})),
    "shorter than the prefix": (token(**{**MAIN, "ref": "refs/tags/"}), None),
    "longer value": (token(**{**MAIN, "ref": "refs/heads/main2"}), None),
    "other case": (token(**{**MAIN, "repository": "Example/app"}), None),
    "one claim of two": (token(repository="example/app"), None),
    "value in a list": (
        token(**{**MAIN, "ref": ["x", "refs/heads/main"]}),
        ("ci", {"Service"}),
    ),
    "null": (token(**{**MAIN, "ref": None}), None),
    "object": (token(**{**MAIN, "ref": {"refs/heads/main": True}}), None),
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[OpenHSM]:
    """Give an HSM with the rules for people and for a job."""
    with memory_hsm(policy=policy(*SECTIONS)) as opened:
        yield opened


@pytest.mark.parametrize("name", ANSWERS)
def test_who_it_is(gateway: OpenHSM, name: str) -> None:
    """All claims of a rule must hold; rules for the same principal add up."""
    asked, expected = ANSWERS[name]
    assert expected == known(gateway.identify_token(asked))
    assert expected == known(gateway.act_as_async().identify_token(asked))


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": ISSUER + "/"},
        {"issuer": ""},
        {"audiences": ()},
        {"audiences": ("other",)},
        {"audiences": (AUDIENCE + "2", AUDIENCE.upper())},
    ],
    ids=["slash", "no issuer", "no audience", "other", "others"],
)
def test_issuer_and_audience_are_exact(
    gateway: OpenHSM, changes: dict[str, Any]
) -> None:
    """A token of another issuer or for another audience names nobody."""
    asked = TokenClaims(
        **{"issuer": ISSUER, "audiences": (AUDIENCE,), "claims": MAIN} | changes
    )
    assert gateway.identify_token(asked) is None


@pytest.mark.parametrize(
    ("value", "good", "bad"),
    [
        ("true", True, ("true", 1, 1.0, [False], None)),
        ("7", 7, ("7", 7.0, True, 70)),
        ("1", 1, (True, 1.0, "1")),
        ("'true'", "true", (True, 1)),
        ("'7'", "7", (7, 7.0)),
        ("[0, 'x']", 0, (False, "0", 0.0, -0.0, "")),
    ],
)
def test_types_are_exact(value: str, good: object, bad: tuple[object, ...]) -> None:
    """Text, numbers and truth values are never equal to each other."""
    rule = f"principal: ci, roles: [Service], {OF}, claims: {{x: {value}}}"
    with memory_hsm(policy=policy(rule)) as gateway:
        assert ("ci", {"Service"}) == known(gateway.identify_token(token(x=good)))
        for other in bad:
            assert gateway.identify_token(token(x=other)) is None, other


@pytest.mark.parametrize(
    ("pointer", "claims"),
    [
        ("/a~1b/c", {"a/b": {"c": "x"}}),
        ("/a~0b", {"a~b": "x"}),
        ("/~01", {"~1": "x"}),
        ("/", {"": "x"}),
        ("https://a.example/b", {"https://a.example/b": "x"}),
        ("a.b", {"a.b": "x"}),
    ],
)
def test_pointers(pointer: str, claims: dict[str, Any]) -> None:
    """A pointer escapes slash and tilde; any other text is the name of a claim."""
    rule = f"principal: ci, roles: [Service], {OF}, claims: {{'{pointer}': x}}"
    with memory_hsm(policy=policy(rule)) as gateway:
        assert ("ci", {"Service"}) == known(gateway.identify_token(token(**claims)))
        assert gateway.identify_token(token(a={"b": "x"})) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


def test_a_trust_domain_vouches_for_its_own_names_only() -> None:
    """An issuer in the token never makes a name of another domain one of this."""
    own, other = "spiffe://example.org", "spiffe://other.example"
    for issuer in (own, other, None):
        claims = {"iss": issuer, "sub": f"{own}/x"}
        assert own == token_issuer(claims, {own})
    for subject in (f"{other}/x", own, "x", 7, None):
        with pytest.raises(InvalidInputError, match="SPIFFE ID of the trust domain"):
            token_issuer({"iss": own, "sub": subject}, {own, other})


def test_any_json_names_nobody(gateway: OpenHSM) -> None:
    """Claims of any types match nothing that they do not state, and raise nothing."""
    names = st.sampled_from(["realm_access", "preferred_username", "ref", "repository"])

    @examples(suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(names, JSON))
    def names_nobody(claims: dict[str, Any]) -> None:
        assert gateway.identify_token(token(**claims)) is None

    names_nobody()


GIVEN: Final = f"principal: ada, roles: [Administrator], {OF}, claims: {{sub: '1'}}"
CERTIFIED: Final = f"principal: Ada, roles: [Auditor], certificates: ['{'ab' * 32}']"


@pytest.mark.parametrize("other", [GIVEN, CERTIFIED], ids=["token", "certificate"])
def test_a_claim_takes_no_name_that_the_policy_gives(other: str) -> None:
    """Who is called as a principal of another entry is refused, in any spelling."""
    with memory_hsm(policy=policy(OPERATORS, other)) as gateway:
        for name in ("ada", "ADA", "\uff41da"):
            with pytest.raises(AuthenticationError):
                gateway.identify_token(person(name, "hsm-operators"))
        found = gateway.identify_token(person("olga", "hsm-operators"))
        assert ("olga", {"Operator"}) == known(found)


def test_one_person_by_name_and_by_claim() -> None:
    """Rules that give the same name add up; the name is that of the policy."""
    both = token(
        sub="1", preferred_username="ADA", realm_access={"roles": "hsm-operators"}
    )
    with memory_hsm(policy=policy(OPERATORS, GIVEN)) as gateway:
        expected = ("ada", {"Administrator", "Operator"})
        assert expected == known(gateway.identify_token(both))


def test_who_has_names_of_two_is_nobody() -> None:
    """Nobody can know then who it is."""
    other = f"principal: bob, roles: [Auditor], {OF}, claims: {{sub: '2'}}"
    with (
        memory_hsm(policy=policy(CI, other)) as gateway,
        pytest.raises(AuthenticationError),
    ):
        gateway.identify_token(token(sub="2", **MAIN))


def test_a_prefix_keeps_names_apart() -> None:
    """Names of a second issuer begin with other text."""
    second = (
        "principal_claim: sub, principal_prefix: 'k8s:', roles: [Service], "
        "issuer: https://cluster, audience: hsm, claims: {/kubernetes.io/namespace: a}"
    )
    said = {"sub": "x", "kubernetes.io": {"namespace": "a"}}
    asked = TokenClaims(issuer="https://cluster", audiences=("hsm",), claims=said)
    third = AUDITORS.replace("principal_claim", "principal_prefix: p-, principal_claim")
    with memory_hsm(policy=policy(second, third)) as gateway:
        assert ("k8s:x", {"Service"}) == known(gateway.identify_token(asked))


NAMELESS: Final = CI.replace("principal: ci, ", "")
REFUSED: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "no claims": ((CI.partition(", claims")[0],), "[0]: claims is required"),
    "empty claims": ((CI.partition(", claims")[0] + ", claims: {}",), "[0].claims"),
    "no audience": ((CI.replace("audience: ferrohsm, ", ""),), "audience is required"),
    "no issuer": ((CI.replace(f"issuer: '{ISSUER}', ", ""),), "issuer is required"),
    "no principal": ((NAMELESS,), "[0]: Set either principal or principal_claim"),
    "two principals": ((f"{CI}, principal_claim: sub",), "Set either principal"),
    "a lone prefix": ((f"{CI}, principal_prefix: x",), "requires principal_claim"),
    "reserved": ((CI.replace(": ci", ": system.x"),), "reserved for the HSM"),
    "certificate too": ((f"{CI}, certificate_subjects: ['CN=x']",), "two entries"),
    "lone wildcard": ((CI.replace("refs/heads/main", "'*'"),), "wildcard"),
    "inner wildcard": ((CI.replace("/tags/v*", "/*/v*"),), "wildcard"),
    "issuer as claim": ((CI.replace("repository:", "iss:"),), "Set issuer instead"),
    "audience as claim": ((CI.replace("repository:", "aud:"),), "Set audience"),
    "value of no type": ((CI.replace("example/app", "null"),), "claims"),
    "fraction": ((CI.replace("example/app", "{a: b}"),), "claims"),
    "no value": ((CI.replace("example/app", "[]"),), "claims"),
    "the same token": ((CI, CI.replace(": ci", ": cd")), "also match ci"),
    "a narrower token": (
        (CI, CI.replace(": ci", ": cd").replace("{rep", "{sub: a, rep")),
        "also match ci",
    ),
    "values by a prefix": (
        (CI, CI.replace(": ci", ": cd").replace("'refs/tags/v*'", "refs/tags/v1")),
        "also match ci",
    ),
    "names of two issuers": (
        (OPERATORS, AUDITORS.replace("/hsm'", "/other'")),
        "Set a principal_prefix",
    ),
    "names of two claims": (
        (OPERATORS, AUDITORS.replace("preferred_username", "azp")),
        "Set a principal_prefix",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """A file that leaves it open who somebody is, or that is incomplete."""
    sections, problem = REFUSED[name]
    with pytest.raises(InvalidInputError) as caught:
        policy(*sections)

    assert problem in str(caught.value)


def test_a_certificate_and_a_token_of_one_person(tmp_path: Path) -> None:
    """A faulty file takes from either what it says of this one."""
    path = tmp_path / "policy.yaml"
    both = policy(CERTIFIED.replace("Ada", "ada"), GIVEN)
    path.write_text(both.text)
    settings = Settings(policy_config=path, certificate_identities=True)
    shown = Caller(principal="", roles=frozenset(), certificate_sha256="ab" * 32)
    with memory_hsm(settings=settings) as gateway:
        path.write_text(both.text + "  - {principal: eve}\n")
        assert "identities[2]" in gateway.reload_policy()
        assert ("ada", {"Auditor"}) == known(gateway.identify(shown))
        found = gateway.identify_token(token(sub="1"))
        assert ("ada", {"Administrator"}) == known(found)
        path.write_text(policy(GIVEN).text + "  - {principal: eve}\n")
        assert "identities[1]" in gateway.reload_policy()
        assert gateway.identify(shown) is None
        assert gateway.identify_token(token(sub="1")) is not None


APART: Final[dict[str, tuple[str, str]]] = {
    "audience": (CI, CI.replace(": ci", ": cd").replace("ferrohsm", "other")),
    "issuer": (CI, CI.replace(": ci", ": cd").replace("/hsm'", "/other'")),
    "value": (CI, CI.replace(": ci", ": cd").replace("example/app", "example/b")),
    "type": (CI, CI.replace(": ci", ": cd").replace("example/app", "7")),
    "claim": (CI, CI.replace(": ci", ": cd").replace("repository:", "project:")),
    "prefix": (
        CI.replace("refs/heads/main, ", ""),
        CI.replace(": ci", ": cd")
        .replace("'refs/tags/v*'", "'refs/tags/w*'")
        .replace("refs/heads/main", "refs/heads/x"),
    ),
    "one person": (CI, CI.replace(": ci", ": CI").replace("Service", "Operator")),
}


@pytest.mark.parametrize("name", APART)
def test_apart(name: str) -> None:
    """Rules that no token need meet together may name two, and one person twice."""
    assert 2 == len(policy(*APART[name]).token_identities)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/*", "a/b/*"),
        ("a/b/*", "a/*"),
        ("a/*", "a/b"),
        ("a/b", "a/*"),
        ("7", "[7, x]"),
    ],
)
def test_overlap(one: str, other: str) -> None:
    """Values and prefixes that a token can meet together are no two principals."""
    rule = f"principal: ci, roles: [Service], {OF}, claims: {{x: V}}"
    rules = (rule.replace("V", one), rule.replace("V", other).replace(": ci", ": cd"))
    with pytest.raises(InvalidInputError, match="also match ci"):
        policy(*rules)


def test_another_policy_hash() -> None:
    """Rules are part of what the audit log names; their order is not."""
    hashes = {
        policy(*sections).policy_hash
        for sections in (SECTIONS, SECTIONS[:2], SECTIONS[::-1], (CERTIFIED, *SECTIONS))
    }

    assert 3 == len(hashes)


def test_reloaded(tmp_path: Path) -> None:
    """A rule counts once the file is in force; a faulty file only takes away."""
    path = tmp_path / "policy.yaml"
    path.write_text(policy(CI, OPERATORS).text)
    ci, olga = token(**MAIN), person("olga", "hsm-operators")
    with memory_hsm(settings=Settings(policy_config=path)) as gateway:
        assert ("ci", {"Service"}) == known(gateway.identify_token(ci))
        faulty = "  - {principal: eve}\n"
        path.write_text(policy(CI, OPERATORS).text + faulty)
        assert "identities[2]" in gateway.reload_policy()
        assert ("ci", {"Service"}) == known(gateway.identify_token(ci))
        path.write_text(policy(CI.replace("app", "b"), OPERATORS).text + faulty)
        assert "identities[2]" in gateway.reload_policy()
        assert gateway.identify_token(ci) is None
        assert ("olga", {"Operator"}) == known(gateway.identify_token(olga))
        path.write_text(
            policy(OPERATORS.replace("Operator]", "Auditor]")).text + faulty
        )
        assert "identities[1]" in gateway.reload_policy()
        assert gateway.identify_token(olga) is None
        path.write_text(policy(CI, OPERATORS).text)
        assert "" == gateway.reload_policy()
        assert ("olga", {"Operator"}) == known(gateway.identify_token(olga))


def test_a_prefix_that_matches_more() -> None:
    """A warning names principal, claim and prefix; a separator at the end is enough."""
    (warning,) = policy(CI).warnings

    assert "The identity of ci matches every ref that begins with 'refs/tags/v'" in (
        warning
    )
    assert () == policy(CI.replace("/v*", "/*")).warnings


def test_two_names_of_one_person() -> None:
    """A warning names the issuer and both claims; one claim is good."""
    by_name, by_mail = (
        rule.replace("preferred_username", f"{claim}, principal_prefix: '{claim}:'")
        for rule, claim in ((OPERATORS, "name"), (AUDITORS, "email"))
    )
    (warning,) = policy(by_name, CI.replace("/v*", "/*"), by_mail).warnings

    assert f"Entries for {ISSUER} take principals" in warning
    assert {"email", "name"} <= set(re.split(r"[ .]", warning))
    assert () == policy(OPERATORS, AUDITORS).warnings


class TestExplained:
    """Claims are enough for the question what the bearer of a token may do."""

    def ask(self, claims: object, **fields: Any) -> ops.PolicyExplanation:
        """Ask whether they may sign."""
        with memory_hsm(policy=policy(*SECTIONS)) as gateway:
            text = claims if isinstance(claims, str) else json.dumps(claims)
            hsm = gateway.act_as(caller(Role.AUDITOR))
            return hsm.execute(
                ops.ExplainPolicy(operation="Sign", token_claims=text, **fields)
            )

    def test_by_token(self) -> None:
        """It is told who that is, too."""
        found = self.ask({"iss": ISSUER, "aud": ["x", AUDIENCE], **MAIN})

        assert ("ci", (Role.SERVICE,)) == (found.principal, found.roles)
        assert "allow" == found.outcome

    @pytest.mark.parametrize(
        ("claims", "fields", "problem"),
        [
            ("[]", {}, "token_claims must be a JSON object"),
            ("{", {}, "token_claims: Not valid JSON"),
            ('{"iss": 1, "iss": 2}', {}, "token_claims: The JSON text has"),
            ({"iss": "x"}, {}, "No identity rule of the policy names this token's"),
            (
                {"iss": ISSUER, "aud": "x", **MAIN, "ref": 7},
                {},
                "The nearest one differs in audience, claims.ref.",
            ),
            (
                {
                    "iss": ISSUER,
                    "aud": AUDIENCE,
                    "realm_access": {"roles": "hsm-auditors"},
                },
                {},
                "holds no valid principal name",
            ),
            (
                {
                    "iss": ISSUER,
                    "aud": AUDIENCE,
                    "preferred_username": "ci",
                    "realm_access": {"roles": "hsm-auditors"},
                },
                {},
                "is rejected",
            ),
            (
                {"iss": ISSUER},
                {"principal": "ci"},
                "must be omitted if principal is set",
            ),
            ({"iss": ISSUER}, {"roles": (Role.AUDITOR,)}, "roles must be omitted"),
        ],
        ids=[
            "list",
            "no JSON",
            "twice",
            "issuer",
            "claims",
            "name",
            "taken",
            "both",
            "roles",
        ],
    )
    def test_nobody(self, claims: object, fields: dict[str, Any], problem: str) -> None:
        """The message says what differs."""
        with pytest.raises(HSMError) as caught:
            self.ask(claims, **fields)

        assert problem in str(caught.value)


class TestConsent:
    """Approvals with tokens of issuers count while key and rules do."""

    ASKING = (
        "rules:\n  - {name: asking, effect: require-approval, match: "
        "{operations: [RotateKey]}, approval: {quorum: 1, roles: [Auditor]}}\n"
    )
    GRACE = person("grace", "hsm-auditors", "hsm-operators")

    def put(self, *sections: str) -> Policy:
        """Return a policy that asks, and knows these."""
        return policy(*sections, more=self.ASKING)

    def grant(self, gateway: OpenHSM, approval_id: str) -> ApprovalState:
        """Approve as grace."""
        found = gateway.identify_token(self.GRACE)
        assert found is not None
        who = Caller(
            principal=found.principal,
            roles=found.roles,
            credential_key=found.credential_key,
            credential_rules=found.credential_rules,
        )
        return granted(gateway, who, approval_id)

    @pytest.mark.parametrize(
        "sections",
        [
            (OPERATORS,),
            (OPERATORS, AUDITORS.replace("hsm-auditors", "auditors")),
            (OPERATORS, AUDITORS.replace("[Auditor]", "[Service]")),
            (CI,),
        ],
        ids=["rule gone", "other claims", "role gone", "all gone"],
    )
    def test_withdrawn(self, sections: tuple[str, ...]) -> None:
        """Without the rule that gave the role, nothing was approved; with it, it is."""
        whole = self.put(OPERATORS, AUDITORS)
        with memory_hsm(policy=whole, credential_keys=Keys("key-1")) as gateway:
            key = made(gateway)
            approval_id = asked_by_ann(gateway, key)
            assert ApprovalState.GRANTED is self.grant(gateway, approval_id)
            put_in_force(gateway, self.put(*sections))
            assert approval_id == asked_by_ann(gateway, key)
            put_in_force(gateway, whole)
            assert ApprovalState.GRANTED is self.grant(gateway, approval_id)

            assert 2 == rotate(gateway, key)

    def test_another_rule_may_go(self) -> None:
        """An approval counts on while the rule that gave its role is there."""
        whole = self.put(OPERATORS, AUDITORS)
        with memory_hsm(policy=whole, credential_keys=Keys("key-1")) as gateway:
            key = made(gateway)
            self.grant(gateway, asked_by_ann(gateway, key))
            put_in_force(gateway, self.put(AUDITORS))

            assert 2 == rotate(gateway, key)

    def test_the_key_of_the_issuer(self) -> None:
        """A key that the issuer withdraws vouches for no approval any more."""
        keys = Keys("key-1", "key-2")
        whole = self.put(OPERATORS, AUDITORS)
        with memory_hsm(policy=whole, credential_keys=keys) as gateway:
            key = made(gateway)
            approval_id = asked_by_ann(gateway, key)
            self.grant(gateway, approval_id)
            keys.names = ("key-2",)
            assert approval_id == asked_by_ann(gateway, key)
            keys.names = ("key-1", "key-2")
            self.grant(gateway, approval_id)

            assert 2 == rotate(gateway, key)

    def test_nobody_approves_their_own_request(self) -> None:
        """The name that a claim gives is a person's, however they sign in."""
        ann = person("ANN", "hsm-auditors")
        whole = self.put(AUDITORS)
        with memory_hsm(policy=whole, credential_keys=Keys("key-1")) as gateway:
            approval_id = asked_by_ann(gateway, made(gateway))
            found = gateway.identify_token(ann)
            assert found is not None
            who = Caller(principal=found.principal, roles=found.roles)
            with pytest.raises(Exception, match="own"):
                granted(gateway, who, approval_id)
