# SPDX-License-Identifier: MIT
"""
Certificates that a CA issues and renews by itself (RFC 8555).

Where there is none yet, the listener shows one that is signed by itself: clients refuse
it, and the CA's own questions are answered.
"""
