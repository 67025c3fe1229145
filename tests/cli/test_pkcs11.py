# SPDX-License-Identifier: MIT
"""PKCS#11 interface: token, sessions and objects."""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509.oid import NameOID

import hsm_core
from hsm_cli.interfaces.access import Access, Embedded, LocalProgram
from hsm_cli.interfaces.pkcs11 import certificates
from hsm_cli.interfaces.pkcs11.constants import (
    CKA_ALWAYS_AUTHENTICATE,
    CKA_CLASS,
    CKA_DECRYPT,
    CKA_EC_PARAMS,
    CKA_EC_POINT,
    CKA_EXTRACTABLE,
    CKA_ID,
    CKA_KEY_TYPE,
    CKA_LABEL,
    CKA_PUBLIC_KEY_INFO,
    CKA_SENSITIVE,
    CKA_TOKEN,
    CKA_TRUSTED,
    CKA_VALUE,
    CKA_VALUE_LEN,
    CKA_WRAP,
    CKM_AES_KEY_GEN,
    CKM_ECDSA,
    CKM_SHA256_HMAC,
    CKO_CERTIFICATE,
    CKO_DATA,
    CKO_PRIVATE_KEY,
    CKO_PUBLIC_KEY,
    CKO_SECRET_KEY,
    CKR_ATTRIBUTE_READ_ONLY,
    CKR_ATTRIBUTE_TYPE_INVALID,
    CKR_DEVICE_MEMORY,
    CKR_FUNCTION_FAILED,
    CKR_KEY_FUNCTION_NOT_PERMITTED,
    CKR_KEY_HANDLE_INVALID,
    CKR_OBJECT_HANDLE_INVALID,
    CKR_OPERATION_NOT_INITIALIZED,
    CKR_PIN_INCORRECT,
    CKR_PIN_LOCKED,
    CKR_SESSION_HANDLE_INVALID,
    CKR_SESSION_PARALLEL_NOT_SUPPORTED,
    CKR_SESSION_READ_ONLY,
    CKR_SIGNATURE_INVALID,
    CKR_SLOT_ID_INVALID,
    CKR_TEMPLATE_INCOMPLETE,
    CKR_TEMPLATE_INCONSISTENT,
    CKR_USER_NOT_LOGGED_IN,
)
from hsm_core.operations import (
    AttachCertificates,
    DescribeKey,
    GetCertificates,
    GetPublicKey,
    ListAuditEvents,
    ListKeys,
    UpdateKey,
)
from hsm_core.private_files import make_private_folder, write_private_file
from tests.cli.pkcs11_support import (
    USER,
    Token,
    create,
    refusal,
    rotate,
    running_token,
    tag,
)
from tests.cli.rpc_client import (
    Attributes,
    CallError,
    Client,
    array,
    attributes_of,
    data,
    first,
    flag,
    mechanism,
    number,
    template,
    ulong,
    unpacked,
)
from tests.support import require_program

MANAGER = ("operator", "administrator")
"""Roles of someone who uses and manages keys."""

CERTIFICATES: Attributes = [(CKA_CLASS, number(CKO_CERTIFICATE))]
"""Template that finds all certificates."""


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    """Return a token without a PIN, with a key of each kind."""
    folder = tmp_path_factory.mktemp("token")
    create(folder, rsa="RSA-2048", ec="EC-P256", aes="AES-256-GCM", ed="Ed25519")
    with running_token(folder, roles=("operator", "auditor")) as token:
        yield token


def test_programs_see_the_token(token: Token) -> None:
    """pkcs11-tool lists the token and the objects of all keys."""
    slots, objects = token.tool("-L"), token.tool("-O")

    assert "token manufacturer : FerroHSM" in slots
    for kind in ("Private Key Object; RSA", "Public Key Object; EC ", "Secret Key"):
        assert kind in objects
    assert "label:      aes" in objects


