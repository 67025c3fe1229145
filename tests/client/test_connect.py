# SPDX-License-Identifier: MIT
"""`hsm_client.connect`: where to, as whom, and what comes back."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hsm_client
import hsm_core
from hsm_client import ApprovalEndedError, ApprovalRequiredError, aio
from hsm_client.profiles import config_file
from hsm_core.dev_profile import dev_file
from hsm_core.errors import AuthenticationError, ConfigurationError, InvalidInputError
from hsm_core.model import ApprovalState
from hsm_core.operations import DestroyKey
from hsm_core.private_files import write_private_file
from hsm_core.users import User
from tests.client.asking import ID, Asking
from tests.client.certificates import Certificates
from tests.client.stub import TOKEN, Stub

NOTE = f"waiting for approval {ID} (1 more of Auditor)"
PROFILES = """\
current = "stub"

[profiles.stub]
endpoint = "{endpoint}"
ca-bundle = "{ca}"
credential = "token"

[profiles.other]
endpoint = "https://other.example.com"
credential = "certificate"
client-cert = "client.pem"
"""


CERTIFICATE = """\
[profiles.pair]
endpoint = "{endpoint}"
ca-bundle = "{ca}"
credential = "certificate"
client-cert = "{certificate}"
client-key = "{key}"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty configuration folder, and an environment without settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in (
        "ENDPOINT",
        "CA_BUNDLE",
        "AUTH_TOKEN",
        "CLIENT_CERT",
        "CLIENT_KEY",
        "PROFILE",
    ):
        monkeypatch.delenv(f"FERROHSM_{name}", raising=False)
    return tmp_path / "ferrohsm"


@pytest.fixture
def profiles(folder: Path, stub: Stub, certificates: Certificates) -> None:
    """Give a current profile of the stub, with a stored token, and another one."""
    text = PROFILES.format(endpoint=stub.endpoint, ca=certificates.ca)
    write_private_file(config_file(), text.encode())
    secrets = f'{{"token":"{TOKEN}","endpoint":"{stub.endpoint}"}}'
    write_private_file(folder / "credentials" / "stub.json", secrets.encode())


@pytest.fixture
def asking(stub: Stub) -> Asking:
    """Give the stub's HSM, which now asks before it destroys keys."""
    stub.hsm = asking = Asking(stub.hsm, kinds=(DestroyKey,))
    return asking


def release(user: User) -> str:
    """Return what a program does that knows nothing of servers."""
    key = user.create("Ed25519", name="release", exist_ok=True)
    key.verify(b"hello", key.sign(b"hello"))
    return repr(key.rotate())


def test_same_lines(stub: Stub, certificates: Certificates) -> None:
    """A function over a user runs over a connection and over an embedded HSM."""
    with hsm_client.connect(
        stub.endpoint, token=TOKEN, ca_bundle=certificates.ca
    ) as remote:
        told = release(remote)
        key = remote.key("release")
        with pytest.raises(hsm_client.InvalidSignature):
            key.verify(b"hello", bytes(64))

        assert isinstance(key, hsm_client.Key)
        assert ["release"] == [found.name for found in remote.keys()]
        assert f"<Connection {stub.endpoint}>" == repr(remote)
    with hsm_core.open(":memory:") as hsm:
        assert told == release(hsm.as_user("ada", roles=["operator"]))


def test_key_object(stub: Stub, certificates: Certificates) -> None:
    """A key of the server signs as a private key of cryptography."""
    with hsm_client.connect(
        stub.endpoint, token=TOKEN, ca_bundle=certificates.ca
    ) as hsm:
        hsm.create("Ed25519", name="web")
        key: Any = hsm_client.open_private_key(hsm, "web")

        key.public_key().verify(key.sign(b"message"), b"message")


async def test_event_loop(stub: Stub, certificates: Certificates) -> None:
    """The same with await."""
    async with aio.connect(
        stub.endpoint, token=lambda: TOKEN, ca_bundle=str(certificates.ca)
    ) as hsm:
        key = await hsm.create("Ed25519", name="release")
        signature = await key.sign(b"hello")

        assert 1 == await key.verify(b"hello", signature)
        assert ["release"] == [found.name async for found in hsm.keys()]
        assert f"<AsyncConnection {stub.endpoint}>" == repr(hsm)


