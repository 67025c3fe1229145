# SPDX-License-Identifier: MIT
"""A state of TLS reaches all front ends or none, whatever they do meanwhile."""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from hsm_server.processes import distribution
from hsm_server.processes.child_process import Roles
from tests.server.supervised import ErrorOutput, supervise
from tests.support import open_files

_BEGIN = """
import os, signal, socket, sys, time
from hsm_server.ipc import control as c
from hsm_server.system.secret_handover import read_sealed, seal
import msgspec
pack, read = msgspec.msgpack.encode, msgspec.msgpack.Decoder(c.FromSupervisor).decode
end = socket.socket(fileno=int(sys.argv[1]))
begin, given = c.receive_begin(end)
def say(*words):
    print(*words, flush=True, file=sys.stderr)
def hear():
    data, descriptors, _, _ = socket.recv_fds(end, 131072, 64)
    return read(data), descriptors
"""
_VAULT = """
end.send(pack(c.Ready()))
while True:
    match hear()[0]:
        case c.Beat():
            end.send(pack(c.Beat()))
        case c.Stop():
            break
"""
_FRONT_END = """
{before}
end.send(pack(c.Ready()))
state = ""
while True:
    message, descriptors = hear()
    match message:
        case c.UseTLS():
            wanted = read_sealed(descriptors[0]).decode()
            {on_use}
            state = wanted
            say(begin.slot, "uses", state)
            end.send(pack(c.UsingTLS(message.serial)))
        case c.Serve():
            say(begin.slot, "serves", state)
            end.send(pack(c.Serve()))
            open(f"FOLDER/{{begin.slot}}", "w").close()
        case c.Beat():
            end.send(pack(c.Beat()))
        case c.Stop():
            break
    for descriptor in descriptors:
        os.close(descriptor)
"""
_TLS_MANAGER = """
found = [read_sealed(descriptor).decode() for descriptor in given[-1:]]
say("tls_manager begins", *found)
end.send(pack(c.Ready()))
def publish(text, generation):
    descriptor = seal("state", text.encode())
    socket.send_fds(end, [pack(c.Publish(generation))], [descriptor])
    os.close(descriptor)
def answer():
    while True:
        message = hear()[0]
        match message:
            case c.Published():
                say("published", message.generation, repr(message.error))
                return
            case c.Beat():
                end.send(pack(c.Beat()))
            case c.Stop():
                raise SystemExit
publish("A", 1) if not found else None
found or answer()
end.settimeout(0.05)
while not all(map(os.path.exists, ["FOLDER/front1", "FOLDER/front2"])):
    try:
        hear()
        end.send(pack(c.Beat()))
    except TimeoutError:
        pass
end.settimeout(None)
time.sleep(0.2)
{then}
while True:
    answer()
"""
_REFUSED = "published 2 'No room.'"
_UNSEALED = "published 2 'The published TLS state is not sealed.'"
_VAULT_ROLE = ("-c", _BEGIN + _VAULT)


def front_end(on_use: str = "pass", before: str = "") -> tuple[str, str]:
    """Return a front end that does something when it is given a state."""
    return "-c", _BEGIN + _FRONT_END.format(on_use=on_use, before=before)


def tls_manager(then: str) -> tuple[str, str]:
    """Return a TLS manager that publishes A, and acts when all serve with it."""
    return "-c", _BEGIN + _TLS_MANAGER.format(then=then)


class Scene:
    """A supervisor over such children, and what they have said."""

    def __init__(self, folder: Path, output: ErrorOutput) -> None:
        self._folder = folder
        self._output = output
        self.states = 0

    def play(
        self, front: tuple[str, str], tls_manager: tuple[str, str], *ends: str
    ) -> list[str]:
        """
        Run until the children have said all of this; return their lines, in order.

        Whatever is wrong then has a moment to show itself.
        """
        place = str(self._folder)
        roles = Roles(
            vault=_VAULT_ROLE,
            front_end=[word.replace("FOLDER", place) for word in front],
            tls_manager=[word.replace("FOLDER", place) for word in tls_manager],
        )
        with self._output.kept():
            self.status = supervise(self._folder, roles, self._watch(ends), workers=2)
        return self._output.lines

    async def _watch(self, ends: tuple[str, ...]) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            await asyncio.sleep(0.1)
            if Counter(ends) <= Counter(self._output.lines):
                break
        await asyncio.sleep(0.3)
        self.states = sum("memfd:state" in name for name in open_files(Path("/")))
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Give a supervisor."""
    folder = tmp_path / "run"
    folder.mkdir()
    return Scene(folder, ErrorOutput(tmp_path / "errors"))


def of(slot: str, lines: list[str]) -> list[str]:
    """Return what one front end has said, without its name."""
    return [line.removeprefix(f"{slot} ") for line in lines if line.startswith(slot)]


def test_nobody_serves_before_there_is_a_state(scene: Scene) -> None:
    """Each uses the first, then serves, then uses the next; one is kept."""
    lines = scene.play(front_end(), tls_manager('publish("B", 2)'), "published 2 ''")

    for slot in ("front1", "front2"):
        assert ["uses A", "serves A", "uses B"] == of(slot, lines)
    assert ["published 1 ''", "published 2 ''"] == [
        line for line in lines if line.startswith("published")
    ]
    assert 1 == scene.states


_REFUSE = """
            if wanted == "B":
                time.sleep(0.3)
                end.send(pack(c.UsingTLS(message.serial, "No room.")))
                continue
