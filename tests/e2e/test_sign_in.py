# SPDX-License-Identifier: MIT
"""Sign-in to a real server by certificate, PKCS#12 and token."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias
from unittest import mock

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    NoEncryption,
    pkcs12,
)

from hsm_client.profiles import config_file, load_profiles
from tests.cli.support import Outcome, run_here
from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site
from tests.pki import Issued, self_signed_root

PASSWORD = "moon-otter-brick-lemon"
POLICY = """version: 1
extends: default
identities:
  - {principal: ada, roles: [Operator], certificate_subjects: ["CN=ada"]}
"""
Cli: TypeAlias = Callable[..., Outcome]


@pytest.fixture(scope="module")
def server(shared_site: Site) -> Iterator[ServerProcess]:
    """Give a server that knows ada by her certificate."""
    policy = shared_site.folder / "policy.yaml"
    policy.write_text(POLICY)
    flags = ("--client-cert-identities", "--policy-config", str(policy))
    with shared_site.start(*flags, "--client-auth", "optional") as running:
        yield running
        assert 0 == running.stop()


@pytest.fixture
def endpoint(server: ServerProcess) -> str:
    """Give the URL of the server."""
    return f"https://localhost:{server.port}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty configuration folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "ferrohsm"


@pytest.fixture
def cli(home: Path) -> Cli:
    """Give hsm-cli without any setting in the environment."""

    def run(*words: str, stdin: bytes = b"", typing: bool = False) -> Outcome:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FERROHSM_")}
        with mock.patch.dict(os.environ, kept, clear=True):
            outcome = run_here(*words, stdin=stdin, typing=typing)
        assert PASSWORD not in outcome.text + outcome.err
        return outcome

    return run


def issue(site: Site, name: str) -> Issued:
    """Issue a certificate of the site's CA."""
    return site.authority.root.issue(name)


def write_pkcs12(
    folder: Path, issued: Issued, password: str = PASSWORD, *, has_ca: bool = True
) -> Path:
    """Write certificate, key and, unless told otherwise, CA as PKCS#12."""
    encryption = BestAvailableEncryption(password.encode()) if password else None
    data = pkcs12.serialize_key_and_certificates(
        b"ada",
        issued.key,
        issued.certificate,
        issued.above if has_ca else [],
        encryption or NoEncryption(),
    )
    path = folder / "ada.p12"
    path.write_bytes(data)
    return path


@pytest.fixture
def password(tmp_path: Path) -> str:
    """Give the source of the password."""
    path = tmp_path / "password"
    path.touch(0o600)
    path.write_text(f"{PASSWORD}\n")
    return f"@{path}"


