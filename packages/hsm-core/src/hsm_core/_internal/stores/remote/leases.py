# SPDX-License-Identifier: MIT
"""
Leases in a remote vault: one object a name, replaced only as it was read.

An answer that got lost is looked for: each call writes a random token with its lease,
so that what it finds later is either its own doing or somebody else's.
"""

from __future__ import annotations

from typing import Final

from hsm_core._internal.stores.lease_rules import (
    DamagedLeaseError,
    LeaseRule,
    RuledLeases,
    decode_lease,
    encode_lease,
)
from hsm_core.errors import StoreUnavailableError, VaultConflictError
from hsm_core.protocols import ABSENT, Clock, Entropy, Lease, RemoteKeyVault

_CONFLICTS: Final = 64
_FAILURES: Final = 3
_TOKEN_BYTES: Final = 16


class RemoteLeases(RuledLeases):
    """
    Leases as objects ``leases/NAME`` of a vault.

    Args:
        vault: Where they lie.

        clock: Tells when a lease has expired; the clocks of all holders must agree to
            within what a holder leaves before the end of its lease.

        entropy: Source of the tokens.
    """

    def __init__(self, vault: RemoteKeyVault, clock: Clock, entropy: Entropy) -> None:
        super().__init__(clock)
        self._vault = vault
        self._entropy = entropy

    def __repr__(self) -> str:
        return f"<RemoteLeases in {self._vault!r}>"

    def _change(self, name: str, rule: LeaseRule) -> Lease | None:
        token = self._entropy.random_bytes(_TOKEN_BYTES).hex()
        written: dict[bytes, Lease] = {}
        conflicts = failures = 0
        while True:
            try:
                return self._attempt(name, rule, token, written)
            except VaultConflictError as error:
                conflicts += 1
                if conflicts == _CONFLICTS:
                    raise StoreUnavailableError(
                        f"The lease {name} keeps changing; try again."
                    ) from error
            except StoreUnavailableError:
                # With nothing written yet, there is no lost answer to look for.
                failures += 1
                if failures == _FAILURES or not written:
                    raise

    def _attempt(
        self, name: str, rule: LeaseRule, token: str, written: dict[bytes, Lease]
    ) -> Lease | None:
        path = f"leases/{name}"
        found = self._vault.get(path)
        if found is not None and found.data in written:
            return written[found.data]
        wanted = rule(None if found is None else _decoded(name, path, found.data))
        if wanted is None:
            return None
        data = encode_lease(wanted, token)
        written[data] = wanted
        self._vault.put(path, data, expected=ABSENT if found is None else found.tag)
        return wanted


def _decoded(name: str, path: str, stored: bytes) -> Lease:
    try:
        return decode_lease(name, stored)
    except DamagedLeaseError as error:
        raise DamagedLeaseError(
            f"{error} Stop every server that uses this key store, wait a minute, "
            f"delete the object {path}, then start a server."
        ) from error
