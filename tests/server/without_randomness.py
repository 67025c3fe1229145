# SPDX-License-Identifier: MIT
"""
Executes a command for which getrandom(2) fails with EIO, and for all that it starts.

What Python asks for without waiting, as it begins, is granted: it ends otherwise. With
a C library that makes random bytes itself from then on, only OpenSSL finds out.
"""

import ctypes
import os
import struct
import sys
from typing import Final

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER: Final = 2
_GETRANDOM: Final = {"x86_64": 318, "aarch64": 278}
_GRND_NONBLOCK: Final = 1
_EIO: Final = 5
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _FLAGS_AT = 0, 32
"""In ``struct seccomp_data``, seccomp(2): the call's number, its third argument."""
_FAIL, _ALLOW = 0x00050000 | _EIO, 0x7FFF0000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _step(code: int, if_true: int, if_false: int, operand: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, operand)


def main() -> None:
    """Install the filter, and become the command that the arguments are."""
    steps = (
        _step(_LOAD, 0, 0, _NUMBER_AT),
        _step(_JUMP_IF_EQUAL, 0, 3, _GETRANDOM[os.uname().machine]),
        _step(_LOAD, 0, 0, _FLAGS_AT),
        _step(_JUMP_IF_SET, 1, 0, _GRND_NONBLOCK),
        _step(_RETURN, 0, 0, _FAIL),
        _step(_RETURN, 0, 0, _ALLOW),
    )
    program = ctypes.create_string_buffer(b"".join(steps))
    told = _Program(len(steps), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(told), 0, 0),
    ):
        if libc.prctl(*words) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 (no shell)


if __name__ == "__main__":
    main()
