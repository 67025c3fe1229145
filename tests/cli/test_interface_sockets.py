# SPDX-License-Identifier: MIT
"""Sockets of local interfaces: modes, peers, caps, activation, the end."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsm_cli.interfaces import sockets
from hsm_cli.interfaces.sockets import Handler, Listener, Stream, listen
from hsm_core.errors import ConfigurationError, UnsafeFileModeError

DEADLINE = 60


def echo(stream: Stream) -> None:
    """Answer each frame (one byte of length, then bytes) with its bytes."""
    while True:
        frame = stream.arrived(1)
        stream.write(stream.completed(frame, 1 + frame[0])[1:])


@contextmanager
def serving(path: Path, handler: Handler = echo) -> Iterator[list[str]]:
    """Serve on a socket; give the lines of the log."""
    lines: list[str] = []
    with listen(path, log=lines.append) as listener:
        thread = threading.Thread(target=listener.serve, args=(handler,))
        thread.start()
        try:
            yield lines
        finally:
            listener.stop()
            thread.join(DEADLINE)
            assert not thread.is_alive()


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    """Give a connected client."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(path))
        yield client


def answer(client: socket.socket, length: int) -> bytes:
    """Read exactly this many bytes, or fewer before the end."""
    found = b""
    while len(found) < length and (part := client.recv(length - len(found))):
        found += part
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a socket in a folder that does not exist yet."""
    return tmp_path / "run" / "it.sock"


def test_nobody_else_reaches_the_socket(path: Path) -> None:
    """
    The socket has mode 0600 and its folder 0700, whatever the umask; it ends with us.
    """
    before = os.umask(0)
    try:
        with serving(path):
            modes = [path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777]
    finally:
        os.umask(before)

    assert modes == [0o600, 0o700]
    assert not path.exists()


def test_a_folder_that_others_may_enter_is_refused(path: Path) -> None:
    """
    A folder with access for others is an error that says how to mend it.
    """
    path.parent.mkdir(mode=0o755)

    with pytest.raises(UnsafeFileModeError, match="chmod 700"):
        listen(path, log=print)


def test_frames_are_read_whole(path: Path) -> None:
    """
    Frames that arrive in pieces, or several at once, are read exactly.
    """
    with serving(path), connected(path) as client:
        for piece in (b"\x03", b"a", b"bc\x01d\x02", b"ef"):
            client.sendall(piece)
        found = answer(client, 6)

    assert found == b"abcdef"


def test_a_wait_goes_on_until_a_frame_has_come() -> None:
    """A stream that returns from 20 bytes on does not wake for the first 12."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = Stream(ours.fileno(), ours.fileno(), sockets.Peer(0, 0, ""))
        stream.return_from(20)
        theirs.sendall(bytes(12))
        rest = threading.Timer(0.1, theirs.sendall, (bytes(8),))
        rest.start()
        found = os.read(ours.fileno(), 100)
        rest.join()

    assert bytes(20) == found


