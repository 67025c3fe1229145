# SPDX-License-Identifier: MIT
"""How the tests of cryptography-vectors with labels of RSA Laboratories are asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Final

import cryptography_vectors
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateNumbers,
    RSAPublicNumbers,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from hsm_core import primitives
from hsm_core.algorithms import Algorithm, HashAlgorithm, SignatureScheme
from hsm_core.errors import DecryptionError
from tests.vectors.key_forms import rsa_public_info
from tests.vectors.package import Block, field_bytes, read_blocks
from tests.vectors.tally import Tally, Test
from tests.vectors.wycheproof_asymmetric import rsa_refusal

_LABEL: Final = re.compile(r"#\s*([^:]+?)\s*:\s*")
_HASHES: Final = ("sha1", "sha224", "sha256", "sha384", "sha512")


def _read_labelled(path: str, last: str) -> Iterator[Block]:
    """Return the tests of a file in which a comment names the number below it."""
    block, name = dict[str, str](), ""
    with cryptography_vectors.open_vector_file(path, "r") as lines:
        for line in (*lines, "#"):
            found = _LABEL.fullmatch(line.rstrip())
            if line.startswith("#") and name == last:
                yield dict(block)
            if line.startswith("#"):
                name = found[1] if found else ""
                block[name] = ""
            elif name:
                block[name] += "".join(line.split())


def _number(block: Block, name: str) -> int:
    return int(block[name], 16)


@cache
def _private_key(modulus: int, exponent: int, d: int, p: int, q: int) -> bytes:
    """Return PKCS#8, whatever the length of the modulus."""
    public = RSAPublicNumbers(exponent, modulus)
    key = RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public
    ).private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@cache
def _loaded(algorithm: Algorithm, material: bytes) -> primitives.Key:
    return primitives.load_private_key(algorithm, material)


def _judge(
    tally: Tally,
    block: Block,
    test: Test,
    hashes: tuple[str, str],
    attempt: Callable[[Algorithm], None],
) -> None:
    """Judge or refuse a test, as the key and the hashes demand."""
    bits = _number(block, "Modulus").bit_length()
    reason = rsa_refusal(bits, _number(block, "Public exponent"), *hashes)
    if reason:
        refused = partial(attempt, Algorithm.RSA_2048)
        tally.refuse(test, reason, ValueError, refused)
    else:
        algorithm = Algorithm(f"RSA-{bits}")
        tally.judge(algorithm, test, partial(attempt, algorithm))


def _hash_name(short: str) -> str:
    return f"SHA-{short[3:]}"


def _run_oaep(path: str, tally: Tally, hashed: str, mgf_hash: str) -> int:
    names = _hash_name(hashed), _hash_name(mgf_hash)

    def check(block: Block, algorithm: Algorithm) -> None:
        numbers = ("Modulus", "Public exponent", "Exponent", "Prime 1", "Prime 2")
        material = _private_key(*(_number(block, name) for name in numbers))
        opened = primitives.oaep_decrypt(
            algorithm,
            _loaded(algorithm, material),
            field_bytes(block, "Encryption"),
            hash=HashAlgorithm(names[0]),
            mgf_hash=HashAlgorithm(names[1]),
        )
        message = next(block[n] for n in block if n.startswith("Message"))
        assert bytes.fromhex(message) == opened

    count = 0
    for count, block in enumerate(_read_labelled(path, "Encryption"), 1):
        test = {"tcId": count, "result": "valid"}
        _judge(tally, block, test, names, partial(check, block))
    return count


def _run_signatures(path: str, tally: Tally, scheme: SignatureScheme) -> int:
    def check(block: Block, algorithm: Algorithm) -> None:
        message = next(block[n] for n in block if n.startswith("Message"))
        primitives.verify(
            algorithm,
            rsa_public_info(
                _number(block, "Modulus"), _number(block, "Public exponent")
            ),
            field_bytes(block, "Signature"),
            bytes.fromhex(message),
            scheme=scheme,
            hash=HashAlgorithm("SHA-1"),
        )

    count = 0
    for count, block in enumerate(_read_labelled(path, "Signature"), 1):
        test = {"tcId": count, "result": "valid"}
        _judge(tally, block, test, ("SHA-1", "SHA-1"), partial(check, block))
    return count


def _run_oaep_label(path: str, tally: Tally) -> int:
    count, algorithm = 0, Algorithm.RSA_2048

    def check(block: Block) -> None:
        hashed = HashAlgorithm(_hash_name(block["OAEPDigest"]))
        opened = primitives.oaep_decrypt(
            algorithm,
            field_bytes(block, "KEY"),
            field_bytes(block, "Input"),
            hash=hashed,
            mgf_hash=hashed,
            label=field_bytes(block, "OAEPLabel"),
        )
        if opened != field_bytes(block, "Output"):
            raise DecryptionError

    for count, block in enumerate(read_blocks(path, "KEY"), 1):
        test = {"tcId": count, "result": "valid"}
        tally.judge(algorithm, test, partial(check, block))
    return count


_FOLDER: Final = "asymmetric/RSA"

RSA_FILES: Final[dict[str, Callable[[str, Tally], int]]] = {
    f"{_FOLDER}/oaep-label.txt": _run_oaep_label,
    f"{_FOLDER}/pkcs-1v2-1d2-vec/oaep-vect.txt": partial(
        _run_oaep, hashed="sha1", mgf_hash="sha1"
    ),
    f"{_FOLDER}/pkcs-1v2-1d2-vec/pss-vect.txt": partial(
        _run_signatures, scheme=SignatureScheme.RSASSA_PSS
    ),
    f"{_FOLDER}/pkcs1v15sign-vectors.txt": partial(
        _run_signatures, scheme=SignatureScheme.RSASSA_PKCS1_V1_5
    ),
    **{
        f"{_FOLDER}/oaep-custom/oaep-{mgf_hash}-{hashed}.txt": partial(
            _run_oaep, hashed=hashed, mgf_hash=mgf_hash
        )
        for hashed in _HASHES
        for mgf_hash in _HASHES
        if (hashed, mgf_hash) != ("sha1", "sha1")
    },
}
"""How each file is run, by its path in the package."""
