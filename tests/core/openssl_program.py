# SPDX-License-Identifier: MIT
"""OpenSSL's command line, 3.5 or newer, as somebody to exchange keys and data with."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from hsm_core.algorithms import Algorithm, Family, spec
from tests.support import require_program, require_service


class OpenSSL:
    """
    The program, run in a folder of its own.

    Args:
        folder: Where its files lie.
    """

    def __init__(self, folder: Path) -> None:
        self._program = require_program("openssl")
        self._folder = folder
        said = re.match(r"OpenSSL (\d+)\.(\d+)", self.run("version").decode())
        is_new = said and (int(said[1]), int(said[2])) >= (3, 5)
        require_service("OpenSSL 3.5's command line", is_new)

    def run(self, *arguments: str) -> bytes:
        """Return what it writes; it must succeed."""
        done = self._start(*arguments)
        assert 0 == done.returncode, done.stderr.decode()
        return done.stdout

    def refuses(self, *arguments: str) -> bool:
        """Return whether it ends with the status of a refusal."""
        return self._start(*arguments).returncode == 1

    def file(self, name: str, data: bytes) -> str:
        """Write a file; return its name."""
        (self._folder / name).write_bytes(data)
        return name

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return (self._folder / name).read_bytes()

    def private_key(self, algorithm: Algorithm) -> bytes:
        """Make a key; return PKCS#8, DER; of ML-KEM and ML-DSA, the seed alone."""
        row = spec(algorithm)
        if row.modulus_bits:
            option = f"rsa_keygen_bits:{row.modulus_bits}"
            words = ["-algorithm", "RSA", "-pkeyopt", option]
        elif spec(algorithm).curve_oid:
            option = f"ec_paramgen_curve:{spec(algorithm).jwk_curve}"
            words = ["-algorithm", "EC", "-pkeyopt", option]
        else:
            words = ["-algorithm", algorithm.value.upper()]
            words[1] = algorithm.value if row.family is Family.SLH_DSA else words[1]
        if row.family in {Family.ML_KEM, Family.ML_DSA}:
            family = row.family.value.lower()
            words += ["-provparam", f"{family}.output_formats=seed-only"]
        self.run("genpkey", *words, "-outform", "DER", "-out", "made.der")
        if spec(algorithm).curve_oid:
            return self.run(
                *("pkcs8", "-topk8", "-nocrypt", "-in", "made.der"),
                *("-inform", "DER", "-outform", "DER"),
            )
        return self.read("made.der")

    def public_key(self, material: bytes) -> bytes:
        """Return SubjectPublicKeyInfo of PKCS#8."""
        return self.run(
            *("pkey", "-in", self.file("private.der", material), "-inform", "DER"),
            *("-pubout", "-outform", "DER"),
        )

    def sign(self, material: bytes, data: bytes, *options: str) -> bytes:
        """Return a signature."""
        return self.run(
            *("pkeyutl", "-sign", *self._private(material)),
            *("-in", self.file("data", data), *options),
        )

    def verifies(
        self, public: bytes, data: bytes, signature: bytes, *options: str
    ) -> bool:
        """Return whether it finds a signature good."""
        words = (
            *("pkeyutl", "-verify", *self._public(public)),
            *("-in", self.file("data", data)),
            *("-sigfile", self.file("signature", signature), *options),
        )
        done = self._start(*words)
        said = (done.returncode, done.stdout)
        assert said in {
            (0, b"Signature Verified Successfully\n"),
            (1, b"Signature Verification Failure\n"),
        }, done.stderr.decode()
        return done.returncode == 0

    def encrypt(self, public: bytes, data: bytes, *options: str) -> bytes:
        """Return an RSA ciphertext."""
        return self.run(
            *("pkeyutl", "-encrypt", *self._public(public)),
            *("-in", self.file("data", data), *options),
        )

    def decrypt(self, material: bytes, data: bytes, *options: str) -> bytes:
        """Return the plaintext of an RSA ciphertext."""
        return self.run(
            *("pkeyutl", "-decrypt", *self._private(material)),
            *("-in", self.file("data", data), *options),
        )

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """Return a shared secret and its encapsulation."""
        ciphertext = self.run(
            *("pkeyutl", "-encap", *self._public(public), "-secret", "secret")
        )
        return self.read("secret"), ciphertext

    def decapsulate(self, material: bytes, ciphertext: bytes) -> bytes:
        """Return the shared secret of an encapsulation."""
        self.run(
            *("pkeyutl", "-decap", *self._private(material)),
            *("-in", self.file("data", ciphertext), "-secret", "secret"),
        )
        return self.read("secret")

    def agree(self, material: bytes, peer: bytes) -> bytes:
        """Return the shared secret with a peer."""
        return self.run(
            *("pkeyutl", "-derive", *self._private(material)),
            *("-peerform", "DER", "-peerkey", self.file("peer.der", peer)),
        )

    def _private(self, material: bytes) -> tuple[str, ...]:
        name = self.file("private.der", material)
        return ("-keyform", "DER", "-inkey", name)

    def _public(self, public: bytes) -> tuple[str, ...]:
        name = self.file("public.der", public)
        return ("-pubin", "-keyform", "DER", "-inkey", name)

    def _start(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            (self._program, *arguments),
            capture_output=True,
            cwd=self._folder,
            timeout=60,
            check=False,
        )
