# SPDX-License-Identifier: MIT
"""Sign-in at a real OpenID Connect provider: browser, device code, refresh, end."""

import json
import os
import shlex
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

import hsm_client
import hsm_client.aio
from hsm_cli.actions.provider_sign_in import sign_in_by_device
from hsm_client.credentials import FileStore, StoredSecrets
from hsm_client.oidc import Provider
from hsm_client.profile_secrets import open_profile_token
from hsm_client.profiles import CredentialKind, Profile, load_profiles
from hsm_core.errors import AuthenticationError, ConfigurationError, TransportError
from hsm_core.operations import DescribeCaller
from tests.cli.support import Outcome, run_here
from tests.e2e.newcomer import sh_blocks
from tests.e2e.oidc_provider import AUDIENCE, CLIENT_ID, LIFETIME, OIDCProvider
from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site
from tests.support import REPOSITORY

Cli: TypeAlias = Callable[..., Outcome]

CERTIFICATE = (
    "  - {principal: ada, roles: [Administrator], certificate_subjects: [CN=ada]}\n"
)
FULL = ConfigurationError("tokens.json can't be written (No space left on device).")
PAGE = REPOSITORY / "docs" / "how-to" / "sign-in.md"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OIDCProvider]:
    """Give the provider of a file's tests."""
    with OIDCProvider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="module")
def server(shared_site: Site, provider: OIDCProvider) -> Iterator[ServerProcess]:
    """Give a server that accepts access tokens of the provider."""
    names = ("keys.json", "issuers.yaml", "policy.yaml")
    keys, issuers, policy = (shared_site.folder / name for name in names)
    rule = f"principal_claim: sub, issuer: '{provider.url}', audience: '{AUDIENCE}'"
    for path, text in (
        (keys, provider.key_set()),
        (issuers, f"issuers: [{{issuer: '{provider.url}', jwks_file: keys.json}}]\n"),
        (
            policy,
            "version: 1\nextends: default\nidentities:\n"
            f"{CERTIFICATE}"
            f"  - {{{rule}, roles: [Operator], claims: {{groups: hsm-operators}}}}\n"
            f"  - {{{rule}, roles: [Auditor], claims: {{groups: hsm-auditors}}}}\n",
        ),
    ):
        path.touch(0o600)
        path.write_text(text)
    environment = shared_site.environment()
    del environment["FERROHSM_JWT_SECRET"]
    flags = (
        *("--token-issuers", str(issuers), "--policy-config", str(policy)),
        *("--client-auth", "optional", "--client-cert-identities"),
    )
    with shared_site.start(*flags, environment=environment) as running:
        yield running
        assert 0 == running.stop()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty configuration folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "ferrohsm"


@pytest.fixture
def cli(home: Path) -> Cli:
    """Give hsm-cli without any setting in the environment."""

    def run(*words: str, typing: bool = False) -> Outcome:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FERROHSM_")}
        with mock.patch.dict(os.environ, kept, clear=True):
            return run_here(*words, typing=typing)

    return run


@dataclass
class Browser:
    """
    A user with a browser, who signs in at once.

    Attributes:
        user: Name that they sign in with.
        change: Changes the URL that they are sent back to.
        pages: What they saw at last.
    """

    bundle: Path
    user: str = "olga"
    change: Callable[[str], str] = str
    opened: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)

    def open(self, url: str) -> bool:
        """Open a URL, in another thread."""
        self.opened.append(url)
        threading.Thread(target=self._visit, args=(url,)).start()
        return True

    def _visit(self, url: str) -> None:
        context = ssl.create_default_context(cafile=self.bundle)
        stop = _Stop()
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), stop
        )
        with pytest.raises(urllib.error.HTTPError):
            opener.open(f"{url}&login_hint={self.user}", timeout=60)
        for there in (self.change(stop.location), stop.location):
            try:
                with opener.open(there, timeout=60) as page:
                    self.pages.append(page.read().decode())
                    return
            except urllib.error.HTTPError as refused:
                self.pages.append(f"status {refused.code}")


class _Stop(urllib.request.HTTPRedirectHandler):
    location = ""

    def redirect_request(self, *arguments: object) -> None:
        self.location = str(arguments[-1])


@pytest.fixture
def browser(provider: OIDCProvider, monkeypatch: pytest.MonkeyPatch) -> Browser:
    """Give the user's browser."""
    found = Browser(provider.bundle)
    monkeypatch.setattr("webbrowser.open", found.open)
    return found


