# SPDX-License-Identifier: MIT
"""Servers that are nodes of one cluster, over PostgreSQL, spoken to over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.core.postgresql_proxy import CommitProxy
from tests.postgresql import PostgreSQL
from tests.server.family import Family, counter, wait_until
from tests.server.process import Running, Site, client_context
from tests.server.support import b64
from tests.server.ui_support import Browser
from tests.support import overriding

PATIENCE = 60.0


class ClusterSite(Site):
    """
    Servers with one certificate and one database.

    Args:
        folder: Empty directory.

        url: Address of the database.
    """

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self._url = url

    def command(self, *arguments: str) -> list[str]:
        """Return the command of a node, without single stores."""
        single = {"--key-dir", "--audit-log", "--approval-dir"}
        words = iter(super().command())
        kept = [word for word in words if word not in single or not next(words)]
        return overriding([*kept, "--store", self._url, *arguments])

    def node(self, name: str) -> tuple[str, ...]:
        """Return the flags of a node."""
        return ("--node-name", name, "--node-mark", str(self.folder / f"{name}.mark"))


@pytest.fixture(scope="module")
def site(
    postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> ClusterSite:
    """Give a database with a place for servers."""
    url = postgresql.url(postgresql.new_database())
    return ClusterSite(tmp_path_factory.mktemp("cluster"), url)


@pytest.fixture(scope="module")
def nodes(site: ClusterSite) -> Iterator[tuple[Running, Running]]:
    """Give two running servers."""
    with ExitStack() as stack:
        first = stack.enter_context(site.serve(*site.node("a")))
        second = stack.enter_context(site.serve(*site.node("b")))
        yield first, second


def new_key(server: Running, name: str) -> str:
    """Create a key, and return its ID."""
    body = {"algorithm": "Ed25519", "name": name}
    answer = server.send("POST", "/api/v1/keys", body)
    assert 201 == answer.status, answer.body
    key_id: str = answer.json["key_id"]
    return key_id


def signs(server: Running, key_id: str) -> int:
    """Sign with a key, and return the status."""
    path = f"/api/v1/keys/{key_id}/sign"
    return server.send("POST", path, {"message": b64(b"hello")}).status


def test_a_key_serves_on_every_node(nodes: tuple[Running, Running]) -> None:
    """What one node made another knows, and what one revoked another refuses."""
    first, second = nodes
    key_id = new_key(first, "release")

    assert 200 == signs(second, key_id)
    assert 200 == signs(first, "release")
    assert 200 == second.send("POST", f"/api/v1/keys/{key_id}/revoke", {}).status
    assert [409, 409] == [signs(first, key_id), signs(second, key_id)]


def test_the_nodes_are_listed(nodes: tuple[Running, Running]) -> None:
    """Each server names all, and is ready."""
    for server, name in zip(nodes, "ab", strict=True):
        answer = server.send("GET", "/api/v1/cluster/nodes")

        assert 200 == answer.status, answer.body
        assert name == answer.json["node"]
        assert {"a", "b"} == {one["node"] for one in answer.json["items"]}
        assert {"live"} == {one["state"] for one in answer.json["items"]}
        assert 200 == server.send("GET", "/readyz").status


def test_a_name_is_one_servers(
    site: ClusterSite, nodes: tuple[Running, Running]
) -> None:
    """A second server with the name of a live node does not start."""
    code, message = site.fails(*site.node("a"))

    assert 0 != code
    assert "'a'" in message or " a " in message
    assert 200 == nodes[0].send("GET", "/readyz").status


def test_why_the_database_refuses(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """
    The log of a running node says why, and answers do not; no restart is needed.
    """
    name = postgresql.new_database()
    postgresql.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'told-to-nobody'")
    postgresql.execute(f"ALTER DATABASE {name} OWNER TO {name}")
    url = postgresql.url(name).replace("ferrohsm@", f"{name}:told-to-nobody@")
    site = ClusterSite(tmp_path, url)

    def told() -> str:
        return (site.folder / "log").read_text()

    with site.serve(*site.node("a")) as server:
        key_id = new_key(server, "signer")

        def sign() -> Any:
            body = {"message": b64(b"message")}
            return server.send("POST", f"/api/v1/keys/{key_id}/sign", body)

        postgresql.execute(f"ALTER ROLE {name} NOLOGIN")
        postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
            (name,),
        )
        wait_until(lambda: sign().status == 503)
        refused = sign().body.decode()
        wait_until(lambda: "database unavailable" in told())
        before = told()
        postgresql.execute(f"ALTER ROLE {name} LOGIN")
        wait_until(lambda: sign().status == 200)
        wait_until(lambda: "database available" in told())

    assert "not permitted to log in" in before
    assert "not permitted to log in" not in refused
    assert "told-to-nobody" not in told()


def test_a_killed_node_is_settled_and_retired(
    site: ClusterSite, nodes: tuple[Running, Running]
) -> None:
    """The others go on; it is stopped within seconds, and its name is free again."""
    kept = nodes[0]
    with site.serve(*site.node("d")) as killed:
        key_id = new_key(kept, "after-a-kill")
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait(PATIENCE)

        assert 200 == signs(kept, key_id)
        ends, answer = time.monotonic() + PATIENCE, None
        while time.monotonic() < ends:
            answer = kept.send("POST", "/api/v1/cluster/nodes/d/retire", {})
            if answer.status == 200:
                break
            time.sleep(0.2)
        assert answer is not None
        assert 200 == answer.status, answer.body
        assert "d" not in {one["node"] for one in answer.json["items"]}


def state_of(server: Running, name: str) -> str:
    """Return the state of a node, as another lists it."""
    items = server.send("GET", "/api/v1/cluster/nodes").json["items"]
    return next(str(one["state"]) for one in items if one["node"] == name)


def test_a_node_that_hung_joins_again(
    site: ClusterSite, nodes: tuple[Running, Running]
) -> None:
    """Its vault was fenced; another takes its place, and the server's URL stays."""
    kept = nodes[0]
    key_id = new_key(kept, "after-a-pause")
    with site.serve(*site.node("e")) as hung:
        family = Family(hung)
        vault = family.vault
        os.kill(family.supervisor, signal.SIGSTOP)
        family.kill_vault(signal.SIGSTOP)
        wait_until(lambda: state_of(kept, "e") != "live")
        family.kill_vault(signal.SIGCONT)
        wait_until(lambda: signs(hung, key_id) == 503)
        os.kill(family.supervisor, signal.SIGCONT)
        wait_until(lambda: signs(hung, key_id) == 200)

        assert vault != family.vault
        assert wait_for_ready(hung, 200)
        assert "live" == state_of(kept, "e")
        assert 200 == hung.send("GET", "/metrics").status
        assert 1 == counter(hung, "ferrohsm_process_restarts_total")
        assert 0 == hung.stop()
    ends = [line for line in site.log() if line["event"] == "ended"]
    assert ["vault"] == [line["child"] for line in ends]
    assert "was fenced" in ends[0]["reason"]


