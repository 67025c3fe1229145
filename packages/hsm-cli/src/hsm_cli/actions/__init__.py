# SPDX-License-Identifier: MIT
"""Work that several commands share: signing, encryption, new keys, approvals."""
