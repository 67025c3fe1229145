# SPDX-License-Identifier: MIT
"""Commands that use keys."""

import base64
import stat
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import Shell
from tests.support import require_program


@pytest.fixture
def folder(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_file: Path
) -> Path:
    """Give a current folder with a file of binary data, and some keys."""
    monkeypatch.chdir(tmp_path)
    for algorithm, name in (("ed25519", "k"), ("aes", "box"), ("HMAC-SHA-256", "m")):
        shell.ok("create", algorithm, "--name", name)
    return tmp_path


class TestOperands:
    def test_sign_and_verify(self, shell: Shell, folder: Path) -> None:
        """A key, a file and a signature are named in this order."""
        shell.ok("sign", "k", "data.bin", "-o", "data.sig")
        good = shell.ok("verify", "k", "data.bin", "data.sig")
        by_option = shell.ok("verify", "--key-id", "k", "data.bin", "data.sig")
        other = shell("verify", "k", "data.sig", "data.sig")
        explicit = shell.ok("sign", "k", "--in", "data.bin", "--out", "-")

        assert "Valid signature: k, version 1, Ed25519\n" == good.text
        assert good == by_option
        assert 6 == other.code
        assert (folder / "data.sig").read_bytes() == explicit.out

    def test_others(self, shell: Shell, folder: Path) -> None:
        """MACs and ciphertexts take files in the same way."""
        shell.ok("mac", "m", "data.bin", "-o", "data.mac")
        shell.ok("encrypt", "box", "data.bin", "-o", "data.sealed")
        shell.ok("decrypt", "box", "data.sealed", "-o", "again.bin")
        verified = shell.ok("verify-mac", "m", "data.bin", "data.mac")

        assert "Valid MAC: m, version 1, " in verified.text
        assert Path("data.bin").read_bytes() == Path("again.bin").read_bytes()

    def test_standard_input(self, shell: Shell, folder: Path) -> None:
        """- is standard input, but not for two things at once."""
        data = Path("data.bin").read_bytes()
        piped = shell.ok("sign", "k", "-", stdin=data)
        Path("raw.sig").write_bytes(base64.b64decode(piped.text))
        verified = shell.ok("verify", "k", "-", "raw.sig", stdin=data)
        twice = shell("verify", "k", "-", "-", stdin=data)

        assert piped == shell.ok("sign", "k", "data.bin")
        assert "Valid signature" in verified.text
        assert 2 == twice.code
        assert "can't both come from standard input" in twice.err

    def test_text(self, shell: Shell, folder: Path) -> None:
        """Text is no file: named with --text, or with --key-id where no file is."""
        Path("hello").write_bytes(b"other")
        by_name = shell.ok("sign", "k", "--text", "hello")
        as_file = shell.ok("sign", "k", "hello")
        assert as_file == shell.ok("sign", "--key-id", "k", "hello")
        Path("hello").unlink()

        assert by_name == shell.ok("sign", "--key-id", "k", "hello")
        assert by_name != as_file

    @pytest.mark.parametrize("name", ["README", "REAMDE.md", "dir/file", "a b"])
    def test_mistyped_file(self, shell: Shell, folder: Path, name: str) -> None:
        """The name of a file that is not there is never signed as text."""
        outcome = shell("sign", "k", name)

        assert (2, b"") == (outcome.code, outcome.out)
        assert f"There is no file {name}." in outcome.err
        assert "--text" in outcome.err
        assert 0 == shell("sign", "k", "--text", name).code

    def test_directory(self, shell: Shell, folder: Path) -> None:
        """A directory is there, but is no file."""
        Path("folder").mkdir()
        outcome = shell("sign", "k", "folder")

        assert (2, b"") == (outcome.code, outcome.out)
        assert "folder is a directory, not a file." in outcome.err

    def test_binary_on_a_terminal(self, shell: Shell, folder: Path) -> None:
        """Bytes are not printed on a terminal; text is."""
        shell.ok("encrypt", "box", "data.bin", "-o", "data.sealed")
        refused = shell("decrypt", "box", "data.sealed", terminal=True)
        raw = shell("sign", "k", "data.bin", "-o", "-", terminal=True)
        sealed = shell.ok("encrypt", "box", "--text", "dawn").text.strip()
        shown = shell("decrypt", "box", sealed, terminal=True)

        assert (1, b"", 1, b"") == (refused.code, refused.out, raw.code, raw.out)
        assert "1024 bytes of binary data" in refused.err
        assert "Pass -o FILE" in refused.err
        assert (0, "dawn\n") == (shown.code, shown.text)


