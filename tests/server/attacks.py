# SPDX-License-Identifier: MIT
"""
Published attack classes on bearer tokens, each as tokens that our rules must refuse.

A class is expanded with everything that is at hand. The tokens are for a verifier that
knows our secret without a kid, and none of the asymmetric keys here.
"""

import base64
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from hsm_server.config.settings import MAX_TOKEN_BYTES
from tests.server.support import SECRET, b64url, claims, mint, sign_parts

Tokens = Iterator[str]

HS256 = {"alg": "HS256"}

NOT_OFFERED = {
    "KEY-12": "shown by the tests of keys that are replaced",
    "CLM-12": "shown by the tests of the console's sessions",
    "CLM-13": "shown by the tests of tokens that serve once",
    "CLM-14": "subjects are not revoked",
    "TIM-01": "shown by the tests of the clock",
    "TIM-02": "shown by the tests of the clock",
    "DPOP-01": "DPoP is not offered",
    "CSRF-01": "shown by the tests of the console's forms",
}
"""Classes that are not among these attacks, and why."""

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def _public_forms(key: Any) -> list[bytes]:
    public = key.public_key()
    encodings = serialization.Encoding
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    forms = [
        public.public_bytes(encodings.PEM, spki),
        public.public_bytes(encodings.PEM, spki).rstrip(b"\n"),
        public.public_bytes(encodings.DER, spki),
    ]
    if isinstance(key, rsa.RSAPrivateKey):
        pkcs1 = serialization.PublicFormat.PKCS1
        forms += [public.public_bytes(encodings.PEM, pkcs1)]
        forms += [forms[-1].rstrip(b"\n")]
    return forms


def _values(*values: Any) -> tuple[Any, ...]:
    return values


def _header(**members: Any) -> dict[str, Any]:
    return {**HS256, **members}


def _asymmetric(header: dict[str, Any]) -> str:
    """Return a token that is truly signed, by an asymmetric key."""
    signed = f"{b64url(json.dumps(header).encode())}.{_payload()}"
    data = signed.encode()
    if header["alg"].startswith("RS"):
        signature = RSA_KEY.sign(data, padding.PKCS1v15(), hashes.SHA256())
    elif header["alg"].startswith("PS"):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        signature = RSA_KEY.sign(data, pss, hashes.SHA256())
    elif header["alg"].startswith("ES"):
        signature = EC_KEY.sign(data, ec.ECDSA(hashes.SHA256()))
    else:
        signature = ED_KEY.sign(data)
    return f"{signed}.{b64url(signature)}"


def _payload(**changes: Any) -> str:
    return b64url(json.dumps(claims(**changes)).encode())


def _with_claim(name: str, *values: Any) -> Tokens:
    return (mint({**claims(), name: value}) for value in values)


def _raw_payloads() -> Iterator[bytes]:
    good = json.dumps(claims())
    yield from (b"", b"[]", b"1", b"null", b"{", good.encode()[:-1], b"\0")
    for extra in ('"roles": ["Administrator"]', '"sub": "root"', '"exp": 1'):
        yield f"{good[:-1]}, {extra}}}".encode()
        yield f"{{{extra}, {good[1:]}".encode()
    for depth in (17, 100, 900):
        yield f'{good[:-1]}, "x": {"[" * depth}{"]" * depth}}}'.encode()
        opened = '{"a":' * depth
        yield f'{good[:-1]}, "x": {opened}1{"}" * depth}}}'.encode()
    yield good.encode("utf-16")
    yield b"\xef\xbb\xbf" + good.encode()
    yield from (b'"text"', good.encode() + b"x")
    for text in (b'"\xff"', b'"\\ud800"'):
        yield good[:-1].encode() + b', "x": ' + text + b"}"
    for number in ("1e400", "NaN", "Infinity", "-Infinity", "1" * 400):
        yield json.dumps(claims(exp=0)).replace('"exp": 0', f'"exp": {number}').encode()


def _payload_tokens() -> Tokens:
    return (sign_parts(b'{"alg":"HS256"}', payload) for payload in _raw_payloads())


def _header_tokens() -> Tokens:
    payload = json.dumps(claims()).encode()
    for header in (
        *(b"", b"[]", b'"HS256"', b'{"alg":"HS256"'),
        *(b'{"alg":"none","alg":"HS256"}', b'{"alg":"HS256","alg":"none"}'),
        b'{"alg":"HS256","x":' + b"[" * 2000 + b"]" * 2000 + b"}",
    ):
        yield sign_parts(header, payload)


