# SPDX-License-Identifier: MIT
"""Tests of live views: `RemoteHSM.follow()` and ``audit follow``."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest

from hsm_client import RemoteHSM
from hsm_client.messages import BlockReader, EventBlock
from hsm_core import errors, wire
from hsm_core.errors import HSMError, TransportError
from hsm_core.factory import OpenHSM
from hsm_core.model import AuditEntry
from hsm_core.operations import GenerateRandom, ListAuditEvents
from hsm_core.testing import caller
from tests.cli.support import Shell
from tests.client.certificates import Certificates
from tests.client.stub import PROBLEM, TOKEN, Fault, Stub, answer, problem, stream

FROM_NOW = ListAuditEvents()
ENDLESS = itertools.repeat(b"x" * 65536)
DENIED = answer(403, PROBLEM, problem(errors.AccessDeniedError()))


@pytest.fixture
def entries(gateway: OpenHSM) -> tuple[AuditEntry, ...]:
    """Give ten entries of a trail."""
    hsm = gateway.act_as(caller())
    for _ in range(10):
        hsm.execute(GenerateRandom(length=1))
    return hsm.execute(ListAuditEvents(ascending=True, limit=10)).items


def block(entry: AuditEntry) -> bytes:
    """Return an entry as a server sends it."""
    data = wire.encode_json(entry)
    return f"id: {entry.event.seq + 1}\nevent: entry\ndata: ".encode() + data + b"\n\n"


def ended_by(error: HSMError) -> bytes:
    """Return the event that ends a view."""
    return b"event: problem\ndata: " + problem(error) + b"\n\n"


def streamed(*entries: AuditEntry, then: bytes = b"", whole: bool = True) -> Fault:
    """Return the answer that shows entries."""
    return stream([*map(block, entries), then], whole=whole)


def sent_ids(stub: Stub) -> list[str | None]:
    """Return the Last-Event-ID of each request."""
    return [request.headers.get("last-event-id") for request in stub.received]


class TestBlocks:
    STREAM = b'id: 5\n\n: nothing\n\nid: 6\nevent: entry\ndata: {"a":1}\n\nid: 7\n'
    BLOCKS = (EventBlock("5"), EventBlock(), EventBlock("6", "entry", b'{"a":1}'))

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
    def test_however_it_is_cut(self, size: int) -> None:
        """Blocks come whole, and one that is not finished does not come."""
        chunks = [
            self.STREAM[at : at + size] for at in range(0, len(self.STREAM), size)
        ]

        reader = BlockReader()

        assert list(self.BLOCKS) == [b for c in chunks for b in reader.feed(c)]

    def test_endless_block(self) -> None:
        """A server can't fill our memory with one event."""
        reader = BlockReader()
        with pytest.raises(TransportError) as caught:
            list(itertools.chain.from_iterable(map(reader.feed, ENDLESS)))

        assert "answer" == caught.value.facts["reason"]