def test_the_end_of_a_frame_may_be_short() -> None:
    """A stream that returns from 20 bytes on reads the last 17 of a frame, or 5."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = Stream(ours.fileno(), ours.fileno(), sockets.Peer(0, 0, ""))
        stream.return_from(20)
        found = []
        for first, last in ((20, 17), (64 * 1024, 5)):
            theirs.sendall(bytes(first))
            start = stream.arrived(12)
            theirs.sendall(bytes(last))
            rest = threading.Thread(
                target=lambda: found.append(stream.completed(start, first + last)),  # noqa: B023
                daemon=True,
            )
            rest.start()
            rest.join(DEADLINE)
            assert not rest.is_alive()

    assert found == [bytes(37), bytes(64 * 1024 + 5)]


def test_a_client_that_leaves_takes_nobody_with_it(path: Path) -> None:
    """
    A connection that ends in the middle of a frame has no effect on another.
    """
    with serving(path) as lines, connected(path) as stays:
        with connected(path) as leaves:
            leaves.sendall(b"\x09half")
        stays.sendall(b"\x02ok")
        found = answer(stays, 2)

    assert (found, lines) == (b"ok", [])


def test_a_failed_handler_discloses_no_text(path: Path) -> None:
    """
    A fault ends its connection with one line that has the kind of error, not its text.
    """

    def fail(stream: Stream) -> None:
        stream.arrived(1)
        raise ValueError("a secret")

    with serving(path, fail) as lines, connected(path) as client:
        client.sendall(b"x")
        found = answer(client, 1)

    assert found == b""
    (line,) = lines
    assert f"PID {os.getpid()}, UID {os.getuid()}" in line
    assert "ValueError" in line
    assert "secret" not in line


def test_one_process_does_not_take_every_connection(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A process at its limit is refused, another one is served, and room comes back.
    """
    monkeypatch.setattr(sockets, "MOST_OF_PROCESS", 1)
    other = f"""if True:
        import socket
        client = socket.socket(socket.AF_UNIX)
        client.connect({str(path)!r})
        client.sendall(bytes([2]) + b"ok")
        print(client.recv(2))
    """

    with serving(path) as lines:
        with connected(path) as first:
            first.sendall(b"\x01a")
            answer(first, 1)
            with connected(path) as second:
                refused = answer(second, 1)
            found = subprocess.run(
                [sys.executable, "-c", other],
                capture_output=True,
                check=True,
                timeout=DEADLINE,
            ).stdout
        deadline = time.monotonic() + DEADLINE
        again = b""
        while again != b"b" and time.monotonic() < deadline:
            with connected(path) as third:
                try:
                    third.sendall(b"\x01b")
                    again = answer(third, 1)
                except OSError:
                    again = b""

    assert (refused, found, again) == (b"", b"b'ok'\n", b"b")
    assert "the process has 1 connections" in lines[0]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_other_users_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The kernel's word on who connects decides, even where modes let somebody in.
    """
    other = f"""if True:
        import os, socket
        client = socket.socket(socket.AF_UNIX)
        os.chdir({str(path.parent)!r})
        os.setuid(65534)
        client.connect({path.name!r})
        print(client.recv(1))
    """
    with serving(path) as lines:
        for folder in (path, *path.parents[:1]):
            folder.chmod(0o777)
        found = subprocess.run(
            [sys.executable, "-c", other],
            capture_output=True,
            check=True,
            timeout=DEADLINE,
        ).stdout

    assert found == b"b''\n"
    assert "UID 65534) refused: the program belongs to another user" in lines[0]


def test_a_socket_that_was_left_behind_is_replaced(path: Path) -> None:
    """
    A path without a listener is taken over; one with a listener, or a file, is not.
    """
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    with serving(path):
        with pytest.raises(ConfigurationError, match="Another program listens"):
            listen(path, log=print)
        with connected(path) as client:
            client.sendall(b"\x02ok")
            found = answer(client, 2)

    assert found == b"ok"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="is not a socket"):
        listen(path, log=print)
    assert path.read_text() == "mine"


def test_a_long_path_is_refused(tmp_path: Path) -> None:
    """
    A path that no socket can have is an error with the limit.
    """
    with pytest.raises(ConfigurationError, match="at most 107 bytes"):
        listen(tmp_path / ("long" * 30), log=print)


def test_a_request_that_runs_is_answered_at_the_end(path: Path) -> None:
    """
    Stopping ends connections after the answers of what they asked before.
    """
    begun, go_on = threading.Event(), threading.Event()

    def slow(stream: Stream) -> None:
        stream.arrived(1)
        begun.set()
        go_on.wait(DEADLINE)
        stream.write(b"done")
        stream.arrived(1)

    with listen(path, log=print) as listener:
        thread = threading.Thread(target=listener.serve, args=(slow,))
        thread.start()
        with connected(path) as client:
            client.sendall(b"x")
            assert begun.wait(DEADLINE)
            listener.stop()
            go_on.set()
            found = answer(client, 5)
        thread.join(DEADLINE)

    assert (found, thread.is_alive()) == (b"done", False)


def test_socket_activation() -> None:
    """
    The socket that systemd passes is served; anything else it passes is refused.
    """
    program = """if True:
        import os, socket, sys, threading
        from hsm_cli.interfaces.sockets import listen
        kind = sys.argv[1]
        made = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        made.bind("" if kind == "unix" else ("127.0.0.1", 0))
        name = made.getsockname()
        made.listen()
        given = os.dup2(made.fileno(), 3)
        os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        with listen(None, log=print) as listener:
            serve = lambda stream: stream.write(stream.arrived(2))
            threading.Thread(target=listener.serve, args=(serve,), daemon=True).start()
            client = socket.socket(socket.AF_UNIX)
            client.connect(name)
            client.sendall(b"ok")
            print(client.recv(2), "LISTEN_FDS" in os.environ)
            listener.stop()
    """

    def run(kind: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", program, kind]
        return subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=DEADLINE
        )

    assert run("unix").stdout == "b'ok' False\n"
    assert "one listening Unix stream socket" in run("inet").stderr


def test_standard_streams() -> None:
    """
    A program that started us talks over our standard streams; prints don't get there.
    """
    program = """if True:
        from hsm_cli.interfaces.sockets import stdio
        stream = stdio()
        print("a note")
        stream.write(stream.arrived(2) + str(stream.peer.pid).encode())
    """

    found = subprocess.run(
        [sys.executable, "-c", program],
        input=b"ok",
        capture_output=True,
        check=True,
        timeout=DEADLINE,
    )

    assert found.stdout == b"ok" + str(os.getpid()).encode()
    assert found.stderr == b"a note\n"


def test_no_default_path_without_a_runtime_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    The default socket is in the user's runtime folder; without one, it must be named.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert sockets.default_path("it") == tmp_path / "ferrohsm" / "it.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert sockets.default_path("it") is None
    with pytest.raises(ConfigurationError, match="--socket PATH"):
        listen(None, log=print)


def test_closing_leaves_another_program_its_socket(path: Path) -> None:
    """
    A path that somebody replaced meanwhile is not removed.
    """
    with listen(path, log=print) as listener:
        assert isinstance(listener, Listener)
        path.unlink()
        path.write_text("theirs")

    assert path.read_text() == "theirs"


def test_a_listener_without_descriptors_waits(tmp_path: Path) -> None:
    """
    Connections that can't be accepted cost no processor time, and are served later.
    """
    program = """if True:
        import os, resource, socket, sys, threading, time
        from pathlib import Path
        from hsm_cli.interfaces.sockets import listen
        path = Path(sys.argv[1])
        listener = listen(path, log=print)
        serve = lambda stream: stream.write(stream.arrived(2))
        threading.Thread(target=listener.serve, args=(serve,), daemon=True).start()
        client = socket.socket(socket.AF_UNIX)
        free = os.dup(0)
        os.close(free)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, most))
        client.connect(str(path))
        began, used = time.monotonic(), time.process_time()
        while time.monotonic() < began + 0.5:
            time.sleep(0.05)
        used = time.process_time() - used
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 8, most))
        client.sendall(b"ok")
        print(client.recv(2), used < 0.25)
        listener.stop()
    """

    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run" / "it.sock")],
        capture_output=True,
        check=True,
        timeout=DEADLINE,
    )

    assert found.stdout == b"b'ok' True\n"
