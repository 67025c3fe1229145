# SPDX-License-Identifier: MIT
"""Public tables: errors, routes, and methods of sessions."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384, SHA512
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsm_core import _sessions, errors, operations
from hsm_core.algorithms import CiphertextEncoding, HashAlgorithm, KeyUsage
from hsm_core.errors import DecryptionError, HSMError
from hsm_core.operations import OPERATIONS, Effect, Operation, result_type
from tests.core.hsm_support import memory_session


def drawn_tree() -> set[tuple[str, str, str]]:
    """Return class, parent and builtin of every line of the drawing."""
    lines = re.findall(
        r"^    ([│├└─ ]*)(\w+Error)(?: \((\w+)\))?$", errors.__doc__ or "", re.M
    )
    path: list[str] = []
    rows = set()
    for indent, name, builtin in lines:
        depth = len(indent) // 4
        path[depth:] = [name]
        rows.add((name, path[depth - 1] if depth else "", builtin))
    return rows


def row_of(cls: type[HSMError]) -> tuple[str, str, str]:
    """Return class, parent and the builtin that a class adds to its parent."""
    parent, *others = (base.__name__ for base in cls.__bases__)
    return cls.__name__, parent if cls is not HSMError else "", "".join(others)


def test_the_drawing_is_the_tree() -> None:
    """The drawing has each public error once, under its parent, with its builtin."""
    expected = {row_of(cls) for cls in errors.error_classes().values()}

    assert expected == drawn_tree()


def test_no_two_routes_are_the_same() -> None:
    """Method and path, whatever the parameters are called, name one route."""
    shapes = {
        (
            route.method,
            "/".join("{}" if p[:1] == "{" else p for p in route.path.split("/")),
        )
        for route in (kind.route for kind in OPERATIONS)
    }

    assert len(OPERATIONS) == len(shapes)


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
def test_a_route_is_true(kind: type[Operation[Any]]) -> None:
    """Its fields exist, and its method fits what the operation does."""
    route = kind.route
    fields = {field.name for field in msgspec.structs.fields(kind)}
    result = {f.name for f in msgspec.structs.fields(result_type(kind))}
    located = {name for _, name, *_ in string.Formatter().parse(route.location) if name}

    assert set(route.path_fields) <= fields
    assert located <= result
    assert {route.raw_request} - {""} <= fields
    assert {route.raw_response} - {""} <= result
    assert not route.events or {"follow", "start_seq"} <= fields
    assert (route.method == "GET") == (
        kind.effect is not Effect.MUTATION and not route.has_body
    )


H = HashAlgorithm
PARTIAL = {"ExplainPolicy", "ListApprovals", "ListKeys", "TestPolicy"}
"""Operations whose methods walk all pages, or whose subject other methods describe."""


def test_no_method_leaves_a_field_out() -> None:
    """
    Every method fills every field of its operation, so that all of it can be asked for.
    """
    left_out = {}
    for path in Path(_sessions.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="ops"), attr=name)
                ) if name not in PARTIAL:
                    fields = set(getattr(operations, name).__struct_fields__)
                    left_out[name] = fields - {word.arg for word in node.keywords}

    assert len(left_out) > 30
    assert {} == {name: fields for name, fields in left_out.items() if fields}


def test_oaep_by_a_session() -> None:
    """
    A session encrypts and decrypts by RSAES-OAEP with the hashes that others use.
    """
    hashed, mask, raw = H.SHA_384, H.SHA_512, CiphertextEncoding.RAW
    with memory_session() as session:
        usages = (KeyUsage.ENCRYPT, KeyUsage.DECRYPT)
        key = session.create_key("rsa2048", usages=usages).key_id
        public = load_der_public_key(session.public_key(key).der)
        assert isinstance(public, rsa.RSAPublicKey)
        theirs = public.encrypt(
            b"secret", padding.OAEP(padding.MGF1(SHA512()), SHA384(), None)
        )
        session.rotate(key)
        ours = session.encrypt(key, b"secret", encoding=raw, hash=hashed, mgf_hash=mask)

        assert b"secret" == session.decrypt(
            key, theirs, version=1, encoding=raw, hash=hashed, mgf_hash=mask
        )
        assert b"secret" == session.decrypt(
            key, ours, encoding=raw, hash=hashed, mgf_hash=mask
        )
        with pytest.raises(DecryptionError):
            session.decrypt(key, theirs, version=1, encoding=raw)
