# SPDX-License-Identifier: MIT
"""Files that people write: policies, retention, keys of tokens, providers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hsm_core.errors import ConfigurationError
from hsm_core.policies import parse_policy_file
from hsm_core.retention_policy import parse_retention_policy
from hsm_server.commands.serve import serve
from hsm_server.config.file import FileReader
from hsm_server.config.settings import TokenRules
from hsm_server.identity.issuer_config import load_token_issuers
from hsm_server.identity.oidc_config import load_oidc_config
from hsm_server.identity.token_config import load_token_config, public_keys_of_set
from hsm_server.identity.token_keys import Algorithm, key_from_pem, public_key_set
from tests.fuzzing.target import Target, own_folder
from tests.server.token_kit import ALGORITHMS, signer

_ASYMMETRIC: Final = [name for name in ALGORITHMS if name != "HS256"]

_POLICY: Final = """\
version: 1
extends: strict
groups: {uses: [Sign, Verify]}
grants: {Operator: [uses, Status]}
approvers: {}
identities:
  - principal: ci
    roles: [Service]
    issuer: https://token.actions.githubusercontent.com
    audience: https://hsm.example.com
    claims: {repository: example/app, ref: ["refs/tags/v*"], "/a/b": true, "n": 7}
  - {principal_claim: sub, principal_prefix: "id:", roles: [Operator],
    issuer: a, audience: b, claims: {groups: hsm}}
  - {principal: ada, roles: [Auditor], certificate_subjects: ["CN=ada"]}
rules:
  - name: night
    effect: deny
    match:
      operations: [uses]
      roles: [Operator]
      networks: [10.0.0.0/8, "2001:db8::/32"]
      algorithms: [RSA-2048]
      key_names: ["release*"]
      time: {days: [mon, fri], from: "22:00", to: "06:00", zone: Europe/Berlin}
  - name: two
    effect: require-approval
    match: {operations: [DestroyKey], owners: [self]}
    except: {tags: [test]}
    approval: {quorum: 2, distinct_roles: [Operator, Auditor], ttl_seconds: 60}
"""

_RETENTION: Final = b"""\
default_days: 90
tags: {test.short: 1, finance: 3650}
overrides:
  - {key_id: release, days: 30}
  - {key_id: release, version: 2, days: 400}
"""

_PROVIDER: Final = b"""\
issuer: https://id.example.com/realms/hsm
client_id: ferrohsm
redirect_uri: https://hsm.example.com/ui/sign-in/oidc/answer
client_secret_file: secret
roles_claim: realm_access.roles
roles: {signers: Operator, watchers: Auditor}
scopes: [openid, profile]
"""


_CONFIGURATION: Final = b"""\
# Settings of a server.
[listener]
bind = "[::1]:8443"
cert = ["a.pem", 'b.pem']
key = "a.pem"
client-cert-identities = false

[storage]
key-store = "sqlite:data/keys"
audit-retention-days = 30

[service]
drain-timeout-secs = 2.5
"""


_ISSUERS: Final = b"""\
issuers:
  - issuer: https://id.example.com/realms/hsm
    ca_bundle: ca.pem
  - {issuer: "https://gitlab.example.com", jwks_url: "https://gitlab.example.com/keys"}
  - {issuer: "spiffe://example.org", jwks_file: bundle.json}
"""


def targets() -> list[Target]:
    """Return a target for each kind of file."""
    return [
        *(_configuration(), _policy(), _retention(), _token_config()),
        *(_provider(), _issuers()),
        *(_jwk_set(), _pem()),
    ]


def _configuration() -> Target:
    reader = FileReader()
    context = serve.make_context("serve", [], resilient_parsing=True)

    def read(path: Path) -> object:
        found = reader.read(path, context)
        if found.faults:
            raise ConfigurationError(found.faults[0])
        return found

    return Target(
        name="server-config",
        readers=(_in_file(read),),
        seeds=(_CONFIGURATION, b"limits = {max-connections = 7}\n"),
        longest=2048,
    )


def _policy() -> Target:
    return Target(
        name="policy-file",
        readers=(lambda data: parse_policy_file(Path("policy.yaml"), data),),
        seeds=(_POLICY.encode(), b'{"version": 1, "extends": "strict"}'),
        longest=1024,
    )


def _retention() -> Target:
    return Target(
        name="retention-file",
        readers=(parse_retention_policy,),
        seeds=(_RETENTION, b'{"tags": {"a": 5}, "overrides": []}'),
        longest=2048,
    )


def _in_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return what reads bytes that lie in a file of our own."""
    path = own_folder() / "file"
    path.touch(mode=0o600)

    def read_bytes(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return read_bytes


def _token_config() -> Target:
    jwk = {"kty": "oct", "k": "A" * 43, "kid": "j"}
    keys: list[dict[str, Any]] = [signer(name).section(name) for name in ALGORITHMS]
    config = {"issuer": "us", "audience": "hsm", "leeway_seconds": 5, "keys": keys}
    grouped = {"algorithms": [{"algorithm": "HS256", "keys": [{"jwk": jwk}]}]}
    yaml = b'algorithm: HS256\nkeys:\n  - kid: "one"\n    secret: "%b"\n' % (b"A" * 44)
    return Target(
        name="token-config",
        readers=(_in_file(lambda path: load_token_config(path, TokenRules())),),
        seeds=(json.dumps(config).encode(), json.dumps(grouped).encode(), yaml),
    )


def _provider() -> Target:
    return Target(
        name="provider-config",
        readers=(_in_file(load_oidc_config),),
        seeds=(_PROVIDER,),
        longest=2048,
    )


def _issuers() -> Target:
    return Target(
        name="token-issuers",
        readers=(_in_file(load_token_issuers),),
        seeds=(_ISSUERS,),
        longest=2048,
    )


def _jwk_set() -> Target:
    keys = [
        key_from_pem(signer(name).pem(), Algorithm(name), name) for name in _ASYMMETRIC
    ]
    whole = public_key_set(keys)
    rows = [json.dumps(row).encode() for row in json.loads(whole)["keys"]]
    return Target(
        name="jwk-set",
        readers=(
            public_keys_of_set,
            lambda data: public_keys_of_set(b'{"keys":[%b]}' % data),
        ),
        seeds=(whole, *rows),
    )


def _pem() -> Target:
    def read(name: str) -> Callable[[bytes], object]:
        algorithm = Algorithm(name)
        return lambda data: key_from_pem(data.decode("utf-8", "replace"), algorithm)

    return Target(
        name="token-key-pem",
        readers=[read(name) for name in _ASYMMETRIC],
        seeds=[signer(name).pem().encode() for name in _ASYMMETRIC],
        longest=2048,
    )
