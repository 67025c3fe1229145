# SPDX-License-Identifier: MIT
"""
Random requests, each answered by a plan and by the pipeline without plans.

Between them keys, policy and time change. Both ways must give the same answer or error,
the same records, and count the same uses; only what is random by nature may differ.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias
from unittest.mock import patch

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.pipeline.plans import Plans
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core.algorithms import CiphertextEncoding, HashAlgorithm, SignatureEncoding
from hsm_core.errors import AuthenticationError, HSMError
from hsm_core.factory import OpenHSM
from hsm_core.model import Role
from hsm_core.policies import parse_policy
from hsm_core.protocols import Request
from hsm_core.testing import FakeClock, caller, memory_hsm

__all__ = ["TwoWays", "open_two_ways"]

_OPEN: Final = "version: 1\nextends: default\n"
_RULES: Final = (
    "",
    "  - {name: no-red, effect: deny, match: {operations: [use], tags: [red]}}\n",
    "  - name: night\n    effect: deny\n"
    "    match: {operations: [Sign, Encrypt], time: {from: '22:00', to: '06:00'}}\n",
    "  - {name: eve, effect: deny, match: {operations: [use], principals: [eve]}}\n",
    "  - name: second\n    effect: require-approval\n"
    "    match: {operations: [Sign], tags: [red]}\n"
    "    approval: {quorum: 1, roles: [Operator]}\n",
)
_ENGINES: Final = tuple(
    RuleEngine(parse_policy(_OPEN + (f"rules:\n{rules}" if rules else "")))
    for rules in _RULES
)
_ALGORITHMS: Final = (
    *("EC-P256", "EC-P256", "Ed25519", "RSA-2048", "AES-256-GCM", "AES-256-GCM"),
    *("ChaCha20-Poly1305", "HMAC-SHA-256", "ML-KEM-768", "ML-DSA-44"),
)
_ADA: Final = caller(principal="ada")
_CALLERS: Final = (
    _ADA,
    caller(Role.SERVICE, principal="eve"),
    msgspec.structs.replace(caller(Role.SERVICE, principal="eve"), request_id="r-1"),
    msgspec.structs.replace(_ADA, request_id='quo"te \N{SNOWMAN}\u200b'),
    msgspec.structs.replace(_ADA, source_address="192.0.2.7"),
    msgspec.structs.replace(_ADA, single_use=True),
    msgspec.structs.replace(_ADA, deadline=1e9),
    msgspec.structs.replace(_ADA, deadline=1e-9),
    caller(Role.AUDITOR, principal="otto"),
)
_PAYLOADS: Final = (b"", b"a", b"m" * 100, b"k" * 1024, b"d" * 32, b"x" * 70_000)
_ODD: Final[tuple[Any, ...]] = (None, "text", 7, bytearray(b"a"), memoryview(b"abc"))
_RANDOM: Final = frozenset({"signature", "ciphertext", "shared_secret"})
"""Fields of answers that differ between two uses of one key."""

_OWN: Final = frozenset({"seq", "prev", "time", "facts"})
"""Fields of records that differ between two records of one request."""

_ONCE: Final = frozenset({"system.approval-requested", "system.approval-expired"})
"""Kinds of records that only the first of two equal requests, or none, has."""

Said: TypeAlias = tuple[Any, list[Any], dict[str, Any]]


class _NoPlans(Plans):
    """Plans that nobody makes."""

    def __init__(self) -> None:
        """Need nothing."""

    def run(self, request: Request, *, at_once: bool = False) -> None:
        """Find no plan."""

    def learn(self, *_: object) -> None:
        """Make none."""


class TwoWays:
    """
    An HSM, and random requests to it.

    Args:
        gateway: The HSM.

        clock: Its clock.

        seed: What makes the requests.

    Attributes:
        tried: How many requests were compared.
        by_plan: How many of them a plan answered.
    """

    def __init__(self, gateway: OpenHSM, clock: FakeClock, seed: int) -> None:
        self._random = random.Random(seed)
        self._gateway = gateway
        self._clock = clock
        self._pipeline = gateway._pipeline  # noqa: SLF001 (to take its plans away)
        self._loop = asyncio.new_event_loop()
        self._keys: list[str] = []
        self._fit = ""
        self._signed: dict[str, list[tuple[bytes, bytes]]] = {}
        self._sealed: dict[str, list[tuple[bytes, bytes]]] = {}
        self.tried = self.by_plan = 0
        for number, algorithm in enumerate(_ALGORITHMS):
            made = self._do(ops.CreateKey(algorithm=algorithm, name=f"key-{number}"))
            self._keys += (made.key_id, f"key-{number}")

    def close(self) -> None:
        """Let go of the event loop."""
        self._loop.close()

    def step(self) -> None:
        """Change something, or compare the answers to a request."""
        if self._random.random() < 0.03:
            self._change()
            return
        operation = self._operation()
        request = Request(self._random.choice(_CALLERS), operation, **self._options())
        if self._random.random() < 0.5:
            self._ask(request)  # So that there is a plan, if there can be one.
        self._compare(request)

    def _compare(self, request: Request) -> None:
        ask = self._random.choice([self._ask, self._ask_later])
        before = self.by_plan
        planned = self._said(ask, request)
        was_planned = self.by_plan > before
        with patch.object(self._pipeline, "plans", _NoPlans()):
            plain = self._said(self._ask, request)
        assert plain == planned, (request.operation, plain, planned)
        self.tried += 1
        if was_planned and isinstance(plain[0], tuple) and plain[0][:1] == ("error",):
            assert request.check is not None  # Plans answer nothing else but success.

    def _said(self, ask: Callable[[Request], Any], request: Request) -> Said:
        """Return an answer without its random parts, its records, and uses."""
        start = self._gateway._services.audit.head().seq + 1  # noqa: SLF001
        before = self._uses(request)
        answer = ask(request)
        after = self._uses(request)
        log = ops.ListAuditEvents(start_seq=start, ascending=True, limit=1000)
        found = [entry.event for entry in self._do(log).items]
        records = [
            {k: v for k, v in msgspec.to_builtins(e).items() if k not in _OWN}
            for e in found
            if e.kind not in _ONCE
        ]
        for record in records:
            for name in ("bind", "operation_id"):
                record[name] = bool(record.get(name))
            record["parameters"] = list(record.get("parameters", {}).items())
        uses = {name: after[name] - before[name] for name in after}
        return _plain(answer), records, uses

    def _uses(self, request: Request) -> dict[str, int]:
        inventory = self._gateway._services.inventory  # noqa: SLF001
        accounts = self._gateway._services.uses  # noqa: SLF001
        document = inventory.known(getattr(request.operation, "key_id", ""))
        if document is None:
            return {}
        found = {}
        for version in document.versions:
            counts = accounts.account_of(document, version).counts()
            found[f"{version.version}"] = counts.uses
            found[f"{version.version} bytes"] = counts.size
        return found

    def _ask(self, request: Request) -> Any:
        try:
            return self._pipeline.execute(request)
        except HSMError as error:
            return ("error", type(error).__name__, str(error), error.facts)

    def _ask_later(self, request: Request) -> Any:
        """Ask under an event loop."""
        return self._loop.run_until_complete(self._asked(request))

    async def _asked(self, request: Request) -> Any:
        (answer,) = self._gateway.act_as_async().execute_many([request])
        try:
            return await answer
        except HSMError as error:
            return ("error", type(error).__name__, str(error), error.facts)

    def _do(self, operation: ops.Operation[Any]) -> Any:
        return self._gateway.act_as(_ADA).execute(operation)

    # What is asked

    def _options(self) -> dict[str, Any]:
        drawn = self._random.random()
        if drawn < 0.02:
            return {"idempotency_key": "again"}
        if drawn < 0.04:
            return {"expected_generation": 3}
        if drawn < 0.06:
            return {"approval_id": "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"}
        if drawn < 0.1:
            return {"check": _expired}
        return {}

    def _payload(self) -> Any:
        odd = self._random.random() < 0.02
        return self._random.choice(_ODD if odd else _PAYLOADS)

    def _number(self) -> Any:
        return self._random.choice([*[None] * 6, 1, 1, 2, True, 1.0, 9])

    def _operation(self) -> ops.Operation[Any]:
        """Return an operation, mostly one that the key is for."""
        at = self._random.randrange(len(self._keys))
        key, algorithm = self._keys[at], _ALGORITHMS[at // 2]
        if self._random.random() < 0.05:
            key = self._random.choice(["absent", ""])
        signing = [self._sign, self._sign, self._verify, self._batch]
        ciphers = [self._encrypt, self._decrypt, self._batch]
        others = [self._mac, self._verify_mac, self._batch]
        kems = [self._kem, self._encrypt, self._decrypt]
        makers = [*signing, *ciphers, *others, *kems]
        if self._random.random() < 0.85:
            fitting = {"H": others, "A": ciphers, "C": ciphers}
            makers = fitting.get(algorithm[0], signing)
            makers = kems if algorithm.startswith("ML-KEM") else makers
            self._fit = algorithm[0]
        return self._random.choice(makers)(key)

    def _signature_parameters(self) -> dict[str, Any]:
        choose = self._random.choice
        return {
            "hash": choose([*[None] * 6, HashAlgorithm.SHA_256, "SHA-256", "SHA-384"]),
            "encoding": choose([*[None] * 6, *SignatureEncoding]),
            "context": choose([*[b""] * 6, b"c"]),
        }

    def _sign(self, key: str) -> ops.Operation[Any]:
        field = self._random.choice([*["message"] * 5, "digest", "mu"])
        fields: dict[str, Any] = {field: self._payload()}
        if self._random.random() < 0.03:
            fields["digest"] = b"d" * 32
        return ops.Sign(key_id=key, **fields, **self._signature_parameters())

    def _verify(self, key: str) -> ops.Operation[Any]:
        number = self._number()
        known = self._signed.setdefault(key, [])
        if len(known) < 3 or self._random.random() < 0.05:
            message = self._random.choice(_PAYLOADS)
            made = self._ask(Request(_ADA, ops.Sign(key_id=key, message=message)))
            if isinstance(made, ops.Signature):
                known.append((message, made.signature))
        message, signature = self._random.choice([*known, (b"a", b"b" * 64)])
        return ops.Verify(
            key_id=key, message=message, signature=signature, version=number
        )

    def _encrypt(self, key: str) -> ops.Operation[Any]:
        encoding = self._random.choice([*CiphertextEncoding, *[_ENVELOPE] * 4])
        aad = self._random.choice([b"", b"", b"aad", b"y" * 70_000])
        if self._random.random() < 0.2:
            return ops.Seal(key_id=key, plaintext=self._payload(), aad=aad)
        return ops.Encrypt(
            key_id=key, plaintext=self._payload(), aad=aad, encoding=encoding
        )

    def _decrypt(self, key: str) -> ops.Operation[Any]:
        known = self._sealed.setdefault(key, [])
        if len(known) < 3 or self._random.random() < 0.05:
            aad = self._random.choice([b"", b"aad"])
            for kind in (ops.Encrypt, ops.Seal):
                sent = kind(key_id=key, plaintext=b"p" * 50, aad=aad)
                made = self._ask(Request(_ADA, sent))
                if isinstance(made, ops.Ciphertext):
                    known.append((made.ciphertext, aad))
        whole, aad = self._random.choice([*known, (b"FHSM\x01" + bytes(60), b"")])
        if self._random.random() < 0.1:
            whole = whole[:-1] + bytes([whole[-1] ^ 1])
        if self._random.random() < 0.2:
            return ops.Open(key_id=key, ciphertext=whole, aad=aad)
        return ops.Decrypt(key_id=key, ciphertext=whole, aad=aad)

    def _mac(self, key: str) -> ops.Operation[Any]:
        return ops.ComputeMac(key_id=key, message=self._payload())

    def _verify_mac(self, key: str) -> ops.Operation[Any]:
        message = self._random.choice(_PAYLOADS)
        made = self._ask(Request(_ADA, ops.ComputeMac(key_id=key, message=message)))
        mac = made.mac if isinstance(made, ops.Mac) else b"m" * 32
        if self._random.random() < 0.2:
            mac = bytes(32)
        return ops.VerifyMac(
            key_id=key, message=message, mac=mac, version=self._number()
        )

    def _kem(self, key: str) -> ops.Operation[Any]:
        made = self._ask(Request(_ADA, ops.Encapsulate(key_id=key)))
        if self._random.random() < 0.4:
            return ops.Encapsulate(key_id=key)
        whole = made.ciphertext if isinstance(made, ops.Encapsulation) else b"c"
        return ops.Decapsulate(key_id=key, ciphertext=whole, version=self._number())

    def _batch(self, key: str) -> ops.Operation[Any]:
        count = self._random.choice([1, 2, 8, 9, 30])
        texts = [self._random.choice(_PAYLOADS[:5]) for _ in range(count)]
        if self._random.random() < 0.1:
            texts[-1] = self._payload()
        names = [self._random.choice(["", "a", "b\u200b", "bad\n"]) for _ in texts]
        if self._random.random() < 0.8:
            names = ["ok"] * count
        pairs = list(zip(names, texts, strict=True))
        kinds = {"H": ["mac"], "A": ["encrypt", "decrypt"], "C": ["encrypt", "decrypt"]}
        kind = self._random.choice(kinds.get(self._fit, ["sign", "digest"]))
        if kind == "mac":
            found = [ops.MacInput(reference=n, message=t) for n, t in pairs]
            return ops.ComputeMacBatch(key_id=key, items=tuple(found))
        if kind == "encrypt":
            sealing = [ops.EncryptItem(reference=n, plaintext=t) for n, t in pairs]
            return ops.EncryptBatch(key_id=key, items=tuple(sealing))
        if kind == "decrypt":
            known = list(self._sealed.get(key, []))
            if not known or self._random.random() < 0.4:
                known.append((b"c" * 60, b""))
            opening = [ops.DecryptItem(ciphertext=c, aad=aad) for c, aad in known]
            return ops.DecryptBatch(key_id=key, items=tuple(opening))
        if kind == "sign":
            signing = [ops.SignItem(reference=n, message=t) for n, t in pairs]
        else:
            signing = [ops.SignItem(reference=n, digest=t) for n, t in pairs]
        return ops.SignBatch(
            key_id=key, items=tuple(signing), **self._signature_parameters()
        )

    # What changes

    def _change(self) -> None:
        """Change keys, policy or time."""
        key = self._random.choice(self._keys)
        choose = self._random.choice
        change = choose(["key", "key", "policy", "time", "new", "new"])
        if change == "policy":
            engine = choose([*_ENGINES, *[_ENGINES[0]] * 3])
            self._gateway._services.policy.replace(engine, 1)  # noqa: SLF001
        elif change == "time":
            self._clock.advance(choose([1.0, 3600.0, 7200.0]))
        elif change == "new":
            self._renew()
        else:
            done = choose(
                [
                    ops.RotateKey(key_id=key),
                    ops.UpdateKey(key_id=key, tags=("red",)),
                    ops.UpdateKey(key_id=key, tags=()),
                    ops.SuspendKey(key_id=key),
                    ops.ResumeKey(key_id=key),
                    ops.RevokeKey(key_id=key, version=1),
                    ops.RevokeKey(key_id=key),
                    ops.UpdateKey(key_id=key, name="renamed"),
                    ops.UpdateKey(key_id=key, name="key-0"),
                ]
            )
            self._ask(Request(_ADA, done))

    def _renew(self) -> None:
        """Make a key in the place of one, for many are revoked by and by."""
        at = self._random.randrange(len(_ALGORITHMS))
        sent = ops.CreateKey(
            algorithm=_ALGORITHMS[at], name=f"key-{self.tried}-{at}", exportable=False
        )
        made = self._ask(Request(_ADA, sent))
        if hasattr(made, "key_id"):
            self._keys[2 * at : 2 * at + 2] = [made.key_id, sent.name]


_ENVELOPE: Final = CiphertextEncoding.ENVELOPE


def _expired() -> None:
    raise AuthenticationError("The token has expired.")


def _plain(answer: Any) -> Any:
    """Return an answer with lengths in the place of what is random."""
    if isinstance(answer, tuple):
        return tuple(map(_plain, answer))
    if not isinstance(answer, msgspec.Struct):
        return answer
    found: dict[str, Any] = {"": type(answer).__name__}
    for name in answer.__struct_fields__:
        value = getattr(answer, name)
        if name == "signature":
            found[name] = bool(value)  # In DER, its length is random too.
        else:
            found[name] = len(value) if name in _RANDOM else _plain(value)
    return found


@contextmanager
def open_two_ways(seed: int) -> Iterator[TwoWays]:
    """Open an HSM in memory, and compare both ways on it."""
    clock = FakeClock()
    with memory_hsm(clock=clock) as gateway:
        ways = TwoWays(gateway, clock, seed)
        plans = gateway._pipeline.plans  # noqa: SLF001 (to count what they answer)
        run = plans.run

        def counted(request: Request, *, at_once: bool = False) -> Any:
            found = run(request, at_once=at_once)
            ways.by_plan += found is not None
            return found

        try:
            with patch.object(plans, "run", counted):
                yield ways
        finally:
            ways.close()
