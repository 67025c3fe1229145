# SPDX-License-Identifier: MIT
"""How secrets are read: sources, forms, and what is never said."""

import base64
import hmac
import os
from pathlib import Path

import pytest

from hsm_core.errors import ConfigurationError, UnsafeFileModeError
from hsm_core.secret_input import (
    MAX_SECRET_FILE_BYTES,
    fingerprint,
    is_literal_secret,
    read_secret,
)

SECRET = bytes(range(32))
TEXT = base64.b64encode(SECRET).decode()


def read(value: str, *, exact: int | None = 32, check_modes: bool = True) -> bytes:
    """Read a master key."""
    return read_secret(
        value, field="master-key", minimum=32, exact=exact, check_modes=check_modes
    )


def written(path: Path, content: bytes, mode: int = 0o600) -> str:
    """Write a file and return how a secret names it."""
    path.write_bytes(content)
    path.chmod(mode)
    return f"@{path}"


def test_canonical_base64_is_the_secret() -> None:
    """Standard base64 is decoded."""
    assert SECRET == read(TEXT)


def test_text_is_taken_as_it_is() -> None:
    """After the word text: stands the secret itself."""
    plain = "correct horse battery staple, twice over"

    assert plain.encode() == read(f"text:{plain}", exact=None)


@pytest.mark.parametrize(
    "value",
    [
        "",
        TEXT.rstrip("="),
        TEXT[:-2] + "9=",  # unused bits are not zero
        TEXT.replace("A", "_"),
        f" {TEXT}",
        f"{TEXT}\n",
        TEXT[:20] + "\n" + TEXT[20:],
        f"{TEXT}{TEXT}",
        "correct horse battery staple now",
        "ключ",
        "text:\udcff" + "x" * 31,
    ],
)
def test_what_is_not_canonical_base64_is_refused(value: str) -> None:
    """Nothing is guessed: a string has one meaning, or none."""
    with pytest.raises(ConfigurationError, match="master-key must be"):
        read(value)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_another_length_is_refused(length: int) -> None:
    """An exact length is demanded after decoding."""
    with pytest.raises(ConfigurationError, match="must be 32 bytes"):
        read(base64.b64encode(bytes(length)).decode())


@pytest.mark.parametrize("value", [TEXT[:40] + "AA==", "text:short"])
def test_a_short_secret_is_refused(value: str) -> None:
    """A minimum holds for both forms."""
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        read(value, exact=None)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_file_is_read_without_its_line_end(tmp_path: Path, end: bytes) -> None:
    """A file holds one of the two forms, with or without a line end."""
    assert SECRET == read(written(tmp_path / "key", TEXT.encode() + end))


def test_a_file_may_hold_text(tmp_path: Path) -> None:
    """The forms are the same in a file."""
    plain = b"x" * 32

    assert plain == read(written(tmp_path / "key", b"text:" + plain))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o610])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """A secret that others may read or write is none."""
    value = written(tmp_path / "key", TEXT.encode(), mode)

    with pytest.raises(UnsafeFileModeError, match=f"{mode:04o}"):
        read(value)
    assert SECRET == read(value, check_modes=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can give files away.")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner could change the secret."""
    value = written(tmp_path / "key", TEXT.encode())
    os.chown(tmp_path / "key", 12345, -1)

    with pytest.raises(UnsafeFileModeError, match="owned by"):
        read(value)


def test_a_missing_file_is_named_without_its_path(tmp_path: Path) -> None:
    """The message tells what is wrong and repeats nothing that was given."""
    with pytest.raises(ConfigurationError, match="No such file") as caught:
        read(f"@{tmp_path}/nothing-here")

    assert "nothing-here" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff" * 32, b"@other", b"fd:3", b"not base64"])
def test_a_file_in_another_form_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file can't point on, and bare bytes are not a form."""
    with pytest.raises(ConfigurationError, match="must be standard base64"):
        read(written(tmp_path / "key", content))


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """Reading stops at a bound."""
    content = b"A" * (MAX_SECRET_FILE_BYTES + 1)

    with pytest.raises(ConfigurationError, match="must be at most"):
        read(written(tmp_path / "key", content))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """What can't be read is a configuration error, not a traceback."""
    tmp_path.chmod(0o700)

    with pytest.raises(ConfigurationError, match="can't be read"):
        read(f"@{tmp_path}")


def test_a_name_with_a_zero_byte_is_refused() -> None:
    """A file name that no system accepts is a configuration error too."""
    with pytest.raises(ConfigurationError, match="can't be read"):
        read("@a\0b")


def test_a_descriptor_is_read_and_closed() -> None:
    """After reading, the descriptor is gone."""
    reading, writing = os.pipe()
    os.write(writing, TEXT.encode() + b"\n")
    os.close(writing)

    assert SECRET == read(f"fd:{reading}")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)


@pytest.mark.parametrize("value", ["fd:", "fd:x", "fd:-1", "fd:03", "fd:99999999"])
def test_a_bad_descriptor_is_refused(value: str) -> None:
    """A descriptor is a plain number."""
    with pytest.raises(ConfigurationError, match="fd:N"):
        read(value)


def test_a_closed_descriptor_is_refused() -> None:
    """A number that names nothing open is a configuration error."""
    with pytest.raises(ConfigurationError, match="can't be read"):
        read("fd:9999")


@pytest.mark.parametrize(
    "value",
    ["S3CRET-S3CRET", "@S3CRET-S3CRET", "fd:S3CRET-S3CRET", "text:S3CRET-S3CRET"],
)
def test_no_message_repeats_the_value(value: str) -> None:
    """Whatever is wrong, what was given stays out of the message."""
    with pytest.raises(ConfigurationError) as caught:
        read(value)

    assert "S3CRET" not in str(caught.value) + repr(caught.value.facts)
    assert caught.value.__cause__ is None


def test_only_the_two_forms_are_literal() -> None:
    """Files and descriptors are not secrets themselves."""
    assert is_literal_secret(TEXT)
    assert is_literal_secret("text:x")
    assert not is_literal_secret("@path")
    assert not is_literal_secret("fd:3")


def test_a_fingerprint_identifies_a_secret() -> None:
    """It is the same in every release, for people write it down."""
    digest = hmac.digest(SECRET, b"FerroHSM fingerprint of a secret", "sha256")
    bare = fingerprint(SECRET).replace("-", "")

    assert digest.hex().upper().startswith(bare)
    assert [4, 4, 4] == [len(part) for part in fingerprint(SECRET).split("-")]
    assert fingerprint(SECRET) != fingerprint(bytes(32))
