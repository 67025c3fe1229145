# SPDX-License-Identifier: MIT
"""
Cuts the power under a busy HSM: nothing acknowledged is lost, and it starts by itself.

The HSM lies on an ext4 file system in a file. While its process is stopped, that file
is copied: the copy is what a disk would hold if the power had failed then, and what was
not synced is gone from it. The copy is mounted, the HSM in it opened, and compared with
the journals of the writer, which lie elsewhere. Needs root and loop devices.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hsm_core.errors import HSMError
from hsm_core.factory import open_hsm
from hsm_core.model import Role
from hsm_core.operations import ListAuditEvents
from hsm_core.protocols import HSM
from hsm_core.session import Session
from hsm_core.testing import caller
from tests.faults.expectation import Expectation, ExpectedKey, Violation, check
from tests.faults.journal import Entry, Journal
from tests.faults.powercut_writer import HMAC_KEY, MASTER_KEY, settings_of
from tests.support import REPOSITORY

KINDS: Final = ("filesystem", "sqlite")

_IMAGE_BYTES: Final = 192 * 1024 * 1024
_IMAGES_OF_ONE_WRITER: Final = 10
_USES: Final = 5


def why_not() -> str:
    """Return why the power can't be cut here; empty if it can."""
    if os.geteuid() != 0:
        return "only root may mount"
    for program in ("mkfs.ext4", "mount", "umount", "cp", "cmp"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            image = _new_image(Path(folder) / "image")
            with _mounted(image, Path(folder) / "mount"):
                return ""
        except subprocess.CalledProcessError:
            return "loop devices can't be mounted"


def run(*, images: int, seed: int, kind: str = "filesystem") -> tuple[int, int]:
    """
    Cut the power *images* times, and return how many cuts passed and failed.

    Args:
        images: How often.

        seed: Of the writer's choices; the moments are as random as the machine.

        kind: One of `KINDS`.
    """
    passed = failed = 0
    while passed + failed < images:
        count = min(_IMAGES_OF_ONE_WRITER, images - passed - failed)
        with _workplace() as folder:
            for told in _cuts(folder, kind, f"{seed}-{passed + failed}", count):
                good = not told.startswith("FAILED")
                passed, failed = passed + good, failed + (not good)
                sys.stdout.write(f"{kind} {passed + failed}/{images}: {told}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{kind}: {passed} passed, {failed} failed\n")
    return passed, failed


@contextmanager
def _workplace() -> Iterator[Path]:
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="powercut-", dir=parent) as folder:
        yield Path(folder)


def _cuts(folder: Path, kind: str, seed: str, count: int) -> Iterator[str]:
    chance = random.Random(seed)
    image, journals = _new_image(folder / "image"), folder / "journals"
    journals.mkdir()
    with _mounted(image, folder / "mount") as mount:
        with _writing(mount / "hsm", journals, kind, seed) as writer:
            for _ in range(count):
                time.sleep(chance.uniform(0.1, 1.0))
                cut = folder / "cut"
                with _stopped(writer):
                    _copy(image, cut)
                    kept = folder / "kept"
                    shutil.copytree(journals, kept)
                yield _judged(cut, kept, folder / "again", kind)
                shutil.rmtree(kept)
                cut.unlink()


def _judged(cut: Path, journals: Path, at: Path, kind: str) -> str:
    with _mounted(cut, at) as mount:
        try:
            acknowledged = _examine(mount / "hsm", journals, kind)
        except (HSMError, Violation) as error:
            return f"FAILED {type(error).__name__}: {error}"
    return f"{acknowledged} acknowledged operations are there"


