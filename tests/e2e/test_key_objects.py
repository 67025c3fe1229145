# SPDX-License-Identifier: MIT
"""Key objects over the network, and in the hands of the JOSE library of the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from joserfc import jwk, jws

from hsm_core.algorithms import Algorithm
from hsm_core.errors import KeyNotFoundError
from hsm_core.factory import open_async
from hsm_core.keys import open_private_key
from hsm_core.protocols import HSM
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm
from tests.e2e.serving import serve_and_connect

A = Algorithm


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HSM]:
    """Give a client of a server, for somebody who may do everything."""
    folder = tmp_path_factory.mktemp("objects")
    with (
        memory_hsm() as gateway,
        serve_and_connect(open_async(gateway), folder) as connect,
    ):
        yield connect(caller())


@pytest.mark.parametrize("algorithm", [A.RSA_2048, A.EC_P256, A.ED25519, A.ML_DSA_65])
def test_requests(remote: HSM, algorithm: Algorithm) -> None:
    """A request for a certificate is signed by a key on the other side."""
    key_id = Session(remote).create_key(algorithm).key_id
    key: Any = open_private_key(remote, key_id)
    has_hash = algorithm in (A.RSA_2048, A.EC_P256)

    made = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(
        key, hashes.SHA256() if has_hash else None
    )

    assert made.is_signature_valid


@pytest.mark.parametrize(
    ("algorithm", "kind", "name"),
    [
        (A.RSA_2048, jwk.RSAKey, "PS256"),
        (A.EC_P256, jwk.ECKey, "ES256"),
        (A.ED25519, jwk.OKPKey, "Ed25519"),
    ],
)
def test_joserfc(remote: HSM, algorithm: Algorithm, kind: Any, name: str) -> None:
    """A signature of joserfc verifies by the published key."""
    session = Session(remote)
    key_id = session.create_key(algorithm).key_id
    held = open_private_key(remote, key_id)

    public = kind.import_key(session.public_key(key_id).pem)
    # Without a dict of its own, joserfc would make one from the private key.
    key = kind(held, public.as_dict())

    token = jws.serialize_compact({"alg": name}, b"claims", key, [name])

    assert b"claims" == jws.deserialize_compact(token, public, [name]).payload


def test_unknown_key(remote: HSM) -> None:
    """What is not there is said by the HSM."""
    with pytest.raises(KeyNotFoundError):
        open_private_key(remote, "nobody")
