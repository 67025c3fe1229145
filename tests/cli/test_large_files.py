# SPDX-License-Identifier: MIT
"""Tests of files that are hashed here, so that a few bytes are sent for them."""

from pathlib import Path

import msgspec
import pytest

from hsm_core import primitives
from hsm_core.algorithms import Algorithm
from hsm_core.operations import GetPublicKey, Operation, RotateKey, Sign, Verify
from tests.cli.support import Answering, Shell

MiB = 1024 * 1024
LONG = 9 * MiB + 5
HASHED = ["rsa2048", "p256", "ML-DSA-44", "P-256 + ML-DSA-44", "ed25519-mldsa65"]


class Watching(Answering):
    """HSM that keeps what passes through it on its way to another one."""

    def longest(self, kind: type[Operation[object]]) -> int:
        """Return the length of the longest byte string that was sent but signatures."""
        return max(
            len(value)
            for operation in self.seen
            if isinstance(operation, kind)
            for name, value in msgspec.structs.asdict(operation).items()
            if isinstance(value, bytes) and name != "signature"
        )


def watched(shell: Shell) -> Watching:
    """Put a watcher between the shell and its HSM."""
    assert shell.hsm is not None
    watching = Watching(shell.hsm.execute)
    shell.hsm = watching
    return watching


def sparse(path: Path, size: int) -> Path:
    """Make a file of zeros that takes no room, with something at its end."""
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b"end")
    return path


@pytest.mark.parametrize("algorithm", HASHED)
def test_digest_is_sent(shell: Shell, tmp_path: Path, algorithm: str) -> None:
    """Of a long file 64 bytes are sent, and the signature is one of the whole file."""
    shell.ok("create", algorithm, "--name", "k")
    path, signature = sparse(tmp_path / "long", LONG), tmp_path / "signature"
    watching = watched(shell)
    record = shell.ok("sign", "k", "--in", str(path), "--json").json
    shell.ok("sign", "k", "--in", str(path), "--out", str(signature))
    shell.ok("verify", "k", "--in", str(path), "--signature", str(signature))
    other = sparse(tmp_path / "other", LONG + 1)
    refused = shell("verify", "k", "--in", str(other), "--signature", str(signature))
    der = shell.ok("public-key", "k", "--format", "der").out

    assert 64 >= max(watching.longest(Sign), watching.longest(Verify))
    assert 6 == refused.code
    primitives.verify(
        Algorithm(record["algorithm"]), der, signature.read_bytes(), path.read_bytes()
    )


@pytest.mark.parametrize("algorithm", ["ML-DSA-44", "P-256 + ML-DSA-44"])
def test_context(shell: Shell, tmp_path: Path, algorithm: str) -> None:
    """A context is bound in, whether the file is hashed here or there."""
    shell.ok("create", algorithm, "--name", "k")
    path, signature = sparse(tmp_path / "long", LONG), str(tmp_path / "signature")
    words = ("k", "--in", str(path))
    shell.ok("sign", *words, "--context-hex", "00ff", "--out", signature)
    shell.ok("verify", *words, "--context-hex", "00ff", "--signature", signature)
    without = shell("verify", *words, "--signature", signature)
    other = shell("verify", *words, "--signature", signature, "--context", "a")

    assert (6, 6) == (without.code, other.code)


def test_short_payload_hashed_on_demand(shell: Shell) -> None:
    """--prehash hashes here whatever the length; the signature is the same kind."""
    shell.ok("create", "ML-DSA-65", "--name", "k")
    watching = watched(shell)
    text = shell.ok("sign", "k", "--text", "hello", "--prehash").text.strip()

    assert 64 == watching.longest(Sign)
    assert 0 == shell("verify", "k", "--text", "hello", "--signature-base64", text).code


def test_pipe(shell: Shell) -> None:
    """A long payload from a pipe is hashed here too."""
    shell.ok("create", "ML-DSA-44", "--name", "k")
    data = bytes(2 * MiB)
    text = shell.ok("sign", "k", "--in", "-", stdin=data).text.strip()
    words = ("verify", "k", "--in", "-", "--signature-base64", text)

    assert 0 == shell(*words, stdin=data).code
    assert 6 == shell(*words, stdin=data + b"x").code


def test_older_version(shell: Shell, tmp_path: Path) -> None:
    """A signature of any version is recognised, though mu binds the public key."""
    shell.ok("create", "ML-DSA-44", "--name", "k")
    path, signature = str(sparse(tmp_path / "long", LONG)), str(tmp_path / "signature")
    shell.ok("sign", "k", "--in", path, "--out", signature)
    for _ in range(2):
        shell.ok("rotate", "k")
    shell.ok("rollback", "k", "--version", "2")
    words = ("verify", "k", "--in", path, "--signature", signature)
    found = shell.ok(*words, "--json").json
    named = shell.ok(*words, "--version", "1")
    wrong = shell(*words, "--version", "2")
    shell.ok("revoke", "k", "--version", "1")
    revoked = shell(*words)

    assert (1, 0, 6) == (found["version"], named.code, wrong.code)
    assert revoked.code in {5, 6}


