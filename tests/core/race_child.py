# SPDX-License-Identifier: MIT
"""
Sixteen threads that use a key until the disk fails, in a process that may be traced.

``race_child.py FOLDER KIND SYNC`` opens an HSM there, prints its newest record and, at
the end, how many uses of each thread were answered.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from hsm_core.errors import HSMError
from hsm_core.settings import AuditSync, KeyStoreKind
from tests.core.race_support import (
    OUTAGE,
    THREADS,
    Crowd,
    hasty_threads,
    open_site,
    protecting,
)


def run(folder: Path, kind: KeyStoreKind, sync: AuditSync) -> None:
    """Let all use a key until none is served."""
    # The end of a trail that can't be written can't be written either.
    with (
        suppress(HSMError),
        open_site(folder, kind, sync=sync) as site,
        hasty_threads(),
    ):
        key = site.session.create_key("p256").key_id
        works = [protecting(site.as_user(n), key, "p256") for n in range(THREADS)]
        head = site.head()
        seen = Crowd(OUTAGE, stops=False).run(works, lambda: None)
        answered = [one.answered for one in seen]
        others = sorted({code for one in seen for code in one.other})
        told = {"head": head, "answered": answered, "others": others}
        sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    run(Path(sys.argv[1]), KeyStoreKind(sys.argv[2]), AuditSync(sys.argv[3]))