class TestSign:
    @pytest.mark.parametrize("algorithm", ["rsa2048", "p256", "p521", "ed25519"])
    def test_round_trip(
        self, shell: Shell, data_file: Path, tmp_path: Path, algorithm: str
    ) -> None:
        """A signature over a file is written bare, and verifies from there."""
        shell.ok("create", algorithm, "--name", "k")
        path = str(tmp_path / "sig")
        signed = shell.ok("sign", "k", "--in", str(data_file), "--out", path)
        good = shell.ok("verify", "k", "--in", str(data_file), "--signature", path)
        wrong = shell("verify", "k", "--text", "other data", "--signature", path)

        assert b"" == signed.out
        assert good.text.startswith("Valid signature: k, version 1, ")
        assert (6, b"") == (wrong.code, wrong.out)
        assert "[signature_mismatch]" in wrong.err

    def test_openssl(self, shell: Shell, data_file: Path, tmp_path: Path) -> None:
        """OpenSSL verifies a signature over a file with the exported public key."""
        openssl = require_program("openssl")
        shell.ok("create", "p256", "--name", "k")
        signature, public = tmp_path / "sig", tmp_path / "k.pem"
        line = ("sign", "k", "--in", str(data_file), "--out", str(signature))
        shell.ok(*line)
        shell.ok("public-key", "k", "--out", str(public))
        done = subprocess.run(
            [
                *(openssl, "dgst", "-sha256", "-verify", public),
                *("-signature", signature, data_file),
            ],
            check=False,
            capture_output=True,
        )

        assert (0, b"Verified OK\n") == (done.returncode, done.stdout)

    def test_text_and_base64(self, shell: Shell) -> None:
        """A payload is text or base64; the signature is printed as base64."""
        shell.ok("create", "ed25519", "--name", "k")
        signature = shell.ok("sign", "k", "--text", "hello").text.strip()
        same = shell.ok("sign", "k", "--text", "aGVsbG8=", "--base64").text.strip()
        again = shell.ok("sign", "--key-id", "k", "hello").text.strip()
        proof = ("--signature-base64", signature)

        assert 64 == len(base64.b64decode(signature, validate=True))
        assert signature == same == again
        assert shell("verify", "k", "--text", "hello", *proof).code == 0
        assert shell("verify", "k", "--text", "hellO", *proof).code == 6

    def test_stdin(self, shell: Shell) -> None:
        """Data and results go through standard input and output as bare bytes."""
        shell.ok("create", "ed25519", "--name", "k")
        payload = b"\x00\xff\n"
        raw = shell.ok("sign", "k", "--in", "-", "--out", "-", stdin=payload).out
        text = shell.ok("sign", "k", "--in", "-", stdin=payload).text

        assert raw == base64.b64decode(text)

    @pytest.mark.parametrize("flag", ["--prehash", "--digest"])
    def test_prehash(
        self, shell: Shell, data_file: Path, tmp_path: Path, flag: str
    ) -> None:
        """A digest made here gives a signature over the whole file."""
        shell.ok("create", "p384", "--name", "k")
        path = str(tmp_path / "sig")
        shell.ok("sign", "k", "--in", str(data_file), flag, "--out", path)
        options = ("--in", str(data_file), "--signature", path)
        record = shell.ok("verify", "k", *options, "--json").json
        local = shell.ok("verify", "k", *options, flag, "--hash", "sha-384")

        assert (1, "EC-P384") == (record["version"], record["algorithm"])
        assert "Valid signature" in local.text

    def test_prehash_of_a_key_that_hashes_inside(self, shell: Shell) -> None:
        """Ed25519 does not sign digests, which is said before anything is hashed."""
        shell.ok("create", "ed25519", "--name", "k")
        outcome = shell("sign", "k", "--text", "x", "--prehash")

        assert 2 == outcome.code
        assert "does not sign digests" in outcome.err

    def test_parameters(self, shell: Shell) -> None:
        """Scheme, hash and encoding reach the operation, in any case."""
        shell.ok("create", "rsa2048", "--name", "r")
        shell.ok("create", "p256", "--name", "e")
        rsa = shell.ok(
            *("sign", "r", "--text", "x", "--scheme", "rsassa-pkcs1-v1_5"),
            *("--hash", "sha-512", "--json"),
        ).json
        ecdsa = shell.ok(
            "sign", "e", "--text", "x", "--encoding", "P1363", "--json"
        ).json
        checked = shell(
            *("verify", "e", "--text", "x", "--encoding", "p1363", "--version", "1"),
            *("--signature-base64", ecdsa["signature"]),
        )

        assert ("RSASSA-PKCS1-v1_5", "SHA-512") == (rsa["scheme"], rsa["hash"])
        assert 64 == len(base64.b64decode(ecdsa["signature"]))
        assert 0 == checked.code

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["k"], "Missing payload"),
            (["k", "x", "--in", "f"], "not both"),
            (["k", "x", "--key-id", "k"], "not both"),
            (["--key-id", "k"], "Missing payload"),
            (["k", "eA", "--base64"], "must be base64 with padding"),
            (["k", "eB==", "--base64"], "must be canonical base64"),
            (["k", "--in", "/nonexistent/x"], "/nonexistent/x: No such file"),
            (["k", "--in", "/"], "/: Is a directory"),
            (["k", "x", "--hash", "md5"], "not one of SHA-256"),
        ],
    )
    def test_refused(self, shell: Shell, words: list[str], message: str) -> None:
        """Unreadable input is an error, and nothing is signed."""
        shell.ok("create", "ed25519", "--name", "k")
        outcome = shell("sign", *words)

        assert (2, b"") == (outcome.code, outcome.out)
        assert message in outcome.err

    @pytest.mark.parametrize(
        "words", [[], ["--signature", "x", "--signature-base64", "eA=="]]
    )
    def test_no_signature(self, shell: Shell, words: list[str]) -> None:
        """Verify requires exactly one signature."""
        outcome = shell("verify", "k", "--text", "x", *words)

        assert 2 == outcome.code
        assert "Pass either --signature FILE or --signature-base64 TEXT" in outcome.err

    def test_wrong_usage(self, shell: Shell) -> None:
        """A key that may not sign does not."""
        shell.ok("create", "rsa2048", "--name", "k", "--usage", "encrypt,decrypt")
        outcome = shell("sign", "k", "--text", "x")

        assert 5 == outcome.code
        assert "[usage_not_allowed]" in outcome.err


