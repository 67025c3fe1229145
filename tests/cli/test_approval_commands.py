# SPDX-License-Identifier: MIT
"""The commands below ``approvals``: what is agreed to is what was shown."""

from __future__ import annotations

import base64
import os
import subprocess
from hashlib import sha384
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hsm_core.consent import (
    ShownContext,
    ShownField,
    ShownOperation,
    hidden_sha256,
    shown_sha256,
    statement,
)
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState, Role
from hsm_core.operations import Approve, Deny, ListApprovals, Withdraw
from hsm_core.testing import caller
from tests.cli.support import Shell
from tests.client.asking import ID, SALT, Asking, asked
from tests.support import require_program

FIELDS = (
    ShownField(name="key_id", text="3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"),
    ShownField(name="note", text="red\x1b[31m \u202egnp.exe"),
    ShownField(name="flag", number=1),
    ShownField(name="message", data=b"attack at dawn"),
    ShownField(name="long", data=b"attack at dawn" * 4),
    ShownField(name="binary", data=b"\xff\x00"),
    ShownField(name="tricky", data="a\u202eb".encode()),
    ShownField(name="lines", data=b"a\nb"),
    ShownField(
        name="plaintext", length=6, sha256=hidden_sha256(SALT, "plaintext", b"secret")
    ),
    ShownField(name="days"),
)
Key = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@pytest.fixture
def asking(gateway: OpenHSM, shell: Shell) -> Asking:
    """Give an HSM with one approval request, used by the shell."""
    shell.hsm = asking = Asking(gateway.act_as(caller()), approval=asked(*FIELDS))
    return asking


def sent(asking: Asking) -> Approve:
    """Return the one decision that was sent."""
    (found,) = [o for o in asking.received if isinstance(o, Approve)]
    return found


def consents(asking: Asking) -> int:
    """Return the number of decisions that were sent."""
    return sum(isinstance(o, Approve) for o in asking.received)


def test_list(asking: Asking, shell: Shell) -> None:
    """The list shows open approval requests, with missing approvals."""
    outcome = shell.ok("approvals", "list")
    wide = shell.ok("approvals", "list", "--format", "wide").text

    assert outcome.lines[0].split()[:2] == ["KEY", "ID"]
    shown = f"release-signer  {ID[:8]}  DestroyKey  alice      pending"
    assert shown in outcome.text
    assert ID in wide
    assert "1 more of Auditor" in wide
    assert asking.received[0] == asking.received.pop()
    assert asking.received == [
        ListApprovals(
            states=(
                ApprovalState.PENDING,
                ApprovalState.GRANTED,
                ApprovalState.RESERVED,
            )
        )
    ]


def test_list_filters(asking: Asking, shell: Shell) -> None:
    """Every filter is sent; --all selects every state."""
    shell.ok("approvals", "list", "--state", "Denied,expired", "--requester", "alice")
    shell.ok("approvals", "list", "--all", "--kind", "Sign", "--key-id", "k")
    refused = shell("approvals", "list", "--all", "--state", "denied")

    assert 2 == refused.code
    assert asking.received == [
        ListApprovals(
            states=(ApprovalState.DENIED, ApprovalState.EXPIRED), requester="alice"
        ),
        ListApprovals(kind="Sign", key_id="k"),
    ]


def test_show(asking: Asking, shell: Shell) -> None:
    """Fields are shown in full or by hash, without active terminal characters."""
    outcome = shell.ok("approvals", "show", ID)
    text = " ".join(outcome.text.split())

    for part in (
        "operation DestroyKey",
        "meaning Destroy all key material, immediately or",
        "requester alice",
        "current version 2",
        f"digest {asking.approval.digest}",
        r"note text red\x1b[31m \u202egnp.exe",
        "flag number 1",
        f"message 14 bytes hex {b'attack at dawn'.hex()}, text attack at dawn",
        f"base64 {base64.b64encode(b'attack at dawn' * 4).decode()}, text attack",
        "binary 2 bytes hex ff00 tricky 5 bytes hex 61e280ae62 lines",
        "lines 3 bytes hex 610a62 plaintext",
        f"plaintext 6 bytes not shown, salted SHA-256 {FIELDS[8].sha256}",
        "days empty",
    ):
        assert part in text
    assert "\x1b" not in outcome.text
    assert "\u202e" not in outcome.text


