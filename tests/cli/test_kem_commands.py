# SPDX-License-Identifier: MIT
"""Tests of the commands around KEM keys, data keys, rewrapping and derivation."""

import base64
import hmac
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from tests.cli.support import Shell

KEMS = ["ML-KEM-768", "P-256 + ML-KEM-768", "x25519-mlkem768"]
SIZES = {"ML-KEM-768": 1088, "P-256 + ML-KEM-768": 1153, "x25519-mlkem768": 1120}


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


class TestEncapsulate:
    @pytest.mark.parametrize("algorithm", KEMS)
    def test_round_trip(self, shell: Shell, tmp_path: Path, algorithm: str) -> None:
        """Both sides get the same secret, in files of their owner's."""
        shell.ok("create", algorithm, "--name", "k")
        ours, sent, theirs = (tmp_path / name for name in ("ours", "sent", "theirs"))
        shell.ok("encapsulate", "k", "--out", str(ours), "--ciphertext-out", str(sent))
        shell.ok("decapsulate", "k", "--in", str(sent), "--out", str(theirs))

        assert (32, SIZES[algorithm]) == (ours.stat().st_size, sent.stat().st_size)
        assert ours.read_bytes() == theirs.read_bytes()
        assert (0o600, 0o600) == (mode(ours), mode(theirs))

    def test_printed(self, shell: Shell, tmp_path: Path) -> None:
        """
        The ciphertext is printed as base64, which decapsulate takes; or all as JSON.

        Beside a file that has the secret, JSON does not hold it.
        """
        shell.ok("create", "ML-KEM-512", "--name", "k")
        path = tmp_path / "secret"
        text = shell.ok("encapsulate", "k", "--out", str(path)).text.strip()
        record = shell.ok("encapsulate", "k", "--json").json
        public = shell.ok("encapsulate", "k", "--json", "--out", str(path)).json
        opened = shell.ok("decapsulate", "k", record["ciphertext"], "--json").json

        assert 768 == len(base64.b64decode(text))
        assert record["shared_secret"] == opened["shared_secret"]
        assert {"key_id", "version", "algorithm", "ciphertext"} == public.keys()

    def test_changed(self, shell: Shell) -> None:
        """A changed encapsulation gives another secret and no error."""
        shell.ok("create", "ML-KEM-768", "--name", "k")
        record = shell.ok("encapsulate", "k", "--json").json
        changed = bytearray(base64.b64decode(record["ciphertext"]))
        changed[7] ^= 1
        text = base64.b64encode(changed).decode()
        opened = shell.ok("decapsulate", "k", text, "--version", "1").out

        assert 32 == len(opened)
        assert base64.b64decode(record["shared_secret"]) != opened

    @pytest.mark.parametrize(
        "words",
        [
            ("encapsulate", "k"),
            ("encapsulate", "k", "--out", "-"),
            ("encapsulate", "k", "--out", "-", "--ciphertext-out", "-"),
            ("encapsulate", "k", "--out", "f", "--ciphertext-out", "./f"),
            ("data-key", "k", "--out", "f", "--ciphertext-out", "f"),
            ("encapsulate", "k", "--json", "--ciphertext-out", "-"),
            ("data-key", "k"),
            ("data-key", "k", "--wrapped-only", "--out", "f"),
        ],
        ids=" ".join,
    )
    def test_nowhere_to_go(self, shell: Shell, words: tuple[str, ...]) -> None:
        """Where the secret should go must be said, before anything is executed."""
        outcome = shell(*words)

        assert (2, b"") == (outcome.code, outcome.out)
        assert "--out" in outcome.err

    def test_terminal(self, shell: Shell) -> None:
        """A terminal is shown a secret only when asked to, and as base64."""
        shell.ok("create", "ML-KEM-768", "--name", "k")
        record = shell.ok("encapsulate", "k", "--json").json
        silent = shell("decapsulate", "k", record["ciphertext"], terminal=True)
        shown = shell(
            *("decapsulate", "k", record["ciphertext"], "--out", "-"), terminal=True
        )

        assert (2, b"") == (silent.code, silent.out)
        assert f"{record['shared_secret']}\n" == shown.text

    def test_refused(self, shell: Shell) -> None:
        """A length that no encapsulation has, and keys that are none of a KEM."""
        shell.ok("create", "ML-KEM-768", "--name", "k")
        shell.ok("create", "ed25519", "--name", "signer")
        short = shell("decapsulate", "k", "AAAA")
        wrong = shell("sign", "k", "--text", "x")
        other = shell("encapsulate", "signer", "--json")

        assert 2 == short.code
        assert "1088" in short.err
        assert (5, 5) == (wrong.code, other.code)


