"""TLS of clients: the context where none is given, and the name to check."""

from __future__ import annotations

import socket
import ssl
import threading

import trio

# To make one takes longer than to connect, and 820 KiB: one serves the process.
_context: ssl.SSLContext | None = None
_making = threading.Lock()

# Of a run of trio. Not its default one, all of which the user's threads may hold.
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("limiter")


async def default_context() -> ssl.SSLContext:
    """Return the context, with the roots of the system, that all connections share.

    It is made when first needed, in a thread, since reading the roots would stop the
    loop for 50 ms. **Cancellation**: the thread goes on alone, for the next one's use.
    """
    if _context is not None:
        return _context
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(1)
        _limiter.set(limiter)
    return await trio.to_thread.run_sync(_make, abandon_on_cancel=True, limiter=limiter)


def _make() -> ssl.SSLContext:
    global _context  # the one of the process
    with _making:  # another run of trio may be at it, too
        if _context is None:
            _context = ssl.create_default_context()
        return _context


def server_name(host: str) -> str:
    """Return what TLS is to call a host, for SNI and the certificate's check.

    "The hostname is represented [...] without a trailing dot", and "literal IPv4 and
    IPv6 addresses are not permitted" (RFC 6066, section 3): OpenSSL sends none that it
    knows for one, which takes four numbers in IPv4, and no zone in IPv6.
    """
    name = host.partition("%")[0].removesuffix(".")
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError:
        return name
