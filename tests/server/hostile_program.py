# SPDX-License-Identifier: MIT
"""
A front end; the second one of a server was taken over, and attacks the vault.

It reads the tokens to try from ``tokens.json`` beside it, and tells in ``report.json``
what came of it.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any

import msgspec

from hsm_core import wire
from hsm_core.algorithms import Algorithm
from hsm_core.operations import CreateKey
from hsm_server.ipc.control import (
    Beat,
    FromSupervisor,
    Link,
    Ready,
    Serve,
    UseTLS,
    UsingTLS,
)
from hsm_server.ipc.frames import (
    PROTOCOL,
    Answer,
    FromVault,
    Hello,
    Purpose,
    Request,
    packed,
)
from hsm_server.processes import front_end
from hsm_server.processes.child import Child, begin_child
from hsm_server.vault.access import Visitor

_HERE = Path(__file__).resolve().parent
_DECODER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromVault)


def _attack(vault: socket.socket) -> dict[str, Any]:
    """Try everything on one connection; return what came of it."""
    vault.setblocking(True)
    vault.settimeout(20)
    operation = wire.encode_packed(CreateKey(algorithm=Algorithm.ED25519, name="x"))
    vault.sendall(packed(Hello(PROTOCOL, "hostile")))
    tokens = json.loads((_HERE / "tokens.json").read_text())
    for number, token in enumerate(tokens, 1):
        who = Visitor(credential=token, certificate=b"stolen")
        vault.sendall(packed(Request(number, Purpose.EXECUTE, who, operation)))
    answers: list[Answer] = []
    while len(answers) < len(tokens):
        frame = _receive(vault)
        if isinstance(frame, Answer):
            answers.append(frame)
    vault.sendall((2**30).to_bytes(4, "big"))
    return {
        "codes": [answer.error.code if answer.error else "ok" for answer in answers],
        "is_ended": _receive(vault) is None,
    }


def _receive(vault: socket.socket) -> Any:
    """Return the next frame, or None at the end."""
    try:
        head = vault.recv(4, socket.MSG_WAITALL)
        length = int.from_bytes(head, "big")
        return _DECODER.decode(vault.recv(length, socket.MSG_WAITALL)) if head else None
    except ConnectionError:
        return None


def _obey(child: Child) -> None:
    """Do what the supervisor says, and attack when there is a vault."""
    control = child.control
    decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromSupervisor)
    control.send(msgspec.msgpack.encode(Ready()))
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 2**17, 4)
        match decoder.decode(data) if data else None:
            case Link():
                with socket.socket(fileno=descriptors[0]) as vault:
                    report = _attack(vault)
                (_HERE / "report.part").write_text(json.dumps(report))
                os.replace(_HERE / "report.part", _HERE / "report.json")
            case UseTLS(serial):
                os.close(descriptors[0])
                control.send(msgspec.msgpack.encode(UsingTLS(serial)))
            case Serve() as message:
                control.send(msgspec.msgpack.encode(message))
            case Beat() as message:
                control.send(msgspec.msgpack.encode(message))
            case _:
                return


def _main() -> None:
    child = begin_child()
    if child.slot == "front2":
        _obey(child)
    else:
        front_end.begin_child = lambda: child  # type: ignore[attr-defined]
        front_end.main()


if __name__ == "__main__":
    _main()
