# SPDX-License-Identifier: MIT
"""The role x operation table, written out a second time and tried cell by cell."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.model import Role
from hsm_core.operations import OPERATIONS, Operation
from hsm_core.policies import built_in_policy, built_in_text, parse_policy
from hsm_core.settings import PolicyProfile
from hsm_core.testing import caller, memory_hsm
from tests import self_tests

#                   Administrator, Operator, Auditor, Service
EXPECTED = {
    "CreateKey":        "A O - -",
    "ImportKey":        "A - - -",
    "DeriveKey":        "A O - -",
    "ExportKey":        "A - - -",
    "DescribeKey":      "A O U S",
    "ListKeys":         "A O U S",
    "ListVersions":     "A O U S",
    "RotateKey":        "A O - -",
    "Rollback":         "A O - -",
    "RevokeKey":        "A - - -",
    "DestroyKey":       "A - - -",
    "GetPublicKey":     "A O U S",
    "Sign":             "- O - S",
    "Verify":           "- O - S",
    "Encrypt":          "- O - S",
    "Decrypt":          "- O - S",
    "Encapsulate":      "- O - S",
    "Decapsulate":      "- O - S",
    "Seal":             "- O - S",
    "Open":             "- O - S",
    "Rewrap":           "- O - S",
    "GenerateDataKey":  "- O - S",
    "ComputeMac":       "- O - S",
    "VerifyMac":        "- O - S",
    "SignBatch":        "- O - S",
    "VerifyBatch":      "- O - S",
    "EncryptBatch":     "- O - S",
    "DecryptBatch":     "- O - S",
    "ComputeMacBatch":  "- O - S",
    "VerifyMacBatch":   "- O - S",
    "GenerateRandom":   "- O - S",
    "ListAuditEvents":  "A - U -",
    "VerifyAudit":      "A - U -",
    "Status":           "A O U S",
    "ListAlgorithms":   "A O U S",
    "VerifyStore":      "A - U -",
    "BackUpStores":     "A - - -",
    "RecoverStore":     "A - - -",
    "RecoverKey":       "A - - -",
    "SelfTest":         "A - - -",
    "ActivateKey":      "A O - -",
    "SuspendKey":       "A O - -",
    "ResumeKey":        "A O - -",
    "UpdateKey":        "A - - -",
    "SetRotation":      "A - - -",
    "CancelDestroy":    "A - - -",
    "ShowPolicy":       "A - U -",
    "ExplainPolicy":    "A - U -",
    "TestPolicy":       "A - U -",
    "ListApprovals":    "A O U S",
    "GetApproval":      "A O U S",
    "Approve":          "A O U -",
    "Deny":             "A O U -",
    "Withdraw":         "A O U -",
    "CancelApproval":   "A O U S",
    "ExtendRetention":  "A - U -",
    "HoldKey":          "A - U -",
    "ReleaseKey":       "A - - -",
    "RetentionStatus":  "A O U -",
    "BeginLedger":      "A - - -",
}  # fmt: skip
LETTERS = {
    "A": Role.ADMINISTRATOR,
    "O": Role.OPERATOR,
    "U": Role.AUDITOR,
    "S": Role.SERVICE,
}

APPROVAL = "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"

ARGUMENTS: dict[type[Operation[Any]], dict[str, Any]] = {
    ops.CreateKey: {"algorithm": "ed25519"},
    ops.ExtendRetention: {
        "version": 1,
        "until": datetime(2100, 1, 1, tzinfo=UTC),
    },
    ops.Deny: {"approval_id": APPROVAL, "reason": "no"},
    ops.HoldKey: {"reason": "case"},
    ops.ReleaseKey: {"reason": "closed"},
    ops.Rollback: {"version": 1},
    ops.Sign: {"message": b""},
    ops.Verify: {"message": b"", "signature": b""},
    ops.Encrypt: {"plaintext": b""},
    ops.Decrypt: {"ciphertext": b""},
    ops.ComputeMac: {"message": b""},
    ops.VerifyMac: {"message": b"", "mac": b""},
    ops.GenerateRandom: {"length": 1},
    ops.Decapsulate: {"ciphertext": b""},
    ops.Seal: {"plaintext": b""},
    ops.Open: {"ciphertext": b""},
    ops.Rewrap: {"ciphertext": b""},
    ops.SignBatch: {"items": (ops.SignItem(message=b""),)},
    ops.VerifyBatch: {"items": (ops.VerifyItem(message=b"", signature=b""),)},
    ops.EncryptBatch: {"items": (ops.EncryptItem(plaintext=b""),)},
    ops.DecryptBatch: {"items": (ops.DecryptItem(ciphertext=b""),)},
    ops.ComputeMacBatch: {"items": (ops.MacInput(message=b""),)},
    ops.VerifyMacBatch: {"items": (ops.VerifyMacItem(message=b"", mac=b""),)},
    ops.ImportKey: {"algorithm": "ed25519", "wrapped": b""},
    ops.DeriveKey: {"algorithm": "aes256gcm"},
    ops.RecoverStore: {"reason": "x"},
    ops.BeginLedger: {"reason": "x"},
    ops.ExplainPolicy: {"operation": "Sign", "principal": "x"},
    ops.TestPolicy: {"policy": "version: 1"},
    ops.RecoverKey: {"reason": "x"},
    ops.GetApproval: {"approval_id": APPROVAL},
    ops.Approve: {"approval_id": APPROVAL, "digest": "41" * 32},
    ops.Withdraw: {"approval_id": APPROVAL},
    ops.CancelApproval: {"approval_id": APPROVAL},
}


def sample(kind: type[Operation[Any]], key_id: str) -> Operation[Any]:
    """Return a valid operation of a kind."""
    arguments = dict(ARGUMENTS.get(kind, {}))
    if "key_id" in kind.__struct_fields__ and kind not in {
        ops.ListAuditEvents,
        ops.ExplainPolicy,
    }:
        arguments["key_id"] = key_id
    arguments |= dict.fromkeys(kind.other_keys, key_id)
    return kind(**arguments)


def test_the_expected_table_is_whole() -> None:
    """Every operation has a row, so a new one can't slip in without a decision."""
    assert EXPECTED.keys() == {operation.__name__ for operation in OPERATIONS}


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
def test_every_cell(
    kind: type[Operation[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each role is let through or denied as the table says, and no role is denied."""
    self_tests.once(monkeypatch)
    allowed = {
        LETTERS[letter] for letter in EXPECTED[kind.__name__] if letter in "AOUS"
    }

    with memory_hsm() as gateway:
        key = gateway.act_as(caller()).execute(ops.CreateKey(algorithm="ed25519"))
        passed = set()
        for role in Role:
            try:
                gateway.act_as(caller(role)).execute(sample(kind, key.key_id))
            except errors.AccessDeniedError:
                continue
            except errors.HSMError:
                pass
            passed.add(role)
        nobody = caller()
        nobody = type(nobody)(principal="nobody", roles=frozenset())
        with pytest.raises((errors.AccessDeniedError, errors.KeyNotFoundError)):
            gateway.act_as(nobody).execute(sample(kind, key.key_id))

    assert allowed == passed


def test_the_policy_hash_follows_the_table() -> None:
    """Another table has another hash, and the same one the same."""
    text = built_in_text(PolicyProfile.DEFAULT)
    other = text.replace("  Auditor: [", "  Auditor: [Sign, ")

    hashes = [parse_policy(t).policy_hash for t in (text, f"# Hm.\n{text}", other)]

    assert hashes[0] == hashes[1] == built_in_policy(PolicyProfile.DEFAULT).policy_hash
    assert hashes[0] != hashes[2]


def test_a_caller_who_may_not_describe_is_told_nothing() -> None:
    """Without the right to describe, a real key looks like a missing one."""
    nobody = type(caller())(principal="nobody", roles=frozenset())
    answers = set()

    with memory_hsm() as gateway:
        key = gateway.act_as(caller()).execute(ops.CreateKey(algorithm="ed25519"))
        for reference in (key.key_id, "made-up"):
            with pytest.raises(errors.KeyNotFoundError) as caught:
                gateway.act_as(nobody).execute(ops.DescribeKey(key_id=reference))
            answers.add((str(caught.value), tuple(caught.value.facts.items())))

    assert 1 == len(answers)
