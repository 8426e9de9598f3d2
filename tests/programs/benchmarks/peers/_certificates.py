"""Certificates for TLS, made anew by each process."""

from __future__ import annotations

import functools
import ssl

import trustme

from . import HOST


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts of the server and of the client."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def server_context(tls: bool) -> ssl.SSLContext | None:
    return contexts()[0] if tls else None


def client_context(tls: bool) -> ssl.SSLContext | None:
    return contexts()[1] if tls else None
