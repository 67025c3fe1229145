# SPDX-License-Identifier: MIT
"""The file that names a provider of OpenID Connect."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

import pytest

from hsm_core.errors import ConfigurationError, HSMError, UnsafeFileModeError
from hsm_core.model import Role
from hsm_server.identity.id_tokens import keys_of
from hsm_server.identity.oidc_config import load_oidc_config
from tests.server.token_kit import signer

GOOD: Final[dict[str, Any]] = {
    "issuer": "https://id.example.com/realms/hsm",
    "client_id": "ferrohsm",
    "redirect_uri": "https://hsm.example.com/ui/sign-in/oidc/answer",
    "jwks_file": "keys.json",
    "roles": {"hsm-operators": "operator", "hsm-auditors": "Auditor"},
}


def write(folder: Path, **changes: Any) -> Path:
    """Write a file, by default a good one; None leaves a field out."""
    path = folder / "oidc.yaml"
    path.touch(mode=0o600)
    fields = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    path.write_text(json.dumps(fields))
    return path


def test_good_file(tmp_path: Path) -> None:
    """
    Paths are relative to the file, and roles are accepted in any case.
    """
    settings = load_oidc_config(write(tmp_path, client_secret_file="secret"))

    assert tmp_path / "secret" == settings.client_secret_file
    assert tmp_path / "keys.json" == settings.jwks_file
    assert {
        "hsm-operators": Role.OPERATOR,
        "hsm-auditors": Role.AUDITOR,
    } == settings.roles


BAD: Final[dict[str, dict[str, Any]]] = {
    "no issuer": {"issuer": None},
    "issuer over http": {"issuer": "http://id.example.com"},
    "issuer with query": {"issuer": "https://id.example.com/?x=1"},
    "issuer with password": {"issuer": "https://a:b@id.example.com"},
    "issuer that is none": {"issuer": "https://[::1"},
    "return over http": {
        "redirect_uri": "http://hsm.example.com/ui/sign-in/oidc/answer"
    },
    "return elsewhere": {"redirect_uri": "https://hsm.example.com/ui/keys"},
    "return with fragment": {"redirect_uri": GOOD["redirect_uri"] + "#x"},
    "no openid": {"scopes": ["email"]},
    "two scopes in one": {"scopes": ["openid", "email profile"]},
    "no roles": {"roles": {}},
    "unknown role": {"roles": {"x": "root"}},
    "unknown field": {"audience": "x"},
    "leeway": {"leeway_seconds": 301},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD.keys())
def test_bad_files(tmp_path: Path, changes: dict[str, Any]) -> None:
    """
    An invalid file is rejected as a whole.
    """
    with pytest.raises(ConfigurationError, match="oidc"):
        load_oidc_config(write(tmp_path, **changes))


def test_file_writable_by_others(tmp_path: Path) -> None:
    """
    A file that others can write is rejected: it maps users to roles.
    """
    path = write(tmp_path)
    path.chmod(0o666)

    with pytest.raises(UnsafeFileModeError):
        load_oidc_config(path)


def key_set(*rows: dict[str, Any]) -> str:
    """Return a JWK Set."""
    return json.dumps({"keys": rows})


def jwk_row() -> dict[str, Any]:
    """Return a public key."""
    x = signer("EdDSA").key.public_key().public_bytes_raw()
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": base64.urlsafe_b64encode(x).rstrip(b"=").decode(),
        "kid": "one",
    }


def test_keys_of_a_provider(tmp_path: Path) -> None:
    """
    Keys for encryption and of unknown types are skipped, and changes are read.
    """
    source = keys_of(load_oidc_config(write(tmp_path)))
    path = tmp_path / "keys.json"
    path.touch(mode=0o600)
    others = ({"kty": "RSA", "use": "enc"}, {"kty": "lattice"})
    path.write_text(key_set(jwk_row(), *others))
    first = source.read()
    path.write_text(key_set({**jwk_row(), "kid": "two"}))

    assert ["one"] == [key.kid for key in first.keys]
    assert ["two"] == [key.kid for key in source.read().keys]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        key_set(),
        key_set(jwk_row(), jwk_row()),
        key_set({**jwk_row(), "d": "x"}),
    ],
    ids=["empty", "list", "none", "twice", "private"],
)
def test_bad_key_sets(tmp_path: Path, text: str) -> None:
    """
    A set without keys, with a repeated key or with a private key is rejected.
    """
    source = keys_of(load_oidc_config(write(tmp_path)))
    path = tmp_path / "keys.json"
    path.touch(mode=0o600)
    path.write_text(text)

    with pytest.raises(HSMError):
        source.read()