"""


def test_what_all_refuse_is_used_by_nobody(scene: Scene) -> None:
    """They have never left the former one, and the TLS manager hears why."""
    lines = scene.play(front_end(_REFUSE), tls_manager('publish("B", 2)'), _REFUSED)

    for slot in ("front1", "front2"):
        assert ["uses A", "serves A"] == of(slot, lines)
    assert 1 == scene.states


def test_one_that_refuses_alone_is_started_again(scene: Scene) -> None:
    """It may be a stranger's by now; the others have the new state, and soon it too."""
    refuse = """
            if begin.slot == "front2" and wanted == "B" and state == "A":
                end.send(pack(c.UsingTLS(message.serial, "No room.")))
                end.send(pack(c.UsingTLS(message.serial, "Once more.")))
                continue
"""
    lines = scene.play(
        front_end(refuse), tls_manager('publish("B", 2)'), "front2 serves B"
    )

    assert "published 2 ''" in lines
    assert ["uses A", "serves A", "uses B"] == of("front1", lines)
    assert ["uses A", "serves A", "uses B", "serves B"] == of("front2", lines)
    assert 1 == scene.states


def test_who_was_not_asked_refuses_nothing(scene: Scene) -> None:
    """Not a second time, and not in another's place."""
    twice = """
            if begin.slot == "front2" and wanted == "B":
                end.send(pack(c.UsingTLS(message.serial)))
                end.send(pack(c.UsingTLS(message.serial, "No room.")))
                say("front2 uses B")
                state = "B"
                continue
            if begin.slot == "front1" and wanted == "B":
                time.sleep(0.5)
"""
    lines = scene.play(
        front_end(twice), tls_manager('publish("B", 2)'), "published 2 ''"
    )

    assert ["uses A", "serves A", "uses B"] == of("front1", lines)
    assert ["uses A", "serves A", "uses B"] == of("front2", lines)


def test_states_are_given_out_one_after_the_other(scene: Scene) -> None:
    """A second one waits for the first, also where that is refused."""
    publish = 'publish("B", 2); publish("C", 3); publish("D", 4)'
    lines = scene.play(front_end(_REFUSE), tls_manager(publish), "published 4 ''")
    published = [line for line in lines if line.startswith("published")][1:]

    assert ["2 'No room.'", "3 ''", "4 ''"] == [line[10:] for line in published]
    assert "D" == of("front1", lines)[-1][-1] == of("front2", lines)[-1][-1]
    assert 1 == scene.states


def test_a_tls_manager_that_does_not_wait_is_answered(scene: Scene) -> None:
    """A few states are kept for later; more are given to nobody, and kept by none."""
    publish = "for n in range(2, 42): publish(str(n), n)"
    refused = "published 41 'The published TLS state is too large.'"
    late = "time.sleep(0.2)"
    lines = scene.play(front_end(late), tls_manager(publish), refused, "published 6 ''")

    assert 0 == scene.status
    assert 1 == scene.states
    assert "published 7 ''" not in lines


def test_what_got_lost_on_the_way_is_answered(scene: Scene) -> None:
    """A TLS manager waits for an answer, and nothing else changes meanwhile."""
    lost = "published 2 'The published TLS state did not arrive.'"
    lines = scene.play(front_end(), tls_manager("end.send(pack(c.Publish(2)))"), lost)

    assert ["uses A", "serves A"] == of("front1", lines)


def test_revoked_certificates_that_got_lost_are_sent_again(scene: Scene) -> None:
    """A TLS manager sends them at its start, so it begins again."""
    then = "found or end.send(pack(c.Revoked()))"
    begins = "tls_manager begins A"
    lines = scene.play(front_end(), tls_manager(then), begins)

    assert 1 == lines.count(begins)
    assert any("revoked certificates did not arrive" in line for line in lines)


