# SPDX-License-Identifier: MIT
"""Commands that wait for approval."""

from __future__ import annotations

import msgspec
import pytest

from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState
from hsm_core.operations import CreateKey, DestroyKey, GetApproval, RotateKey
from hsm_core.testing import caller
from tests.cli.support import Shell
from tests.client.asking import ID, Asking

_S = ApprovalState


@pytest.fixture
def asking(gateway: OpenHSM) -> Asking:
    """Give an HSM that asks before it destroys keys."""
    hsm = gateway.act_as(caller())
    hsm.execute(CreateKey(algorithm="AES-256-GCM", name="k"))
    return Asking(hsm, kinds=(DestroyKey,))


def test_commands(asking: Asking, shell: Shell) -> None:
    """--wait may stand before and after a command; its idempotency key stays one."""
    shell.hsm, asking.kinds = asking, (RotateKey,)
    for words in (
        ("--wait", "rotate", "k"),
        ("rotate", "k", "--wait"),
        ("rotate", "k", "--wait-seconds", "5"),
        ("--wait-seconds", "5", "rotate", "k"),
    ):
        asking.approval = msgspec.structs.replace(asking.approval, state=_S.PENDING)
        asking.steps, asking.keys = [_S.GRANTED], []
        outcome = shell(*words)

        assert 0 == outcome.code, outcome.err
        assert f"waiting for approval {ID}" in outcome.err
        assert 2 == len(asking.keys)
        assert 1 == len(set(asking.keys))


def test_not_waited(asking: Asking, shell: Shell) -> None:
    """Without --wait the exit code is 11, with advice."""
    shell.hsm = asking

    outcome = shell("destroy", "k", "--yes")

    assert (11, b"") == (outcome.code, outcome.out)
    assert (
        f"approval request {ID}: DestroyKey, missing: 1 more of Auditor" in outcome.err
    )
    assert f"hsm-cli approvals approve {ID}" in outcome.err
    assert not any(isinstance(o, GetApproval) for o in asking.received)


def test_not_waited_as_json(asking: Asking, shell: Shell) -> None:
    """The JSON error has the complete approval request."""
    shell.hsm = asking

    outcome = shell("--json", "destroy", "k", "--yes")

    error = msgspec.json.decode(outcome.err)
    assert (11, "approval_required") == (outcome.code, error["code"])
    assert asking.approval.digest == error["approval"]["digest"]
    assert "DestroyKey" == error["approval"]["operation"]["kind"]


def test_given_up(asking: Asking, shell: Shell) -> None:
    """A time-out exits with 11, a closed request with 13."""
    shell.hsm = asking

    assert 11 == shell("destroy", "k", "--yes", "--wait-seconds", "0").code
    asking.steps = [_S.EXPIRED]
    ended = shell("destroy", "k", "--yes", "--wait")
    assert 13 == ended.code
    assert "is expired. [approval_ended]" in ended.err


def test_nothing_to_wait_for(shell: Shell) -> None:
    """--wait has no effect if no approval is required."""
    shell.ok("--wait", "list")
    shell.ok("list", "--wait")
