# SPDX-License-Identifier: MIT
"""The children that sign for ``pqcrypto``: what they may, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._providers.pqcrypto import worker
from hsm_core._providers.pqcrypto.library import SignatureModule
from hsm_core._providers.pqcrypto.pool import WorkerPool
from hsm_core._providers.pqcrypto.provider import PqcryptoProvider, worker_command
from hsm_core._providers.pqcrypto.worker import join, split
from hsm_core.algorithms import Algorithm
from hsm_core.errors import OverloadedError, UnavailableError
from hsm_core.protocols import KeyHandle
from hsm_core.settings import SCRUBBING_ALLOCATOR
from tests.support import REPOSITORY, require_service

QUICK = Algorithm.SLH_DSA_SHA2_128F
SLOW = Algorithm.SLH_DSA_SHAKE_192S
ENTROPY = SystemEntropy()
PARAMETERS = signature_parameters(QUICK)

FAULTY = {
    "ends at once": "",
    "ends in an answer": (
        "import os, sys; sys.stdin.buffer.read(4); os.write(1, b'\\0\\0\\0\\9ab')"
    ),
    "answers too much": (
        "import os, sys; sys.stdin.buffer.read(4); os.write(1, b'\\xff' * 4096);"
        "sys.stdin.buffer.read()"
    ),
    "reads nothing": "import time; time.sleep(3600)",
    "answers nothing": "import sys; sys.stdin.buffer.read()",
}
"""Programs in place of the child's, by what they do wrong."""


@pytest.fixture(autouse=True)
def _wheel() -> None:
    require_service("The package pqcrypto 1.0 or newer", PqcryptoProvider().version)


@pytest.fixture
def new_pool() -> Iterator[Callable[..., WorkerPool]]:
    """Make pools that are closed after the test."""
    pools: list[WorkerPool] = []

    def make(**settings: float) -> WorkerPool:
        pools.append(WorkerPool(worker_command, **settings))  # type: ignore[arg-type]
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def key(pool: WorkerPool, algorithm: Algorithm = QUICK) -> KeyHandle:
    """Return a new key pair, whose making has started a child."""
    provider = PqcryptoProvider(pool)
    return provider.load(algorithm, provider.generate(algorithm, ENTROPY))


def sign(handle: KeyHandle) -> bytes:
    """Sign and verify."""
    parameters = signature_parameters(handle.algorithm)
    signature = handle.sign(b"message", parameters)
    handle.verify(b"message", signature, parameters)
    return signature


def faulty(program: str, seconds: float, waiting: int = 64) -> WorkerPool:
    """Return a pool of one child that does something wrong."""
    return WorkerPool(
        lambda: (sys.executable, "-I", "-S", "-c", program),
        **{"size": 1, "seconds": seconds, "waiting": waiting},  # type: ignore[arg-type]
    )


