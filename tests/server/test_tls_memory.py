# SPDX-License-Identifier: MIT
"""
Memory stays flat over swaps of the state and over handshakes.

``FERROHSM_TLS_ROUNDS`` makes it longer: so many handshakes, and a fifth of it swaps.
"""

import gc
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest

from hsm_server.tls.adapter import AdapterContext, TLSConnection
from hsm_server.tls.state import ClientRules, TLSState, pack_state, read_state
from tests.pki import SERVER, self_signed_root
from tests.server.tls_support import state_of

ROUNDS: Final = int(os.environ.get("FERROHSM_TLS_ROUNDS", "300"))
MIB: Final = 1024 * 1024


def resident() -> int:
    """Return the bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def growth(step: Callable[[], None], rounds: int) -> int:
    """Return by how much memory grows in the second half of so many rounds."""
    for _ in range(rounds // 2):
        step()
    gc.collect()
    before = resident()
    for _ in range(rounds // 2):
        step()
    gc.collect()
    return resident() - before


@pytest.fixture(scope="module")
def states() -> tuple[TLSState, TLSState]:
    """Give two states, each with rules for clients."""
    root = self_signed_root("Root")
    lists = (root.revocation_list(*[root.certificate] * 200),)
    rules = ClientRules(
        is_required=False, authorities=(root.der,), revocation_lists=lists
    )
    one, other = (
        state_of(root.issue(name, use=SERVER).pair, client=rules)
        for name in ("one", "other")
    )
    return one, other


def test_swaps_leave_nothing(states: tuple[TLSState, TLSState]) -> None:
    """A state that is replaced is gone."""
    context = AdapterContext(states[0])

    def swap() -> None:
        context.use(states[1])
        context.use(states[0])

    assert growth(swap, ROUNDS // 5) < 2 * MIB


def test_connections_keep_no_copy_of_what_did_not_change(
    states: tuple[TLSState, TLSState],
) -> None:
    """Staples change all the time, and long lists of revoked certificates do not."""
    state = states[0]
    context = AdapterContext(state)
    kept: list[TLSConnection] = []

    def connect() -> None:
        staple = str(len(kept)).encode()
        pair = msgspec.structs.replace(state.pairs[0], staple=staple)
        context.use(
            read_state(pack_state(msgspec.structs.replace(state, pairs=(pair,))))
        )
        ends = ssl.MemoryBIO(), ssl.MemoryBIO()
        kept.append(context.wrap_bio(*ends, server_side=True))

    grown = growth(connect, 100)

    assert 1 == len({id(connection.rules) for connection in kept})
    assert grown < 50 * 100 * 1024


def test_handshakes_leave_nothing(states: tuple[TLSState, TLSState]) -> None:
    """Neither those that succeed, nor those that are refused."""
    context = AdapterContext(states[0])
    good = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    good.check_hostname, good.verify_mode = False, ssl.CERT_NONE
    late = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    late.maximum_version = ssl.TLSVersion.TLSv1_2
    strange = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    strange.set_alpn_protocols(["h2"])

    def shake() -> None:
        assert met(context, good)
        assert not met(context, late)
        assert not met(context, strange)

    assert growth(shake, ROUNDS) < 2 * MIB


def met(context: AdapterContext, client: ssl.SSLContext) -> bool:
    """Return whether a client and a server have met, and said farewell."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(down, up, server_hostname="localhost")
    ours = context.wrap_bio(up, down, server_side=True)
    try:
        for step in (theirs, ours, theirs, ours):
            try:
                step.do_handshake()
            except ssl.SSLWantReadError:
                continue
        theirs.write(b"question")
        assert b"question" == ours.read(100)
        for side in (ours, theirs):
            try:
                side.unwrap()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLError:
        return False
    return True


def test_writing_takes_everything(states: tuple[TLSState, TLSState]) -> None:
    """However large it is: event loops would copy what is left."""
    context = AdapterContext(states[0])
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(down, up)
    ours = context.wrap_bio(up, down, server_side=True)
    for step in (theirs, ours, theirs, ours):
        try:
            step.do_handshake()
        except ssl.SSLWantReadError:
            continue
    data = bytearray(32 * MIB)

    assert len(data) == ours.write(memoryview(data))
    assert len(data) < down.pending
