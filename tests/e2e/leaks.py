# SPDX-License-Identifier: MIT
"""Finds secrets where they should not be, whatever they are dressed as."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import load_der_private_key

from hsm_core._internal.crypto.der import read_private_form, read_private_key_info
from hsm_core._internal.crypto.registry import default_registry
from hsm_core._internal.keyring.key_ring import KeyRing, RootKey
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.algorithms import Algorithm, Family, spec
from hsm_core.model import KeyState


def appearances(secret: bytes) -> frozenset[bytes]:
    """
    Return how a secret may look: raw, hex, decimal, or base64 at any offset.

    Args:
        secret: At least 16 bytes, so that none of these is found by chance.
    """
    assert len(secret) >= 16
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    found.add(str(int.from_bytes(secret)).encode())
    for offset in range(3):
        # The first and last characters depend on what stands beside the secret.
        data = bytes(offset) + secret
        whole = len(data) // 3 * 3
        text = base64.b64encode(data[:whole])[4 if offset else 0 :]
        found |= {text, text.replace(b"+", b"-").replace(b"/", b"_")}
    return frozenset(found)


def find(secrets: Mapping[str, bytes], places: Mapping[str, bytes]) -> list[str]:
    """Return every secret that appears in a place, as ``secret in place``."""
    return [
        f"{name} in {place}"
        for name, secret in secrets.items()
        for shape in appearances(secret)
        for place, data in places.items()
        if shape in data
    ]


def sealed_secrets(key_dir: Path, master_key: bytes) -> dict[str, bytes]:
    """Open all that a store has sealed: the private part of every version."""
    entropy = SystemEntropy()
    store = FilesystemKeyStore(key_dir)
    try:
        blob = store.read_meta("ring")
        assert blob is not None
        ring = KeyRing.open(RootKey(master_key, entropy=entropy), blob)
        inventory = KeyRepository(
            store, ring, default_registry(entropy, {}), entropy, cache_entries=8
        )
        inventory.load()
        return dict(_opened(inventory))
    finally:
        store.close()


def _opened(inventory: KeyRepository) -> Iterator[tuple[str, bytes]]:
    for stored in inventory.store.scan():
        document = inventory.document(stored.key_id)
        for version in document.versions:
            if version.state is KeyState.DESTROYED:
                continue
            material = inventory.materials.open_material(document, version)
            for part, secret in _private_parts(document.algorithm, material):
                yield f"{document.name} v{version.version} {part}", secret


def _private_parts(algorithm: str, material: bytes) -> Iterator[tuple[str, bytes]]:
    row = spec(Algorithm(algorithm))
    if not row.is_asymmetric:
        yield "key", material
        return
    if row.family in {Family.ML_KEM, Family.ML_DSA}:
        yield "seed", read_private_form(row.algorithm, material).seed
        return
    if row.is_hybrid:
        octets = read_private_key_info(row.algorithm, material)
        size = spec(row.components[0]).private_bytes
        yield "seed", octets[:size]
        yield "other half", octets[size:]
        return
    if row.family is Family.SLH_DSA:
        # SK.seed and SK.prf; what follows them is public.
        octets = read_private_key_info(row.algorithm, material)
        yield "seed", octets[: row.private_bytes // 2]
        return
    key = load_der_private_key(material, None)
    match key:
        case (
            ed25519.Ed25519PrivateKey()
            | ed448.Ed448PrivateKey()
            | x25519.X25519PrivateKey()
        ):
            yield "seed", key.private_bytes_raw()
        case ec.EllipticCurvePrivateKey():
            yield "scalar", _octets(key.private_numbers().private_value)
        case rsa.RSAPrivateKey():
            numbers = key.private_numbers()
            for part in ("d", "p", "q", "dmp1", "dmq1", "iqmp"):
                yield part, _octets(getattr(numbers, part))
        case _:
            raise AssertionError(f"no rule for {algorithm}")


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)