def test_destroyed_key(shell: Shell, tmp_path: Path) -> None:
    """Of a key that is gone its state is told, and not that a signature is wrong."""
    shell.ok("create", "ML-DSA-44", "--name", "k")
    key_id = shell.ok("describe", "k", "--json").json["key_id"]
    path, signature = str(sparse(tmp_path / "long", LONG)), str(tmp_path / "signature")
    shell.ok("sign", "k", "--in", path, "--out", signature)
    shell.ok("destroy", "k", "--yes")
    outcome = shell("verify", key_id, "--in", path, "--signature", signature)

    assert 5 == outcome.code
    assert "[wrong_state]" in outcome.err


def test_rotation_meanwhile(shell: Shell, tmp_path: Path) -> None:
    """A key that is rotated while its file is hashed does not sign the wrong thing."""
    shell.ok("create", "ML-DSA-44", "--name", "k")
    hsm = shell.hsm
    assert hsm is not None

    def rotate_first(operation: Operation[object]) -> object:
        if isinstance(operation, Sign):
            hsm.execute(RotateKey(key_id="k"))
        return hsm.execute(operation)

    shell.hsm = Answering(rotate_first)
    path = sparse(tmp_path / "long", LONG)
    outcome = shell("sign", "k", "--in", str(path))

    assert (5, b"") == (outcome.code, outcome.out)
    assert "Run the command again" in outcome.err


@pytest.mark.parametrize("algorithm", ["ed25519", "slhdsa128f"])
def test_whole_payload_is_needed(shell: Shell, tmp_path: Path, algorithm: str) -> None:
    """Some algorithms must see all; above the limit it is said which need not."""
    shell.ok("create", algorithm, "--name", "k")
    short, long = sparse(tmp_path / "short", LONG), sparse(tmp_path / "long", 10 << 30)
    watching = watched(shell)
    signed = shell("sign", "k", "--in", str(short))
    refused = shell("sign", "k", "--in", str(long))
    piped = shell("sign", "k", "--in", "-", stdin=bytes(64 * MiB + 1))
    digest = shell("sign", "k", "--in", str(short), "--prehash")

    assert (0, 2, 2, 2) == (signed.code, refused.code, piped.code, digest.code)
    assert LONG == watching.longest(Sign)
    for outcome in (refused, piped):
        assert "[payload_too_large]" in outcome.err
        assert "ML-DSA" in outcome.err
        assert "67108864" in outcome.err
    assert str(10 << 30) in refused.err
    assert "does not sign digests" in digest.err


def test_payload_that_is_too_long_to_encrypt(shell: Shell, tmp_path: Path) -> None:
    """The limit is named, and the size of a file; that of a pipe is not known."""
    shell.ok("create", "aes", "--name", "k")
    long = sparse(tmp_path / "long", 2 << 30)
    refused = shell("encrypt", "k", str(long))
    piped = shell("encrypt", "k", "-", stdin=bytes(130 * MiB))

    assert (2, 2) == (refused.code, piped.code)
    limit = "plaintext must be at most 67112960 bytes, got "
    assert f"{limit}{2 << 30}. [payload_too_large]" in refused.err
    assert f"{limit}more than 67112960. [payload_too_large]" in piped.err


@pytest.mark.parametrize("algorithm", ["aes", "ML-KEM-768"])
def test_key_that_does_not_sign(shell: Shell, tmp_path: Path, algorithm: str) -> None:
    """A key that can't sign is named before a long payload is read or measured."""
    shell.ok("create", algorithm, "--name", "k")
    long = sparse(tmp_path / "long", 10 << 30)
    signed = shell("sign", "k", "--in", str(long))
    verified = shell("verify", "k", "--in", str(long), "--signature-base64", "YQ==")

    for outcome, usage in ((signed, "sign"), (verified, "verify")):
        assert f"can't be used to {usage}; its usages are" in outcome.err
        assert outcome.err.endswith("[usage_not_allowed]\n")


def test_progress(shell: Shell, tmp_path: Path) -> None:
    """A terminal sees a bar, which is wiped; a pipe sees nothing of it."""
    shell.ok("create", "p256", "--name", "k")
    path = str(sparse(tmp_path / "long", LONG))
    shown = shell("sign", "k", "--in", path, terminal=True)

    assert "[########----------------] 3 of 9 MiB hashed" in shown.err
    assert shown.err.endswith("\r\x1b[K")
    assert "" == shell.ok("sign", "k", "--in", path).err


def test_nothing_is_asked_for_short_payloads(shell: Shell) -> None:
    """A short payload is one request."""
    shell.ok("create", "ML-DSA-44", "--name", "k")
    watching = watched(shell)
    shell.ok("sign", "k", "--text", "hello")

    assert [Sign] == [type(operation) for operation in watching.seen]
    assert GetPublicKey not in map(type, watching.seen)
