# SPDX-License-Identifier: MIT
"""The keys of an HSM: stored form, sealing, material, use counters, and recovery."""
