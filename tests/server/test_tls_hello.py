# SPDX-License-Identifier: MIT
"""ClientHellos, good and malformed, and the labels of handshakes in metrics."""

import contextlib
import ssl
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_server.tls.handshakes import (
    ALERTS,
    GROUPS,
    MAX_HELLO_BYTES,
    ClientHello,
    MalformedHelloError,
    Outcome,
    channel_of,
    group_label,
    read_hello,
)


def hello(name: str | None = "hsm.example.com", *protocols: str) -> bytes:
    """Return what Python's own client begins with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


REAL = hello("HSM.example.com", "acme-tls/1", "http/1.1")
EXPECTED = ClientHello("hsm.example.com", (b"acme-tls/1", b"http/1.1"))


def record(fragment: bytes) -> bytes:
    """Return a handshake record."""
    return b"\x16\x03\x01" + len(fragment).to_bytes(2, "big") + fragment


def message(extensions: Iterable[tuple[int, bytes]]) -> bytes:
    """Return a ClientHello with these extensions, in one record."""
    joined = b"".join(
        kind.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data
        for kind, data in extensions
    )
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += len(joined).to_bytes(2, "big") + joined
    return record(b"\x01" + len(body).to_bytes(3, "big") + body)


def test_a_real_one_is_read() -> None:
    """Its server name, lower case, and its protocols in order."""
    assert EXPECTED == read_hello(REAL)
    assert ClientHello("", ()) == read_hello(hello(None))


def test_one_without_extensions_is_read() -> None:
    """As clients of TLS 1.2 may send it."""
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"

    assert ClientHello("", ()) == read_hello(
        record(b"\x01\0\0" + bytes([len(body)]) + body)
    )


@given(st.integers(0, len(REAL) - 1))
def test_a_part_is_waited_for(length: int) -> None:
    """Whatever is still missing."""
    assert read_hello(REAL[:length]) is None


@given(st.binary(max_size=64))
def test_what_follows_is_not_looked_at(more: bytes) -> None:
    """It is for OpenSSL."""
    assert EXPECTED == read_hello(REAL + more)


@given(st.lists(st.integers(1, len(REAL) - 6), max_size=20))
def test_it_may_be_cut_into_records(cuts: list[int]) -> None:
    """A message that spans several is put together."""
    whole, pieces, before = REAL[5:], [], 0
    for cut in sorted({*cuts, len(whole)}):
        pieces.append(record(whole[before:cut]))
        before = cut

    assert EXPECTED == read_hello(b"".join(pieces))


@given(
    st.lists(
        st.tuples(st.integers(0, len(REAL) - 1), st.integers(0, 255)),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, len(REAL)),
)
def test_any_other_is_read_or_refused(
    changes: list[tuple[int, int]], length: int
) -> None:
    """Changed and cut as it may be, there is no other error."""
    data = bytearray(REAL)
    for at, value in changes:
        data[at] = value
    with contextlib.suppress(MalformedHelloError):
        found = read_hello(bytes(data[:length]))
        assert found is None or isinstance(found, ClientHello)


@given(st.lists(st.tuples(st.sampled_from([0, 16, 43]), st.binary(max_size=24))))
def test_any_extensions_are_read_or_refused(
    extensions: list[tuple[int, bytes]],
) -> None:
    """Names and protocols in any disorder."""
    with contextlib.suppress(MalformedHelloError):
        assert read_hello(message(extensions)) is not None


ALPN = (16, b"\0\x0b\x0aacme-tls/1")
SNI = (0, b"\0\x06\0\0\x03a.b")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x80\x2e\x01\x03\x01",
        record(b"\x02\0\0\0"),
        record(b""),
        b"\x16\x03\x01\x40\x01",
        record(b"\x01\xff\xff\xff" + bytes(16)),
        record(b"\x01\0\0\x02\x03\x03"),
        message([ALPN, ALPN]),
        message([SNI, SNI]),
        message([(0, b"\0\x06\0\0\x03\xff\xfe\xfd")]),
        message([(0, b"\0\x07\0\0\x03a.b")]),
        message([(16, b"\0\x0a\x0aacme-tls/1")]),
        message([(16, b"\0\x0b\x0aacme-tls/1\0")]),
    ],
    ids=[
        "http",
        "sslv2",
        "server-hello",
        "empty-record",
        "long-record",
        "long-message",
        "short-message",
        "two-alpn",
        "two-names",
        "not-ascii",
        "long-name",
        "short-alpn",
        "trailing",
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    """Rather than guessed at."""
    with pytest.raises(MalformedHelloError):
        read_hello(data)


def test_the_limit_leaves_room_for_real_ones() -> None:
    """With ML-KEM they are some 1.5 kB."""
    assert len(REAL) * 4 < MAX_HELLO_BYTES
    assert ClientHello("a.b", (b"acme-tls/1",)) == read_hello(message([SNI, ALPN]))


def test_alerts_have_the_names_of_the_standard() -> None:
    """Ours and the client's are told apart; unknown ones are all the same."""
    names = {
        Outcome.by_alert(number, is_ours=is_ours).name
        for number in range(256)
        for is_ours in (True, False)
    }

    assert "refused_certificate_required" in names
    assert "rejected_unknown_ca" in names
    assert 2 * (len(ALERTS) + 1) == len(names)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ConnectionAbortedError(), "timeout"),
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "disconnected"),
        (BrokenPipeError(), "disconnected"),
        (OSError(), "disconnected"),
    ],
)
def test_what_no_alert_has_ended_has_a_name(error: OSError, name: str) -> None:
    """Somebody was too slow, or went away; nobody was refused."""
    outcome = Outcome.by_error(error)

    assert name == outcome.name
    assert not outcome.is_refusal


@given(st.text())
def test_groups_are_of_a_known_few(name: str) -> None:
    """Whatever a later OpenSSL may call one."""
    assert group_label(name) in {*GROUPS, "none", "other"}


@pytest.mark.parametrize("name", GROUPS)
def test_known_groups_keep_their_names(name: str) -> None:
    """In whatever case they are written."""
    assert name == group_label(name.upper())
    assert "none" == group_label(None)


def test_without_tls_nothing_is_known() -> None:
    """Of no transport, and of one without handshake."""
    assert channel_of(None) is None
