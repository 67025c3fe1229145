# SPDX-License-Identifier: MIT
"""Public keys that are fetched: from a server that is good, bad, slow or gone."""

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from hsm_core.errors import ConfigurationError
from hsm_server.config.settings import TokenRules
from hsm_server.identity import key_sets
from hsm_server.identity.key_sets import MAX_SET_BYTES, KeySetTask
from hsm_server.identity.token_keys import Algorithm, key_from_pem, public_key_set
from hsm_server.identity.token_sources import TokenSource
from hsm_server.tls.state import ActiveState
from tests.server.family import counter, wait_until
from tests.server.issuer_thread import issuing
from tests.server.process import Running, Site
from tests.server.support import Authority, b64url
from tests.server.token_kit import Signer, Watched, signer, write_config

OLD, NEW, RSA = signer("ES256"), signer("EdDSA"), signer("RS256")
NOWHERE = cast("ActiveState", None)


def key_set(**signers: Signer) -> bytes:
    """Return the set of these keys, by kid."""
    return public_key_set(
        key_from_pem(one.pem(), Algorithm(one.algorithm), kid)
        for kid, one in signers.items()
    )


def rows(**signers: Signer) -> list[dict[str, Any]]:
    """Return the rows of that set."""
    found: list[dict[str, Any]] = json.loads(key_set(**signers))["keys"]
    return found