@pytest.mark.parametrize(
    ("label", "mechanism"), [("rsa", "SHA256-RSA-PKCS"), ("ec", "ECDSA-SHA256")]
)
def test_a_signature_verifies(
    token: Token, tmp_path: Path, label: str, mechanism: str
) -> None:
    """OpenSSL verifies a signature with the public key, both read by pkcs11-tool."""
    data, signature, public = (tmp_path / name for name in ("data", "sig", "der"))
    data.write_bytes(b"hello")
    identifier = identifier_of(token, label)
    token.tool(
        *("--sign", "-m", mechanism, "--id", identifier, "-i", data, "-o", signature),
        *("--signature-format", "openssl"),
    )
    read = ("--read-object", "--type", "pubkey", "--id", identifier)
    token.tool(*read, "-o", public)

    verified = subprocess.run(
        (
            *(require_program("openssl"), "dgst", "-sha256", "-keyform", "DER"),
            *("-verify", public, "-signature", signature, data),
        ),
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert verified.stdout == b"Verified OK\n"


def identifier_of(token: Token, label: str) -> str:
    """Return the CKA_ID of a key as pkcs11-tool shows it."""
    lines = [line.split() for line in token.tool("-O").splitlines()]
    at = lines.index(["label:", label])
    return next(line[1] for line in lines[at:] if line[:1] == ["ID:"])


def test_a_pin_guards_private_objects(tmp_path: Path) -> None:
    """Before the login only public objects are there, and wrong PINs are counted."""
    create(tmp_path, ec="EC-P256")
    with running_token(tmp_path, pin=b"1234") as token, token.client() as client:
        session = client.open_session()
        before = client.find(session, [])
        private = [(CKA_CLASS, number(CKO_PRIVATE_KEY))]
        hidden = client.find(session, private)
        with pytest.raises(CallError) as wrong:
            client.log_in(session, b"1235")
        client.log_in(session, b"1234")
        after = client.find(session, private)
        signature = client.sign(session, mechanism(CKM_ECDSA), after[0], bytes(32))
        client.call(19, "u", ulong(session))
        gone = client.find(session, private)
        with pytest.raises(CallError) as unseen:
            client.sign(session, mechanism(CKM_ECDSA), after[0], bytes(32))

    assert (len(before), hidden, gone) == (1, [], [])
    assert wrong.value.rv == CKR_PIN_INCORRECT
    assert len(signature) == 64
    assert unseen.value.rv == CKR_KEY_HANDLE_INVALID


def test_wrong_pins_lock_the_token(tmp_path: Path) -> None:
    """After ten wrong PINs, also over new connections, the right one is refused."""
    create(tmp_path, ec="EC-P256")
    found = []
    with running_token(tmp_path, pin=b"1234") as token:
        for pin in (*[b"0000"] * 10, b"1234"):
            with token.client() as client, pytest.raises(CallError) as refused:
                client.log_in(client.open_session(), pin)
            found.append(refused.value.rv)

    assert found == [CKR_PIN_INCORRECT] * 10 + [CKR_PIN_LOCKED]


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_versions_of_the_protocol(token: Token, version: int) -> None:
    """The server answers the version that is offered, or the highest it knows."""
    with token.client(version) as client:
        session = client.open_session()
        (key,) = client.find(session, of_key(b"ec"))
        absent = b"" if version >= 2 else struct.pack(">I", 0xFFFFFFFF)
        how = mechanism(CKM_ECDSA, absent)

        assert client.version == min(version, 2)
        assert len(client.sign(session, how, key, bytes(32))) == 64


def test_a_size_query_leaves_no_record(token: Token) -> None:
    """A size query and a small buffer sign nothing; the next call does, once."""
    with token.client() as client:
        session = client.open_session()
        (key,) = client.find(session, of_key(b"ec"))
        how = mechanism(CKM_ECDSA)
        client.call(42, "uMu", ulong(session) + how + ulong(key))
        answers = [
            client.call(
                *(43, "uayfy"),
                ulong(session) + array(bytes(32)) + struct.pack(">I", capacity),
            )
            for capacity in (0, 0xFFFFFFFF, 63)
        ]
        before = signatures(token)
        signature = client.call(
            43, "uayfy", ulong(session) + array(bytes(32)) + struct.pack(">I", 64)
        )

    assert answers == [struct.pack(">BI", 0, 64)] * 3
    assert (len(unpacked(signature)), signatures(token) - before) == (64, 1)


def test_attributes_of_a_private_key(token: Token) -> None:
    """A private key tells its curve and identity, and none of its secrets."""
    wanted = (CKA_CLASS, CKA_KEY_TYPE, CKA_EC_PARAMS, CKA_SENSITIVE, CKA_VALUE, 0x999)
    with token.client() as client:
        session = client.open_session()
        (key,) = client.find(session, of_key(b"ec"))
        query = b"".join(struct.pack(">II", kind, 200) for kind in wanted)
        answer = client.call(
            *(24, "uufA"),
            ulong(session) + ulong(key) + struct.pack(">I", len(wanted)) + query,
        )

    found, rv = attributes_of(answer)
    curve = bytes.fromhex("06082a8648ce3d030107")
    assert found == dict(zip(wanted, (3, 3, curve, 1, None, None), strict=True))
    assert rv == CKR_ATTRIBUTE_TYPE_INVALID


def test_versions_of_a_key_are_objects(tmp_path: Path) -> None:
    """The current version comes first and signs; an older one only verifies."""
    create(tmp_path, ec="EC-P256")
    rotate(tmp_path, "ec")
    with running_token(tmp_path) as token, token.client() as client:
        session = client.open_session()
        keys = client.find(session, of_key(b"ec"))
        identifiers = [attribute_of(client, session, key, CKA_ID) for key in keys]
        by_id = client.find(session, [(CKA_ID, data(identifiers[1]))])
        signature = client.sign(session, mechanism(CKM_ECDSA), keys[0], bytes(32))
        with pytest.raises(CallError) as refused:
            client.sign(session, mechanism(CKM_ECDSA), keys[1], bytes(32))

    assert identifiers[1] == identifiers[0] + (1).to_bytes(4, "big")
    assert by_id[0] == keys[1]
    assert len(signature) == 64
    assert refused.value.rv == CKR_KEY_FUNCTION_NOT_PERMITTED


def test_label_and_id_can_be_changed(tmp_path: Path) -> None:
    """A legal name becomes the key's name, anything else a tag; programs find both."""
    create(tmp_path, ec="EC-P256")
    with running_token(tmp_path, roles=MANAGER) as token, token.client() as client:
        session = client.open_session()
        (key,) = client.find(session, of_key(b"ec"))
        label, identifier = "Schlüssel 7".encode(), b"\1\2"
        changes = [(CKA_LABEL, data(label)), (CKA_ID, data(identifier))]
        arguments = ulong(session) + ulong(key) + template(changes)
        client.call(25, "uuaA", arguments)
        by_label = client.find(session, of_key(label))
        by_id = client.find(session, [(CKA_ID, data(identifier))])
        with pytest.raises(CallError) as refused:
            client.call(
                *(25, "uuaA"),
                ulong(session) + ulong(key) + template([(CKA_EXTRACTABLE, flag(True))]),
            )

    assert (by_label, by_id[0], len(by_id)) == ([key], key, 2)
    assert refused.value.rv == CKR_ATTRIBUTE_READ_ONLY


def test_a_label_that_is_the_name_of_another_key(tmp_path: Path) -> None:
    """Two keys may have the same label, which is the name of the first alone."""
    create(tmp_path, ec="EC-P256", other="EC-P256")
    with running_token(tmp_path, roles=MANAGER) as token, token.client() as client:
        session = client.open_session()
        (key,) = client.find(session, of_key(b"other"))
        change = template([(CKA_LABEL, data(b"ec")), (CKA_ID, data(b"77"))])
        client.call(25, "uuaA", ulong(session) + ulong(key) + change)
        found = client.find(session, of_key(b"ec"))
        identifier = attribute_of(client, session, key, CKA_ID)
        names = token.access.hsm(LocalProgram()).execute(ListKeys()).items

    assert (len(found), found[1], identifier) == (2, key, b"77")
    assert {info.name for info in names} == {"ec", "other"}


def test_a_change_of_a_label_keeps_other_tags(tmp_path: Path) -> None:
    """Tags that a key got since a program found it stay."""
    create(tmp_path, ec="EC-P256")
    with running_token(tmp_path, roles=MANAGER) as token, token.client() as client:
        session = client.open_session()
        (key,) = client.find(session, of_key(b"ec"))
        hsm = token.access.hsm(LocalProgram())
        hsm.execute(UpdateKey(key_id="ec", tags=("team:a",)))
        change = template([(CKA_LABEL, data(b"Two words"))])
        client.call(25, "uuaA", ulong(session) + ulong(key) + change)
        tags = hsm.execute(DescribeKey(key_id="ec")).tags

    assert "team:a" in tags
    assert len(tags) == 2


def test_changes_need_a_login(tmp_path: Path) -> None:
    """Public objects are seen without the PIN, and changed with it."""
    create(tmp_path, ec="EC-P256")
    leaf, _ = chain_for(public_key_of(tmp_path, "ec"))
    public = [(CKA_CLASS, number(CKO_PUBLIC_KEY)), (CKA_LABEL, data(b"ec"))]
    with (
        running_token(tmp_path, pin=b"1234", roles=MANAGER) as token,
        token.client() as client,
    ):
        session = client.open_session()
        (key,) = client.find(session, public)
        identifier = attribute_of(client, session, key, CKA_ID)
        change = template([(CKA_LABEL, data(b"other"))])
        calls = [
            (25, "uuaA", ulong(session) + ulong(key) + change),
            (20, "uaA", ulong(session) + certificate(leaf, identifier)),
        ]
        refusals = [refusal(client, *call) for call in calls]
        client.log_in(session, b"1234")
        stored = first(client.call(*calls[1]))
        client.call(19, "u", ulong(session))
        kept = refusal(client, 22, "uu", ulong(session) + ulong(stored))
        client.log_in(session, b"1234")
        client.call(*calls[0])

    assert refusals == [CKR_USER_NOT_LOGGED_IN] * 2
    assert kept == CKR_USER_NOT_LOGGED_IN


def test_a_copy_ends_and_its_key_stays(tmp_path: Path) -> None:
    """Destroying a copy of a key, or ending its session, leaves the key alone."""
    create(tmp_path, ec="EC-P256")
    with running_token(tmp_path) as token, token.client() as client:
        session, other = client.open_session(), client.open_session()
        (key,) = client.find(session, of_key(b"ec"))
        copy = template([(CKA_TOKEN, flag(False)), (CKA_LABEL, data(b"copied"))])
        copies = [
            first(client.call(21, "uuaA", ulong(one) + ulong(key) + copy))
            for one in (session, other)
        ]
        signature = client.sign(session, mechanism(CKM_ECDSA), copies[1], bytes(32))
        named = client.find(session, of_key(b"copied"))
        client.call(22, "uu", ulong(session) + ulong(copies[0]))
        client.call(11, "u", ulong(other))
        left = client.find(session, of_key(b"ec"))

    assert len(signature) == 64
    assert named == copies
    assert left == [key]


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (("--keypairgen", "--key-type", "EC:prime256v1"), "sign"),
        (("--keypairgen", "--key-type", "RSA:2048"), "sign"),
    ],
)
def test_a_new_key_has_one_purpose(
    token: Token, words: tuple[str, ...], usage: str
) -> None:
    """pkcs11-tool asks for all usages; the key gets one purpose, and a note says so."""
    token.notes.clear()
    made = token.tool(*words, "--label", "all usages")

    assert f"Usage:      {usage}\n" in made
    assert "The new key lacks the usage" in "".join(token.notes)