@pytest.fixture
def login(
    server: ServerProcess, shared_site: Site, provider: OIDCProvider
) -> list[str]:
    """Give the command line that signs in at the provider."""
    return [
        *("--ca-bundle", str(shared_site.authority.bundle)),
        *("login", f"https://localhost:{server.port}", "--secret-store", "file"),
        *("--issuer", provider.url, "--client-id", CLIENT_ID),
        *("--issuer-ca-bundle", str(provider.bundle)),
    ]


def store(home: Path) -> FileStore:
    """Return the store of the secrets."""
    return FileStore(home / "credentials")


def kept(home: Path) -> StoredSecrets:
    """Return the secrets of the profile."""
    found = store(home).load("localhost")
    assert found is not None
    return found


def expire(home: Path) -> None:
    """Let the access token be at its end, as if time had passed."""
    ended = msgspec.structs.replace(kept(home), expires_at=int(time.time()))
    store(home).save("localhost", ended)


class TestBrowser:
    def test_life(
        self, cli: Cli, browser: Browser, login: list[str], home: Path
    ) -> None:
        """One line opens a browser; then commands need no flags, until the sign-out."""
        signed_in = cli(*login)
        query = parse_qs(urlsplit(browser.opened[0]).query)
        who = cli("whoami", "--json")
        secrets = kept(home)
        out = cli("logout")
        refused = cli("whoami")

        assert 0 == signed_in.code
        assert " as olga (Operator). Profile: localhost." in signed_in.text
        assert browser.opened[0] in signed_in.err
        assert "Return to the terminal" in browser.pages[0]
        assert ["S256"] == query["code_challenge_method"]
        assert ["openid offline_access"] == query["scope"]
        assert ("olga", ["Operator"]) == (who.json["principal"], who.json["roles"])
        for text in (secrets.token, secrets.refresh_token):
            assert text
            assert text not in signed_in.text + signed_in.err + who.text
        assert (0, "") == (out.code, out.err)
        assert 2 == refused.code

    def test_sign_in_again(self, cli: Cli, browser: Browser, login: list[str]) -> None:
        """The profile remembers the provider."""
        cli(*login)
        cli("logout")
        browser.user = "anton"
        again = cli("login")

        assert (0, True) == (again.code, " as anton (Auditor)" in again.text)

    def test_refused(
        self, cli: Cli, browser: Browser, login: list[str], home: Path
    ) -> None:
        """A user who does not sign in is told so, and nothing is saved."""
        browser.user = "nobody"
        outcome = cli(*login)

        assert 3 == outcome.code
        assert "did not sign you in (access_denied)" in outcome.err
        assert not (home / "config.toml").exists()

    @pytest.mark.parametrize(
        "change",
        [
            lambda url: url.replace("state=", "state=x"),
            lambda url: url.replace("state=", "x="),
            lambda url: f"{url}&code=other",
            lambda url: url.replace("/?", "/other?"),
        ],
    )
    def test_forged_answer(
        self,
        cli: Cli,
        browser: Browser,
        login: list[str],
        change: Callable[[str], str],
    ) -> None:
        """An answer that another page sends is ignored; the right one still counts."""
        browser.change = change
        outcome = cli(*login)

        assert (0, "status 404") == (outcome.code, browser.pages[0])

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda url: url.replace("code=", "code=x"), "invalid_grant"),
            (lambda url: url.replace("iss=", "iss=x"), "from another provider"),
            (lambda url: url.replace("iss=", "is="), "from another provider"),
        ],
    )
    def test_mixed_up(
        self,
        cli: Cli,
        browser: Browser,
        login: list[str],
        change: Callable[[str], str],
        told: str,
    ) -> None:
        """A wrong code, and an answer of another provider, sign nobody in."""
        browser.change = change
        outcome = cli(*login)

        assert (3, True) == (outcome.code, told in outcome.err)

    def test_silent_connection(
        self,
        cli: Cli,
        browser: Browser,
        login: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A connection that sends nothing keeps no answer out."""
        module = "hsm_cli.actions.provider_sign_in"
        monkeypatch.setattr(f"{module}._Handler.timeout", 20)
        monkeypatch.setattr(f"{module}._SECONDS", 10)
        silent: list[socket.socket] = []

        def connect_first(url: str) -> str:
            address = urlsplit(url)
            silent.append(
                socket.create_connection((address.hostname, address.port or 0))
            )
            return url

        browser.change = connect_first
        outcome = cli(*login)
        for connection in silent:
            connection.close()

        assert 0 == outcome.code


class TestDeviceCode:
    def test_signed_in(
        self, cli: Cli, login: list[str], provider: OIDCProvider
    ) -> None:
        """A user types the code elsewhere, while the command asks again and again."""
        provider.state.devices.clear()
        provider.answers = [None, None, ("olga", True)]
        outcome = cli(*login, "--device")
        (device,) = provider.state.devices.values()

        assert (0, []) == (outcome.code, provider.answers)
        assert " as olga (Operator)" in outcome.text
        assert f"{provider.url}/activate and enter the code {device['user_code']}" in (
            outcome.err
        )

    def test_denied(self, cli: Cli, login: list[str], provider: OIDCProvider) -> None:
        """A user who denies it is not asked again."""
        provider.answers = [("olga", False)]
        outcome = cli(*login, "--device")

        assert (3, True) == (outcome.code, "access_denied" in outcome.err)

    def test_pace(self, provider: OIDCProvider) -> None:
        """It asks more slowly if told to, and no longer than the code lasts."""
        provider.answers = ["slow down", None, None, None]
        profile = Profile(
            name="x",
            endpoint="https://localhost:1",
            credential=CredentialKind.OIDC,
            client_id=CLIENT_ID,
        )
        clock, pauses = [0.0], list[float]()

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            clock[0] += 500

        with pytest.raises(AuthenticationError, match="The code expired"):
            sign_in_by_device(
                Provider(provider.url, CLIENT_ID, provider.bundle),
                profile,
                pause=pause,
                now=lambda: clock[0],
            )

        assert [0, 5, 5, 5] == pauses

    def test_unsupported(
        self, cli: Cli, login: list[str], provider: OIDCProvider
    ) -> None:
        """A provider without device codes is named."""
        with mock.patch.dict(provider.metadata, {"device_authorization_endpoint": ""}):
            outcome = cli(*login, "--device")

        assert 2 == outcome.code
        assert "does not support device codes" in outcome.err


class TestRefresh:
    @pytest.fixture(autouse=True)
    def signed_in(self, cli: Cli, browser: Browser, login: list[str]) -> None:
        """Sign in."""
        assert 0 == cli(*login).code

    def test_while_it_lasts(self, cli: Cli, provider: OIDCProvider) -> None:
        """A token that lasts is used without asking the provider."""
        provider.requests.clear()
        cli("whoami")

        assert [] == provider.requests

    def test_by_itself(self, cli: Cli, home: Path) -> None:
        """An expired token is replaced, and the new one is kept."""
        first = kept(home)
        expire(home)
        outcome = cli("whoami")
        second = kept(home)

        assert (0, "") == (outcome.code, outcome.err)
        assert first.token != second.token
        assert first.refresh_token != second.refresh_token
        assert 0o600 == (home / "credentials/localhost.json").stat().st_mode & 0o777

    def test_moved_clock(self, home: Path) -> None:
        """Hours of work are one refresh for each lifetime of a token."""
        profile = load_profiles().get("localhost")
        start = time.time()
        clock = [start]
        token = open_profile_token(profile, now=lambda: clock[0])
        seen = []
        while clock[0] < start + 3600:
            seen.append(token())
            clock[0] += 60

        changes = sum(one != other for one, other in pairwise(seen))
        assert 3600 // LIFETIME - 1 <= changes <= 3600 // (LIFETIME - 60)

    async def test_program(self, home: Path) -> None:
        """A Python program uses the sign-in of its user, and refreshes it."""
        before = kept(home)
        expire(home)
        with hsm_client.connect() as hsm:
            name = hsm.execute(DescribeCaller()).principal
        blocking = kept(home)
        expire(home)
        async with hsm_client.aio.connect() as remote:
            twin = (await remote.execute(DescribeCaller())).principal

        assert ("olga", "olga") == (name, twin)
        assert 3 == len({before.token, blocking.token, kept(home).token})

    def test_clock_set_back(self, home: Path, provider: OIDCProvider) -> None:
        """A clock that is set back asks for nothing."""
        profile = load_profiles().get("localhost")
        token = open_profile_token(profile, now=lambda: time.time() - 86400)
        provider.requests.clear()

        assert kept(home).token == token()
        assert [] == provider.requests

    def test_two_at_once(self, home: Path, provider: OIDCProvider) -> None:
        """Of several programs one refreshes, and the others use its token."""
        expire(home)
        profile = load_profiles().get("localhost")
        programs = [open_profile_token(profile) for _ in range(4)]
        provider.requests.clear()
        seen: list[str] = []
        threads = [
            threading.Thread(target=lambda program=program: seen.append(program()))
            for program in programs
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (4, 1) == (len(seen), len(set(seen)))
        assert 1 == provider.requests.count("POST /token")

    def test_full_disk(self, cli: Cli, home: Path, provider: OIDCProvider) -> None:
        """Where new tokens can't be saved, the refresh token is not spent."""
        expire(home)
        provider.requests.clear()
        with mock.patch.object(FileStore, "save", side_effect=FULL):
            refused = cli("whoami")
        asked = list(provider.requests)
        outcome = cli("whoami")

        assert (2, True) == (refused.code, "No space left on device" in refused.err)
        assert ([], 0) == (asked, outcome.code)

    def test_disk_filled_meanwhile(self, home: Path, provider: OIDCProvider) -> None:
        """A program saves its new tokens later, if it can't at once."""
        expire(home)
        before = kept(home)
        token = open_profile_token(load_profiles().get("localhost"))
        provider.requests.clear()
        with (
            mock.patch.object(FileStore, "save", side_effect=[None, FULL]),
            pytest.raises(ConfigurationError, match=r"not saved: .* login$") as told,
        ):
            token()
        unsaved = kept(home)
        given = token()

        assert before == unsaved
        assert given == kept(home).token != before.token
        assert kept(home).refresh_token in provider.state.refresh_tokens
        assert 1 == provider.requests.count("POST /token")
        assert given not in str(told.value)

    def test_revoked_person(self, cli: Cli, home: Path, provider: OIDCProvider) -> None:
        """A person whom the provider has removed is asked to sign in again."""
        provider.revoke("olga")
        expire(home)
        outcome = cli("whoami")

        assert 3 == outcome.code
        assert "has ended (invalid_grant). Run: hsm-cli --profile localhost login" in (
            outcome.err
        )

    def test_without_refresh_token(self, cli: Cli, home: Path) -> None:
        """Without a refresh token, an expired sign-in says so."""
        bare = msgspec.structs.replace(kept(home), refresh_token="")
        store(home).save("localhost", bare)
        expire(home)
        outcome = cli("whoami")

        assert (3, True) == (outcome.code, "has ended (it has expired)" in outcome.err)

    def test_provider_away(self, cli: Cli, home: Path) -> None:
        """A provider that can't be reached is not an end of the sign-in."""
        path = home / "config.toml"
        issuer = load_profiles().get("localhost").issuer
        path.write_text(path.read_text().replace(issuer, "https://localhost:1"))
        moved = msgspec.structs.replace(kept(home), issuer="https://localhost:1")
        store(home).save("localhost", moved)
        expire(home)
        before = kept(home)
        outcome = cli("whoami")

        assert (9, True) == (outcome.code, "Can't reach the provider" in outcome.err)
        assert before == kept(home)

    def test_sign_out_revokes(
        self, cli: Cli, home: Path, provider: OIDCProvider
    ) -> None:
        """Signing out revokes the refresh token, and says if that is not possible."""
        token = kept(home).refresh_token
        known = token in provider.state.refresh_tokens
        quiet = cli("logout")

        assert (True, "") == (known, quiet.err)
        assert token not in provider.state.refresh_tokens

    def test_stolen_file(self, cli: Cli, home: Path) -> None:
        """Secrets that others could read are refused, and a sign-out removes them."""
        path = home / "credentials/localhost.json"
        path.chmod(0o644)
        refused = cli("whoami")
        out = cli("logout")

        assert (2, True) == (refused.code, f"Run: chmod 600 {path}" in refused.err)
        assert (0, False) == (out.code, path.exists())
        assert "Its tokens are not revoked" in out.err


class TestHostileProvider:
    def provider(self, running: OIDCProvider) -> Provider:
        """Return a client of the provider."""
        return Provider(running.url, CLIENT_ID, running.bundle)

    @pytest.mark.parametrize(
        ("metadata", "told"),
        [
            ({"issuer": "https://other.example"}, "another issuer"),
            ({"token_endpoint": "http://localhost/token"}, "not an https URL"),
            ({"revocation_endpoint": "http://localhost/x"}, "not an https URL"),
            ({"authorization_endpoint": 5}, "Expected `str`"),
            ({"authorization_endpoint": "https://x/\x1b]0;y\x07"}, "not an https URL"),
            ({"token_endpoint": "https://localhost:1/"}, "Can't reach"),
            ({"padding": "x" * 300_000}, "too long"),
        ],
    )
    def test_metadata(
        self, provider: OIDCProvider, metadata: dict[str, object], told: str
    ) -> None:
        """Metadata that could send a token elsewhere is refused."""
        with (
            mock.patch.dict(provider.metadata, metadata),
            pytest.raises(TransportError, match=told),
        ):
            self.provider(provider).request_tokens({"grant_type": "x"})

    def test_other_authority(self, provider: OIDCProvider) -> None:
        """A provider whose CA is not trusted is not asked."""
        with pytest.raises(TransportError, match="certificate verify failed"):
            Provider(provider.url, CLIENT_ID, None).metadata()

    def test_no_https(self) -> None:
        """A provider is reached over HTTPS only."""
        with pytest.raises(ConfigurationError, match="must be an https URL"):
            Provider("http://localhost", CLIENT_ID, None)

    def test_unknown_code(self, provider: OIDCProvider) -> None:
        """The provider's error code is told, and its description is not."""
        with pytest.raises(AuthenticationError, match=r"\(invalid_grant\)\.$"):
            self.provider(provider).request_tokens(
                {"grant_type": "refresh_token", "refresh_token": "x"}
            )


def test_no_secret_in_a_repr(provider: OIDCProvider) -> None:
    """What holds a token does not show it."""
    secrets = StoredSecrets(token="tok-en", refresh_token="re-fresh", password="pass")
    found = Provider(provider.url, CLIENT_ID, provider.bundle).begin_device({})

    assert not {"tok-en", "re-fresh", "pass"} & set(repr(secrets))
    assert "<StoredSecrets>" == repr(secrets)
    assert "<DeviceCode>" == repr(found)
    assert json.dumps(found.device_code) not in repr(found)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--issuer", "https://x"], "--issuer requires --client-id"),
        (["--issuer", "http://x", "--client-id", "c"], "must be an https URL"),
        (["--issuer", "https://x", "--token", "-"], "mutually exclusive"),
        (["--token", "-", "--scope", "x"], "--scope requires --issuer"),
        (["--credential", "x", "--device"], "--device requires --issuer"),
        (["--issuer", "https://x", "--password", "@x"], "requires --credential"),
    ],
)
def test_options(cli: Cli, words: list[str], told: str) -> None:
    """Options that do not go together are refused."""
    outcome = cli("login", "https://localhost:1", *words)

    assert (2, True) == (outcome.code, told in outcome.err)


