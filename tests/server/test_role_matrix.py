# SPDX-License-Identifier: MIT
"""
The published table of roles, tried over HTTP in every state of a key, of every owner.

What is expected is read from the page that people read, not from what decides.
"""

import json
from collections import Counter
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from hsm_core import operations as ops
from hsm_core import wire
from hsm_core.errors import KeyStateError
from hsm_core.factory import OpenHSM
from hsm_core.model import KeyState, Role
from hsm_core.policies import parse_policy
from hsm_core.testing import caller
from tests import self_tests
from tests.core.test_roles import sample
from tests.pki import PublicOnly, self_signed_root
from tests.server.issuer_kit import ISSUED
from tests.server.support import API, b64, claims, mint, open_api
from tests.support import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference" / "roles.md"
OWNERS = ("asker", "somebody else")
STATES = tuple(KeyState)
CA = self_signed_root("Test authority")
UNSOUND = {"invalid_input", "method_not_allowed", "route_not_found"}
"""Codes that no valid request gets."""


def published() -> dict[str, set[str]]:
    """Return the roles that the page grants each operation."""
    text = PAGE.read_text().split("<!-- begin: roles -->")[1]
    rows = text.split("<!-- end: roles -->")[0].strip().splitlines()
    head, _, *lines = ([c.strip() for c in r.strip("|").split("|")] for r in rows)
    table = {}
    for name, *cells in lines:
        assert {"yes", "no"} >= set(cells)
        granted = zip(head[1:], cells, strict=True)
        table[name.strip("`")] = {role for role, cell in granted if cell == "yes"}
    return table


def key_in(hsm: OpenHSM, state: KeyState, owner: str) -> str:
    """Make a key whose first version is in a state; return its id."""
    session = hsm.act_as(caller())
    is_staged = state is KeyState.STAGED
    make = ops.CreateKey(algorithm="ed25519", owner=owner, staged=is_staged)
    key_id = session.execute(make).key_id
    match state:
        case KeyState.RETIRED:
            session.execute(ops.RotateKey(key_id=key_id))
        case KeyState.SUSPENDED:
            session.execute(ops.SuspendKey(key_id=key_id))
        case KeyState.REVOKED:
            session.execute(ops.RevokeKey(key_id=key_id))
        case KeyState.PURGE_SCHEDULED:
            session.execute(ops.DestroyKey(key_id=key_id, waiting_days=3))
        case KeyState.DESTROYED:
            session.execute(ops.DestroyKey(key_id=key_id))
        case KeyState.STAGED | KeyState.ACTIVE:
            pass
    versions = session.execute(ops.ListVersions(key_id=key_id)).items
    assert state is {v.version: v.state for v in versions}[1]
    return key_id


def fields_of(kind: type[ops.Operation[Any]], key_id: str) -> dict[str, Any]:
    """Return what a valid request of an operation says, of the key's first version."""
    operation = sample(kind, key_id)
    fields: dict[str, Any] = json.loads(wire.encode_json(operation))
    if "version" in kind.__struct_fields__:
        fields["version"] = 1
    if kind is ops.UpdateKey:
        fields["description"] = "changed"
    return {n: v for n, v in fields.items() if n != "type" and v is not None}


def certificate_for(hsm: OpenHSM, key_id: str) -> bytes:
    """Return a certificate for a key; for another one if nobody may have its key."""
    try:
        shown = hsm.act_as(caller()).execute(ops.GetPublicKey(key_id=key_id, version=1))
    except KeyStateError:
        return CA.der
    return CA.issue("any", key=PublicOnly(shown.der)).der


async def ask(
    api: API, kind: type[ops.Operation[Any]], key_id: str, token: str
) -> tuple[int, str]:
    """Send a request; return status, and the code of what was refused."""
    fields, route = fields_of(kind, key_id), kind.route
    if kind is ops.AttachCertificates:
        fields["chain"] = b64(certificate_for(api.hsm, key_id))
    path = route.path
    for name in route.path_fields:
        path = path.replace(f"{{{name}}}", quote(str(fields.pop(name)), safe=""))
    if route.has_body:
        answer = await api.send(route.method, path, token=token, body=fields)
    else:
        words = {
            k: str(v).lower() if v in {True, False} else v for k, v in fields.items()
        }
        query = urlencode(words, doseq=True)
        answer = await api.send(route.method, path, token=token, query=query)
    if answer.status < 300:
        wire.decode_json(answer.body, ops.result_type(kind))
    return answer.status, answer.code if answer.status >= 400 else ""


def test_the_page_says_it_of_every_route() -> None:
    """The cells are at least two thousand, and no route or role is left out."""
    table = published()

    assert {kind.__name__ for kind in ops.OPERATIONS} == table.keys()
    assert set(Role) == set().union(*table.values())
    assert 2000 <= len(Role) * len(ops.OPERATIONS) * len(STATES) * len(OWNERS)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("role", list(Role))
async def test_every_cell(
    api: API, monkeypatch: pytest.MonkeyPatch, role: Role, state: KeyState
) -> None:
    """What isn't granted is denied, in those words; what is, is never denied."""
    self_tests.once(monkeypatch)
    await try_every_cell(
        api, role, state, mint(claims(sub=OWNERS[0], roles=[role.value]))
    )


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR, Role.SERVICE])
async def test_every_cell_by_an_access_token(role: Role) -> None:
    """The same table holds for tokens of another issuer, whatever roles they say."""
    made = ISSUED["github"]
    rule = made.section().replace("[Service]", f"[{role.value}]")
    policy = parse_policy(
        "version: 1\nextends: default\nidentities:\n"
        f"  - {{{rule.replace('principal: ci-app', f'principal: {OWNERS[0]}')}}}\n"
    )
    async with open_api(policy=policy, issuers=[made.trust()]) as api:
        every = made.token(roles=[other.value for other in Role], jti=None)
        await try_every_cell(api, role, KeyState.ACTIVE, every)


async def try_every_cell(api: API, role: Role, state: KeyState, token: str) -> None:
    """Try every operation with a token that gives this role."""
    table = published()
    wrong, seen = [], Counter[int]()
    for owner in OWNERS:
        key_id = key_in(api.hsm, state, owner)
        for kind in ops.OPERATIONS:
            name = kind.__name__
            status, code = await ask(api, kind, key_id, token)
            is_denied = (status, code) == (403, "access_denied")
            is_sound = is_denied or (status < 500 and status not in {401, 403, 429})
            is_sound = is_sound and code not in UNSOUND
            is_sound = is_sound and (status > 202 or status == kind.route.success)
            if not is_sound or is_denied is (role in table[name]):
                wrong.append((owner, name, status, code))
            seen[status] += 1
            if status < 300 and kind.route.method != "GET":
                key_id = key_in(api.hsm, state, owner)

    assert [] == wrong
    assert len(OWNERS) * len(ops.OPERATIONS) == seen.total()
    assert seen[403] == len(OWNERS) * sum(role not in r for r in table.values())