class TestEncrypt:
    def test_file(self, shell: Shell, data_file: Path, tmp_path: Path) -> None:
        """A file goes into an envelope and out again, into a file of its owner's."""
        shell.ok("create", "aes", "--name", "box")
        sealed, opened = tmp_path / "sealed", tmp_path / "opened"
        shell.ok("encrypt", "box", "--in", str(data_file), "--out", str(sealed))
        shell.ok("rotate", "box")
        shell.ok("decrypt", "box", "--in", str(sealed), "--out", str(opened))

        assert data_file.read_bytes() == opened.read_bytes()
        assert data_file.read_bytes() not in sealed.read_bytes()
        assert 0o600 == stat.S_IMODE(opened.stat().st_mode)

    def test_text(self, shell: Shell) -> None:
        """What encrypt prints, decrypt takes; the plaintext comes out as it was."""
        shell.ok("create", "aes", "--name", "box")
        sealed = shell.ok("encrypt", "box", "--text", "grüße").text
        piped = shell.ok(
            "decrypt", "box", "--in", "-", "--base64", stdin=sealed.encode()
        )
        record = shell.ok("decrypt", "box", sealed.strip(), "--json").json

        assert "grüße".encode() == shell.ok("decrypt", "box", sealed.strip()).out
        assert "grüße".encode() == piped.out
        assert "grüße".encode() == base64.b64decode(record["plaintext"])

    def test_additional_data(self, shell: Shell, tmp_path: Path) -> None:
        """Additional data must be given again, as text or in a file."""
        shell.ok("create", "aes", "--name", "box")
        path = tmp_path / "aad"
        path.write_bytes(b"context")
        sealed = shell.ok(
            "encrypt", "box", "--text", "x", "--aad", "context"
        ).text.strip()

        assert b"x" == shell.ok("decrypt", "box", sealed, "--aad-file", str(path)).out
        assert 6 == shell("decrypt", "box", sealed).code
        assert (
            2
            == shell(
                "encrypt", "box", "--text", "x", "--aad", "a", "--aad-file", "b"
            ).code
        )

    def test_rsa(self, shell: Shell) -> None:
        """RSA encrypts with the parameters that are given, raw where others read it."""
        shell.ok("create", "rsa2048", "--name", "r", "--usage", "encrypt,decrypt")
        options = ("--encoding", "raw", "--hash", "sha-512", "--mgf-hash", "sha-256")
        sealed = shell.ok("encrypt", "r", "--text", "x", *options, "--out", "-").out
        line = ("decrypt", "r", base64.b64encode(sealed).decode(), *options)

        assert 256 == len(sealed)
        assert b"x" == shell.ok(*line, "--version", "1").out

    def test_failure_has_no_detail(self, shell: Shell) -> None:
        """Every invalid ciphertext gives the same error."""
        shell.ok("create", "aes", "--name", "box")
        sealed = base64.b64decode(shell.ok("encrypt", "box", "--text", "x").text)
        altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
        broken = [sealed[:-1], sealed[:20], bytes(60), altered]
        outcomes = {
            (done.code, done.out, done.err)
            for done in (
                shell("decrypt", "box", base64.b64encode(data).decode())
                for data in broken
            )
        }

        assert 1 == len(outcomes)
        assert 6 == outcomes.pop()[0]

    def test_terminal(self, shell: Shell) -> None:
        """A plaintext can't act on a terminal; a pipe gets its very bytes."""
        shell.ok("create", "aes", "--name", "box")
        sealed = shell.ok("encrypt", "box", "--text", "a\x1b[2Jb\nc").text.strip()
        shown = shell("decrypt", "box", sealed, terminal=True)

        assert b"a\\x1b[2Jb\nc\n" == shown.out
        assert b"a\x1b[2Jb\nc" == shell.ok("decrypt", "box", sealed).out


