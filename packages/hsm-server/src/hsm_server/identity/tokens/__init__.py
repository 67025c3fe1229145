# SPDX-License-Identifier: MIT
"""Bearer tokens: trusted keys, their sources, and token identities."""

from hsm_server.identity.tokens.keys import Algorithm, TokenKey, public_key_set
from hsm_server.identity.tokens.replay_cache import ReplayCache
from hsm_server.identity.tokens.source import TokenSource
from hsm_server.identity.tokens.trust import TokenTrust, TrustedNames
from hsm_server.identity.tokens.verifier import Identity, TokenVerifier
from hsm_server.identity.tokens.watch import TokenWatch

__all__ = [
    "Algorithm",
    "Identity",
    "ReplayCache",
    "TokenKey",
    "TokenSource",
    "TokenTrust",
    "TokenVerifier",
    "TokenWatch",
    "TrustedNames",
    "public_key_set",
]
