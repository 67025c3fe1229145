# SPDX-License-Identifier: MIT
"""Keys and signatures from elsewhere: imports, public halves, keys of approvers."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from hsm_core._internal.approvals.signatures import verify_consent
from hsm_core._internal.crypto.certificates import (
    chain_pem,
    check_subject_key,
    read_chain,
)
from hsm_core._internal.crypto.composite import (
    join_private,
    join_public,
    split_private,
    split_public,
)
from hsm_core._internal.crypto.formats import json_web_key, kept_form, usable_form
from hsm_core.algorithms import Algorithm, KeyFormat, spec
from hsm_core.approver_keys import ApproverKey, read_approver_key, read_key_lines
from hsm_core.consent import SSH_NAMESPACE, ShownField, ShownOperation, check_shown
from hsm_core.model import KeyId
from hsm_core.wire import decode_json, encode_json
from tests.core.crypto_samples import PYCA, material, public_der
from tests.fuzzing.target import Target
from tests.pki import self_signed_root

_SINGLE: Final = (
    Algorithm.RSA_2048,
    Algorithm.EC_P256,
    Algorithm.ED25519,
    Algorithm.X25519,
    Algorithm.ML_KEM_768,
    Algorithm.ML_DSA_65,
)
_COMPOSITE: Final = (
    Algorithm.MLKEM768_ECDH_P256_SHA3_256,
    Algorithm.MLDSA65_ED25519_SHA512,
)
_MESSAGE: Final = b"a statement"


def targets() -> list[Target]:
    """Return a target for each form."""
    return [
        *(_private(), _public(), _certificates()),
        *(_consent(), _approver_key(), _shown()),
    ]


def _halves(join: Callable[..., bytes], of: Callable[..., bytes]) -> list[bytes]:
    return [join(a, *map(of, spec(a).components)) for a in _COMPOSITE]


def _import(algorithm: Algorithm, data: bytes) -> object:
    found = usable_form(algorithm, KeyFormat.PKCS8, data)
    if algorithm is Algorithm.RSA_2048:
        # To prove its numbers takes 30 ms, and is not what is tried here.
        PYCA.load(algorithm, found)
    else:
        PYCA.load_foreign(algorithm, found)
    return kept_form(algorithm, found)


def _private() -> Target:
    return Target(
        name="private-key",
        readers=(
            *(partial(_import, algorithm) for algorithm in _SINGLE),
            *(partial(split_private, algorithm) for algorithm in _COMPOSITE),
        ),
        seeds=(*map(material, _SINGLE), *_halves(join_private, material)),
    )


def _describe(algorithm: Algorithm, data: bytes) -> object:
    PYCA.load_public(algorithm, data)
    return json_web_key(KeyId("k"), 1, algorithm, data)


def _public() -> Target:
    return Target(
        name="public-key",
        readers=(
            *(partial(_describe, algorithm) for algorithm in _SINGLE),
            *(partial(split_public, algorithm) for algorithm in _COMPOSITE),
        ),
        seeds=(*map(public_der, _SINGLE), *_halves(join_public, public_der)),
    )


def _match(key: bytes, data: bytes) -> None:
    chain = read_chain(data)
    assert chain == read_chain(chain_pem(chain).encode())
    check_subject_key(chain[0], key)


def _certificates() -> Target:
    root = self_signed_root("CA")
    leaf = root.issue("ada")
    key = leaf.key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return Target(
        name="certificate-chain",
        readers=(partial(_match, key),),
        seeds=(leaf.der, leaf.der + root.der, leaf.chain_pem),
    )


def _signed_by_ssh(key: Ed25519PrivateKey) -> bytes:
    """Return what ``ssh-keygen`` makes, which there must be."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "key"
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        )
        return subprocess.run(
            ["ssh-keygen", "-q", "-Y", "sign", "-n", SSH_NAMESPACE, "-f", str(path)],
            input=_MESSAGE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        ).stdout


def _consent() -> Target:
    ed25519 = Ed25519PrivateKey.generate()
    p256 = generate_private_key(SECP256R1())
    keys: list[ApproverKey] = [
        read_approver_key(
            key.public_key()
            .public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            .decode()
        )
        for key in (ed25519, p256)
    ]
    return Target(
        name="consent-signature",
        readers=(lambda data: verify_consent(data, _MESSAGE, keys),),
        seeds=(ed25519.sign(_MESSAGE), _signed_by_ssh(ed25519)),
    )


def _approver_key() -> Target:
    forms = []
    for key in (Ed25519PrivateKey.generate(), generate_private_key(SECP256R1())):
        public = key.public_key()
        info = PublicFormat.SubjectPublicKeyInfo
        forms.append(public.public_bytes(Encoding.PEM, info))
        forms.append(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    people = b'# who\n\nann %s\n"bob at home" %s comment\n' % (forms[1], forms[3])

    def text_of(data: bytes) -> str:
        return data.decode("utf-8", "replace")

    return Target(
        name="approver-key",
        readers=(
            lambda data: read_approver_key(text_of(data)),
            lambda data: read_key_lines(text_of(data)),
        ),
        seeds=(*forms, people),
    )


def _shown() -> Target:
    shown = ShownOperation(
        format=1,
        kind="Sign",
        requester="ann",
        key_name="release",
        fields=(
            ShownField(name="scheme", text="pss"),
            ShownField(name="count", number=3),
            ShownField(name="digest", data=b"\x00\xff"),
            ShownField(name="message", length=9, sha256="ab" * 32),
        ),
    )

    def read(data: bytes) -> object:
        found = decode_json(data, ShownOperation)
        check_shown(found)
        return found

    return Target(name="shown-operation", readers=(read,), seeds=(encode_json(shown),))