class Issuer:
    """A server of keys, over HTTPS on loopback."""

    def __init__(self) -> None:
        self.body = key_set(old=OLD)
        self.headers: dict[str, str] = {}
        self.status = 200
        self.asked: list[dict[str, str]] = []
        self.delay = 0.0
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Give what a test has set."""
        self.asked.append(dict(request.headers))
        await asyncio.sleep(self.delay)
        if self.headers.get("ETag") and request.headers.get(
            "If-None-Match"
        ) == self.headers.get("ETag"):
            return web.Response(status=304, headers=self.headers)
        return web.Response(body=self.body, status=self.status, headers=self.headers)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.port}/keys?tenant=secret"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give who has signed the issuer's certificate."""
    return Authority(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    """Give the issuer's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("issuer", server=True))
    return context


@pytest.fixture
async def issuer(tls: ssl.SSLContext) -> AsyncIterator[Issuer]:
    """Give an issuer that serves one key."""
    found = Issuer()
    app = web.Application()
    app.router.add_get("/keys", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


class Fetching:
    """A task, and what it has delivered."""

    def __init__(
        self, issuer: Issuer, authorities: Path | None, seconds: float
    ) -> None:
        self.delivered: list[tuple[bytes | None, str]] = []
        self.task = KeySetTask(
            issuer.url,
            authorities,
            seconds,
            lambda *found: self.delivered.append(found),
        )

    @property
    def problem(self) -> str:
        """What is wrong now."""
        return self.delivered[-1][1]


@pytest.fixture
def fetching(issuer: Issuer, authority: Authority) -> Fetching:
    """Give a task that asks every half minute."""
    return Fetching(issuer, authority.path, 30.0)


async def test_a_set_is_fetched(issuer: Issuer, fetching: Fetching) -> None:
    """Its bytes are handed on, and it is asked again before the interval is over."""
    assert 29.0 == await fetching.task.look()
    assert [(issuer.body, "")] == fetching.delivered
    asked = issuer.asked[0]
    assert "application/jwk-set+json, application/json" == asked["Accept"]
    assert ("identity", "ferrohsm") == (asked["Accept-Encoding"], asked["User-Agent"])
    assert "If-None-Match" not in asked


@pytest.mark.parametrize(("interval", "wait"), [(1.0, 0.5), (1.5, 0.75), (4.0, 3.0)])
async def test_a_short_interval(
    issuer: Issuer, authority: Authority, interval: float, wait: float
) -> None:
    """There is time left to fetch within the interval, a second or half of it."""
    assert wait == await Fetching(issuer, authority.path, interval).task.look()


async def test_trouble_makes_it_wait_longer_each_time(
    issuer: Issuer, fetching: Fetching
) -> None:
    """As long as after a good answer at most; then it begins with little again."""
    issuer.status = 500
    assert [2, 4, 8, 16, 29, 29] == [await fetching.task.look() for _ in range(6)]

    issuer.status = 200
    await fetching.task.look()
    issuer.status = 500
    assert 2 == await fetching.task.look()


async def test_no_proxy_of_the_environment_is_asked(
    issuer: Issuer, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may set a variable does not learn where keys come from."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    await fetching.task.look()

    assert [(issuer.body, "")] == fetching.delivered


@pytest.mark.parametrize(("length", "is_kept"), [(256, True), (257, False)])
async def test_a_tag_is_no_longer_than_a_tag(
    issuer: Issuer, fetching: Fetching, length: int, is_kept: bool
) -> None:
    """Nobody makes the server send back whatever it is told to."""
    issuer.headers["ETag"] = f'"{"x" * (length - 2)}"'
    await fetching.task.look()
    await fetching.task.look()

    assert is_kept is ("If-None-Match" in issuer.asked[1])


async def test_what_has_not_changed_is_not_sent_again(
    issuer: Issuer, fetching: Fetching
) -> None:
    """By its tag; another tag brings the new one."""
    issuer.headers["ETag"] = '"1"'
    await fetching.task.look()
    await fetching.task.look()
    assert [(issuer.body, ""), (None, "")] == fetching.delivered
    assert '"1"' == issuer.asked[1]["If-None-Match"]

    issuer.headers["ETag"], issuer.body = '"2"', key_set(new=NEW)
    await fetching.task.look()
    assert (issuer.body, "") == fetching.delivered[-1]


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("", 29.0),
        ("max-age=20", 20.0),
        ("public, max-age=20, immutable", 20.0),
        ("MAX-AGE=20", 20.0),
        ("max-age=0", 15.0),
        ("no-store", 29.0),
        ("max-age=999999999", 29.0),
        ("max-age=-1", 29.0),
        ("s-maxage=16", 29.0),
        ("max-age=99999999999999999999999", 29.0),
    ],
)
async def test_freshness_has_bounds(
    issuer: Issuer, fetching: Fetching, said: str, seconds: float
) -> None:
    """Sooner down to half of the interval, later never."""
    issuer.headers["Cache-Control"] = said

    assert seconds == await fetching.task.look()


def _redirect(issuer: Issuer) -> None:
    issuer.status, issuer.headers["Location"] = 302, issuer.url


def _compress(issuer: Issuer) -> None:
    issuer.headers["Content-Encoding"] = "gzip"
    issuer.body = gzip.compress(bytes(2**20))


HOSTILE: dict[str, tuple[Callable[[Issuer], None], str]] = {
    "error": (lambda i: setattr(i, "status", 500), "the response status is HTTP 500."),
    "not found": (
        lambda i: setattr(i, "status", 404),
        "the response status is HTTP 404.",
    ),
    "redirect": (_redirect, "the response status is HTTP 302."),
    "never changed": (
        lambda i: setattr(i, "status", 304),
        "the response status is HTTP 304.",
    ),
    "long": (lambda i: setattr(i, "body", b" " * (MAX_SET_BYTES + 1)), "longer than"),
    "huge": (lambda i: setattr(i, "body", bytes(2**24)), "longer than"),
    "compressed": (_compress, "the response is compressed."),
    "slow": (lambda i: setattr(i, "delay", 3.0), "timed out."),
    "gone": (lambda i: setattr(i, "port", 1), "the connection failed."),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_answer(
    issuer: Issuer, authority: Authority, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told in words, without the query; it is asked again soon, and less so."""
    spoil, words = HOSTILE[name]
    if name == "slow":
        monkeypatch.setattr(key_sets, "_SECONDS", 0.5)
    spoil(issuer)
    fetching = Fetching(issuer, authority.path, 30.0)
    waits = [await fetching.task.look() for _ in range(1 if name == "slow" else 3)]

    assert [2.0, 4.0, 8.0][: len(waits)] == waits
    assert {None} == {data for data, _ in fetching.delivered}
    assert words in fetching.problem
    assert "secret" not in fetching.problem


async def test_the_longest_set(issuer: Issuer, fetching: Fetching) -> None:
    """Exactly as long as one may be."""
    issuer.body = key_set(old=OLD).ljust(MAX_SET_BYTES)
    await fetching.task.look()

    assert (issuer.body, "") == fetching.delivered[-1]


@pytest.mark.parametrize("whom", ["another", "the system", "a file of none", "none"])
async def test_who_is_not_trusted(
    issuer: Issuer, tmp_path: Path, authority: Authority, whom: str
) -> None:
    """Nothing that it says is taken; as soon as it is trusted, it is."""
    path: Path | None = tmp_path / "ca.pem"
    assert path is not None
    if whom == "another":
        other = Authority(tmp_path, "Other CA")
        path.write_bytes(other.path.read_bytes())
    elif whom == "a file of none":
        path.write_text("nothing")
    elif whom == "the system":
        path = None
    fetching = Fetching(issuer, path, 30.0)
    await fetching.task.look()
    words = "not trusted" if whom in {"another", "the system"} else "cannot read"

    assert words in fetching.problem
    assert [] == issuer.asked
    if path is not None:
        path.write_bytes(authority.path.read_bytes())
        await fetching.task.look()
        assert "" == fetching.problem


async def test_it_goes_on_and_can_be_hurried(
    issuer: Issuer, fetching: Fetching
) -> None:
    """Without waiting for the interval."""
    running = asyncio.create_task(fetching.task.run(NOWHERE))
    for count in (1, 2, 3):
        async with asyncio.timeout(60):
            while len(fetching.delivered) < count:
                await asyncio.sleep(0.01)
        issuer.body = key_set(**{f"k{count}": OLD})
        # The task waits again when it has delivered, after rounds of this loop.
        for _ in range(100):
            await asyncio.sleep(0)
        await fetching.task.reload(NOWHERE)
    running.cancel()

    assert 3 == len({data for data, _ in fetching.delivered[:3]})


class Vault(Watched):
    """The side that verifies: keys were fetched by somebody else."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(path, is_fetching=True)

    async def take(self, data: bytes | None, problem: str = "") -> str:
        """Be given what was fetched; return what is wrong then."""
        self.source.take(data, problem)
        return await self.watch.look()


async def test_nobody_before_there_are_keys() -> None:
    """And everybody whose key is fetched; those that are gone are gone at once."""
    vault = Vault()
    old, new = OLD.token("old"), NEW.token("new")
    assert (False, False) == (vault.accepts(old), vault.accepts(new))

    assert "" == await vault.take(key_set(old=OLD))
    assert (True, False) == (vault.accepts(old), vault.accepts(new))
    former = set(vault.names.trusted())
    assert "" == await vault.take(key_set(old=OLD, new=NEW))
    assert (True, True) == (vault.accepts(old), vault.accepts(new))
    assert "" == await vault.take(key_set(new=NEW))
    assert (False, True) == (vault.accepts(old), vault.accepts(new))
    assert not former & set(vault.names.trusted())


async def test_trouble_is_told_and_ends() -> None:
    """The last good keys stay meanwhile."""
    vault = Vault()
    await vault.take(key_set(old=OLD))
    assert "gone." == await vault.take(None, "gone.")
    assert "gone." == await vault.watch.look()
    assert vault.accepts(OLD.token("old"))
    assert "" == await vault.take(None)

    assert ["", "gone.", ""] == vault.told


PRIVATE = OLD.key.private_numbers().private_value.to_bytes(32)
BAD: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"<html>", "not valid"),
    "empty": (b"", "not valid"),
    "no set": (json.dumps(rows(old=OLD)[0]).encode(), "must be a list of objects"),
    "a list": (json.dumps(rows(old=OLD)).encode(), "must be a list of objects"),
    "twice": (json.dumps({"keys": rows(old=OLD) * 2}).encode(), "not unique"),
    "one kid": (
        json.dumps({"keys": rows(a=OLD) + rows(a=NEW)}).encode(),
        "kid 'a' is not unique",
    ),
    "private": (
        json.dumps({"keys": [{**rows(a=OLD)[0], "d": b64url(PRIVATE)}]}).encode(),
        "private key",
    ),
    "a secret": (
        json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "k": "A" * 43}]}).encode(),
        "must not contain a secret key",
    ),
    "a secret beside": (
        json.dumps({"keys": [{**rows(a=OLD)[0], "k": "A" * 43}]}).encode(),
        "must not contain a secret key",
    ),
    "a secret without a word": (
        json.dumps({"keys": [{"kty": "oct", "k": "A" * 43}]}).encode(),
        "holds no usable key",
    ),
    **{
        f"{name} {value}": (
            json.dumps({"keys": [{**rows(a=OLD)[0], name: value}]}).encode(),
            "must be strings",
        )
        for name, value in [
            *[("kty", []), ("alg", ["ES256"]), ("use", {}), ("crv", 1), ("key_ops", 5)]
        ]
    },
    "too many": (
        json.dumps(
            {"keys": [{**rows(a=OLD)[0], "kid": f"{n}"} for n in range(33)]}
        ).encode(),
        "0 to 32 keys",
    ),
    "repeated name": (b'{"keys": [], "keys": []}', "duplicate name"),
}
WITHDRAWING = {"private", "a secret", "a secret beside", "a secret without a word"} | {
    name for name, (_, words) in BAD.items() if words == "must be strings"
}
"""Sets that name the former key no more, or not as a public one."""


@pytest.mark.parametrize("name", BAD)
async def test_a_set_that_is_not_believed(name: str) -> None:
    """What it still names stays, until a good one comes; the trouble is told once."""
    data, words = BAD[name]
    vault = Vault()
    await vault.take(key_set(old=OLD))
    problem = await vault.take(data)

    assert words in problem
    assert "A" * 43 not in problem
    assert problem == await vault.take(None)
    assert ["", problem] == vault.told[-2:]
    assert vault.accepts(OLD.token("old")) is (name not in WITHDRAWING)
    assert "" == await vault.take(key_set(new=NEW))
    assert vault.accepts(NEW.token("new"))


async def test_a_set_without_keys_takes_all_away() -> None:
    """Somebody has withdrawn them, and it is an alarm."""
    vault = Vault()
    await vault.take(key_set(old=OLD))
    problem = await vault.take(b'{"keys": []}')

    assert "holds no usable key" in problem
    assert not vault.accepts(OLD.token("old"))
    assert () == vault.names.trusted()


async def test_beside_a_file(tmp_path: Path) -> None:
    """Both count; the same name in both adds nothing, and is told."""
    path = write_config(tmp_path / "jwt.json", [RSA.section("rsa")])
    vault = Vault(path)
    assert vault.accepts(RSA.token("rsa"))
    assert "" == await vault.take(key_set(old=OLD))
    assert vault.accepts(OLD.token("old"))
    assert vault.accepts(RSA.token("rsa"))

    assert "kid 'rsa' is not unique" in await vault.take(key_set(rsa=NEW))
    assert vault.accepts(RSA.token("rsa"))
    # The set names it no more.
    assert not vault.accepts(OLD.token("old"))
    write_config(path, [RSA.section("other")])
    assert "" == await vault.watch.look()
    assert vault.accepts(NEW.token("rsa"))
    assert not vault.accepts(OLD.token("old"))
    write_config(path, [])
    assert "" == await vault.watch.look()
    assert not vault.accepts(RSA.token("other"))


async def test_a_set_withdraws_while_the_file_is_gone(tmp_path: Path) -> None:
    """The file speaks for its own keys only."""
    path = write_config(tmp_path / "jwt.json", [RSA.section("rsa")])
    vault = Vault(path)
    await vault.take(key_set(old=OLD, new=NEW))
    path.unlink()

    assert "can't be read" in await vault.take(key_set(new=NEW))
    assert not vault.accepts(OLD.token("old"))
    assert vault.accepts(NEW.token("new"))
    assert vault.accepts(RSA.token("rsa"))


async def test_what_was_fetched_counts_if_the_next_set_is_not_valid(
    tmp_path: Path,
) -> None:
    """Also where a file with no keys stands beside it, and it is told which is bad."""
    vault = Vault(write_config(tmp_path / "jwt.json", []))
    await vault.take(key_set(old=OLD))

    assert "The fetched key set is not valid: " in await vault.take(b"<html>")
    assert vault.accepts(OLD.token("old"))
    # What can't be fetched matters more than what was fetched before.
    assert "gone." == await vault.take(None, "gone.")
    assert "not valid" in await vault.take(None)


def test_without_a_place_a_file_needs_keys(tmp_path: Path) -> None:
    """Nobody would ever be let in."""
    path = write_config(tmp_path / "jwt.json", [])
    source = TokenSource(path, lambda: b"", TokenRules())
    with pytest.raises(ConfigurationError):
        source.read()


@pytest.fixture(scope="module", params=["process", "inline"])
def served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
    tls: ssl.SSLContext,
) -> Iterator[tuple[Site, Running, Issuer]]:
    """Give a server that fetches its keys from an issuer in a thread."""
    with issuing(Issuer(), tls) as found:
        site = Site(tmp_path_factory.mktemp("fetching"), request.param)
        more = [
            *("--auth-jwt-jwks-url", found.url),
            *("--auth-jwt-jwks-ca", str(authority.path)),
            *("--auth-jwt-reload-secs", "0.5"),
        ]
        with site.serve(*more) as running:
            yield site, running, found
            assert 0 == running.stop()


def test_a_server_that_fetches(served: tuple[Site, Running, Issuer]) -> None:
    """Keys come and go at their issuer, and the server follows; trouble is an alarm."""
    site, running, found = served

    def status(token: str) -> int:
        return running.send("GET", "/api/v1/status", token=token).status

    wait_until(lambda: status(OLD.token("old")) == 200)
    found.body = key_set(new=NEW)
    wait_until(lambda: status(OLD.token("old")) == 401)
    assert 200 == status(NEW.token("new"))
    page = json.loads(running.send("GET", "/.well-known/jwks.json").body)
    assert ["new"] == [row["kid"] for row in page["keys"]]

    found.status = 503
    wait_until(lambda: counter(running, "ferrohsm_auth_jwt_alarm") == 1)
    assert 200 == status(NEW.token("new"))
    found.status = 200
    wait_until(lambda: counter(running, "ferrohsm_auth_jwt_alarm") == 0)
    lines = [e for e in site.log() if e["event"] == "token keys refused"]
    assert "HTTP 503" in lines[0]["reason"]
