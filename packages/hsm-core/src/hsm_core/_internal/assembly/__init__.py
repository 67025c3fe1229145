# SPDX-License-Identifier: MIT
"""Assembly of an open HSM from its parts."""