def test_no_key_wraps_and_decrypts(token: Token) -> None:
    """A key that is asked to wrap and decrypt gets no right to wrap."""
    asked = [
        (CKA_VALUE_LEN, number(32)),
        (CKA_TOKEN, flag(True)),
        (CKA_WRAP, flag(True)),
        (CKA_DECRYPT, flag(True)),
    ]
    with token.client() as client:
        session = client.open_session()
        made = client.call(
            58, "uMaA", ulong(session) + mechanism(CKM_AES_KEY_GEN) + template(asked)
        )
        rights = [
            attribute_of(client, session, first(made), kind)
            for kind in (CKA_WRAP, CKA_DECRYPT, CKA_SENSITIVE)
        ]

    assert rights == [0, 1, 1]


def test_a_key_asks_for_the_pin_each_time(tmp_path: Path) -> None:
    """CKA_ALWAYS_AUTHENTICATE: a signature waits for a login of its own."""
    create(tmp_path, ec="EC-P256")
    tag(tmp_path, "ec", "pkcs11-always-authenticate")
    with running_token(tmp_path, pin=b"1234") as token, token.client() as client:
        session = client.open_session()
        client.log_in(session, b"1234")
        (key,) = client.find(session, of_key(b"ec"))
        begun = ulong(session) + mechanism(CKM_ECDSA) + ulong(key)
        asked = ulong(session) + array(bytes(32)) + struct.pack(">I", 64)
        again = [ulong(session) + ulong(2) + array(pin) for pin in (b"0", b"1234")]
        too_early = refusal(client, 18, "uuay", again[1])
        client.call(42, "uMu", begun)
        refusals = [
            refusal(client, 43, "uayfy", asked),
            refusal(client, 18, "uuay", again[0]),
            refusal(client, 43, "uayfy", asked),
        ]
        client.call(18, "uuay", again[1])
        signature = unpacked(client.call(43, "uayfy", asked))
        client.call(42, "uMu", begun)
        next_time = refusal(client, 43, "uayfy", asked)

    missing = CKR_USER_NOT_LOGGED_IN
    assert too_early == CKR_OPERATION_NOT_INITIALIZED
    assert refusals == [missing, CKR_PIN_INCORRECT, missing]
    assert (len(signature), next_time) == (64, missing)


