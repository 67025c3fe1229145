# SPDX-License-Identifier: MIT
"""PKCS#11 mechanisms: what programs can do with keys."""

import hashlib
import hmac
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import (
    ec,
    ed25519,
    mldsa,
    padding,
    rsa,
    x25519,
)
from cryptography.hazmat.primitives.asymmetric.utils import (
    NoDigestInfo,
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)

from hsm_cli.interfaces.access import Access, Server
from hsm_cli.interfaces.access import LocalProgram as Caller
from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11 import derivation, generation
from hsm_cli.interfaces.pkcs11.application import Library
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.general import get_mechanism_info, get_mechanism_list
from hsm_cli.interfaces.pkcs11.mechanisms import mechanism_types
from hsm_cli.interfaces.pkcs11.objects import KeyObject
from hsm_cli.interfaces.pkcs11.public_parts import OCTET_STRING, der
from hsm_client.settings import ClientSettings
from hsm_core.algorithms import Algorithm
from hsm_core.operations import (
    CreateKey,
    DestroyKey,
    ListAuditEvents,
    ListKeys,
    ResumeKey,
    RevokeKey,
    RotateKey,
    SuspendKey,
)
from tests.cli.pkcs11_support import Token, refused, running_token
from tests.cli.rpc_client import (
    Attributes,
    CallError,
    Client,
    array,
    attributes_of,
    block,
    data,
    first,
    flag,
    mechanism,
    number,
    template,
    ulong,
    unpacked,
)
from tests.support import REPOSITORY

P256 = bytes.fromhex("06082a8648ce3d030107")
P384 = bytes.fromhex("06052b81040022")
P521 = bytes.fromhex("06052b81040023")
X25519 = bytes.fromhex("06032b656e")
ED25519 = bytes.fromhex("06032b6570")
HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 512: hashes.SHA512()}
ROOM = struct.pack(">I", 65_536)
NO_PASSWORD = NoEncryption()
QUERY = struct.pack(">I", 0)


def native(value: int) -> bytes:
    """Return a number in an attribute that p11-kit does not know, as in memory."""
    return data(struct.pack("=Q", value))