class TestSeal:
    @pytest.mark.parametrize("algorithm", KEMS)
    def test_round_trip(self, shell: Shell, data_file: Path, algorithm: str) -> None:
        """A file is sealed, the key rotated, and the file opened again."""
        shell.ok("create", algorithm, "--name", "box")
        sealed = data_file.with_suffix(".sealed")
        opened = data_file.with_suffix(".opened")
        options = ("--aad", "case 7")
        shell.ok(
            *("seal", "box", "--in", str(data_file), "--out", str(sealed)), *options
        )
        shell.ok("rotate", "box")
        shell.ok("open", "box", "--in", str(sealed), "--out", str(opened), *options)
        refused = shell("open", "box", "--in", str(sealed), "--aad", "case 8")

        assert data_file.read_bytes() == opened.read_bytes()
        assert 0o600 == mode(opened)
        assert (6, b"") == (refused.code, refused.out)

    @pytest.mark.parametrize("form", ["pem", "der"])
    def test_offline(
        self, shell: Shell, bare_shell: Shell, tmp_path: Path, form: str
    ) -> None:
        """Whoever has the public key seals without a server; the HSM opens."""
        key = shell.ok("create", "P-384 + ML-KEM-1024", "--name", "box", "--json").json
        path = str(tmp_path / "public")
        shell.ok("public-key", "box", "--format", form, "--out", path)
        sealed = bare_shell.ok(
            *("seal", key["key_id"], "--text", "hello", "--aad", "a"),
            *("--public-key", path, "--version", "1"),
        ).text.strip()

        assert b"hello" == shell.ok("open", "box", sealed, "--aad", "a").out

    def test_offline_refused(self, bare_shell: Shell, data_file: Path) -> None:
        """Offline, the version must be named and the key be one of a KEM."""
        key_id = "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"
        words = ("seal", key_id, "--text", "hello", "--public-key", str(data_file))
        half = bare_shell(*words)
        wrong = bare_shell(*words, "--version", "1")

        assert (2, 2) == (half.code, wrong.code)
        assert "must be given together" in half.err
        assert "not a public key of ML-KEM" in wrong.err


class TestDataKey:
    @pytest.mark.parametrize(
        ("algorithm", "opener"), [("aes", "decrypt"), ("ML-KEM-768", "open")]
    )
    def test_round_trip(
        self, shell: Shell, tmp_path: Path, algorithm: str, opener: str
    ) -> None:
        """The wrapped form gives the data key back."""
        shell.ok("create", algorithm, "--name", "box")
        key, wrapped = tmp_path / "key", tmp_path / "wrapped"
        shell.ok(
            *("data-key", "box", "--length", "24", "--aad", "a"),
            *("--out", str(key), "--ciphertext-out", str(wrapped)),
        )
        opened = shell.ok(opener, "box", "--in", str(wrapped), "--aad", "a").out

        assert (24, 0o600) == (len(opened), mode(key))
        assert key.read_bytes() == opened

    def test_wrapped_only(self, shell: Shell, tmp_path: Path) -> None:
        """Without the key itself nothing is secret, and it is printed."""
        shell.ok("create", "aes", "--name", "box")
        path = tmp_path / "wrapped"
        text = shell.ok("data-key", "box", "--wrapped-only").text.strip()
        shell.ok("data-key", "box", "--wrapped-only", "--ciphertext-out", str(path))
        record = shell.ok("data-key", "box", "--wrapped-only", "--json").json

        assert 32 == len(shell.ok("decrypt", "box", text).out)
        assert 32 == len(shell.ok("decrypt", "box", "--in", str(path)).out)
        assert "plaintext" not in record


