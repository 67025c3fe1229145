# SPDX-License-Identifier: MIT
"""SSH agent: what each key signs, sessions, approvals, rotation, hostile clients."""

import base64
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_cli.interfaces import access
from hsm_cli.interfaces.ssh_agent.agent import MAX_FRAME_BYTES
from hsm_cli.interfaces.ssh_agent.encoding import MalformedError, string, uint32
from hsm_cli.interfaces.ssh_agent.identities import Identities
from hsm_cli.interfaces.ssh_agent.requests import parse_signed
from hsm_cli.interfaces.ssh_agent.signatures import verify
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState, Role
from hsm_core.operations import ListKeys
from hsm_core.policies import load_policy
from hsm_core.testing import caller, memory_hsm
from hsm_core.users import User
from tests.cli.ssh_client import (
    FAILURE,
    SECONDS,
    SUCCESS,
    Client,
    Host,
    Served,
    certificate,
    file_signature,
    login,
    serving,
)

SESSION = b"session"

KEYS = {
    "login": ("Ed25519", ["ssh-login"]),
    "roaming": ("Ed25519", ["ssh-login", "ssh-sign:git", "ssh-forward"]),
    "git": ("Ed25519", ["ssh-sign:git"]),
    "users": ("Ed25519", ["ssh-ca:user"]),
    "hosts": ("Ed25519", ["ssh-ca:host"]),
    "host": ("Ed25519", ["ssh-host"]),
}
OTHER = string("ssh-ed25519") + string(bytes(32))
DATA: dict[str, Callable[[bytes], bytes]] = {
    "login": lambda blob: login(SESSION, blob),
    "git": lambda blob: file_signature("git"),
    "users": lambda blob: certificate(blob, OTHER, 1),
    "hosts": lambda blob: certificate(blob, OTHER, 2),
    "host": lambda blob: bytes(32),
}
"""What the key of this name signs."""


def user_of(gateway: OpenHSM) -> User:
    """Return the user whose keys the agent has."""
    return User(gateway.act_as(caller()))


@pytest.fixture
def served(gateway: OpenHSM, tmp_path: Path) -> Iterator[Served]:
    """Give an agent with every kind of key."""
    user = user_of(gateway)
    for name, (algorithm, tags) in KEYS.items():
        user.create(algorithm, name=name, tags=tags)
    user.create("Ed25519", name="untagged")
    user.create("ML-DSA-44", name="unknown", tags=["ssh-login"])
    with serving(gateway, tmp_path) as agent:
        yield agent


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    """Give a connection to it."""
    with served.client() as connected:
        yield connected


@pytest.mark.parametrize("kind", DATA)
def test_each_key_signs_its_kind_alone(
    served: Served, client: Client, kind: str
) -> None:
    """
    Data of one kind is signed by keys with the tag of this kind, and by no other one.
    """
    blobs = client.identities()
    signed = {name: client.sign(blob, DATA[kind](blob)) for name, blob in blobs.items()}

    able = {name for name, found in signed.items() if found}
    expected = {"login": {"login", "roaming"}, "git": {"git", "roaming"}}
    assert set(KEYS) == set(blobs)
    assert expected.get(kind, {kind}) == able
    for name in able:
        assert verify(blobs[name], signed[name], DATA[kind](blobs[name]))
    assert sum("the key has no tag ssh-" in line for line in served.lines) == (
        len(KEYS) - len(able)
    )


