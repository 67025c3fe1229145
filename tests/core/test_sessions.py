# SPDX-License-Identifier: MIT
"""Sessions say all that their operations say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384, SHA512
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsm_core import _sessions, operations
from hsm_core.algorithms import CiphertextEncoding, HashAlgorithm, KeyUsage
from hsm_core.errors import DecryptionError
from hsm_core.testing import memory_hsm
from tests.core.hsm_support import session_of

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
    with memory_hsm() as gateway:
        session = session_of(gateway)
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
