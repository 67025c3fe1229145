# SPDX-License-Identifier: MIT
"""
The OpenAPI 3.1 description of the REST API, made from the types and the REST table.

It is built once, at start, and served at ``/api/v1/openapi.json``.
"""

from hsm_server.api.openapi.document import openapi_document

__all__ = ["openapi_document"]
