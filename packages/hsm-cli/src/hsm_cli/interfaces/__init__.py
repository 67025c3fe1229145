# SPDX-License-Identifier: MIT
"""
Local interfaces to an HSM for programs that speak another protocol.

Each one translates requests into operations and answers what the HSM decides. Nothing
here is imported before an interface starts.
"""
