# SPDX-License-Identifier: MIT
"""Forms with files."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

import pytest

from hsm_core.operations import CreateKey, DescribeKey, Verify
from hsm_server.ui.forms import MOST_BYTES
from tests.server.ui_support import Browser, Shown

BOUNDARY = "----of-this-test"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def packed(parts: Sequence[tuple[str, str | None, bytes]]) -> bytes:
    """Return a multipart body: names, file names or None, contents."""
    lines = []
    for name, filename, data in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        head = f'Content-Disposition: form-data; name="{name}"{file}'
        lines += [f"--{BOUNDARY}".encode(), head.encode(), b"", data]
    return b"\r\n".join([*lines, f"--{BOUNDARY}--".encode(), b""])


class Signing:
    """A form that signs its message."""

    def __init__(self, browser: Browser) -> None:
        made = browser.execute(CreateKey(algorithm="Ed25519", name="signer"))
        self.browser = browser
        self.key_id = made.key_id
        self.path = f"/ui/keys/{made.key_id}/try/sign"

    async def send(self, *parts: tuple[str, str | None, bytes]) -> Shown:
        """Submit the form with these parts."""
        page = await self.browser.get(self.path)
        token = page.hidden("form_token").encode()
        return await self.send_raw(packed([("form_token", None, token), *parts]))

    async def send_raw(self, body: bytes, kind: str = MULTIPART) -> Shown:
        """Send a body."""
        headers = {"Content-Type": kind}
        return await self.browser.send("POST", self.path, headers=headers, data=body)

    @property
    def uses(self) -> int:
        """Number of uses of the key."""
        found = self.browser.execute(DescribeKey(key_id=self.key_id))
        return int(found.use.uses)


@pytest.fixture
def signing(signed_in: Browser) -> Signing:
    """Yield a form that signs its message."""
    return Signing(signed_in)


async def test_file_keeps_every_byte(signing: Signing) -> None:
    """Files keep every byte, including line ends."""
    data = bytes(range(256)) + b"\r\n--\r\n\n\r" + f"--{BOUNDARY}\r\n".encode()

    shown = await signing.send(
        ("message", None, b""), ("message_file", "../a%22b'.bin", data)
    )

    assert 200 == shown.status, shown.words
    found = re.search(r'id="part-1-base64"[^>]*>([^<]*)<', shown.text)
    assert found
    signature = base64.b64decode(found[1])
    verify = Verify(key_id=signing.key_id, message=data, signature=signature)
    signing.browser.execute(verify)


async def test_text_without_file(signing: Signing) -> None:
    """Without a file, the text is used, with LF line ends."""
    shown = await signing.send(
        ("message", None, "é\r\nb".encode()), ("message_file", "", b"")
    )

    found = re.search(r'id="part-1-base64"[^>]*>([^<]*)<', shown.text)
    assert found
    signature = base64.b64decode(found[1])
    message = "é\nb".encode()
    verify = Verify(key_id=signing.key_id, message=message, signature=signature)
    signing.browser.execute(verify)


async def test_text_and_file(signing: Signing) -> None:
    """Text and file together are rejected."""
    shown = await signing.send(("message", None, b"x"), ("message_file", "y", b"y"))

    assert 422 == shown.status
    assert "not both" in shown.words
    assert 0 == signing.uses


async def test_missing_form_token(signing: Signing) -> None:
    """A form with files needs the CSRF token."""
    shown = await signing.send_raw(packed([("message", None, b"x")]))

    assert 403 == shown.status
    assert "stale_form" in shown.words
    assert 0 == signing.uses


async def test_too_long(signing: Signing) -> None:
    """A form with too large a Content-Length is rejected."""
    shown = await signing.send(("message_file", "x", bytes(MOST_BYTES)))

    assert 413 == shown.status
    assert 0 == signing.uses


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=" + "b" * 100, b"x"),
        (MULTIPART, b""),
        (MULTIPART, b"nothing of the kind"),
        (MULTIPART, packed([("message", None, b"x")])[:-40]),
        (MULTIPART, packed([("message", None, b"\xff")])),
        (MULTIPART, packed([("", None, b"x")])),
        (MULTIPART, packed([("message", None, b"x")] * 300)),
        (MULTIPART, packed([("f", "x", b"x"), ("f", "x", b"x")])),
        (
            MULTIPART,
            f"--{BOUNDARY}\r\nContent-Length: x\r\n\r\n\r\n--{BOUNDARY}--".encode(),
        ),
        (
            MULTIPART,
            f"--{BOUNDARY}\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n"
            f"--i\r\n\r\nx\r\n--i--\r\n--{BOUNDARY}--\r\n".encode(),
        ),
        (
            MULTIPART,
            packed([("message", None, b"x")]).replace(
                b'form-data; name="message"', b"form-data; name*=utf-9''%ff"
            ),
        ),
    ],
    ids=[
        "no-boundary",
        "long-boundary",
        "empty",
        "text",
        "cut",
        "not-utf-8",
        "no-name",
        "many",
        "twice",
        "length",
        "nested",
        "charset",
    ],
)
async def test_malformed_forms(signing: Signing, kind: str, body: bytes) -> None:
    """Malformed forms are rejected."""
    shown = await signing.send_raw(body, kind)

    assert shown.status in {400, 403, 422}, shown.words
    assert 0 == signing.uses
    assert "Traceback" not in signing.browser.log.getvalue()
