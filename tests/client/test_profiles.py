# SPDX-License-Identifier: MIT
"""`hsm_client.profiles`: files, access, precedence, and the development server."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from hsm_client.profiles import (
    CredentialKind,
    choose_profile,
    config_file,
    load_profiles,
)
from hsm_core.dev_profile import dev_file
from hsm_core.errors import ConfigurationError, UnsafeFileModeError
from hsm_core.private_files import write_private_file

TWO = """\
current = "prod"

[profiles.prod]
endpoint = "https://hsm.example.com:8443"
ca-bundle = "ca.pem"
credential = "oidc"
issuer = "https://id.example.com"
client-id = "hsm-cli"
scopes = ["openid", "offline_access"]

[profiles.test]
endpoint = "https://test.example.com"
credential = "token"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty configuration folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("FERROHSM_PROFILE", raising=False)
    return tmp_path / "ferrohsm"


def write(text: str) -> None:
    """Write the file of the profiles."""
    write_private_file(config_file(), text.encode())


def write_dev(folder: Path, pid: int) -> None:
    """Write the file of a development server with this process ID."""
    text = (
        f'endpoint = "https://127.0.0.1:9"\nca-bundle = "/dev/ca.pem"\n'
        f'token-file = "/dev/token"\npid = {pid}\naudit-log = "{folder}/audit.log"\n'
    )
    write_private_file(dev_file(), text.encode())


