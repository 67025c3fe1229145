# SPDX-License-Identifier: MIT
"""Bearer tokens, and the keys that sign them or approvals."""
