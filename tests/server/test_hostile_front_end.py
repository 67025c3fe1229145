# SPDX-License-Identifier: MIT
"""A front end that was taken over: it gets nothing, and disturbs nobody."""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core import operations as ops
from hsm_core import wire
from hsm_core.algorithms import Algorithm
from hsm_core.errors import AuthenticationError
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.ipc.frames import (
    PROTOCOL,
    Answer,
    Cancel,
    Chunk,
    Event,
    Hello,
    Purpose,
    Request,
    packed,
)
from hsm_server.vault.access import Visitor
from tests.server.ipc_support import (
    HELLO,
    Bench,
    asks,
    events,
    framed,
    open_bench,
    recorded,
    result,
    visitor,
)
from tests.server.support import b64url, claims, mint, sign_parts, until

NOBODY: Final = 65534
CHANNEL: Final = "hsm_server.ipc.channel"
CREATE: Final = ops.CreateKey(algorithm=Algorithm.ED25519, name="stolen")
VIEW: Final = ops.ListAuditEvents(ascending=True, follow=True)
BOUND: Final = claims(cnf={"x5t#S256": b64url(b"\1" * 32)})
HEAD, PAYLOAD, TAG = mint(claims(roles=["Service"])).split(".")
NO_ALGORITHM: Final = b64url(b'{"alg":"none"}')
ROOT_PAYLOAD: Final = mint(claims(roles=["Administrator"])).split(".")[1]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Give a vault over memory."""
    async with open_bench() as opened:
        yield opened
        assert [] == opened.unexpected


async def check_others(bench: Bench) -> None:
    """Make sure that a front end of ours is served."""
    random = await bench.front_end().execute(
        visitor(),
        ops.GenerateRandom(length=7),
        idempotency_key=None,
        known=lambda principal: None,
    )
    assert 7 == len(random.random)


FORGED: Final = {
    "another secret": visitor(mint(secret=b"x" * 32)),
    "an empty secret": visitor(mint(secret=b"")),
    "no signature": visitor(f"{NO_ALGORITHM}.{PAYLOAD}."),
    "alg none, signed": visitor(
        sign_parts(b'{"alg":"none","typ":"JWT"}', msgspec.json.encode(claims()))
    ),
    "other roles": visitor(f"{HEAD}.{ROOT_PAYLOAD}.{TAG}"),
    "expired": visitor(mint(claims(iat=int(time.time()) - 900, exp=1))),
    "expired long ago": visitor(
        mint(claims(iat=int(time.time()) - 900, exp=int(time.time()) - 300))
    ),
    "not yet": visitor(mint(claims(nbf=int(time.time()) + 600))),
    "of the system": visitor(mint(claims(sub="system.health"))),
    "bound, no certificate": visitor(mint(BOUND)),
    "bound, another certificate": visitor(mint(BOUND), certificate=b"another"),
    "a certificate alone": Visitor(certificate=b"\x30\x82\1\1"),
    "a session": visitor("session=0123456789abcdef"),
    "a cookie": visitor("Cookie: session=0123456789abcdef"),
    "a caller": visitor('{"principal":"alice","roles":["Administrator"]}'),
    "nothing": Visitor(),
    "too long": visitor("x" * 500_000),
    "not ASCII": visitor("\u2603." * 3),
}


class TestForgedPrincipals:
    @pytest.mark.parametrize("who", FORGED.values(), ids=FORGED)
    async def test_credentials(self, bench: Bench, who: Visitor) -> None:
        """Who shows no good credential is nobody, whatever they want."""
        raw = await bench.raw()
        view = wire.encode_packed(VIEW)

        await raw.send(
            asks(1, CREATE, who),
            Request(2, Purpose.GREET, who),
            Request(3, Purpose.REFUSE, who, code="malformed", kind="Sign"),
            Request(4, Purpose.FOLLOW, who, view),
        )
        answers = [await raw.answer() for _ in range(4)]

        for answer in answers:
            assert answer.error is not None
            assert AuthenticationError.code == answer.error.code
            assert ("", b"") == (answer.principal, answer.result)
        assert {1, 2, 3, 4} == {answer.id for answer in answers}
        assert 4 == bench.failures
        expected = [("", AuthenticationError.code)] * 4
        assert expected == recorded(bench.hsm, "Authenticate")
        assert [] == recorded(bench.hsm, "CreateKey") + recorded(bench.hsm, "Sign")

    @pytest.mark.parametrize(
        "extra",
        [
            {"principal": "alice"},
            {"roles": ["Administrator"]},
            {"caller": {"principal": "alice", "roles": ["Administrator"]}},
            {"cookie": "session=1"},
            {"certificate_sha256": "0" * 64},
            {"address": "x" * 129},
            {"request_id": "a\nb"},
            {"credential": 1},
        ],
        ids=lambda extra: next(iter(extra)),
    )
    async def test_extra_fields_of_a_visitor(
        self, bench: Bench, extra: dict[str, Any]
    ) -> None:
        """A visitor has no field for who they are."""
        raw = await bench.raw()
        who = {"credential": mint(), **extra}
        body = ["request", 1, "greet", who]

        await raw.send(framed(msgspec.msgpack.encode(body)))

        assert [] == await raw.rest()
        assert ["a frame that can't be read"] == bench.violations

    async def test_extra_fields_of_a_request(self, bench: Bench) -> None:
        """A request has no field for it either."""
        raw = await bench.raw()
        operation = wire.encode_packed(CREATE)
        body = ["request", 1, "execute", {}, operation, False, None, "", "", ""]

        await raw.send(framed(msgspec.msgpack.encode([*body, {"principal": "alice"}])))

        assert [] == await raw.rest()
        assert ["a frame that can't be read"] == bench.violations

    async def test_a_success_can_not_be_forged(self, bench: Bench) -> None:
        """Nothing but a refusal of a real operation is put on record."""
        for code, kind in (
            ("ok", "DestroyKey"),
            ("recovered-committed", "Sign"),
            ("", "Sign"),
            ("malformed", "system.tampered"),
            ("malformed", "Authenticate"),
            ("malformed", ""),
        ):
            raw = await bench.raw()
            await raw.send(Request(1, Purpose.REFUSE, visitor(), code=code, kind=kind))
            assert [] == await raw.rest()

        assert ["a refusal that is not a failure"] * 6 == bench.violations
        callers = [event.caller for event in events(bench.hsm) if event.caller]
        assert "alice" not in {caller.principal for caller in callers}

    async def test_a_credential_that_was_good(self, bench: Bench) -> None:
        """A connection that was used by somebody is nobody's."""
        raw = await bench.raw()

        await raw.send(asks(1, ops.GenerateRandom(length=4)))
        await raw.answer()
        await raw.send(asks(2, CREATE, Visitor()))
        answer = await raw.answer()

        assert answer.error is not None
        assert [] == recorded(bench.hsm, "CreateKey")