class Program:
    """A program with a session, which calls functions by their numbers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.session = client.open_session()

    def call(self, function: int, signature: str, *arguments: bytes) -> bytes:
        """Make a call with the session as its first argument."""
        return self.client.call(
            function, signature, ulong(self.session) + b"".join(arguments)
        )

    def pair(self, kind: int, public: Attributes, private: Attributes) -> list[int]:
        """Generate a session key pair; return the public and the private handle."""
        templates = template(public) + template(private)
        answer = self.call(59, "uMaAaA", mechanism(kind), templates)
        return list(struct.unpack(">QQ", answer))

    def secret(self, kind: int, attributes: Attributes) -> int:
        """Generate a secret session key."""
        return first(self.call(58, "uMaA", mechanism(kind), template(attributes)))

    def created(self, attributes: Attributes) -> int:
        """Create an object from its value."""
        return first(self.call(20, "uaA", template(attributes)))

    def begin(self, function: int, how: bytes, key: int) -> None:
        """Begin an operation."""
        self.call(function, "uMu", how, ulong(key))

    def sign(self, how: bytes, key: int, *parts: bytes) -> bytes:
        """Sign one part, or many."""
        self.begin(42, how, key)
        if len(parts) == 1:
            return unpacked(self.call(43, "uayfy", array(parts[0]), ROOM))
        for part in parts:
            self.call(44, "uay", array(part))
        return unpacked(self.call(45, "ufy", ROOM))

    def verify(self, how: bytes, key: int, message: bytes, signature: bytes) -> None:
        """Verify a signature."""
        self.begin(48, how, key)
        self.call(49, "uayay", array(message), array(signature))

    def encrypt(self, how: bytes, key: int, *parts: bytes) -> bytes:
        """Encrypt one part, or many."""
        return self._transform(29, how, key, *parts)

    def decrypt(self, how: bytes, key: int, *parts: bytes) -> bytes:
        """Decrypt one part, or many."""
        return self._transform(33, how, key, *parts)

    def _transform(self, init: int, how: bytes, key: int, *parts: bytes) -> bytes:
        self.begin(init, how, key)
        if len(parts) == 1:
            return unpacked(self.call(init + 1, "uayfy", array(parts[0]), ROOM))
        found = b""
        for part in parts:
            found += unpacked(self.call(init + 2, "uayfy", array(part), ROOM))
        return found + unpacked(self.call(init + 3, "ufy", ROOM))

    def public_key(self, key: int) -> object:
        """Return the public key of an object."""
        wanted = struct.pack(">III", 1, ck.CKA_PUBLIC_KEY_INFO, 1 << 16)
        answer = self.call(24, "uufA", ulong(key), wanted)
        return load_der_public_key(attributes_of(answer)[0][ck.CKA_PUBLIC_KEY_INFO])


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    """Return a token of someone who may manage, wrap and audit."""
    folder = tmp_path_factory.mktemp("mechanisms")
    roles = ("operator", "administrator", "auditor")
    with running_token(folder, roles=roles) as token:
        yield token


@pytest.fixture(scope="module")
def program(token: Token) -> Iterator[Program]:
    """Return a program with a session."""
    with token.client() as client:
        yield Program(client)


def rsa_pair(program: Program, *usages: int) -> list[int]:
    """Generate an RSA key pair with usages of its private half."""
    of_public = {ck.CKA_SIGN: ck.CKA_VERIFY, ck.CKA_DECRYPT: ck.CKA_ENCRYPT}
    public: Attributes = [(ck.CKA_MODULUS_BITS, number(2048))]
    public += [(of_public[usage], flag(True)) for usage in usages]
    private = [(usage, flag(True)) for usage in usages]
    return program.pair(ck.CKM_RSA_PKCS_KEY_PAIR_GEN, public, private)


@pytest.fixture(scope="module")
def signer(program: Program) -> list[int]:
    """Return an RSA key pair that signs."""
    return rsa_pair(program, ck.CKA_SIGN)


@pytest.fixture(scope="module")
def curve(program: Program) -> list[int]:
    """Return an EC key pair that signs."""
    public: Attributes = [(ck.CKA_EC_PARAMS, data(P256)), (ck.CKA_VERIFY, flag(True))]
    return program.pair(ck.CKM_EC_KEY_PAIR_GEN, public, [(ck.CKA_SIGN, flag(True))])


def pss(bits: int) -> bytes:
    """Return the parameter of RSA-PSS with one hash."""
    kind = {256: ck.CKM_SHA256, 384: ck.CKM_SHA384, 512: ck.CKM_SHA512}[bits]
    mask = {256: 2, 384: 3, 512: 4}[bits]
    return b"\1" + ulong(kind) + ulong(mask) + ulong(bits // 8)


@pytest.mark.parametrize("bits", HASHES)
def test_rsa_signatures(program: Program, signer: list[int], bits: int) -> None:
    """PKCS#1 v1.5 and PSS sign messages in one part and in many, and verify."""
    public, private = signer
    key = program.public_key(public)
    assert isinstance(key, rsa.RSAPublicKey)
    digest = hashlib.new(f"sha{bits}", b"hello").digest()
    pkcs1 = mechanism(getattr(ck, f"CKM_SHA{bits}_RSA_PKCS"))
    salted = mechanism(getattr(ck, f"CKM_SHA{bits}_RSA_PKCS_PSS"), pss(bits))
    bare = mechanism(ck.CKM_RSA_PKCS_PSS, pss(bits))
    scheme = padding.PSS(padding.MGF1(HASHES[bits]), bits // 8)

    for how, parts, padded in (
        (pkcs1, [b"hello"], padding.PKCS1v15()),
        (pkcs1, [b"hel", b"lo"], padding.PKCS1v15()),
        (salted, [b"hel", b"lo"], scheme),
        (bare, [digest], scheme),
    ):
        made = program.sign(how, private, *parts)
        key.verify(made, b"hello", padded, HASHES[bits])
        program.verify(how, public, b"".join(parts), made)
        with refused(ck.CKR_SIGNATURE_INVALID):
            program.verify(how, public, b"".join(parts)[::-1], made)


def test_bare_rsa_signatures(program: Program, signer: list[int]) -> None:
    """CKM_RSA_PKCS pads what it gets, a DigestInfo or anything else."""
    public, private = signer
    key = program.public_key(public)
    assert isinstance(key, rsa.RSAPublicKey)
    info = bytes.fromhex("3031300d060960864801650304020105000420") + bytes(32)

    for sent in (info, b"anything"):
        made = program.sign(mechanism(ck.CKM_RSA_PKCS), private, sent)
        pkcs1 = padding.PKCS1v15()
        assert sent == key.recover_data_from_signature(made, pkcs1, None)
        program.verify(mechanism(ck.CKM_RSA_PKCS), public, sent, made)
    with refused(ck.CKR_DATA_LEN_RANGE):
        program.sign(mechanism(ck.CKM_RSA_PKCS), private, bytes(246))


@pytest.mark.parametrize("bits", HASHES)
def test_ecdsa(program: Program, curve: list[int], bits: int) -> None:
    """ECDSA signs messages with every SHA-2, and digests of any hash."""
    public, private = curve
    key = program.public_key(public)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    hashed = mechanism(getattr(ck, f"CKM_ECDSA_SHA{bits}"))
    digest = hashlib.new(f"sha{bits}", b"hello").digest()

    for how, sent in ((hashed, b"hello"), (mechanism(ck.CKM_ECDSA), digest)):
        made = program.sign(how, private, sent)
        r, s = int.from_bytes(made[:32]), int.from_bytes(made[32:])
        key.verify(encode_dss_signature(r, s), b"hello", ec.ECDSA(HASHES[bits]))
        program.verify(how, public, sent, made)
    with refused(ck.CKR_SIGNATURE_LEN_RANGE):
        program.verify(hashed, public, b"hello", bytes(63))


def test_newer_signatures(program: Program) -> None:
    """EdDSA, ML-DSA with a context and SLH-DSA sign messages in many parts."""
    sign: Attributes = [(ck.CKA_SIGN, flag(True))]
    verify: Attributes = [(ck.CKA_VERIFY, flag(True))]
    curve: Attributes = [(ck.CKA_EC_PARAMS, data(ED25519)), *verify]
    ed = program.pair(ck.CKM_EC_EDWARDS_KEY_PAIR_GEN, curve, sign)
    sets: Attributes = [(ck.CKA_PARAMETER_SET, native(2)), *verify]
    ml = program.pair(ck.CKM_ML_DSA_KEY_PAIR_GEN, sets, sign)
    fast: Attributes = [(ck.CKA_PARAMETER_SET, native(3)), *verify]
    slh = program.pair(ck.CKM_SLH_DSA_KEY_PAIR_GEN, fast, sign)
    context = b"\1" + ulong(0) + block(b"context")

    made = program.sign(mechanism(ck.CKM_EDDSA), ed[1], b"hel", b"lo")
    key = program.public_key(ed[0])
    assert isinstance(key, ed25519.Ed25519PublicKey)
    key.verify(made, b"hello")
    made = program.sign(mechanism(ck.CKM_ML_DSA, context), ml[1], b"hel", b"lo")
    other = program.public_key(ml[0])
    assert isinstance(other, mldsa.MLDSA65PublicKey)
    other.verify(made, b"hello", b"context")
    with pytest.raises(InvalidSignature):
        other.verify(made, b"hello")
    program.verify(mechanism(ck.CKM_ML_DSA, context), ml[0], b"hello", made)
    made = program.sign(mechanism(ck.CKM_SLH_DSA, context), slh[1], b"hello")
    program.verify(mechanism(ck.CKM_SLH_DSA, context), slh[0], b"hello", made)


def test_hmac(program: Program) -> None:
    """HMAC computes whole and truncated MACs, of which none is shorter than 4 bytes."""
    usages: Attributes = [(ck.CKA_SIGN, flag(True)), (ck.CKA_VERIFY, flag(True))]
    length: Attributes = [(ck.CKA_VALUE_LEN, number(32))]
    key = program.secret(ck.CKM_GENERIC_SECRET_KEY_GEN, length + usages)
    whole = mechanism(ck.CKM_SHA256_HMAC)
    short = mechanism(ck.CKM_SHA256_HMAC_GENERAL, b"\1" + ulong(12))

    made = program.sign(whole, key, b"hel", b"lo")
    cut = program.sign(short, key, b"hello")

    assert 32 == len(made)
    assert hmac.compare_digest(made[:12], cut)
    program.verify(whole, key, b"hello", made)
    program.verify(short, key, b"hello", cut)
    for how, mac in ((whole, bytes(32)), (short, bytes(12))):
        with refused(ck.CKR_SIGNATURE_INVALID):
            program.verify(how, key, b"hello", mac)
    tiny = mechanism(ck.CKM_SHA256_HMAC_GENERAL, b"\1" + ulong(0))
    with refused(ck.CKR_MECHANISM_PARAM_INVALID):
        program.verify(tiny, key, b"hello", b"")


IV = b"\1" + block(bytes(16))
GCM = b"\1" + block(bytes(12)) + ulong(96) + block(b"aad") + ulong(128)
CTR = b"\1" + ulong(64) + block(bytes(16))


@pytest.mark.parametrize(
    ("kind", "parameter", "length"),
    [
        (ck.CKM_AES_CBC, IV, 32),
        (ck.CKM_AES_CBC_PAD, IV, 21),
        (ck.CKM_AES_CTR, CTR, 21),
        (ck.CKM_AES_GCM, GCM, 21),
    ],
)
def test_aes(program: Program, kind: int, parameter: bytes, length: int) -> None:
    """Every mode decrypts what it encrypted, in one part and in many."""
    usages: Attributes = [(ck.CKA_ENCRYPT, flag(True)), (ck.CKA_DECRYPT, flag(True))]
    size: Attributes = [(ck.CKA_VALUE_LEN, number(32))]
    key = program.secret(ck.CKM_AES_KEY_GEN, size + usages)
    how, message = mechanism(kind, parameter), bytes(range(length))

    made = program.encrypt(how, key, message)

    assert made == program.encrypt(how, key, message[:5], message[5:])
    assert message == program.decrypt(how, key, made)
    assert message == program.decrypt(how, key, made[:5], made[5:])
    program.begin(33, how, key)
    bound = program.call(34, "uayfy", array(made), QUERY)
    assert length <= struct.unpack(">BI", bound)[1] <= len(made)
    short = program.call(34, "uayfy", array(made), struct.pack(">I", length - 1))
    assert b"\0" + struct.pack(">I", length) == short
    enough = struct.pack(">I", length)
    assert message == unpacked(program.call(34, "uayfy", array(made), enough))
    if kind == ck.CKM_AES_GCM:
        altered = made[:-1] + bytes((made[-1] ^ 1,))
        with refused(ck.CKR_ENCRYPTED_DATA_INVALID):
            program.decrypt(how, key, altered)


def test_other_ciphertext_after_a_small_buffer(program: Program) -> None:
    """A repeated call with other ciphertext gets the plaintext of that."""
    usages: Attributes = [(ck.CKA_ENCRYPT, flag(True)), (ck.CKA_DECRYPT, flag(True))]
    size: Attributes = [(ck.CKA_VALUE_LEN, number(32))]
    key = program.secret(ck.CKM_AES_KEY_GEN, size + usages)
    how = mechanism(ck.CKM_AES_GCM, GCM)
    first, other = (program.encrypt(how, key, text) for text in (b"first", b"others"))
    little, exact = struct.pack(">I", 4), struct.pack(">I", 6)

    program.begin(33, how, key)
    for made, length in ((first, 5), (other, 6), (first, 5)):
        short = program.call(34, "uayfy", array(made), little)
        assert b"\0" + struct.pack(">I", length) == short
    assert b"others" == unpacked(program.call(34, "uayfy", array(other), exact))

    program.begin(33, how, key)
    program.call(34, "uayfy", array(first), little)
    with refused(ck.CKR_ENCRYPTED_DATA_INVALID):
        program.call(34, "uayfy", array(first[:-1] + bytes([first[-1] ^ 1])), ROOM)
    with refused(ck.CKR_OPERATION_NOT_INITIALIZED):
        program.call(34, "uayfy", array(first), ROOM)


def test_a_part_after_the_end_is_refused(program: Program) -> None:
    """A part that comes after the result was computed is not left out of it."""
    usages: Attributes = [(ck.CKA_ENCRYPT, flag(True)), (ck.CKA_DECRYPT, flag(True))]
    size: Attributes = [(ck.CKA_VALUE_LEN, number(32))]
    key = program.secret(ck.CKM_AES_KEY_GEN, size + usages)
    program.begin(33, mechanism(ck.CKM_AES_CTR, CTR), key)
    program.call(35, "uayfy", array(bytes(20)), ROOM)
    short = program.call(36, "ufy", struct.pack(">I", 5))

    assert b"\0" + struct.pack(">I", 20) == short
    with refused(ck.CKR_OPERATION_ACTIVE):
        program.call(35, "uayfy", array(bytes(10)), ROOM)
    with refused(ck.CKR_OPERATION_NOT_INITIALIZED):
        program.call(36, "ufy", ROOM)


def signatures(token: Token) -> int:
    """Return the number of recorded signatures."""
    hsm = token.access.hsm(Caller())
    return len(hsm.execute(ListAuditEvents(kind=("Sign",), limit=1000)).items)


def test_a_handle_names_one_version(token: Token, program: Program) -> None:
    """After a rotation, no call takes another version than the object's."""
    hsm = token.access.hsm(Caller())
    sizes: Attributes = [(ck.CKA_VALUE_LEN, number(32))]
    cipher: Attributes = [(ck.CKA_ENCRYPT, flag(True)), (ck.CKA_DECRYPT, flag(True))]
    key = program.secret(ck.CKM_AES_KEY_GEN, sizes + cipher)
    mac = program.secret(ck.CKM_GENERIC_SECRET_KEY_GEN, sizes)
    how = mechanism(ck.CKM_AES_CTR, CTR)
    before = program.encrypt(how, key, b"message")
    for info in hsm.execute(ListKeys(tags=("pkcs11-session",), per_page=100)).items:
        if info.algorithm in {"AES-256", "HMAC-SHA-256"}:
            hsm.execute(RotateKey(key_id=info.key_id))

    for _ in range(2):
        with refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED):
            program.encrypt(how, key, b"message")
    with refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED):
        program.sign(mechanism(ck.CKM_SHA256_HMAC), mac, b"message")
    assert b"message" == program.decrypt(how, key, before)


