# SPDX-License-Identifier: MIT
"""Client input: answers of servers, live views, files of keys and profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from hsm_cli.io.key_files import read_private_key
from hsm_client.credentials import decode_secrets
from hsm_client.messages import Answer, BlockReader, entry_of, error_of_event, result_of
from hsm_client.profiles import parse_profiles
from hsm_core import operations as ops
from hsm_core import wire
from hsm_core.errors import HSMError
from tests.fuzzing.stored_forms import NothingReadError, wanted
from tests.fuzzing.target import Reader, Target

_PROBLEM: Final = (
    b'{"type":"urn:ferrohsm:error:wrong_state","title":"No.","status":409,'
    b'"code":"wrong_state","detail":"No.","facts":{"key_id":"k","version":1}}'
)


def targets() -> list[Target]:
    """Return a target for each form."""
    return [_answer(), _events(), _key_file(), _profiles(), _secrets()]


def _answer() -> Target:
    def reader_of(kind: type[ops.Operation[Any]], status: int, media: str) -> Reader:
        def read(data: bytes) -> object:
            media_type = f"application/{media}"
            answer = Answer(status=status, content_type=media_type, body=data)
            try:
                return result_of(kind, answer)
            except HSMError as error:
                # A code that is unknown here is one that a newer server has.
                if type(error) is not HSMError:
                    raise
                return str(error)

        return read

    empty = ops.KeyPage(items=(), total=0, page=1, per_page=5)
    return Target(
        name="server-answer",
        readers=(
            reader_of(ops.ListKeys, 200, "json"),
            reader_of(ops.Sign, 200, "json"),
            reader_of(ops.ListKeys, 202, "json"),
            reader_of(ops.ListKeys, 409, "problem+json"),
            lambda data: str(error_of_event(data)),
        ),
        seeds=(wire.encode_json(empty), _PROBLEM),
    )


def _events() -> Target:
    def read(data: bytes) -> object:
        # Cut in two, for a stream may be cut anywhere.
        reader = BlockReader()
        blocks = [*reader.feed(data[:7]), *reader.feed(data[7:])]
        for block in blocks:
            if block.event == "error":
                str(error_of_event(block.data))
            elif block.data:
                entry_of(block.data)
        return wanted(blocks)

    return Target(
        name="live-view",
        readers=(read,),
        seeds=(b"id: 4\nevent: error\ndata: %b\n\n:\n\n" % _PROBLEM,),
        refusals=(HSMError, NothingReadError),
    )


class _AskedError(Exception):
    """A passphrase is asked for; what follows takes as long as somebody once chose."""


def _ask() -> bytes:
    raise _AskedError


def _read_key(data: bytes) -> object:
    try:
        return read_private_key(data, _ask)
    except _AskedError:
        return None


def _key_file() -> Target:
    key = generate_private_key(SECP256R1())
    plain, secret = NoEncryption(), BestAvailableEncryption(b"p")
    forms = [
        (Encoding.PEM, PrivateFormat.PKCS8, plain),
        (Encoding.DER, PrivateFormat.PKCS8, plain),
        (Encoding.PEM, PrivateFormat.TraditionalOpenSSL, plain),
        (Encoding.PEM, PrivateFormat.PKCS8, secret),
        (Encoding.DER, PrivateFormat.PKCS8, secret),
    ]
    return Target(
        name="key-file",
        readers=(_read_key,),
        seeds=[key.private_bytes(*form) for form in forms],
        longest=1024,
    )


def _profiles() -> Target:
    path = Path("/nowhere/config.toml")
    return Target(
        name="connection-profiles",
        readers=(lambda data: sorted(parse_profiles(data, path).by_name),),
        seeds=(
            b'current = "a"\n[profiles.a]\nendpoint = "https://h"\n'
            b'ca-bundle = "~/ca.pem"\ncredential = "oidc"\nissuer = "https://i"\n'
            b'client-id = "c"\nscopes = ["openid"]\nsecret-store = "keyring"\n',
            b'[profiles."b.c"]\nendpoint = "x"\ncredential = "token"\n',
        ),
    )


def _secrets() -> Target:
    def read(data: bytes) -> object:
        found = decode_secrets(data, "It")
        return (found.token, found.expires_at, found.refresh_token, found.password)

    return Target(
        name="stored-secrets",
        readers=(read,),
        seeds=(b'{"token":"a.b.c","expires_at":7,"refresh_token":"r"}',),
    )