GOOD: Final = asks(1, CREATE)
LIE: Final = "a frame that can't be read"
LENGTH: Final = "a frame of a wrong length"
ATTACKS: Final[dict[str, tuple[list[Any], str]]] = {
    "a repeated id": ([asks(1, CREATE), asks(1, CREATE)], "a repeated id"),
    "an old id": ([asks(5, CREATE), asks(4, CREATE)], "a repeated id"),
    "a replayed chunk": (
        [
            Chunk(1, b"x"),
            Request(1, Purpose.GREET, Visitor(), b"", True),
            Chunk(1, b"x"),
        ],
        "a repeated id",
    ),
    "id 0": ([Cancel(0)], LIE),
    "an id without end": ([Cancel(2**53)], LIE),
    "a negative id": ([Cancel(-1)], LIE),
    "a cancelled stranger": ([Cancel(7)], "an id that was never used"),
    "a request that has no chunks": (
        [Request(1, Purpose.GREET, visitor(), b"", True)],
        "chunks without a request, or the reverse",
    ),
    "chunks that have no request": (
        [Chunk(1, b"x"), Request(1, Purpose.GREET, visitor())],
        "chunks without a request, or the reverse",
    ),
    "a payload that has no chunks": (
        [Request(1, Purpose.EXECUTE, visitor(), b"", payload="message")],
        "a payload without chunks",
    ),
    "a payload of nothing to execute": (
        [
            Chunk(1, b"x"),
            Request(1, Purpose.GREET, visitor(), b"", True, payload="message"),
        ],
        "a payload without chunks",
    ),
    "too many begun": (
        [b"".join(packed(Chunk(n, b"")) for n in range(1, 4098))],
        "too many requests at one time",
    ),
    "1 GiB": ([(2**30).to_bytes(4, "big") + b"x" * 1000], LENGTH),
    "4 GiB": ([b"\xff\xff\xff\xff"], LENGTH),
    "nothing": ([b"\0\0\0\0"], LENGTH),
    "an unknown type": ([framed(b"\x91\xa4root")], LIE),
    "a number for a type": ([framed(b"\x91\1")], LIE),
    "an answer": ([Answer(1)], LIE),
    "an event": ([Event(1, "alice", b"")], LIE),
    "a second greeting": ([HELLO], "a second greeting"),
    "no UTF-8": ([framed(b"\x93\xa5hello\1\xa2\xff\xfe")], LIE),
    "deep nesting": ([framed(b"\x91" * 500_000)], LIE),
    "a deep map": ([framed(b"\x81\xa1a" * 100_000)], LIE),
    "an array without end": ([framed(b"\xdd\xff\xff\xff\xff")], LIE),
    "a string without end": ([framed(b"\x91\xdb\xff\xff\xff\xff")], LIE),
    "another purpose": (
        [framed(msgspec.msgpack.encode(["request", 1, "root", {}]))],
        LIE,
    ),
    "JSON": ([b"GET / HTTP/1.1\r\n\r\n"], LENGTH),
}