def test_a_login_confirms_one_operation(tmp_path: Path) -> None:
    """Of two operations that wait for the PIN, it lets the later one go on."""
    create(tmp_path, mac="HMAC-SHA-256")
    tag(tmp_path, "mac", "pkcs11-always-authenticate")
    with running_token(tmp_path, pin=b"1234") as token, token.client() as client:
        session = client.open_session()
        client.log_in(session, b"1234")
        (key,) = client.find(session, [(CKA_CLASS, number(CKO_SECRET_KEY))])
        shown = attribute_of(client, session, key, CKA_ALWAYS_AUTHENTICATE)
        how = ulong(session) + mechanism(CKM_SHA256_HMAC) + ulong(key)
        client.call(42, "uMu", how)
        client.call(48, "uMu", how)
        client.call(18, "uuay", ulong(session) + ulong(2) + array(b"1234"))
        message = ulong(session) + array(b"message")
        first_one = refusal(client, 43, "uayfy", message + struct.pack(">I", 32))
        second = refusal(client, 49, "uayay", message + array(bytes(32)))

    assert shown == 1
    assert (first_one, second) == (CKR_USER_NOT_LOGGED_IN, CKR_SIGNATURE_INVALID)


def test_a_session_key_ends_with_its_session(tmp_path: Path) -> None:
    """A session key is its program's alone, and is destroyed with the session."""
    asked = template([(CKA_VALUE_LEN, number(32)), (CKA_TOKEN, flag(False))])
    secret = [(CKA_CLASS, number(CKO_SECRET_KEY))]
    with (
        running_token(tmp_path, roles=MANAGER) as token,
        token.client() as client,
        token.client() as other,
    ):
        session, later = client.open_session(), client.open_session()
        arguments = ulong(session) + mechanism(CKM_AES_KEY_GEN) + asked
        key = first(client.call(58, "uMaA", arguments))
        seen = client.find(later, secret), other.find(other.open_session(), secret)
        (before,) = token.access.hsm(LocalProgram()).execute(ListKeys()).items
        client.call(11, "u", ulong(session))
        gone = client.find(later, secret)
        after = token.access.hsm(LocalProgram()).execute(ListKeys()).items

    assert seen == ([key], [])
    assert "pkcs11-session" in before.tags
    assert (gone, after) == ([], ())


@contextmanager
def _serving(
    config: Path, socket: Path, *words: str | Path, fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command that serves at a socket, from when it says so."""
    with subprocess.Popen(
        (*words, "--socket", socket),
        env={**os.environ, "XDG_CONFIG_HOME": str(config)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=fds,
    ) as served:
        try:
            assert served.stdout is not None
            served.stdout.readline()
            yield served
        finally:
            served.terminate()


@contextmanager
def _served_hsm(
    folder: Path, *before: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Serve the HSM of a folder, by a program that *before* starts."""
    create(folder)
    socket = folder / "run" / "pkcs11.sock"
    words = ("--embedded", folder / "hsm", "--root-key", folder / "root.key")
    starting = (*before, sys.executable, "-m", "hsm_cli", "--roles", ",".join(MANAGER))
    with _serving(folder, socket, *starting, "pkcs11", "serve", *words) as served:
        yield served, socket


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP])
def test_a_session_key_ends_with_the_interface(
    tmp_path: Path, stop: signal.Signals
) -> None:
    """A signal, also that of a terminal that closes, ends all sessions first."""
    asked = template([(CKA_VALUE_LEN, number(32)), (CKA_TOKEN, flag(False))])
    with _served_hsm(tmp_path) as (served, socket), Client(socket) as client:
        client.initialize()
        arguments = ulong(client.open_session()) + mechanism(CKM_AES_KEY_GEN) + asked
        client.call(58, "uMaA", arguments)
        served.send_signal(stop)
        status = served.wait(60)
    with hsm_core.open(tmp_path / "hsm", root=tmp_path / "root.key") as hsm:
        left = hsm.as_user(USER, roles=MANAGER).execute(ListKeys()).items

    assert (status, left, socket.exists()) == (0, (), False)