def test_a_key_that_was_suspended(token: Token, program: Program) -> None:
    """A key that a program finds suspended, and a copy, sign once it is resumed."""
    how = mechanism(ck.CKM_ECDSA_SHA256)
    hsm = token.access.hsm(Caller())
    hsm.execute(CreateKey(algorithm=Algorithm.EC_P256, name="resumed"))
    hsm.execute(SuspendKey(key_id="resumed"))
    wanted: Attributes = [
        (ck.CKA_LABEL, data(b"resumed")),
        (ck.CKA_CLASS, number(ck.CKO_PRIVATE_KEY)),
    ]
    (handle,) = program.client.find(program.session, wanted)
    own: Attributes = [(ck.CKA_TOKEN, flag(False)), (ck.CKA_LABEL, data(b"mine"))]
    copy = first(program.call(21, "uuaA", ulong(handle) + template(own)))
    for one in (copy, handle):
        with refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED):
            program.sign(how, one, b"text")

    hsm.execute(ResumeKey(key_id="resumed"))

    # The copy first: the key's handle reads its state anew, too.
    assert program.sign(how, copy, b"text")
    assert program.sign(how, handle, b"text")


def test_size_queries(token: Token, program: Program, curve: list[int]) -> None:
    """A size query uses no key, and leaves the operation active."""
    count = signatures(token)
    program.begin(42, mechanism(ck.CKM_ECDSA), curve[1])

    answers = [
        program.call(43, "uayfy", array(bytes(32)), struct.pack(">I", room))
        for room in (0, 63)
    ]
    made = unpacked(program.call(43, "uayfy", array(bytes(32)), ROOM))

    assert [b"\0" + struct.pack(">I", 64)] * 2 == answers
    assert 64 == len(made)
    assert count + 1 == signatures(token)


