# SPDX-License-Identifier: MIT
"""PKCS#11 interface: whole conversations of a program, in each version."""

from __future__ import annotations

import struct
from typing import Final

import hsm_core
from hsm_cli.interfaces.access import Access
from hsm_cli.interfaces.pkcs11.server import serve
from hsm_core.model import Caller, Role
from hsm_core.protocols import HSM
from tests.cli.rpc_client import (
    HANDSHAKE,
    array,
    block,
    data,
    flag,
    mechanism,
    number,
    template,
    ulong,
)
from tests.fuzzing.local_interfaces import answers
from tests.fuzzing.stored_forms import NothingReadError
from tests.fuzzing.target import Target

_RUNS_OF_AN_HSM: Final = 2000
"""Conversations after which the HSM is replaced, as its audit log is in memory."""


class _Connector:
    """Way to an HSM in memory, with keys that a user without other rights uses."""

    shown = label = "memory"
    takes_pin = False
    is_embedded = True
    is_renewable = False

    def __init__(self) -> None:
        self._hsm = hsm_core.open(":memory:")
        ada = self._hsm.as_user("ada", roles=["operator"])
        for algorithm in ("EC-P256", "AES-256-GCM", "HMAC-SHA-256"):
            ada.create(algorithm, name=algorithm.lower())

    def open(self, pin: str) -> None:
        """Do nothing: it is open."""

    def act_for(self, interface: str, program: str) -> HSM:
        """Return the HSM."""
        caller = Caller(principal="ada", roles=frozenset({Role.SERVICE}))
        return self._hsm.gateway.act_as(caller)

    def close(self) -> None:
        """Close the HSM."""
        self._hsm.close()


class _Reader:
    def __init__(self) -> None:
        self._access: Access | None = None
        self._runs = 0

    def __call__(self, sent: bytes) -> int:
        if self._access is None or self._runs >= _RUNS_OF_AN_HSM:
            if self._access is not None:
                self._access.close()
            self._access, self._runs = _opened(), 0
        self._runs += 1
        access = self._access
        answered = answers(sent, lambda stream: serve(stream, access))
        if count := _count(answered[1:]):
            return count
        raise NothingReadError


def _count(frames: bytes) -> int:
    """Return how many responses there are, each as long as it says."""
    at = count = 0
    while at < len(frames):
        _, _, length = struct.unpack_from(">III", frames, at)
        at, count = at + 12 + length, count + 1
    assert at == len(frames)
    return count


def _opened() -> Access:
    return _Access("pkcs11", _Connector(), notify=lambda text: None)


class _Access(Access):
    """HSM whose programs cause only errors of calls."""

    def note(self, text: str) -> None:
        """Fail on another error."""
        assert "A call failed" not in text, text


def targets() -> list[Target]:
    """Return the target."""
    return [
        Target(
            name="pkcs11-calls",
            readers=(_Reader(),),
            seeds=[_conversation(version) for version in (0, 1, 2)],
            refusals=(NothingReadError,),
        )
    ]


def _conversation(version: int) -> bytes:
    """Return what a program sends that finds a key, reads of it and signs."""
    absent = b"" if version >= 2 else struct.pack(">I", 0xFFFFFFFF)
    session, key = ulong(1), ulong(1)
    private = [(0x00, number(3)), (0x01, flag(True)), (0x108, flag(True))]
    named = [(0x00, number(3)), (0x03, data(b"ec-p256"))]
    secret = [(0x00, number(4)), (0x100, number(0x10)), (0x108, flag(True))]
    agreement = ulong(1) + block(b"") + block(b"\4" + bytes(64))
    ecdh = mechanism(0x1050, (b"\1" if version >= 2 else b"") + agreement)
    wrapped, room = array(bytes(40)) + template(secret), struct.pack(">I", 64)
    nested = struct.pack(">II", 0x40000211, 1) + struct.pack(">III", 1, 0x100, 8)
    calls = (
        (1, "ayyay", array(HANDSHAKE) + b"\0" + array(b"\0")),
        (4, "yfu", b"\1" + struct.pack(">I", 8)),
        (6, "u", ulong(0)),
        (7, "ufu", ulong(0) + struct.pack(">I", 512)),
        (10, "uu", ulong(0) + ulong(6)),
        (18, "uuay", session + ulong(1) + array(b"1234")),
        (26, "uaA", session + template(named)),
        (27, "ufu", session + struct.pack(">I", 8)),
        (28, "u", session),
        (26, "uaA", session + template(private)),
        (28, "u", session),
        (24, "uufA", session + key + struct.pack(">III", 2, 0x180, 64) + nested),
        (42, "uMu", session + mechanism(0x1041, absent) + key),
        (43, "uayfy", session + array(bytes(32)) + struct.pack(">I", 0)),
        (43, "uayfy", session + array(bytes(32)) + struct.pack(">I", 64)),
        (20, "uaA", session + template([(0, number(0)), (0x11, data(b"note"))])),
        (21, "uuaA", session + key + template([(0x01, flag(False))])),
        (20, "uaA", session + template([*secret, (0x11, data(bytes(range(32))))])),
        (62, "uMuaA", session + ecdh + key + template(secret)),
        (60, "uMuufy", session + mechanism(0x2109, absent) + key + key + room),
        (61, "uMuayaA", session + mechanism(0x2109, absent) + key + wrapped),
        (64, "ufy", session + struct.pack(">I", 8)),
        (19, "u", session),
        (2, "", b""),
    )
    frames = [bytes((version,))]
    for call, signature, arguments in calls:
        body = struct.pack(">I", call) + block(signature.encode()) + arguments
        frames.append(struct.pack(">III", 0, 0, len(body)) + body)
    return b"".join(frames)