class TestPkcs12:
    def test_life(
        self, cli: Cli, shared_site: Site, endpoint: str, tmp_path: Path, password: str
    ) -> None:
        """One line signs in; then commands need no flags, until the sign-out."""
        file = write_pkcs12(tmp_path, issue(shared_site, "ada"))
        signed_in = cli(
            "login", endpoint, "--credential", str(file), "--password", password
        )
        who = cli("whoami")
        made = cli("create", "Ed25519", "--name", f"key-{tmp_path.name[:20]}")
        out = cli("logout")
        refused = cli("whoami")
        again = cli("login", "--password", password)

        assert f"Signed in to {endpoint} as ada (Operator). Profile: localhost.\n" == (
            signed_in.text
        )
        assert f"hsm-cli: trusting the CA in {file}\n" == signed_in.err
        assert (0, 0, 0) == (who.code, made.code, out.code)
        assert ["principal", "ada", "roles", "Operator"] == who.text.split()[:4]
        assert "CN=ada" in who.text
        assert f"the client certificate stays in {file}" in out.err
        assert (2, True) == (
            refused.code,
            "Run: hsm-cli --profile localhost login" in refused.err,
        )
        assert 0 == again.code

    def test_at_rest(
        self,
        cli: Cli,
        home: Path,
        shared_site: Site,
        endpoint: str,
        tmp_path: Path,
        password: str,
    ) -> None:
        """Everything that is kept is private, and the profile holds no secret."""
        file = write_pkcs12(tmp_path, issue(shared_site, "ada"))
        cli("login", endpoint, "--credential", str(file), "--password", password)
        kept = [path for path in home.rglob("*") if path.is_file()]

        assert {0o600} == {path.stat().st_mode & 0o777 for path in kept}
        assert {0o700} == {path.parent.stat().st_mode & 0o777 for path in kept}
        assert PASSWORD not in config_file().read_text()

    def test_prompt(
        self,
        cli: Cli,
        shared_site: Site,
        endpoint: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A person at a terminal types the password, which is not shown."""
        file = write_pkcs12(tmp_path, issue(shared_site, "ada"))
        asked: list[str] = []

        def answer(prompt: str) -> str:
            asked.append(prompt)
            return PASSWORD

        monkeypatch.setattr("click.termui.hidden_prompt_func", answer)
        words = ("login", endpoint, "--credential", str(file))
        outcome = cli(*words, typing=True)
        no_terminal = cli(*words)

        assert (0, ["Password of ada.p12: "]) == (outcome.code, asked)
        assert "Pass --password @FILE" in no_terminal.err

    def test_wrong_password(
        self, cli: Cli, shared_site: Site, endpoint: str, home: Path, tmp_path: Path
    ) -> None:
        """A wrong password is said to be one, and nothing is saved."""
        file = write_pkcs12(tmp_path, issue(shared_site, "ada"), "other")
        path = tmp_path / "wrong"
        path.touch(0o600)
        path.write_text("not this one")
        words = ("login", endpoint, "--credential", str(file))
        outcome = cli(*words, "--password", f"@{path}")

        assert 2 == outcome.code
        assert "the password is wrong" in outcome.err
        assert not config_file().exists()

    def test_without_ca(
        self, cli: Cli, shared_site: Site, endpoint: str, tmp_path: Path, password: str
    ) -> None:
        """Without a CA in the file, the server must be trusted in another way."""
        file = write_pkcs12(tmp_path, issue(shared_site, "ada"), has_ca=False)
        words = ("login", endpoint, "--credential", str(file), "--password", password)
        refused = cli(*words)
        bundle = str(shared_site.authority.bundle)
        accepted = cli("--ca-bundle", bundle, *words)

        assert (9, True) == (refused.code, "--ca-bundle FILE" in refused.err)
        assert (0, "") == (accepted.code, accepted.err)
        assert bundle == str(load_profiles().get("localhost").ca_bundle)

    def test_other_ca(
        self,
        cli: Cli,
        home: Path,
        shared_site: Site,
        endpoint: str,
        tmp_path: Path,
        password: str,
    ) -> None:
        """A new HSM at an address has another CA, which a new file brings along."""
        file = write_pkcs12(tmp_path, issue(shared_site, "ada"))
        words = ("login", endpoint, "--credential", str(file), "--password", password)
        cli(*words)
        former = self_signed_root("of the former HSM").chain_pem
        (home / "ca" / "localhost.pem").write_bytes(former)
        again = cli(*words)
        (tmp_path / "former.pem").write_bytes(former)
        chosen = cli("--ca-bundle", str(tmp_path / "former.pem"), *words)

        assert (0, True) == (again.code, "trusting the CA" in again.err)
        assert (9, False) == (chosen.code, "trusting the CA" in chosen.err)

    def test_unknown_person(
        self, cli: Cli, shared_site: Site, endpoint: str, tmp_path: Path, password: str
    ) -> None:
        """A certificate that the policy does not know is rejected; nothing is saved."""
        file = write_pkcs12(tmp_path, issue(shared_site, "eve"))
        words = ("login", endpoint, "--credential", str(file), "--password", password)
        outcome = cli(*words)

        assert 3 == outcome.code
        assert "rejected this credential. Nothing was saved." in outcome.err
        assert not config_file().exists()


class TestCertificate:
    def test_pem(
        self, cli: Cli, shared_site: Site, endpoint: str, tmp_path: Path
    ) -> None:
        """A PEM file with certificate and key signs in, unless others can read it."""
        issued = issue(shared_site, "ada")
        file = tmp_path / "ada.pem"
        file.touch(0o600)
        file.write_bytes(issued.chain_pem + issued.key_pem)
        bundle = str(shared_site.authority.bundle)
        words = ("--ca-bundle", bundle, "login", endpoint, "--credential", str(file))
        outcome = cli("--profile", "prod", *words)
        file.chmod(0o644)
        refused = cli("whoami")

        assert 0 == outcome.code
        assert outcome.text.endswith("Profile: prod.\n")
        assert (2, True) == (refused.code, f"Run: chmod 600 {file}" in refused.err)


class TestToken:
    def test_pasted(
        self, cli: Cli, shared_site: Site, endpoint: str, home: Path
    ) -> None:
        """A token from standard input is checked, and kept with mode 0600."""
        token = shared_site.token("olga", "Auditor")
        words = ("--ca-bundle", str(shared_site.authority.bundle), "login", endpoint)
        outcome = cli(*words, "--token", "-", "--json", stdin=f"{token}\n".encode())
        kept = home / "credentials" / "localhost.json"
        who = json.loads(cli("whoami", "--json").out)
        out = cli("logout")

        assert {
            "profile": "localhost",
            "endpoint": endpoint,
            "principal": "olga",
            "roles": ["Auditor"],
        } == outcome.json
        assert ("olga", "localhost") == (who["principal"], who["profile"])
        assert token not in outcome.text + config_file().read_text()
        assert "Signed out of profile localhost.\n" == out.text
        assert not kept.exists()

    def test_literal(self, cli: Cli, endpoint: str) -> None:
        """A token on the command line is refused without repeating it."""
        outcome = cli("login", endpoint, "--token", "aaa.bbb.ccc")

        assert 2 == outcome.code
        assert "--token takes @FILE or fd:N" in outcome.err
        assert "aaa.bbb.ccc" not in outcome.err

    def test_rejected(self, cli: Cli, shared_site: Site, endpoint: str) -> None:
        """A token that the server rejects is not kept."""
        words = ("--ca-bundle", str(shared_site.authority.bundle), "login", endpoint)
        outcome = cli(*words, "--token", "-", stdin=b"aaa.bbb.ccc")

        assert (3, False) == (outcome.code, config_file().exists())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["login"], "Missing URL"),
        (["login", "https://localhost:1"], "How do you sign in?"),
        (["login", "https://x", "--token", "-"], "The token is empty"),
        (["login", "https://x", "--token", "-", "--credential", "f"], "exclusive"),
        (["login", "https://x", "--credential", "/nonexistent"], "Can't read"),
        (["login", "http://x", "--token", "@TOKEN"], "endpoint must be https"),
        (["--profile", "dev", "login", "https://x", "--token", "@TOKEN"], "reserved"),
        (["logout"], "No profile is in use"),
    ],
)
def test_refused(cli: Cli, tmp_path: Path, words: list[str], told: str) -> None:
    """A command that can't work says what to do."""
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("a.b.c")
    outcome = cli(*(word.replace("TOKEN", str(token)) for word in words))

    assert (2, b"") == (outcome.code, outcome.out)
    assert told in outcome.err
    assert not config_file().exists()