def _new_image(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    _call("mkfs.ext4", "-q", "-F", "-m", "0", path)
    return path


@contextmanager
def _mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    _call("mount", "-o", "loop", image, at)
    try:
        yield at
    finally:
        _call("umount", at)


@contextmanager
def _writing(
    folder: Path, journals: Path, kind: str, seed: str
) -> Iterator[subprocess.Popen[str]]:
    folder.mkdir(mode=0o700)
    program = [sys.executable, "-m", "tests.faults.powercut_writer"]
    with subprocess.Popen(
        [*program, str(folder), str(journals), kind, seed],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        try:
            assert writer.stdout is not None
            assert "ready\n" == writer.stdout.readline()
            yield writer
        finally:
            writer.kill()


@contextmanager
def _stopped(writer: subprocess.Popen[str]) -> Iterator[None]:
    os.kill(writer.pid, signal.SIGSTOP)
    _, status = os.waitpid(writer.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        raise Violation("the writer has ended by itself")
    try:
        yield
    finally:
        os.kill(writer.pid, signal.SIGCONT)


def _copy(image: Path, to: Path) -> None:
    """Copy an image as it is at one moment, though the kernel may write to it."""
    while True:
        _call("cp", "--sparse=always", image, to)
        if subprocess.run(["cmp", "-s", image, to], check=False).returncode == 0:
            return


def _call(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def _examine(folder: Path, journals: Path, kind: str) -> int:
    """
    Compare an HSM with the journals, and return how much was acknowledged.

    Raises:
        Violation: Something is not there, or the HSM needs help.
        HSMError: It does not open, or does not answer.
    """
    if not folder.is_dir():
        # The power failed before the first sync.
        check(not any(journals.iterdir()), "everything is gone")
        return 0
    settings = settings_of(folder, kind)
    total = 0
    with open_hsm(settings, master_key=MASTER_KEY, hmac_key=HMAC_KEY) as gateway:
        hsm = gateway.act_as(caller(*Role))
        session = Session(hsm)
        status = session.status()
        check(status.state == "operational", "the HSM needs help", status.state)
        done = _done(hsm)
        for journal in sorted(journals.glob("*.journal")):
            expected, pending, acknowledged = _read(journal)
            missing = {f"{journal.stem}.{n}" for n in acknowledged} - done
            check(not missing, "acknowledged, and not in the trail", missing)
            for key in expected.keys.values():
                _examine_key(session, key, pending)
            total += len(acknowledged)
        session.verify_audit()
    check(not list(folder.rglob(".tmp-*")), "temporary files are left")
    return total


def _read(path: Path) -> tuple[Expectation, Entry | None, list[int]]:
    expected, pending, acknowledged = Expectation({}), None, []
    for entry, outcome in Journal.read(path):
        if outcome is None:
            pending = entry
        else:
            expected.apply(entry, outcome)
            acknowledged.append(entry.number)
    return expected, pending, acknowledged


def _done(hsm: HSM) -> set[str]:
    """Return the request ids of all outcomes in the trail."""
    done: set[str] = set()
    start: int | None = 0
    while start is not None:
        page = hsm.execute(ListAuditEvents(start_seq=start, limit=500, ascending=True))
        done |= {e.event.request_id for e in page.items if e.event.phase != "intent"}
        start = page.next_seq
    return done


def _examine_key(session: Session, key: ExpectedKey, pending: Entry | None) -> None:
    info = session.describe(key.key_id)
    if (
        pending is not None
        and pending.key == key.name
        and info.generation > (key.generation)
    ):
        # The change that was under way is made, which nobody was told.
        check(info.generation == key.generation + 1, "a change too many", key, info)
        return
    found = info.name, info.generation, info.version, str(info.state)
    expected = key.name, key.generation, len(key.versions), key.current.state
    check(expected == found, "a key is not as acknowledged", expected, found)
    check(info.integrity == "ok", "a key is damaged", info)
    states = [version.state.value for version in session.versions(key.key_id)]
    wanted = [version.state for version in key.versions]
    check(wanted == states, "versions are not as acknowledged", wanted, states)
    for use in key.processable()[-_USES:]:
        if use.kind == "Encrypt":
            plaintext = session.decrypt(key.key_id, use.output)
            check(plaintext == use.message, "another plaintext came out", use)
        else:
            session.verify(key.key_id, use.message, use.output, version=use.version)


def main(words: list[str]) -> int:
    """Cut the power under each kind of HSM, and return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--kind", choices=KINDS, action="append")
    given = parser.parse_args(words)
    if reason := why_not():
        sys.stdout.write(f"The power can't be cut here: {reason}.\n")
        return 1
    sys.stdout.write(f"seed {given.seed}\n")
    kinds = given.kind or KINDS
    failed = sum(
        run(images=given.images // len(kinds), seed=given.seed, kind=kind)[1]
        for kind in kinds
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