def test_profile_of_a_provider(cli: Cli, browser: Browser, login: list[str]) -> None:
    """The profile holds what a sign-in needs again, and no secret."""
    cli(*login, "--scope", "openid,hsm", "--audience", AUDIENCE)
    found: Profile = load_profiles().get("localhost")

    assert (CLIENT_ID, ("openid", "hsm"), AUDIENCE) == (
        found.client_id,
        found.scopes,
        found.audience,
    )
    assert [AUDIENCE] == parse_qs(urlsplit(browser.opened[0]).query)["audience"]


def test_page(
    cli: Cli,
    browser: Browser,
    server: ServerProcess,
    shared_site: Site,
    provider: OIDCProvider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each command of the page works, in order."""
    places = {
        "https://hsm.example.com:8443": f"https://localhost:{server.port}",
        "https://id.example.com": provider.url,
        "hsm.example.com": "localhost",
    }
    issued = shared_site.authority.root.issue("ada")
    encryption = BestAvailableEncryption(b"moon-otter-brick-lemon")
    token = provider.issue("anton")["access_token"]
    for name, data in (
        ("ada.pem", issued.chain_pem + issued.key_pem),
        ("ca.pem", shared_site.authority.bundle.read_bytes()),
        ("token", token.encode()),
        (
            "ada.p12",
            pkcs12.serialize_key_and_certificates(
                b"ada", issued.key, issued.certificate, issued.above, encryption
            ),
        ),
    ):
        path = tmp_path / name
        path.touch(0o600)
        path.write_bytes(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(provider.bundle))
    monkeypatch.setattr(
        "click.termui.hidden_prompt_func", lambda _: "moon-otter-brick-lemon"
    )
    provider.answers = [None, ("olga", True)]
    shown = []
    for line in "".join(sh_blocks(PAGE.read_text())).splitlines():
        program, *words = shlex.split(line)
        outcome = cli(*(places.get(word, word) for word in words), typing=True)

        assert ("hsm-cli", 0) == (program, outcome.code), f"{line}: {outcome.err}"
        shown.append(outcome.text)
    people = ["as ada", "ada", "as ada", "as olga", "as olga", "as anton", "as anton"]

    assert all(who in text for who, text in zip(people, shown, strict=False))
    assert "anton" in shown[-2]
    assert "Signed out of profile localhost." in shown[-1]
