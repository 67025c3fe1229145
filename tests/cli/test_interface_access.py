# SPDX-License-Identifier: MIT
"""HSM of a local interface: embedded or remote, PIN, lock-out, notes on refusals."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    serialize_key_and_certificates,
)
from msgspec.structs import replace

import hsm_core
from hsm_cli.interfaces.access import (
    MAX_WRONG_PINS,
    Access,
    Embedded,
    LocalProgram,
    PinLockedError,
    Server,
    WrongPinError,
)
from hsm_cli.interfaces.options import open_access
from hsm_cli.interfaces.pkcs11.application import Library
from hsm_cli.invocation import Invocation
from hsm_cli.io.output import Output
from hsm_client.choosing import with_profile
from hsm_client.profiles import config_file, load_profiles
from hsm_client.settings import ClientSettings
from hsm_core.errors import (
    ApprovalRequiredError,
    AuthenticationError,
    ConfigurationError,
    KeyNotFoundError,
    TransportError,
)
from hsm_core.operations import DestroyKey, ListAuditEvents, Sign, Status
from hsm_core.private_files import write_private_file
from tests.cli.support import Shell
from tests.client.certificates import Certificates
from tests.client.stub import TOKEN, Stub, serving
from tests.pki import self_signed_root


@pytest.fixture
def connector(tmp_path: Path) -> Iterator[Embedded]:
    """Give an embedded HSM with one key, *release*."""
    folder, root = tmp_path / "hsm", tmp_path / "root.key"
    with hsm_core.open(folder, root=root, create=True) as hsm:
        hsm.as_user("ada", roles=["operator"]).create(
            "EC-P256", name="release", tags=["dual"]
        )
    embedded = Embedded(
        folder, root, principal="ada", roles=["operator", "admin", "auditor"]
    )
    yield embedded
    embedded.close()


def test_an_embedded_hsm_serves_an_interface(connector: Embedded) -> None:
    """Programs use the HSM as its user, and refusals are printed with the program."""
    notes: list[str] = []
    access = Access("pkcs11", connector, notify=notes.append)
    access.log_in(None)

    hsm = access.hsm(LocalProgram(uid=1000, name="p11tool"))
    assert hsm.execute(Sign(key_id="release", message=b"text")).signature
    for _ in range(2):
        with pytest.raises(KeyNotFoundError):
            hsm.execute(Sign(key_id="absent", message=b"text"))

    assert len(notes) == 1
    assert notes[0].startswith("pkcs11: p11tool uid 1000: Sign with key absent: ")
    access.close()
    connector.open("")
    auditor = connector.act_for("embedded", "")
    callers = [
        entry.event.caller
        for entry in auditor.execute(ListAuditEvents(kind=("Sign",))).items
    ]
    assert [("ada", "pkcs11", "p11tool uid 1000")] * 3 == [
        (c.principal, c.interface, c.interface_claimed) for c in callers if c
    ]


def test_a_wrong_pin_locks_the_interface(connector: Embedded) -> None:
    """A right PIN resets the count; after ten wrong ones the right one is refused."""
    notes: list[str] = []
    access = Access("pkcs11", connector, pin=b"4711", notify=notes.append)

    with pytest.raises(WrongPinError):
        access.log_in(None)
    access.log_in(b"4711")
    for left in reversed(range(MAX_WRONG_PINS)):
        with pytest.raises(WrongPinError) as wrong:
            access.log_in(b"0000")
        assert wrong.value.facts["tries_left"] == left
    with pytest.raises(PinLockedError):
        access.log_in(b"4711")

    assert "4711" not in repr(access) + "".join(notes)


def test_programs_do_not_flood_the_notes(connector: Embedded) -> None:
    """Twenty notes are printed in ten seconds, each once, and then a last one."""
    notes: list[str] = []
    access = Access("pkcs11", connector, notify=notes.append)
    for number in range(50):
        access.note(f"note {number % 25}")

    assert len(notes) == 21
    assert "suppressed" in notes[-1]


def test_a_note_says_how_to_approve(connector: Embedded) -> None:
    """What needs approval is refused, and the note names the request."""
    notes: list[str] = []
    access = Access("pkcs11", connector, notify=notes.append)

    with pytest.raises(ApprovalRequiredError) as required:
        access.hsm(LocalProgram()).execute(DestroyKey(key_id="release"))

    approval_id = required.value.facts["approval_id"]
    assert notes[0].startswith("pkcs11: DestroyKey with key release: approval required")
    assert f"hsm-cli approvals approve {approval_id}; " in notes[0]
    assert "hsm-cli approvals list" in notes[0]


def with_certificate(path: Path) -> ClientSettings:
    """Return settings with a new client certificate, whose password is 4711."""
    issued = self_signed_root("Test authority").issue("ada")
    path.write_bytes(
        serialize_key_and_certificates(
            None, issued.key, issued.certificate, None, BestAvailableEncryption(b"4711")
        )
    )
    return ClientSettings(endpoint="https://localhost:1", client_cert=path)


def test_the_password_of_a_client_certificate_is_its_pin(tmp_path: Path) -> None:
    """Without a stored password the credential is closed until a program logs in."""
    path = tmp_path / "client.p12"
    settings = with_certificate(path)
    access = Access("pkcs11", Server(settings), notify=lambda note: None)

    assert access.takes_pin
    assert access.is_locked
    with pytest.raises(WrongPinError):
        access.hsm(LocalProgram())
    with pytest.raises(WrongPinError):
        access.log_in(b"0000")
    access.log_in(b"4711")
    hsm = access.hsm(LocalProgram())
    access.log_out()
    assert access.is_locked
    with pytest.raises(WrongPinError):
        hsm.execute(Status())
    access.log_in(b"4711")
    with pytest.raises(TransportError) as unreachable:
        hsm.execute(Status())
    assert "connect" == unreachable.value.facts["reason"]
    access.close()
    with pytest.raises(click.UsageError, match="password of the client certificate"):
        open_access(Invocation(settings, Output()), "pkcs11", pin=b"1234")


@pytest.mark.parametrize("is_held", [True, False])
def test_a_new_sign_in_counts_once_the_former_is_refused(
    stub: Stub,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_held: bool,
) -> None:
    """A token of a profile that has expired is read again, but never a descriptor."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    text = (
        f'[profiles.stub]\nendpoint = "{stub.endpoint}"\n'
        f'ca-bundle = "{certificates.ca}"\ncredential = "token"\n'
    )
    write_private_file(config_file(), text.encode())

    def sign_in(token: str) -> None:
        secrets = {"token": token, "endpoint": stub.endpoint}
        path = config_file().parent / "credentials/stub.json"
        write_private_file(path, json.dumps(secrets).encode())

    sign_in("expired")
    profile = load_profiles().get("stub")
    settings = with_profile(ClientSettings(), profile, has_token=is_held)
    if is_held:
        token = replace(settings.token, auth_token="expired")
        settings = replace(settings, token=token)
    access = Access("pkcs11", Server(settings), notify=lambda note: None)
    hsm = access.hsm(LocalProgram())
    with pytest.raises(AuthenticationError):
        hsm.execute(Status())
    sign_in(TOKEN)

    if is_held:
        with pytest.raises(AuthenticationError):
            hsm.execute(Status())
    else:
        assert "operational" == hsm.execute(Status()).state
    access.close()