def test_oaep(program: Program) -> None:
    """RSA-OAEP encrypts with the public half and a label, and decrypts."""
    public, private = rsa_pair(program, ck.CKA_DECRYPT)
    oaep = b"\1" + ulong(ck.CKM_SHA256) + ulong(2) + ulong(1) + block(b"label")
    how = mechanism(ck.CKM_RSA_PKCS_OAEP, oaep)

    made = program.encrypt(how, public, b"secret")

    assert b"secret" == program.decrypt(how, private, made)
    with refused(ck.CKR_ENCRYPTED_DATA_INVALID):
        program.decrypt(how, private, made[:-1] + bytes([made[-1] ^ 1]))


def test_pkcs1_decryption_is_refused(token: Token, program: Program) -> None:
    """No policy names it, so the HSM denies it, and the denial is in the audit log."""
    hsm = token.access.hsm(Caller())
    query = ListAuditEvents(kind=("DecryptPKCS1",), code="access_denied", limit=1000)
    before = len(hsm.execute(query).items)
    _, private = rsa_pair(program, ck.CKA_DECRYPT)

    with refused(ck.CKR_FUNCTION_REJECTED):
        program.decrypt(mechanism(ck.CKM_RSA_PKCS), private, bytes(256))
    assert before + 1 == len(hsm.execute(query).items)


def test_wrapping(program: Program) -> None:
    """An extractable key leaves wrapped, and comes back as another object."""
    wraps: Attributes = [(ck.CKA_WRAP, flag(True)), (ck.CKA_UNWRAP, flag(True))]
    size: Attributes = [(ck.CKA_VALUE_LEN, number(32))]
    usages: Attributes = [(ck.CKA_ENCRYPT, flag(True)), (ck.CKA_DECRYPT, flag(True))]
    wrapping = program.secret(ck.CKM_AES_KEY_GEN, size + wraps)
    leaving: Attributes = [(ck.CKA_EXTRACTABLE, flag(True)), *size, *usages]
    key = program.secret(ck.CKM_AES_KEY_GEN, leaving)
    staying = program.secret(ck.CKM_AES_KEY_GEN, size + usages)
    how, cbc = mechanism(ck.CKM_AES_KEY_WRAP), mechanism(ck.CKM_AES_CBC_PAD, IV)

    query = program.call(60, "uMuufy", how, ulong(wrapping), ulong(key), QUERY)
    wrapped = unpacked(
        program.call(60, "uMuufy", how, ulong(wrapping), ulong(key), ROOM)
    )
    kinds: Attributes = [
        (ck.CKA_CLASS, number(ck.CKO_SECRET_KEY)),
        (ck.CKA_KEY_TYPE, number(ck.CKK_AES)),
        *usages,
    ]
    back = first(
        program.call(
            61, "uMuayaA", how, ulong(wrapping), array(wrapped), template(kinds)
        )
    )

    assert b"\0" + struct.pack(">I", 40) == query
    made = program.encrypt(cbc, key, b"message")
    assert b"message" == program.decrypt(cbc, back, made)
    with refused(ck.CKR_KEY_UNEXTRACTABLE):
        program.call(60, "uMuufy", how, ulong(wrapping), ulong(staying), ROOM)
    other = program.secret(ck.CKM_AES_KEY_GEN, size + wraps + leaving[:1])
    with refused(ck.CKR_KEY_NOT_WRAPPABLE):
        program.call(60, "uMuufy", how, ulong(wrapping), ulong(other), ROOM)
    asking: Attributes = [(ck.CKA_ALWAYS_AUTHENTICATE, flag(True))]
    for holder, found in (
        (wrapping, program.secret(ck.CKM_AES_KEY_GEN, leaving + asking)),
        (program.secret(ck.CKM_AES_KEY_GEN, size + wraps + asking), key),
    ):
        with refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED):
            program.call(60, "uMuufy", how, ulong(holder), ulong(found), ROOM)
    with refused(ck.CKR_WRAPPED_KEY_INVALID):
        program.call(
            *(61, "uMuayaA", how, ulong(wrapping), array(bytes(40)), template(kinds))
        )
    shorter: Attributes = [*kinds, (ck.CKA_VALUE_LEN, number(16))]
    with refused(ck.CKR_TEMPLATE_INCONSISTENT):
        program.call(
            *(61, "uMuayaA", how, ulong(wrapping), array(wrapped), template(shorter))
        )


def test_digests_and_random_bytes(program: Program) -> None:
    """Digests need no key; random bytes are as many as there is room for."""
    program.call(37, "uM", mechanism(ck.CKM_SHA256))
    made = unpacked(program.call(38, "uayfy", array(b"hello"), ROOM))
    program.call(37, "uM", mechanism(ck.CKM_SHA256))
    program.call(39, "uay", array(b"hel"))
    with pytest.raises(CallError) as caught:
        program.call(38, "uayfy", array(b"lo"), ROOM)
    drawn = unpacked(program.call(64, "ufy", struct.pack(">I", 10_000)))

    assert hashlib.sha256(b"hello").digest() == made
    assert ck.CKR_OPERATION_ACTIVE == caught.value.rv
    assert 10_000 == len(drawn)
    assert 200 < len(set(drawn))
    with refused(ck.CKR_DATA_LEN_RANGE):
        program.call(64, "ufy", struct.pack(">I", 0xFFFF_FFFE))


@pytest.mark.parametrize(
    ("attributes", "rv"),
    [
        ([(ck.CKA_MODULUS_BITS, number(1024))], ck.CKR_KEY_SIZE_RANGE),
        ([], ck.CKR_TEMPLATE_INCOMPLETE),
        (
            [
                (ck.CKA_MODULUS_BITS, number(2048)),
                (ck.CKA_PUBLIC_EXPONENT, data(b"\3")),
            ],
            ck.CKR_ATTRIBUTE_VALUE_INVALID,
        ),
    ],
)
def test_keys_that_are_not_offered(
    program: Program, attributes: Attributes, rv: int
) -> None:
    """Weak keys are refused."""
    with refused(rv):
        program.pair(ck.CKM_RSA_PKCS_KEY_PAIR_GEN, attributes, [])


def test_a_usage_that_a_template_denies(program: Program) -> None:
    """A key of which the template says that it does not sign gets no such usage."""
    curve: Attributes = [(ck.CKA_EC_PARAMS, data(P256))]
    no_sign: Attributes = [(ck.CKA_SIGN, flag(False))]
    no_verify: Attributes = [*curve, (ck.CKA_VERIFY, flag(False))]

    _, private = program.pair(ck.CKM_EC_KEY_PAIR_GEN, curve, no_sign)

    with refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED):
        program.sign(mechanism(ck.CKM_ECDSA), private, bytes(32))
    with refused(ck.CKR_TEMPLATE_INCONSISTENT):
        program.pair(ck.CKM_EC_KEY_PAIR_GEN, no_verify, no_sign)


