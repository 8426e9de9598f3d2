"""One side of a connection, between an engine and a transport; see the README."""

from .._protocol import prefer_sources

prefer_sources(__path__[0])