def test_an_interface_outlives_its_terminal(tmp_path: Path) -> None:
    """Who starts it with SIGHUP ignored, as nohup(1) does, keeps it."""
    without = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    with _served_hsm(tmp_path, *without) as (served, socket):
        served.send_signal(signal.SIGHUP)
        with Client(socket) as client:
            client.initialize()
        served.terminate()

        assert served.wait(60) == 0


def test_a_session_key_ends_with_the_login(tmp_path: Path) -> None:
    """C_Logout ends private session objects, and so the key of a session."""
    asked = template([(CKA_VALUE_LEN, number(32)), (CKA_TOKEN, flag(False))])
    with (
        running_token(tmp_path, pin=b"1234", roles=MANAGER) as token,
        token.client() as client,
    ):
        session = client.open_session()
        client.log_in(session, b"1234")
        client.call(58, "uMaA", ulong(session) + mechanism(CKM_AES_KEY_GEN) + asked)
        client.call(19, "u", ulong(session))
        client.log_in(session, b"1234")
        left = client.find(session, [(CKA_CLASS, number(CKO_SECRET_KEY))])
        keys = token.access.hsm(LocalProgram()).execute(ListKeys()).items

    assert (left, keys) == ([], ())


def test_a_session_key_without_room_is_destroyed(tmp_path: Path) -> None:
    """A program with 1,024 session objects gets no session key, and leaves none."""
    note = template([(CKA_CLASS, number(CKO_DATA))])
    asked = template([(CKA_VALUE_LEN, number(32)), (CKA_TOKEN, flag(False))])
    with (
        running_token(tmp_path, roles=MANAGER) as token,
        token.client() as client,
    ):
        session = client.open_session()
        for _ in range(1024):
            client.call(20, "uaA", ulong(session) + note)
        arguments = ulong(session) + mechanism(CKM_AES_KEY_GEN) + asked
        full = refusal(client, 58, "uMaA", arguments)
        keys = token.access.hsm(LocalProgram()).execute(ListKeys()).items

    assert (full, keys) == (CKR_DEVICE_MEMORY, ())


def test_sessions_have_rules(token: Token) -> None:
    """Parallel sessions, unknown ones and changes in read-only ones are refused."""
    with token.client() as client:
        session = client.open_session(is_writable=False)
        (key,) = client.find(session, of_key(b"ec"))
        calls = (
            (10, "uu", ulong(0) + ulong(0)),
            (10, "uu", ulong(5) + ulong(4)),
            (13, "u", ulong(999)),
            (22, "uu", ulong(session) + ulong(key)),
            (27, "ufu", ulong(session) + struct.pack(">I", 1)),
        )
        found = [refusal(client, *call) for call in calls]

    assert found == [
        CKR_SESSION_PARALLEL_NOT_SUPPORTED,
        CKR_SLOT_ID_INVALID,
        CKR_SESSION_HANDLE_INVALID,
        CKR_SESSION_READ_ONLY,
        CKR_OPERATION_NOT_INITIALIZED,
    ]


def test_each_profile_has_a_slot(tmp_path: Path) -> None:
    """Login, sessions and keys of one token are not those of another."""
    for name in ("first", "second"):
        create(tmp_path / name, **{name: "EC-P256"})
    second = tmp_path / "second"
    connector = Embedded(
        second / "hsm", second / "root.key", principal=USER, roles=["operator"]
    )
    notes: list[str] = []
    other = Access("pkcs11", connector, pin=b"4321", notify=notes.append)
    private: Attributes = [(CKA_CLASS, number(CKO_PRIVATE_KEY))]
    with (
        running_token(tmp_path / "first", pin=b"1234", others=(other,)) as token,
        token.client() as client,
    ):
        slots = client.call(4, "yfu", b"\1" + struct.pack(">I", 9))
        absent = refusal(client, 10, "uu", ulong(2) + ulong(6))
        one = client.open_session()
        two = first(client.call(10, "uu", ulong(1) + ulong(6)))
        client.log_in(two, b"4321")
        seen = [client.find(session, private) for session in (one, two)]
        wrong = refusal(client, 18, "uuay", ulong(one) + ulong(1) + array(b"4321"))
        label = attribute_of(client, two, seen[1][0], CKA_LABEL)
        info = struct.unpack(">4Q", client.call(13, "u", ulong(two)))
        refusal(client, 64, "ufy", ulong(two) + struct.pack(">I", 2**30))
        client.call(12, "u", ulong(1))
        gone = refusal(client, 13, "u", ulong(two))
        left = client.find(one, private)
    other.close()

    assert struct.unpack(">BIQQ", slots) == (1, 2, 0, 1)
    assert [len(found) for found in seen] == [0, 1]
    assert (label, info[0], left) == (b"second", 1, [])
    assert (absent, wrong) == (CKR_SLOT_ID_INVALID, CKR_PIN_INCORRECT)
    assert gone == CKR_SESSION_HANDLE_INVALID
    assert "C_GenerateRandom" in "".join(notes)
    assert "C_GenerateRandom" not in "".join(token.notes)


