# SPDX-License-Identifier: MIT
"""Signatures of approvers: those of OpenSSL and OpenSSH are known, others refused."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm_core._internal.approvals.signatures import MAX_SIGNATURE_BYTES, verify_consent
from hsm_core.approver_keys import (
    ApproverKey,
    read_approver_key,
    read_approver_keys,
    read_key_lines,
)
from hsm_core.consent import statement
from hsm_core.errors import (
    InputSizeError,
    InvalidInputError,
    MalformedError,
    SignatureMismatchError,
)
from tests.core.consent_vectors import APPROVAL_ID
from tests.core.openssl_program import OpenSSL
from tests.support import require_program

MESSAGE = statement(APPROVAL_ID, "41" * 32, granted=True)
OTHER = statement(APPROVAL_ID, "41" * 32, granted=False)
NAMESPACE = "ferrohsm-approval"
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ANOTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
P256 = ec.derive_private_key(1234567890123456789, ec.SECP256R1())


def line_of(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """Return a public key as OpenSSH writes it."""
    form = (Encoding.OpenSSH, PublicFormat.OpenSSH)
    return key.public_key().public_bytes(*form).decode()


def key_of(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> ApproverKey:
    """Return a registered key."""
    return read_approver_key(line_of(key))


def string(data: bytes) -> bytes:
    """Return bytes after their length."""
    return len(data).to_bytes(4, "big") + data


def armoured(data: bytes) -> bytes:
    """Return a signature as ssh-keygen writes it."""
    text = base64.encodebytes(data)
    return b"-----BEGIN SSH SIGNATURE-----\n" + text + b"-----END SSH SIGNATURE-----\n"


def sshsig(
    *,
    magic: bytes = b"SSHSIG",
    version: int = 1,
    namespace: bytes = NAMESPACE.encode(),
    reserved: bytes = b"",
    hash_name: bytes = b"sha512",
    kind: bytes = b"ssh-ed25519",
    after_inner: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Return a signature of SSH by the Ed25519 key, wrong in one way or none."""
    digest = hashes.Hash(hashes.SHA512())
    digest.update(MESSAGE)
    parts = (namespace, reserved, hash_name, digest.finalize())
    signed = ED25519.sign(b"SSHSIG" + b"".join(map(string, parts)))
    inner = string(kind) + string(signed) + after_inner
    blob = base64.b64decode(line_of(ED25519).split()[1])
    strings = (blob, namespace, reserved, hash_name, inner)
    head = magic + version.to_bytes(4, "big")
    return head + b"".join(map(string, strings)) + after