class TestFrames:
    @pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
    async def test_what_breaks_the_rules(
        self, bench: Bench, attack: tuple[list[Any], str]
    ) -> None:
        """It ends the connection, is counted, and disturbs no other front end."""
        frames, reason = attack
        raw, other = await bench.raw(), await bench.raw()

        await raw.send(
            b"".join(f if isinstance(f, bytes) else packed(f) for f in frames)
        )
        rest = await raw.rest()
        await other.send(asks(1, ops.GenerateRandom(length=5)))
        answer = await other.answer()

        assert [] == [f for f in rest if not isinstance(f, Answer) or not f.error]
        assert [reason] == bench.violations
        assert 5 == len(result(answer, ops.RandomBytes).random)
        assert [] == recorded(bench.hsm, "CreateKey")
        await check_others(bench)

    @pytest.mark.parametrize(
        "first",
        [
            packed(Hello(0, "")),
            packed(Hello(PROTOCOL + 1, "")),
            packed(GOOD),
            packed(Cancel(1)),
        ],
        ids=["version 0", "next version", "request", "cancel"],
    )
    async def test_no_greeting(self, bench: Bench, first: bytes) -> None:
        """Who does not speak this version of the protocol is not listened to."""
        raw = await bench.raw(greet=False)

        await raw.send(first + packed(GOOD))

        assert [] == await raw.rest()
        assert ["another protocol"] == bench.violations
        assert [] == recorded(bench.hsm, "CreateKey")

    @pytest.mark.parametrize(
        "begun",
        [b"\0", b"\0\0", packed(GOOD)[:-1]],
        ids=["a byte", "two bytes", "all but one"],
    )
    async def test_slow_bytes(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, begun: bytes
    ) -> None:
        """Who begins a frame and does not end it is given up."""
        monkeypatch.setattr(f"{CHANNEL}._FRAME_SECONDS", 0.1)
        raw = await bench.raw()

        await raw.send(begun)

        assert [] == await raw.rest()
        assert ["an incomplete frame"] == bench.violations
        await check_others(bench)

    async def test_a_replayed_stream(self, bench: Bench) -> None:
        """A stream that was recorded can be played again only with its credentials."""
        stream = HELLO + packed(asks(1, ops.GenerateRandom(length=5)))
        raw = await bench.raw(greet=False)
        await raw.send(stream)
        first = await raw.answer()
        bench.gatekeeper.use(
            TokenTrust.of_secret(b"another secret, 32 bytes or more", TokenRules())
        )

        again = await bench.raw(greet=False)
        await again.send(stream)
        second = await again.answer()
        await raw.send(stream)

        assert first.error is None
        assert second.error is not None
        assert AuthenticationError.code == second.error.code
        assert [] == await raw.rest()
        assert ["a second greeting"] == bench.violations