@contextmanager
def _served_profiles(
    folder: Path, *words: str, fds: tuple[int, ...] = ()
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Serve the profiles *two* and *one*; yield the process and its socket."""
    profile = '[profiles.{}]\nendpoint = "https://localhost:1"\ncredential = "token"\n'
    lines = "".join(profile.format(name) for name in ("one", "two"))
    make_private_folder(folder / "config" / "ferrohsm")
    write_private_file(folder / "config/ferrohsm/config.toml", lines.encode())
    socket = folder / "run" / "pkcs11.sock"
    starting = (sys.executable, "-m", "hsm_cli", "pkcs11", "serve")
    words = ("--profile", "two", "--profile", "one", *words)
    with _serving(folder / "config", socket, *starting, *words, fds=fds) as served:
        yield served, socket


def test_profiles_on_the_command_line(tmp_path: Path) -> None:
    """`pkcs11 serve --profile` gives each profile a slot; lines begin with its name."""
    with _served_profiles(tmp_path) as (served, socket):
        with Client(socket) as client:
            client.initialize()
            labels = [client.call(6, "u", ulong(slot))[4:36] for slot in (0, 1)]
            session = first(client.call(10, "uu", ulong(1) + ulong(6)))
            refusal(client, 26, "uaA", ulong(session) + template([]))
        served.terminate()
        _, notes = served.communicate(timeout=60)

    assert [label.strip() for label in labels] == [b"two", b"one"]
    assert notes.startswith(b"hsm-cli: one: pkcs11: ")
    assert served.returncode == 0


def test_a_pin_of_several_profiles(tmp_path: Path) -> None:
    """It is read once, from a descriptor too, and each slot asks for it."""
    pin, given = os.pipe()
    os.write(given, b"1234\n")
    os.close(given)
    with (
        _served_profiles(tmp_path, "--pin", f"fd:{pin}", fds=(pin,)) as (_, socket),
        Client(socket) as client,
    ):
        os.close(pin)
        client.initialize()
        codes = []
        for slot in (0, 1):
            session = first(client.call(10, "uu", ulong(slot) + ulong(6)))
            for text in (b"0000", b"1234"):
                login = ulong(session) + ulong(1) + array(text)
                codes.append(refusal(client, 18, "uuay", login))

    # The right one goes on to the credential, which is missing.
    assert [CKR_PIN_INCORRECT, CKR_USER_NOT_LOGGED_IN] * 2 == codes


def test_a_given_token_is_for_one_profile(tmp_path: Path) -> None:
    """A token in the environment is not sent to the servers of several profiles."""
    found = subprocess.run(
        (
            *(sys.executable, "-m", "hsm_cli", "pkcs11", "stdio"),
            *("--profile", "one", "--profile", "two"),
        ),
        env={
            **os.environ,
            "XDG_CONFIG_HOME": str(tmp_path),
            "FERROHSM_AUTH_TOKEN": "secret",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert found.returncode == 2
    assert "would be sent to the servers of all profiles" in found.stderr


def test_data_objects_live_in_a_session(token: Token) -> None:
    """A data object is found until its session ends; one of the token is refused."""
    with token.client() as client:
        session, other = client.open_session(), client.open_session()
        given = [
            (CKA_CLASS, number(CKO_DATA)),
            (CKA_LABEL, data(b"note")),
            (CKA_VALUE, data(b"hello")),
        ]
        client.call(20, "uaA", ulong(other) + template(given))
        before = client.find(session, given)
        client.call(11, "u", ulong(other))
        after = client.find(session, given)
        kept = [*given, (CKA_TOKEN, flag(True))]
        refused = refusal(client, 20, "uaA", ulong(session) + template(kept))

    assert (len(before), after) == (1, [])
    assert refused == CKR_TEMPLATE_INCONSISTENT


def of_key(label: bytes) -> Attributes:
    """Return what finds a private key by its label."""
    return [(CKA_CLASS, number(CKO_PRIVATE_KEY)), (CKA_LABEL, data(label))]


def attribute_of(client: Client, session: int, handle: int, kind: int) -> Any:
    """Return an attribute of an object."""
    query = struct.pack(">III", 1, kind, 4096)
    answer = client.call(24, "uufA", ulong(session) + ulong(handle) + query)
    return attributes_of(answer)[0][kind]


def signatures(token: Token) -> int:
    """Return how many signatures the audit log holds."""
    hsm = token.access.hsm(LocalProgram())
    return len(hsm.execute(ListAuditEvents(kind=("Sign",), limit=1000)).items)


def test_certificates_are_kept_with_keys(tmp_path: Path) -> None:
    """A program stores, finds and removes the chain of a key, leaf first."""
    create(tmp_path, ec="EC-P256", other="EC-P256")
    leaf, authority = chain_for(public_key_of(tmp_path, "ec"))
    with running_token(tmp_path, roles=MANAGER) as token, token.client() as client:
        session = client.open_session()
        (key,) = client.find(session, of_key(b"ec"))
        identifier = attribute_of(client, session, key, CKA_ID)
        stored = [store(client, session, one, identifier) for one in (leaf, authority)]
        by_id = [(CKA_CLASS, number(CKO_CERTIFICATE)), (CKA_ID, data(identifier))]
        found = client.find(session, [(CKA_CLASS, number(CKO_CERTIFICATE))])
        of_leaf = client.find(session, by_id)
        values = [attribute_of(client, session, one, CKA_VALUE) for one in found]
        shown = token.tool("-O", "--type", "cert")
        foreign = chain_for(ec.generate_private_key(ec.SECP256R1()).public_key())[0]
        refused = refusal(
            *(client, 20, "uaA"), ulong(session) + certificate(foreign, identifier)
        )
        client.call(22, "uu", ulong(session) + ulong(stored[1]))
        shorter = client.find(session, [(CKA_CLASS, number(CKO_CERTIFICATE))])
        client.call(22, "uu", ulong(session) + ulong(stored[0]))
        none = client.find(session, [(CKA_CLASS, number(CKO_CERTIFICATE))])
        again = store(client, session, leaf, identifier)

    assert (found, of_leaf, again) == (stored, stored[:1], stored[0])
    assert values == [leaf, authority]
    assert "subject:    DN: CN=leaf" in shown
    assert refused == CKR_TEMPLATE_INCONSISTENT
    assert (shorter, none) == (stored[:1], [])


def test_a_renewed_certificate_keeps_its_issuers(tmp_path: Path) -> None:
    """The chain loses only what the new certificate of its key does not name."""
    create(tmp_path, ec="EC-P256")
    public = public_key_of(tmp_path, "ec")
    (leaf, authority), (renewed, another) = chain_for(public), chain_for(public)
    other, _ = chain_for(public, issuer="other")
    with running_token(tmp_path, roles=MANAGER) as token, token.client() as client:
        session = client.open_session()
        hsm = token.access.hsm(LocalProgram())
        hsm.execute(AttachCertificates(key_id="ec", chain=leaf + authority))
        (key,) = client.find(session, of_key(b"ec"))
        identifier = attribute_of(client, session, key, CKA_ID)
        before = client.find(session, CERTIFICATES)
        chains = []
        for stored in (leaf, renewed, authority, other):
            store(client, session, stored, identifier)
            found = hsm.execute(GetCertificates(key_id="ec")).items
            chains.append([one.der for one in found])
        query = struct.pack(">III", 1, CKA_VALUE, 4096)
        gone = [
            refusal(client, 24, "uufA", ulong(session) + ulong(one) + query)
            for one in before
        ]
        hsm.execute(AttachCertificates(key_id="ec", chain=leaf + authority))
        full = refusal(
            *(client, 20, "uaA"), ulong(session) + certificate(another, identifier)
        )

    assert chains == [[leaf, authority], *[[renewed, authority]] * 2, [other]]
    assert full == CKR_TEMPLATE_INCONSISTENT
    assert gone == [CKR_OBJECT_HANDLE_INVALID] * 2


def test_an_old_handle_removes_no_other_certificate(tmp_path: Path) -> None:
    """A handle names a certificate, and not the one that came to its place."""
    create(tmp_path, ec="EC-P256")
    public = public_key_of(tmp_path, "ec")
    old, new = chain_for(public), chain_for(public)
    with running_token(tmp_path, roles=MANAGER) as token, token.client() as client:
        session = client.open_session()
        hsm = token.access.hsm(LocalProgram())
        hsm.execute(AttachCertificates(key_id="ec", chain=b"".join(old)))
        stale = client.find(session, CERTIFICATES)
        hsm.execute(AttachCertificates(key_id="ec", chain=b"".join(new)))
        refusals = [
            refusal(client, 22, "uu", ulong(session) + ulong(one))
            for one in (*stale, *stale)
        ]
        found = client.find(session, CERTIFICATES)
        left = [attribute_of(client, session, one, CKA_VALUE) for one in found]
        client.call(22, "uu", ulong(session) + ulong(found[0]))
        query = struct.pack(">III", 1, CKA_VALUE, 4096)
        of_issuer = ulong(session) + ulong(found[1]) + query
        gone = refusal(client, 24, "uufA", of_issuer)

    assert refusals == [CKR_OBJECT_HANDLE_INVALID] * 4
    assert (left, len({*stale, *found})) == ([*new], 4)
    assert gone == CKR_OBJECT_HANDLE_INVALID


def test_a_removal_keeps_what_another_attached_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain that was replaced after a program's call read it stays as it is."""
    create(tmp_path, ec="EC-P256")
    public = public_key_of(tmp_path, "ec")
    old, new = chain_for(public), chain_for(public)
    with running_token(tmp_path, roles=MANAGER) as token, token.client() as client:
        session = client.open_session()
        hsm = token.access.hsm(LocalProgram())
        hsm.execute(AttachCertificates(key_id="ec", chain=b"".join(old)))
        _, issuer = client.find(session, CERTIFICATES)

        def attached_late(**given: Any) -> AttachCertificates:
            hsm.execute(AttachCertificates(key_id="ec", chain=b"".join(new)))
            return AttachCertificates(**given)

        monkeypatch.setattr(certificates, "AttachCertificates", attached_late)
        refused = refusal(client, 22, "uu", ulong(session) + ulong(issuer))
        left = hsm.execute(GetCertificates(key_id="ec")).items

    assert refused == CKR_FUNCTION_FAILED
    assert [one.der for one in left] == [*new]


def test_a_certificate_is_compared_with_few_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate without the CKA_ID of its key is refused if there are many keys."""
    monkeypatch.setattr(certificates, "_MOST_READ", 1)
    create(tmp_path, first="EC-P256", second="EC-P256")
    leaf, _ = chain_for(public_key_of(tmp_path, "first"))
    with running_token(tmp_path, roles=MANAGER) as token, token.client() as client:
        session = client.open_session()
        (key,) = client.find(session, of_key(b"first"))
        identifier = attribute_of(client, session, key, CKA_ID)
        given = [
            (CKA_CLASS, number(CKO_CERTIFICATE)),
            (CKA_TOKEN, flag(True)),
            (CKA_VALUE, data(leaf)),
        ]
        refused = refusal(client, 20, "uaA", ulong(session) + template(given))
        stored = store(client, session, leaf, identifier)

    assert refused == CKR_TEMPLATE_INCOMPLETE
    assert stored


def test_a_certificate_has_fixed_attributes(tmp_path: Path) -> None:
    """No program makes a certificate trusted, or gives it another value."""
    create(tmp_path, ec="EC-P256")
    leaf, authority = chain_for(public_key_of(tmp_path, "ec"))
    with running_token(tmp_path, roles=MANAGER) as token, token.client() as client:
        session = client.open_session()
        hsm = token.access.hsm(LocalProgram())
        hsm.execute(AttachCertificates(key_id="ec", chain=leaf))
        (stored,) = client.find(session, [(CKA_CLASS, number(CKO_CERTIFICATE))])
        found = [
            refusal(
                client, 25, "uuaA", ulong(session) + ulong(stored) + template([change])
            )
            for change in (
                (CKA_TRUSTED, flag(True)),
                (CKA_VALUE, data(authority)),
                (CKA_LABEL, data(b"other")),
            )
        ]

    assert found == [CKR_ATTRIBUTE_READ_ONLY] * 3


def test_an_issuer_with_an_unknown_algorithm_hides_nothing(tmp_path: Path) -> None:
    """A certificate whose public key can't be read is shown without that key."""
    create(tmp_path, ec="EC-P256")
    leaf, authority = chain_for(public_key_of(tmp_path, "ec"))
    ec_key, unknown = map(bytes.fromhex, ("2a8648ce3d0201", "2a8648ce3d027f"))
    with running_token(tmp_path, roles=MANAGER) as token, token.client() as client:
        session = client.open_session()
        chain = leaf + authority.replace(ec_key, unknown)
        token.access.hsm(LocalProgram()).execute(
            AttachCertificates(key_id="ec", chain=chain)
        )
        found = client.find(session, [(CKA_CLASS, number(CKO_CERTIFICATE))])
        info = [attribute_of(client, session, c, CKA_PUBLIC_KEY_INFO) for c in found]

    assert [len(one) > 0 for one in info] == [True, False]


def test_a_denied_key_hides_no_other(tmp_path: Path) -> None:
    """A search passes over keys whose public key the caller may not read."""
    create(tmp_path, ec="EC-P256", hidden="EC-P256")
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\nextends: default\nrules:\n  - {name: no, effect: deny, "
        "match: {operations: [GetPublicKey], key_names: [hidden]}}\n"
    )
    point = public_key_of(tmp_path, "ec").public_bytes(
        Encoding.X962, PublicFormat.UncompressedPoint
    )
    with running_token(tmp_path, policy=policy) as token, token.client() as client:
        session = client.open_session()
        found = client.find(session, [(CKA_EC_POINT, data(b"\4\x41" + point))])

    assert len(found) == 1


def certificate(der: bytes, identifier: bytes) -> bytes:
    """Return the template of a certificate."""
    attributes = [
        (CKA_CLASS, number(CKO_CERTIFICATE)),
        (CKA_TOKEN, flag(True)),
        (CKA_ID, data(identifier)),
        (CKA_VALUE, data(der)),
    ]
    return template(attributes)


def store(client: Client, session: int, der: bytes, identifier: bytes) -> int:
    """Store a certificate, and return its handle."""
    return first(client.call(20, "uaA", ulong(session) + certificate(der, identifier)))


def public_key_of(folder: Path, name: str) -> Any:
    """Return a public key of an HSM that is not open."""
    with hsm_core.open(folder / "hsm", root=folder / "root.key") as hsm:
        ada = hsm.as_user("ada", roles=["operator"])
        return load_der_public_key(ada.execute(GetPublicKey(key_id=name)).der)


def chain_for(public: Any, issuer: str = "authority") -> tuple[bytes, bytes]:
    """Return a certificate for a public key, and the one of its issuer."""
    private = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        for text in ("leaf", issuer)
    ]
    now = datetime.now(UTC)
    found = [
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(names[1])
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(private, SHA256())
        .public_bytes(Encoding.DER)
        for name, key in zip(names, (public, private.public_key()), strict=True)
    ]
    return found[0], found[1]