def test_a_node_that_hung_leaves_its_name_to_another(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """While a server lives under its name it answers 503, and then serves again."""
    site = ClusterSite(tmp_path, postgresql.url(postgresql.new_database()))
    with site.serve(*site.node("a")) as hung:
        key_id = new_key(hung, "shared")
        family = Family(hung)
        os.kill(family.supervisor, signal.SIGSTOP)
        family.kill_vault(signal.SIGSTOP)
        flags = ("--node-name", "a", "--node-mark", str(tmp_path / "other.mark"))
        with site.serve(*flags) as successor:
            family.kill_vault(signal.SIGCONT)
            os.kill(family.supervisor, signal.SIGCONT)
            wait_until(lambda: refusals(site) > 1)

            assert 503 == signs(hung, key_id)
            assert 200 == signs(successor, key_id)
            assert 0 == successor.stop()
        wait_until(lambda: signs(hung, key_id) == 200)


def refusals(site: ClusterSite) -> int:
    """Return how often a vault was refused the name of its node."""
    told = "Another process is node a"
    return sum(told in line.get("reason", "") for line in site.log())


@pytest.mark.parametrize(
    ("isolation", "is_fenced"),
    [("process", False), ("process", True), ("inline", False)],
)
def test_an_outdated_node_drains_and_stops(
    postgresql: PostgreSQL, tmp_path: Path, isolation: str, is_fenced: bool
) -> None:
    """A server stops once the cluster's level is above its own, also if fenced."""
    name = postgresql.new_database()
    site = ClusterSite(tmp_path, postgresql.url(name))
    with site.serve(*site.node("a"), "--isolation", isolation) as server:
        raising = "UPDATE cluster SET level = 99"
        fencing = "UPDATE fence SET epoch = epoch + 1, instance = NULL"
        # In the order in which a node locks the rows, or both could wait for ever.
        sql = f"{fencing}; {raising}" if is_fenced else raising
        postgresql.execute(sql, database=name)

        assert 2 == server.process.wait(PATIENCE)
    assert "upgraded to level 99" in (tmp_path / "log").read_text("utf-8")
    assert 2 == site.fails(*site.node("b"))[0]


def test_without_its_database_a_node_is_not_ready(tmp_path: Path) -> None:
    """It says so to load balancers, and serves again when the database is back."""
    own = PostgreSQL.create()
    try:
        site = ClusterSite(tmp_path, own.url())
        with site.serve(*site.node("a")) as server:
            key_id = new_key(server, "lasting")
            own.stop("immediate")

            assert 503 == signs(server, key_id)
            assert wait_for_ready(server, 503)
            own.start()
            assert wait_for_ready(server, 200)
            ends = time.monotonic() + PATIENCE
            while (status := signs(server, key_id)) != 200 and time.monotonic() < ends:
                time.sleep(0.1)
            assert 200 == status
    finally:
        own.remove()


def wait_for_ready(server: Running, status: int) -> bool:
    """Wait until a server says that it is ready, or that it is not."""
    ends = time.monotonic() + PATIENCE
    while server.send("GET", "/readyz").status != status:
        if time.monotonic() > ends:
            return False
        time.sleep(0.1)
    return True


@contextlib.asynccontextmanager
async def browser_at(site: ClusterSite, server: Running) -> AsyncIterator[Browser]:
    """Give a browser that talks to one server."""
    host, port = server.address
    base = f"https://{host}:{port}"
    connector = aiohttp.TCPConnector(ssl=client_context(site.authority))
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(
        base, connector=connector, cookie_jar=jar
    ) as client:
        # A browser needs the application and the HSM only for what is past the network.
        unused: Any = None
        yield Browser(unused, unused, client, base, StringIO())


async def test_a_console_session_holds_on_every_node(
    site: ClusterSite, nodes: tuple[Running, Running]
) -> None:
    """Behind a load balancer one sign-in serves, and one sign-out ends it."""
    async with contextlib.AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(browser_at(site, server))
            for server in nodes
        ]
        await first.sign_in()
        second.cookies = dict(first.cookies)
        page = await second.get("/ui/nodes")

        assert 200 == page.status, page.words
        assert "Node b answered" in page.words
        assert "Live nodes" in (await second.get("/ui")).words
        await second.submit(page, "/ui/sign-out")
        assert 200 != (await first.get("/ui/nodes")).status