class TestOthersAnswers:
    async def test_the_same_ids(self, bench: Bench) -> None:
        """Two front ends that use the same ids get their own answers only."""
        raws = [await bench.raw(), await bench.raw()]
        who = [visitor(mint(claims(sub=name))) for name in ("alice", "bob")]
        count = 100

        for number in range(1, count + 1):
            for which, raw in enumerate(raws):
                length = 2 * number + which
                await raw.send(
                    asks(number, ops.GenerateRandom(length=length), who[which])
                )

        for which, raw in enumerate(raws):
            answers = [await raw.answer() for _ in range(count)]
            found = {a.id: len(result(a, ops.RandomBytes).random) for a in answers}
            assert {n: 2 * n + which for n in range(1, count + 1)} == found
            assert {("alice", "bob")[which]} == {a.principal for a in answers}

    async def test_cancelling_for_others(self, bench: Bench) -> None:
        """Who cancels an id cancels their own request, or breaks the rules."""
        victim, same, stranger = [await bench.raw() for _ in range(3)]
        slow = ops.CreateKey(algorithm=Algorithm.RSA_2048, name="slow")

        await victim.send(asks(1, slow))
        await same.send(asks(1, ops.GenerateRandom(length=4)), Cancel(1))
        await stranger.send(Cancel(1))
        answer = await victim.answer()

        assert answer.error is None
        assert [] == await stranger.rest()
        assert ["an id that was never used"] == bench.violations

    async def test_pieces_of_others(self, bench: Bench) -> None:
        """Pieces of one connection complete no operation of another."""
        first, second = await bench.raw(), await bench.raw()
        data = wire.encode_packed(CREATE)

        await first.send(Chunk(1, data[:5]))
        await second.send(Request(1, Purpose.EXECUTE, visitor(), data[5:], True))

        assert [] == await second.rest()
        assert [] == recorded(bench.hsm, "CreateKey")


class TestStrangers:
    async def test_descriptors(self, bench: Bench) -> None:
        """Descriptors that are sent along are not taken, nor kept open."""
        end = bench.end()
        read, write = os.pipe()
        socket.send_fds(end, [HELLO + packed(GOOD)], [write])
        os.close(write)
        await until(lambda: bench.violations)
        end.close()

        assert ["from another user"] == bench.violations
        assert [] == recorded(bench.hsm, "CreateKey")
        # Nobody else has the pipe's other end.
        assert b"" == os.read(read, 1)
        os.close(read)
        await check_others(bench)

    @pytest.mark.skipif(os.geteuid() != 0, reason="Only root can become others.")
    async def test_another_user(self, bench: Bench) -> None:
        """Of a process of another user that has the socket, nothing is read."""
        end = bench.end()
        end.setblocking(True)
        sent = "".join(f"\\{byte:03o}" for byte in HELLO + packed(Cancel(1)))
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", f"printf '{sent}'"),
            stdin=subprocess.DEVNULL,
            stdout=end.fileno(),
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
        )
        assert 0 == await process.wait()
        await until(lambda: bench.violations)
        end.close()

        assert ["from another user"] == bench.violations
        await check_others(bench)

    @pytest.mark.skipif(os.geteuid() != 0, reason="Only root can become others.")
    async def test_another_user_in_the_middle(self, bench: Bench) -> None:
        """Nor where the right user has begun."""
        raw = await bench.raw()
        await raw.send(asks(1, ops.GenerateRandom(length=4)))
        await raw.answer()

        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", r"printf '\000'"),
            stdout=raw.socket.fileno(),
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
        )
        await process.wait()

        assert [] == await raw.rest()
        assert ["from another user"] == bench.violations


