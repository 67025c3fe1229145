# SPDX-License-Identifier: MIT
"""Keys that are replaced while the server runs."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest

from hsm_core.errors import AuthenticationError, StoreUnavailableError
from hsm_core.protocols import AsyncHSMGateway
from hsm_core.secret_input import read_secret
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.identity.token_sources import TokenSource, TokenWatch
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from tests.server.support import claims, mint, until
from tests.server.token_kit import Watched, signer, write_config

OLD, NEW = signer("ES256"), signer("ES256", 1)
RULES = TokenRules(issuer="", audience="")


class File(Watched):
    """A watched file with one key."""

    def __init__(self, path: Path) -> None:
        self.path = write_config(path, [OLD.section("old")])
        super().__init__(path)


@pytest.fixture
def watched(tmp_path: Path) -> File:
    """Give a gatekeeper with one key."""
    return File(tmp_path / "jwt.json")


async def test_a_key_is_added_and_the_former_removed(watched: File) -> None:
    """Tokens of a removed key are rejected, even if accepted before."""
    old, new = OLD.token("old"), NEW.token("new")
    former = watched.names.trusted()
    assert (True, False) == (watched.accepts(old), watched.accepts(new))

    write_config(watched.path, [OLD.section("old"), NEW.section("new")])
    assert "" == await watched.watch.look()
    assert (True, True) == (watched.accepts(old), watched.accepts(new))
    assert set(former) < set(watched.names.trusted())

    write_config(watched.path, [NEW.section("new")])
    assert "" == await watched.watch.look()
    assert (False, True) == (watched.accepts(old), watched.accepts(new))
    assert not set(former) & set(watched.names.trusted())
    assert ["", ""] == watched.told


async def test_a_change_takes_effect_within_the_interval(watched: File) -> None:
    """The watch applies it without a call."""
    running = asyncio.create_task(watched.watch.run(2.0))
    await asyncio.sleep(0)
    write_config(watched.path, [NEW.section("new")])
    began = time.monotonic()
    while watched.accepts(OLD.token("old")):
        assert time.monotonic() - began < 60
        await asyncio.sleep(0.02)

    assert watched.accepts(NEW.token("new"))
    running.cancel()


async def test_a_change_takes_effect_while_other_nodes_cannot_be_told(
    tmp_path: Path,
) -> None:
    """The file is read all the while, and the alarm lasts until they are told."""
    can_tell = threading.Event()

    def declare() -> None:
        if not can_tell.is_set():
            raise StoreUnavailableError

    path = write_config(tmp_path / "jwt.json", [OLD.section("old")])
    watched = Watched(path, declare=declare)
    running = asyncio.create_task(watched.watch.run(0.1))
    await asyncio.sleep(0)
    write_config(path, [NEW.section("new")])
    await until(lambda: not watched.accepts(OLD.token("old")))
    await until(lambda: watched.told)
    assert watched.accepts(NEW.token("new"))
    assert all("Other nodes may accept" in reason for reason in watched.told)

    can_tell.set()
    await until(lambda: watched.told[-1:] == [""])
    running.cancel()


def _same_time(path: Path) -> None:
    status = path.stat()
    write_config(path, [NEW.section("new")])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _back_in_time(path: Path) -> None:
    write_config(path, [NEW.section("new")])
    os.utime(path, (0, 0))


def _in_place(path: Path) -> None:
    fresh = write_config(path.with_name("fresh"), [NEW.section("new")])
    path.write_bytes(fresh.read_bytes())


def _by_link(path: Path) -> None:
    fresh = write_config(path.with_name("fresh"), [NEW.section("new")])
    link = path.with_name("link")
    link.symlink_to(fresh)
    link.rename(path)


@pytest.mark.parametrize("change", [_same_time, _back_in_time, _in_place, _by_link])
async def test_the_content_counts(
    watched: File, change: Callable[[Path], None]
) -> None:
    """Whatever the file's time, and however it came there."""
    change(watched.path)

    assert "" == await watched.watch.look()
    assert watched.accepts(NEW.token("new"))
    assert not watched.accepts(OLD.token("old"))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


