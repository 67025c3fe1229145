# SPDX-License-Identifier: MIT
"""Whether a server that was killed still has everything that was acknowledged."""

import base64
import random
import time
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests.e2e.https import Answer
from tests.faults.client import JournalingClient
from tests.faults.consents import ExpectedApproval
from tests.faults.expectation import ExpectedKey, Use, check

_JUDGES: Final = {
    "Sign": ("verify", "message", "signature"),
    "ComputeMac": ("mac/verify", "message", "mac"),
    "Encrypt": ("decrypt", "", "ciphertext"),
}
_SETTLING_SECONDS: Final = 30.0


class Examiner:
    """
    Compares what a server has with what one client expects.

    Args:
        client: Whose journal is the measure.

        seed: Of the choice of samples.
    """

    def __init__(self, client: JournalingClient, seed: str) -> None:
        self._client = client
        self._random = random.Random(seed)
        self._public_keys: dict[tuple[str, int], Any] = {}
        self._seen: dict[str, int] = {}
        self.checked = 0

    def examine(self, *, everything: bool) -> None:
        """
        Check keys, versions, states, and what was signed or encrypted.

        Args:
            everything: Whether all uses are tried again on the server, not only the
                new ones and a sample of the others.

        Raises:
            Violation: Something that was acknowledged is not there, or something is
                there that nobody asked for.
        """
        for key in self._client.expected.keys.values():
            if not key.is_destroyed or everything or self._random.random() < 0.1:
                self._examine_facts(key)
                self._examine_versions(key)
            self._examine_uses(key, everything=everything)
        for approval in self._client.expected.approvals.values():
            if approval.is_open or everything or self._random.random() < 0.2:
                self._examine_approval(approval)
        for name, uses in self._client.expected.shared_uses.items():
            sample = uses if everything else self._sample(f"shared {name}", uses)
            for use in sample:
                self._try_again(self._client.expected.key_id(name), use)

    def _examine_facts(self, key: ExpectedKey) -> None:
        answer = self._client.request("GET", f"/keys/{key.key_id}")
        check(answer.status == 200, "an acknowledged key is gone", key, answer)
        info = answer.json
        expected = {
            "name": key.name,
            "algorithm": key.algorithm,
            "version": len(key.versions),
            "state": key.current.state,
            "generation": key.generation,
            "integrity": "ok",
            "description": key.description,
            "hold": key.hold,
        }
        found = {name: info.get(name, "") for name in expected}
        check(expected == found, "a key is not as acknowledged", expected, found)
        self.checked += 1

    def _examine_versions(self, key: ExpectedKey) -> None:
        items = self._client.request("GET", f"/keys/{key.key_id}/versions").json[
            "items"
        ]
        states = [item["state"] for item in items]
        expected = [version.state for version in key.versions]
        check(expected == states, "versions are not as acknowledged", expected, states)
        check(
            _classes([version.material for version in key.versions])
            == _classes([item["material_id"] for item in items]),
            "versions do not share material as they should",
            key,
            items,
        )
        kept = {number: items[number - 1].get("retain_until") for number in key.kept}
        check(
            key.is_destroyed or kept == key.kept,
            "a version is kept for another time than was acknowledged",
            key.versions,
            key.kept,
            kept,
        )
        check(
            all(item["integrity"] == "ok" for item in items),
            "a version is damaged",
            items,
        )
        self.checked += len(items)

    def _examine_approval(self, approval: ExpectedApproval) -> None:
        """Check where an approval stands; one that was used up serves nothing more."""
        answer = self._approval(approval)
        give_up = time.monotonic() + _SETTLING_SECONDS
        # One whose operation had an unknown outcome at first is settled a little later.
        while answer.json["state"] == "reserved" and time.monotonic() < give_up:
            time.sleep(0.1)
            answer = self._approval(approval)
        check(
            answer.json["state"] == approval.state,
            "an approval is not as acknowledged",
            approval,
            answer.json,
        )
        self.checked += 1
        if approval.is_open:
            return
        again = self._client.request_again(approval)
        check(400 <= again.status < 500, "an approval served twice", approval, again)

    def _approval(self, approval: ExpectedApproval) -> Answer:
        answer = self._client.request("GET", f"/approvals/{approval.approval_id}")
        check(answer.status == 200, "an approval is gone", approval, answer)
        return answer

    def _examine_uses(self, key: ExpectedKey, *, everything: bool) -> None:
        good = key.processable()
        for use in good if everything else self._sample(key.name, good):
            self._try_again(key.key_id, use)

    def _sample(self, name: str, uses: list[Use]) -> list[Use]:
        """Return the uses that came since the last time, and some older ones."""
        seen = min(self._seen.get(name, 0), len(uses))
        self._seen[name] = len(uses)
        older = self._random.sample(uses[:seen], min(seen, 3))
        return older + uses[seen:][-20:]

    def _try_again(self, key_id: str, use: Use) -> None:
        path, source, output = _JUDGES[use.kind]
        body: dict[str, object] = {output: _text(use.output)}
        if source:
            # Without a number the newest version of the same material would do.
            body |= {source: _text(use.message), "version": use.version}
        answer = self._client.request("POST", f"/keys/{key_id}/{path}", body)
        check(answer.status == 200, "an acknowledged output is refused", use, answer)
        result = answer.json
        check(result["version"] == use.version, "another version made it", use, result)
        if use.kind == "Encrypt":
            plaintext = base64.b64decode(result["plaintext"])
            check(plaintext == use.message, "another plaintext came out", use)
        if use.kind == "Sign":
            self._verify_offline(key_id, use)
        self.checked += 1

    def _verify_offline(self, key_id: str, use: Use) -> None:
        public_key = self._public_key(key_id, use.version)
        try:
            if isinstance(public_key, ed25519.Ed25519PublicKey):
                public_key.verify(use.output, use.message)
            else:
                public_key.verify(use.output, use.message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            check(False, "a signature does not verify offline", key_id, use)

    def _public_key(self, key_id: str, version: int) -> Any:
        found = self._public_keys.get((key_id, version))
        if found is None:
            path = f"/keys/{key_id}/public-key?version={version}"
            answer = self._client.request("GET", path)
            check(answer.status == 200, "a public key is gone", key_id, answer)
            found = load_der_public_key(base64.b64decode(answer.json["der"]))
            self._public_keys[key_id, version] = found
        return found


def _classes(labels: list[Any]) -> list[int]:
    """Return, for each label, where it came first."""
    return [labels.index(label) for label in labels]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
