# SPDX-License-Identifier: MIT
"""
Retention of key material: what is too old is purged, with the consent of people.

A sweep looks at every key, asks for approvals, waits for the grace period after them,
and purges: ledger first, then the key, then the ledger again. Each of its steps can be
killed anywhere and is done again, or goes on, by the next sweep.
"""
