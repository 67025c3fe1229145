# SPDX-License-Identifier: MIT
"""Connection profiles on the command line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from hsm_client.profiles import config_file, load_profiles
from hsm_core.dev_profile import dev_file
from hsm_core.private_files import write_private_file
from tests.cli.support import Shell
from tests.client.certificates import Certificates
from tests.client.stub import TOKEN, Stub
from tests.client.test_keyring import Keyring, ring

__all__ = ["ring"]

Write: TypeAlias = Callable[[str], None]


def tokens(endpoint: str) -> bytes:
    """Return a stored token for a server."""
    return json.dumps({"token": TOKEN, "endpoint": endpoint}).encode()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty configuration folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "ferrohsm"


@pytest.fixture
def write(stub: Stub, certificates: Certificates, folder: Path) -> Write:
    """Give a writer of a file with the profile `stub`, current, and more lines."""

    def write(more: str = "") -> None:
        text = (
            f'current = "stub"\n[profiles.stub]\nendpoint = "{stub.endpoint}"\n'
            f'ca-bundle = "{certificates.ca}"\ncredential = "token"\n{more}'
        )
        write_private_file(config_file(), text.encode())
        write_private_file(folder / "credentials/stub.json", tokens(stub.endpoint))

    return write


OTHER = '[profiles.other]\nendpoint = "https://other.example"\ncredential = "token"\n'


class TestConnection:
    def test_current(self, bare_shell: Shell, stub: Stub, write: Write) -> None:
        """Endpoint, CA and token are those of the current profile."""
        write("")
        outcome = bare_shell.ok("status", "--json")

        assert "operational" == outcome.json["state"]
        assert f"Bearer {TOKEN}" == stub.received[0].headers["authorization"]

    def test_named(self, bare_shell: Shell, stub: Stub, write: Write) -> None:
        """--profile and FERROHSM_PROFILE choose another one."""
        write(OTHER)
        chosen = bare_shell("--profile", "other", "status")
        unknown = bare_shell("--profile", "othr", "status")

        assert (2, []) == (chosen.code, stub.received)
        assert "not signed in with profile other" in chosen.err
        assert "Profiles: stub, other" in unknown.err

    def test_variables_come_first(
        self,
        bare_shell: Shell,
        stub: Stub,
        write: Write,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A token of the environment is used in place of the profile's."""
        write("")
        monkeypatch.setenv("FERROHSM_AUTH_TOKEN", "another.token.x")
        bare_shell("status")
        monkeypatch.setenv("FERROHSM_CA_BUNDLE", "/nonexistent.pem")
        refused = bare_shell("status")

        assert "Bearer another.token.x" == stub.received[0].headers["authorization"]
        assert "/nonexistent.pem" in refused.err

    def test_token_to_its_endpoint_only(
        self,
        bare_shell: Shell,
        stub: Stub,
        write: Write,
        folder: Path,
        certificates: Certificates,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The token of a profile is never sent to another endpoint."""
        write(OTHER)
        other = tokens("https://other.example")
        write_private_file(folder / "credentials/other.json", other)
        flags = ("--endpoint", stub.endpoint, "--ca-bundle", str(certificates.ca))
        named = bare_shell(*flags, "--profile", "other", "status")
        monkeypatch.setenv("FERROHSM_PROFILE", "other")
        by_variable = bare_shell(*flags, "status")
        monkeypatch.delenv("FERROHSM_PROFILE")
        write_private_file(
            config_file(),
            config_file().read_bytes().replace(b'"stub"', b'"other"', 1),
        )
        current = bare_shell(*flags, "status")

        assert [] == stub.received
        assert {2} == {named.code, by_variable.code, current.code}
        assert "Profile other is for https://other.example" in named.err
        assert named.err == by_variable.err
        assert "No credential" in current.err

    def test_changed_endpoint(
        self, bare_shell: Shell, stub: Stub, write: Write, folder: Path
    ) -> None:
        """A token never follows a profile whose endpoint or issuer was edited."""
        write('issuer = "https://id.example"\n')
        issuer = bare_shell("status")
        write("")
        write_private_file(
            folder / "credentials/stub.json", tokens("https://other.example")
        )
        endpoint = bare_shell("status")

        assert ([], 2, 2) == (stub.received, issuer.code, endpoint.code)
        assert "run: hsm-cli --profile stub login" in endpoint.err

    def test_same_endpoint(self, bare_shell: Shell, stub: Stub, write: Write) -> None:
        """The endpoint may be named again, in another spelling."""
        write("")
        spelled = stub.endpoint.replace("localhost", "LOCALHOST") + "/"

        assert 0 == bare_shell("--endpoint", spelled, "status").code

    def test_flags_of_minted_tokens(
        self, bare_shell: Shell, stub: Stub, write: Write
    ) -> None:
        """Flags that a stored token would override are refused."""
        write("")
        outcome = bare_shell("--actor", "eve", "status")

        assert (2, []) == (outcome.code, stub.received)
        assert "--actor can't be used with the token of profile stub" in outcome.err

    @pytest.mark.parametrize("name", ["config.toml", "credentials/stub.json"])
    def test_open_to_others(
        self, bare_shell: Shell, stub: Stub, write: Write, folder: Path, name: str
    ) -> None:
        """Nothing is sent if another user may have read or changed a file."""
        write("")
        (folder / name).chmod(0o644)
        outcome = bare_shell("status")

        assert (2, []) == (outcome.code, stub.received)
        assert f"Run: chmod 600 {folder / name}" in outcome.err
        assert TOKEN not in outcome.err

    def test_damaged(self, bare_shell: Shell, write: Write, folder: Path) -> None:
        """A damaged file of secrets is refused without showing it."""
        write("")
        write_private_file(folder / "credentials/stub.json", b'{"token":"secret" x')
        outcome = bare_shell("status")

        assert 2 == outcome.code
        assert "is damaged. Sign in again" in outcome.err
        assert "secret" not in outcome.err


class TestDevelopmentServer:
    @pytest.fixture(autouse=True)
    def dev(
        self, stub: Stub, certificates: Certificates, folder: Path, tmp_path: Path
    ) -> None:
        """Write the file of a running development server: the stub."""
        token = tmp_path / "token"
        token.touch(0o600)
        token.write_text(f"{TOKEN}\n")
        text = (
            f'endpoint = "{stub.endpoint}"\nca-bundle = "{certificates.ca}"\n'
            f'token-file = "{token}"\npid = {os.getpid()}\naudit-log = "/x"\n'
        )
        write_private_file(dev_file(), text.encode())

    def test_used(self, bare_shell: Shell, stub: Stub) -> None:
        """It is used without any setting, and each command says so in one line."""
        outcome = bare_shell("status")

        assert 0 == outcome.code
        assert f"hsm-cli: dev server {stub.endpoint}\n" == outcome.err

    def test_folder_of_another(
        self, bare_shell: Shell, stub: Stub, tmp_path: Path
    ) -> None:
        """A link in a folder that others can enter sends no other secret."""
        secret = tmp_path / "secret"
        (tmp_path / "token").rename(secret)
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o755)
        (shared / "token").symlink_to(secret)
        text = dev_file().read_text().replace(f"{tmp_path}/token", f"{shared}/token")
        write_private_file(dev_file(), text.encode())
        outcome = bare_shell("status")
        (shared / "token").unlink()
        missing = bare_shell("status")

        assert (2, [], 2) == (outcome.code, stub.received, missing.code)
        assert f"chmod 700 {shared}" in outcome.err
        assert "Start hsm-server --dev again" in missing.err

    def test_offline(self, bare_shell: Shell) -> None:
        """A command that connects to no server does not mention it."""
        bare_shell.ok("algorithms", "--offline")

    def test_environment(
        self, bare_shell: Shell, stub: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is not used where flags or variables name a server or a credential."""
        for name, value in (
            ("ENDPOINT", "https://localhost:1"),
            ("AUTH_TOKEN", "another.token.x"),
            ("JWT_SECRET", "text:" + "q" * 40),
            ("CLIENT_CERT", "/nonexistent.pem"),
        ):
            with monkeypatch.context() as patch:
                patch.setenv(f"FERROHSM_{name}", value)
                outcome = bare_shell("status")

            assert outcome.code
            assert "dev server" not in outcome.err
        assert [] == stub.received

    def test_listed(self, bare_shell: Shell) -> None:
        """`profile list` marks it as the one in use, and `use` can't choose it."""
        listed = bare_shell.ok("profile", "list", "--json").json["items"]
        refused = bare_shell("profile", "use", "dev")

        assert [("dev", True)] == [(row["name"], row["used"]) for row in listed]
        assert (2, True) == (refused.code, "'dev' is reserved" in refused.err)


class TestLogin:
    @pytest.mark.parametrize("kind", [None, "file", "keyring"])
    def test_place_of_secrets(
        self,
        bare_shell: Shell,
        stub: Stub,
        certificates: Certificates,
        folder: Path,
        ring: Keyring,
        kind: str | None,
    ) -> None:
        """Secrets are kept where the user says, by default in a keyring."""
        words = ["--ca-bundle", str(certificates.ca), "login", stub.endpoint]
        words += ["--token", "-", *(["--secret-store", kind] if kind else [])]
        outcome = bare_shell(*words, stdin=TOKEN.encode())
        in_file = (folder / "credentials/localhost.json").exists()

        assert (0, "") == (outcome.code, outcome.err)
        assert (kind == "file", kind != "file") == (in_file, bool(ring.entries))
        assert "tester" == bare_shell.ok("whoami", "--json").json["principal"]

    def test_move(
        self,
        bare_shell: Shell,
        stub: Stub,
        certificates: Certificates,
        folder: Path,
        ring: Keyring,
    ) -> None:
        """Another place leaves nothing in the former one."""
        words = ["--ca-bundle", str(certificates.ca), "login", stub.endpoint]
        for kind in ("keyring", "file"):
            flags = ("--token", "-", "--secret-store", kind)
            bare_shell(*words, *flags, stdin=TOKEN.encode())

        assert {} == ring.entries
        assert (folder / "credentials/localhost.json").exists()
        assert 0 == bare_shell("logout").code
        assert not (folder / "credentials/localhost.json").exists()


class TestCommands:
    def test_list(self, bare_shell: Shell, write: Write) -> None:
        """`profile list` names all profiles and marks the one in use."""
        assert "no profiles" in bare_shell.ok("profile", "list").text
        write(OTHER)
        lines = bare_shell.ok("profile", "list").lines

        assert "NAME ENDPOINT CREDENTIAL USED".split() == lines[0].split()
        assert ["stub", "*"] == [lines[1].split()[0], lines[1].split()[-1]]
        assert "other https://other.example token -".split() == lines[2].split()

    def test_form(self, bare_shell: Shell, write: Write) -> None:
        """The form of a profile holds for its commands, until a flag says otherwise."""
        write('format = "json"\n')
        by_profile = bare_shell.ok("status").json
        write('format = "yaml"\n')
        refused = bare_shell("status")

        assert "operational" == by_profile["state"]
        assert bare_shell.ok("--format", "table", "status").text.startswith("state ")
        assert 2 == refused.code
        assert "table, wide, json, jsonl, got 'yaml'" in refused.err

    def test_use(self, bare_shell: Shell, write: Write) -> None:
        """`profile use` changes the current profile, and keeps comments."""
        write(f"# mine\n{OTHER}# the end\n")
        outcome = bare_shell.ok("profile", "use", "other")
        text = config_file().read_text()
        unknown = bare_shell("profile", "use", "x")

        assert "Using profile other: https://other.example" == outcome.text.strip()
        assert "other" == load_profiles().current
        assert "# mine\n[profiles.other]" in text
        assert text.endswith("# the end\n")
        assert (2, text) == (unknown.code, config_file().read_text())

    def test_current_is_gone(self, bare_shell: Shell, write: Write) -> None:
        """A current profile that is gone is replaced by choosing another one."""
        write(OTHER)
        text = config_file().read_text().replace('current = "stub"', 'current = "x"')
        write_private_file(config_file(), text.encode())
        listed = bare_shell.ok("profile", "list")
        refused = bare_shell("status")
        bare_shell.ok("profile", "use", "other")

        assert "*" not in listed.text
        assert (2, True) == (refused.code, "There is no profile 'x'" in refused.err)
        assert "other" == load_profiles().current

    def test_first_use(self, bare_shell: Shell, folder: Path) -> None:
        """The name goes above the tables of a file that has no current profile."""
        write_private_file(config_file(), f"# mine\n{OTHER}".encode())
        bare_shell.ok("profile", "use", "other")

        assert f'current = "other"\n# mine\n{OTHER}' == config_file().read_text()

    def test_show(self, bare_shell: Shell, write: Write) -> None:
        """`profile show` prints a profile, but none of its secrets."""
        write(OTHER)
        by_default = bare_shell.ok("profile", "show")
        by_flag = bare_shell.ok("--profile", "other", "profile", "show", "--json")
        by_name = bare_shell.ok("profile", "show", "other", "--json")

        assert "stub" == by_default.lines[0].split()[1]
        assert TOKEN not in by_default.text
        assert by_flag == by_name
        assert "https://other.example" == by_name.json["endpoint"]

    def test_nothing_to_show(self, bare_shell: Shell) -> None:
        """Without a profile, the error says how to add one."""
        outcome = bare_shell("profile", "show")

        assert (2, True) == (outcome.code, "run hsm-cli login" in outcome.err)


def test_built_in_policies(shell: Shell) -> None:
    """`policy show --built-in` has a former spelling, which works."""
    by_new = shell.ok("policy", "show", "--built-in", "strict")
    by_former = shell.ok("policy", "show", "--profile", "strict")
    both = shell("policy", "show", "--built-in", "strict", "--profile", "default")

    assert "extends: default" in by_new.text
    assert by_new == by_former
    assert 2 == both.code