class TestFile:
    def test_contents(self, folder: Path) -> None:
        """Keys are read; relative paths are relative to the folder."""
        write(TWO)
        found = load_profiles()
        prod = found.get("prod")

        assert ("prod", ["prod", "test"]) == (found.current, list(found.by_name))
        assert CredentialKind.OIDC is prod.credential
        assert folder / "ca.pem" == prod.ca_bundle
        assert ("openid", "offline_access") == prod.scopes
        assert "example.com" not in repr(prod)

    def test_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A path may begin with the user's home, and with no one else's."""
        monkeypatch.setenv("HOME", "/homes/ada")
        write(TWO.replace("ca.pem", "~/ca.pem"))
        own = load_profiles().get("prod").ca_bundle
        write(TWO.replace("ca.pem", "~eve/ca.pem"))
        other = load_profiles().get("prod").ca_bundle

        assert Path("/homes/ada/ca.pem") == own
        assert config_file().parent / "~eve" / "ca.pem" == other

    def test_missing(self) -> None:
        """Without a file there are no profiles."""
        assert {} == load_profiles().by_name
        assert choose_profile() is None

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("= x", "not valid TOML"),
            ("\udcff", "not valid TOML"),
            ("x = " + "[" * 5000, "nested too deeply"),
            ("x = 1", "unknown setting 'x'"),
            ("[profiles.a]\ncredential = 'token'", "profile a: .*endpoint"),
            (
                "[profiles.a]\nendpoint = 3\ncredential = 'token'",
                "profile a: endpoint: Expected `str`, got `int`",
            ),
            (
                "[profiles.a]\nendpoint = 'x'\ncredential = 'tokn'",
                "profile a: credential: Invalid enum value 'tokn'",
            ),
            (
                "[profiles.a]\nendpoint = 'x'\ncredential = 'token'\nca-bundle = 1",
                "profile a: ca-bundle: Expected a path",
            ),
            (
                '[profiles.a]\nendpoint="x"\ncredential="token"\nca-bundle="\\u0000"',
                "profile a: ca-bundle: Expected a path",
            ),
            (
                "[profiles.a]\nendpoint = 'x'\ncredential = 'token'\ntoken-file = 'x'",
                "profile a: unknown setting 'token-file'",
            ),
            (
                "[profiles.a]\nendpoint = 'x'\ncredential = 'pkcs12'",
                "profile a: credential 'pkcs12' requires client-cert",
            ),
            (
                "[profiles.a]\nendpoint = 'x'\ncredential = 'oidc'\nissuer = 'x'",
                "profile a: credential 'oidc' requires client-id",
            ),
            ("[profiles.dev]\n", "'dev' is reserved"),
            ("[profiles.strict]\n", "'strict' is reserved"),
            ("[profiles.'../a']\n", "must be 1 to 64 letters"),
        ],
    )
    def test_invalid(self, text: str, told: str) -> None:
        """An invalid file is refused; the error names profile and key."""
        write_private_file(config_file(), text.encode("utf-8", "surrogateescape"))

        with pytest.raises(ConfigurationError, match=told):
            load_profiles()

    @pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
    def test_open_to_others(self, mode: int) -> None:
        """A file with a wider mode is refused, with the command that repairs it."""
        write(TWO)
        config_file().chmod(mode)
        with pytest.raises(UnsafeFileModeError) as caught:
            load_profiles()
        command = str(caught.value).partition("Run: ")[2].partition("[")[0]
        subprocess.run(command.split(), check=True)

        assert f"has mode {mode:04o}" in str(caught.value)
        assert "prod" == load_profiles().current

    def test_folder_open_to_others(self, folder: Path) -> None:
        """So is one in a folder with a wider mode."""
        write(TWO)
        folder.chmod(0o755)
        with pytest.raises(UnsafeFileModeError, match=f"Run: chmod 700 {folder}$"):
            load_profiles()

    def test_no_regular_file(self, folder: Path) -> None:
        """A pipe is refused, and not waited for."""
        write(TWO)
        config_file().unlink()
        os.mkfifo(config_file(), 0o600)

        with pytest.raises(ConfigurationError, match="not a regular file"):
            load_profiles()

    def test_too_long(self) -> None:
        """A file of megabytes is not read."""
        write("#" * 2**20)

        with pytest.raises(ConfigurationError, match="at most 262144 bytes"):
            load_profiles()

    def test_failing_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A write that fails leaves the former file, and nothing beside it."""
        write(TWO)

        def fail(*paths: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        for step in ("fsync", "replace"):
            with monkeypatch.context() as patch:
                patch.setattr(os, step, fail)
                with pytest.raises(ConfigurationError, match="No space left"):
                    write("")

            assert [config_file()] == list(config_file().parent.iterdir())
            assert TWO == config_file().read_text()

    def test_written_private(self, folder: Path) -> None:
        """Written files have mode 0600, and folders 0700, whatever the umask."""
        before = os.umask(0)
        try:
            write(TWO)
        finally:
            os.umask(before)

        assert 0o600 == config_file().stat().st_mode & 0o777
        assert 0o700 == folder.stat().st_mode & 0o777
        assert [config_file()] == list(folder.iterdir())


class TestChoice:
    def test_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The argument comes before the variable, and that before the current one."""
        write(TWO)
        write_dev(Path("/dev"), os.getpid())
        chosen = [choose_profile()]
        monkeypatch.setenv("FERROHSM_PROFILE", "test")
        chosen.append(choose_profile())
        chosen.append(choose_profile("dev"))

        assert ["prod", "test", "dev"] == [found.name for found in chosen if found]

    def test_unknown(self) -> None:
        """An unknown name is refused, and the known ones are listed."""
        write(TWO)
        with pytest.raises(ConfigurationError, match=r"'x'\. Profiles: prod, test"):
            choose_profile("x")

    def test_current_is_gone(self) -> None:
        """A current profile that is gone is refused, and others can be used."""
        write(TWO.replace("[profiles.prod]", "[profiles.live]"))

        with pytest.raises(ConfigurationError, match=r"'prod'\. Profiles: live, test"):
            choose_profile()
        assert choose_profile("live") is not None

    def test_relative_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative XDG_CONFIG_HOME is ignored."""
        monkeypatch.setenv("XDG_CONFIG_HOME", "here")
        monkeypatch.setenv("HOME", "/srv/ada")

        assert Path("/srv/ada/.config/ferrohsm/config.toml") == config_file()


class TestDevelopmentServer:
    def test_running(self, folder: Path) -> None:
        """The profile of a running server is used if no other is."""
        write_dev(folder, os.getpid())
        found = choose_profile()

        assert found is not None
        assert ("dev", "https://127.0.0.1:9") == (found.name, found.endpoint)
        assert Path("/dev/token") == found.token_file

    @pytest.mark.parametrize("pid", [0, -1, 2**40])
    def test_impossible(self, folder: Path, pid: int) -> None:
        """A process ID that no process has is that of a server that has ended."""
        write_dev(folder, pid)

        assert choose_profile() is None

    def test_gone(self, folder: Path) -> None:
        """The file of a server that was killed is ignored."""
        with subprocess.Popen(["true"]) as ended:
            ended.wait()
        write_dev(folder, ended.pid)

        assert choose_profile() is None

    def test_open_to_others(self, folder: Path) -> None:
        """A file that others may write to is refused."""
        write_dev(folder, os.getpid())
        dev_file().chmod(0o666)

        with pytest.raises(UnsafeFileModeError, match="chmod 600"):
            choose_profile()