class TestRewrap:
    @pytest.mark.parametrize(
        ("algorithm", "into", "opener"),
        [("aes", "encrypt", "decrypt"), ("ML-KEM-768", "seal", "open")],
    )
    def test_newest_version(
        self, shell: Shell, algorithm: str, into: str, opener: str
    ) -> None:
        """A ciphertext moves to the newest version, and opens as before."""
        shell.ok("create", algorithm, "--name", "box")
        old = shell.ok(into, "box", "--text", "hello", "--aad", "a").text.strip()
        shell.ok("rotate", "box")
        record = shell.ok("rewrap", "box", old, "--aad", "a", "--json").json
        refused = shell("rewrap", "box", old)
        opened = shell.ok(opener, "box", record["ciphertext"], "--aad", "a", "--json")

        assert (2, 2) == (record["version"], opened.json["version"])
        assert b"hello" == base64.b64decode(opened.json["plaintext"])
        assert 6 == refused.code


class TestDerive:
    def test_hkdf(self, shell: Shell) -> None:
        """Keys derived with the same info are the same, with another they are not."""
        shell.ok("create", "hkdf", "--name", "root")
        for name, info in (("a", "x"), ("b", "x"), ("c", "y")):
            shell.ok(
                *("derive", "hmac-sha256", "--from", "root", "--name", name),
                *("--info", info, "--salt-hex", "00ff", "--tags", "derived"),
            )
        macs = [shell.ok("mac", name, "--text", "hello").text for name in "abc"]
        facts = json.loads(shell.ok("describe", "a", "--json").out)

        assert macs[0] == macs[1] != macs[2]
        assert ("derived", ["derived"]) == (facts["origin"], facts["tags"])

    @pytest.mark.parametrize("algorithm", ["p256", "p384", "x25519"])
    def test_agreement(self, shell: Shell, tmp_path: Path, algorithm: str) -> None:
        """Two keys that agree with each other derive the same."""
        for name in ("a", "b"):
            shell.ok("create", algorithm, "--name", name, "--usage", "derive")
            shell.ok("public-key", name, "--out", str(tmp_path / name))
        for name, peer in (("a", "b"), ("b", "a")):
            shell.ok(
                *("derive", "hmac-sha256", "--from", name, "--name", f"m{name}"),
                *("--peer", str(tmp_path / peer), "--hash", "sha-384"),
            )

        assert (
            shell.ok("mac", "ma", "--text", "hello").text
            == shell.ok("mac", "mb", "--text", "hello").text
        )

    @pytest.mark.parametrize("function", ["hkdf", "x9.63", "none"])
    def test_functions(self, shell: Shell, tmp_path: Path, function: str) -> None:
        """Another party of the agreement gets the same key by itself."""
        shell.ok("create", "p256", "--name", "a", "--usage", "derive")
        own = ec.generate_private_key(ec.SECP256R1())
        peer = tmp_path / "peer.pem"
        peer.write_bytes(
            own.public_key().public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            )
        )
        info = () if function == "none" else ("--info", "both")
        shell.ok(
            *("derive", "hmac-sha256", "--from", "a", "--name", "m", *info),
            *("--peer", str(peer), "--function", function),
        )
        theirs = load_pem_public_key(shell.ok("public-key", "a").text.encode())
        assert isinstance(theirs, ec.EllipticCurvePublicKey)
        secret = own.exchange(ec.ECDH(), theirs)
        key = {
            "hkdf": HKDF(SHA256(), 32, None, b"both").derive(secret),
            "x9.63": X963KDF(SHA256(), 32, b"both").derive(secret),
            "none": secret,
        }[function]

        mac = shell.ok("mac", "m", "--text", "hello", "--json").json["mac"]
        assert hmac.digest(key, b"hello", "sha256") == base64.b64decode(mac)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--function", "x9.63"), "derive by HKDF only"),
            (("--info", "a", "--info-hex", "00"), "mutually exclusive"),
            (("--info-hex", "0"), "pairs of hex digits"),
            (("--peer", "/no/file"), "Can't read the public key"),
        ],
    )
    def test_refused(self, shell: Shell, words: tuple[str, ...], message: str) -> None:
        """What can't be read is told."""
        shell.ok("create", "hkdf", "--name", "root")
        outcome = shell("derive", "aes", "--from", "root", *words)

        assert 2 == outcome.code
        assert message in outcome.err
