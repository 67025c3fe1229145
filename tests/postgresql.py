# SPDX-License-Identifier: MIT
"""
PostgreSQL for tests: real servers of Debian's ``postgresql-17``.

``postgresql`` gives the server of the test session, ``database`` a new empty database
on it. Tests that stop, kill or fail over a server start one of their own
(``PostgreSQL.create``), so that no other test notices.
"""

import atexit
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest

from tests.support import require_service

PORT = 5432
"""Number in the socket's name; nothing listens on TCP unless a test says so."""

ROLE = "ferrohsm"
"""Role that owns every database; a superuser, without a password on the socket."""

PATIENCE = 60.0
"""Longest wait for a server to start or stop, in seconds."""


def _programs() -> Path | None:
    """Return the folder with initdb and postgres, the newest that is installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parent.parent.name),
    )
    if found:
        return found[-1].parent
    alone = shutil.which("initdb")
    return Path(alone).resolve().parent if alone else None


def is_installed() -> bool:
    """Return whether there is a PostgreSQL to start."""
    return _programs() is not None


def programs() -> Path:
    """Return the folder of PostgreSQL's programs, or skip the running test."""
    found = _programs()
    require_service("PostgreSQL", found)
    assert found is not None
    return found


def _owner() -> pwd.struct_passwd | None:
    """Return the user to run as where we are root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.fail("PostgreSQL refuses to run as root, and there is no user to run it as.")


def _as_owner() -> list[str]:
    """Return the words that run a program as that user, and end it with the tests."""
    words = ["setpriv", "--pdeathsig", "INT"]
    if (owner := _owner()) is not None:
        words += [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}"]
        words += ["--clear-groups"]
    return [*words, "--"]


class PostgreSQL:
    """
    Server of PostgreSQL in a folder of its own, on a socket there.

    It lies in memory where there is ``/dev/shm``, with fsync on: the HSM refuses a
    database without it.
    """

    def __init__(self, folder: Path, port: int = PORT) -> None:
        """Name the folder of a server that is there; use ``create`` for a new one."""
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._was_killed = False

    @classmethod
    def create(cls, parent: Path | None = None, **parameters: str) -> Self:
        """
        Return a new server, which runs.

        Args:
            parent: Where its folder is made; in memory if that is possible, if None.
            parameters: Further lines of ``postgresql.conf``, as
                ``max_connections="20"``.
        """
        self = cls(_new_folder(parent))
        try:
            self.run(
                *("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8"),
                *("--locale=C", "--no-instructions", f"--username={ROLE}"),
                *("--pgdata", str(self.data)),
            )
            self.configure(parameters)
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def replica(self, name: str, folder: Path | None = None) -> "PostgreSQL":
        """
        Return a new server that runs and follows this one.

        It waits as a hot standby. It is synchronous if ``synchronous_standby_names``
        of this server names it.

        Args:
            name: Its ``application_name``.
            folder: Folder of a server that was stopped, whose place it takes.
        """
        replica = PostgreSQL(folder or _new_folder(), self.port)
        shutil.rmtree(replica.data, ignore_errors=True)
        try:
            self.run(
                *("pg_basebackup", "--write-recovery-conf", "--checkpoint=fast"),
                *("--no-sync", "--pgdata", str(replica.data)),
                f"--dbname=host={self.folder} port={self.port} user={ROLE}"
                f" application_name={name}",
            )
            replica.configure({})
            replica.start()
        except BaseException:
            replica.remove()
            raise
        return replica

    @property
    def data(self) -> Path:
        """Data directory."""
        return self.folder / "data"

    @property
    def socket(self) -> Path:
        """Socket on which the server listens, for proxies that cut connections."""
        return self.folder / f".s.PGSQL.{self.port}"

    @property
    def pid(self) -> int:
        """Process number of the running server."""
        assert self._process is not None, "The server does not run."
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped."""
        return self._process is not None

    def url(self, database: str = "postgres", **parameters: str) -> str:
        """Return the address of a database, as ``--store`` takes it."""
        query = {"host": str(self.folder), "port": str(self.port), **parameters}
        words = "&".join(f"{name}={quote(value)}" for name, value in query.items())
        return f"postgresql://{ROLE}@/{database}?{words}"

    def new_database(self, template: str = "template0") -> str:
        """Create a database, and return its name."""
        name = f"t_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def execute(
        self, statement: str, values: tuple[object, ...] = (), *, database: str = ""
    ) -> list[tuple[Any, ...]]:
        """
        Execute a statement as its own transaction, and return its rows.

        Args:
            statement: SQL, with ``%s`` for values.
            values: Values, one for each ``%s``.
            database: Name of the database; ``postgres`` if empty.
        """
        import psycopg  # the tests of other distributions run without it

        with psycopg.connect(
            self.url(database or "postgres"), autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def configure(self, parameters: Mapping[str, str]) -> None:
        """Set parameters of ``postgresql.conf``; ``start`` or ``reload`` apply them."""
        fixed = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "port": str(self.port),
            "shared_buffers": "32MB",
            "max_connections": "100",
            "autovacuum_naptime": "10s",
            "log_min_messages": "warning",
        }
        with (self.data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            for name, value in {**fixed, **parameters}.items():
                quoted = value.replace("'", "''")
                file.write(f"{name} = '{quoted}'\n")

    def start(self) -> None:
        """Start the server, and wait until it answers queries."""
        assert self._process is None, "The server runs."
        self._process = self._begin()
        ends = time.monotonic() + PATIENCE
        while not self._answers():
            has_ended = self._process.poll() is not None
            if (has_ended and not self._was_killed) or time.monotonic() > ends:
                self.stop("immediate")
                pytest.fail(f"PostgreSQL did not start:\n{self.log[-2000:]}")
            if has_ended:
                # Processes of the one that was killed have not noticed it yet.
                self._process = self._begin()
            time.sleep(0.02)
        self._was_killed = False

    def _begin(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [
                    *_as_owner(),
                    *(str(programs() / "postgres"), "-D", str(self.data)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # not ended by a terminal's Ctrl-C
            )

    def stop(self, mode: str = "fast") -> None:
        """
        Stop the server, and wait for its end.

        Args:
            mode: ``fast`` ends connections in order; ``immediate`` is a crash, after
                which the server recovers.
        """
        if self._process is None:
            return
        if self._process.poll() is None:
            self.signal(signal.SIGQUIT if mode == "immediate" else signal.SIGINT)
        self._process.wait(PATIENCE)
        self._process = None

    def kill(self) -> None:
        """Kill the server; its other processes end when they notice it."""
        assert self._process is not None, "The server does not run."
        # The others notice the end of the first one, and end by themselves.
        self._process.kill()
        self._process.wait(PATIENCE)
        self._process, self._was_killed = None, True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's first process."""
        os.kill(self.pid, number)

    def reload(self) -> None:
        """Apply changed parameters that need no restart."""
        self.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Make a replica the primary, and wait until it accepts writes."""
        self.execute("SELECT pg_promote(true, 60)")

    def run(self, program: str, *words: str) -> str:
        """Run one of PostgreSQL's programs as the server's user; return its output."""
        done = subprocess.run(
            [*_as_owner(), str(programs() / program), *words],
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"{program} failed:\n{done.stderr}")
        return done.stdout

    def remove(self) -> None:
        """Stop the server at once, and remove its folder."""
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """Messages that the server logged."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def _answers(self) -> bool:
        done = subprocess.run(
            [
                str(programs() / "pg_isready"),
                *("--quiet", "--host", str(self.folder), "--port", str(self.port)),
            ],
            check=False,
        )
        return done.returncode == 0


def _new_folder(parent: Path | None = None) -> Path:
    """Return a new folder of the server's user, with a short path, as sockets need."""
    programs()
    memory = Path("/dev/shm")
    if parent is None:
        parent = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="ferrohsm-pg-", dir=parent))
    if (owner := _owner()) is not None:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    return folder


@cache
def shared_server() -> PostgreSQL:
    """Return the running PostgreSQL of this process; no test stops it."""
    server = PostgreSQL.create()
    atexit.register(server.remove)
    return server


@pytest.fixture(scope="session")
def postgresql() -> PostgreSQL:
    """Give the running PostgreSQL of this test session; no test stops it."""
    return shared_server()


@pytest.fixture
def database(postgresql: PostgreSQL) -> Iterator[str]:
    """Give the address of a new, empty database, as ``--store`` takes it."""
    name = postgresql.new_database()
    yield postgresql.url(name)
    postgresql.execute(f"DROP DATABASE {name} WITH (FORCE)")
