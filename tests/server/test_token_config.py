# SPDX-License-Identifier: MIT
"""The file of keys: the original's form, read strictly."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsm_core.errors import ConfigurationError, InvalidInputError, UnsafeFileModeError
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_config import (
    MAX_KEYS,
    load_token_config,
    public_keys_of_set,
    with_keys,
)
from hsm_server.identity.token_keys import Algorithm, TokenKey, TokenTrust, key_from_pem
from hsm_server.identity.token_verifier import TokenVerifier
from tests.server.support import SECRET
from tests.server.token_kit import ALGORITHMS, SECOND_SECRET, signer, write_config
from tests.support import REPOSITORY

SAMPLE = REPOSITORY / "examples" / "config" / "jwt.yaml"
RS, ES = signer("RS256").section("a"), signer("ES256").section("b")
B64 = base64.b64encode(SECOND_SECRET).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give where the file lies."""
    return tmp_path / "jwt.json"


def load(path: Path, **rules: Any) -> TokenTrust:
    """Return what a file says, where flags say *rules*."""
    return load_token_config(path, TokenRules(**rules))


def say(path: Path, text: str) -> Path:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def test_the_sample_is_good_as_it_stands() -> None:
    """Two RSA keys, an issuer and a leeway, as the original's README has them."""
    trust = load(SAMPLE)

    assert ["primary-2025-10", "fallback-2025-09"] == [key.kid for key in trust.keys]
    assert {"RS256"} == {key.algorithm for key in trust.keys}
    assert "https://issuer.example.com" == trust.rules.issuer
    assert 120 == trust.rules.leeway_seconds


def test_the_sample_verifies_tokens_of_its_keys(path: Path) -> None:
    """With another key in the place of one, whose private half is known."""
    tree = yaml.safe_load(SAMPLE.read_text())
    tree["keys"][0]["public_key_pem"] = signer("RS256").pem()
    verifier = TokenVerifier(load(say(path, yaml.safe_dump(tree))), time.time)
    issuer = "https://issuer.example.com"

    token = signer("RS256").token("primary-2025-10", iss=issuer)
    assert "alice" == verifier.verify(token).principal


def test_every_form_of_a_key(path: Path) -> None:
    """PEM, secret and JWK, each with its algorithm; YAML and JSON are one."""
    keys = [signer(name).section(name) for name in ALGORITHMS]
    trust = load(write_config(path, keys, audience="hsm"))
    same = load(say(path, yaml.safe_dump({"keys": keys, "audience": "hsm"})))

    assert list(ALGORITHMS) == [key.algorithm for key in trust.keys]
    assert "hsm" == trust.rules.audience
    assert same == trust
    rows = json.loads(trust.public_keys())["keys"]
    again = load(write_config(path, [{"jwk": row} for row in rows]))
    assert set(trust.keys[1:]) == set(again.keys)


def test_the_usual_algorithm_is_hs256(path: Path) -> None:
    """The default is HS256; names are accepted in any case."""
    assert "HS256" == load(write_config(path, [{"secret": B64}])).keys[0].algorithm
    named = [{"public_key_pem": signer("EdDSA").pem()}]
    trust = load(write_config(path, named, algorithm="EDDSA"))
    assert "EdDSA" == trust.keys[0].algorithm


def test_groups_of_algorithms(path: Path) -> None:
    """The original's later form names keys below their algorithm."""
    plain = [{"public_key_pem": signer("RS256").pem(), "kid": "a"}]
    groups = [
        {"algorithm": "RS256", "keys": plain},
        {"algorithm": "HS256", "keys": [{"secret": B64}]},
    ]
    trust = load(write_config(path, [], algorithms=groups))

    assert ["RS256", "HS256"] == [key.algorithm for key in trust.keys]


def test_a_secret_in_a_file_of_its_own(path: Path) -> None:
    """Then the file of keys may be read by others; paths start at its folder."""
    say(path.with_name("secret"), f"{B64}\n")
    write_config(path, [{"secret": "@secret"}]).chmod(0o644)

    assert load(path) == load(write_config(path, [{"secret": B64}]))


def test_a_key_set_of_a_file(path: Path) -> None:
    """Keys for encryption or of unknown types are skipped."""
    source = load(write_config(path, [signer("RS256").section("a")]))
    rows = json.loads(source.public_keys())["keys"]
    others = [
        {**rows[0], "use": "enc", "kid": "e"},
        {"kty": "AKP", "alg": "ML-DSA-65", "kid": "m", "pub": "AA"},
        {"kty": "EC", "crv": "P-384", "kid": "c"},
        {"kty": "oct", "k": "AA"},
    ]
    bare = {name: rows[0][name] for name in ("kty", "n", "e", "kid")}
    say(path.with_name("jwks.json"), json.dumps({"keys": [*others, bare]}))

    found = load(write_config(path, [], jwks_file="jwks.json"))
    assert source.keys == found.keys
    say(path.with_name("jwks.json"), json.dumps({"keys": others}))
    with pytest.raises(ConfigurationError, match="1 to 32 keys, got 0"):
        load(path)


