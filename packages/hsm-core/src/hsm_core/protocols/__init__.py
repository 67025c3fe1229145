# SPDX-License-Identifier: MIT
"""
The seams: what callers may rely on, and what implementers must keep.

For callers: `HSM`, `AsyncHSM`, `HSMGateway`, `AsyncHSMGateway`. For providers:
`KeyStore`, `UseCounters`, `AuditLog`, `ApprovalStore`, `Leases`, `RemoteKeyVault`,
`CryptoProvider`, `MasterKeySource`, `PolicyEngine`, `Clock`, `Entropy`. Conformance is
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
    BUCKETS,
    AccountChange,
    IndexEntry,
    IndexPage,
    IndexQuery,
    KeyChange,
    KeyDigest,
    KeyStore,
    KeyStoreOpener,
    OpenedStore,
    OperationMark,
    StoreAccount,
    StoredKey,
    UseCounters,
    bucket_of,
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
from hsm_core.protocols.surroundings import (
    Clock,
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
from hsm_core.protocols.vaults import (
    ABSENT,
    RemoteKeyVault,
    VaultObject,
    VaultOpener,
)

__all__ = [
    "ABSENT",
    "BUCKETS",
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
    "CryptoProvider",
    "Decision",
    "Entropy",
    "HSMGateway",
    "IndexEntry",
    "IndexPage",
    "IndexQuery",
    "KeyChange",
    "KeyDigest",
    "KeyFacts",
    "KeyHandle",
    "KeyStore",
    "KeyStoreOpener",
    "KnownKey",
    "Lease",
    "Leases",
    "MasterKeySource",
    "OAEPParameters",
    "OpenedStore",
    "OperationMark",
    "PolicyEngine",
    "RemoteKeyVault",
    "Request",
    "SignatureParameters",
    "StoreAccount",
    "StoredKey",
    "UseCounters",
    "VaultObject",
    "VaultOpener",
    "algorithm_facts",
    "bucket_of",
]