@pytest.mark.parametrize("kind", ["ED25519", "EC"])
def test_openssl(tmp_path: Path, kind: str) -> None:
    """Keys and bare signatures of OpenSSL are known."""
    openssl = OpenSSL(tmp_path)
    options = ["-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "EC" else []
    openssl.run("genpkey", "-algorithm", kind, *options, "-out", "key.pem")
    public = openssl.run("pkey", "-in", "key.pem", "-pubout").decode()
    openssl.file("statement", MESSAGE)
    digest = ["-digest", "sha256"] if kind == "EC" else []
    signature = openssl.run(
        *("pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "statement"),
        *digest,
    )
    key = read_approver_key(public)

    assert key == verify_consent(signature, MESSAGE, [key_of(ED25519), key])
    with pytest.raises(SignatureMismatchError):
        verify_consent(signature, OTHER, [key])
    with pytest.raises(SignatureMismatchError):
        verify_consent(signature, MESSAGE, [key_of(ED25519), key_of(P256)])


def ssh_keygen(folder: Path, *arguments: str) -> bytes:
    """Return what it writes; it must succeed."""
    program = require_program("ssh-keygen")
    done = subprocess.run(
        [program, *arguments],
        cwd=folder,
        input=MESSAGE,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_openssh(tmp_path: Path, kind: str) -> None:
    """Keys and signatures of OpenSSH are known, of either hash."""
    ssh_keygen(tmp_path, "-q", "-t", kind, "-N", "", "-C", "ada at home", "-f", "key")
    line = (tmp_path / "key.pub").read_text()
    key = read_approver_key(line)
    told = ssh_keygen(tmp_path, "-l", "-f", "key.pub").decode()
    assert key.fingerprint == told.split()[1]

    for hash_name in ("sha256", "sha512"):
        signature = ssh_keygen(
            tmp_path,
            *("-Y", "sign", "-f", "key", "-n", NAMESPACE, "-O", f"hashalg={hash_name}"),
        )

        assert key == verify_consent(signature, MESSAGE, [key_of(P256), key])
        with pytest.raises(SignatureMismatchError):
            verify_consent(signature, OTHER, [key])
        with pytest.raises(SignatureMismatchError):
            verify_consent(signature, MESSAGE, [key_of(P256)])


def test_openssh_for_other_ends(tmp_path: Path) -> None:
    """What somebody has signed with SSH for another end is no consent."""
    ssh_keygen(tmp_path, "-q", "-t", "ed25519", "-N", "", "-f", "key")
    key = read_approver_key((tmp_path / "key.pub").read_text())
    signature = ssh_keygen(tmp_path, "-Y", "sign", "-f", "key", "-n", "git")

    with pytest.raises(MalformedError, match="namespace must be ferrohsm-approval"):
        verify_consent(signature, MESSAGE, [key])


def test_rsa_of_openssh(tmp_path: Path) -> None:
    """A signature of an RSA key is refused, as the key is."""
    ssh_keygen(tmp_path, "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "key")
    signature = ssh_keygen(tmp_path, "-Y", "sign", "-f", "key", "-n", NAMESPACE)

    with pytest.raises(InvalidInputError, match="must be Ed25519 or ECDSA P-256"):
        read_approver_key((tmp_path / "key.pub").read_text())
    with pytest.raises(MalformedError):
        verify_consent(signature, MESSAGE, [key_of(ED25519)])


def test_every_changed_byte_of_openssh() -> None:
    """No byte of a signature of SSH can be another one."""
    key = key_of(ED25519)
    whole = sshsig()
    assert key == verify_consent(armoured(whole), MESSAGE, [key])

    for i in range(len(whole)):
        changed = whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :]
        with pytest.raises((MalformedError, SignatureMismatchError)):
            verify_consent(armoured(changed), MESSAGE, [key])
    for end in range(len(whole)):
        with pytest.raises(MalformedError):
            verify_consent(armoured(whole[:end]), MESSAGE, [key])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"magic": b"SSHSIH"}, "must be SSHSIG"),
        ({"version": 2}, "must be SSHSIG version 1"),
        ({"namespace": b"file"}, "namespace"),
        ({"namespace": b""}, "namespace"),
        ({"namespace": b"ferrohsm-approval\0"}, "namespace"),
        ({"reserved": b"x"}, "namespace"),
        ({"hash_name": b"sha1"}, "hash must be"),
        ({"kind": b"ssh-rsa"}, "does not match its key type"),
        ({"after_inner": b"x"}, "trailing bytes"),
        ({"after": b"x"}, "trailing bytes"),
    ],
)
def test_wrong_in_one_way(changes: dict[str, bytes], reason: str) -> None:
    """Every part of a signature of SSH must be what it should be."""
    with pytest.raises(MalformedError, match=reason):
        verify_consent(armoured(sshsig(**changes)), MESSAGE, [key_of(ED25519)])  # type: ignore[arg-type]


def p256_sshsig(numbers: bytes) -> bytes:
    """Return a signature of SSH by the P-256 key with these numbers in it."""
    kind = b"ecdsa-sha2-nistp256"
    blob = base64.b64decode(line_of(P256).split()[1])
    inner = string(kind) + string(numbers)
    strings = (blob, NAMESPACE.encode(), b"", b"sha512", inner)
    return armoured(b"SSHSIG\0\0\0\1" + b"".join(map(string, strings)))