class TestFollow:
    def test_request(
        self, hsm: RemoteHSM, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """The filters go into the query, and the form into Accept."""
        stub.faults = [streamed(entries[0])]
        view = hsm.follow(
            ListAuditEvents(start_seq=3, kind=("Sign", "Verify"), limit=7)
        )
        next(view)
        view.close()
        (request,) = stub.received

        assert "/api/v1/audit/events?start_seq=3&kind=Sign%2CVerify" == request.target
        assert request.headers["accept"].startswith("text/event-stream")
        assert "last-event-id" not in request.headers

    @pytest.mark.parametrize("whole", [True, False])
    def test_resumes(
        self,
        hsm: RemoteHSM,
        stub: Stub,
        entries: Sequence[AuditEntry],
        pauses: list[float],
        whole: bool,
    ) -> None:
        """After an end or a break it goes on where it was, and says why."""
        told: list[HSMError] = []
        stub.faults = [
            streamed(*entries[:3], then=b"id: 9\nevent: ent", whole=whole),
            answer(503, PROBLEM, problem(errors.UnavailableError())),
            streamed(*entries[3:6], whole=whole),
            streamed(*entries[6:]),
        ]
        view = hsm.follow(FROM_NOW, on_interruption=told.append)
        seen = list(itertools.islice(view, 10))
        view.close()

        assert list(entries) == seen
        assert [None, "3", "3", "6"] == sent_ids(stub)
        assert ["transport", "unavailable", "transport"] == [e.code for e in told]
        assert 3 == len(pauses)

    def test_position_without_event(
        self, hsm: RemoteHSM, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """A view that has shown nothing yet is resumed where it began."""
        stub.faults = [stream([b"id: 4711\n\n"], whole=False), streamed(entries[0])]
        view = hsm.follow(FROM_NOW)
        next(view)
        view.close()

        assert [None, "4711"] == sent_ids(stub)

    def test_a_server_that_is_away(
        self,
        hsm: RemoteHSM,
        stub: Stub,
        entries: Sequence[AuditEntry],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A view that had begun waits for a server as long as it takes."""
        transport = hsm._transport  # noqa: SLF001 (to take the server away)
        told: list[HSMError] = []

        def away(*_: object) -> NoReturn:
            raise TransportError("Nobody is there.", reason="connect")

        def tell(error: HSMError) -> None:
            told.append(error)
            monkeypatch.setattr(transport, "stream", away)
            if len(told) == 8:
                monkeypatch.undo()

        stub.faults = [streamed(entries[0], whole=False), streamed(entries[1])]
        view = hsm.follow(FROM_NOW, on_interruption=tell)
        seen = list(itertools.islice(view, 2))
        view.close()

        assert list(entries[:2]) == seen
        assert ["lost", *["connect"] * 7] == [error.facts["reason"] for error in told]

    def test_a_view_that_can_not_begin(self, hsm: RemoteHSM, stub: Stub) -> None:
        """What never began is tried as often as anything else."""
        stub.faults = [answer(503, PROBLEM, problem(errors.OverloadedError()))] * 9

        with pytest.raises(errors.OverloadedError):
            next(hsm.follow(FROM_NOW))
        assert 3 == len(stub.received)

    def test_refused(self, hsm: RemoteHSM, stub: Stub) -> None:
        """What does not change by itself is raised at once."""
        stub.faults = [DENIED]

        with pytest.raises(errors.AccessDeniedError):
            next(hsm.follow(FROM_NOW))
        assert 1 == len(stub.received)

    def test_an_expired_token(
        self, hsm: RemoteHSM, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """The view goes on with a fresh token; if that is not good, it ends."""
        expired = ended_by(errors.AuthenticationError())
        refused = problem(errors.AuthenticationError())
        stub.faults = [
            streamed(entries[0], then=expired),
            streamed(entries[1], then=expired),
            answer(401, PROBLEM, refused),
        ]
        view = hsm.follow(FROM_NOW)

        assert list(entries[:2]) == [next(view), next(view)]
        with pytest.raises(errors.AuthenticationError):
            next(view)
        assert [None, "1", "2"] == sent_ids(stub)

    def test_an_error_that_lasts(
        self, hsm: RemoteHSM, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """A damaged trail ends the view with what the server says of it."""
        tampered = errors.AuditTamperedError("Record 7 is bad.", seq=7)
        stub.faults = [streamed(entries[0], then=ended_by(tampered))]
        view = hsm.follow(FROM_NOW)
        next(view)

        with pytest.raises(errors.AuditTamperedError):
            next(view)

    def test_nonsense(self, hsm: RemoteHSM, stub: Stub) -> None:
        """An event that is no entry is no entry."""
        stub.faults = [stream([b"id: 1\nevent: entry\ndata: {}\n\n"])]

        with pytest.raises(TransportError) as caught:
            next(hsm.follow(FROM_NOW))
        assert "answer" == caught.value.facts["reason"]


@pytest.fixture
def environment(stub: Stub, certificates: Certificates) -> dict[str, str]:
    """Give an environment with nothing but what reaches the stub."""
    return {
        "PATH": os.environ["PATH"],
        "FERROHSM_ENDPOINT": stub.endpoint,
        "FERROHSM_CA_BUNDLE": str(certificates.ca),
        "FERROHSM_AUTH_TOKEN": TOKEN,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


@pytest.fixture
def connected(
    bare_shell: Shell, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    """Give hsm-cli that reaches the stub."""
    for name, value in environment.items():
        if name.startswith("FERROHSM_"):
            monkeypatch.setenv(name, value)
    return bare_shell


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(environment: dict[str, str]) -> Start:
    """Give a function that starts ``audit follow`` as a process."""

    def begin(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "hsm_cli", "audit", "follow", *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


class TestCommand:
    def test_lines(
        self, connected: Shell, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """Each event is a line; an interruption is told beside them."""
        stub.faults = [streamed(*entries[:2], whole=False), DENIED]
        outcome = connected("audit", "follow", "--key-id", "k", "--start-seq", "0")
        first = outcome.lines[0].split("  ")

        assert (3, 2) == (outcome.code, len(outcome.lines))
        assert "0" == first[0]
        assert entries[0].event.kind == first[2]
        assert "reconnecting" in outcome.err
        assert stub.received[0].target.endswith("?start_seq=0&key_id=k")

    def test_json(
        self, connected: Shell, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """With --json each line is an entry as the list has it."""
        stub.faults = [streamed(*entries), DENIED]
        outcome = connected("audit", "follow", "--json")
        found = [
            wire.decode_json(line, AuditEntry) for line in outcome.out.split(b"\n")[:-1]
        ]

        assert list(entries) == found

    def test_interrupted(
        self, start: Start, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """Ctrl-C ends it at once, with the status of every interrupted command."""
        stub.faults = [stream([block(entries[0])], then_wait=True)]
        with start("--json") as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)

        assert 0 == json.loads(line)["event"]["seq"]
        assert (130, "hsm-cli: interrupted\n") == (process.returncode, err)

    def test_reader_who_left(
        self, start: Start, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """A closed pipe ends it at the next event, without a word."""
        stub.faults = [streamed(*entries)] + [streamed(*entries)] * 20
        with start() as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            code = process.wait(30)
            err = process.stderr.read()

        assert 141 == code
        assert "Traceback" not in err
