# SPDX-License-Identifier: MIT
"""Live views of the audit log that resume."""

import itertools
from collections.abc import Sequence
from typing import NoReturn

import pytest

from hsm_client.aio_remote import AsyncTransport
from hsm_client.messages import BlockReader, EventBlock
from hsm_client.transport import Transport
from hsm_core import errors
from hsm_core.errors import HSMError, TransportError
from hsm_core.model import AuditEntry
from hsm_core.operations import ListAuditEvents
from tests.client.streams import DENIED, streamed
from tests.client.stub import PROBLEM, Stub, answer, problem, stream
from tests.client.ways import WAYS, Way

FROM_NOW = ListAuditEvents()
ENDLESS = itertools.repeat(b"x" * 65536)


def ended_by(error: HSMError) -> bytes:
    """Return the event that ends a view."""
    return b"event: problem\ndata: " + problem(error) + b"\n\n"


def sent_ids(stub: Stub) -> list[str | None]:
    """Return the Last-Event-ID of each request."""
    return [request.headers.get("last-event-id") for request in stub.received]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Give each client in turn."""
    return str(request.param)


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
    def test_request(self, hsm: Way, stub: Stub, entries: Sequence[AuditEntry]) -> None:
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
        hsm: Way,
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
        self, hsm: Way, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """A view that has shown nothing yet is resumed where it began."""
        stub.faults = [stream([b"id: 4711\n\n"], whole=False), streamed(entries[0])]
        view = hsm.follow(FROM_NOW)
        next(view)
        view.close()

        assert [None, "4711"] == sent_ids(stub)

    def test_a_server_that_is_away(
        self,
        hsm: Way,
        stub: Stub,
        entries: Sequence[AuditEntry],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A view that had begun waits for a server as long as it takes."""
        told: list[HSMError] = []

        def away(*_: object) -> NoReturn:
            raise TransportError("Nobody is there.", reason="connect")

        async def away_from_loop(*_: object) -> NoReturn:
            away()

        def tell(error: HSMError) -> None:
            told.append(error)
            monkeypatch.setattr(Transport, "stream", away)
            monkeypatch.setattr(AsyncTransport, "stream", away_from_loop)
            if len(told) == 8:
                monkeypatch.undo()

        stub.faults = [streamed(entries[0], whole=False), streamed(entries[1])]
        view = hsm.follow(FROM_NOW, on_interruption=tell)
        seen = list(itertools.islice(view, 2))
        view.close()

        assert list(entries[:2]) == seen
        assert ["lost", *["connect"] * 7] == [error.facts["reason"] for error in told]

    def test_a_view_that_can_not_begin(self, hsm: Way, stub: Stub) -> None:
        """What never began is tried as often as anything else."""
        stub.faults = [answer(503, PROBLEM, problem(errors.OverloadedError()))] * 9

        with pytest.raises(errors.OverloadedError):
            next(hsm.follow(FROM_NOW))
        assert 3 == len(stub.received)

    def test_refused(self, hsm: Way, stub: Stub) -> None:
        """What does not change by itself is raised at once."""
        stub.faults = [DENIED]

        with pytest.raises(errors.AccessDeniedError):
            next(hsm.follow(FROM_NOW))
        assert 1 == len(stub.received)

    def test_an_expired_token(
        self, hsm: Way, stub: Stub, entries: Sequence[AuditEntry]
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
        self, hsm: Way, stub: Stub, entries: Sequence[AuditEntry]
    ) -> None:
        """A damaged trail ends the view with what the server says of it."""
        tampered = errors.AuditTamperedError("Record 7 is bad.", seq=7)
        stub.faults = [streamed(entries[0], then=ended_by(tampered))]
        view = hsm.follow(FROM_NOW)
        next(view)

        with pytest.raises(errors.AuditTamperedError):
            next(view)

    def test_nonsense(self, hsm: Way, stub: Stub) -> None:
        """An event that is no entry is no entry."""
        stub.faults = [stream([b"id: 1\nevent: entry\ndata: {}\n\n"])]

        with pytest.raises(TransportError) as caught:
            next(hsm.follow(FROM_NOW))
        assert "answer" == caught.value.facts["reason"]
