# SPDX-License-Identifier: MIT
"""The stage of the demonstration: a scratch directory, and processes in it."""

import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

from transcript import Transcript

__all__ = ["DemoError", "Done", "Server", "Stage"]

_READY: Final = re.compile(r"hsm-server: listening on (https://\S+)")
_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 15.0


class DemoError(Exception):
    """A step did not go as it should; the text says what was expected."""


class Done:
    """
    A command that has ended.

    Attributes:
        status: Its exit status.
        out: What it printed on standard output.
        err: What it printed on standard error.
    """

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err


class Server:
    """
    A running hsm-server.

    Attributes:
        url: Where it listens.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._wait_ready()

    def stop(self) -> int:
        """Send SIGTERM, wait for the end, and return the exit status."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(_SECONDS)
        self._reader.join(_SECONDS)
        return status

    def _read(self) -> None:
        # Read to the end, so that the server never waits for a full pipe.
        if self._process.stdout is not None:
            with self._process.stdout as lines:
                for line in lines:
                    self._lines.put(line)
        self._lines.put(None)

    def _wait_ready(self) -> str:
        seen = ""
        until = time.monotonic() + _SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise DemoError(f"The server is not ready in time: {seen}") from None
            if line is None:
                raise DemoError(f"The server did not start: {seen}")
            if found := _READY.search(line):
                return found[1]
            seen += line


class Stage:
    """
    A scratch directory, and every process that was started in it.

    At the end of a ``with`` block, however it ends, the processes are ended and the
    directory is removed.

    Args:
        transcript: Where commands and their output are shown.

    Attributes:
        folder: The scratch directory, of mode 0700; commands run in it.
        environment: What commands find in their environment.
    """

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript
        self._processes: list[subprocess.Popen[str]] = []
        self._interruptions = _Interruptions()
        self.folder = Path()
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("FERROHSM_")
        }
        # The installed commands stand beside the interpreter that runs this file.
        scripts = str(Path(sys.executable).parent)
        path = os.environ.get("PATH", os.defpath)
        self.environment["PATH"] = f"{scripts}{os.pathsep}{path}"

    def __enter__(self) -> Self:
        self._interruptions.install()
        with self._interruptions.held():
            self.folder = Path(tempfile.mkdtemp(prefix="ferrohsm-demo-"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Whoever is impatient now would leave a mess behind.
        with self._interruptions.held():
            for process in self._processes:
                _end(process)
            shutil.rmtree(self.folder)
        self._interruptions.uninstall()

    def write_private(self, name: str, text: str) -> Path:
        """Write a file that only its owner may read."""
        path = self.folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600), "w") as file:
            file.write(text)
        return path

    def run(self, *words: str, status: int = 0, show: bool = True) -> Done:
        """
        Run a command in the scratch directory and show it with what it prints.

        Args:
            words: Program and arguments; no secret is ever among them.

            status: The exit status that is expected.

            show: Whether command and output appear in the transcript.

        Raises:
            DemoError: It ended with another status.
        """
        if show:
            self.transcript.command(words)
        process = self._start(words, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{shlex.join(words)} does not end.") from None
        if show:
            self.transcript.output(out + err)
        if process.returncode != status:
            told = "" if show else f"\n{out}{err}"
            raise DemoError(
                f"{words[0]} ended with status {process.returncode}; {status} was "
                f"expected.{told}"
            )
        self._processes.remove(process)
        return Done(process.returncode, out, err)

    def serve(self, *words: str) -> Server:
        """
        Start a server and wait until it listens.

        Raises:
            DemoError: It does not.
        """
        self.transcript.command(words)
        process = self._start(words, stderr=subprocess.STDOUT)
        server = Server(process)
        self.transcript.output(f"hsm-server: listening on {server.url}")
        return server

    def _start(self, words: Sequence[str], *, stderr: int) -> subprocess.Popen[str]:
        program = shutil.which(words[0], path=self.environment["PATH"])
        if program is None:
            raise DemoError(f"The program {words[0]} is not installed.")
        # An interruption in between would leave a process that nobody knows of.
        with self._interruptions.held():
            process = subprocess.Popen(
                words,
                executable=program,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
            self._processes.append(process)
        self._interruptions.check()
        return process


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started, which it takes with it if it is asked."""
    process.terminate()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Interruptions:
    """Signals that end the demonstration, but never in the middle of a start."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._held = False
        self._number = 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._receive)

    def uninstall(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep signals back for the duration of a block."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def check(self) -> None:
        """Leave, if a signal was kept back."""
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._number:
            raise SystemExit(128 + self._number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        if not self._held:
            self.check()
