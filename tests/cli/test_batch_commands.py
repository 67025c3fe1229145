# SPDX-License-Identifier: MIT
"""Batches: JSON lines in, JSON lines out, errors of single items."""

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from hsm_cli.exit_codes import ExitCode
from hsm_core.algorithms import Algorithm
from hsm_core.errors import PayloadTooLargeError
from hsm_core.model import KeyId
from hsm_core.operations.signing import MacBatch
from tests.cli.support import Answering, Shell

KEY = KeyId("0b6f7a3e-2f0c-4a39-9a1d-5d9d6b1f7c11")


def b64(data: bytes) -> str:
    """Return base64."""
    return base64.b64encode(data).decode()


def lines(*items: dict[str, Any]) -> bytes:
    """Return items as JSON lines."""
    return "".join(f"{json.dumps(item)}\n" for item in items).encode()


def answers(out: bytes) -> list[dict[str, Any]]:
    """Return JSON lines as items."""
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("algorithm", ["ed25519", "p256", "ML-DSA-44"])
def test_sign_and_verify(shell: Shell, tmp_path: Path, algorithm: str) -> None:
    """Signatures come back with their references, and verify the same way."""
    shell.ok("create", algorithm, "--name", "k")
    items = [{"reference": f"#{n}", "message": b64(bytes([n]))} for n in range(5)]
    path = tmp_path / "items"
    path.write_bytes(lines(*items) + b"\n")
    signed = answers(shell.ok("sign", "k", "--batch", str(path)).out)
    checks = [
        item | {"signature": answer["signature"]}
        for item, answer in zip(items, signed, strict=True)
    ]
    verified = shell.ok("verify", "k", "--batch", "-", stdin=lines(*checks)).out

    assert [item["reference"] for item in items] == [a["reference"] for a in signed]
    assert [{"reference": f"#{n}", "version": 1} for n in range(5)] == answers(verified)


def test_context(shell: Shell) -> None:
    """The context of the command line is that of every item."""
    shell.ok("create", "ML-DSA-44", "--name", "k")
    item = {"message": b64(b"hello")}
    words = ("--batch", "-", "--context", "invoices")
    (signed,) = answers(shell.ok("sign", "k", *words, stdin=lines(item)).out)
    check = lines(item | {"signature": signed["signature"]})

    assert 0 == shell("verify", "k", *words, stdin=check).code
    assert 12 == shell("verify", "k", "--batch", "-", stdin=check).code


def test_some_fail(shell: Shell, tmp_path: Path) -> None:
    """A failed item has its error in its line, and the exit code is 12."""
    shell.ok("create", "aes", "--name", "box")
    good = shell.ok("encrypt", "box", "--text", "hello").text.strip()
    items = lines(
        {"reference": "good", "ciphertext": good},
        {"reference": "bad", "ciphertext": b64(bytes(60))},
    )
    out = tmp_path / "out"
    shown = shell("decrypt", "box", "--batch", "-", stdin=items)
    written = shell("decrypt", "box", "--batch", "-", "--out", str(out), stdin=items)
    found = answers(shown.out)

    assert (ExitCode.BATCH_FAILED, shown.code) == (shown.code, written.code)
    assert "1 of 2 items failed" in shown.err
    assert b64(b"hello") == found[0]["plaintext"]
    assert "decryption_failed" == found[1]["error"]["code"]
    assert shown.out == out.read_bytes()
    assert 0o600 == stat.S_IMODE(out.stat().st_mode)


def test_encrypt(shell: Shell) -> None:
    """Each item has its own additional data."""
    shell.ok("create", "aes", "--name", "box")
    items = [{"plaintext": b64(b"x"), "aad": b64(bytes([n]))} for n in range(3)]
    sealed = answers(
        shell.ok("encrypt", "box", "--batch", "-", stdin=lines(*items)).out
    )
    back = [
        {"ciphertext": answer["ciphertext"], "aad": item["aad"]}
        for item, answer in zip(items, sealed, strict=True)
    ]
    opened = answers(shell.ok("decrypt", "box", "--batch", "-", stdin=lines(*back)).out)

    assert ["x"] * 3 == [base64.b64decode(o["plaintext"]).decode() for o in opened]


def test_mac(shell: Shell) -> None:
    """MACs are computed and checked; a wrong one is its item's error."""
    shell.ok("create", "hmac-sha512", "--name", "m")
    items = [{"reference": str(n), "message": b64(bytes([n]))} for n in range(2)]
    macs = answers(shell.ok("mac", "m", "--batch", "-", stdin=lines(*items)).out)
    swapped = [
        item | {"mac": answer["mac"]}
        for item, answer in zip(items, [macs[0], macs[0]], strict=True)
    ]
    checked = shell("verify-mac", "m", "--batch", "-", stdin=lines(*swapped))

    assert 12 == checked.code
    assert [1, 0] == [a.get("version", 0) for a in answers(checked.out)]
    assert "mac_mismatch" == answers(checked.out)[1]["error"]["code"]


