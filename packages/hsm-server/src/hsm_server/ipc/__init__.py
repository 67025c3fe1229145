# SPDX-License-Identifier: MIT
"""
How front ends and vault talk to each other: frames over a pair of Unix sockets.

`frames` says what may be sent, `channel` how it is read and written, `remote_vault` is
the front end's side and `service` the vault's.
"""

__all__: list[str] = []
