# SPDX-License-Identifier: MIT
"""PKCS#11 interface: malformed, oversized and stalled calls harm nobody else."""

import os
import resource
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11 import inventory
from tests.cli.pkcs11_support import Token, create, refusal, running_token
from tests.cli.rpc_client import (
    HANDSHAKE,
    Client,
    array,
    block,
    data,
    first,
    flag,
    mechanism,
    number,
    template,
    ulong,
)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    """Return a token with a PIN and one key."""
    folder = tmp_path_factory.mktemp("hostile")
    create(folder, ec="EC-P256")
    with running_token(folder, pin=b"1234") as token:
        yield token


BIG = 0xFFFF_FFF0
NESTED = struct.pack(">IBI", 0x40000211, 1, 24) + struct.pack(">I", 1)
UNKNOWN = [(0x80000001, data(bytes(9)))]

BODIES = {
    "unknown call": struct.pack(">I", 4711) + block(b"u") + ulong(1),
    "error as a call": struct.pack(">I", 0) + block(b"u") + ulong(1),
    "other signature": struct.pack(">I", 13) + block(b"uu") + ulong(1) + ulong(1),
    "long signature": struct.pack(">II", 13, BIG),
    "too short": struct.pack(">I", 13) + block(b"u") + b"\0",
    "too long": struct.pack(">I", 13) + block(b"u") + ulong(1) + b"\0",
    "long array": struct.pack(">I", 18)
    + block(b"uuay")
    + (ulong(1) * 2 + b"\1" + struct.pack(">I", BIG)),
    "null with a length": struct.pack(">I", 18)
    + block(b"uuay")
    + (ulong(1) * 2 + b"\0" + struct.pack(">I", 8)),
    "many attributes": struct.pack(">I", 26)
    + block(b"uaA")
    + (ulong(1) + struct.pack(">I", BIG)),
    "many rooms": struct.pack(">I", 24)
    + block(b"uufA")
    + (ulong(1) * 2 + struct.pack(">I", BIG)),
    "deep template": struct.pack(">I", 26)
    + block(b"uaA")
    + (ulong(1) + struct.pack(">I", 1) + NESTED * 5000),
    "deep rooms": struct.pack(">I", 24)
    + block(b"uufA")
    + (ulong(1) * 2 + struct.pack(">III", 1, 0x40000211, 24) * 5000),
    "long mechanisms": struct.pack(">I", 26)
    + block(b"uaA")
    + (ulong(1) + struct.pack(">IIBII", 1, 0x40000600, 1, 8, BIG)),
    "unknown mechanism": struct.pack(">I", 42)
    + block(b"uMu")
    + (ulong(1) + struct.pack(">I", 0x80001234) + b"junk" + ulong(1)),
}


@pytest.mark.parametrize("call", [2, 3])
def test_a_refused_call_is_not_kept(token: Token, call: int) -> None:
    """Calls that announce no signature, and bring half a megabyte, leave nothing."""
    with token.client() as client:
        tracemalloc.start()
        try:
            heads = [struct.pack(">III", call, 0xFFFFFFFF, at) for at in range(16)]
            answers = [client.frame(head + bytes(1 << 19)) for head in heads]
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert {ulong(ck.CKR_DEVICE_ERROR)} == {answer[-8:] for answer in answers}
    assert kept < 4 << 20


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_malformed_call_is_an_error(token: Token, body: bytes) -> None:
    """A malformed call fails, and the connection goes on with the next one."""
    with token.client() as client:
        session = client.open_session()
        found, length = struct.unpack_from(">II", client.frame(body))
        left = client.find(session, [])

    assert (found, length) == (0, 1)
    assert len(left) == 1


def test_a_call_without_a_number_is_an_error(token: Token) -> None:
    """A call shorter than its number and signature fails with the next one's start."""
    with token.client() as client:
        session = client.open_session()
        for body in (b"", b"\0\0"):
            short = struct.pack(">III", 7, 0, len(body)) + body
            call = struct.pack(">I", 13) + block(b"u") + ulong(session)
            client.socket.sendall(short + struct.pack(">III", 8, 0, len(call)) + call)
            refused = client.receive(12 + 17)
            answered = client.receive(12 + 12 + 32)

            assert struct.unpack_from(">IIII", refused) == (7, 0, 17, 0)
            assert struct.unpack_from(">IIII", answered) == (8, 0, 44, 13)


def test_a_call_in_pieces(token: Token) -> None:
    """Head, options and body may come one by one."""
    with token.client() as client:
        call = struct.pack(">I", 13) + block(b"u") + ulong(client.open_session())
        head = struct.pack(">III", 7, 6, len(call))
        for part in (*(bytes((byte,)) for byte in head), b"client", call):
            client.socket.sendall(part)
        answered = client.receive(12 + 12 + 32)

    assert struct.unpack_from(">IIII", answered) == (7, 0, 44, 13)


