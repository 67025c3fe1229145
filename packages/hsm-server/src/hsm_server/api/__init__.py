# SPDX-License-Identifier: MIT
"""REST API: routes, live views, and the OpenAPI description."""
