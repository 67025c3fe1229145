# SPDX-License-Identifier: MIT
"""The REST API: routes, live views, and the OpenAPI description."""
