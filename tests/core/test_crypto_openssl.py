# SPDX-License-Identifier: MIT
"""
OpenSSL's command line and hsm-core understand each other, both ways.

Every way to use RSA, ECDSA and EdDSA once, and the forms of their keys.
``test_interop_openssl.py`` has the other algorithms, and many rounds.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core import primitives
from hsm_core._internal.crypto.formats import public_pem
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    Family,
    HashAlgorithm,
    SignatureScheme,
)
from hsm_core.errors import InvalidInputError
from hsm_core.protocols import OAEPParameters
from tests.core.crypto_samples import OAEP, RSA, label, material, public_der
from tests.support import require_program

MESSAGE = b"a message for both\n"

GENERATE = {
    Algorithm.RSA_2048: ("RSA", "rsa_keygen_bits:2048"),
    Algorithm.RSA_3072: ("RSA", "rsa_keygen_bits:3072"),
    Algorithm.RSA_4096: ("RSA", "rsa_keygen_bits:4096"),
    **{
        row.algorithm: ("EC", f"ec_paramgen_curve:{row.jwk_curve}")
        for row in ALGORITHMS.values()
        if row.curve_oid
    },
    Algorithm.ED25519: ("ED25519", ""),
    Algorithm.ED448: ("ED448", ""),
}
"""Algorithm and option of ``openssl genpkey``."""

WAYS = [
    (row.algorithm, scheme, hashed)
    for row in ALGORITHMS.values()
    if row.algorithm in GENERATE
    for scheme in row.schemes
    for hashed in row.hashes or (None,)
]

OpenSSL = Callable[..., bytes]


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    """Give a function that runs ``openssl`` in an empty folder."""
    program = require_program("openssl")

    def run(*arguments: str, input: bytes = b"") -> bytes:
        done = subprocess.run(
            (program, *arguments),
            input=input,
            capture_output=True,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        assert 0 == done.returncode, done.stderr.decode()
        return done.stdout

    return run


def signature_options(
    algorithm: Algorithm, scheme: SignatureScheme, hashed: HashAlgorithm | None
) -> list[str]:
    """Return the options of ``openssl pkeyutl`` for a way to sign."""
    if hashed is None:
        return ["-rawin"]
    options = ["-rawin", "-digest", hashed.value.replace("-", "").lower()]
    if scheme is SignatureScheme.RSASSA_PSS:
        options += ["-pkeyopt", "rsa_padding_mode:pss"]
        options += ["-pkeyopt", f"rsa_pss_saltlen:{hashed.digest_bytes}"]
    return options


def generated(openssl: OpenSSL, name: str, *choice: str) -> bytes:
    """Return PKCS#8 of a key that OpenSSL makes."""
    pem = openssl("genpkey", "-algorithm", name, *choice)
    return openssl("pkcs8", "-topk8", "-nocrypt", "-outform", "DER", input=pem)


def way(value: object) -> str | None:
    """Return an id for a way to sign."""
    return None if value is not None else "inside"


class TestSignatures:
    @pytest.mark.parametrize(("algorithm", "scheme", "hashed"), WAYS, ids=way)
    def test_openssl_verifies_ours(
        self,
        openssl: OpenSSL,
        tmp_path: Path,
        algorithm: Algorithm,
        scheme: SignatureScheme,
        hashed: HashAlgorithm | None,
    ) -> None:
        """
        OpenSSL verifies what we sign, under the public key that we export as PEM.
        """
        signature = primitives.sign(
            algorithm, material(algorithm), MESSAGE, scheme=scheme, hash=hashed
        )
        (tmp_path / "public.pem").write_text(public_pem(public_der(algorithm)))
        (tmp_path / "message").write_bytes(MESSAGE)
        (tmp_path / "signature").write_bytes(signature)

        answer = openssl(
            *("pkeyutl", "-verify", "-pubin", "-inkey", "public.pem"),
            *("-in", "message", "-sigfile", "signature"),
            *signature_options(algorithm, scheme, hashed),
        )

        assert b"Signature Verified Successfully\n" == answer

    @pytest.mark.parametrize(("algorithm", "scheme", "hashed"), WAYS, ids=way)
    def test_we_verify_openssls(
        self,
        openssl: OpenSSL,
        tmp_path: Path,
        algorithm: Algorithm,
        scheme: SignatureScheme,
        hashed: HashAlgorithm | None,
    ) -> None:
        """
        We verify what OpenSSL signs with our private key.
        """
        (tmp_path / "private.der").write_bytes(material(algorithm))
        (tmp_path / "message").write_bytes(MESSAGE)

        signature = openssl(
            *("pkeyutl", "-sign", "-keyform", "DER", "-inkey", "private.der"),
            *("-in", "message"),
            *signature_options(algorithm, scheme, hashed),
        )

        primitives.verify(
            algorithm,
            public_der(algorithm),
            signature,
            MESSAGE,
            scheme=scheme,
            hash=hashed,
        )