def test_a_key_of_one_mechanism(program: Program) -> None:
    """A key is only for the mechanisms that its template names, on each operation."""
    allowed = struct.pack(">IIQ", 8, 1, ck.CKM_ECDSA_SHA256)
    only: Attributes = [(ck.CKA_ALLOWED_MECHANISMS, allowed)]
    public, private = program.pair(
        ck.CKM_EC_KEY_PAIR_GEN, [(ck.CKA_EC_PARAMS, data(P256))], only
    )
    named, other = mechanism(ck.CKM_ECDSA_SHA256), mechanism(ck.CKM_ECDSA)

    signature = program.sign(named, private, b"hello")

    program.verify(named, public, b"hello", signature)
    for function, key in ((42, private), (48, public)):
        with refused(ck.CKR_MECHANISM_INVALID):
            program.begin(function, other, key)


def test_the_keys_of_a_pair_are_for_the_same_mechanisms(program: Program) -> None:
    """The private key is not for what only the template of the public one names."""
    one, other = (
        (ck.CKA_ALLOWED_MECHANISMS, struct.pack(">IIQ", 8, 1, kind))
        for kind in (ck.CKM_ECDSA, ck.CKM_ECDSA_SHA256)
    )

    with refused(ck.CKR_TEMPLATE_INCONSISTENT):
        program.pair(
            ck.CKM_EC_KEY_PAIR_GEN, [(ck.CKA_EC_PARAMS, data(P256)), one], [other]
        )


def test_a_generic_secret_with_all_usages(program: Program) -> None:
    """A program that asks for every usage gets a key of the purpose of its type."""
    everything: Attributes = [
        (kind, flag(True))
        for kind in (ck.CKA_ENCRYPT, ck.CKA_DECRYPT, ck.CKA_SIGN, ck.CKA_VERIFY)
    ]
    plain: Attributes = [(ck.CKA_SENSITIVE, flag(False)), *everything]
    size: Attributes = [(ck.CKA_VALUE_LEN, number(32))]

    key = program.secret(ck.CKM_GENERIC_SECRET_KEY_GEN, size + plain)

    assert 32 == len(program.sign(mechanism(ck.CKM_SHA256_HMAC), key, b"hello"))


def test_an_hkdf_key(program: Program) -> None:
    """CKM_HKDF_KEY_GEN generates a key that derives others."""
    key = program.secret(ck.CKM_HKDF_KEY_GEN, [(ck.CKA_VALUE_LEN, number(32))])

    kinds = (ck.CKA_KEY_TYPE, ck.CKA_DERIVE)
    query = b"".join(struct.pack(">II", kind, 8) for kind in kinds)
    answer = program.call(24, "uufA", ulong(key), struct.pack(">I", 2), query)

    assert {ck.CKA_KEY_TYPE: ck.CKK_HKDF, ck.CKA_DERIVE: 1} == attributes_of(answer)[0]


def test_a_mac_key_of_one_direction(program: Program) -> None:
    """A key of which the template denies CKA_SIGN verifies MACs and computes none."""
    value: Attributes = [
        (ck.CKA_CLASS, number(ck.CKO_SECRET_KEY)),
        (ck.CKA_KEY_TYPE, number(ck.CKK_GENERIC_SECRET)),
        (ck.CKA_VALUE, data(bytes(range(32)))),
    ]
    one_way: Attributes = [(ck.CKA_SIGN, flag(False)), (ck.CKA_VERIFY, flag(True))]
    how = mechanism(ck.CKM_SHA256_HMAC)
    expected = hmac.digest(bytes(range(32)), b"hello", "sha256")

    signer = program.created(value)
    verifier = program.created(value + one_way)

    assert expected == program.sign(how, signer, b"hello")
    program.verify(how, verifier, b"hello", expected)
    with refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED):
        program.sign(how, verifier, b"hello")


@pytest.mark.parametrize("algorithm", ["RSA", "EC"])
def test_private_keys_are_imported(
    token: Token, tmp_path: Path, algorithm: str
) -> None:
    """pkcs11-tool writes a private key of a file, and what it signs verifies."""
    key = (
        rsa.generate_private_key(65537, 2048)
        if algorithm == "RSA"
        else ec.generate_private_key(ec.SECP256R1())
    )
    file, signed = tmp_path / "key.der", tmp_path / "signed"
    file.write_bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NO_PASSWORD))
    (tmp_path / "data").write_bytes(b"hello")
    token.tool(
        *("--write-object", file, "--type", "privkey", "--usage-sign"),
        *("--label", f"own {algorithm}", "--id", "77"),
    )

    token.tool(
        *(
            "--sign",
            "--mechanism",
            "SHA256-RSA-PKCS" if algorithm == "RSA" else "ECDSA-SHA256",
        ),
        *("--label", f"own {algorithm}", "--input-file", tmp_path / "data"),
        *("--output-file", signed, "--signature-format", "openssl"),
    )

    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signed.read_bytes(), b"hello", padding.PKCS1v15(), HASHES[256])
    else:
        public.verify(signed.read_bytes(), b"hello", ec.ECDSA(HASHES[256]))


def test_bad_values_of_keys(program: Program) -> None:
    """A key that is no key of its type is refused, and nothing of it is told."""
    secret: Attributes = [
        (ck.CKA_CLASS, number(ck.CKO_SECRET_KEY)),
        (ck.CKA_KEY_TYPE, number(ck.CKK_AES)),
    ]
    for attributes, rv in (
        (secret, ck.CKR_TEMPLATE_INCOMPLETE),
        ([*secret, (ck.CKA_VALUE, data(bytes(32)))], ck.CKR_ATTRIBUTE_VALUE_INVALID),
        ([*secret, (ck.CKA_VALUE, data(b"short"))], ck.CKR_KEY_SIZE_RANGE),
        (
            [
                (ck.CKA_CLASS, number(ck.CKO_PRIVATE_KEY)),
                (ck.CKA_KEY_TYPE, number(ck.CKK_EC)),
                (ck.CKA_EC_PARAMS, data(P256)),
                (ck.CKA_VALUE, data(b"\xff" * 32)),
            ],
            ck.CKR_ATTRIBUTE_VALUE_INVALID,
        ),
    ):
        with refused(rv):
            program.created(attributes)


def _rsa_parts(**changed: bytes) -> Attributes:
    """Return an RSA key by its parts; an empty one is left out."""
    key = rsa.generate_private_key(65537, 2048).private_numbers()
    parts = {
        "MODULUS": key.public_numbers.n.to_bytes(256),
        "PRIVATE_EXPONENT": key.d.to_bytes(256),
        "PRIME_1": key.p.to_bytes(128),
        "PRIME_2": key.q.to_bytes(128),
        **changed,
    }
    return [
        (ck.CKA_CLASS, number(ck.CKO_PRIVATE_KEY)),
        (ck.CKA_KEY_TYPE, number(ck.CKK_RSA)),
        (ck.CKA_SIGN, flag(True)),
        *((getattr(ck, f"CKA_{k}"), data(v)) for k, v in parts.items() if v),
    ]


