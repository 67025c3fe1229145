# SPDX-License-Identifier: MIT
"""What the tests need from outside the Python environment, and how they ask for it."""

import os
import random
import resource
import shutil
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
"""Top of the source tree."""

_SERVER_PORTS: Final = range(20000, 32000)
"""Below those that Linux gives to connections, which may be many beside a test."""


_LISTS = frozenset(
    {
        *("--acme-contact", "--acme-domain", "--cert", "--client-crl", "--key"),
        *("--ocsp-response", "--provider", "--trusted-proxy"),
    }
)


def overriding(words: Sequence[str]) -> list[str]:
    """
    Return a command line of hsm-server in which each flag stands once.

    A flag that is given again takes the place of the first, unless it is a list.

    Args:
        words: Program, flags and their values; no value begins with two hyphens.
    """
    groups: dict[object, list[str]] = {}
    key: object = None
    for place, word in enumerate(words):
        if word.startswith("--"):
            key = (word, place) if word in _LISTS else word
            groups.pop(key, None)
        groups.setdefault(key, []).append(word)
    return [word for group in groups.values() for word in group]


def open_files(path: Path) -> list[str]:
    """Return what this process has open of a path and of all below it."""
    names = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since, by whatever thread
            names.append(os.readlink(link))
    return [name for name in names if Path(name).is_relative_to(path)]


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port for a server that begins soon: nobody has it at present."""
    while True:
        port = random.choice(_SERVER_PORTS)
        with socket.socket(socket.AF_INET, kind) as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def copy_in_use(source: Path, target: Path) -> Path:
    """
    Copy a folder that somebody has open: what a kill leaves, while nobody writes.

    Whoever opened it may still have work in the background, such as a new segment.
    """
    while True:
        before = _state(source, target)
        with suppress(FileNotFoundError, shutil.Error):
            shutil.copytree(source, target)
            if before == _state(source, target):
                return target
        shutil.rmtree(target)


def _state(folder: Path, copy: Path) -> list[tuple[str, int, int, int]]:
    """Return what tells whether a folder has changed, but for a copy in it."""
    found = []
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):
            if path.is_relative_to(copy):
                continue
            file = path.stat()
            found.append((str(path), file.st_ino, file.st_size, file.st_mtime_ns))
    return found


def heed_signals() -> None:
    """
    Undo that signals are ignored, as they are in the background and under nohup.

    Programs that tests start inherit it, and would not end as they do for people. A
    hang-up goes on being ignored here, by a handler, which no program inherits.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)


@contextmanager
def no_descriptors(left: int = 0) -> Iterator[None]:
    """Let this process open no more than *left* files within the context."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def require_service(name: str, found: object) -> None:
    """
    Skip the running test when something it needs is absent.

    With ``FERROHSM_REQUIRE_SERVICES=1`` in the environment the test fails
    instead, so that a run that must be complete cannot pass by skipping.

    Args:
        name: What is needed, as a reader of the report would call it.

        found: Whatever the search for it gave; its truth value counts.
    """
    if found:
        return
    reason = f"{name} is not available."
    if os.environ.get("FERROHSM_REQUIRE_SERVICES") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require_mounts(reason: str) -> None:
    """
    Skip the running test where file systems can't be mounted.

    That is the kernel's to allow, and not something to install: a run that must be
    complete says with ``FERROHSM_REQUIRE_MOUNTS=1`` that it is allowed here.

    Args:
        reason: Why they can't be; empty if they can.
    """
    if not reason:
        return
    text = f"File systems can't be mounted here: {reason}."
    if os.environ.get("FERROHSM_REQUIRE_MOUNTS") == "1":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def require_program(name: str) -> str:
    """
    Return the path of a program on the ``PATH``, or skip the running test.

    Args:
        name: Name of the program, such as ``openssl``.

    Returns:
        Its absolute path.
    """
    path = shutil.which(name)
    require_service(f"The program {name}", path)
    assert path is not None
    return path


def vectors_folder(name: str) -> Path:
    """
    Return one folder of the public test vectors, or skip the running test.

    The vectors are not part of the source tree: ``FERROHSM_VECTORS`` names the
    folder that holds them.

    Args:
        name: Name of the set, such as ``wycheproof``.

    Returns:
        The folder of that set.
    """
    root = os.environ.get("FERROHSM_VECTORS", "")
    folder = Path(root) / name
    require_service(
        f"The vector set {name!r} (FERROHSM_VECTORS={root!r})",
        root and folder.is_dir(),
    )
    return folder
