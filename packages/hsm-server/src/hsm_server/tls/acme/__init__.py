# SPDX-License-Identifier: MIT
"""
Automatic certificate issuance by ACME (RFC 8555).

Before the first certificate the listener uses a self-signed one: clients reject it, but
the CA's challenges are answered.
"""