class TestMac:
    def test_round_trip(self, shell: Shell, tmp_path: Path) -> None:
        """A MAC is printed or written, and checked from either."""
        shell.ok("create", "hmac-sha256", "--name", "m")
        path = str(tmp_path / "mac")
        text = shell.ok("mac", "m", "--text", "hello").text.strip()
        shell.ok("mac", "m", "--text", "hello", "--out", path)
        good = shell.ok("verify-mac", "m", "--text", "hello", "--mac", path)
        wrong = shell("verify-mac", "m", "--text", "bye", "--mac-base64", text)
        short = shell("verify-mac", "m", "--text", "hello", "--mac-base64", "eA==")

        assert base64.b64decode(text) == Path(path).read_bytes()
        assert "Valid MAC: m, version 1, HMAC-SHA-256\n" == good.text
        assert (6, 6) == (wrong.code, short.code)


class TestRandom:
    def test_formats(self, shell: Shell, tmp_path: Path) -> None:
        """Random bytes come as base64, hex, JSON, or bare."""
        path = tmp_path / "random"
        text = shell.ok("random", "20").text
        digits = shell.ok("random", "20", "--format", "hex").text
        record = shell.ok("random", "20", "--json").json
        written = shell.ok("random", "20", "--out", str(path), "--json")

        assert [20, 20, 20, 20, 20] == [
            len(data)
            for data in (
                base64.b64decode(text),
                bytes.fromhex(digits),
                base64.b64decode(record["random"]),
                path.read_bytes(),
                shell.ok("random", "20", "--out", "-").out,
            )
        ]
        assert (b"", 0o600) == (written.out, stat.S_IMODE(path.stat().st_mode))

    @pytest.mark.parametrize("length", ["0", "-1", "1048577", "x"])
    def test_refused(self, shell: Shell, length: str) -> None:
        """A length out of range is a usage error."""
        outcome = shell("random", "--", length)

        assert (2, b"") == (outcome.code, outcome.out)


def test_private_result_is_written_not_printed(shell: Shell, tmp_path: Path) -> None:
    """A plaintext that goes to a file is not printed as JSON as well."""
    shell.ok("create", "aes", "--name", "box")
    sealed = shell.ok("encrypt", "box", "--text", "x").text.strip()
    out = str(tmp_path / "out")
    outcome = shell.ok("decrypt", "box", sealed, "--json", "--out", out)
    signed = shell.ok("encrypt", "box", "--text", "x", "--json", "--out", out)

    assert b"" == outcome.out
    assert 1 == signed.json["version"]


def test_unwritable_file(shell: Shell, tmp_path: Path) -> None:
    """A result that can't be written is an error, and leaves nothing behind."""
    outcome = shell("random", "5", "--out", str(tmp_path / "no" / "file"))

    assert (1, b"") == (outcome.code, outcome.out)
    assert "file: No such file or directory. [output]" in outcome.err
    assert [] == list(tmp_path.iterdir())
