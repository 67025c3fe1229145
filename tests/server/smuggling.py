# SPDX-License-Identifier: MIT
"""
Requests that two servers could read in two ways (RFC 9112, section 11.2).

Each is sent with another request behind it, which a proxy in front would have taken for
a part of the body. None of them may be answered but with a refusal, and nothing after
it may be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

BEHIND: Final = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
"""What stands behind each case, and must not be answered."""

_HEAD: Final = (
    b"POST /api/v1/random HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
)
_BODY: Final = b'{"length":1}'
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_CHUNKS: Final = b"c\r\n" + _BODY + b"\r\n0\r\n\r\n"


def _request(headers: bytes, body: bytes = _CHUNKS) -> bytes:
    return _HEAD + headers + b"\r\n" + body


VALID: Final = {
    "length": _request(b"Content-Length: 12\r\n", _BODY),
    "chunked": _request(_CHUNKED),
    "chunked-in-capitals": _request(b"TRANSFER-ENCODING: CHUNKED\r\n"),
    "chunk-size-with-zeros": _request(_CHUNKED, b"000c\r\n" + _BODY + b"\r\n0\r\n\r\n"),
    "chunk-extension": _request(
        _CHUNKED, b"c;name=value\r\n" + _BODY + b"\r\n0\r\n\r\n"
    ),
    "trailer": _request(_CHUNKED, _CHUNKS[:-2] + b"X: y\r\n\r\n"),
    "two-blanks": BEHIND.replace(b"GET ", b"GET  "),
    "absolute-target": BEHIND.replace(b"/livez", b"https://x/livez"),
    "two-slashes": BEHIND.replace(b"/livez", b"//livez"),
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
}
"""What is unusual and nevertheless one request, for which one answer comes."""


def _lengths() -> Iterator[tuple[str, bytes]]:
    for name, text in {
        "sign": b"+12",
        "minus": b"-12",
        "hex": b"0xc",
        "blank-inside": b"1 2",
        "list": b"12, 12",
        "list-that-differs": b"12, 5",
        "comma": b"12,",
        "underscore": b"1_2",
        "point": b"12.0",
        "exponent": b"12e0",
        "nothing": b"",
        "words": b"twelve",
        "too-large": b"9" * 40,
        "beyond-64-bits": b"18446744073709551628",
        "other-digits": "\u0661\u0662".encode(),
        "tab": b"1\t2",
    }.items():
        yield f"length-{name}", _request(b"Content-Length: " + text + b"\r\n", _BODY)
    yield (
        "two-lengths",
        _request(b"Content-Length: 12\r\nContent-Length: 5\r\n", _BODY),
    )
    yield (
        "one-length-twice",
        _request(b"Content-Length: 12\r\nContent-Length: 12\r\n", _BODY),
    )


def _codings() -> Iterator[tuple[str, bytes]]:
    both = b"Content-Length: 12\r\n"
    yield "length-and-chunked", _request(both + _CHUNKED)
    yield "chunked-and-length", _request(_CHUNKED + both)
    for name, text in {
        "xchunked": b"xchunked",
        "identity": b"identity",
        "gzip": b"gzip",
        "chunked-then-gzip": b"chunked, gzip",
        "gzip-then-chunked": b"gzip, chunked",
        "chunked-twice": b"chunked, chunked",
        "chunked-in-quotes": b'"chunked"',
        "chunked-with-parameter": b"chunked;q=1",
        "vertical-tab": b"\x0bchunked",
        "nothing": b"",
        "comma": b"chunked,",
        "nul": b"chunked\0",
        "obs-text": b"chunked\xff",
    }.items():
        yield f"coding-{name}", _request(b"Transfer-Encoding: " + text + b"\r\n")
    yield "two-codings", _request(_CHUNKED + _CHUNKED)
    yield (
        "coding-of-http-1.0",
        _request(_CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    )


def _chunks() -> Iterator[tuple[str, bytes]]:
    rest = b"\r\n" + _BODY + b"\r\n0\r\n\r\n"
    for name, size in {
        "minus": b"-c",
        "plus": b"+c",
        "0x": b"0xc",
        "no-hex": b"g",
        "nothing": b"",
        "blank-before": b" c",
        "blank-after": b"c ",
        "tab-after": b"c\t",
        "too-large": b"f" * 17,
        "wraps-around": b"1000000000000000c",
        "underscore": b"0_c",
        "nul": b"c\0",
        "extension-with-line-feed": b"c;\nx",
        "extension-with-carriage-return": b"c;\rx",
        "extension-with-nul": b"c;\0",
    }.items():
        yield f"chunk-{name}", _request(_CHUNKED, size + rest)
    yield "chunk-bare-line-feed", _request(_CHUNKED, b"c\n" + rest[2:])
    yield "chunk-too-long", _request(_CHUNKED, b"c\r\n" + _BODY + b"x\r\n0\r\n\r\n")
    yield "chunk-no-end", _request(_CHUNKED, b"c\r\n" + _BODY + b"0\r\n\r\n")
    yield (
        "chunk-ends-in-line-feed",
        _request(_CHUNKED, b"c\r\n" + _BODY + b"\n0\r\n\r\n"),
    )
    yield "trailer-obs-fold", _request(_CHUNKED, _CHUNKS[:-2] + b"X: y\r\n z\r\n\r\n")
    yield "trailer-no-name", _request(_CHUNKED, _CHUNKS[:-2] + b": y\r\n\r\n")


def _fields() -> Iterator[tuple[str, bytes]]:
    good = b"Content-Length: 12\r\n"
    for name, line in {
        "blank-before-colon": b"Content-Length : 12\r\n",
        "tab-before-colon": b"Content-Length\t: 12\r\n",
        "obs-fold": good + b"X: a\r\n b\r\n",
        "obs-fold-tab": good + b"X: a\r\n\tb\r\n",
        "folded-length": b"Content-Length:\r\n 12\r\n",
        "no-colon": good + b"X\r\n",
        "no-name": good + b": x\r\n",
        "name-with-blank": good + b"X Y: z\r\n",
        "name-with-nul": good + b"X\0: z\r\n",
        "name-with-slash": good + b"X/Y: z\r\n",
        "name-with-obs-text": good + b"X\xff: z\r\n",
        "nul": good + b"X: a\0b\r\n",
        "bare-carriage-return": good + b"X: a\rb\r\n",
        "bare-line-feed": good + b"X: a\nY: b\r\n",
        "two-hosts": good + b"Host: y\r\n",
        "blank-line-first": b" X: y\r\n" + good,
    }.items():
        yield f"field-{name}", _request(line, _BODY)
    yield (
        "field-first-folded",
        _HEAD.replace(b"Host", b" Host", 1) + good + b"\r\n" + _BODY,
    )
    yield "all-line-feeds", _request(good, _BODY).replace(b"\r\n", b"\n")


def _lines() -> Iterator[tuple[str, bytes]]:
    end = b"\r\nHost: x\r\n\r\n"
    for name, line in {
        "nul": b"GET /livez\0 HTTP/1.1",
        "tab": b"GET\t/livez HTTP/1.1",
        "blank-in-target": b"GET /li vez HTTP/1.1",
        "no-version": b"GET /livez",
        "old-version": b"GET /livez HTTP/0.9",
        "version-2": b"GET /livez HTTP/2.0",
        "version-1.2": b"GET /livez HTTP/1.2",
        "lower-case-version": b"GET /livez http/1.1",
        "other-protocol": b"GET /livez RTSP/1.0",
        "preface": b"PRI * HTTP/2.0",
        "blank-first": b" GET /livez HTTP/1.1",
        "control": b"GET /\x01livez HTTP/1.1",
        "no-target": b"GET HTTP/1.1",
        "lower-case-method": b"get /livez HTTP/1.1",
        "method-with-colon": b"GET: /livez HTTP/1.1",
        "blank-last": b"GET /livez HTTP/1.1 ",
    }.items():
        yield f"line-{name}", line + end
    for name, target in {
        "absolute": b"http://evil.example/livez",
        "absolute-of-another": b"https://evil.example/livez",
        "asterisk": b"*",
        "authority": b"x:443",
        "fragment": b"/livez#x",
        "bare": b"livez",
        "backslash": b"\\livez",
        "scheme": b"file:///etc/passwd",
        "user": b"http://a:b@x/livez",
    }.items():
        yield f"target-{name}", b"GET " + target + b" HTTP/1.1" + end
    yield "target-connect", b"CONNECT x:443 HTTP/1.1" + end
    for name, host in {
        "blank": b"a b",
        "slash": b"x/",
        "at": b"a@x",
        "port": b"x:y",
        "list": b"x, y:1:2",
        "obs-text": b"x\xff",
    }.items():
        line = b"GET /livez HTTP/1.1\r\nHost: " + host
        yield f"host-{name}", line + b"\r\n\r\n"
    yield "no-host", b"GET /livez HTTP/1.1\r\n\r\n"
    yield "upgrade", b"GET /livez HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade" + end
    yield (
        "upgrade-websocket",
        b"GET /livez HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade" + end,
    )


CASES: Final = {
    name: data
    for group in (_lengths(), _codings(), _chunks(), _fields(), _lines())
    for name, data in group
    if data
}
"""By name, what must be refused."""