def checked(site: ClusterSite, *arguments: str, **changes: str) -> tuple[int, str]:
    """Run ``hsm-server check`` for a node; return exit code and report."""
    words = site.command(*site.node("z"), *arguments)
    place = words.index("hsm_server") + 1
    done = subprocess.run(
        [*words[:place], "check", *words[place:]],
        env=site.environment(**changes),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.usefixtures("nodes")
def test_check_compares_the_root_key_while_nodes_run(site: ClusterSite) -> None:
    """It connects to the database, and changes nothing there."""
    assert (0, True) == _opens(checked(site))
    code, report = checked(site, FERROHSM_MASTER_KEY=b64(bytes(32)))

    assert 0 != code
    assert "error   key store:" in report


def test_check_of_a_new_database(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """It says that a start would create an HSM there, and creates none."""
    name = postgresql.new_database()
    site = ClusterSite(tmp_path, postgresql.url(name))
    code, report = checked(site)

    assert 0 == code, report
    assert "creates a new HSM" in report
    tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert [(0,)] == postgresql.execute(tables, database=name)


def test_check_of_a_database_that_is_gone(tmp_path: Path) -> None:
    """It is a fault of the key store, without its password."""
    site = ClusterSite(tmp_path, f"postgresql://ada:secret-7@/x?host={tmp_path}")
    code, report = checked(site)

    assert 0 != code
    assert "error   key store:" in report
    assert "secret-7" not in report.replace("the password of --store", "")


def _opens(found: tuple[int, str]) -> tuple[int, bool]:
    return found[0], "opens with this root key" in found[1]


REQUESTS: tuple[tuple[str, str, object], ...] = (
    ("POST", "/api/v1/keys/lasting/sign", {"message": b64(b"hello")}),
    ("POST", "/api/v1/keys", {"algorithm": "Ed25519"}),
    ("PATCH", "/api/v1/keys/lasting", {"owner": "somebody"}),
    ("GET", "/api/v1/keys", None),
)


async def test_a_database_that_hangs(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """Each request is answered, with when to ask again; the status goes on."""
    with CommitProxy(postgresql) as proxy:
        site = ClusterSite(tmp_path, proxy.url(postgresql.new_database()))
        with site.serve(*site.node("a")) as server:
            new_key(server, "lasting")
            async with browser_at(site, server) as browser:
                await browser.sign_in()
                proxy.hangs = True
                answers = await asyncio.gather(
                    *(asyncio.to_thread(server.send, *each) for each in REQUESTS)
                )
                page = await browser.get("/ui/nodes")

            assert {503} == {answer.status for answer in answers}
            assert all("Retry-After" in answer.headers for answer in answers)
            assert 503 == page.status
            proxy.hangs = False
            assert wait_for_ready(server, 200)
