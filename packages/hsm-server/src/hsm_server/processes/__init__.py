# SPDX-License-Identifier: MIT
"""
The processes of a server that keeps its keys apart from the network.

`launch` turns the command into the `supervisor`, which starts one vault
(`hsm_server.bootstrap.vault`) and several front ends (`front_end`), and starts again
what dies.
"""

__all__: list[str] = []
