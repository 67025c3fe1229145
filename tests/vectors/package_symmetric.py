# SPDX-License-Identifier: MIT
"""How the symmetric tests of cryptography-vectors are asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from hsm_core import primitives
from hsm_core._internal.crypto.pyca.provider import PycaCryptoProvider
from hsm_core.algorithms import AESMode, Algorithm, HashAlgorithm, spec
from hsm_core.errors import DecryptionError, InputSizeError, MacMismatchError
from tests.vectors.package import Block, field_bytes, read_blocks
from tests.vectors.tally import Tally, expect_refusal

_GCM: Final = {16: Algorithm.AES_128_GCM, 32: Algorithm.AES_256_GCM}
_AES: Final = {16: Algorithm.AES_128, 32: Algorithm.AES_256}
_KEY_WRAP: Final = {16: Algorithm.AES_128_KW, 32: Algorithm.AES_256_KW}
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


def _run_gcm(path: str, tally: Tally) -> int:
    count = 0
    for count, block in enumerate(read_blocks(path, "Key"), 1):
        names = ("Key", "IV", "PT", "AAD", "CT", "Tag")
        key, iv, plaintext, aad, ciphertext, tag = (
            field_bytes(block, name) for name in names
        )
        algorithm = _GCM.get(len(key), Algorithm.AES_256_GCM)
        decrypt = partial(
            primitives.aead_decrypt, algorithm, key, iv, ciphertext + tag, aad
        )
        test = {"tcId": count, "result": "invalid" if "FAIL" in block else "valid"}
        if len(key) not in _GCM:
            tally.refuse(test, "key length", InputSizeError, decrypt)
        elif len(iv) != _NONCE_BYTES:
            tally.refuse(test, "IV length", InputSizeError, decrypt)
        elif len(tag) != _TAG_BYTES:
            tally.refuse(test, "tag length", DecryptionError, decrypt)
        else:
            if test["result"] == "valid":
                assert plaintext == decrypt()
                made = primitives.aead_encrypt(algorithm, key, iv, plaintext, aad)
                assert ciphertext + tag == made
            tally.judge(algorithm, test, decrypt)
    return count


def _run_aes(path: str, tally: Tally, *, mode: AESMode) -> int:
    count = 0
    for count, block in enumerate(read_blocks(path, "KEY"), 1):
        names = ("KEY", "IV", "PLAINTEXT", "CIPHERTEXT")
        key, iv, plaintext, ciphertext = (field_bytes(block, name) for name in names)
        algorithm = _AES.get(len(key), Algorithm.AES_256)
        load = partial(PycaCryptoProvider().load, algorithm, key)
        test = {"tcId": count, "result": "valid"}
        if len(key) not in _AES:
            tally.refuse(test, "key length", InputSizeError, load)
            continue
        handle = load()
        assert ciphertext == handle.encrypt_raw(mode, iv, plaintext)
        assert plaintext == handle.decrypt_raw(mode, iv, ciphertext)
        tally.judge(algorithm, test, load)
    return count


def _run_chacha20(path: str, tally: Tally, names: tuple[str, ...], last: str) -> int:
    algorithm, count = Algorithm.CHACHA20_POLY1305, 0
    for count, block in enumerate(read_blocks(path, last), 1):
        key, nonce, aad, plaintext, ciphertext, tag = (
            field_bytes(block, name) for name in names
        )
        decrypt = partial(
            primitives.aead_decrypt, algorithm, key, nonce, ciphertext + tag, aad
        )
        test = {"tcId": count, "result": "invalid" if "Result" in block else "valid"}
        if len(nonce) != _NONCE_BYTES:
            tally.refuse(test, "IV length", InputSizeError, decrypt)
        elif len(tag) != _TAG_BYTES:
            tally.refuse(test, "tag length", DecryptionError, decrypt)
        else:
            if test["result"] == "valid":
                assert plaintext == decrypt()
                made = primitives.aead_encrypt(algorithm, key, nonce, plaintext, aad)
                assert ciphertext + tag == made
            tally.judge(algorithm, test, decrypt)
    return count


def _run_hmac(path: str, tally: Tally, algorithm: Algorithm) -> int:
    count = 0
    for count, block in enumerate(read_blocks(path, "MD"), 1):
        key, message, tag = (field_bytes(block, n) for n in ("Key", "Msg", "MD"))
        check = partial(primitives.verify_mac, algorithm, key, message, tag)
        test = {"tcId": count, "result": "valid"}
        if len(key) != spec(algorithm).key_bytes:
            tally.refuse(test, "key length", InputSizeError, check)
        elif len(tag) != spec(algorithm).mac_bytes:
            tally.refuse(test, "tag length", MacMismatchError, check)
        else:
            tally.judge(algorithm, test, check)
    return count


def _run_hkdf(path: str, tally: Tally) -> int:
    def derive(block: Block) -> None:
        made = primitives.hkdf(
            HashAlgorithm(block["Hash"]),
            field_bytes(block, "IKM"),
            salt=field_bytes(block, "salt"),
            info=field_bytes(block, "info"),
            length=int(block["L"]),
        )
        assert field_bytes(block, "OKM") == made

    count = 0
    for count, block in enumerate(read_blocks(path, "OKM"), 1):
        test = {"tcId": count, "result": "valid"}
        if block["Hash"] not in set(HashAlgorithm):
            tally.refuse(test, "hash", ValueError, partial(derive, block))
            continue
        algorithm = Algorithm(f"HKDF-{block['Hash']}")
        tally.judge(algorithm, test, partial(derive, block))
    return count


def _run_key_wrap(
    path: str, tally: Tally, *, padded: bool, names: tuple[str, str, str]
) -> int:
    count, inverse = 0, path.endswith("_inv.txt")
    for count, block in enumerate(read_blocks(path, names[0]), 1):
        key, data, wrapped = (field_bytes(block, name) for name in names)
        algorithm = _KEY_WRAP.get(len(key), Algorithm.AES_256_KW)
        unwrap = partial(primitives.key_unwrap, algorithm, key, wrapped, padded=padded)
        test = {"tcId": count, "result": "invalid" if "FAIL" in block else "valid"}
        if len(key) not in _KEY_WRAP:
            tally.refuse(test, "key length", InputSizeError, unwrap)
        elif inverse:
            tally.refuse(test, "inverse cipher", DecryptionError, unwrap)
        else:
            if test["result"] == "valid":
                made = primitives.key_wrap(algorithm, key, data, padded=padded)
                assert (data, wrapped) == (unwrap(), made)
            else:
                expect_refusal(DecryptionError, unwrap)
            tally.judge(algorithm, test, unwrap)
    return count


_BORING: Final = ("KEY", "NONCE", "AD", "IN", "CT", "TAG")
_OPENSSL: Final = ("Key", "IV", "AAD", "Plaintext", "Ciphertext", "Tag")

SYMMETRIC_FILES: Final[dict[str, Callable[[str, Tally], int]]] = {
    **{
        f"ciphers/AES/GCM/gcm{direction}{bits}.rsp": _run_gcm
        for direction in ("Decrypt", "EncryptExtIV")
        for bits in (128, 192, 256)
    },
    **{
        f"ciphers/AES/CBC/CBC{name}{bits}.rsp": partial(_run_aes, mode=AESMode.CBC)
        for name in ("GFSbox", "KeySbox", "MMT", "VarKey", "VarTxt")
        for bits in (128, 192, 256)
    },
    **{
        f"ciphers/AES/CTR/aes-{bits}-ctr.txt": partial(_run_aes, mode=AESMode.CTR)
        for bits in (128, 192, 256)
    },
    "ciphers/ChaCha20Poly1305/boringssl.txt": partial(
        _run_chacha20, names=_BORING, last="KEY"
    ),
    "ciphers/ChaCha20Poly1305/openssl.txt": partial(
        _run_chacha20, names=_OPENSSL, last="Key"
    ),
    **{
        f"HMAC/rfc-4231-sha{bits}.txt": partial(
            _run_hmac, algorithm=Algorithm(f"HMAC-SHA-{bits}")
        )
        for bits in (256, 384, 512)
    },
    "KDF/hkdf-generated.txt": _run_hkdf,
    "KDF/rfc-5869-HKDF-SHA1.txt": _run_hkdf,
    "KDF/rfc-5869-HKDF-SHA256.txt": _run_hkdf,
    "keywrap/kwp_botan.txt": partial(
        _run_key_wrap, padded=True, names=("Key", "Input", "Output")
    ),
    **{
        f"keywrap/kwtestvectors/{mode}_{direction}_{bits}{inverse}.txt": partial(
            _run_key_wrap, padded=mode == "KWP", names=("K", "P", "C")
        )
        for mode in ("KW", "KWP")
        for direction in ("AD", "AE")
        for bits in (128, 192, 256)
        for inverse in ("", "_inv")
    },
}
"""How each file is run, by its path in the package."""
