# SPDX-License-Identifier: MIT
"""Import and export: keys are sent only wrapped."""

import base64
import hmac
import subprocess
from pathlib import Path

import pytest

from hsm_core.operations import ImportKey
from tests.cli.support import Answering, Outcome, Shell
from tests.support import require_program

WRAPPING = ["rsa3072", "ML-KEM-1024", "P-256 + ML-KEM-768"]
PASSPHRASE = "correct horse"


def openssl(*words: str, data: bytes = b"") -> bytes:
    """Run openssl and return what it printed."""
    require_program("openssl")
    return subprocess.run(
        ["openssl", *words], input=data, capture_output=True, check=True
    ).stdout


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Give an Ed25519 key that its owner alone may read, as PEM."""
    path = tmp_path / "key.pem"
    path.write_bytes(openssl("genpkey", "-algorithm", "ED25519"))
    path.chmod(0o600)
    return path


def wrapping_key(shell: Shell, algorithm: str, name: str = "transport") -> None:
    """Make a key that wraps and unwraps."""
    shell.ok("create", algorithm, "--name", name, "--usage", "wrap,unwrap")


def imported(
    shell: Shell,
    path: Path | str,
    *words: str,
    stdin: bytes = b"",
    typing: bool = False,
) -> Outcome:
    """Import a file under the name ``moved``."""
    return shell(
        *("import", str(path), "--wrapping-key", "transport", "--name", "moved"),
        *words,
        stdin=stdin,
        typing=typing,
    )


@pytest.mark.parametrize("wrapping", WRAPPING)
def test_private_key(shell: Shell, key_file: Path, wrapping: str) -> None:
    """A key of openssl's is wrapped here, imported, and signs as it did before."""
    wrapping_key(shell, wrapping)
    assert shell.hsm is not None
    watching = Answering(shell.hsm.execute)
    shell.hsm = watching
    outcome = imported(shell, key_file, "--algorithm", "ed25519", "--json")
    public = openssl("pkey", "-in", str(key_file), "-pubout")
    (sent,) = (op for op in watching.seen if isinstance(op, ImportKey))
    secret = openssl("pkey", "-in", str(key_file), "-outform", "DER")[-32:]

    assert (0, "") == (outcome.code, outcome.err)
    assert "imported" == outcome.json["origin"]
    assert public == shell.ok("public-key", "moved").out
    assert secret not in sent.wrapped


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        ("ML-DSA-65", ("ML-DSA-65",)),
        ("ML-KEM-768", ("ML-KEM-768",)),
        ("ML-DSA-44", ("ML-DSA-44", "-provparam", "ml-dsa.output_formats=seed-only")),
        ("EC-P384", ("EC", "-pkeyopt", "group:P-384")),
        ("RSA-2048", ("RSA", "-pkeyopt", "rsa_keygen_bits:2048")),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_encrypted_key(
    shell: Shell, tmp_path: Path, algorithm: str, words: tuple[str, ...]
) -> None:
    """An encrypted key is decrypted here, with a passphrase from a file."""
    wrapping_key(shell, "rsa2048")
    path, passphrase = tmp_path / "key.pem", tmp_path / "passphrase"
    passphrase.write_text(f"{PASSPHRASE}\n")
    path.write_bytes(
        openssl(
            *("genpkey", "-algorithm", *words, "-aes-256-cbc"),
            *("-pass", f"file:{passphrase}"),
        )
    )
    path.chmod(0o600)
    public = openssl(
        "pkey", "-in", str(path), "-pubout", "-passin", f"file:{passphrase}"
    )
    options = ("--algorithm", algorithm, "--passphrase-file")
    outcome = imported(shell, path, *options, str(passphrase))

    assert (0, "") == (outcome.code, outcome.err)
    assert public == shell.ok("public-key", "moved").out


def test_passphrase_is_needed(shell: Shell, key_file: Path, tmp_path: Path) -> None:
    """Without a terminal to ask, the passphrase must be in a file, and be the one."""
    wrapping_key(shell, "rsa2048")
    path = tmp_path / "encrypted.pem"
    words = ("pkcs8", "-topk8", "-in", str(key_file), "-out", str(path))
    openssl(*words, "-passout", f"pass:{PASSPHRASE}")
    path.chmod(0o600)
    nobody = imported(shell, path, "--algorithm", "ed25519")
    wrong = imported(
        shell,
        *(path, "--algorithm", "ed25519", "--passphrase-file", "-"),
        stdin=b"another\n",
    )
    right = imported(
        shell,
        *(path, "--algorithm", "ed25519", "--passphrase-file", "-"),
        stdin=PASSPHRASE.encode(),
    )

    assert (2, 2, 0) == (nobody.code, wrong.code, right.code)
    assert "--passphrase-file" in nobody.err
    assert "another" not in wrong.err.replace("is another", "")


