# SPDX-License-Identifier: MIT
"""``hsm-server init``: a new HSM in a directory of its own."""
