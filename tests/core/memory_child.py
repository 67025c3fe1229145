# SPDX-License-Identifier: MIT
"""
A program whose memory is out at some moment of an operation, again and again.

Usage: ``python -m tests.core.memory_child FOLDER KIND SEED COUNT``. Each of COUNT
children opens an HSM of its own, ``FOLDER/N``, and does what `STEPS` says. In one step,
from some allocation of Python's on, one, some or very many fail; what they hit may be
any thread, and half of the children run their recurring work meanwhile. Half of those
that then see a MemoryError end at once, as processes of the server do; all others go
on. What was answered is written to ``FOLDER/N.told``, a line of JSON each. Prints how
each child ended: ``N STATUS``.
"""

from __future__ import annotations

import _testcapi  # type: ignore[import-not-found,unused-ignore]
import faulthandler
import json
import os
import random
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from hsm_core import operations as ops
from hsm_core.errors import HSMError
from hsm_core.factory import OpenHSM
from hsm_core.model import Caller, Role
from hsm_core.settings import AuditStoreKind, KeyStoreKind, Settings
from tests.self_tests import open_tested, shared_registry

OUT_OF_MEMORY: Final = 99
_LONGEST_SECONDS: Final = 15
_FARTHEST: Final = 3000
"""Most steps allocate so often."""
_NEVER_SECONDS: Final = 600.0
"""Who waits for the audit log in vain fails as if it waited for ever."""
_MANY: Final = 20_000
"""Not all: where none succeeds, CPython 3.11 unwinds the same frame for ever."""

STEPS: Final[dict[str, ops.Operation[Any]]] = {
    "make signer": ops.CreateKey(algorithm="Ed25519", name="signer"),
    "make cipher": ops.CreateKey(algorithm="AES-256-GCM", name="cipher"),
    "sign": ops.Sign(key_id="signer", message=b"message"),
    "rotate signer": ops.RotateKey(key_id="signer"),
    "encrypt": ops.Encrypt(key_id="cipher", plaintext=b"message"),
    "rotate cipher": ops.RotateKey(key_id="cipher"),
    "tag": ops.UpdateKey(key_id="cipher", tags=("tagged",)),
    "revoke": ops.RevokeKey(key_id="signer", version=1, reason="a test"),
    "make other": ops.CreateKey(algorithm="ML-KEM-768", name="other"),
    "destroy": ops.DestroyKey(key_id="other"),
}
"""What is done, in this order; the name is the id of the request."""


def open_again(folder: Path, kind: str) -> OpenHSM:
    """Open an HSM over what lies in a folder; *kind* is filesystem or sqlite."""
    is_sqlite = kind == "sqlite"
    settings = Settings(
        key_store=KeyStoreKind.SQLITE if is_sqlite else KeyStoreKind.FILESYSTEM,
        key_dir=folder / "keys",
        sqlite_path=folder / "keys.sqlite",
        audit_store=AuditStoreKind.SQLITE if is_sqlite else AuditStoreKind.FILE,
        audit_log=None if is_sqlite else folder / "audit.log",
        audit_sqlite_path=folder / "audit.sqlite",
        audit_reserve_bytes=0,
        audit_timeout_seconds=_NEVER_SECONDS,
    )
    return open_tested(settings)


def _live(folder: Path, kind: str, chance: random.Random) -> None:
    victim = chance.choice(list(STEPS))
    begin = chance.randrange(_FARTHEST)
    width = chance.choice((1, 1, 3, 100, _MANY))
    goes_on, hurries = chance.random() < 0.5, chance.random() < 0.5
    sys.stderr.write(f"{folder.name}: {victim}, {width} from {begin} on\n")
    told = os.open(folder.with_suffix(".told"), os.O_CREAT | os.O_WRONLY, 0o600)
    hsm = open_again(folder, kind)
    for name, operation in STEPS.items():
        caller = Caller(
            principal="ann",
            roles=frozenset({Role.ADMINISTRATOR, Role.OPERATOR}),
            request_id=name.replace(" ", "-"),
        )
        bound = hsm.act_as(caller)
        code = "ok"
        try:
            if name == victim:
                if hurries:
                    hsm.worker.hurry()
                _testcapi.set_nomemory(begin, begin + width)
            bound.execute(operation)
        except HSMError as error:
            _testcapi.remove_mem_hooks()
            code = error.code
        except (MemoryError, SystemError):  # CPython forgets which, now and then.
            _testcapi.remove_mem_hooks()
            code = "no memory"
        except RuntimeError as error:
            _testcapi.remove_mem_hooks()
            # Python has no better word for what there is no room for.
            if not str(error).startswith(("can't allocate", "can't start")):
                raise
            code = "no memory"
        except BaseException as error:
            # The library `cryptography` panics where it has none.
            if type(error).__name__ != "PanicException":
                raise
            code = "no memory"
        finally:
            _testcapi.remove_mem_hooks()
        os.write(told, json.dumps([name, code]).encode() + b"\n")
        if code == "no memory" and not goes_on:
            os._exit(OUT_OF_MEMORY)
    with suppress(HSMError):
        hsm.close()


def end_of(work: Callable[[], None]) -> int:
    """Run *work* in a child, and return how it ended."""
    child = os.fork()
    if not child:
        try:
            faulthandler.dump_traceback_later(_LONGEST_SECONDS, exit=True)
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: str, kind: str, seed: str, count: str) -> None:
    """Let one child after the other run out of memory."""
    shared_registry()
    for number in range(int(count)):
        place = Path(folder) / str(number)
        place.mkdir(mode=0o700)
        chance = random.Random(f"{seed}-{kind}-{number}")
        status = end_of(partial(_live, place, kind, chance))
        sys.stdout.write(f"{number} {status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