BAD = {
    "no keys": ({"keys": []}, "1 to 32 keys, got 0"),
    "too many keys": (
        {
            "keys": [
                {"secret": base64.b64encode(bytes([n]) * 32).decode()}
                for n in range(MAX_KEYS + 1)
            ]
        },
        "got 33",
    ),
    "unknown field": ({"keys": [RS], "alg": "RS256"}, "unknown field `alg`"),
    "unknown field of a key": ({"keys": [{**RS, "x": 1}]}, r"keys\[0\]"),
    "unknown algorithm": (
        {"keys": [{**RS, "algorithm": "RS512"}]},
        "'RS512' is unknown",
    ),
    "none": ({"keys": [{**RS, "algorithm": "none"}]}, "'none' is unknown"),
    "another algorithm": ({"keys": [{**RS, "algorithm": "ES256"}]}, "for RS256, not"),
    "public key for HS256": (
        {"keys": [{"public_key_pem": RS["public_key_pem"]}]},
        "HS256 requires a secret",
    ),
    "secret for RS256": (
        {"algorithm": "RS256", "keys": [{"secret": B64}]},
        "requires algorithm HS256",
    ),
    "nothing in a key": ({"keys": [{"kid": "a"}]}, "one of secret, public_key_pem"),
    "two in a key": ({"keys": [{**RS, "secret": B64}]}, "one of secret, public_key"),
    "one kid twice": ({"keys": [RS, {**ES, "kid": "a"}]}, "kid 'a' is not unique"),
    "one key twice": ({"keys": [RS, {**RS, "kid": "z"}]}, "listed twice"),
    "empty kid": ({"keys": [{**RS, "kid": ""}]}, r"keys\[0\].kid"),
    "unclear kid": ({"keys": [{**RS, "kid": "a\nb"}]}, "printable"),
    "leeway too long": ({"keys": [RS], "leeway_seconds": 301}, "leeway_seconds.*300"),
    "leeway is a text": ({"keys": [RS], "leeway_seconds": "1"}, "leeway_seconds"),
    "empty issuer": ({"keys": [RS], "issuer": ""}, "issuer"),
    "no PEM": ({"keys": [{**RS, "public_key_pem": "..."}]}, "valid PEM public key"),
    "descriptor": ({"keys": [{"secret": "fd:0"}]}, "descriptor cannot be read"),
    "no file of keys": ({"jwks_file": "nothing.json"}, "jwks_file"),
    "a list": ([RS], "Expected `object`|YAML|mapping"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused(path: Path, name: str) -> None:
    """The message names file and field."""
    tree, words = BAD[name]
    with pytest.raises(ConfigurationError, match=words) as caught:
        load(say(path, json.dumps(tree)))
    assert str(path.parent) in str(caught.value)
    assert B64 not in str(caught.value)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        (base64.b64encode(b"S3CRET" * 5).decode(), "at least 32 bytes.*got 30"),
        ("S3CRET-not-base64-but-long-enough-for-all", "standard base64"),
        ("text:S3CRET", "at least 32 bytes"),
    ],
    ids=["short", "unclear", "short-text"],
)
def test_a_bad_secret_is_refused_and_not_told(
    path: Path, secret: str, words: str
) -> None:
    """At least 32 bytes after decoding; the place is named."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        load(write_config(path, [RS, {"secret": secret}]))
    assert "keys[1].secret" in str(caught.value)
    assert "S3CRET" not in str(caught.value)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "keys: [",
        "keys: *a",
        "keys: !!python/object/apply:os.system [x]",
        "keys: []\nkeys: []",
        '{"keys": [], "keys": []}',
        "a: " + "[" * 40,
        "---\nkeys: []\n---\nkeys: []",
        "keys: [\udcff]",
        "# " + "x" * 300_000,
    ],
    ids=range(11),
)
def test_a_broken_text_is_refused(path: Path, text: str) -> None:
    """Not YAML, or YAML that is more than data; never another kind of error."""
    path.touch(mode=0o600)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError):
        load(path)


def test_modes(path: Path) -> None:
    """Public keys may be read by all, secrets by nobody else; only we may write."""
    write_config(path, [RS]).chmod(0o644)
    assert load(path).keys
    path.chmod(0o664)
    with pytest.raises(UnsafeFileModeError, match="writable by other users"):
        load(path)
    oct_key = {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET[:33]).decode()}
    for section in ({"secret": B64}, {"jwk": oct_key}):
        write_config(path, [RS, section])
        assert 2 == len(load(path).keys)
        path.chmod(0o640)
        with pytest.raises(UnsafeFileModeError, match="holds a secret"):
            load(path)


def test_what_is_no_file(path: Path) -> None:
    """A folder, a pipe nobody writes to, or nothing at all."""
    for place in (path.parent, path, Path("/dev/null"), Path("a\0b")):
        with pytest.raises(ConfigurationError):
            load(place)


def test_flags_and_file_must_agree(path: Path) -> None:
    """Flags complete the file; a contradiction is an error."""
    write_config(path, [RS], issuer="https://a", leeway_seconds=5)

    assert "https://a" == load(path).rules.issuer
    assert "https://a" == load(path, issuer="https://a").rules.issuer
    assert "hsm" == load(path, audience="hsm").rules.audience
    assert (5, 77) == (
        load(path, leeway_seconds=9).rules.leeway_seconds,
        load(path, max_lifetime_seconds=77).rules.max_lifetime_seconds,
    )
    with pytest.raises(ConfigurationError, match=r"issuer.*--auth-jwt-issuer"):
        load(path, issuer="https://b")
    assert 9 == load(write_config(path, [RS]), leeway_seconds=9).rules.leeway_seconds


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"kid": "b", "jwk": {"kid": "a"}}, "differs from the kid"),
        ({"algorithm": "ES256", "jwk": {"alg": "RS256"}}, "RS256, not for ES256"),
    ],
)
def test_a_jwk_says_what_its_section_says(
    path: Path, section: dict[str, Any], words: str
) -> None:
    """Name and algorithm stand there once, or twice alike."""
    source = load(write_config(path, [signer("RS256").section()]))
    (row,) = json.loads(source.public_keys())["keys"]
    row = {name: row[name] for name in ("kty", "n", "e")}
    whole = {**section, "jwk": {**row, **section["jwk"]}}

    with pytest.raises(ConfigurationError, match=words):
        load(write_config(path, [whole]))
    agreeing = {"kid": "a", "algorithm": "RS256", "jwk": {**row, "kid": "a"}}
    assert "a" == load(write_config(path, [agreeing])).keys[0].kid


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [1]}', b'{"keys": [{}, "x"]}'],
)
def test_what_is_no_key_set(path: Path, data: bytes) -> None:
    """It is a list of objects under keys, in a file as from elsewhere."""
    path.with_name("jwks.json").write_bytes(data)

    with pytest.raises(ConfigurationError, match="jwks_file"):
        load(write_config(path, [], jwks_file="jwks.json"))
    with pytest.raises(InvalidInputError):
        public_keys_of_set(data)


def test_a_public_set_holds_public_keys() -> None:
    """Each of them is one of ours, and none is a secret; there may be none."""
    rows = [_row(name) for name in ("RS256", "ES256", "EdDSA")]
    unknown = [{**rows[0], "use": "enc"}, {**rows[0], "alg": "PS256"}, {"kty": "AKP"}]
    other = [{"kty": "EC", "crv": "P-384"}, {"kty": "OKP", "crv": "X25519"}]

    def read(*keys: dict[str, Any]) -> tuple[TokenKey, ...]:
        return public_keys_of_set(json.dumps({"keys": keys}).encode())

    assert () == read() == read(*unknown, *other)
    assert ["RS256", "ES256", "EdDSA"] == [key.algorithm for key in read(*rows)]
    bare = [
        {name: v for name, v in row.items() if name not in {"alg", "use"}}
        for row in rows
    ]
    assert read(*rows) == read(*bare)
    for bad, words in (
        ({"kty": "oct", "alg": "HS256", "k": B64}, r"keys\[3\].*secret"),
        ({**rows[0], "k": B64}, r"keys\[3\].*secret"),
        ({**rows[0], "n": "AQAB"}, r"keys\[3\]"),
        (rows[0], "twice"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            read(*rows, bad)


def test_fetched_keys_beside_those_of_a_file(path: Path) -> None:
    """Both are used with the file's rules; repeated keys are rejected."""
    trust = load(write_config(path, [signer("RS256").section("a")], audience="x"))
    fetched = public_keys_of_set(json.dumps({"keys": [_row("ES256")]}).encode())
    again = public_keys_of_set(json.dumps({"keys": [_row("RS256")]}).encode())

    both = with_keys(trust, fetched)

    assert ((*trust.keys, *fetched), trust.rules) == (both.keys, both.rules)
    with pytest.raises(ConfigurationError, match=r"fetched keys.*twice"):
        with_keys(trust, again)


def _row(algorithm: str) -> dict[str, Any]:
    source = key_from_pem(signer(algorithm).pem(), Algorithm(algorithm))
    (row,) = json.loads(TokenTrust((source,), TokenRules()).public_keys())["keys"]
    return {name: v for name, v in row.items() if name != "kid"}
