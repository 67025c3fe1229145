# SPDX-License-Identifier: MIT
"""Private key files as other programs write them."""

import subprocess
from pathlib import Path

import pytest

from hsm_cli.io.files import decode_pem
from hsm_cli.io.key_files import read_private_key
from hsm_core.errors import InvalidInputError, UnsupportedOperationError
from tests.support import require_program

PASSPHRASE = b"correct horse"


def openssl(*words: str) -> bytes:
    """Run openssl and return what it printed."""
    require_program("openssl")
    done = subprocess.run(["openssl", *words], capture_output=True, check=True)
    return done.stdout


def nobody() -> bytes:
    """Fail, as the passphrase of a key that is not encrypted."""
    raise AssertionError("a passphrase was requested")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Give a file with an EC key as PKCS#8."""
    path = tmp_path / "plain.pem"
    path.write_bytes(openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256"))
    return path


def converted(plain: Path, *words: str) -> bytes:
    """Return the key, encrypted in some way."""
    passphrase = f"pass:{PASSPHRASE.decode()}"
    return openssl("pkcs8", "-topk8", "-in", str(plain), "-passout", passphrase, *words)


def test_unencrypted_key_is_read(plain: Path) -> None:
    """PEM and DER give the same key, without a prompt for a passphrase."""
    pem = plain.read_bytes()
    der = openssl("pkcs8", "-topk8", "-nocrypt", "-in", str(plain), "-outform", "DER")

    assert der == read_private_key(pem, nobody) == read_private_key(der, nobody)


@pytest.mark.parametrize(
    "words",
    [
        ("-v2", "aes-256-cbc"),
        ("-v2", "aes-128-cbc"),
        ("-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA512"),
        ("-v2", "aes-256-cbc", "-outform", "DER"),
        ("-scrypt",),
    ],
    ids=" ".join,
)
def test_encrypted_key_is_decrypted(plain: Path, words: tuple[str, ...]) -> None:
    """A key that OpenSSL encrypted is decrypted unchanged."""
    data = converted(plain, *words)

    assert read_private_key(plain.read_bytes(), nobody) == read_private_key(
        data, lambda: PASSPHRASE
    )


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("-v2", "des3"), "cipher other than AES-CBC"),
        (("-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1"), "a hash other than SHA-2"),
        (("-v1", "PBE-SHA1-3DES"), "other than PBES2"),
    ],
)
def test_weak_encryption(plain: Path, words: tuple[str, ...], what: str) -> None:
    """Obsolete encryption is refused by name, without a prompt for a passphrase."""
    data = converted(plain, *words)

    with pytest.raises(UnsupportedOperationError, match=what):
        read_private_key(data, nobody)


def test_wrong_passphrase(plain: Path) -> None:
    """The error names the passphrase as a possible cause, and does not contain it."""
    data = converted(plain, "-v2", "aes-256-cbc")

    with pytest.raises(InvalidInputError, match="passphrase") as caught:
        read_private_key(data, lambda: b"a guess")

    assert "guess" not in str(caught.value)


def test_several_keys(plain: Path) -> None:
    """Of two keys in a file, none is taken for the one that was meant."""
    keys = plain.read_bytes(), converted(plain, "-v2", "aes-256-cbc")

    for data in (b"".join(keys), b"".join(keys[::-1]), keys[0] * 2):
        with pytest.raises(InvalidInputError, match="has 2 private keys"):
            read_private_key(data, nobody)


def test_costly_derivation(plain: Path) -> None:
    """A file that asks for too many iterations is refused."""
    data = converted(plain, "-v2", "aes-256-cbc", "-iter", "10000001")

    with pytest.raises(InvalidInputError, match=r"iterations .* 10000000, got"):
        read_private_key(data, lambda: PASSPHRASE)


def element(tag: int, *parts: bytes) -> bytes:
    """Return a short element of DER."""
    body = b"".join(parts)
    return bytes((tag, len(body))) + body


def integer(number: int) -> bytes:
    """Return INTEGER in DER."""
    octets = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    return element(0x02, octets)


@pytest.mark.parametrize(
    ("cost", "block_size", "parallelization", "named"),
    [
        (2**21, 8, 1, "scrypt cost"),
        (-16384, -8, 1, "scrypt block size"),
        (2, 2**22, 1, "scrypt block size"),
        (16384, 8, 10**6, "scrypt parallelization"),
        (16384, 8, 2**31, "scrypt parallelization"),
        (16384, 8, 2**70, "scrypt parallelization"),
        (16384, 8, -1, "scrypt parallelization"),
    ],
)
def test_costly_scrypt(
    cost: int, block_size: int, parallelization: int, named: str
) -> None:
    """A file that asks scrypt for too much time or memory is refused at once."""
    pbes2, scrypt, aes = map(
        bytes.fromhex,
        ("06092a864886f70d01050d", "06092b06010401da47040b", "060960864801650304012a"),
    )
    costs = map(integer, (cost, block_size, parallelization))
    derivation = element(0x30, scrypt, element(0x30, element(0x04, bytes(8)), *costs))
    encryption = element(0x30, aes, element(0x04, bytes(16)))
    algorithm = element(0x30, pbes2, element(0x30, derivation, encryption))
    data = element(0x30, algorithm, element(0x04, bytes(16)))

    with pytest.raises(InvalidInputError, match=f"{named} must be between 1 and"):
        read_private_key(data, lambda: PASSPHRASE)


@pytest.mark.parametrize("algorithm", ["rsa", "ec"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_traditional_pem_is_converted(
    tmp_path: Path, algorithm: str, encrypted: bool
) -> None:
    """RSA and EC keys in their traditional PEM formats are converted."""
    plain = tmp_path / "plain.pem"
    options = ("rsa_keygen_bits:2048",) if algorithm == "rsa" else ("group:P-384",)
    words = ("-algorithm", algorithm.upper(), "-pkeyopt", *options)
    plain.write_bytes(openssl("genpkey", *words))
    more = ("-aes256", "-passout", f"pass:{PASSPHRASE.decode()}") if encrypted else ()
    old = openssl(algorithm, "-in", str(plain), *LEGACY[algorithm], *more)

    assert b"BEGIN " + algorithm.upper().encode() in old
    found = read_private_key(old, (lambda: PASSPHRASE) if encrypted else nobody)
    assert read_private_key(plain.read_bytes(), nobody) == found


LEGACY = {"rsa": ("-traditional",), "ec": ()}


@pytest.mark.parametrize(
    "data",
    [
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n",
        b"-----BEGIN PRIVATE KEY-----\nA*AA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n"
        b"-----END ENCRYPTED PRIVATE KEY-----\n",
    ],
)
def test_file_without_a_private_key_is_refused(data: bytes) -> None:
    """A file without a private key is refused."""
    with pytest.raises(InvalidInputError):
        read_private_key(data, nobody)


def test_pem_is_found_among_other_text() -> None:
    """Text around a PEM block is ignored."""
    text = b"a key\n-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\nmore"

    assert bytes(3) == decode_pem(text, "PUBLIC KEY")
    assert b"anything else" == decode_pem(b"anything else", "PUBLIC KEY")