WHO: Final = visitor(mint(secret=b"y" * 32))
DATA: Final = wire.encode_packed(CREATE)
FORGED_STREAM: Final = [
    HELLO,
    packed(asks(1, CREATE, WHO)),
    packed(Chunk(2, DATA[:9])),
    packed(Request(2, Purpose.EXECUTE, WHO, DATA[9:], True)),
    packed(Request(3, Purpose.GREET, WHO)),
    packed(Request(4, Purpose.REFUSE, WHO, code="malformed", kind="Sign")),
    packed(Request(5, Purpose.FOLLOW, WHO, wire.encode_packed(VIEW))),
    packed(Cancel(5)),
]
GOOD_STREAM: Final = [
    HELLO,
    packed(asks(1, ops.GenerateRandom(length=9))),
    packed(Chunk(2, DATA[:9])),
    packed(Cancel(2)),
    packed(Request(3, Purpose.GREET, visitor())),
    packed(Request(4, Purpose.FOLLOW, visitor(), wire.encode_packed(VIEW))),
    packed(Cancel(4)),
]
CHANGES: Final = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True), st.integers(0, 3), st.binary(max_size=8)
    ),
    max_size=6,
)
ORDERS: Final = st.lists(st.integers(0, 8), max_size=12)


def changed(stream: list[bytes], order: list[int], changes: Any) -> bytes:
    """Return a stream in another order, with bytes changed."""
    frames = [stream[n % len(stream)] for n in order] or stream
    data = bytearray(b"".join(frames))
    for place, removed, added in changes:
        at = int(place * len(data))
        data[at : at + removed] = added
    return bytes(data)


async def attempt(bench: Bench, data: bytes) -> list[Any]:
    """Send bytes to a connection of their own, and return all that comes back."""
    raw = await bench.raw(greet=False)
    await raw.send(data)
    if raw.socket.fileno() >= 0 and not raw.writer.is_closing():
        raw.writer.write_eof()
    frames = await raw.rest()
    raw.close()
    return frames


class TestAnyBytes:
    @pytest.mark.parametrize("kind", ["random", "forged", "good"])
    def test_nothing_comes_of_it(self, kind: str) -> None:
        """
        Any bytes, and any change of a stream of frames, raise nothing in the vault.

        None of them makes a bad credential a good one.
        """
        strategies: dict[str, st.SearchStrategy[bytes]] = {
            "random": st.binary(max_size=200)
            | st.binary(min_size=1, max_size=200).map(lambda b: HELLO + framed(b)),
            "forged": st.builds(changed, st.just(FORGED_STREAM), ORDERS, CHANGES),
            "good": st.builds(changed, st.just(GOOD_STREAM), ORDERS, CHANGES),
        }
        raised: list[Any] = []

        async def begin() -> tuple[Any, Bench]:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: raised.append(context))
            context = open_bench()
            return context, await context.__aenter__()

        with asyncio.Runner() as runner:
            context, bench = runner.run(begin())

            @settings(max_examples=250, deadline=None)
            @given(strategies[kind])
            def check(data: bytes) -> None:
                for frame in runner.run(attempt(bench, data)):
                    if kind != "good" and isinstance(frame, Answer):
                        assert "" == frame.principal
                        assert frame.error or result(frame, ops.HSMStatus)
                    assert kind == "good" or not isinstance(frame, Event)

            check()
            runner.run(check_others(bench))
            runner.run(context.__aexit__(None, None, None))

        assert [] == raised
        assert [] == bench.unexpected