BROKEN: dict[str, Callable[[Path], Any]] = {
    "half": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "a folder": _folder,
    "open to others": lambda path: path.chmod(0o666),
    "dangling": _dangling,
}


@pytest.mark.parametrize("name", BROKEN)
async def test_the_last_good_keys_stay(watched: File, name: str) -> None:
    """The fault is reported once, and so is its end; then the new keys count."""
    BROKEN[name](watched.path)
    reason = await watched.watch.look()

    assert reason
    assert reason == await watched.watch.look()
    assert [reason] == watched.told
    assert watched.accepts(OLD.token("old"))

    if watched.path.is_dir():
        watched.path.rmdir()
    write_config(watched.path, [NEW.section("new")])
    assert "" == await watched.watch.look()
    assert [reason, ""] == watched.told
    assert watched.accepts(NEW.token("new"))


NO_KEY: dict[str, Any] = {"secret": "text:short"}
WITHDRAWN: dict[str, Callable[[Path], Any]] = {
    "all": lambda path: write_config(path, []),
    "replaced by none": lambda path: write_config(path, [NO_KEY]),
    "beside a bad one": lambda path: write_config(path, [NEW.section("new"), NO_KEY]),
    "beside a bad field": lambda path: write_config(path, [], leeway_seconds=-1),
    "beside a key set that is gone": lambda path: write_config(
        path, [NEW.section("new")], jwks_file="gone.json"
    ),
    "with other types": lambda path: write_config(
        path, [{"jwk": {"kty": "RSA", "key_ops": 5}}]
    ),
    "for another issuer": lambda path: write_config(
        path, [OLD.section("old"), NO_KEY], issuer="another"
    ),
}


@pytest.mark.parametrize("name", WITHDRAWN)
async def test_a_withdrawn_key_counts_no_more(watched: File, name: str) -> None:
    """Even in an invalid file; new keys in it are not used."""
    assert watched.accepts(OLD.token("old"))
    WITHDRAWN[name](watched.path)
    reason = await watched.watch.look()

    assert [reason] == watched.told
    assert () == watched.names.trusted()
    assert not watched.accepts(OLD.token("old"))
    assert not watched.accepts(NEW.token("new"))

    write_config(watched.path, [OLD.section("old")])
    assert "" == await watched.watch.look()
    assert watched.accepts(OLD.token("old"))


async def test_keys_that_are_still_named_stay(watched: File) -> None:
    """Beside a fault, and where their own file can't be read for now."""
    more = watched.path.with_name("secret")
    more.touch(mode=0o600)
    more.write_text("text:" + "s" * 32)
    kept = [OLD.section("old"), {"kid": "more", "secret": f"@{more.name}"}]
    write_config(watched.path, [*kept, NEW.section("new")])
    assert "" == await watched.watch.look()
    before = watched.names.trusted()
    more.unlink()
    write_config(watched.path, [*kept, NO_KEY])
    assert await watched.watch.look()

    assert before[:2] == watched.names.trusted()


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_secret_that_is_replaced_by_none(tmp_path: Path, is_gone: bool) -> None:
    """The former secret is dropped; a missing file keeps it."""
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_text("text:" + "s" * 32)

    def read() -> bytes:
        return read_secret(f"@{path}", field="x", minimum=32, exact=None)

    source = TokenSource(None, read, RULES)
    used: list[TokenTrust] = []
    watch = TokenWatch(source, source.read(), used.append, lambda problem: None)
    path.unlink() if is_gone else path.write_text("text:short")
    assert await watch.look()

    assert ([] if is_gone else [()]) == [trust.keys for trust in used]