def _bit_flips() -> Tokens:
    whole = mint().encode()
    for position in range(len(whole) * 7):
        changed = bytearray(whole)
        changed[position // 7] ^= 1 << position % 7
        yield changed.decode("ascii")
    for number in range(40):
        token = mint(claims(jti=str(number)))
        head, _, signature = token.rpartition(".")
        raw = base64.urlsafe_b64decode(signature + "=")
        for position in range(256):
            changed = bytearray(raw)
            changed[position // 8] ^= 1 << position % 8
            yield f"{head}.{b64url(bytes(changed))}"


def _lengths() -> Tokens:
    head, _, signature = mint().rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "=")
    yield from (f"{head}.{b64url(raw[:n])}" for n in range(32))
    yield from (f"{head}.{b64url(raw + bytes(n))}" for n in range(1, 40))
    yield from (f"{head}.{b64url(bytes(n))}" for n in range(70))


def _spellings() -> Tokens:
    token = mint()
    head, payload, signature = token.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    yield from (token[:-1] + c for c in alphabet if c != token[-1])
    for end in ("=", "==", "A", "+", "\n", "\u00e9"):
        yield token + end
    yield from (f"{head}.{payload}.+{signature[1:]}", "a" * 1_000_000)
    yield mint({**claims(), "x": "x" * MAX_TOKEN_BYTES})
    for position in range(0, len(token), 3):
        for inserted in (" ", "\t", "%", "=", "+", "/", "."):
            yield token[:position] + inserted + token[position:]


def _segments() -> Tokens:
    token = mint()
    head, payload, signature = token.split(".")
    yield from (head, f"{head}.{payload}", f"{token}.x", f"{token}.{signature}.x")
    yield from (f".{payload}.{signature}", f"{head}..{signature}", "...", "..", ".")
    body = {"payload": payload, "protected": head, "signature": signature}
    yield json.dumps(body)
    yield json.dumps({"payload": payload, "signatures": [body]})
    yield json.dumps({**body, "header": {"alg": "HS256"}})
    yield b64url(json.dumps(body).encode())


def _random_garbage() -> Tokens:
    chance = random.Random(7)
    letters = "ABCdef019-_."
    for _ in range(500):
        yield "".join(chance.choices(letters, k=chance.randrange(1, 200)))


def _other_algorithms(*names: str) -> Tokens:
    for name in names:
        yield _asymmetric({"alg": name})
        yield mint(header={"alg": name})


def _times() -> Tokens:
    now = int(time.time())
    yield from _with_claim("exp", *range(now - 4000, now - 120, 40))
    yield from _with_claim("exp", "soon", str(now + 99), now - 4000.5, -1, True, [], {})
    yield from _with_claim("exp", 2**53, 2**63, 10**19, 1e300, [now])
    yield mint(claims(iat=now, exp=now + 86401))
    yield from _with_claim(
        "iat", -1, str(now), 1.5, True, now + 290, now - 86400, 2**53, None
    )
    yield mint(claims(exp=None))


def _signed_with(*secrets: bytes) -> Tokens:
    return (mint(header=header, secret=s) for s in secrets for header in (HS256, None))


CLASSES: dict[str, Callable[[], Tokens]] = {
    "ALG-01": lambda: iter([mint(header={"alg": "none"}).rpartition(".")[0] + "."]),
    "ALG-02": lambda: (
        text
        for alg in _values(
            *("None", "NONE", "nOnE", " none", "none ", "", "hs256", "HS256 "),
            *("HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256"),
            *("ES384", "ES256K", "EdDSA", "Ed25519", "A256GCMKW", "dir"),
            *(["HS256"], {"HS256": 1}, 256, None, True),
        )
        for token in [mint(header={"alg": alg})]
        for text in (token, token.rpartition(".")[0] + ".")
    ),
    "ALG-03": lambda: (mint(header=h) for h in ({"typ": "JWT"}, {"x": "HS256"})),
    "ALG-04": lambda: _signed_with(*_public_forms(RSA_KEY)),
    "ALG-05": lambda: _signed_with(*_public_forms(EC_KEY), *_public_forms(ED_KEY)),
    "ALG-06": lambda: _signed_with(b'{"keys":[]}', b'{"keys": []}\n'),
    "ALG-07": lambda: _other_algorithms("RS384", "RS512", "PS256", "RS256"),
    "ALG-08": lambda: _other_algorithms("ES256K", "ES384", "ES256"),
    "ALG-09": lambda: (
        mint(header={"alg": alg}) for alg in _values(["HS256"], 1, None, {}, True, [])
    ),
    "ALG-10": lambda: (
        sign_parts(header, json.dumps(claims()).encode())
        for header in (
            b'{"alg":"none","alg":"HS256"}',
            b'{"alg":"HS256","alg":"none"}',
            b'{"alg":"RS256","alg":"HS256"}',
        )
    ),
    "ALG-11": _segments,
    "KEY-01": lambda: (mint(header=_header(kid=f"k{n}")) for n in range(20)),
    "KEY-02": lambda: (
        mint(header=_header(kid="../../../../dev/null"), secret=s)
        for s in (b"", b"\0", SECRET)
    ),
    "KEY-03": lambda: (
        mint(header=_header(kid="/proc/sys/kernel/randomize_va_space"), secret=s)
        for s in (b"2\n", b"2", SECRET)
    ),
    "KEY-04": lambda: (
        mint(header=_header(kid="x' UNION SELECT 'k"), secret=s) for s in (b"k", SECRET)
    ),
    "KEY-05": lambda: (
        mint(header=_header(kid=kid))
        for kid in _values(
            "a\0b", "a\nb", "k" * 7000, "k" * 20000, "\u0430", 1, None, {}
        )
    ),
    "KEY-06": lambda: _signed_with(b"the secret of another issuer, 32 bytes"),
    "KEY-07": lambda: _signed_with(b"one of several keys of this algorithm"),
    "KEY-08": lambda: (
        token for kid in ("a", "b") for token in (mint(header=_header(kid=kid)),)
    ),
    "KEY-09": lambda: (
        mint(header=_header(jwk=jwk), secret=b"attacker" * 4)
        for jwk in ({"kty": "oct", "k": b64url(b"attacker" * 4)}, {}, None)
    ),
    "KEY-10": lambda: (
        mint(header=_header(**{name: "https://127.0.0.1:9/"}), secret=s)
        for name in ("jku", "x5u")
        for s in (SECRET, b"attacker")
    ),
    "KEY-11": lambda: (
        mint(header=_header(**{name: value}))
        for name, value in (("x5c", ["MIIB"]), ("x5u", "https://localhost/"))
    ),
    "KEY-13": lambda: _signed_with(
        *(SECRET[:n] for n in range(len(SECRET))), SECRET + b"x", bytes(len(SECRET))
    ),
    "SIG-01": _bit_flips,
    "SIG-02": _lengths,
    "SIG-03": lambda: (
        f"{b64url(json.dumps({'alg': 'ES256'}).encode())}.{_payload()}.{b64url(s)}"
        for s in (bytes(64), b"\xff" * 64, bytes(32) + b"\1" * 32)
    ),
    "SIG-04": lambda: _other_algorithms("ES256"),
    "SIG-05": _spellings,
    "SIG-06": lambda: _other_algorithms("EdDSA", "Ed25519"),
    "SIG-07": lambda: _other_algorithms("RS256"),
    "STR-01": _segments,
    "STR-02": lambda: (
        mint(header=_header(**more))
        for more in ({"zip": "DEF"}, {"enc": "A256GCM"}, {"cty": "JWT"})
    ),
    "STR-03": lambda: (
        mint(header=_header(crit=crit))
        for crit in ([], ["x"], ["exp"], ["b64"], ["b64", "b64"], "b64", None)
    ),
    "STR-04": lambda: (
        mint(header=_header(**more))
        for more in ({"b64": False}, {"b64": True}, {"b64": False, "crit": ["b64"]})
    ),
    "STR-05": _payload_tokens,
    "STR-06": _header_tokens,
    "STR-07": _random_garbage,
    "CLM-01": _times,
    "CLM-02": lambda: _with_claim("exp", *(int(time.time()) - n for n in (60, 61, 99))),
    "CLM-03": lambda: _with_claim(
        "nbf", int(time.time()) + 3600, "1", -1, None, True, 2**60
    ),
    "CLM-04": lambda: (
        mint(claims(iat=iat, exp=exp))
        for now in [int(time.time())]
        for iat, exp in (
            (now + 3600, now + 7200),
            (now, now + 86401),
            (now - 86400, now + 60),
            (None, now + 90000),
            (now, 2**53 + 1),
        )
    ),
    "CLM-05": lambda: _with_claim("iss", 1, [], ["a"], {}, None),
    "CLM-06": lambda: _with_claim(
        "aud", "x", ["x"], ["ferrohsm", "x"], "", [], 1, {"a": "b"}, None
    ),
    "CLM-07": lambda: (
        mint(header=_header(typ=typ))
        for typ in _values(
            *("dpop+jwt", "approval+jwt", "text/jwt", "", "JWE", "JOSE"),
            *(1, None, ["JWT"]),
        )
    ),
    "CLM-08": lambda: _with_claim(
        "sub",
        *("", "x" * 129, "x" * 100_000, "a\nb", "a\0", " a", "a ", 1, None, ["a"], {}),
        *("system", "System", "SYSTEM", "retention-scheduler", "system.purge"),
        *("System.anything", "unauthenticated", "\uff53ystem", "a\u202eb", "e\u0301va"),
        *("a\u2800b", "a\u2800", "a\ufe0fb", "ann\ufe0f", "a\u3164b", "\u3164"),
        *("a\U000e0100b", "a\u034fb", "\u1160"),
    ),
    "CLM-09": lambda: _with_claim(
        "roles",
        *([], "Administrator", ["root"], ["Root", "root"], None, {}, 1, [""], [1]),
        *(["Operator"] * 2, ["aDMINISTRATOR"], [["Administrator"]], [None]),
        *(["Operator", 1], ["Operator", "operator"], ["OPERATOR"]),
        *({"Operator": True}, ["Administrator "]),
    ),
    "CLM-11": lambda: (
        mint(claims(**binding))
        for binding in _values(
            *({"fp": fp} for fp in _values("00" * 32, "", 7)),
            *({"cnf": cnf} for cnf in _values({}, [], "x", {"jkt": "a" * 43})),
            *({"cnf": {"x5t#S256": x5t}} for x5t in _values("", "%%%", 1)),
            {"cnf": {"x5t#S256": b64url(bytes(32))}},
            {"cnf": {"x5t#S256": b64url(bytes(32)), "jkt": "a"}},
        )
    ),
}
"""For each class, its tokens; CLM-10 is a good token and has a test of its own."""
