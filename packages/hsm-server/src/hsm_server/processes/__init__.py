# SPDX-License-Identifier: MIT
"""
Processes of a server that isolates its keys from the network.

`launch` turns the command into the `supervisor`, which executes one
vault (`hsm_server.bootstrap.vault`), forks a TLS manager and several front ends
(`front_end`) from itself (`fork`), and restarts them.
"""