def test_a_new_certificate_counts_once_the_former_is_refused(
    stub: Stub, certificates: Certificates, tmp_path: Path
) -> None:
    """The file of a client certificate that a handshake refuses is read again."""
    path = tmp_path / "client.pem"
    stranger = self_signed_root("Stranger").issue("client")
    write_private_file(path, stranger.chain_pem + stranger.key_pem)
    with serving(stub.hsm, certificates, wants_client_certificate=True) as strict:
        settings = ClientSettings(
            endpoint=strict.endpoint, ca_bundle=certificates.ca, client_cert=path
        )
        access = Access("pkcs11", Server(settings), notify=lambda note: None)
        hsm = access.hsm(LocalProgram())
        reason: object = "lost"
        while reason == "lost":  # the connection may break before the alert arrives
            with pytest.raises(TransportError) as refused:
                hsm.execute(Status())
            reason = refused.value.facts["reason"]

        known = certificates.client.read_bytes() + certificates.client_key.read_bytes()
        write_private_file(path, known)

        with pytest.raises(AuthenticationError):  # the stub takes tokens only
            hsm.execute(Status())
        access.close()


def test_a_token_of_a_descriptor_lasts_for_each_login(tmp_path: Path) -> None:
    """It is read once: the next login does not read what has its number by then."""
    reading, writing = os.pipe()
    os.write(writing, b"a.b.c")
    os.close(writing)
    settings = with_certificate(tmp_path / "client.p12")
    token = replace(settings.token, auth_token=f"fd:{reading}")
    server = Server(replace(settings, token=token))
    access = Access("pkcs11", server, notify=lambda note: None)
    access.log_in(b"4711")
    access.log_out()
    access.log_in(b"4711")

    with pytest.raises(TransportError) as unreachable:
        access.hsm(LocalProgram()).execute(Status())
    assert "connect" == unreachable.value.facts["reason"]
    access.close()


def test_a_pin_that_is_too_long_is_wrong(tmp_path: Path) -> None:
    """No part of it is taken for the password, and it counts as a try."""
    path = tmp_path / "client.p12"
    issued = self_signed_root("Test authority").issue("ada")
    password = BestAvailableEncryption(b"4" * 256)
    path.write_bytes(
        serialize_key_and_certificates(
            None, issued.key, issued.certificate, None, password
        )
    )
    settings = ClientSettings(endpoint="https://localhost:1", client_cert=path)
    access = Access("pkcs11", Server(settings), notify=lambda note: None)

    with pytest.raises(WrongPinError) as wrong:
        access.log_in(b"4" * 257)
    assert MAX_WRONG_PINS - 1 == wrong.value.facts["tries_left"]


