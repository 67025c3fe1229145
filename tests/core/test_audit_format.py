"""The published format, checked by code that knows the page and not the product."""

from __future__ import annotations

import hashlib
import hmac
import json

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import Entry
from hsm_core._internal.stores.audit_rows import HEADER_BYTES
from hsm_core._internal.stores.sqlite.audit_rows import (
    APPLICATION_ID,
    SCHEMA,
    SCHEMA_VERSION,
)
from tests.core.audit_vector import example
from tests.support import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference" / "formats-audit.md"


def _page() -> str:
    return PAGE.read_text(encoding="utf-8")


def _values() -> dict[str, str]:
    block = _page().split("```text\n")[1].split("```")[0]
    return dict(line.split(": ", 1) for line in block.splitlines())


def _key(values: dict[str, str], label: bytes) -> bytes:
    salt, key = bytes.fromhex(values["log id"]), bytes.fromhex(values["HMAC key"])
    info = len(label).to_bytes(8, "big") + label + (8).to_bytes(8, "big") + bytes(8)
    extracted = hmac.digest(salt, key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def test_the_tables_of_a_trail_in_sqlite_are_those_of_the_page() -> None:
    """The page shows the statements that make them, and the numbers in the file."""
    block = _page().split("```sql\n")[1].split("```")[0]

    assert list(SCHEMA.values()) == block.splitlines()
    assert f"application id 0x{APPLICATION_ID:08X} and" in _page()
    assert f"(`user_version`) {SCHEMA_VERSION}." in _page()
    assert "bytes 0 to 63" in _page()
    assert 64 == HEADER_BYTES


def test_the_worked_example_is_what_the_code_writes() -> None:
    """The page shows the output of the script that it names."""
    assert f"```text\n{example()}```\n" in _page()


def test_the_worked_example_follows_from_the_page() -> None:
    """MAC, leaf hash and chain are computed here as the page says."""
    values = _values()
    label = b"FerroHSM audit record 2"
    key = _key(values, label)
    prev = "0" * 64
    for number in (0, 1):
        line = values[f"line {number}"]
        body = line[:-74].encode()
        mac = hmac.digest(key, label + b"\0" + body, "sha256").hex()
        found = json.loads(line)

        assert line == f'{body.decode()},"mac":"{mac}"}}'
        assert (f"{number:016x}", prev) == (line[19:35], line[45:109])
        assert (line[19:35], line[45:109]) == (found["seq"], found["prev"])
        assert line[119:135] == found["time"]
        prev = hashlib.sha256(b"\0" + line.encode()).hexdigest()
        assert values[f"leaf hash {number}"] == prev


def test_the_example_of_a_facts_line_follows_from_the_page() -> None:
    """Each part is hashed with its salt, and the entry names the hash of all."""
    values = _values()
    line = values["facts line before line 1"]
    found = json.loads(line)
    hashes = b""
    for label, salt, content in found["parts"]:
        written = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        assert f'["{label}","{salt}",{written}]' in line
        head = len(label).to_bytes(8, "big") + label.encode() + bytes.fromhex(salt)
        hashes += hashlib.sha256(b"\2" + head + written.encode()).digest()

    assert hashlib.sha256(b"\3" + hashes).hexdigest() == found["facts"]
    assert json.loads(values["line 1"])["facts"] == found["facts"]


def test_the_example_of_a_bind_follows_from_the_page() -> None:
    """The salt is one block of AES, so the signature in hand is enough."""
    values = _values()
    key = algorithms.AES256(_key(values, b"FerroHSM audit bind 1"))
    salt = Cipher(key, modes.ECB()).encryptor().update((1).to_bytes(16, "big"))  # noqa: S305
    what = bytes.fromhex(values["signature of line 1"])

    bind = hashlib.sha256(b"\4" + salt + what).hexdigest()
    assert bind == json.loads(values["line 1"])["bind"]


def test_the_example_of_a_head_mark_follows_from_the_page() -> None:
    """Header, slot and MAC are taken apart by the offsets of the page."""
    values = _values()
    check = b"FerroHSM audit key check 1"
    extracted = hmac.digest(bytes(32), bytes.fromhex(values["HMAC key"]), "sha256")
    info = len(check).to_bytes(8, "big") + check + b"\x01"
    value = hmac.digest(extracted, info, "sha256")
    header = b"FerroHSM head 1\n" + bytes.fromhex(values["log id"]) + value
    slot = bytes.fromhex(values["slot 2 without padding"])
    label = b"FerroHSM audit head mark 1"
    mac = hmac.digest(
        _key(values, label), label + b"\0" + header + slot[:186], "sha256"
    )

    assert value.hex() == values["key check value"]
    assert mac == slot[186:]
    assert (2, 1, 2, 0) == (
        int.from_bytes(slot[:8], "big"),
        int.from_bytes(slot[8:16], "big"),
        int.from_bytes(slot[16:24], "big"),
        slot[24],
    )
    assert values["leaf hash 1"] == slot[25:57].hex()
    assert "512" == values["offset of slot 2"]


def test_the_example_of_a_baseline_follows_from_the_page() -> None:
    """Lines, MAC and digest are computed here as the page says."""
    values = _values()
    label = b"FerroHSM audit baseline 1"
    header, key = values["baseline header"], values["baseline key"]
    content = f"{header}\n{key}\n".encode()
    mac = hmac.digest(_key(values, label), label + b"\0" + content, "sha256").hex()
    facts = json.loads(header)

    assert mac == values["baseline MAC"]
    whole = content + mac.encode() + b"\n"
    assert hashlib.sha256(whole).hexdigest() == values["baseline SHA-256"]
    assert (1, 1, values["log id"]) == (
        facts["keys"],
        facts["next_seq"],
        facts["log_id"],
    )
    assert [values["leaf hash 0"]] == facts["roots"] == [facts["last_leaf_hash"]]
    assert [1, "ab" * 32, False] == json.loads(key)[1:]


def test_the_page_names_every_field_in_order() -> None:
    """A field that is added must be published, and means a new format."""
    table = _page().split("The members, in this order.")[1].split("## Keys")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    rows = rows[: next(n for n, row in enumerate(rows) if "detail" in row) + 1]
    named = [name for row in rows for name in row.replace("`", " ").split()]
    head, end = ["format", "seq", "prev", "time"], ["mac"]

    assert list(Entry.__struct_fields__) == [
        *head,
        *(name.strip(",") for name in named if name != ","),
        *end,
    ]


def test_the_page_names_every_reason() -> None:
    """A reason that is given must be explained."""
    table = _page().split("## Verification")[1].split("### The end")[0]

    for reason in Reason:
        assert f"`{tampered(reason, 0).facts['reason']}`" in table
