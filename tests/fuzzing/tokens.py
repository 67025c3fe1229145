# SPDX-License-Identifier: MIT
"""What callers show to be let in: bearer tokens, ID tokens, the console's cookies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from hsm_core.model import Role
from hsm_server.config.settings import OIDCSettings, TokenRules
from hsm_server.identity.id_tokens import IDTokens
from hsm_server.identity.token_keys import (
    Algorithm,
    TokenTrust,
    key_from_pem,
    key_from_secret,
)
from hsm_server.identity.token_verifier import TokenVerifier
from hsm_server.ui.security import pack_flash, unpack_flash
from tests.fuzzing.stored_forms import NothingReadError, wanted
from tests.fuzzing.target import Target
from tests.server.issuer_kit import ISSUED
from tests.server.support import SECRET, b64url, mint, sign_parts
from tests.server.token_kit import ALGORITHMS, signer

_NOW: Final = 1_800_000_000
_ISSUER: Final = "https://id.example.com/realms/hsm"
_NONCE: Final = "n" * 43
_CLAIMS: Final[dict[str, Any]] = {
    "sub": "alice",
    "roles": ["Operator", "auditor"],
    "iat": _NOW,
    "exp": _NOW + 300,
}


def targets() -> list[Target]:
    """Return a target for each kind of token."""
    return [_bearer_token(), _access_token(), _id_token(), _flash()]


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _bearer_token() -> Target:
    keys = [
        key_from_pem(signer(name).pem(), Algorithm(name), name)
        for name in ALGORITHMS
        if name != "HS256"
    ]
    trust = TokenTrust((key_from_secret(SECRET), *keys), TokenRules())
    verifier = TokenVerifier(trust, lambda: float(_NOW))

    def read_parts(data: bytes) -> object:
        """Sign what is a header, a line feed, and a payload."""
        header, _, payload = data.partition(b"\n")
        return verifier.verify(sign_parts(header, payload))

    more = {"nbf": _NOW, "jti": "one", "cnf": {"x5t#S256": b64url(b"\1" * 32)}}
    headers = [{"alg": "HS256"}, {"alg": "HS256", "typ": "JWT"}]
    signed = [
        signer(name).token_of({"alg": name, "kid": name}, _CLAIMS).encode()
        for name in ALGORITHMS
        if name != "HS256"
    ]
    parts = [json.dumps(h) + "\n" + json.dumps(_CLAIMS) for h in headers]

    def read_bound(data: bytes) -> object:
        """Read the same for somebody who shows a certificate."""
        fingerprint = (b"\1" * 32).hex()
        header, _, payload = data.partition(b"\n")
        signed = sign_parts(header, payload)
        return verifier.verify(signed, certificate_sha256=fingerprint)

    bound = json.dumps(headers[0]) + "\n" + json.dumps({**_CLAIMS, **more})
    return Target(
        name="bearer-token",
        readers=(
            lambda data: verifier.verify(_text(data)),
            read_parts,
            read_bound,
        ),
        seeds=(mint(_CLAIMS).encode(), *signed, *map(str.encode, (*parts, bound))),
    )


def _access_token() -> Target:
    made, mesh = ISSUED["github"], ISSUED["spiffe"]
    trust = TokenTrust.of_secret(SECRET, TokenRules())
    issuers = (made.trust(), mesh.trust())
    verifier = TokenVerifier(trust, lambda: float(_NOW), issuers)
    times: dict[str, Any] = {"iat": _NOW, "exp": _NOW + 300}

    def read_parts(data: bytes) -> object:
        """Sign what is a header, a line feed, and a payload."""
        signed = b".".join(b64url(part).encode() for part in data.split(b"\n", 1))
        signature = b64url(mesh.signer.sign(signed))
        return verifier.verify(f"{signed.decode()}.{signature}")

    header = json.dumps({"alg": "ES256", "kid": f"kid-{mesh.number}"})
    return Target(
        name="access-token",
        readers=(lambda data: verifier.verify(_text(data)), read_parts),
        seeds=(
            made.token(**times).encode(),
            mesh.token(**times).encode(),
            f"{header}\n{json.dumps(mesh.said(**times))}".encode(),
        ),
    )


def _id_token() -> Target:
    settings = OIDCSettings(
        issuer=_ISSUER,
        client_id="ferrohsm",
        redirect_uri="https://hsm.example.com/ui/sign-in/oidc/answer",
        jwks_file=Path("keys.json"),
        roles_claim="realm_access.roles",
        roles={"signers": Role.OPERATOR},
    )
    by = signer("EdDSA")
    keys = [key_from_pem(by.pem(), Algorithm.EDDSA, "one")]
    claims = {
        "iss": _ISSUER,
        "sub": "olga",
        "aud": ["ferrohsm"],
        "iat": _NOW,
        "exp": _NOW + 300,
        "nonce": _NONCE,
        "realm_access": {"roles": ["signers", "drivers"]},
    }

    def read(data: bytes) -> object:
        # Each token is good once, and each run of the fuzzer must be as any other.
        tokens = IDTokens(settings, keys, lambda: float(_NOW))
        return tokens.redeem(_text(data), _NONCE)

    def read_parts(data: bytes) -> object:
        header, _, payload = data.partition(b"\n")
        head = f"{b64url(header)}.{b64url(payload)}"
        return read(f"{head}.{b64url(by.sign(head.encode()))}".encode())

    header = {"alg": "EdDSA", "kid": "one"}
    parts = f"{json.dumps(header)}\n{json.dumps(claims)}".encode()
    return Target(
        name="id-token",
        readers=(read, read_parts),
        seeds=(by.token_of(header, claims).encode(), parts),
    )


def _flash() -> Target:
    secret = "s" * 43
    return Target(
        name="flash-cookie",
        readers=(
            lambda data: wanted(unpack_flash(secret, _text(data))),
            lambda data: wanted(unpack_flash(secret, data.decode("utf-8", "replace"))),
        ),
        seeds=(pack_flash(secret, "The key was made.").encode(),),
        refusals=(NothingReadError,),
        longest=1024,
    )