def test_show_the_context(asking: Asking, shell: Shell) -> None:
    """The request shows requester, changes and lifted rules, most important first."""
    fields = (
        ShownField(name="key_id", text="3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"),
        ShownField(name="wrapping_key_id", text="0b6f7a3e"),
        ShownField(name="tags", number=1),
        ShownField(name="tags.0", text="prod"),
    )
    context = ShownContext(
        requester_roles=(Role.ADMINISTRATOR,),
        requester_address="10.1.2.3",
        requester_certificate="CN=alice",
        requester_certificate_sha256="41" * 32,
        owner="carol\u202e",
        tags=("dual", "prod"),
        versions=2,
        before=(
            ShownField(name="tags", number=2),
            ShownField(name="tags.0", text="dual"),
            ShownField(name="tags.1", text="prod"),
        ),
        names=(ShownField(name="wrapping_key_id", text="transport"),),
        frees_from=("dual-control", "dual-export"),
        undoable=True,
        undo="It can be undone, with UpdateKey.",
    )
    asking.approval = asked(*fields, kind="UpdateKey", context=context)
    outcome = shell.ok("approvals", "show", ID)
    text = " ".join(outcome.text.split())

    assert outcome.lines[0] == (
        "alice asks to change release-signer (ECDSA-P256, 2 versions, never used). "
        "It can be undone, with UpdateKey."
    )
    for part in (
        "tags dual, prod prod removed: dual",
        "requester's roles Administrator",
        "requester's address 10.1.2.3",
        f"requester's certificate CN=alice, SHA-256 {'41' * 32}",
        r"key's owner carol\u202e",
        "key's tags dual, prod",
        "key last used never",
        "rules lifted dual-control, dual-export",
        "wrapping_key_id text 0b6f7a3e (transport)",
        "(release-signer)",
    ):
        assert part in text
    assert text.index("removed: dual") < text.index("requester's roles")


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (ShownField(name="message", data=b"pay 5"), "message"),
        (
            ShownField(
                name="items.1.message",
                length=5,
                sha256=hidden_sha256(SALT, "items.1.message", b"pay 5"),
            ),
            "items.1.message",
        ),
        (ShownField(name="digest", data=sha384(b"pay 5").digest()), "digest"),
        (ShownField(name="message", data=b"pay 50"), ""),
        (
            ShownField(
                name="message",
                length=5,
                sha256=hidden_sha256(SALT, "message", b"pay 6"),
            ),
            "",
        ),
        (ShownField(name="digest", data=sha384(b"pay 6").digest()), ""),
        (ShownField(name="note", text="pay 5"), ""),
    ],
    ids=["bytes", "hidden", "digest", "others", "hidden others", "another", "none"],
)
def test_show_compares_a_file(
    asking: Asking, shell: Shell, tmp_path: Path, field: ShownField, found: str
) -> None:
    """--file compares a file with the payload to be signed."""
    path = tmp_path / "payment"
    path.write_bytes(b"pay 5")
    asking.approval = asked(field, ShownField(name="hash", text="SHA-384"), kind="Sign")

    outcome = shell("approvals", "show", ID, "--file", str(path))

    assert (0 if found else 6) == outcome.code
    if found:
        assert f"matches the request ({found})" in outcome.err
        assert "alice asks to sign with release-signer" in outcome.text
    else:
        assert "does not match the request" in outcome.err
    assert 2 == shell("approvals", "show", ID, "--file", "x", "--statement").code


