# SPDX-License-Identifier: MIT
"""Work that several commands share: approvals, batches, input of signatures."""
