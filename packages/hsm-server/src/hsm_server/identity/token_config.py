# SPDX-License-Identifier: MIT
"""Token key configuration file: format and validation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from hsm_core.errors import (
    ConfigurationError,
    HSMError,
    InvalidInputError,
    UnsafeFileModeError,
)
from hsm_core.model import Record
from hsm_core.secret_input import read_secret
from hsm_core.setting_files import SettingFile, parse_settings, read_setting_file
from hsm_core.wire import scan_json
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_keys import (
    MIN_SECRET_BYTES,
    SIGNATURE_USES,
    Algorithm,
    TokenKey,
    TokenTrust,
    has_types_of_jwk,
    key_from_jwk,
    key_from_pem,
    key_from_secret,
)

MAX_KEYS: Final = 32
"""Maximum number of keys; a token without kid may be checked with all."""

_FIELD: Final = "auth_jwt_config"
_NAMES: Final = {algorithm.value.upper(): algorithm for algorithm in Algorithm}


class _Key(Record, frozen=True, kw_only=True):
    kid: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    algorithm: str | None = None
    secret: str | None = None
    public_key_pem: str | None = None
    jwk: dict[str, Any] | None = None


class _Group(Record, frozen=True, kw_only=True):
    algorithm: str
    keys: tuple[_Key, ...]


class _Config(Record, frozen=True, kw_only=True):
    algorithm: str | None = None
    issuer: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    audience: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    leeway_seconds: Annotated[int, Meta(ge=0, le=300)] | None = None
    keys: tuple[_Key, ...] = ()
    algorithms: tuple[_Group, ...] = ()
    jwks_file: str | None = None


def load_token_config(path: Path, rules: TokenRules, *, least: int = 1) -> TokenTrust:
    """
    Return keys and rules that a file states.

    Args:
        path: The file, YAML or JSON.

        rules: What flags say: what the file leaves open, and what it must not
            contradict.

        least: How many keys there must be.

    Raises:
        ConfigurationError: It can't be read or is not valid; the message names the
            field, and tells nothing of a secret.
        UnsafeFileModeError: Others may write to it, or read a secret in it.
    """
    file = read_setting_file(path, field=_FIELD)
    try:
        config = parse_settings(file.data, _Config, what="JWT config")
        _check_modes(path, file, config)
        trust = TokenTrust(tuple(_keys(path, config)), _rules(config, rules))
        _check_set(trust.keys, least)
    except InvalidInputError as error:
        raise ConfigurationError(
            f"The JWT configuration {path} is not valid: {error}", field=_FIELD
        ) from None
    return trust


def load_key_set(path: Path, rules: TokenRules, *, least: int = 1) -> TokenTrust:
    """
    Return the keys of a JWK Set that are for signatures.

    Args:
        path: The file, JSON.

        rules: Token rules.

        least: Minimum number of keys.

    Raises:
        ConfigurationError: It can't be read, is none, or holds no key, or too many.
        UnsafeFileModeError: Others may write to it.
    """
    try:
        keys = tuple(_key_set(path))
        _check_set(keys, least)
    except InvalidInputError as error:
        raise ConfigurationError(
            f"The JWK Set {path} is not valid: {error}", field="jwks_file"
        ) from None
    return TokenTrust(keys, rules)


def _check_modes(path: Path, file: SettingFile, config: _Config) -> None:
    groups = (config.keys, *(group.keys for group in config.algorithms))
    holds_secret = any(
        (key.secret is not None and not key.secret.startswith("@"))
        or (key.jwk is not None and "k" in key.jwk)
        for keys in groups
        for key in keys
    )
    if holds_secret and file.is_open_to_others:
        raise UnsafeFileModeError(
            f"The JWT configuration {path} holds a secret but is readable by "
            "others. Set its mode to 0600.",
            field=_FIELD,
        )


def _rules(config: _Config, rules: TokenRules) -> TokenRules:
    for name in ("issuer", "audience"):
        here, there = getattr(config, name), getattr(rules, name)
        if here is not None and there and here != there:
            raise _fault(name, f"must equal --auth-jwt-{name}.")
    leeway = config.leeway_seconds
    return msgspec.structs.replace(
        rules,
        issuer=config.issuer or rules.issuer,
        audience=config.audience or rules.audience,
        leeway_seconds=rules.leeway_seconds if leeway is None else leeway,
    )


def _keys(path: Path, config: _Config) -> Iterator[TokenKey]:
    groups = [(config.algorithm, config.keys, "")]
    groups += [
        (group.algorithm, group.keys, f"algorithms[{number}].")
        for number, group in enumerate(config.algorithms)
    ]
    for name, keys, where in groups:
        usual = _algorithm(name, f"{where}algorithm")
        for number, section in enumerate(keys):
            place = f"{where}keys[{number}]"
            try:
                yield _key(path, section, usual, place)
            except InvalidInputError as error:
                raise _fault(place, str(error)) from None
    if config.jwks_file is not None:
        for key in _key_set(path.parent / config.jwks_file):
            yield replace(key, origin=config.jwks_file)


def _key(path: Path, section: _Key, usual: Algorithm | None, place: str) -> TokenKey:
    chosen = _algorithm(section.algorithm, "algorithm") or usual
    given = (section.secret, section.public_key_pem, section.jwk)
    if sum(one is not None for one in given) != 1:
        raise InvalidInputError(
            "A key must have exactly one of secret, public_key_pem and jwk.",
            field=place,
        )
    kid, algorithm = section.kid or "", chosen or Algorithm.HS256
    if section.public_key_pem is not None:
        if algorithm is Algorithm.HS256:
            raise InvalidInputError(
                "HS256 requires a secret. Set algorithm to the algorithm of the "
                "public key.",
                field="algorithm",
            )
        return key_from_pem(section.public_key_pem, algorithm, kid)
    if section.jwk is not None:
        return _inline_jwk(section.jwk, chosen, kid)
    if algorithm is not Algorithm.HS256:
        raise InvalidInputError(
            f"A secret requires algorithm HS256, got {algorithm}.", field="algorithm"
        )
    given_secret = section.secret or ""
    key = key_from_secret(_secret(path, given_secret, place), kid)
    is_elsewhere = given_secret.startswith("@")
    return replace(key, origin=given_secret[1:] if is_elsewhere else "")


def _inline_jwk(jwk: dict[str, Any], algorithm: Algorithm | None, kid: str) -> TokenKey:
    if kid and jwk.get("kid", kid) != kid:
        raise InvalidInputError("kid differs from the kid in the jwk.", field="kid")
    named = {"kid": kid} if kid else {}
    key = key_from_jwk({**jwk, **named}, algorithm)
    if algorithm is not None and key.algorithm is not algorithm:
        raise InvalidInputError(
            f"The key is for {key.algorithm}, not for {algorithm}.",
            field="algorithm",
        )
    return key


def _secret(path: Path, value: str, place: str) -> bytes:
    if value.startswith("fd:"):
        raise InvalidInputError(
            "A file descriptor cannot be read again on reload. Pass a file as @FILE.",
            field="secret",
        )
    if value.startswith("@"):
        value = f"@{path.parent / value[1:]}"
    field = f"{place}.secret"
    return read_secret(value, field=field, minimum=MIN_SECRET_BYTES, exact=None)


def _key_set(path: Path) -> Iterator[TokenKey]:
    """Read a JWK Set (RFC 7517, section 5); keys for other uses are skipped."""
    file = read_setting_file(path, field="jwks_file")
    for number, row in _rows_of_set(file.data, "jwks_file"):
        yield _key_of_row(row, f"jwks_file: keys[{number}]")


def _rows_of_set(data: bytes, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        tree = scan_json(data)
    except InvalidInputError as error:
        raise _fault(where, str(error)) from None
    rows = tree.get("keys") if isinstance(tree, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _fault(where, "keys must be a list of objects.")
    yield from ((n, row) for n, row in enumerate(rows) if _is_for_us(row))


def _key_of_row(row: dict[str, Any], where: str) -> TokenKey:
    try:
        return key_from_jwk(row, None)
    except InvalidInputError as error:
        raise _fault(where, str(error)) from None


def public_keys_of_set(data: bytes) -> tuple[TokenKey, ...]:
    """
    Return the keys of a public JWK Set, possibly none.

    Raises:
        InvalidInputError: It is not a JWK Set, has too many or repeated keys, or a key
            that is not public.

    Standard:
        RFC 7517, section 5.
    """
    found = []
    for number, row in _rows_of_set(data, "key set"):
        if row.get("kty") == "oct" or "k" in row:
            raise _fault(f"keys[{number}]", "A JWK Set must not contain a secret key.")
        found.append(_key_of_row(row, f"keys[{number}]"))
    _check_set(tuple(found), 0)
    return tuple(found)


def with_keys(trust: TokenTrust, keys: tuple[TokenKey, ...]) -> TokenTrust:
    """
    Return a trust with additional keys.

    Raises:
        ConfigurationError: There are too many, or one is repeated.
    """
    together = (*trust.keys, *keys)
    try:
        _check_set(together, 0)
    except InvalidInputError as error:
        raise ConfigurationError(
            f"The fetched keys conflict with the keys in the file: {error}",
            field=_FIELD,
        ) from None
    return TokenTrust(together, trust.rules)


def still_in_config(
    path: Path, former: Sequence[TokenKey], rules: TokenRules
) -> Sequence[TokenKey]:
    """
    Return the keys of *former* that an invalid file still names, entry by entry.

    An invalid entry names no key. Keys of another file that can't be read stay. If the
    file requires another issuer or audience, no key stays.

    Args:
        path: The file that `load_token_config` rejects.

        former: Keys in force.

        rules: Rules in force.

    Raises:
        HSMError: The file can't be read, or is not a mapping.
    """
    file = read_setting_file(path, field=_FIELD)
    tree = parse_settings(file.data, dict[str, Any], what="JWT config")
    for name in ("issuer", "audience"):
        said = tree.get(name)
        if isinstance(said, str) and said != getattr(rules, name):
            return ()
    names, unread = set[str](), set[str]()
    for entry, usual in _entries(tree):
        try:
            section = msgspec.convert(entry, _Key)
        except msgspec.ValidationError:
            continue
        try:
            chosen = None if section.algorithm else _algorithm(usual, "algorithm")
            names.add(_key(path, section, chosen, "keys").name)
        except ConfigurationError as error:
            if error.facts.get("unreadable"):
                unread.add(str(section.secret)[1:])
        except InvalidInputError:
            continue
    further = tree.get("jwks_file")
    if isinstance(further, str):
        try:
            file = read_setting_file(path.parent / further, field="jwks_file")
            names |= _names_in(file.data, "jwks_file")
        except HSMError:
            unread.add(further)
    return [key for key in former if key.name in names or key.origin in unread]


def still_in_key_set(
    path: Path, former: Sequence[TokenKey], _: TokenRules
) -> Sequence[TokenKey]:
    """
    Return the keys of *former* that an invalid JWK Set file still names.

    Raises:
        HSMError: The file can't be read, or is not a JWK Set.
    """
    file = read_setting_file(path, field="jwks_file")
    names = _names_in(file.data, "jwks_file")
    return [key for key in former if key.name in names]


def still_in_public_set(
    data: bytes, former: Sequence[TokenKey]
) -> tuple[TokenKey, ...]:
    """Return the keys of *former* that an invalid set names; all if it is not a set."""
    try:
        names = _names_in(data, "key set")
    except InvalidInputError:
        return tuple(former)
    return tuple(key for key in former if key.name in names)


def _entries(tree: dict[str, Any]) -> Iterator[tuple[object, object]]:
    """Yield the key entries of a file, and its default algorithm."""
    groups = tree.get("algorithms")
    for group in (tree, *(groups if isinstance(groups, list) else ())):
        entries = group.get("keys") if isinstance(group, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            yield entry, group.get("algorithm")


def _names_in(data: bytes, where: str) -> set[str]:
    """
    Return the names of the valid keys of a JWK Set.

    Raises:
        InvalidInputError: It is not a JWK Set.
    """
    names = set[str]()
    for _, row in _rows_of_set(data, where):
        with contextlib.suppress(InvalidInputError):
            names.add(_key_of_row(row, where).name)
    return names


def _is_for_us(row: dict[str, Any]) -> bool:
    if not has_types_of_jwk(row):
        return True  # The reader rejects it.
    if row.get("use", "sig") not in SIGNATURE_USES:
        return False
    if row.get("alg", "HS256") not in set(Algorithm):
        return False
    known = {"RSA": None, "EC": "P-256", "OKP": "Ed25519"}
    if "alg" in row:
        return True
    kty = row.get("kty")
    return kty in known and row.get("crv") == known[kty]


def _check_set(keys: tuple[TokenKey, ...], least: int) -> None:
    if not least <= len(keys) <= MAX_KEYS:
        raise _fault(
            "keys", f"There must be {least} to {MAX_KEYS} keys, got {len(keys)}."
        )
    kids, names = set[str](), set[str]()
    for key in keys:
        if not key.kid.isprintable() or len(key.kid) > 128:
            raise _fault("kid", "must have 1 to 128 printable characters.")
        if key.kid and key.kid in kids:
            raise _fault("kid", f"kid {key.kid!r} is not unique.")
        if key.name in names:
            raise _fault("keys", "A key is listed twice.")
        kids.add(key.kid)
        names.add(key.name)


def _algorithm(name: object, where: str) -> Algorithm | None:
    """Return the algorithm of a name, or None for None."""
    if name is None:
        return None
    found = _NAMES.get(str(name).upper())
    if found is None:
        known = ", ".join(Algorithm)
        raise _fault(where, f"{str(name)[:32]!r} is unknown. Allowed: {known}.")
    return found


def _fault(place: str, problem: str) -> InvalidInputError:
    return InvalidInputError(f"{place}: {problem}", field=place)