@pytest.mark.parametrize(
    ("kind", "fields", "code", "said"),
    [
        ("Sign", {"message": b"EVIL", "context": b"pay 5"}, 6, "does not match"),
        ("Encrypt", {"plaintext": b"EVIL", "aad": b"pay 5"}, 2, "not Encrypt"),
        ("ComputeMac", {"message": b"pay 5"}, 2, "not ComputeMac"),
        (
            "SignBatch",
            {"items.0.message": b"EVIL", "items.1.message": b"pay 5"},
            6,
            "is item 2 of 2 ",
        ),
        ("SignBatch", {"items.0.message": b"pay 5"}, 0, "(items.0.message)"),
        (
            "SignBatch",
            {"items.0.digest": sha384(b"pay 5").digest()},
            0,
            "(items.0.digest)",
        ),
    ],
)
def test_what_is_compared_with_a_file(
    asking: Asking,
    shell: Shell,
    tmp_path: Path,
    kind: str,
    fields: dict[str, bytes],
    code: int,
    said: str,
) -> None:
    """--file compares all signed data, and nothing else."""
    path = tmp_path / "payment"
    path.write_bytes(b"pay 5")
    shown = [ShownField(name=name, data=data) for name, data in fields.items()]
    shown.append(ShownField(name="hash", text="SHA-384"))
    if kind == "SignBatch":
        shown.append(ShownField(name="items", number=len(fields)))
    asking.approval = asked(*shown, kind=kind)

    outcome = shell("approvals", "show", ID, "--file", str(path))

    assert code == outcome.code
    assert said in outcome.err


def test_show_on_a_terminal(asking: Asking, shell: Shell) -> None:
    """On a terminal the fields are a table without active characters."""
    outcome = shell("--no-color", "approvals", "show", ID, terminal=True)

    assert "FIELD" in outcome.text
    assert r"red\x1b[31m" in outcome.text
    assert "\u202e" not in outcome.text


def test_show_as_json(asking: Asking, shell: Shell) -> None:
    """JSON output is the complete request, from which the digest can be computed."""
    outcome = shell.ok("approvals", "show", ID, "--json")

    tree = outcome.json
    shown = msgspec.convert(tree["operation"], ShownOperation)
    assert tree["digest"] == shown_sha256(base64.b64decode(tree["salt"]), shown)


@pytest.mark.parametrize("words", [(ID,), ("--approval-id", ID)])
def test_approve(asking: Asking, shell: Shell, words: tuple[str, ...]) -> None:
    """The request is shown, and approved after the answer yes."""
    approve = ("approvals", "approve", *words, "--comment", "ok")
    outcome = shell(*approve, stdin=b"yes\n", typing=True)

    assert 0 == outcome.code
    assert "Approve?" in outcome.err
    assert "attack at dawn" in outcome.err
    assert "state            granted" in outcome.text
    assert Approve(approval_id=ID, digest=asking.approval.digest, comment="ok") == sent(
        asking
    )


def test_approve_without_a_terminal(asking: Asking, shell: Shell) -> None:
    """Without a terminal there is no prompt; the request is printed with its digest."""
    outcome = shell("approvals", "approve", "--approval-id", ID)

    digest = asking.approval.digest
    assert 0 == outcome.code
    assert "attack at dawn" in outcome.err
    assert digest in outcome.err
    assert "Approve?" not in outcome.err
    assert Approve(approval_id=ID, digest=digest) == sent(asking)


@pytest.mark.parametrize("stdin", [b"", b"no\n", b"y\n", b"\n"])
def test_no_yes(asking: Asking, shell: Shell, stdin: bytes) -> None:
    """Without the answer yes, nothing is sent."""
    outcome = shell("approvals", "approve", ID, stdin=stdin, typing=True)

    assert (2, 0) == (outcome.code, consents(asking))
    assert "Nothing was sent" in outcome.err


def test_shown_differently(asking: Asking, shell: Shell) -> None:
    """
    A request whose digest differs from the server's is not approved.
    """
    harmless = msgspec.structs.replace(asking.approval.operation, kind="DescribeKey")
    asking.approval = msgspec.structs.replace(asking.approval, operation=harmless)

    for words in (("show", ID), ("approve", ID, "--yes")):
        outcome = shell("approvals", *words)
        assert 7 == outcome.code
        assert "[shown_differently]" in outcome.err
    assert 0 == consents(asking)