def test_passphrase_is_asked_for(
    shell: Shell, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person at a terminal is asked, and what they type is not shown."""
    wrapping_key(shell, "rsa2048")
    path = tmp_path / "encrypted.pem"
    words = ("pkcs8", "-topk8", "-in", str(key_file), "-out", str(path))
    openssl(*words, "-passout", f"pass:{PASSPHRASE}")
    path.chmod(0o600)
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return PASSPHRASE

    monkeypatch.setattr("click.termui.hidden_prompt_func", answer)
    outcome = imported(shell, path, "--algorithm", "ed25519", typing=True)

    assert 0 == outcome.code
    assert 1 == len(asked)
    assert PASSPHRASE not in outcome.text + outcome.err


def test_seed_and_raw(shell: Shell, tmp_path: Path) -> None:
    """A bare seed and a bare symmetric key are imported too, from a pipe as well."""
    wrapping_key(shell, "ML-KEM-768")
    seed = imported(
        shell,
        "-",
        "--algorithm",
        "ML-DSA-44",
        "--format",
        "seed",
        stdin=bytes(range(32)),
    )
    raw = shell(
        *("import", "-", "--wrapping-key", "transport", "--algorithm", "hmac-sha256"),
        *("--name", "raw", "--base64"),
        stdin=b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
    )
    tag = shell.ok("mac", "raw", "--text", "hello", "--json").json["mac"]

    assert (0, 0) == (seed.code, raw.code)
    assert hmac.digest(bytes(range(32)), b"hello", "sha256") == base64.b64decode(tag)


def test_export_and_import(shell: Shell, tmp_path: Path) -> None:
    """An exportable key leaves wrapped, and comes back as it was."""
    wrapping_key(shell, "aes-kw")
    shell.ok("create", "aes", "--name", "box", "--exportable")
    sealed = shell.ok("encrypt", "box", "--text", "hello").text.strip()
    path = tmp_path / "wrapped"
    words = ("export", "box", "--wrapping-key", "transport")
    shell.ok(*words, "--output", str(path))
    text = shell.ok(*words, "--mechanism", "aes-kw").text.strip()
    again = imported(shell, path, "--algorithm", "aes", "--wrapped")
    kw = shell(
        *("import", "-", "--wrapping-key", "transport", "--algorithm", "aes"),
        *("--wrapped", "--mechanism", "AES-KW", "--wrapping-version", "1", "--base64"),
        stdin=text.encode(),
    )

    assert (0, 0) == (again.code, kw.code)
    assert 40 == path.stat().st_size
    assert b"hello" == shell.ok("decrypt", "box", sealed).out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--algorithm", "ed25519", "--wrapping-version", "1"), 2, "--wrapped"),
        (
            ("--algorithm", "ed25519", "--wrapped", "--passphrase-file", "x"),
            2,
            "--wrapped",
        ),
        (("--algorithm", "rot13"), 2, "[unknown_algorithm]"),
        (("--algorithm", "ML-DSA-65"), 2, "ML-DSA-65"),
        (("--algorithm", "MLDSA65-Ed25519-SHA512"), 2, ""),
        (("--algorithm", "ed25519", "--mechanism", "AES-KWP"), 2, "mechanism"),
    ],
)
def test_import_refused(
    shell: Shell, key_file: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    """Invalid imports are refused by name, and create no key."""
    wrapping_key(shell, "rsa2048")
    outcome = imported(shell, key_file, *words)

    assert code == outcome.code
    assert message in outcome.err
    assert 4 == shell("describe", "moved").code


@pytest.mark.parametrize("words", [(), ("--wrapped",)])
def test_a_file_that_no_key_fills(
    shell: Shell, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """A file that is too long to be a key is refused with its limit."""
    wrapping_key(shell, "rsa2048")
    path = tmp_path / "long"
    path.write_bytes(bytes(100_000))
    outcome = imported(shell, path, "--algorithm", "aes", *words)

    assert 2 == outcome.code
    assert "hsm-cli: key must be between 0 and 65536 bytes, got 100" in outcome.err


def test_symmetric_wrapping_key(shell: Shell, key_file: Path) -> None:
    """A symmetric wrapping key is refused, with advice."""
    wrapping_key(shell, "aes-kw")
    outcome = imported(shell, key_file, "--algorithm", "ed25519")

    assert 2 == outcome.code
    assert "--wrapped" in outcome.err


def test_shared_file(shell: Shell, key_file: Path) -> None:
    """A key that others may read is imported with a warning."""
    wrapping_key(shell, "rsa2048")
    key_file.chmod(0o644)
    outcome = imported(shell, key_file, "--algorithm", "ed25519")

    assert 0 == outcome.code
    assert "other users can read" in outcome.err


def test_export_refused(shell: Shell) -> None:
    """A key that was not made exportable stays, and so does one of a stronger kind."""
    wrapping_key(shell, "rsa2048")
    shell.ok("create", "aes", "--name", "stays")
    shell.ok("create", "aes", "--name", "strong", "--exportable")
    stays = shell("export", "stays", "--wrapping-key", "transport")
    strong = shell("export", "strong", "--wrapping-key", "transport")

    assert b"" == stays.out + strong.out
    assert 0 not in {stays.code, strong.code}
    assert "exportable" in stays.err
