# SPDX-License-Identifier: MIT
"""
Processes of a server that isolates its keys from the network.

`launch` turns the command into the `supervisor`, which starts one vault
(`hsm_server.bootstrap.vault`), a TLS manager and several front ends (`front_end`), and
restarts them.
"""