def test_calls_before_the_first(token: Token) -> None:
    """Before C_Initialize, and with other bytes in it, nothing is answered."""
    with Client(token.socket) as client:
        wrong = array(HANDSHAKE[:-1] + b"2") + b"\0" + array(b"\0")
        calls = ((3, "", b""), (1, "ayyay", wrong), (10, "uu", ulong(0) + ulong(4)))
        found = [refusal(client, *call) for call in calls]

    early = ck.CKR_CRYPTOKI_NOT_INITIALIZED
    assert found == [early, ck.CKR_GENERAL_ERROR, early]


def test_a_long_call_is_refused(token: Token) -> None:
    """A body of 3 MiB is read past; one that announces 4 GiB ends the connection."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with token.client() as client:
        session = client.open_session()
        answer = client.frame(bytes(3 * 1024 * 1024))
        left = client.find(session, [])
        # As long as the shortest call, for the server waits for no less.
        client.socket.sendall(struct.pack(">IIIQ", 7, 0, BIG, 0))
        end = client.receive(1)
    with token.client() as client:
        client.socket.sendall(struct.pack(">IIIQ", 7, BIG, 8, 0))
        options_end = client.receive(1)

    assert struct.unpack(">Q", answer[-8:])[0] == ck.CKR_DATA_LEN_RANGE
    assert (len(left), end, options_end) == (1, b"", b"")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * 1024


def test_a_stalled_program_stops_no_other(token: Token) -> None:
    """Half a call, half a head and no version at all leave the next program served."""
    stalled = [token.client() for _ in range(8)]
    stalled += [Client(token.socket) for _ in range(8)]
    try:
        for at, client in enumerate(stalled):
            client.socket.sendall(struct.pack(">III", 7, 0, 100)[: 1 + at % 12])
        with token.client() as client:
            session = client.open_session()
            found = client.find(session, [])
    finally:
        for client in stalled:
            client.socket.close()

    assert len(found) == 1


def test_a_program_that_dies_is_logged_out(token: Token) -> None:
    """The login of a connection ends with it, and is no other connection's."""
    with token.client() as client:
        client.log_in(client.open_session(), b"1234")
    with token.client() as client:
        session = client.open_session()
        private = client.find(session, [(ck.CKA_CLASS, number(ck.CKO_PRIVATE_KEY))])
        info = client.call(13, "u", ulong(session))

    assert private == []
    assert struct.unpack(">4Q", info)[1] == ck.CKS_RW_PUBLIC_SESSION


def test_limits_of_an_application(token: Token) -> None:
    """Sessions, session objects and their bytes have a maximum for each connection."""
    note = [(ck.CKA_CLASS, number(ck.CKO_DATA)), (ck.CKA_VALUE, data(bytes(120_000)))]
    with token.client() as client:
        session = client.open_session()
        created = ulong(session) + template(note)
        for _ in range(17):
            client.call(20, "uaA", created)
        full = refusal(client, 20, "uaA", created)
        for _ in range(1023):
            client.open_session()
        crowded = refusal(client, 10, "uu", ulong(0) + ulong(4))
    with token.client() as client:
        client.open_session()

    assert full == ck.CKR_DEVICE_MEMORY
    assert crowded == ck.CKR_SESSION_COUNT


@pytest.mark.parametrize(("times", "is_read"), [(4, True), (5, False)])
def test_a_short_call_gets_no_endless_answer(
    token: Token, times: int, is_read: bool
) -> None:
    """Values of four megabytes are read by one call, and no more."""
    value = data(bytes(1 << 20))
    note = [(ck.CKA_CLASS, number(ck.CKO_DATA)), (ck.CKA_VALUE, value)]
    asked = struct.pack(">I", times) + struct.pack(">II", ck.CKA_VALUE, 0) * times
    with token.client() as client:
        session = client.open_session()
        made = client.call(20, "uaA", ulong(session) + template(note))
        call = ulong(session) + made + asked
        if is_read:
            assert len(client.call(24, "uufA", call)) > times << 20
        else:
            assert ck.CKR_DEVICE_MEMORY == refusal(client, 24, "uufA", call)


def test_a_session_object_does_not_grow(token: Token) -> None:
    """A change of a session object stays within the limits of new ones."""
    note = [(ck.CKA_CLASS, number(ck.CKO_DATA)), (ck.CKA_VALUE, data(b"x"))]
    with token.client() as client:
        session = client.open_session()
        made = [
            first(client.call(20, "uaA", ulong(session) + template(note)))
            for _ in range(18)
        ]
        grown = template([(ck.CKA_VALUE, data(bytes(120_000)))])
        changes = [ulong(session) + ulong(one) + grown for one in made]
        for change in changes[:-1]:
            client.call(25, "uuaA", change)
        full = refusal(client, 25, "uuaA", changes[-1])
        longer = template([(ck.CKA_VALUE, data(bytes(1_100_000)))])
        too_long = refusal(client, 25, "uuaA", ulong(session) + ulong(made[0]) + longer)

    assert (full, too_long) == (ck.CKR_DEVICE_MEMORY, ck.CKR_ATTRIBUTE_VALUE_INVALID)