@pytest.mark.parametrize(
    ("algorithm", "flags", "name"),
    [
        ("EC-P256", 0, "ecdsa-sha2-nistp256"),
        ("EC-P384", 0, "ecdsa-sha2-nistp384"),
        ("EC-P521", 0, "ecdsa-sha2-nistp521"),
        ("RSA-2048", 2, "rsa-sha2-256"),
        ("RSA-2048", 4, "rsa-sha2-512"),
        ("RSA-2048", 0, ""),
    ],
)
def test_algorithms(
    gateway: OpenHSM, tmp_path: Path, algorithm: str, flags: int, name: str
) -> None:
    """
    Each algorithm of SSH makes valid signatures; RSA with SHA-1 is refused.
    """
    user_of(gateway).create(algorithm, name="key", tags=["ssh-sign:git"])
    data = file_signature("git")

    with serving(gateway, tmp_path) as served, served.client() as client:
        blob = client.identities()["key"]
        found = client.sign(blob, data, flags)

    assert found.startswith(string(name)) if name else found == b""
    assert verify(blob, found, data) is bool(name)
    assert not verify(blob, found, data + b"x")
    assert any("SHA-1" in line for line in served.lines) is not bool(name)


@pytest.mark.parametrize(
    ("key", "make", "reason"),
    [
        ("login", lambda blob: login(SESSION, OTHER), "names another key"),
        ("users", lambda blob: certificate(OTHER, blob), "names another CA"),
        (
            "host",
            lambda blob: (
                string("hostkeys-prove-00@openssh.com")
                + string(SESSION)
                + string(OTHER)
            ),
            "is for another host key",
        ),
        ("login", lambda blob: b"x" * 1024, "unknown format"),
        ("login", lambda blob: login(SESSION, blob) + b"\0", "unknown format"),
        ("login", lambda blob: login(SESSION, blob)[:-1], "unknown format"),
        ("git", lambda blob: file_signature(""), "unknown format"),
        ("users", lambda blob: certificate(blob, OTHER, 3), "unknown format"),
        ("host", lambda blob: bytes(20), "unknown format"),
    ],
)
def test_what_is_not_plain_is_refused(
    served: Served,
    client: Client,
    key: str,
    make: Callable[[bytes], bytes],
    reason: str,
) -> None:
    """
    Data for another key, or in no exact format, is refused, and the log says why.
    """
    blob = client.identities()[key]

    assert client.sign(blob, make(blob)) == b""
    assert reason in served.lines[-1]
    assert f"PID {os.getpid()}" in served.lines[-1]