def test_no_pin_is_wrong_that_cannot_be_checked(tmp_path: Path) -> None:
    """While the file can't be read, a login takes none of the tries."""
    path = tmp_path / "client.p12"
    settings = with_certificate(path)
    access = Access("pkcs11", Server(settings), notify=lambda note: None)
    away = path.rename(tmp_path / "away")

    with pytest.raises(ConfigurationError, match="Can't read"):
        access.log_in(b"4711")
    assert MAX_WRONG_PINS == access.tries_left
    away.rename(path)
    access.log_in(b"4711")
    access.close()


@pytest.mark.parametrize("is_encrypted", [True, False])
def test_only_an_encrypted_key_takes_a_pin(tmp_path: Path, is_encrypted: bool) -> None:
    """A file that says ENCRYPTED beside a key in clear takes no PIN."""
    issued = self_signed_root("Test authority").issue("ada")
    key = issued.key.private_bytes(
        Encoding.PEM,
        PrivateFormat.PKCS8,
        BestAvailableEncryption(b"4711") if is_encrypted else NoEncryption(),
    )
    path = tmp_path / "client.pem"
    path.touch(mode=0o600)
    path.write_bytes(b"friendlyName: ENCRYPTED backup\n" + issued.chain_pem + key)
    settings = ClientSettings(endpoint="https://localhost:1", client_cert=path)

    assert is_encrypted is Access("pkcs11", Server(settings)).takes_pin


class Locked(Embedded):
    """An embedded HSM that a PIN opens."""

    takes_pin = True  # type: ignore[misc]

    def open(self, pin: str) -> None:
        """Open it by the PIN."""
        if pin != "1234":
            raise WrongPinError("The PIN is wrong.")
        super().open(pin)


def test_a_login_opens_the_credential_for_its_program_alone(
    connector: Embedded, tmp_path: Path
) -> None:
    """While one PKCS#11 program is logged in, another has no HSM."""
    locked = Locked(
        tmp_path / "hsm", tmp_path / "root.key", principal="ada", roles=["operator"]
    )
    connector.close()
    access = Access("pkcs11", locked, notify=lambda note: None)
    programs = [Library([access], LocalProgram()).slots[0] for _ in range(2)]
    programs[0].log_in(b"1234")

    programs[0].hsm.execute(Status())
    with pytest.raises(WrongPinError):
        programs[1].hsm.execute(Status())

    programs[0].log_out()
    assert access.is_locked


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--root-key", "root.key"], "--root-key requires --embedded"),
        (["--policy", "policy.yaml"], "--policy requires --embedded"),
        (["--audit-sync", "bounded"], "--audit-sync requires --embedded"),
        (["--embedded", "hsm"], "--embedded requires --root-key"),
        (["--pin", "4711"], "--pin must be @FILE or fd:N"),
        (["--pin", "@absent"], "pin: the file or descriptor can't be read"),
    ],
)
@pytest.mark.parametrize("command", [("pkcs11", "serve"), ("ssh-agent",)])
def test_options_that_do_not_go_together(
    shell: Shell, command: tuple[str, ...], words: list[str], told: str
) -> None:
    """A wrong option is an error before anything is opened; no PIN is repeated."""
    found = shell(*command, *words)

    assert 2 == found.code
    assert told in found.err
    assert "4711" not in found.err


@pytest.mark.parametrize(
    "words",
    [
        ("pkcs11", "serve", "--socket", "run/it.sock"),
        ("pkcs11", "stdio"),
        ("ssh-agent", "--socket", "run/it.sock"),
    ],
    ids=" ".join,
)
def test_an_interface_leaves_no_dump(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A running interface writes no core file, and no other process looks in."""
    root = tmp_path / "root.key"
    hsm_core.open(tmp_path / "hsm", root=root, create=True).close()
    embedded = ("--embedded", tmp_path / "hsm", "--root-key", root)
    with subprocess.Popen(
        (sys.executable, "-m", "hsm_cli", *words, *embedded),
        cwd=tmp_path,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        group=None if os.geteuid() else 1,
    ) as running:
        try:
            assert running.stdin is not None
            assert running.stdout is not None
            running.stdin.write(b"\2")
            running.stdin.flush()
            assert running.stdout.read(1)
            process = Path(f"/proc/{running.pid}")
            limits = (process / "limits").read_text()
            owner = (process / "fd").stat()
        finally:
            running.terminate()

    assert "Max core file size        0                    0 " in limits
    # What can't be dumped belongs to root, whoever it runs as.
    assert (0, 0) == (owner.st_uid, owner.st_gid)


@pytest.mark.parametrize("text", ["", "4" * 256])
def test_the_length_of_a_pin(shell: Shell, tmp_path: Path, text: str) -> None:
    """A PIN is 1 to 255 bytes long."""
    file = tmp_path / "pin"
    file.touch(mode=0o600)
    file.write_text(text)
    found = shell("pkcs11", "serve", "--pin", f"@{file}")

    assert (2, True) == (found.code, found.err.startswith("hsm-cli: pin "))