def test_a_copy_of_a_key_does_not_grow(token: Token) -> None:
    """New labels of copies stay within the limits of new session objects."""
    copied = template([(ck.CKA_TOKEN, flag(False))])
    label = template([(ck.CKA_LABEL, data(bytes(120_000)))])
    with token.client() as client:
        session = client.open_session()
        (key,) = client.find(session, [])
        copies = [
            first(client.call(21, "uuaA", ulong(session) + ulong(key) + copied))
            for _ in range(18)
        ]
        changes = [ulong(session) + ulong(one) + label for one in copies]
        for change in changes[:-1]:
            client.call(25, "uuaA", change)
        full = refusal(client, 25, "uuaA", changes[-1])

    assert full == ck.CKR_DEVICE_MEMORY


def test_a_note_does_not_repeat_a_value(token: Token) -> None:
    """A refused attribute of a megabyte makes a short note for the user."""
    dated = [(ck.CKA_VALUE_LEN, number(32)), (ck.CKA_START_DATE, data(bytes(1 << 20)))]
    with token.client() as client:
        session = client.open_session()
        call = ulong(session) + mechanism(ck.CKM_AES_KEY_GEN) + template(dated)
        refused = refusal(client, 58, "uMaA", call)

    assert refused == ck.CKR_TEMPLATE_INCONSISTENT
    assert "Attribute 0x110 must be b''." in token.notes[-1]


def test_old_handles_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that finds more objects than it may hold loses the first handles."""
    monkeypatch.setattr(inventory, "MOST_HANDLES", 4)
    create(tmp_path, one="EC-P256", two="EC-P256", three="EC-P256")
    with running_token(tmp_path) as token, token.client() as client:
        session = client.open_session()
        found = [
            client.find(session, [(ck.CKA_LABEL, data(name))])
            for name in (b"one", b"two", b"three")
        ]
        signs = mechanism(ck.CKM_ECDSA)
        old = ulong(session) + signs + ulong(found[0][0])
        forgotten = refusal(client, 42, "uMu", old)
        signature = client.sign(session, signs, min(found[2]), bytes(32))
        everything = refusal(client, 26, "uaA", ulong(session) + template([]))

    assert forgotten == ck.CKR_KEY_HANDLE_INVALID
    assert len(signature) == 64
    assert everything == ck.CKR_DEVICE_MEMORY


def test_a_long_call_ends_its_operation(tmp_path: Path) -> None:
    """After a signature of too much data, the session can begin another."""
    create(tmp_path, ec="EC-P256")
    with running_token(tmp_path) as token, token.client() as client:
        session = client.open_session()
        (key,) = client.find(session, [(ck.CKA_CLASS, number(ck.CKO_PRIVATE_KEY))])
        how = mechanism(ck.CKM_ECDSA_SHA256)
        client.call(42, "uMu", ulong(session) + how + ulong(key))
        long = ulong(session) + array(bytes(3 << 20)) + struct.pack(">I", 64)
        refused = refusal(client, 43, "uayfy", long)
        signature = client.sign(session, how, key, b"message")

    assert refused == ck.CKR_DATA_LEN_RANGE
    assert len(signature) == 64


def test_parts_are_held_within_limits(token: Token) -> None:
    """Data in parts is limited for a program, not for each session; an end frees it."""
    asked = [(ck.CKA_VALUE_LEN, number(32)), (ck.CKA_TOKEN, flag(True))]
    iv = struct.pack(">BI", 1, 16) + bytes(16)
    part = array(bytes(2 * 1024 * 1024 - 100)) + struct.pack(">I", 0xFFFFFFFF)
    with token.client() as client:
        first = client.open_session()
        client.log_in(first, b"1234")
        how = mechanism(ck.CKM_AES_KEY_GEN)
        made = client.call(58, "uMaA", ulong(first) + how + template(asked))
        sessions = [client.open_session() for _ in range(3)]
        for session in sessions:
            client.call(
                29,
                "uMu",
                ulong(session) + mechanism(ck.CKM_AES_CBC_PAD, iv) + made,
            )
        for session in sessions[:2] * 16:
            client.call(31, "uayfy", ulong(session) + part)
        full = refusal(client, 31, "uayfy", ulong(sessions[2]) + part)
        client.call(11, "u", ulong(sessions[0]))
        client.call(
            29, "uMu", ulong(sessions[2]) + mechanism(ck.CKM_AES_CBC_PAD, iv) + made
        )
        client.call(31, "uayfy", ulong(sessions[2]) + part)

    assert full == ck.CKR_DEVICE_MEMORY


def test_stdio_ends_with_its_program(tmp_path: Path) -> None:
    """`hsm-cli pkcs11 stdio` serves one program, and ends with status 0 after it."""
    create(tmp_path, ec="EC-P256")
    body = (
        struct.pack(">I", 1) + block(b"ayyay") + array(HANDSHAKE) + b"\0" + array(b"\0")
    )
    sent = b"\2" + struct.pack(">III", 1, 0, len(body)) + body
    done = subprocess.run(
        (
            *(sys.executable, "-m", "hsm_cli", "pkcs11", "stdio"),
            *("--embedded", tmp_path / "hsm", "--root-key", tmp_path / "root.key"),
        ),
        input=sent,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"\2" + struct.pack(">IIIII", 1, 0, 8, 1, 0)
