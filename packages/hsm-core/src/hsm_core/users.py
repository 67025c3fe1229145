# SPDX-License-Identifier: MIT
"""
Keys as objects: `User` and `Key`.

Generated from ``hsm_core.async_users``: change that, then run ``python -m
tests.tooling.twins``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Self, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._objects import (
    AuditReport,
    KeyMetadata,
    approval_of,
    audit_report,
    check_same_algorithm,
    data_of,
    state_of,
    strings_of,
    usages_of,
)
from hsm_core.algorithms import (
    HashAlgorithm,
    KeyUsage,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.consent import shown_sha256
from hsm_core.errors import KeyNotFoundError, NameTakenError
from hsm_core.model import ApprovalState, AuditEntry, KeyInfo, KeyState, VersionInfo
from hsm_core.protocols import HSM

__all__ = ["Audit", "AuditReport", "Key", "User"]

R = TypeVar("R")


class User:
    """
    HSM for one user, embedded or remote. It is an `HSM` itself.

    Args:
        hsm: The HSM, bound to the user.

        shown: Text for ``repr``: the user's name and roles, or the address of the HSM.

        approval_id: The approval that operations are done under. By default the HSM
            finds one.
    """

    def __init__(self, hsm: HSM, *, shown: str = "", approval_id: str = "") -> None:
        self._hsm = hsm
        self._shown = shown
        self._approval_id = approval_id

    def __repr__(self) -> str:
        """Return the user's name and roles, or the address of the HSM."""
        return f"<{type(self).__name__} {self._shown}>"

    def execute(
        self,
        operation: ops.Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute any operation of ``hsm_core.operations``; see `HSM.execute`."""
        return self._hsm.execute(
            operation,
            idempotency_key=idempotency_key,
            approval_id=approval_id or self._approval_id,
            expected_generation=expected_generation,
        )

    def under(self, approval_id: str) -> User:
        """Return the same user, whose operations use one granted approval (UUID)."""
        return User(self._hsm, shown=self._shown, approval_id=approval_id)

    def create(
        self,
        algorithm: str,
        *,
        name: str = "",
        exist_ok: bool = False,
        usages: Iterable[KeyUsage | str] = (),
        tags: Iterable[str] = (),
        owner: str = "",
        description: str = "",
        exportable: bool = False,
        staged: bool = False,
    ) -> Key:
        """
        Create a key.

        Args:
            algorithm: Algorithm name, such as ``ML-DSA-65``, in any accepted spelling.

            name: Unique name; empty for none.

            exist_ok: Return the key of this name if it exists.

            usages: Key usages, such as ``sign``; the algorithm's by default.

            tags: Tags, which policy rules match.

            owner: Owner; the user by default.

            description: Text, up to 1,024 characters.

            exportable: Whether the key can be exported in wrapped form. Immutable.

            staged: Whether only the public key is available until `Key.activate`.

        Raises:
            NameTakenError: Another key has the name, and *exist_ok* is false.
            ConflictError: With *exist_ok*: that key has another algorithm.
            HSMError: See `CreateKey`.
        """
        operation = ops.CreateKey(
            algorithm=algorithm,
            name=name,
            usages=usages_of(usages),
            tags=strings_of("tags", tags),
            owner=owner,
            description=description,
            exportable=exportable,
            staged=staged,
        )
        if not (exist_ok and name):
            return Key(self, self._create(operation))
        try:
            found = self.key(name)
        except KeyNotFoundError:
            try:
                return Key(self, self.execute(operation))
            except NameTakenError:
                found = self.key(name)
        check_same_algorithm(found.info, algorithm)
        return found

    def _create(self, operation: ops.CreateKey) -> KeyInfo:
        try:
            return self.execute(operation)
        except NameTakenError as error:
            raise NameTakenError(
                f"Another key has the name {operation.name!r}. Choose another one, or "
                "pass exist_ok=True to use that key.",
                **error.facts,
            ) from None

    def key(self, key: str) -> Key:
        """
        Return a key by its name or ID.

        Raises:
            KeyNotFoundError: There is none, or the user may not see it.
        """
        try:
            return Key(self, self.execute(ops.DescribeKey(key_id=key)))
        except KeyNotFoundError as error:
            raise KeyNotFoundError(
                f"There is no key {key!r}, or this user may not see it.", **error.facts
            ) from None

    def keys(
        self,
        *,
        algorithm: str = "",
        state: KeyState | str | None = None,
        tags: Iterable[str] = (),
        search: str = "",
    ) -> Iterator[Key]:
        """List keys, newest first; see `ListKeys` for the filters."""
        operation = ops.ListKeys(
            algorithm=algorithm,
            state=state_of(state),
            tags=strings_of("tags", tags),
            search=search,
        )
        while True:
            page = self.execute(operation)
            for info in page.items:
                yield Key(self, info)
            if not page.next_cursor:
                return
            operation = msgspec.structs.replace(operation, cursor=page.next_cursor)

    def random(self, length: int) -> bytes:
        """Return random bytes; see `GenerateRandom`."""
        return self.execute(ops.GenerateRandom(length=length)).random

    def whoami(self) -> ops.CallerInfo:
        """Return the user's name, roles and credential, as the HSM knows them."""
        return self.execute(ops.DescribeCaller())

    def status(self) -> ops.HSMStatus:
        """Return the health of the HSM."""
        return self.execute(ops.Status())

    @property
    def audit(self) -> Audit:
        """Audit log; roles without access to it get `AccessDeniedError`."""
        return Audit(self)

    def approvals(self, *states: ApprovalState) -> Iterator[ops.ApprovalInfo]:
        """List approval requests in these states, newest first; in all by default."""
        operation = ops.ListApprovals(states=states)
        while True:
            page = self.execute(operation)
            yield from page.items
            if not page.next_cursor:
                return
            operation = msgspec.structs.replace(operation, cursor=page.next_cursor)

    def approval(self, approval_id: str) -> ops.ApprovalInfo:
        """
        Return one approval request.

        Raises:
            ApprovalNotFoundError: There is none, or the user may not see it.
        """
        return self.execute(ops.GetApproval(approval_id=approval_id))

    def approve(
        self, approval: ops.ApprovalInfo, *, comment: str = ""
    ) -> ops.ApprovalInfo:
        """
        Approve the request of another user, exactly as *approval* shows it.

        Raises:
            HSMError: See `Approve`.
        """
        shown = approval_of(approval)
        return self.execute(
            ops.Approve(
                approval_id=shown.approval_id,
                digest=shown_sha256(shown.salt, shown.operation),
                comment=comment,
            )
        )

    def deny(self, approval: ops.ApprovalInfo, *, reason: str) -> ops.ApprovalInfo:
        """Deny the request of another user; see `Deny`."""
        shown = approval_of(approval)
        return self.execute(ops.Deny(approval_id=shown.approval_id, reason=reason))

    def cancel(self, approval: ops.ApprovalInfo) -> ops.ApprovalInfo:
        """Cancel the user's own approval request; see `CancelApproval`."""
        shown = approval_of(approval)
        return self.execute(ops.CancelApproval(approval_id=shown.approval_id))


class Audit:
    """Audit log, as one user sees it."""

    def __init__(self, user: User) -> None:
        self._user = user

    def verify(self) -> AuditReport:
        """
        Verify the whole audit log; in a cluster those of all nodes, each by itself.

        Raises:
            AuditTamperedError: A record is damaged; ``facts`` name it.
            AccessDeniedError: The user may not verify the audit log.
        """
        ranges: list[ops.AuditVerification] = []
        following: ops.VerifyAudit | None = ops.VerifyAudit()
        while following is not None:
            found = self._user.execute(following)
            ranges.append(found)
            following = ops.following_range(following, found)
        return audit_report(ranges)

    def events(
        self,
        *,
        limit: int = 50,
        key: str = "",
        kinds: Iterable[str] = (),
        failed: bool = False,
        since: datetime | None = None,
    ) -> tuple[AuditEntry, ...]:
        """
        Return the newest audit records, newest first.

        Args:
            limit: Maximum number of records, 1 to 1,000.

            key: ID of a key, for its records only.

            kinds: Operations, such as ``Sign``; all by default.

            failed: Failed requests only.

            since: Time of the oldest record, with a UTC offset.
        """
        page = self._user.execute(
            ops.ListAuditEvents(
                limit=limit,
                key_id=key,
                kind=strings_of("kinds", kinds),
                failed=failed,
                since=since,
            )
        )
        return page.items


class Key(KeyMetadata):
    """
    Key in an HSM, embedded or remote.

    Its metadata is that of the last call that returned it; `refresh` reads it again.
    """

    def __init__(self, user: User, info: KeyInfo) -> None:
        self._user = user
        self.info = info

    def refresh(self) -> Self:
        """Read the metadata again."""
        return self._change(ops.DescribeKey(key_id=self.id))

    def _change(self, operation: ops.Operation[KeyInfo]) -> Self:
        self.info = self._user.execute(operation)
        return self

    def sign(
        self,
        message: bytes | None = None,
        *,
        digest: bytes | None = None,
        mu: bytes | None = None,
        scheme: SignatureScheme | None = None,
        hash: HashAlgorithm | None = None,
        encoding: SignatureEncoding | None = None,
        context: bytes = b"",
    ) -> bytes:
        """
        Sign a message, its digest or its mu with the current version.

        Raises:
            HSMError: See `Sign`.
        """
        made = self._user.execute(
            ops.Sign(
                key_id=self.id,
                message=None if message is None else data_of("message", message),
                digest=digest,
                mu=mu,
                scheme=scheme,
                hash=hash,
                encoding=encoding,
                context=context,
            )
        )
        return made.signature

    def verify(
        self,
        message: bytes | None,
        signature: bytes,
        *,
        digest: bytes | None = None,
        mu: bytes | None = None,
        version: int | None = None,
        scheme: SignatureScheme | None = None,
        hash: HashAlgorithm | None = None,
        encoding: SignatureEncoding | None = None,
        context: bytes = b"",
    ) -> int:
        """
        Verify a signature.

        Returns:
            Number of the version that made it.

        Raises:
            SignatureMismatchError: The signature is not valid for this key and message.
                Its short name is ``hsm_core.InvalidSignature``.
            HSMError: See `Verify`.
        """
        found = self._user.execute(
            ops.Verify(
                key_id=self.id,
                message=None if message is None else data_of("message", message),
                signature=data_of("signature", signature),
                digest=digest,
                mu=mu,
                version=version,
                scheme=scheme,
                hash=hash,
                encoding=encoding,
                context=context,
            )
        )
        return found.version

    def encrypt(self, plaintext: bytes, aad: bytes = b"") -> bytes:
        """
        Return the ciphertext of *plaintext*, which names key and version.

        Args:
            plaintext: Data.

            aad: Additional authenticated data, needed again for decryption.

        Raises:
            HSMError: See `Encrypt`.
        """
        operation = ops.Encrypt(
            key_id=self.id,
            plaintext=data_of("plaintext", plaintext),
            aad=data_of("aad", aad),
        )
        return self._user.execute(operation).ciphertext

    def decrypt(self, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """
        Return the plaintext of what `encrypt` returned, with any earlier version.

        Raises:
            DecryptionError: The ciphertext or *aad* is not the right one.
            HSMError: See `Decrypt`.
        """
        operation = ops.Decrypt(
            key_id=self.id,
            ciphertext=data_of("ciphertext", ciphertext),
            aad=data_of("aad", aad),
        )
        return self._user.execute(operation).plaintext

    def rewrap(self, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """Return a ciphertext encrypted again with the current version."""
        operation = ops.Rewrap(
            key_id=self.id,
            ciphertext=data_of("ciphertext", ciphertext),
            aad=data_of("aad", aad),
        )
        return self._user.execute(operation).ciphertext

    def data_key(
        self, length: int = 32, *, aad: bytes = b"", wrapped_only: bool = False
    ) -> ops.DataKey:
        """Generate a symmetric key for use outside the HSM; see `GenerateDataKey`."""
        return self._user.execute(
            ops.GenerateDataKey(
                key_id=self.id,
                length=length,
                aad=data_of("aad", aad),
                wrapped_only=wrapped_only,
            )
        )

    def seal(self, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Return *plaintext* encrypted to the public key of a KEM; see `Seal`."""
        operation = ops.Seal(
            key_id=self.id,
            plaintext=data_of("plaintext", plaintext),
            aad=data_of("aad", aad),
        )
        return self._user.execute(operation).ciphertext

    def open(self, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """
        Return the plaintext of what `seal` returned.

        Raises:
            DecryptionError: The ciphertext or *aad* is not the right one.
        """
        operation = ops.Open(
            key_id=self.id,
            ciphertext=data_of("ciphertext", ciphertext),
            aad=data_of("aad", aad),
        )
        return self._user.execute(operation).plaintext

    def encapsulate(self) -> ops.Encapsulation:
        """Generate a shared secret for a KEM key; see `Encapsulate`."""
        return self._user.execute(ops.Encapsulate(key_id=self.id))

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the shared secret of an encapsulation; see `Decapsulate`."""
        operation = ops.Decapsulate(
            key_id=self.id, ciphertext=data_of("ciphertext", ciphertext)
        )
        return self._user.execute(operation).shared_secret

    def mac(self, message: bytes) -> bytes:
        """Return the MAC of a message, made with the current version."""
        operation = ops.ComputeMac(key_id=self.id, message=data_of("message", message))
        return self._user.execute(operation).mac

    def verify_mac(self, message: bytes, mac: bytes) -> int:
        """
        Verify a MAC.

        Returns:
            Number of the version that made it.

        Raises:
            MacMismatchError: The MAC is not valid for this key and message.
        """
        found = self._user.execute(
            ops.VerifyMac(
                key_id=self.id,
                message=data_of("message", message),
                mac=data_of("mac", mac),
            )
        )
        return found.version

    def public_key(self, *, version: int | None = None) -> ops.PublicKey:
        """Return the public key as DER, PEM and JWK."""
        operation = ops.GetPublicKey(key_id=self.id, version=version)
        return self._user.execute(operation)

    def certificates(self, *, version: int | None = None) -> ops.CertificateChain:
        """Return the certificate chain of a version, as DER and PEM."""
        operation = ops.GetCertificates(key_id=self.id, version=version)
        return self._user.execute(operation)

    def attach_certificates(self, chain: bytes, *, version: int | None = None) -> Self:
        """
        Attach a certificate chain, PEM or DER, in place of an earlier one.

        Raises:
            InvalidInputError: The first certificate is for another public key, or the
                chain is out of order.
        """
        return self._change(
            ops.AttachCertificates(
                key_id=self.id, chain=data_of("chain", chain), version=version
            )
        )

    def remove_certificates(self, *, version: int | None = None) -> Self:
        """Remove the certificate chain of a version."""
        return self._change(ops.RemoveCertificates(key_id=self.id, version=version))

    def versions(self) -> tuple[VersionInfo, ...]:
        """Return all versions, oldest first."""
        return self._user.execute(ops.ListVersions(key_id=self.id)).items

    def rotate(self, *, staged: bool = False) -> Self:
        """Create a version with new key material; old ones decrypt and verify."""
        return self._change(ops.RotateKey(key_id=self.id, staged=staged))

    def rollback(self, version: int) -> Self:
        """Create a version with the key material of an older one."""
        return self._change(ops.Rollback(key_id=self.id, version=version))

    def activate(self, *, version: int | None = None) -> Self:
        """Make a staged version current."""
        return self._change(ops.ActivateKey(key_id=self.id, version=version))

    def suspend(self, *, reason: str = "") -> Self:
        """Suspend the current version: only its public key stays available."""
        return self._change(ops.SuspendKey(key_id=self.id, reason=reason))

    def resume(self) -> Self:
        """Reactivate a suspended version."""
        return self._change(ops.ResumeKey(key_id=self.id))

    def revoke(self, *, version: int | None = None, reason: str = "") -> Self:
        """Mark a version, or all, as compromised. Irreversible."""
        return self._change(
            ops.RevokeKey(key_id=self.id, version=version, reason=reason)
        )

    def destroy(self, *, waiting_days: int | None = None) -> Self:
        """Destroy all key material, at once or after a waiting period."""
        return self._change(ops.DestroyKey(key_id=self.id, waiting_days=waiting_days))

    def cancel_destroy(self) -> Self:
        """Cancel a scheduled destruction."""
        return self._change(ops.CancelDestroy(key_id=self.id))

    def edit(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        owner: str | None = None,
        tags: Iterable[str] | None = None,
    ) -> Self:
        """Edit name, description, owner or tags; None leaves a field unchanged."""
        return self._change(
            ops.UpdateKey(
                key_id=self.id,
                name=name,
                description=description,
                owner=owner,
                tags=None if tags is None else strings_of("tags", tags),
            )
        )