def test_half_shown(asking: Asking, shell: Shell) -> None:
    """A request with an ambiguous field is not approved."""
    field = ShownField(name="a", text="harmless", data=b"not")
    asking.approval = asked(field)

    outcome = shell("approvals", "approve", ID, "--yes")

    assert (2, 0) == (outcome.code, consents(asking))


def test_part_of_it_as_salt(asking: Asking, shell: Shell) -> None:
    """A salt of another length, which could hide a part of the request, is refused."""
    asking.approval = msgspec.structs.replace(asking.approval, salt=SALT + b"x")

    outcome = shell("approvals", "approve", ID, "--yes")

    assert (2, 0) == (outcome.code, consents(asking))
    assert "salt must be 32 bytes" in outcome.err


def test_another_approval(asking: Asking, shell: Shell) -> None:
    """A response with a different approval request is refused."""
    other = ID.replace("5", "6")

    outcome = shell("approvals", "approve", other, "--yes")

    assert (2, 0) == (outcome.code, consents(asking))


def test_digest_given(asking: Asking, shell: Shell) -> None:
    """--digest requires the digest that the approver saw elsewhere."""
    refused = shell("approvals", "approve", ID, "--yes", "--digest", "00" * 32)
    agreed = shell(
        "approvals", "approve", ID, "--yes", "--digest", asking.approval.digest
    )

    assert (2, 0, 1) == (refused.code, agreed.code, consents(asking))


def test_deny(asking: Asking, shell: Shell) -> None:
    """A denial has a reason, prompted for on a terminal if it is missing."""
    deny = ("approvals", "deny", ID)
    assert 2 == shell(*deny, typing=True).code
    assert 2 == shell(*deny, stdin=b" \n", typing=True).code
    assert 0 == len(asking.received)
    assert 0 == shell(*deny, stdin=b"too early\n", typing=True).code
    assert [Deny(approval_id=ID, reason="too early")] == asking.received
    asking.received.clear()
    assert 0 == shell("approvals", "deny", "--approval-id", ID).code
    assert [Deny(approval_id=ID, reason="no reason given")] == asking.received
    asking.received.clear()
    outcome = shell.ok("approvals", "deny", ID, "--reason", "not before Friday")

    assert "bob denied 2026-01-02T03:04:05Z, not before Friday" in outcome.text
    assert asking.received == [Deny(approval_id=ID, reason="not before Friday")]


def test_withdraw(asking: Asking, shell: Shell) -> None:
    """An approver can withdraw an approval, with or without a reason."""
    shell("approvals", "approve", ID, "--yes")
    outcome = shell.ok("approvals", "withdraw", ID, "--reason", "too early")

    assert "withdrawn" in outcome.text
    assert asking.received[-1] == Withdraw(approval_id=ID, reason="too early")


def test_cancel(asking: Asking, shell: Shell) -> None:
    """Only the requester can cancel a request."""
    outcome = shell("approvals", "cancel", ID)

    assert 3 == outcome.code


def test_no_id(asking: Asking, shell: Shell) -> None:
    """The ID is required, and may be given only once."""
    assert 2 == shell("approvals", "show").code
    assert 2 == shell("approvals", "show", ID, "--approval-id", ID).code
    assert 2 == shell("approvals", "show", "not-an-id").code


