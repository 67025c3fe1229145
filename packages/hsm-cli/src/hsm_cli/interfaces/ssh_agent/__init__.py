# SPDX-License-Identifier: MIT
"""
SSH agent (RFC 9987): SSH keys in an HSM, for OpenSSH and git.

The tags of a key say what the agent signs with it.
"""
