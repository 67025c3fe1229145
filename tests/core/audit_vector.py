"""
Prints the worked example of the audit trail's format.

Run it as ``python -m tests.core.audit_vector``; its output stands in
``docs/reference/formats-audit.md``.
"""

from __future__ import annotations

import sys

from hsm_core._internal.audit.baseline import FORMAT, BaselineHeader, encode_baseline
from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.audit.facts import entry_of, facts_line_of
from hsm_core._internal.audit.head_mark import HeadCodec
from hsm_core._internal.audit.keys import key_check_value
from hsm_core._internal.audit.record import leaf_hash
from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    KeyUsage,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.model import AuditedCaller, AuditedKey, KeyId, KeyState, Phase, Role
from hsm_core.operations import Sign
from hsm_core.protocols import AuditDraft, KnownKey
from hsm_core.testing import FakeEntropy
from tests.core.audit_support import stored

HMAC_KEY = bytes(range(32))
LOG_ID = "00112233445566778899aabbccddeeff"
TIME = 1_790_000_000_000_000

DRAFTS = [
    AuditDraft(
        phase=Phase.SINGLE,
        kind=Sign.__name__,
        request_id="r-1",
        key_id="3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11",
        version=1,
        generation=1,
        caller=AuditedCaller(principal="zoë", roles=(Role.OPERATOR.value,)),
        key=AuditedKey(
            algorithm=Algorithm.EC_P256.value,
            usages=(KeyUsage.SIGN.value, KeyUsage.VERIFY.value),
            name="release",
            owner="zoë",
            state=KeyState.ACTIVE.value,
        ),
        parameters={
            "message_bytes": 1024,
            "scheme": SignatureScheme.ECDSA.value,
            "hash": HashAlgorithm.SHA_256.value,
            "encoding": SignatureEncoding.DER.value,
        },
        bound=bytes.fromhex("3006020101020102"),
    ),
]


def example() -> str:
    """Return the example as text: names, colons, values."""
    chain = Chain(
        log_id=LOG_ID,
        hmac_key=HMAC_KEY,
        node="node-1",
        random=FakeEntropy(0).random_bytes,
    )
    begun, use = map(stored, chain.extend(DRAFTS, TIME))
    lines = [begun, entry_of(use)]
    offset, slot = HeadCodec(HMAC_KEY, LOG_ID).slot(2, chain.end.mark)
    baseline, kept = encode_baseline(
        BaselineHeader(
            format=FORMAT,
            log_id=LOG_ID,
            first_seq=0,
            next_seq=1,
            last_leaf_hash=leaf_hash(lines[0]),
            roots=(leaf_hash(lines[0]),),
            policy="records older than 365 days",
            keys=1,
            after_seq=1,
        ),
        [KnownKey(KeyId("3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"), 1, "ab" * 32)],
        HMAC_KEY,
    )
    values = {
        "HMAC key": HMAC_KEY.hex(),
        "log id": LOG_ID,
        "line 0": lines[0].decode(),
        "leaf hash 0": leaf_hash(lines[0]),
        "facts line before line 1": facts_line_of(use).decode(),
        "line 1": lines[1].decode(),
        "signature of line 1": DRAFTS[0].bound.hex(),
        "leaf hash 1": leaf_hash(lines[1]),
        "key check value": key_check_value(HMAC_KEY).hex(),
        "offset of slot 2": str(offset),
        "slot 2 without padding": slot.rstrip(b"\0").hex(),
        "baseline header": kept[0].decode().rstrip(),
        "baseline key": kept[1].decode().rstrip(),
        "baseline MAC": kept[2].decode().rstrip(),
        "baseline SHA-256": baseline.sha256,
    }
    return "".join(f"{name}: {value}\n" for name, value in values.items())


if __name__ == "__main__":
    sys.stdout.write(example())
