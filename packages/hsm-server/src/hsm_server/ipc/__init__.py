# SPDX-License-Identifier: MIT
"""
IPC between front ends and vault: frames over pairs of Unix sockets.

`frames` defines the messages, `channel` reads and writes them, `remote_vault` is the
front end's side and `service` the vault's.
"""

__all__: list[str] = []