def test_long_batches_are_cut(shell: Shell) -> None:
    """More than a thousand items, or than a body holds, go in several requests."""
    shell.ok("create", "hmac-sha256", "--name", "m")
    many = lines(*({"message": b64(b"%d" % n)} for n in range(1001)))
    big = lines(*({"message": b64(bytes(400_000))} for _ in range(4)))
    first = answers(shell.ok("mac", "m", "--batch", "-", stdin=many).out)
    second = answers(shell.ok("mac", "m", "--batch", "-", stdin=big).out)
    trail = shell.ok("audit", "events", "--kind", "ComputeMacBatch", "--json").json
    counts = [entry["event"]["detail"]["count"] for entry in trail["items"]]

    assert (1001, 4) == (len(first), len(second))
    assert 1001 == len({answer["mac"] for answer in first})
    assert [1000, 1] == counts[::-1][:2]
    assert 4 == sum(counts[::-1][2:])


def test_slow_signatures_are_few_at_once(shell: Shell) -> None:
    """Signatures that take long go in small requests, each within the timeout."""
    shell.ok("create", "slhdsa128f", "--name", "k")
    many = lines(*({"message": b64(b"%d" % n)} for n in range(11)))
    signed = answers(shell.ok("sign", "k", "--batch", "-", stdin=many).out)
    trail = shell.ok("audit", "events", "--kind", "SignBatch", "--json").json
    counts = [entry["event"]["detail"]["count"] for entry in trail["items"]]

    assert 11 == len({answer["signature"] for answer in signed})
    assert [10, 1] == counts[::-1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"message": "x"}', "line 2 of the batch: message must be standard base64"),
        (b'{"mesage": "eA=="}', "line 2 of the batch"),
        (b"{", "line 2 of the batch"),
        (b'{"message": "' + b"A" * (2 << 20) + b'"}', "line 2 must be"),
    ],
    ids=["no base64", "no message", "no JSON", "too long"],
)
def test_bad_line(shell: Shell, line: bytes, message: str) -> None:
    """An invalid line is named, and its request is not sent."""
    shell.ok("create", "hmac-sha256", "--name", "m")
    outcome = shell("mac", "m", "--batch", "-", stdin=b'{"message":"eA=="}\n' + line)

    assert (2, b"") == (outcome.code, outcome.out)
    assert message in outcome.err


def test_an_item_that_is_refused_is_named_by_its_line(shell: Shell) -> None:
    """Whichever request it went in, and however many empty lines there are."""

    def answer(asked: Any) -> MacBatch:
        if len(asked.items) < 1000:
            raise PayloadTooLargeError("items[1].message", actual=9, maximum=8)
        return MacBatch(
            key_id=KEY, version=1, algorithm=Algorithm.AES_256_GCM, items=()
        )

    shell.hsm = Answering(answer)
    items = b'{"message":"eA=="}\n' * 1000 + b'\n{"message":"eA=="}\n' * 2
    outcome = shell("mac", "m", "--batch", "-", stdin=items)

    assert 2 == outcome.code
    assert "line 1004 of the batch: message must be between 0 and 8" in outcome.err


@pytest.mark.parametrize(
    "words",
    [
        ("sign", "k", "--text", "x", "--batch", "f"),
        ("sign", "k", "--in", "x", "--batch", "f"),
        ("sign", "k", "--prehash", "--batch", "f"),
        ("sign", "--batch", "f"),
        ("verify", "k", "--signature", "s", "--batch", "f"),
        ("verify", "k", "--text", "x", "--signature", "s", "--out", "f"),
        ("verify-mac", "k", "--mac", "s", "--batch", "f"),
        ("verify-mac", "k", "--text", "x", "--mac", "s", "--out", "f"),
        ("encrypt", "k", "--aad", "a", "--batch", "f"),
        ("decrypt", "k", "--version", "1", "--batch", "f"),
        ("encrypt", "k", "--hash", "sha-256", "--batch", "f"),
    ],
    ids=" ".join,
)
def test_what_does_not_go_together(shell: Shell, words: tuple[str, ...]) -> None:
    """Options that a batch does not support are refused."""
    outcome = shell(*words)

    assert (2, b"") == (outcome.code, outcome.out)


def test_missing_file(shell: Shell) -> None:
    """A missing file is an error."""
    outcome = shell("mac", "k", "--batch", "/no/file")

    assert 2 == outcome.code
    assert "Can't read the batch" in outcome.err