def has_ended(pid: int, seconds: float = 60) -> bool:
    """Wait for the end of a process that is no child of this one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def parent(scenario: str) -> subprocess.Popen[str]:
    """Start a program that has children."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.core.pqcrypto_parent", scenario],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class TestHardening:
    @pytest.fixture
    def process(self, new_pool: Callable[..., WorkerPool]) -> Path:
        """Start a child and return what the system says of it."""
        if not sys.platform.startswith("linux"):
            pytest.skip("Linux only: /proc is read.")
        pool = new_pool()
        sign(key(pool))
        (pid,) = pool.pids()
        return Path(f"/proc/{pid}")

    def test_arguments(self, process: Path) -> None:
        """
        The command line holds paths and a process id, and nothing of a key.
        """
        arguments = (process / "cmdline").read_bytes().decode().split("\0")

        assert arguments == [*worker_command(), ""]
        assert arguments[1:4] == ["-s", "-P", "-S"]

    def test_environment(
        self, monkeypatch: pytest.MonkeyPatch, new_pool: Callable[..., WorkerPool]
    ) -> None:
        """
        Nothing of the environment reaches a child; it overwrites what it frees.
        """
        monkeypatch.setenv("FERROHSM_MASTER_KEY", "secret")
        pool = new_pool()
        sign(key(pool))
        (pid,) = pool.pids()

        entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
        found = dict(entry.split("=", 1) for entry in entries if entry)
        assert SCRUBBING_ALLOCATOR == found

    def test_descriptors(self, new_pool: Callable[..., WorkerPool]) -> None:
        """
        No file of the parent is open in a child, not even one that may be inherited.
        """
        reading, writing = os.pipe()
        os.set_inheritable(reading, True)
        try:
            pool = new_pool()
            sign(key(pool))
            (pid,) = pool.pids()
            descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
            targets = {os.readlink(descriptor) for descriptor in descriptors}
            inherited = os.readlink(f"/proc/self/fd/{reading}")
        finally:
            os.close(reading)
            os.close(writing)

        assert inherited not in targets
        assert len([t for t in targets if t != os.devnull]) == 2

    def test_limits(self, process: Path) -> None:
        """
        A child leaves no core, gains no rights, and writes files for itself only.
        """
        limits = (process / "limits").read_text()
        status = (process / "status").read_text()

        assert "Max core file size        0                    0" in limits
        assert "NoNewPrivs:\t1" in status
        assert "Umask:\t0077" in status

    def test_session(self, process: Path) -> None:
        """
        A child has a session of its own, so a terminal's signals don't reach it.
        """
        pid = int(process.name)

        assert os.getsid(pid) == pid

    def test_dumpable(self) -> None:
        """
        Other processes of the same user can't read a child's memory.
        """
        if not sys.platform.startswith("linux"):
            pytest.skip("Linux only: prctl is called.")
        program = (
            "import ctypes, os; from hsm_core._internal.lib.child_process import "
            "harden; harden(os.getppid()); death = ctypes.c_int();"
            "prctl = ctypes.CDLL(None).prctl; prctl(2, ctypes.byref(death));"
            "print(prctl(3), death.value)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )

        assert done.stdout == f"0 {int(signal.SIGKILL)}\n"

    def test_orphan(self) -> None:
        """
        A child whose parent has ended before it could be watched ends at once.
        """
        program = (
            "from hsm_core._internal.lib.child_process import harden;"
            "harden(1 << 30); print('goes on')"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )

        assert done.stdout == ""


class TestFailure:
    @pytest.mark.parametrize("name", FAULTY)
    def test_faulty_child(self, name: str) -> None:
        """
        Whatever a child does wrong, the answer is that it is unavailable, in time.
        """
        pool = faulty(FAULTY[name], seconds=1.0)
        with pytest.raises(UnavailableError, match="worker process"):
            pool.ask(join(b"sign", bytes(200_000)))

        assert pool.pids() == ()
        pool.close()

    def test_no_program(self) -> None:
        """
        Where nothing can be started, the answer is that it is unavailable.
        """
        pool = WorkerPool(lambda: ("/nowhere/python",))

        with pytest.raises(UnavailableError, match="could not be started"):
            pool.ask(b"request")
        pool.close()

    def test_killed(self, new_pool: Callable[..., WorkerPool]) -> None:
        """
        A child killed while it signs is one failure; the next request has another.
        """
        pool = new_pool(size=1)
        handle = key(pool, SLOW)
        found: BaseException | None = None
        (pid,) = pool.pids()
        with ThreadPoolExecutor() as threads:
            for _ in range(20):
                signing = threads.submit(sign, handle)
                time.sleep(0.1)
                os.kill(pid, signal.SIGKILL)
                # Where this was slow, it had signed before, or did not begin.
                if (found := signing.exception()) is not None:
                    break
                sign(handle)
                (pid,) = pool.pids()

        assert isinstance(found, UnavailableError)
        assert "ended" in str(found)
        sign(key(pool))
        assert pool.pids() not in {(), (pid,)}

    def test_killed_while_idle(self, new_pool: Callable[..., WorkerPool]) -> None:
        """
        A child that was killed while it had nothing to do is no failure at all.
        """
        pool = new_pool(size=1)
        handle = key(pool)
        (pid,) = pool.pids()
        os.kill(pid, signal.SIGKILL)
        assert has_ended(pid)

        sign(handle)

    def test_stopped(self, new_pool: Callable[..., WorkerPool]) -> None:
        """
        A child that hangs is killed when time is up, and the next request has another.
        """
        pool = new_pool(size=1, seconds=1.0)
        handle = key(pool)
        (pid,) = pool.pids()
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(UnavailableError, match="in time"):
            sign(handle)

        assert has_ended(pid)
        sign(handle)

    def test_too_many(self) -> None:
        """
        More requests than may wait are refused at once, and those that wait end too.
        """
        pool = faulty(FAULTY["answers nothing"], seconds=1.0, waiting=3)
        errors: list[UnavailableError] = []

        def ask() -> None:
            try:
                pool.ask(b"request")
            except UnavailableError as error:
                errors.append(error)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(errors) == 6
        assert sum(isinstance(error, OverloadedError) for error in errors) >= 2
        pool.close()

    def test_closed(self, new_pool: Callable[..., WorkerPool]) -> None:
        """
        A closed pool has no children and takes no requests.
        """
        pool = new_pool()
        handle = key(pool)
        (pid,) = pool.pids()
        pool.close()

        assert has_ended(pid)
        with pytest.raises(UnavailableError, match="closed"):
            sign(handle)


class TestSharing:
    def test_many_threads(self, new_pool: Callable[..., WorkerPool]) -> None:
        """
        Many threads share two children, and each gets its own answer.
        """
        pool = new_pool()
        handles = [key(pool) for _ in range(4)]
        with ThreadPoolExecutor(16) as threads:
            made = list(threads.map(sign, handles * 12))

        assert len(set(made)) == 48
        assert len(pool.pids()) <= 2

    def test_thread_ends(self, new_pool: Callable[..., WorkerPool]) -> None:
        """
        A child outlives the thread that first needed it.
        """
        pool = new_pool(size=1)
        handles: list[KeyHandle] = []
        thread = threading.Thread(target=lambda: handles.append(key(pool)))
        thread.start()
        thread.join()
        before = pool.pids()
        time.sleep(0.1)

        sign(handles[0])
        assert pool.pids() == before

    def test_idle(self, new_pool: Callable[..., WorkerPool]) -> None:
        """
        An idle child is ended, and another one is started when it is needed.
        """
        pool = new_pool(idle_seconds=0.05)
        handle = key(pool)
        for pid in pool.pids():
            assert has_ended(pid)

        sign(handle)


class TestParent:
    @pytest.mark.parametrize("scenario", ["exit", "busy-exit"])
    def test_exit(self, scenario: str) -> None:
        """
        An interpreter that exits leaves no child and no warning behind, busy or not.
        """
        with parent(scenario) as process:
            output, errors = process.communicate(timeout=60)

        assert (process.returncode, errors) == (0, "")
        assert output.split()
        assert all(has_ended(int(pid)) for pid in output.split())

    @pytest.mark.parametrize("scenario", ["idle", "busy"])
    def test_kill(self, scenario: str) -> None:
        """
        Children end with a parent that was killed, even those that compute just then.
        """
        with parent(scenario) as process:
            assert process.stdout is not None
            pids = process.stdout.readline().split()
            process.kill()

        assert pids
        assert all(has_ended(int(pid), 0.8) for pid in pids)

    def test_fork(self) -> None:
        """
        A process that was forked off has children of its own, and takes none away.
        """
        with parent("fork") as process:
            output, _ = process.communicate(timeout=60)

        assert output == "forked 17088 True\nhere 17088 True\n"


class Module:
    """What the wheel has of an algorithm, for a child's code in this process."""

    PUBLIC_KEY_SIZE, SECRET_KEY_SIZE, SIGNATURE_SIZE = 1, 2, 3

    def keygen(self) -> tuple[bytes, bytes]:
        """Return a pair."""
        return b"p", b"sp"

    def sign(self, key: bytes, message: bytes, context: bytes | None, _: None) -> bytes:
        """Return what was given, or fail."""
        if key == b"fail":
            raise ValueError("with a secret")
        if key == b"large":
            raise MemoryError
        return b"|".join((key, message, context or b"none"))

    def verify(
        self,
        key: bytes,
        message: bytes,
        signature: bytes,
        context: bytes | None,
        _: None,
    ) -> None:
        """Accept what `sign` made."""
        if signature != self.sign(key, message, context, None):
            raise ValueError


def modules(name: str) -> SignatureModule:
    """Return the one module that there is."""
    return {"set": Module()}[name]


class TestWorker:
    @given(st.lists(st.binary(max_size=300)))
    @example([])
    @example([b""])
    def test_fields(self, fields: list[bytes]) -> None:
        """
        What is joined is split again.
        """
        assert split(join(*fields)) == fields

    @given(st.lists(st.binary(max_size=20), min_size=1), st.data())
    def test_cut_fields(self, fields: list[bytes], data: st.DataObject) -> None:
        """
        What was cut is either refused or fewer fields, never others.
        """
        body = join(*fields)
        cut = body[: data.draw(st.integers(0, len(body) - 1))]
        try:
            parts = split(cut)
        except ValueError:
            return
        assert parts == fields[: len(parts)]
        assert len(parts) < len(fields)

    def test_answers(self) -> None:
        """
        Each action has its answer, and an empty context is none.
        """
        for request, expected in {
            (b"generate", b"set"): (b"done", b"p", b"sp"),
            (b"sign", b"set", b"k", b"m", b""): (b"done", b"k|m|none"),
            (b"sign", b"set", b"k", b"m", b"c"): (b"done", b"k|m|c"),
            (b"verify", b"set", b"k", b"m", b"c", b"k|m|c"): (b"done",),
            (b"verify", b"set", b"k", b"m", b"", b"k|m|c"): (b"mismatch",),
        }.items():
            assert worker.answer(join(*request), modules) == join(*expected)

    @pytest.mark.parametrize(
        "request_fields",
        [
            (),
            (b"sign",),
            (b"sign", b"set", b"k"),
            (b"sign", b"other", b"k", b"m", b""),
            (b"sign", b"set", b"fail", b"m", b""),
            (b"verify", b"set", b"k", b"m", b""),
            (b"verify", b"set", b"large", b"m", b"", b"s"),
            (b"other", b"set", b"k", b"m", b""),
            (b"sign", b"\xff", b"k", b"m", b""),
        ],
    )
    def test_failures(self, request_fields: tuple[bytes, ...]) -> None:
        """
        Anything else is a failure that names a kind of error and nothing more.
        """
        status, kind = split(worker.answer(join(*request_fields), modules))

        assert status == b"failed"
        assert kind.decode().isidentifier()

    @given(st.binary(max_size=200))
    def test_any_request(self, body: bytes) -> None:
        """
        Whatever bytes come, there is an answer.
        """
        assert split(worker.answer(body, modules))[0] in {b"done", b"failed"}

    @pytest.mark.parametrize(
        "tail", [b"", b"\0\0", b"\0\0\0\5abc", b"\xff\xff\xff\xff", b"\0\0\0\0"]
    )
    def test_serve(self, tail: bytes) -> None:
        """
        Requests are answered until there are no more, or one can't be a request.
        """
        request, expected = join(b"generate", b"set"), join(b"done", b"p", b"sp")
        requests, source = os.pipe()
        answers, target = os.pipe()
        frame = worker.HEADER.pack(len(request)) + request
        try:
            os.write(source, frame * 2 + tail)
            os.close(source)
            worker.serve(requests, target, modules)
            os.close(target)
            given = os.read(answers, 1000)
        finally:
            os.close(requests)
            os.close(answers)

        assert given == (worker.HEADER.pack(len(expected)) + expected) * 2