# Signatures

ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
P256 = ec.derive_private_key(1234567890123456789, ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
FORMS = {
    "pkcs8": serialization.PrivateFormat.PKCS8,
    "openssh": serialization.PrivateFormat.OpenSSH,
}


def key_file(folder: Path, key: Key, form: str, passphrase: bytes = b"") -> str:
    """Write a private key, encrypted or not; return where it is."""
    encryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    path = folder / f"{form}.key"
    written = key.private_bytes(serialization.Encoding.PEM, FORMS[form], encryption)
    path.touch(mode=0o600)
    path.write_bytes(written)
    return str(path)


def check(asking: Asking, key: Key) -> None:
    """Check that the decision was signed with a key."""
    consent, digest = sent(asking), asking.approval.digest
    message = statement(ID, digest, granted=True)
    assert consent.signature is not None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        key.public_key().verify(consent.signature, message)
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        signature = consent.signature
        key.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", [ED25519, P256], ids=["ed25519", "p256"])
def test_sign_with(
    asking: Asking, shell: Shell, tmp_path: Path, key: Key, form: str
) -> None:
    """The digest of what was shown is signed with a key of one's own."""
    path = key_file(tmp_path, key, form)

    outcome = shell("approvals", "approve", ID, "--yes", "--sign-with", path)

    assert 0 == outcome.code, outcome.err
    assert "warning" not in outcome.err
    check(asking, key)


@pytest.mark.parametrize("form", FORMS)
def test_encrypted_key(
    asking: Asking,
    shell: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    """A passphrase comes from a file, a descriptor, the environment or a terminal."""
    path = key_file(tmp_path, ED25519, form, b"open sesame")
    words = ("approvals", "approve", ID, "--yes", "--sign-with", path)
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text("open sesame\n")

    assert 0 == shell(*words, "--passphrase", f"@{secret}").code
    descriptor = os.open(secret, os.O_RDONLY)
    assert 0 == shell(*words, "--passphrase", f"fd:{descriptor}").code
    monkeypatch.setenv("FERROHSM_PASSPHRASE", "open sesame")
    assert 0 == shell(*words).code
    assert 3 == consents(asking)
    monkeypatch.setenv("FERROHSM_PASSPHRASE", "open barley")
    wrong = shell(*words)
    assert (2, True) == (wrong.code, "passphrase is wrong" in wrong.err)
    monkeypatch.delenv("FERROHSM_PASSPHRASE")
    assert 2 == shell(*words).code
    argument = shell(*words, "--passphrase", "open sesame")
    assert (2, True) == (argument.code, "@FILE or fd:N" in argument.err)
    assert 3 == consents(asking)


def test_key_of_another_kind(asking: Asking, shell: Shell, tmp_path: Path) -> None:
    """Other types of keys, and files without a key, are refused before any request."""
    p384 = ec.generate_private_key(ec.SECP384R1())
    nothing = tmp_path / "nothing"
    nothing.write_bytes(b"nothing")
    for path in (
        key_file(tmp_path, RSA, "pkcs8"),
        key_file(tmp_path, p384, "openssh"),
        str(nothing),
    ):
        outcome = shell("approvals", "approve", ID, "--yes", "--sign-with", path)
        assert (2, 0) == (outcome.code, consents(asking))
        assert "Ed25519 or ECDSA P-256 private key" in outcome.err


def test_shared_key(asking: Asking, shell: Shell, tmp_path: Path) -> None:
    """A signing key that other users may read causes a warning."""
    path = Path(key_file(tmp_path, ED25519, "pkcs8"))
    path.chmod(0o644)

    outcome = shell("approvals", "approve", ID, "--yes", "--sign-with", str(path))

    assert "warning: other users can read" in outcome.err


def test_signature_made_elsewhere(asking: Asking, shell: Shell, tmp_path: Path) -> None:
    """ssh-keygen can sign what show --statement prints."""
    program = require_program("ssh-keygen")
    text = shell.ok("approvals", "show", ID, "--statement").out
    assert statement(ID, asking.approval.digest, granted=True) == text
    (tmp_path / "statement").write_bytes(text)
    path = key_file(tmp_path, ED25519, "openssh")
    subprocess.run(
        [program, "-Y", "sign", "-f", path, "-n", "ferrohsm-approval", "statement"],
        cwd=tmp_path,
        check=True,
        timeout=60,
        capture_output=True,
    )
    signature = str(tmp_path / "statement.sig")

    outcome = shell("approvals", "approve", ID, "--yes", "--signature", signature)
    both = shell(
        "approvals", "approve", ID, "--signature", signature, "--sign-with", path
    )

    assert (0, 2) == (outcome.code, both.code)
    assert (tmp_path / "statement.sig").read_bytes() == sent(asking).signature
