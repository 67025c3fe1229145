# SPDX-License-Identifier: MIT
"""
Interfaces for callers and for implementers of stores, providers and policies.

For callers: `HSM`, `AsyncHSM`, `HSMGateway`, `AsyncHSMGateway`. For providers:
`KeyStore`, `UseCounters`, `AuditLog`, `ApprovalStore`, `Leases`, `RemoteKeyVault`,
`CryptoProvider`, `MasterKeySource`, `CredentialKeys`, `PolicyEngine`, `Clock`,
`Entropy`. Conformance is
shown by mypy and by the contract suites.
"""

from hsm_core.protocols.approvals import (
    ApprovalChange,
    ApprovalEntry,
    ApprovalQuery,
    ApprovalStore,
    ApprovalStoreOpener,
)
from hsm_core.protocols.callers import (
    HSM,
    AsyncHSM,
    AsyncHSMGateway,
    HSMGateway,
    Request,
)
from hsm_core.protocols.keys import (
    KeyStore,
    KeyStoreOpener,
    OpenedStore,
)
from hsm_core.protocols.leases import (
    Lease,
    Leases,
)
from hsm_core.protocols.policy import (
    Decision,
    KeyFacts,
    PolicyEngine,
    algorithm_facts,
)
from hsm_core.protocols.providers import (
    CryptoProvider,
    KeyHandle,
    OAEPParameters,
    SignatureParameters,
)
from hsm_core.protocols.scopes import (
    EVERY_KEY,
    KeyClause,
    KeyScope,
    KeyTerms,
    NameTerms,
    ScopedKey,
)
from hsm_core.protocols.stored_keys import (
    BUCKETS,
    AccountChange,
    IndexEntry,
    IndexPage,
    IndexQuery,
    KeyChange,
    KeyDigest,
    OperationMark,
    StoreAccount,
    StoredKey,
    bucket_of,
)
from hsm_core.protocols.surroundings import (
    Clock,
    CredentialKeys,
    Entropy,
    MasterKeySource,
)
from hsm_core.protocols.trail import (
    AuditDraft,
    AuditHead,
    AuditHealth,
    AuditLog,
    AuditTicket,
    KnownKey,
)
from hsm_core.protocols.uses import UseCounters
from hsm_core.protocols.vaults import (
    ABSENT,
    RemoteKeyVault,
    VaultObject,
    VaultOpener,
)

__all__ = [
    "ABSENT",
    "BUCKETS",
    "EVERY_KEY",
    "HSM",
    "AccountChange",
    "ApprovalChange",
    "ApprovalEntry",
    "ApprovalQuery",
    "ApprovalStore",
    "ApprovalStoreOpener",
    "AsyncHSM",
    "AsyncHSMGateway",
    "AuditDraft",
    "AuditHead",
    "AuditHealth",
    "AuditLog",
    "AuditTicket",
    "Clock",
    "CredentialKeys",
    "CryptoProvider",
    "Decision",
    "Entropy",
    "HSMGateway",
    "IndexEntry",
    "IndexPage",
    "IndexQuery",
    "KeyChange",
    "KeyClause",
    "KeyDigest",
    "KeyFacts",
    "KeyHandle",
    "KeyScope",
    "KeyStore",
    "KeyStoreOpener",
    "KeyTerms",
    "KnownKey",
    "Lease",
    "Leases",
    "MasterKeySource",
    "NameTerms",
    "OAEPParameters",
    "OpenedStore",
    "OperationMark",
    "PolicyEngine",
    "RemoteKeyVault",
    "Request",
    "ScopedKey",
    "SignatureParameters",
    "StoreAccount",
    "StoredKey",
    "UseCounters",
    "VaultObject",
    "VaultOpener",
    "algorithm_facts",
    "bucket_of",
]