def test_refusals_do_not_flood_the_log(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Many refusals of long names, as from a remote host, are few short lines.
    """
    monkeypatch.setattr(access, "_NOTE_SECONDS", 3600.0)
    host, blobs = Host(), client.identities()
    assert client.ask(host.binding(SESSION, forwards=True)) == SUCCESS
    for at in range(30):
        name = f"{at}" + "x" * 100_000
        assert client.sign(blobs["login"], login(SESSION, OTHER, user=name)) == b""
        assert client.sign(blobs["roaming"], file_signature(name)) == b""

    assert len(served.lines) <= 21
    assert max(map(len, served.lines)) < 1000
    assert "the login names another key" in served.lines[0]


def test_a_host_proves_its_keys_to_clients(client: Client) -> None:
    """
    A host key signs the proof that sshd sends for the rotation of host keys.
    """
    blob = client.identities()["host"]
    proof = string("hostkeys-prove-00@openssh.com") + string(SESSION) + string(blob)

    assert verify(blob, client.sign(blob, proof), proof)


@pytest.mark.parametrize("namespace", ["file", "keys"])
def test_a_host_key_signs_no_file_as_long_as_an_exchange_hash(
    gateway: OpenHSM, tmp_path: Path, namespace: str
) -> None:
    """
    Data of a file signature is one at any length, also at that of an exchange hash.
    """
    user = user_of(gateway)
    user.create("Ed25519", name="host", tags=["ssh-host"])
    user.create("Ed25519", name="files", tags=[f"ssh-sign:{namespace}"])
    short = b"SSHSIG" + string(namespace) + string(b"") + string("sha256")
    data = short + string(bytes(32))

    with serving(gateway, tmp_path) as served, served.client() as client:
        blobs = client.identities()
        refused = client.sign(blobs["host"], data)
        found = client.sign(blobs["files"], data)

    assert refused == b""
    assert verify(blobs["files"], found, data)


def test_a_bound_connection_logs_in_to_its_host(client: Client) -> None:
    """
    After session-bind, only a login for this session and host is signed.
    """
    host, other = Host(), Host()
    blob = client.identities()["login"]
    assert client.ask(host.binding(SESSION)) == SUCCESS
    assert client.ask(host.binding(SESSION)) == SUCCESS

    good = login(SESSION, blob, host_key=host.public_key)
    assert verify(blob, client.sign(blob, good), good)
    assert client.sign(blob, login(b"stolen", blob)) == b""
    assert client.sign(blob, login(SESSION, blob, host_key=other.public_key)) == b""


@pytest.mark.parametrize("fault", ["signature", "second", "reused", "short"])
def test_a_session_that_is_not_proved_ends_all_signing(
    client: Client, fault: str
) -> None:
    """
    A wrong proof, or a second session after one that logs in, spoils the connection.
    """
    host, other = Host(), Host()
    blob = client.identities()["login"]
    binding = host.binding(SESSION)
    if fault == "signature":
        binding = binding.replace(host.sign(SESSION), other.sign(SESSION))
    elif fault == "short":
        binding = binding[:-1]
    else:
        assert client.ask(host.binding(SESSION, forwards=fault == "reused")) == SUCCESS
        binding = other.binding(b"next" if fault == "second" else SESSION)

    assert client.ask(binding) == b"\x1c"
    assert client.sign(blob, login(SESSION, blob)) == b""


@pytest.mark.parametrize("name", ["login", "roaming"])
def test_a_forwarded_agent_serves_keys_that_roam(
    served: Served, client: Client, name: str
) -> None:
    """
    A forwarded connection signs with keys tagged ssh-forward, for its last host.
    """
    first, second = Host(), Host()
    blob = client.identities()[name]
    assert client.ask(first.binding(SESSION, forwards=True)) == SUCCESS

    assert set(client.identities()) == {"roaming"}
    assert client.sign(blob, login(SESSION, blob)) == b""
    if name == "roaming":
        assert client.sign(blob, file_signature("git"))
    assert client.ask(second.binding(b"next")) == SUCCESS
    data = login(b"next", blob, host_key=second.public_key)
    assert bool(client.sign(blob, data)) is (name == "roaming")
    assert "over a forwarded connection" in served.lines[-1]


def test_a_certificate_is_offered_with_its_key(
    gateway: OpenHSM, tmp_path: Path
) -> None:
    """
    A current certificate of a user's key is listed before it, and logs in.
    """
    user = user_of(gateway)
    user.create("Ed25519", name="login", tags=["ssh-login"])
    user.create("Ed25519", name="users", tags=["ssh-ca:user"])
    path, broken = tmp_path / "login-cert.pub", tmp_path / "broken-cert.pub"
    broken.write_text("ssh-ed25519-cert-v01@openssh.com AAAA")

    with serving(gateway, tmp_path, certificates=[path, broken]) as served:
        with served.client() as client:
            blobs = client.identities()
            data = certificate(blobs["users"], blobs["login"])
            whole = data + string(client.sign(blobs["users"], data))
            kind = "ssh-ed25519-cert-v01@openssh.com"
            path.write_text(f"{kind} {base64.b64encode(whole).decode()} ada")
            listed = client.identities()["login"]
            asked = login(SESSION, whole)
            signed = client.sign(whole, asked)
            plain = client.sign(blobs["login"], asked)

    assert listed == whole
    assert verify(blobs["login"], signed, asked)
    assert verify(blobs["login"], plain, asked)
    notes = [line for line in served.lines if "-cert.pub" in line]
    assert len(notes) == 2  # each file once, though it was read again and again
    assert "can't be read" in notes[0]
    assert "is not an OpenSSH certificate" in notes[1]


def test_named_keys_alone_are_offered(gateway: OpenHSM, tmp_path: Path) -> None:
    """
    With KEYs, no other key is offered, and one that can't be used is explained.
    """
    user = user_of(gateway)
    user.create("Ed25519", name="one", tags=["ssh-login"])
    user.create("Ed25519", name="two", tags=["ssh-login"])
    user.create("Ed25519", name="bare")

    with serving(gateway, tmp_path, keys=["one", "bare", "absent"]) as served:
        with served.client() as client:
            found = [client.identities().keys() for _ in range(2)]

    assert found == [{"one"}, {"one"}]
    text = "\n".join(served.lines)
    assert text.count("Key bare has no tag that says what to sign") == 1
    assert "absent" in text


def test_a_rotated_key_is_offered_anew(client: Client, gateway: OpenHSM) -> None:
    """
    A signature of another version than the one listed is not given out.
    """
    old = client.identities()["git"]
    user_of(gateway).key("git").rotate()

    assert client.sign(old, file_signature("git")) == b""
    new = client.identities()["git"]
    assert new != old
    assert verify(new, client.sign(new, file_signature("git")), file_signature("git"))


def test_unknown_keys_are_not_looked_up_each_time(
    gateway: OpenHSM, tmp_path: Path
) -> None:
    """
    A client that asks for unknown keys costs the HSM one listing in ten seconds.
    """
    user_of(gateway).create("Ed25519", name="git", tags=["ssh-sign:git"])
    hsm, listed = gateway.act_as(caller()), 0

    class Counting:
        def execute(self, operation: Any, /, **options: Any) -> Any:
            nonlocal listed
            listed += isinstance(operation, ListKeys)
            return hsm.execute(operation, **options)

    identities = Identities((), (), lambda line: None)
    found = [identities.find(Counting(), b"unknown") for _ in range(20)]

    assert [None] * 20 == found
    assert listed == 1


def test_a_revoked_key_signs_nothing(client: Client, gateway: OpenHSM) -> None:
    """
    The HSM decides each signature; the agent answers with a failure.
    """
    blob = client.identities()["git"]
    user_of(gateway).key("git").revoke(reason="stolen")

    assert client.sign(blob, file_signature("git")) == b""
    assert "git" not in client.identities()


POLICY = """
version: 1
extends: default
rules:
  - name: confirm
    effect: require-approval
    match: {operations: [Sign], tags: [confirm]}
    approval: {roles: [Auditor]}
"""


@pytest.mark.parametrize("wait_seconds", [0, SECONDS])
def test_a_signature_waits_for_approval(tmp_path: Path, wait_seconds: int) -> None:
    """
    Without a wait, the next try succeeds once it is approved; with one, the first.
    """
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    with memory_hsm(policy=load_policy(path)) as gateway:
        user_of(gateway).create("Ed25519", name="git", tags=["ssh-sign:git", "confirm"])
        grace = User(gateway.act_as(caller(Role.AUDITOR, principal="grace")))

        def approve() -> None:
            while not (found := list(grace.approvals(ApprovalState.PENDING))):
                if stopped.wait(0.01):
                    return
            grace.approve(found[0])

        stopped = threading.Event()
        thread = threading.Thread(target=approve)
        with (
            serving(gateway, tmp_path, wait_seconds=wait_seconds) as served,
            served.client() as client,
        ):
            blob = client.identities()["git"]
            if not wait_seconds:
                assert client.sign(blob, file_signature("git")) == b""
            thread.start()
            if not wait_seconds:
                thread.join(SECONDS)
            found = client.sign(blob, file_signature("git"))
            stopped.set()
            thread.join(SECONDS)

    assert verify(blob, found, file_signature("git"))
    assert any("hsm-cli approvals approve" in line for line in served.lines)


def test_a_client_that_leaves_consumes_no_approval(tmp_path: Path) -> None:
    """
    An approval that comes when the program is gone stays for its next try.
    """
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    with memory_hsm(policy=load_policy(path)) as gateway:
        user_of(gateway).create("Ed25519", name="git", tags=["ssh-sign:git", "confirm"])
        grace = User(gateway.act_as(caller(Role.AUDITOR, principal="grace")))
        with serving(gateway, tmp_path, wait_seconds=SECONDS) as served:
            with served.client() as client:
                blob = client.identities()["git"]
                request = string(blob) + string(file_signature("git")) + uint32(0)
                client.socket.sendall(string(b"\x0d" + request))
                while not (found := list(grace.approvals(ApprovalState.PENDING))):
                    pass
        grace.approve(found[0])

        assert grace.approval(found[0].approval_id).state is ApprovalState.GRANTED


def test_a_pin_unlocks_the_agent(gateway: OpenHSM, tmp_path: Path) -> None:
    """
    With a PIN, nothing is listed or signed until ssh-add -X gives it.
    """
    user_of(gateway).create("Ed25519", name="git", tags=["ssh-sign:git"])

    with serving(gateway, tmp_path, pin=b"4711") as served, served.client() as client:
        locked = client.identities()
        wrong = client.ask(b"\x17" + string("0000"))
        right = client.ask(b"\x17" + string("4711"))
        blob = client.identities()["git"]
        found = client.sign(blob, file_signature("git"))

    assert ({}, FAILURE, SUCCESS) == (locked, wrong, right)
    assert verify(blob, found, file_signature("git"))
    assert "4711" not in "".join(served.lines)


def test_a_forwarded_connection_uses_up_no_tries_of_the_pin(
    gateway: OpenHSM, tmp_path: Path
) -> None:
    """
    PINs from another host are refused unread, so it can't lock the agent.
    """
    with serving(gateway, tmp_path, pin=b"4711") as served:
        with served.client() as remote:
            assert remote.ask(Host().binding(SESSION, forwards=True)) == SUCCESS
            answers = {remote.ask(b"\x17" + string("0000")) for _ in range(12)}
            answers.add(remote.ask(b"\x17" + string("4711")))
        with served.client() as client:
            assert client.ask(b"\x17" + string("4711")) == SUCCESS

    assert answers == {FAILURE}
    assert "a PIN from a forwarded connection" in "".join(served.lines)


@pytest.mark.parametrize("number", sorted({1, 9, 17, 18, 19, 20, 21, 22, 25, 26, 200}))
def test_keys_are_not_added_or_removed(client: Client, number: int) -> None:
    """
    Whatever changes an agent fails, and so does anything unknown.
    """
    before = client.identities()

    assert client.ask(bytes([number]) + string(b"x") * 3) == FAILURE
    assert client.identities() == before


def test_extensions(client: Client) -> None:
    """
    The agent names its extension, and fails any other one.
    """
    named = b"\x1d" + string("query") + string("session-bind@openssh.com")

    assert client.ask(b"\x1b" + string("query")) == named
    assert client.ask(b"\x1b" + string("other@example.com")) == FAILURE


@pytest.mark.parametrize(
    "frame",
    [
        uint32(0),
        uint32(MAX_FRAME_BYTES + 1),
        uint32(0xFFFFFFFF),
    ],
)
def test_frames_of_a_wrong_length_end_the_connection(
    served: Served, frame: bytes
) -> None:
    """
    An empty frame, or one above 256 KiB, ends its connection, and no other one.
    """
    with served.client() as hostile, served.client() as good:
        hostile.socket.sendall(frame)
        with pytest.raises((EOFError, ConnectionError)):
            hostile.ask(b"\x0b")

        assert good.identities()


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda data, at, byte: data[: at % len(data)] + byte + data[at % len(data) :],
        st.sampled_from(
            [
                login(SESSION, OTHER, host_key=OTHER),
                file_signature("git"),
                certificate(OTHER, OTHER),
            ]
        ),
        st.integers(min_value=0),
        st.binary(max_size=8),
    )
)
def test_any_data_is_parsed_or_refused(data: bytes) -> None:
    """
    Parsing raises nothing but its own error, and what it accepts it can describe.
    """
    try:
        found = parse_signed(data)
    except MalformedError:
        return
    assert str(found)
    assert found.tag.startswith("ssh-")
