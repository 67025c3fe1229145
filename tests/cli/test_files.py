# SPDX-License-Identifier: MIT
"""Tests of data from files and results to files."""

import base64
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_cli.io.files import (
    Source,
    decode_base64,
    encode_base64,
    hash_digest,
    write_file,
)
from hsm_cli.io.output import OutputError
from hsm_core.algorithms import HashAlgorithm
from hsm_core.errors import InvalidInputError, MalformedError


class TestBase64:
    @given(st.binary())
    def test_round_trip(self, data: bytes) -> None:
        """What is encoded is decoded, with white space around and between lines."""
        text = encode_base64(data)
        folded = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))

        assert data == decode_base64(text, what="it")
        assert data == decode_base64(f" {folded}\r\n", what="it")

    @pytest.mark.parametrize(
        "text", ["a", "aa", "aaa", "aa=", "ab==", "aaa=a", "a-_a", "é===", "aaaa===="]
    )
    def test_refused(self, text: str) -> None:
        """Base64 that is not in its one form is refused."""
        with pytest.raises(MalformedError, match="It must be"):
            decode_base64(text, what="It")


class TestSource:
    def test_bytes_of_the_command_line(self) -> None:
        """An argument that is not UTF-8 gives the very bytes that were typed."""
        source = Source(what="payload", text=os.fsdecode(b"\xff\xfe"))

        assert b"\xff\xfe" == source.read()

    @pytest.mark.parametrize("algorithm", HashAlgorithm)
    def test_digest(self, data_file: Path, algorithm: HashAlgorithm) -> None:
        """A digest is that of the data, wherever it comes from."""
        data = data_file.read_bytes()
        text = base64.b64encode(data).decode()
        sources = [
            Source(what="payload", path=str(data_file)),
            Source(what="payload", text=text, is_base64=True),
        ]
        digests = {hash_digest(algorithm, s, [], s.pieces()) for s in sources}

        assert 1 == len(digests)
        assert algorithm.digest_bytes == len(digests.pop())

    def test_size(self, data_file: Path, tmp_path: Path) -> None:
        """Only a plain file has a size that is known before it is read."""
        os.mkfifo(tmp_path / "pipe")
        sizes = [
            Source(what="payload", path=path).size
            for path in (str(data_file), "-", str(tmp_path / "pipe"), "/no/file")
        ]

        assert [1024, None, None, None] == sizes

    @pytest.mark.parametrize("path", ["", "a\0b", "/nonexistent/file"])
    def test_unreadable(self, path: str) -> None:
        """What can't be opened is an error of the input."""
        with pytest.raises(InvalidInputError, match="Can't read"):
            Source(what="payload", path=path).read()


class TestWriteFile:
    def test_modes(self, tmp_path: Path) -> None:
        """A private file is its owner's alone; for others the umask decides."""
        private, public = tmp_path / "private", tmp_path / "public"
        old = os.umask(0o022)
        try:
            write_file(str(private), b"x", private=True)
            write_file(str(public), b"x", private=False)
        finally:
            os.umask(old)

        assert (0o600, 0o644) == (
            stat.S_IMODE(private.stat().st_mode),
            stat.S_IMODE(public.stat().st_mode),
        )

    def test_replaces(self, tmp_path: Path) -> None:
        """An open file becomes private when a private result replaces it."""
        path = tmp_path / "file"
        path.write_bytes(b"old")
        path.chmod(0o666)
        link = tmp_path / "link"
        link.symlink_to(path)
        write_file(str(link), b"new", private=True)

        assert link.is_symlink()
        assert (b"new", 0o600) == (
            path.read_bytes(),
            stat.S_IMODE(path.stat().st_mode),
        )
        assert {"file", "link"} == {entry.name for entry in tmp_path.iterdir()}

    def test_pipe(self, tmp_path: Path) -> None:
        """A pipe is written to, not replaced."""
        path = tmp_path / "pipe"
        os.mkfifo(path)
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(path.read_bytes()))
        thread.start()
        write_file(str(path), b"x", private=True)
        thread.join()

        assert [b"x"] == got
        assert stat.S_ISFIFO(path.stat().st_mode)

    @pytest.mark.parametrize("name", ["no/file", "a\0b", "."])
    def test_failure(self, tmp_path: Path, name: str) -> None:
        """A failure names the file, and leaves nothing behind."""
        with pytest.raises(OutputError, match="Can't write"):
            write_file(f"{tmp_path}/{name}", b"x", private=True)

        assert [] == list(tmp_path.iterdir())

    def test_full_device(self) -> None:
        """A device without room is an error, not a success."""
        with pytest.raises(OutputError, match="No space left"):
            write_file("/dev/full", b"x", private=True)
