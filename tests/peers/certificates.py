"""TLS contexts that trust each other, made once."""

from __future__ import annotations

import ssl
from functools import cache

import trustme


@cache
def contexts(
    version: ssl.TLSVersion | None = None,
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS contexts of a client and of a server that it trusts."""
    authority = trustme.CA()
    client = ssl.create_default_context()
    authority.configure_trust(client)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    if version is not None:
        server.minimum_version = server.maximum_version = version
    return client, server