@contextlib.contextmanager
def _as_nobody() -> Iterator[None]:
    """Act as somebody whom modes of files hinder, as a vault's user is."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_file_that_nobody_may_read(watched: File) -> None:
    """Mode 000 is an alarm, and the last good keys stay until it can be read."""
    write_config(watched.path, [NEW.section("new")]).chmod(0)
    with _as_nobody():
        reason = await watched.watch.look()

    assert "Permission denied" in reason
    assert [reason] == watched.told
    assert watched.accepts(OLD.token("old"))
    assert not watched.accepts(NEW.token("new"))

    watched.path.chmod(0o600)
    assert "" == await watched.watch.look()
    assert [reason, ""] == watched.told
    assert watched.accepts(NEW.token("new"))
    assert not watched.accepts(OLD.token("old"))


async def test_the_former_content_ends_an_alarm(watched: File) -> None:
    """Restoring the former content clears the alarm."""
    whole = watched.path.read_bytes()
    watched.path.write_bytes(b"{")
    reason = await watched.watch.look()
    watched.path.write_bytes(whole)

    assert "" == await watched.watch.look()
    assert [reason, ""] == watched.told


async def test_a_fault_of_ours_does_not_end_the_looking(
    watched: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told like every reason, and the next look is a new one."""
    with monkeypatch.context() as patch:
        patch.setattr(TokenSource, "read", lambda self: 1 // 0)
        assert "unexpected ZeroDivisionError." == await watched.watch.look()

    assert "" == await watched.watch.look()
    assert ["unexpected ZeroDivisionError.", ""] == watched.told


async def test_a_file_that_is_being_written(
    watched: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content that is present only briefly is never applied."""
    forms = iter([*([OLD.section(f"k{n}")] for n in range(3)), [NEW.section("new")]])
    read = TokenSource.read

    def read_and_write(source: TokenSource) -> TokenTrust:
        found = read(source)
        for keys in islice(forms, 1):
            write_config(watched.path, keys)
        return found

    write_config(watched.path, next(forms))
    monkeypatch.setattr(TokenSource, "read", read_and_write)
    assert "" == await watched.watch.look()

    assert None is next(forms, None)
    assert [""] == watched.told
    assert watched.accepts(NEW.token("new"))


def test_no_request_sees_keys_of_two_sets() -> None:
    """
    Threads verify while keys and rules are replaced under them.

    Each set has a key and an issuer of its own; a token of one set's key with the
    other's issuer would be good only for a mixture of both.
    """
    first = TokenTrust(TokenTrust.of_secret(b"1" * 32, RULES).keys, _issuer("one"))
    second = TokenTrust(TokenTrust.of_secret(b"2" * 32, RULES).keys, _issuer("two"))
    nobody = cast("AsyncHSMGateway", None)
    gatekeeper = Gatekeeper(nobody, first, lambda: None)
    names = {"one": first.keys[0].name, "two": second.keys[0].name}
    found = {"good": 0, "mixed": 0, "failed": 0}
    stop = threading.Event()

    def verify(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            for secret, issuer in ((b"1", "one"), (b"2", "two"), (b"1", "two")):
                token = _token(secret * 32, issuer, f"{number}-{count % 50}")
                try:
                    caller = gatekeeper.authenticate(Visitor(credential=token)).caller
                except AuthenticationError:
                    continue
                except Exception:
                    found["failed"] += 1
                    continue
                is_mixed = secret == b"1" and issuer == "two"
                is_mixed |= caller.credential_key != names[issuer]
                found["mixed" if is_mixed else "good"] += 1

    threads = [threading.Thread(target=verify, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 1.5
    while time.monotonic() < end or found["good"] <= 100:
        for trust in (second, first):
            gatekeeper.use(trust)
            time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join()

    assert found["good"] > 100
    assert (0, 0) == (found["mixed"], found["failed"])


def _issuer(name: str) -> TokenRules:
    return TokenRules(issuer=name)


def _token(secret: bytes, issuer: str, name: str) -> str:
    return mint(claims(iss=issuer, jti=name), secret=secret)