@pytest.mark.usefixtures("profiles")
class TestProfile:
    def test_current(self, stub: Stub) -> None:
        """Without arguments the current profile says everything."""
        with hsm_client.connect() as hsm:
            assert "operational" == hsm.status().state
            assert f"<Connection {stub.endpoint} (profile stub)>" == repr(hsm)

    async def test_current_in_event_loop(self) -> None:
        """In an event loop, too."""
        async with aio.connect() as hsm:
            assert "operational" == (await hsm.status()).state

    def test_same_endpoint(self, stub: Stub) -> None:
        """A profile completes what is said of its endpoint."""
        with hsm_client.connect(f"{stub.endpoint}/") as hsm:
            assert "operational" == hsm.status().state

    def test_other_endpoint(self) -> None:
        """The token of a profile goes to no other endpoint."""
        with pytest.raises(ConfigurationError, match="no credential for https://x"):
            hsm_client.connect("https://x.example.com")

    def test_named_for_another_endpoint(self, stub: Stub) -> None:
        """A profile that is named and does not fit is an error."""
        with pytest.raises(ConfigurationError, match="is for https://other"):
            hsm_client.connect(stub.endpoint, profile="other")

    @pytest.mark.parametrize(
        "url", ["https://[", "https://localhost:99999", "http://localhost"]
    )
    def test_no_endpoint(self, url: str) -> None:
        """What is no endpoint is refused; no profile is taken for it."""
        with pytest.raises(ConfigurationError, match="endpoint must be https"):
            hsm_client.connect(url, token="t")

    def test_certificate_beside_a_token(
        self, certificates: Certificates, stub: Stub
    ) -> None:
        """A certificate of the program completes the token of a profile."""
        with hsm_client.connect(
            client_cert=certificates.client, client_key=certificates.client_key
        ) as hsm:
            assert "operational" == hsm.status().state
        with pytest.raises(ConfigurationError, match="requires client_cert"):
            hsm_client.connect(client_key=certificates.client_key)

    def test_certificate_alone(self, stub: Stub, certificates: Certificates) -> None:
        """A profile with a certificate sends no token."""
        text = CERTIFICATE.format(
            endpoint=stub.endpoint,
            ca=certificates.ca,
            certificate=certificates.client,
            key=certificates.client_key,
        )
        write_private_file(config_file(), text.encode())
        with (
            hsm_client.connect(profile="pair") as hsm,
            pytest.raises(AuthenticationError),
        ):
            hsm.status()

        assert "authorization" not in stub.received[-1].headers

    def test_environment_chooses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """FERROHSM_PROFILE wins over the current one, an argument over it."""
        monkeypatch.setenv("FERROHSM_PROFILE", "prod")
        with pytest.raises(ConfigurationError, match="'prod'"):
            hsm_client.connect()
        hsm_client.connect(profile="stub").close()

    def test_argument_wins(self, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
        """A token in the program wins over the environment, that over a profile."""
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", "environment")
        for token, sent in ((None, "environment"), ("argument", "argument")):
            with (
                hsm_client.connect(token=token) as hsm,
                pytest.raises(hsm_core.HSMError),
            ):
                hsm.status()

            assert f"Bearer {sent}" == stub.received[-1].headers["authorization"]


class TestEnvironment:
    def test_everything(
        self,
        stub: Stub,
        certificates: Certificates,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """The environment of hsm-cli serves a program, too."""
        token = tmp_path / "token"
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        monkeypatch.setenv("FERROHSM_ENDPOINT", stub.endpoint)
        monkeypatch.setenv("FERROHSM_CA_BUNDLE", str(certificates.ca))
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", f"@{token}")
        with hsm_client.connect() as hsm:
            assert "operational" == hsm.status().state

    def test_certificate(
        self, monkeypatch: pytest.MonkeyPatch, certificates: Certificates
    ) -> None:
        """A client certificate of the environment is used, or missed by its name."""
        monkeypatch.setenv("FERROHSM_ENDPOINT", "https://localhost")
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", TOKEN)
        monkeypatch.setenv("FERROHSM_CLIENT_KEY", str(certificates.client_key))
        with pytest.raises(ConfigurationError, match="requires client_cert"):
            hsm_client.connect()
        monkeypatch.setenv("FERROHSM_CLIENT_CERT", "/nowhere.pem")
        with pytest.raises(ConfigurationError, match=r"/nowhere\.pem"):
            hsm_client.connect()
        monkeypatch.setenv("FERROHSM_CLIENT_CERT", str(certificates.client))
        hsm_client.connect().close()

    def test_development_server(self, stub: Stub, certificates: Certificates) -> None:
        """It is found by itself, but not for the credential of something else."""
        text = (
            f'endpoint = "{stub.endpoint}"\nca-bundle = "{certificates.ca}"\n'
            f'token-file = "token"\npid = {os.getpid()}\n'
        )
        write_private_file(dev_file(), text.encode())
        write_private_file(dev_file().with_name("token"), TOKEN.encode())
        with hsm_client.connect() as hsm:
            assert "operational" == hsm.status().state
        with pytest.raises(ConfigurationError, match="no server to connect to"):
            hsm_client.connect(token=TOKEN)

    def test_nothing(self) -> None:
        """Who says nothing at all learns what to say."""
        with pytest.raises(ConfigurationError, match="FERROHSM_ENDPOINT"):
            hsm_client.connect()

    def test_no_credential(self) -> None:
        """A missing credential is found before anything is sent."""
        with pytest.raises(ConfigurationError, match="Pass token or client_cert"):
            hsm_client.connect("https://localhost:8443")


class TestApproval:
    def connect(
        self, stub: Stub, certificates: Certificates, **changes: Any
    ) -> hsm_client.Connection:
        """Return a connection to the stub."""
        return hsm_client.connect(
            stub.endpoint, token=TOKEN, ca_bundle=certificates.ca, **changes
        )

    def test_required(
        self, stub: Stub, certificates: Certificates, asking: Asking
    ) -> None:
        """Without a wait, the error has the request."""
        with self.connect(stub, certificates) as hsm:
            key = hsm.create("Ed25519", name="old")
            with pytest.raises(ApprovalRequiredError) as caught:
                key.destroy()

        assert caught.value.approval == asking.approval

    def test_waited_for(
        self, stub: Stub, certificates: Certificates, asking: Asking
    ) -> None:
        """With a wait, the call returns once it is granted, and is done once."""
        notes: list[str] = []
        with self.connect(
            stub, certificates, wait_seconds=60, notify=notes.append
        ) as hsm:
            key = hsm.create("Ed25519", name="old")
            asking.steps = [ApprovalState.GRANTED]
            key.destroy()

        assert "destroyed" == key.state
        assert [NOTE] == notes
        assert (2, 1) == (len(asking.keys), len(set(asking.keys)))

    async def test_waited_for_in_event_loop(
        self, stub: Stub, certificates: Certificates, asking: Asking
    ) -> None:
        """In an event loop it is the same."""
        notes: list[str] = []
        async with aio.connect(
            stub.endpoint,
            token=TOKEN,
            ca_bundle=certificates.ca,
            wait_seconds=math.inf,
            notify=notes.append,
        ) as hsm:
            key = await hsm.create("Ed25519", name="old")
            asking.steps = [ApprovalState.GRANTED]
            await key.destroy()

            assert "destroyed" == key.state
            asking.steps = [ApprovalState.DENIED]
            other = await hsm.create("Ed25519")
            asking.approval = Asking(stub.hsm).approval
            with pytest.raises(ApprovalEndedError, match="is denied"):
                await other.destroy()

        assert [NOTE] * 2 == notes
        assert 2 == len(set(asking.keys))

    @pytest.mark.parametrize("seconds", [-1, math.nan])
    def test_no_time(
        self, stub: Stub, certificates: Certificates, seconds: float
    ) -> None:
        """A time that is none is refused."""
        with pytest.raises(InvalidInputError, match="wait_seconds"):
            self.connect(stub, certificates, wait_seconds=seconds)


@pytest.mark.parametrize("open_", [hsm_client.connect, aio.connect])
def test_nothing_told(open_: Callable[..., object]) -> None:
    """A connection shows neither token nor certificate."""
    shown = repr(open_("https://localhost", token="very-secret"))

    assert "secret" not in shown


def test_few_names() -> None:
    """Nine tenths of use need a dozen names, and each of them is there."""
    assert len(hsm_client.__all__) <= 12
    assert all(hasattr(hsm_client, name) for name in hsm_client.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hsm_client.nothing  # type: ignore[attr-defined]
