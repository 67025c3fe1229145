# SPDX-License-Identifier: MIT
"""Four clients against a server that is killed again and again."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from hsm_core.factory import open_verifier
from tests.e2e.family import members
from tests.e2e.https import NoAnswerError, client_context
from tests.e2e.processes import ServerExitError, ServerProcess
from tests.e2e.site import Site
from tests.faults.client import JournalingClient
from tests.faults.consents import POLICY
from tests.faults.examination import Examiner
from tests.faults.expectation import Expectation, check
from tests.faults.journal import Journal
from tests.faults.leftovers import check_files
from tests.faults.trail import check_trail, events_of_files, events_of_server

CLIENTS: Final = 4
READY_CPU_SECONDS: Final = 12.0
"""What the processes of a server may compute until it is ready."""

RECOVERY_SECONDS: Final = 120.0
"""How long a server that was hurt is given until all is well again."""

WORKERS: Final = 2
"""Front ends."""

_ROLES: Final = ("operator", "administrator")
_SHARED: Final = {"shared-sign": "EC-P256", "shared-seal": "AES-256-GCM"}


class Crew:
    """
    A site, its clients and their journals.

    Args:
        folder: Made with mode 0700; everything lies below it.

        seed: Of every choice that is made.

        kind: Where the server keeps everything: ``filesystem`` or ``sqlite``.

        flags: More flags of the server.

        command: Program to run in its place.

        rotating: See `JournalingClient`.

        changing: The same.

    Attributes:
        starts: How long each start took, in seconds.
        recoveries: The same of what came back while the server ran on.
        records: Length of the trail when it was last verified.
    """

    def __init__(
        self,
        folder: Path,
        seed: str,
        kind: str = "filesystem",
        *,
        flags: Sequence[str] = (),
        command: Sequence[str] = (),
        rotating: float = 0.2,
        changing: float = 0.4,
    ) -> None:
        self.site = Site(folder, kind)
        self.starts: list[float] = []
        self.recoveries: list[float] = []
        self.records = 0
        policy = self.site.folder / "policy.yaml"
        policy.touch(mode=0o600)
        policy.write_text(POLICY)
        self._policy = ("--policy-config", str(policy))
        self._flags = ("--workers", str(WORKERS), *self._policy, *flags)
        self._command = command
        self._rotating = rotating
        self._changing = changing
        self._server: ServerProcess | None = None
        self._seed = seed
        self._random = random.Random(seed)
        self._pool = ThreadPoolExecutor(CLIENTS)
        self.clients: list[JournalingClient] = []
        self._examiners: list[Examiner] = []
        self._shared: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None and self._server.is_running:
            self._server.kill()
        self._pool.shutdown(wait=True)
        for client in self.clients:
            client.close()

    @property
    def server(self) -> ServerProcess | None:
        """The server that runs, if one does."""
        server = self._server
        return server if server is not None and server.is_running else None

    @property
    def acknowledged(self) -> int:
        """How many requests were acknowledged so far."""
        return sum(sum(c.expected.successes.values()) for c in self.clients)

    @property
    def retried(self) -> int:
        """How many changes were sent again after a kill."""
        return sum(client.retried for client in self.clients)

    @property
    def aborted(self) -> int:
        """How many of these had been aborted by recovery."""
        return sum(client.aborted for client in self.clients)

    @property
    def agreed(self) -> int:
        """How many approvals were used up."""
        return sum(
            bool(approval.used_by)
            for client in self.clients
            for approval in client.expected.approvals.values()
        )

    @property
    def examined(self) -> int:
        """How many facts and outputs were compared with the journals."""
        return sum(examiner.checked for examiner in self._examiners)

    def start(self) -> ServerProcess:
        """Start the real server and check that little is done until it is ready."""
        server = self.start_again()
        if not self.clients:
            self._hire(server.port)
        for client in self.clients:
            client.connect(server.port)
        return server

    def start_again(self) -> ServerProcess:
        """Start a server, for clients that look for it by themselves."""
        server = self._server = self.site.start(*self._flags, command=self._command)
        self.starts.append(server.ready_seconds)
        check(
            server.ready_cpu_seconds <= READY_CPU_SECONDS,
            "a start computed too much",
            server.ready_cpu_seconds,
        )
        return server

    def settle_and_examine(self, server: ServerProcess, *, everything: bool) -> None:
        """
        Find out what became of all that was under way, and compare everything.

        Raises:
            Violation: Something was lost, or something half-done is there.
        """
        for client in self.clients:
            client.connect(server.port)
        self._all([client.settle for client in self.clients])
        for client in self.clients:
            # A connection is used by the thread that opened it, and by no other.
            client.connect(server.port)
        self._all(
            [
                partial(examiner.examine, everything=everything)
                for examiner in self._examiners
            ]
        )
        self._check_store(server.port)
        events = self._events(server.port)
        check_trail(events, self.clients)
        self.records = len(events)

    def _events(self, port: int) -> list[dict[str, Any]]:
        if self.site.kind == "filesystem":
            return events_of_files(self.site.audit_log, self.site.secrets["hmac-key"])
        # A database is its server's alone.
        with self.site.client(port, "auditor", "auditor") as auditor:
            return events_of_server(auditor)

    def work_until_killed(self, server: ServerProcess, after_seconds: float) -> None:
        """Keep the server busy; kill it in the middle of that."""
        working = self.work(server, after_seconds + 60)
        time.sleep(after_seconds)
        check(server.is_running, "the server ended by itself", server.output[-2000:])
        server.kill()
        self.finish(working)
        # As the crash left it, before anything is repaired.
        open_verifier(self.site.audit_log, self.site.secrets["hmac-key"]).verify()

    def work_through(self, blow: Callable[[], None], before_seconds: float) -> None:
        """
        Keep a server that goes on busy while something befalls a part of it.

        Raises:
            Violation: It does not recover in time, or a client was told wrong things.
        """
        enough = threading.Event()
        working = self.persist(enough)
        try:
            time.sleep(before_seconds)
            blow()
            self.recoveries.append(self.wait_well(working))
        finally:
            enough.set()
            self.finish(working)

    def persist(
        self, enough: threading.Event, interval: float = 0.0
    ) -> list[Future[None]]:
        """Let all clients work until it is enough; see `JournalingClient.persist`."""
        if self._server is not None:
            for client in self.clients:
                client.connect(self._server.port)
        return [
            self._pool.submit(client.persist, enough, interval)
            for client in self.clients
        ]

    def wait_well(self, working: Sequence[Future[None]]) -> float:
        """
        Wait until all processes are there and all clients have answers again.

        Returns:
            How long that took, in seconds.

        Raises:
            Violation: It took too long.
        """
        started = time.monotonic()
        answered: list[int] | None = None
        while True:
            if answered is None and self._is_well():
                answered = [client.answered for client in self.clients]
            if answered is not None and all(
                client.answered > before
                for client, before in zip(self.clients, answered, strict=True)
            ):
                return time.monotonic() - started
            self._raise_early(working)
            check(
                time.monotonic() - started < RECOVERY_SECONDS,
                "the server does not recover",
                self._status(),
                answered,
                [client.answered for client in self.clients],
                self._server and self._server.output[-2000:],
            )
            time.sleep(0.02)

    def _is_well(self) -> bool:
        """Whether all processes are there, and every front end says so."""
        server = self.server
        if server is None:
            return False
        if len(members(server.pid, "front end")) != WORKERS:
            return False
        if any(
            len(members(server.pid, kind)) != 1 for kind in ("vault", "tls_manager")
        ):
            return False
        try:
            return all(self._health(server.port) == "ok" for _ in range(2 * WORKERS))
        except NoAnswerError:
            return False

    def _health(self, port: int) -> str:
        """Ask how the server is, over a connection of its own."""
        with self.site.client(port, "watchman", timeout_seconds=1.0) as watchman:
            return str(watchman.request("GET", "/healthz").json["status"])

    def _status(self) -> object:
        """Return what the server says of itself, to find the reason by."""
        if self.server is None:
            return None
        with self.site.client(self.server.port, "watchman", "auditor") as watchman:
            try:
                return watchman.request("GET", "/api/v1/status").json
            except NoAnswerError as error:
                return error

    @staticmethod
    def _raise_early(working: Sequence[Future[None]]) -> None:
        for future in working:
            if future.done():
                future.result()

    def work(self, server: ServerProcess, seconds: float) -> list[Future[None]]:
        """Let all clients work until the server is gone, or time is up."""
        for client in self.clients:
            client.connect(server.port)
        until = time.monotonic() + seconds
        return [self._pool.submit(client.work, until) for client in self.clients]

    def finish(self, working: Sequence[Future[None]]) -> None:
        """Wait until all clients have noticed that the server is gone."""
        wait(working)
        for future in working:
            future.result()

    def check_journals(self) -> None:
        """Check that the journals, read again from their files, say the same."""
        for client in self.clients:
            replayed = Expectation(self._shared, demands=True)
            for entry, outcome in Journal.read(client.journal.path):
                check(outcome is not None, "a request is not settled", entry)
                assert outcome is not None
                replayed.apply(entry, outcome)
            check(
                replayed.keys == client.expected.keys
                and replayed.approvals == client.expected.approvals
                and replayed.successes == client.expected.successes,
                "a journal says something else than its client remembers",
                client.name,
            )

    def tear_trail(self) -> None:
        """Leave half a record at the end of the trail, as a power cut may."""
        last = self.site.audit_log.read_bytes().splitlines()[-1]
        with self.site.audit_log.open("ab") as trail:
            trail.write(last[: self._random.randrange(1, len(last))])

    def kill_while_starting(self, after_seconds: float) -> bool:
        """Start a server and kill it soon; return whether it was not ready yet."""
        server = self.site.start(*self._policy, wait=False)
        time.sleep(after_seconds)
        check(
            server.is_running,
            "a server did not start after a kill",
            server.output[-2000:],
        )
        was_starting = "listening on" not in server.output
        server.kill()
        return was_starting

    def start_to_die(self, command: Sequence[str]) -> ServerProcess | None:
        """Start a server that will kill itself; return None if it has done so."""
        server = self.site.start(*self._policy, command=command, wait=False)
        try:
            server.wait_ready()
        except ServerExitError as error:
            check(
                error.status == -9,
                "a server ended in another way than by a kill",
                error.status,
                error.output[-2000:],
            )
            return None
        return server

    def _hire(self, port: int) -> None:
        """Make the shared keys, and the clients."""
        with self.site.client(port, "founder", *_ROLES) as founder:
            for name, algorithm in _SHARED.items():
                body = {"algorithm": algorithm, "name": name}
                answer = founder.request("POST", "/api/v1/keys", body)
                if answer.status == 409:
                    answer = founder.request("GET", f"/api/v1/keys/{name}")
                check(answer.status < 300, "a shared key was not made", answer)
                self._shared[name] = answer.json["key_id"]
        pair = self.site.authority.issue("colleague", server=False)
        context = client_context(self.site.authority.bundle, pair)
        for number in range(1, CLIENTS + 1):
            name = f"client-{number}"
            token = self.site.token(name, *_ROLES)
            seed = f"{self._seed}-{number}"
            client = JournalingClient(
                name,
                self.site.folder,
                token,
                (self.site.token(f"{name}'s colleague", *_ROLES), context),
                self.site.context,
                self._shared,
                seed,
                self._rotating,
                self._changing,
            )
            self.clients.append(client)
            self._examiners.append(Examiner(client, seed))

    def _check_store(self, port: int) -> None:
        """Check that no key is there that nobody made, and shared ones add up."""
        with self.site.client(port, "founder", *_ROLES) as founder:
            listed = _walk_keys(founder.request)
            live = {key["key_id"] for key in listed}
            expected = set(self._shared.values()) | {
                key.key_id
                for client in self.clients
                for key in client.expected.keys.values()
                if not key.is_destroyed
            }
            check(live == expected, "other keys are listed", live ^ expected)
            for key in listed:
                check(key["integrity"] == "ok", "a key is damaged", key)
                if key["name"] in self._shared:
                    self._check_shared(key)
            status = founder.request("GET", "/api/v1/status").json
            check(status["state"] == "operational", "the server is not well", status)
        shared = {
            key["key_id"]: key["version"]
            for key in listed
            if key["name"] in self._shared
        }
        if self.site.kind == "filesystem":
            check_files(self.site.key_dir, self.clients, shared)

    def _check_shared(self, key: dict[str, Any]) -> None:
        made = sorted(
            version
            for client in self.clients
            for version in client.expected.shared_versions[key["name"]]
        )
        check(
            key["generation"] == len(made) + 1 == key["version"],
            "a shared key has other changes than were acknowledged",
            key,
            made,
        )
        check(
            made == list(range(2, key["version"] + 1)),
            "two changes of a shared key gave the same version",
            made,
        )

    def _all(self, calls: Sequence[Callable[[], None]]) -> None:
        self.finish([self._pool.submit(call) for call in calls])


def _walk_keys(request: Callable[[str, str], Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = request("GET", f"/api/v1/keys?per_page=500&cursor={cursor}").json
        found += page["items"]
        cursor = page.get("next_cursor", "")
        if not cursor:
            return found
