# SPDX-License-Identifier: MIT
"""
Interfaces for callers and for implementers of stores and providers.

For callers: `HSM`, `AsyncHSM`, `LiveHSM`, `HSMGateway`, `AsyncHSMGateway`. For
providers: `KeyStore`, `UseCounters`, `AuditLog`, `ApprovalStore`, `Leases`,
`RemoteKeyVault`, `SharedState`, `SharedTrust`, `CryptoProvider`, `ProviderPlugin`,
`MasterKeySource`, `CredentialKeys`, `Clock`, `Entropy`. Conformance is shown by mypy
and by the contract suites.
"""

from hsm_core.protocols import callers, keys, policy, providers, shared, stores, trail
from hsm_core.protocols.callers import *
from hsm_core.protocols.keys import *
from hsm_core.protocols.policy import *
from hsm_core.protocols.providers import *
from hsm_core.protocols.shared import *
from hsm_core.protocols.stores import *
from hsm_core.protocols.trail import *

__all__: list[str] = []
__all__ += callers.__all__
__all__ += keys.__all__
__all__ += policy.__all__
__all__ += providers.__all__
__all__ += shared.__all__
__all__ += stores.__all__
__all__ += trail.__all__
