# SPDX-License-Identifier: MIT
"""The pipeline: resolve, authorise, prepare, approve, act, record, in this order."""
