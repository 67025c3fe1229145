# SPDX-License-Identifier: MIT
"""
An HSM with every kind of stored form, and what is written down to prove that it reads.

``python -m tests.compat.site VERSION`` makes the fixtures of the release VERSION, which
is done once, by that release; a fixture that is there is never made again.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from hsm_core import operations as ops
from hsm_core.algorithms import KeyUsage
from hsm_core.errors import ApprovalRequiredError
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import ApprovalState, Caller, Role
from hsm_core.session import Session
from hsm_core.settings import (
    ApprovalStoreKind,
    AuditStoreKind,
    KeyStoreKind,
    PolicyProfile,
    Settings,
)
from hsm_core.testing import FakeClock

FIXTURES: Final = Path(__file__).with_name("fixtures")
FIXTURE_NAMES: Final = sorted(
    path.name.removesuffix(".tar.gz") for path in FIXTURES.glob("*.tar.gz")
)
"""Each is ``RELEASE-KIND``, such as ``0.1-sqlite``."""

ROOT: Final = b"fixtures: no key of anything real"[:32]
HMAC_KEY: Final = b"fixtures: no trail of anybody's!"
DAY: Final = 86_400
_FACTS: Final = "facts.json"
_MESSAGE: Final = b"a message of long ago"
_AAD: Final = b"where it belongs"


def settings_of(folder: Path, kind: str) -> Settings:
    """Return the settings of what lies in a folder; *kind* is filesystem or sqlite."""
    is_sqlite = kind == KeyStoreKind.SQLITE
    return Settings(
        key_store=kind,
        key_dir=folder / "keys",
        sqlite_path=folder / "sqlite" / "keys.sqlite",
        audit_store=AuditStoreKind.SQLITE if is_sqlite else AuditStoreKind.FILE,
        audit_log=None if is_sqlite else folder / "audit.log",
        audit_sqlite_path=folder / "trail" / "audit.sqlite",
        audit_reserve_bytes=0,
        audit_retention_days=0,
        audit_segment_bytes=16384,
        approval_store=(
            ApprovalStoreKind.SQLITE if is_sqlite else ApprovalStoreKind.FILE
        ),
        approval_dir=folder / "approvals",
        approval_sqlite_path=folder / "approvals" / "approvals.sqlite",
        approval_retention_days=0,
        policy_profile=PolicyProfile.STRICT,
        retention_config=folder / "retention.yaml",
        retention_ledger=folder / "ledger.log",
        retention_grace_seconds=0,
    )


def open_site(folder: Path, kind: str, clock: FakeClock) -> OpenHSM:
    """Open an HSM over what lies in a folder."""
    settings = settings_of(folder, kind)
    return open_hsm(settings, master_key=ROOT, hmac_key=HMAC_KEY, clock=clock)


def session_of(hsm: OpenHSM, name: str, *roles: Role) -> Session:
    """Return the HSM as a person sees it, by default with all roles but Auditor."""
    given = roles or (Role.ADMINISTRATOR, Role.OPERATOR, Role.SERVICE)
    return Session(hsm.act_as(Caller(principal=name, roles=frozenset(given))))


def unpack(name: str, folder: Path) -> dict[str, Any]:
    """Unpack a fixture into a private folder, and return its facts."""
    with tarfile.open(FIXTURES / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    folder.chmod(0o700)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    found: dict[str, Any] = json.loads((folder / _FACTS).read_text("utf-8"))
    return found


def _make(folder: Path, kind: str) -> dict[str, Any]:
    clock = FakeClock()
    (folder / "retention.yaml").write_text("default_days: 30\n", "utf-8")
    with open_site(folder, kind, clock) as hsm:
        session = session_of(hsm, "ann")
        facts = {
            # First, for it takes weeks in which other old versions would be purged.
            "purged": _purged(hsm, session, clock),
            "ciphers": _ciphers(session),
            "sealed": _sealed(hsm, session),
            "signatures": _signatures(session),
            "mac": _mac(session),
            "approved": _approved(hsm, session),
            "pending": _ask(session, "ML-KEM-1024"),
        }
    return {
        **facts,
        "message": _MESSAGE.hex(),
        "aad": _AAD.hex(),
        "closed_at": clock.now(),
    }


def _ciphers(session: Session) -> dict[str, dict[str, str]]:
    found = {}
    for algorithm in ("AES-256-GCM", "AES-128-GCM", "ChaCha20-Poly1305", "RSA-2048"):
        usages = (KeyUsage.ENCRYPT, KeyUsage.DECRYPT)
        made = session.create_key(algorithm, usages=usages, tags=("compat",))
        # The second version is the current one, and the ciphertext is of the first.
        found[algorithm] = {
            "key_id": made.key_id,
            "ciphertext": session.encrypt(made.key_id, _MESSAGE, _AAD).hex(),
        }
        session.rotate(made.key_id)
    return found


def _sealed(hsm: OpenHSM, session: Session) -> dict[str, dict[str, str]]:
    found = {}
    for algorithm in ("ML-KEM-768", "MLKEM768-ECDH-P256-SHA3-256"):
        _ask(session, algorithm)
        _consent(hsm)
        made = session.create_key(algorithm, idempotency_key=_repeat(algorithm))
        sealed = session.seal(made.key_id, _MESSAGE, _AAD).hex()
        found[algorithm] = {"key_id": made.key_id, "ciphertext": sealed}
    return found


def _signatures(session: Session) -> dict[str, dict[str, str]]:
    found = {}
    for algorithm in ("Ed25519", "EC-P256", "ML-DSA-65"):
        made = session.create_key(algorithm, name=f"signer-{algorithm.lower()}")
        signature = session.sign(made.key_id, _MESSAGE).signature.hex()
        found[algorithm] = {"key_id": made.key_id, "signature": signature}
    return found


def _mac(session: Session) -> dict[str, str]:
    made = session.create_key("HMAC-SHA-256")
    return {
        "key_id": made.key_id,
        "mac": session.mac(made.key_id, _MESSAGE).mac.hex(),
    }


def _repeat(algorithm: str) -> str:
    return f"{algorithm:->36}"


def _ask(session: Session, algorithm: str) -> dict[str, str]:
    try:
        session.create_key(algorithm, idempotency_key=_repeat(algorithm))
    except ApprovalRequiredError as error:
        approval = error.approval
        assert isinstance(approval, ops.ApprovalInfo)
        return {"approval_id": approval.approval_id, "digest": approval.digest}
    raise AssertionError(f"{algorithm} needs no approval.")


def _consent(hsm: OpenHSM) -> None:
    """Let an Operator and an Auditor consent to all that waits."""
    for name, role in (("olga", Role.OPERATOR), ("anton", Role.AUDITOR)):
        person = hsm.act_as(Caller(principal=name, roles=frozenset({role})))
        page = person.execute(ops.ListApprovals(states=(ApprovalState.PENDING,)))
        for found in page.items:
            person.execute(
                ops.Approve(approval_id=found.approval_id, digest=found.digest)
            )


def _approved(hsm: OpenHSM, session: Session) -> dict[str, str]:
    asked = _ask(session, "ML-DSA-87")
    _consent(hsm)
    made = session.create_key("ML-DSA-87", idempotency_key=_repeat("ML-DSA-87"))
    return {
        "approval_id": asked["approval_id"],
        "key_id": made.key_id,
        "signature": session.sign(made.key_id, _MESSAGE).signature.hex(),
    }


def _purged(hsm: OpenHSM, session: Session, clock: FakeClock) -> dict[str, Any]:
    """Let the first version of a key be purged, as the retention policy says."""
    retention = hsm.retention
    assert retention is not None
    made = session.create_key("AES-256-GCM", name="to-be-purged")
    session.rotate(made.key_id)
    for _ in range(40):
        clock.advance(DAY)
        retention.sweep()
        _consent(hsm)
    states = [str(version.state) for version in session.versions(made.key_id)]
    return {"key_id": made.key_id, "states": states}


def _pack(folder: Path, target: Path) -> None:
    """Pack a folder so that the same files give the same archive, modes included."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=9) as archive:
        for path in sorted(folder.rglob("*")):
            if path.name.endswith(".lock"):
                continue
            info = archive.gettarinfo(str(path), str(path.relative_to(folder)))
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = 0
            with io.BytesIO(path.read_bytes() if path.is_file() else b"") as content:
                archive.addfile(info, content if path.is_file() else None)
    target.write_bytes(packed.getvalue())


def main(release: str) -> None:
    """Make the fixtures of a release that are not there yet."""
    for kind in (KeyStoreKind.FILESYSTEM, KeyStoreKind.SQLITE):
        target = FIXTURES / f"{release}-{kind}.tar.gz"
        if target.exists():
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            facts = _make(folder, kind)
            text = json.dumps(facts, indent=1) + "\n"
            (folder / _FACTS).write_text(text, "utf-8")
            _pack(folder, target)


if __name__ == "__main__":
    main(sys.argv[1])