class TestOAEP:
    @pytest.mark.parametrize("parameters", OAEP, ids=label)
    @pytest.mark.parametrize("algorithm", RSA)
    def test_both_ways(
        self,
        openssl: OpenSSL,
        tmp_path: Path,
        algorithm: Algorithm,
        parameters: OAEPParameters,
    ) -> None:
        """
        Each decrypts what the other encrypts, with the same hashes and label.
        """
        (tmp_path / "private.der").write_bytes(material(algorithm))
        names = [
            h.value.replace("-", "").lower()
            for h in (parameters.hash, parameters.mgf_hash)
        ]
        key = ("-keyform", "DER", "-inkey", "private.der")
        options = (
            *("-pkeyopt", "rsa_padding_mode:oaep"),
            *("-pkeyopt", f"rsa_oaep_md:{names[0]}"),
            *("-pkeyopt", f"rsa_mgf1_md:{names[1]}"),
            *("-pkeyopt", f"rsa_oaep_label:{b'label'.hex()}"),
        )
        theirs = openssl("pkeyutl", "-encrypt", *key, *options, input=MESSAGE)
        ours = primitives.oaep_encrypt(
            algorithm,
            public_der(algorithm),
            MESSAGE,
            hash=parameters.hash,
            mgf_hash=parameters.mgf_hash,
            label=b"label",
        )

        assert MESSAGE == primitives.oaep_decrypt(
            algorithm,
            material(algorithm),
            theirs,
            hash=parameters.hash,
            mgf_hash=parameters.mgf_hash,
            label=b"label",
        )
        assert MESSAGE == openssl("pkeyutl", "-decrypt", *key, *options, input=ours)


class TestKeys:
    @pytest.mark.parametrize("algorithm", GENERATE)
    def test_we_load_openssls(self, openssl: OpenSSL, algorithm: Algorithm) -> None:
        """
        We load the keys that OpenSSL makes, and agree on the public half.
        """
        name, option = GENERATE[algorithm]
        choice = ("-pkeyopt", option) if option else ()
        private = generated(openssl, name, *choice)
        public = openssl(
            *("pkey", "-inform", "DER", "-pubout", "-outform", "DER"), input=private
        )

        handle = primitives.load_private_key(algorithm, private)

        assert public == handle.public_der()
        assert public == primitives.load_public_key(algorithm, public).public_der()

    @pytest.mark.parametrize(
        "form", [("-ec_param_enc", "explicit"), ("-ec_conv_form", "compressed")]
    )
    def test_other_forms_of_a_point(
        self, openssl: OpenSSL, form: tuple[str, str]
    ) -> None:
        """
        A curve by its parameters, and a compressed point, are refused.
        """
        public = openssl(
            *("pkey", "-pubin", "-inform", "DER", "-pubout", "-outform", "DER", *form),
            input=public_der(Algorithm.EC_P256),
        )

        assert public != public_der(Algorithm.EC_P256)
        with pytest.raises(InvalidInputError):
            primitives.load_public_key(Algorithm.EC_P256, public)

    def test_key_bound_to_pss(self, openssl: OpenSSL) -> None:
        """
        A key that may be used for RSASSA-PSS only is refused in both halves.
        """
        private = generated(openssl, "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048")
        public = openssl(
            *("pkey", "-inform", "DER", "-pubout", "-outform", "DER"), input=private
        )

        with pytest.raises(InvalidInputError):
            primitives.load_private_key(Algorithm.RSA_2048, private)
        with pytest.raises(InvalidInputError):
            primitives.load_public_key(Algorithm.RSA_2048, public)


def test_every_family_is_covered() -> None:
    """
    Every algorithm of these families is tried against OpenSSL.
    """
    expected = {
        row.algorithm
        for row in ALGORITHMS.values()
        if row.family in {Family.RSA, Family.ECDSA, Family.EDDSA}
    }

    assert expected == {algorithm for algorithm, _, _ in WAYS} == set(GENERATE)
