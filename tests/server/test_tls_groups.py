# SPDX-License-Identifier: MIT
"""The groups of key exchange: that it is noticed when they are not what they should."""

import subprocess
import sys
from pathlib import Path

import pytest

from hsm_server.config.exit_codes import ListenError
from hsm_server.tls.handshakes import CLASSICAL, GROUPS, HYBRID, check_groups, selected
from hsm_server.tls.state import pack_state
from tests.pki import SERVER, self_signed_root
from tests.server.tls_support import state_of

RETRY = bytes.fromhex(
    "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"
)
"""Random of a HelloRetryRequest (RFC 8446, section 4.1.3)."""

ALERT = b"\x15\x03\x03\0\x02\x02\x28"
PREFERRED = [*HYBRID.values(), *CLASSICAL.values()]


def offered_by(hello: bytes) -> list[int]:
    """Return the groups that a ClientHello of the check offers."""
    at = hello.index(b"\0\x0a", 43 + 2 + 6) + 4
    length = int.from_bytes(hello[at : at + 2], "big")
    words = hello[at + 2 : at + 2 + length]
    return [int.from_bytes(words[i : i + 2], "big") for i in range(0, length, 2)]


class Peer:
    """A server that serves these groups, the first first."""

    def __init__(self, served: list[int]) -> None:
        self._served = served

    def __call__(self, hello: bytes, /) -> bytes:
        """Answer as RFC 8446 has it."""
        offered = offered_by(hello)
        for group in self._served:
            if group in offered:
                return self._retry(group)
        return ALERT

    def _retry(self, group: int) -> bytes:
        version = b"\0\x2b\0\x02\x03\x04"
        extensions = version + b"\0\x33\0\x02" + group.to_bytes(2, "big")
        body = b"\x03\x03" + RETRY + b"\0" + b"\x13\x02" + b"\0"
        body += len(extensions).to_bytes(2, "big") + extensions
        message = b"\x02" + len(body).to_bytes(3, "big") + body
        return b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message


def test_what_was_asked_for_is_fine() -> None:
    """All six, those with ML-KEM first."""
    check_groups(Peer(PREFERRED))

    assert 0x11EC == selected(Peer(PREFERRED), [0x001D, 0x11EC])


@pytest.mark.parametrize("name", GROUPS)
def test_a_missing_group_is_noticed(name: str) -> None:
    """Each of them, by name."""
    served = [number for number in PREFERRED if number != GROUPS[name]]

    with pytest.raises(ListenError, match=name):
        check_groups(Peer(served))


def test_a_group_too_many_is_noticed() -> None:
    """As OpenSSL's own defaults would have it."""
    with pytest.raises(ListenError, match="P-521"):
        check_groups(Peer([*PREFERRED, 0x0019]))


@pytest.mark.parametrize(
    "served",
    [
        [*CLASSICAL.values(), *HYBRID.values()],
        [*reversed(HYBRID.values()), *CLASSICAL.values()],
    ],
    ids=["classical-first", "other-order"],
)
def test_another_preference_is_noticed(served: list[int]) -> None:
    """The order is what decides."""
    with pytest.raises(ListenError, match="prefer"):
        check_groups(Peer(served))


@pytest.mark.parametrize(
    "data", [b"", ALERT, b"\x16\x03\x03", b"\x16\x03\x03\0\x04\x02\0\0\0"]
)
def test_any_other_answer_names_no_group(data: bytes) -> None:
    """An alert, or nothing."""
    assert selected(lambda hello: data, [0x11EC]) is None


def begin(
    folder: Path, first: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Make a context in a process of its own, after loading something."""
    packed = folder / "state"
    packed.write_bytes(
        pack_state(state_of(self_signed_root("R").issue("s", use=SERVER).pair))
    )
    program = f"""
import os, sys
{first}
from hsm_server.tls.adapter import AdapterContext
from hsm_server.tls.state import read_state
AdapterContext(read_state(open(sys.argv[1], "rb").read()))
print("begun", os.environ.get("OPENSSL_CONF"))
"""
    return subprocess.run(
        [sys.executable, "-c", program, str(packed)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize(
    "first",
    [
        "import hsm_server.processes.front_end",
        "import hsm_server.commands.serve, hsm_server.processes.launch",
        "import hsm_server.commands.serve, hsm_server.tls.openssl\n"
        "import hsm_server.bootstrap.inline",
    ],
    ids=["front-end", "launch", "inline"],
)
def test_our_processes_begin_in_the_right_order(tmp_path: Path, first: str) -> None:
    """What they load first does not keep the configuration from being read."""
    done = begin(tmp_path, first, OPENSSL_CONF="/of/another")

    assert "begun /of/another\n" == done.stdout, done.stderr


def test_the_wrong_order_is_noticed(tmp_path: Path) -> None:
    """OpenSSL's defaults are never taken for what was asked for."""
    first = "from cryptography.hazmat.primitives.asymmetric import ec"
    done = begin(tmp_path, first)

    assert "cryptography was loaded before the listener's TLS" in done.stderr
    assert 1 == done.returncode
