# SPDX-License-Identifier: MIT
"""
OpenAPI 3.1 description of the REST API, generated from the types and the REST table.

It is built once, on demand, and served at ``/api/v1/openapi.json``.
"""

from hsm_server.api.openapi.document import openapi_document

__all__ = ["openapi_document"]