def test_an_rsa_key_without_primes(program: Program) -> None:
    """Programs may leave the primes out: they follow from the exponents."""
    key = program.created(_rsa_parts(PRIME_1=b"", PRIME_2=b""))

    assert 256 == len(program.sign(mechanism(ck.CKM_SHA256_RSA_PKCS), key, b"hello"))


@pytest.mark.parametrize(
    "changed",
    [
        {"PRIME_1": b"\xff" * 1_000_000, "PRIME_2": b"\xff" * 999_999},
        {"PRIVATE_EXPONENT": b"\xff" * 1_000_000, "PRIME_1": b""},
        {"PRIVATE_EXPONENT": b"\x7f" * 256, "PRIME_1": b""},
        {"MODULUS": b"\xff" * 256, "PRIME_1": b""},
        {"PRIME_1": b"\1"},
    ],
)
def test_bad_parts_of_rsa_keys(program: Program, changed: dict[str, bytes]) -> None:
    """Parts of any length are refused before anything is computed with them."""
    with refused(ck.CKR_ATTRIBUTE_VALUE_INVALID):
        program.created(_rsa_parts(**changed))


def _public(key: object, **changed: bytes) -> Attributes:
    """Return a public key by its parts."""
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    if isinstance(key, rsa.RSAPublicKey):
        numbers, kind = key.public_numbers(), ck.CKK_RSA
        parts = {
            "MODULUS": numbers.n.to_bytes(key.key_size // 8),
            "PUBLIC_EXPONENT": numbers.e.to_bytes(3),
        }
    else:
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        kind = ck.CKK_EC
        parts = {"EC_PARAMS": P256, "EC_POINT": bytes((4, len(point))) + point}
    return [
        (ck.CKA_CLASS, number(ck.CKO_PUBLIC_KEY)),
        (ck.CKA_KEY_TYPE, number(kind)),
        *((getattr(ck, f"CKA_{k}"), data(v)) for k, v in (parts | changed).items()),
    ]


def test_an_rsa_public_key_by_its_value(token: Token, program: Program) -> None:
    """A program verifies and encrypts with the public key of somebody else."""
    key = rsa.generate_private_key(65537, 2048)
    public = program.created(_public(key.public_key()))
    before = uses(token)
    pkcs1, pss256 = mechanism(ck.CKM_SHA256_RSA_PKCS), pss(256)
    good = key.sign(b"hello", padding.PKCS1v15(), HASHES[256])
    salted = key.sign(b"hello", padding.PSS(padding.MGF1(HASHES[256]), 32), HASHES[256])
    oaep = b"\1" + ulong(ck.CKM_SHA256) + ulong(2) + ulong(1) + struct.pack(">I", 0)

    sealed = program.encrypt(mechanism(ck.CKM_RSA_PKCS_OAEP, oaep), public, b"secret")
    program.verify(pkcs1, public, b"hello", good)
    program.verify(
        mechanism(ck.CKM_SHA256_RSA_PKCS_PSS, pss256), public, b"hello", salted
    )
    program.verify(mechanism(ck.CKM_RSA_PKCS), public, b"bare", _bare(key, b"bare"))
    with pytest.raises(CallError) as caught:
        program.verify(pkcs1, public, b"other", good)

    mask = padding.OAEP(padding.MGF1(HASHES[256]), HASHES[256], None)
    assert b"secret" == key.decrypt(sealed, mask)
    assert ck.CKR_SIGNATURE_INVALID == caught.value.rv
    assert key.public_key() == program.public_key(public)
    assert before == uses(token)


def uses(token: Token) -> int:
    """Return how many verifications and encryptions the audit log holds."""
    hsm, kinds = token.access.hsm(Caller()), ("Verify", "RawVerify", "Encrypt")
    return len(hsm.execute(ListAuditEvents(kind=kinds, limit=1000)).items)


def _bare(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    return key.sign(data, padding.PKCS1v15(), NoDigestInfo())


def test_a_public_key_on_a_curve_by_its_value(program: Program) -> None:
    """It verifies a message and a digest, and ends with its session."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = program.created([*_public(key.public_key()), (ck.CKA_LABEL, data(b"p"))])
    half = decode_dss_signature(key.sign(b"hello", ec.ECDSA(HASHES[256])))
    signature = b"".join(part.to_bytes(32) for part in half)

    program.verify(mechanism(ck.CKM_ECDSA_SHA256), public, b"hello", signature)
    short = decode_dss_signature(
        key.sign(b"x".rjust(32, b"\0"), ec.ECDSA(Prehashed(HASHES[256])))
    )
    raw = b"".join(part.to_bytes(32) for part in short)
    program.verify(mechanism(ck.CKM_ECDSA), public, b"x", raw)
    named: Attributes = [(ck.CKA_LABEL, data(b"p"))]
    found = program.client.find(program.session, named)

    assert [public] == found
    assert key.public_key() == program.public_key(public)
    program.call(22, "uu", ulong(public))
    assert not program.client.find(program.session, named)


def test_a_copy_of_a_public_key(program: Program) -> None:
    """A copy has the parts, mechanisms and usages of its original."""
    key = rsa.generate_private_key(65537, 2048)
    allowed = struct.pack(">IIQ", 8, 1, ck.CKM_SHA256_RSA_PKCS)
    public = program.created(
        [
            *_public(key.public_key()),
            (ck.CKA_ALLOWED_MECHANISMS, allowed),
            (ck.CKA_ENCRYPT, flag(False)),
        ]
    )
    good = key.sign(b"hello", padding.PKCS1v15(), HASHES[256])
    copy = first(program.call(21, "uuaA", ulong(public), template([])))
    program.call(22, "uu", ulong(public))

    program.verify(mechanism(ck.CKM_SHA256_RSA_PKCS), copy, b"hello", good)
    wanted = struct.pack(">III", 1, ck.CKA_MODULUS, 1 << 16)
    answer = program.call(24, "uufA", ulong(copy), wanted)
    modulus = key.public_key().public_numbers().n.to_bytes(256)
    assert ({ck.CKA_MODULUS: modulus}, 0) == attributes_of(answer)
    oaep = b"\1" + ulong(ck.CKM_SHA256) + ulong(2) + ulong(1) + struct.pack(">I", 0)
    for begin, how, rv in (
        (48, mechanism(ck.CKM_SHA512_RSA_PKCS), ck.CKR_MECHANISM_INVALID),
        (
            29,
            mechanism(ck.CKM_RSA_PKCS_OAEP, oaep),
            ck.CKR_KEY_FUNCTION_NOT_PERMITTED,
        ),
        (42, mechanism(ck.CKM_SHA256_RSA_PKCS), ck.CKR_KEY_TYPE_INCONSISTENT),
    ):
        with refused(rv):
            program.begin(begin, how, copy)


def test_public_keys_that_are_none(program: Program) -> None:
    """Keys of the token, short ones, points off the curve and other types fail."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    small = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505
    numbers = rsa.generate_private_key(65537, 2048).public_key()
    point = b"\4\x41\4" + bytes(63) + b"\1"
    for attributes, rv in (
        ([*_public(key), (ck.CKA_TOKEN, flag(True))], ck.CKR_TEMPLATE_INCONSISTENT),
        ([*_public(key), (ck.CKA_PRIVATE, flag(True))], ck.CKR_TEMPLATE_INCONSISTENT),
        ([*_public(key), (ck.CKA_VALUE, data(b"x"))], ck.CKR_ATTRIBUTE_TYPE_INVALID),
        (_public(key)[:-1], ck.CKR_TEMPLATE_INCOMPLETE),
        (_public(key, EC_POINT=point), ck.CKR_ATTRIBUTE_VALUE_INVALID),
        (_public(key, EC_POINT=b""), ck.CKR_ATTRIBUTE_VALUE_INVALID),
        (_public(small), ck.CKR_KEY_SIZE_RANGE),
        (_public(numbers, PUBLIC_EXPONENT=b"\3"), ck.CKR_ATTRIBUTE_VALUE_INVALID),
        (_public(numbers, MODULUS=b"\xff" * 4096), ck.CKR_KEY_SIZE_RANGE),
        (
            [(ck.CKA_CLASS, number(ck.CKO_PUBLIC_KEY)), (ck.CKA_KEY_TYPE, number(1))],
            ck.CKR_TEMPLATE_INCONSISTENT,
        ),
    ):
        with refused(rv):
            program.created(attributes)


def test_keys_by_value_need_the_right_to_import(tmp_path: Path) -> None:
    """Who may not import keys can't create them from their value."""
    with running_token(tmp_path) as token, token.client() as client:
        with pytest.raises(CallError) as caught:
            Program(client).created(
                [
                    (ck.CKA_CLASS, number(ck.CKO_SECRET_KEY)),
                    (ck.CKA_KEY_TYPE, number(ck.CKK_AES)),
                    (ck.CKA_VALUE, data(bytes(range(32)))),
                ]
            )

    assert ck.CKR_FUNCTION_REJECTED == caught.value.rv


@pytest.mark.parametrize("change", [RotateKey, SuspendKey, RevokeKey, DestroyKey])
def test_a_changed_transport_key_still_imports(
    tmp_path: Path, change: type[RotateKey | SuspendKey | RevokeKey | DestroyKey]
) -> None:
    """A program goes on importing keys when somebody changes its transport key."""
    value = [
        (ck.CKA_CLASS, number(ck.CKO_SECRET_KEY)),
        (ck.CKA_KEY_TYPE, number(ck.CKK_AES)),
        (ck.CKA_VALUE, data(bytes(range(32)))),
    ]
    roles = ("operator", "administrator")
    with running_token(tmp_path, roles=roles) as token, token.client() as client:
        program = Program(client)
        program.created(value)
        hsm = token.access.hsm(Caller())
        (transport,) = (
            key
            for key in hsm.execute(ListKeys()).items
            if key.algorithm is Algorithm.ML_KEM_768
        )
        hsm.execute(change(key_id=transport.key_id))
        assert program.created(value)
        client.call(2, "")

        left = hsm.execute(ListKeys()).items
        assert not left
        assert not any("could not be destroyed" in note for note in token.notes)


def test_attempts_to_import_leave_no_key(tmp_path: Path) -> None:
    """The key that they are wrapped for is made once, and ends with the program."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\nextends: default\nrules:\n  - {name: no, effect: deny, "
        "match: {operations: [GetPublicKey]}}\n"
    )
    wanted: Attributes = [
        (ck.CKA_CLASS, number(ck.CKO_SECRET_KEY)),
        (ck.CKA_KEY_TYPE, number(ck.CKK_AES)),
        (ck.CKA_VALUE, data(bytes(range(32)))),
    ]
    roles = ("operator", "administrator")
    with running_token(tmp_path, roles=roles, policy=policy) as token:
        hsm = token.access.hsm(Caller())
        with token.client() as client:
            program = Program(client)
            for _ in range(3):
                with refused(ck.CKR_FUNCTION_REJECTED):
                    program.created(wanted)
            made = hsm.execute(ListKeys()).items
            client.call(2, "")

        assert [1, 0] == [len(made), len(hsm.execute(ListKeys()).items)]


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521", "X25519"])
@pytest.mark.parametrize("kdf", [ck.CKD_NULL, ck.CKD_SHA256_KDF])
def test_ecdh(program: Program, curve: str, kdf: int) -> None:
    """Both sides derive the same key, whose bytes only the other side knows."""
    oids = {"P-256": P256, "P-384": P384, "P-521": P521, "X25519": X25519}
    kind = (
        ck.CKM_EC_MONTGOMERY_KEY_PAIR_GEN
        if curve == "X25519"
        else ck.CKM_EC_KEY_PAIR_GEN
    )
    public, private = program.pair(
        kind,
        [(ck.CKA_EC_PARAMS, data(oids[curve]))],
        [(ck.CKA_DERIVE, flag(True))],
    )
    secret, point = agreed(program.public_key(public))
    shared = b"" if kdf == ck.CKD_NULL else b"both sides"
    parameter = b"\1" + ulong(kdf) + block(shared) + block(point)
    expected = (
        secret[-32:]
        if kdf == ck.CKD_NULL
        else X963KDF(hashes.SHA256(), 32, shared).derive(secret)
    )

    key = first(
        program.call(
            *(62, "uMuaA", mechanism(ck.CKM_ECDH1_DERIVE, parameter), ulong(private)),
            template(
                [
                    (ck.CKA_CLASS, number(ck.CKO_SECRET_KEY)),
                    (ck.CKA_KEY_TYPE, number(ck.CKK_GENERIC_SECRET)),
                    (ck.CKA_VALUE_LEN, number(32)),
                    (ck.CKA_SIGN, flag(True)),
                ]
            ),
        )
    )

    mac = program.sign(mechanism(ck.CKM_SHA256_HMAC), key, b"hello")
    assert hmac.digest(expected, b"hello", "sha256") == mac


@pytest.mark.parametrize("is_race", [False, True])
def test_ecdh_takes_the_version_of_its_handle(
    token: Token, program: Program, is_race: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a rotation, even in between, a program with the old handle has no key."""
    hsm = token.access.hsm(Caller())
    name = "raced" if is_race else "rotated"
    public, private = program.pair(
        ck.CKM_EC_KEY_PAIR_GEN,
        [(ck.CKA_EC_PARAMS, data(P256)), (ck.CKA_LABEL, data(name.encode()))],
        [(ck.CKA_DERIVE, flag(True)), (ck.CKA_TOKEN, flag(True))],
    )
    _, point = agreed(program.public_key(public))
    before = hsm.execute(ListKeys(per_page=100)).items
    rotate = RotateKey(key_id=name)
    if is_race:

        def added(*given: Any) -> tuple[KeyObject, ...]:
            hsm.execute(rotate)
            return generation.added(*given)

        monkeypatch.setattr(derivation, "added", added)
    else:
        hsm.execute(rotate)
    parameter = b"\1" + ulong(ck.CKD_NULL) + block(b"") + block(point)

    with refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED):
        program.call(
            *(62, "uMuaA", mechanism(ck.CKM_ECDH1_DERIVE, parameter), ulong(private)),
            template([(ck.CKA_KEY_TYPE, number(ck.CKK_AES))]),
        )
    after = hsm.execute(ListKeys(per_page=100)).items
    assert {key.key_id for key in before} == {key.key_id for key in after}


def agreed(public: object) -> tuple[bytes, bytes]:
    """Return the secret that a new key agrees on with another, and its public key."""
    if isinstance(public, x25519.X25519PublicKey):
        ours = x25519.X25519PrivateKey.generate()
        return ours.exchange(public), ours.public_key().public_bytes_raw()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    own = ec.generate_private_key(public.curve)
    point = own.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return own.exchange(ec.ECDH(), public), der(OCTET_STRING, point)


def test_ecdh_refuses_other_keys(program: Program, curve: list[int]) -> None:
    """A point on no curve is refused, and so is a key that may only sign."""
    public, private = program.pair(
        ck.CKM_EC_KEY_PAIR_GEN,
        [(ck.CKA_EC_PARAMS, data(P256))],
        [(ck.CKA_DERIVE, flag(True))],
    )
    _, point = agreed(program.public_key(public))
    wanted = template([(ck.CKA_KEY_TYPE, number(ck.CKK_AES))])

    for base, given, rv in (
        (private, point[:-1] + bytes((point[-1] ^ 1,)), ck.CKR_MECHANISM_PARAM_INVALID),
        (curve[1], point, ck.CKR_KEY_FUNCTION_NOT_PERMITTED),
        (public, point, ck.CKR_KEY_TYPE_INCONSISTENT),
    ):
        parameter = b"\1" + ulong(ck.CKD_NULL) + block(b"") + block(given)
        how = mechanism(ck.CKM_ECDH1_DERIVE, parameter)
        with refused(rv):
            program.call(62, "uMuaA", how, ulong(base), wanted)


def test_handles_that_name_no_key(program: Program) -> None:
    """A call says which of its handles names no key."""
    usages: Attributes = [(ck.CKA_VALUE_LEN, number(32)), (ck.CKA_WRAP, flag(True))]
    key = ulong(program.secret(ck.CKM_AES_KEY_GEN, usages))
    note = program.created([(ck.CKA_CLASS, number(ck.CKO_DATA))])
    signing, wrapping = mechanism(ck.CKM_ECDSA), mechanism(ck.CKM_AES_KEY_WRAP)
    point = block(b"") + block(bytes(32))
    deriving = mechanism(ck.CKM_ECDH1_DERIVE, b"\1" + ulong(ck.CKD_NULL) + point)
    oaep = ulong(ck.CKM_SHA256) + ulong(2) + ulong(1) + block(b"")
    encrypting = mechanism(ck.CKM_RSA_PKCS_OAEP, b"\1" + oaep)

    for bad in (ulong(99_999), ulong(note)):
        for function, signature, how, rest, rv in (
            (42, "uMu", signing, bad, ck.CKR_KEY_HANDLE_INVALID),
            (48, "uMu", signing, bad, ck.CKR_KEY_HANDLE_INVALID),
            (29, "uMu", encrypting, bad, ck.CKR_KEY_HANDLE_INVALID),
            (33, "uMu", encrypting, bad, ck.CKR_KEY_HANDLE_INVALID),
            (62, "uMuaA", deriving, bad + template([]), ck.CKR_KEY_HANDLE_INVALID),
            (60, "uMuufy", wrapping, key + bad + ROOM, ck.CKR_KEY_HANDLE_INVALID),
            (
                *(60, "uMuufy", wrapping, bad + key + ROOM),
                ck.CKR_WRAPPING_KEY_HANDLE_INVALID,
            ),
        ):
            with refused(rv):
                program.call(function, signature, how, rest)


def test_every_mechanism_has_information(program: Program) -> None:
    """The list and the information about each mechanism agree."""
    for kind in mechanism_types(is_embedded=True):
        least, most, flags = struct.unpack(
            ">QQQ", program.client.call(8, "uu", ulong(0) + ulong(kind))
        )
        assert least <= most
        assert flags


def test_the_sizes_of_ecdh(program: Program) -> None:
    """ECDH reports X25519 as the smallest key, and P-521 as the largest."""
    answer = program.client.call(8, "uu", ulong(0) + ulong(ck.CKM_ECDH1_DERIVE))

    assert (255, 521) == struct.unpack(">QQQ", answer)[:2]


def test_a_token_of_a_server_lists_what_it_has() -> None:
    """AES with a given IV has no route, and so no mechanism."""
    server = Server(ClientSettings(endpoint="https://localhost:1"))
    access = Access("pkcs11", server, notify=lambda note: None)
    library = Library([access], Caller())
    library.is_initialized = True

    listed = get_mechanism_list(library, 0, 1000)

    assert not {ck.CKM_AES_CBC, ck.CKM_AES_CTR, ck.CKM_AES_GCM} & set(listed)
    assert ck.CKM_AES_KEY_WRAP in listed
    with pytest.raises(CryptokiError) as refused:
        get_mechanism_info(library, 0, ck.CKM_AES_GCM)
    assert ck.CKR_MECHANISM_INVALID == refused.value.rv


def test_page_lists_every_mechanism() -> None:
    """The reference page names the mechanisms that there are, and no others."""
    page = (REPOSITORY / "docs/reference/pkcs11.md").read_text("utf-8")
    table = page.partition("| Mechanism |")[2].partition("\n\n")[0]
    named = {getattr(ck, name) for name in re.findall(r"CKM_\w+", table)}
    general = {ck.CKM_SHA256_HMAC_GENERAL, ck.CKM_SHA384_HMAC_GENERAL}

    assert {*named, *general, ck.CKM_SHA512_HMAC_GENERAL} == set(
        mechanism_types(is_embedded=True)
    )


def test_pkcs11_tool(token: Token, tmp_path: Path) -> None:
    """pkcs11-tool generates a key, signs with it, and tests what it knows."""
    words = ("--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign")
    made = token.tool(*words, "--label", "tool", "--id", "0a0b")

    assert "Key pair generated" in made
    assert "No errors" in token.tool("-t")