def test_numbers_of_openssh() -> None:
    """Numbers of ECDSA have one form, and nothing follows them."""
    digest = hashes.Hash(hashes.SHA512())
    digest.update(MESSAGE)
    parts = (NAMESPACE.encode(), b"", b"sha512", digest.finalize())
    signed = b"SSHSIG" + b"".join(map(string, parts))
    r, s = decode_dss_signature(P256.sign(signed, ec.ECDSA(hashes.SHA256())))
    first, second = (n.to_bytes(n.bit_length() // 8 + 1, "big") for n in (r, s))
    key = key_of(P256)
    good = p256_sshsig(string(first) + string(second))

    assert key == verify_consent(good, MESSAGE, [key])
    for numbers in (
        string(b"\0" + first) + string(second),
        string(first) + string(second) + b"x",
        string(b"") + string(second),
        string(first) + string(b"\0"),
        string(first) + string(b"\x80" + bytes(31)),
        string(first),
    ):
        with pytest.raises(MalformedError):
            verify_consent(p256_sshsig(numbers), MESSAGE, [key])


@pytest.mark.parametrize(
    "change",
    [
        lambda a: b"x" + a,
        lambda a: a + b"x",
        lambda a: a + a,
        lambda a: a.replace(b"\n", b"\r\n"),
        lambda a: a.replace(b"SSH SIGNATURE", b"PGP SIGNATURE"),
        lambda a: a.replace(b"-----\nU", b"-----\n*"),
        lambda a: a.replace(b"\n-----END", b"=\n-----END"),
    ],
)
def test_armour(change: Callable[[bytes], bytes]) -> None:
    """The armour is that of one signature, with nothing around it."""
    signature = change(armoured(sshsig()))

    with pytest.raises((MalformedError, SignatureMismatchError)):
        verify_consent(signature, MESSAGE, [key_of(ED25519)])


def test_bare_signature_with_more() -> None:
    """Nothing may follow a bare signature, and DER has one form."""
    der = P256.sign(MESSAGE, ec.ECDSA(hashes.SHA256()))
    longer = b"\x30\x81" + der[1:]
    for signature in (der + b"\0", longer, b"", der[:-1]):
        with pytest.raises((SignatureMismatchError, InputSizeError)):
            verify_consent(signature, MESSAGE, [key_of(P256)])
    with pytest.raises(SignatureMismatchError):
        verify_consent(ED25519.sign(MESSAGE) + b"\0", MESSAGE, [key_of(ED25519)])


def test_no_keys() -> None:
    """Whoever has no key has signed nothing."""
    with pytest.raises(SignatureMismatchError):
        verify_consent(ED25519.sign(MESSAGE), MESSAGE, [])


def test_long_signature() -> None:
    """Nothing is looked at that is longer than a signature can be."""
    with pytest.raises(InputSizeError, match="between 1 and 4096 bytes"):
        verify_consent(bytes(MAX_SIGNATURE_BYTES + 1), MESSAGE, [key_of(ED25519)])


PEM = (
    ED25519.public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
LINE = line_of(ED25519)


def test_key_forms() -> None:
    """PEM and line are two forms of one key; a comment is part of neither."""
    key = read_approver_key(PEM)

    assert key == read_approver_key(LINE)
    assert key == read_approver_key(f"{LINE} ada@example.org on her laptop\n")
    assert "ssh-ed25519" == key.kind
    assert "ecdsa-sha2-nistp256" == key_of(P256).kind


def pem_of(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | object) -> str:
    """Return the PEM form of any public key."""
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    written: bytes = key.public_bytes(*form)  # type: ignore[union-attr]
    return written.decode()


OTHER_KEYS = {
    "nothing": "",
    "type alone": "ssh-ed25519",
    "truncated": "ssh-ed25519 AAAA",
    "ssh-rsa": LINE.replace("ssh-ed25519", "ssh-rsa"),
    "sk": LINE.replace("ssh-ed25519", "sk-ssh-ed25519@openssh.com"),
    "another type": LINE.replace("ssh-ed25519", "ecdsa-sha2-nistp256"),
    "options": f'namespaces="file" {LINE}',
    "two lines": f"{LINE}\n{LINE}",
    "a character less": f"{LINE[:-1]}",
    "comment beyond ASCII": f"{LINE} ü",
    "two keys": PEM + PEM,
    "text before": "x" + PEM,
    "private": PEM.replace("PUBLIC KEY", "PRIVATE KEY"),
    "damaged": PEM.replace("-----\nM", "-----\n\n\n*"),
    "too long": PEM + "x" * 5000,
    "RSA": pem_of(rsa.generate_private_key(65537, 2048).public_key()),
    "P-384": pem_of(ec.generate_private_key(ec.SECP384R1()).public_key()),
    "secp256k1": pem_of(ec.generate_private_key(ec.SECP256K1()).public_key()),
    "Ed448": pem_of(ed448.Ed448PrivateKey.generate().public_key()),
}


@pytest.mark.parametrize("text", OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_other_keys(text: str) -> None:
    """Whatever else is a key, or looks like one, is refused."""
    with pytest.raises(InvalidInputError, match="must be Ed25519 or ECDSA P-256"):
        read_approver_key(text)


def test_point_in_another_form() -> None:
    """A compressed point is another encoding of a key, and refused."""
    raw = P256.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    body = base64.encodebytes(head + raw).decode()

    with pytest.raises(InvalidInputError):
        read_approver_key(
            f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"
        )


def test_lines() -> None:
    """A file of lines gives people their keys; names of one person are joined."""
    found = read_key_lines(
        f"""# people
bob {LINE}

"Mary Ann" {line_of(P256)} her laptop
  BOB {line_of(ANOTHER)}
"""
    )

    assert {
        "bob": (key_of(ED25519), key_of(ANOTHER)),
        "mary ann": (key_of(P256),),
    } == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("bob", "Line 1: no key found"),
        ("\n# x\nbob ssh-rsa AAAA", "Line 3: An approver's key must be"),
        (f"bob {LINE}\nada {LINE}", "is registered for two people"),
        (f'"bob {LINE}', "Line 1"),
    ],
)
def test_wrong_lines(text: str, reason: str) -> None:
    """A line that names nobody's key is told by its number."""
    with pytest.raises(InvalidInputError, match=reason):
        read_key_lines(text)


def test_keys_of_a_policy() -> None:
    """Keys of a policy are read in either form; two people have no key in common."""
    assert {"bob": (key_of(ED25519),)} == read_approver_keys({"Bob ": (PEM,)})
    with pytest.raises(InvalidInputError, match="two people"):
        read_approver_keys({"bob": (PEM,), "ada": (LINE,)})