def test_one_that_dies_of_it_is_not_waited_for(scene: Scene) -> None:
    """It is started again, and begins with the newest."""
    die = """
            if begin.slot == "front1" and wanted == "B" and state == "A":
                os.kill(os.getpid(), signal.SIGKILL)
"""
    lines = scene.play(
        front_end(die), tls_manager('publish("B", 2)'), "front1 serves B"
    )

    assert "published 2 ''" in lines
    assert ["uses A", "serves A", "uses B", "serves B"] == of("front1", lines)
    assert ["uses A", "serves A", "uses B"] == of("front2", lines)


def test_what_all_die_of_is_not_in_force(scene: Scene) -> None:
    """They begin again with the former state, and serve."""
    die = """
            if wanted == "B":
                os.kill(os.getpid(), signal.SIGKILL)
"""
    unused = "published 2 'No front end uses the new TLS state.'"
    ends = (*["front1 serves A"] * 2, *["front2 serves A"] * 2, unused)
    scene.play(front_end(die), tls_manager('publish("B", 2)'), *ends)

    assert 0 == scene.status
    assert 1 == scene.states


def test_one_that_does_not_answer_is_replaced(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it goes by nobody knows; the next one goes by the newest."""
    monkeypatch.setattr(distribution, "_LONGEST_SECONDS", 1.5)
    silent = """
            if begin.slot == "front1" and wanted == "B" and state == "A":
                state = "B"
                say("front1 uses B")
                continue
"""
    lines = scene.play(
        front_end(silent), tls_manager('publish("B", 2)'), "front1 serves B"
    )

    assert "published 2 ''" in lines
    assert ["uses A", "serves A", "uses B", "uses B", "serves B"] == of("front1", lines)


def test_a_tls_manager_that_is_killed_begins_with_what_is_in_force(
    scene: Scene,
) -> None:
    """Also when it ends while a state is given out, which then is the newest."""
    late = 'wanted == "B" and time.sleep(0.3)'
    then = """
if not found:
    publish("B", 2)
    os.kill(os.getpid(), signal.SIGKILL)
elif found == ["B"]:
    publish("C", 3)
"""
    lines = scene.play(front_end(late), tls_manager(then), "published 3 ''")

    assert ["tls_manager begins", "tls_manager begins B"] == [
        line for line in lines if line.startswith("tls_manager begins")
    ]
    assert "published 3 ''" in lines
    assert ["uses A", "serves A", "uses B", "uses C"] == of("front1", lines)
    assert 0 == scene.status


def test_a_tls_manager_that_hangs_is_replaced(scene: Scene) -> None:
    """Front ends serve on meanwhile, and are given nothing twice."""
    then = "found or os.kill(os.getpid(), signal.SIGSTOP)"
    lines = scene.play(front_end(), tls_manager(then), "tls_manager begins A")

    assert "tls_manager begins A" in lines
    assert ["uses A", "serves A"] == of("front1", lines)


@pytest.mark.parametrize(
    "spoil",
    [
        'os.memfd_create("state", os.MFD_ALLOW_SEALING)',
        'os.open("/dev/null", os.O_RDONLY)',
    ],
    ids=["unsealed", "no-memory"],
)
def test_what_could_still_change_is_given_to_nobody(scene: Scene, spoil: str) -> None:
    """The TLS manager is told, and the former state stays."""
    then = f"socket.send_fds(end, [pack(c.Publish(2))], [{spoil}])"
    lines = scene.play(front_end(), tls_manager(then), _UNSEALED)

    assert ["uses A", "serves A"] == of("front1", lines)
    assert 1 == scene.states


def test_a_front_end_that_publishes_is_not_heeded(scene: Scene) -> None:
    """Only the TLS manager may: a front end reads what strangers send."""
    lines = scene.play(
        front_end(
            'os.close(descriptors.pop()); fake = seal("state", b"X"); '
            "socket.send_fds(end, [pack(c.Publish(9))], [fake])"
        ),
        tls_manager("pass"),
        *("front1 serves A", "front2 serves A"),
    )

    assert ["uses A", "serves A"] == of("front1", lines)
    assert 1 == scene.states


def test_a_tls_manager_that_can_not_begin_ends_the_start(scene: Scene) -> None:
    """One line says which, and how."""
    refuse = ("-c", "raise SystemExit(3)")
    lines = scene.play(front_end(), refuse, "nothing: it ends by itself")

    assert 1 == scene.status
    assert ["The process tls exited unexpectedly (status 3)."] == [
        line.partition("error: ")[2] for line in lines
    ]
