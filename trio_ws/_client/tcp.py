"""Connecting over TCP."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import trio
from trio.lowlevel import enable_ki_protection

from .._connection.groups import run_in_nursery
from .._connection.opener import Stage
from .._protocol.uri import host_port
from .._transports.base import Transport
from .._transports.network import current_network

# RFC 8305, section 5: until the next address is tried, too.
_STAGGER = 0.25

_Address = tuple[int, int, int, str, Any]  # as of socket.getaddrinfo()


async def open_tcp(
    host: str, port: int, local_address: str | None, stage: Stage, *, role: str = ""
) -> socket.socket | Transport:
    """Connect to a host, to whichever of its addresses answers first.

    ``role`` is what the stage calls it, with a space behind.

    Raises OSError. **Cancellation**: nothing is left open.
    """
    where = host_port(host, port)
    network = current_network()
    if network is not None:
        stage.name = f"connecting to {role}{where}"
        return await network.connect(host, port, local_address)
    addresses = await look_up(host, port, stage, role=role)
    stage.name = f"connecting to {role}{where}"
    if len(addresses) == 1:
        return await _connect(addresses[0], local_address)
    return await _connect_to_first(addresses, local_address, where)


async def look_up(
    host: str,
    port: int,
    stage: Stage,
    purpose: str = "",
    *,
    role: str = "",
    family: int = socket.AF_UNSPEC,
) -> Sequence[_Address]:
    """Return the addresses of a host; the stage says so if it is a name.

    Raises socket.gaierror. **Cancellation**: a thread goes on.
    """
    literal = _literal(host, port)
    if literal is not None:
        return [literal]
    stage.name = f"looking up {role}{host_port(host, port)}{purpose}"
    return await trio.socket.getaddrinfo(
        host, port, family=family, type=socket.SOCK_STREAM
    )


def _literal(host: str, port: int) -> _Address | None:
    """Return the address that ``host`` spells out, None if it is a name."""
    try:  # as getaddrinfo() would say, for a tenth of the time
        socket.inet_pton(socket.AF_INET, host)
        kind = socket.SOCK_STREAM
        return socket.AF_INET, kind, socket.IPPROTO_TCP, "", (host, port)
    except OSError:
        pass
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    host = host.removesuffix(".")  # which getaddrinfo() knows with names alone
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
    except socket.gaierror:
        return None


async def _connect(address: _Address, local_address: str | None) -> socket.socket:
    family, kind, protocol, _, name = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        if local_address is not None:
            await _bind(sock, local_address)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            sock.connect(name)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise _system_error(code) from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _bind(sock: socket.socket, local_address: str) -> None:
    if hasattr(socket, "IP_BIND_ADDRESS_NO_PORT"):
        with suppress(OSError):  # a port may serve connections to several peers
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
    try:
        await trio.socket.from_stdlib_socket(sock).bind((local_address, 0))
    except OSError as exc:
        exc.add_note(f"local_address {local_address!r}")
        raise


async def _connect_to_first(
    addresses: Sequence[_Address], local_address: str | None, where: str
) -> socket.socket:
    """Connect to whichever address answers first (RFC 8305)."""
    winners: list[socket.socket] = []
    errors: list[OSError] = []

    @enable_ki_protection
    async def attempt(
        nursery: trio.Nursery, address: _Address, failed: trio.Event
    ) -> None:
        try:
            winners.append(await _connect(address, local_address))
            nursery.cancel_scope.cancel()
        except OSError as exc:
            exc.add_note(f"connecting to {address[4]}")
            errors.append(exc)
            failed.set()

    async def start(nursery: trio.Nursery) -> None:
        for address in _in_turn(addresses):
            failed = trio.Event()
            nursery.start_soon(attempt, nursery, address, failed)
            with trio.move_on_after(_STAGGER):
                await failed.wait()

    try:
        await run_in_nursery(start)
        if not winners:
            message = f"all attempts to connect to {where} failed"
            raise OSError(message) from ExceptionGroup(message, errors)
        return winners.pop(0)
    finally:
        errors.clear()  # no cycle with their tracebacks
        for sock in winners:
            sock.close()


def _in_turn(addresses: Sequence[_Address]) -> list[_Address]:
    """Let the second be of another family than the first (RFC 8305, section 4)."""
    first, *rest = addresses
    other = next((one for one in rest if one[0] != first[0]), rest[0])
    rest.remove(other)
    return [first, other, *rest]


def _system_error(code: int) -> OSError:
    if sys.platform == "win32":  # pragma: no cover - whose strerror() knows no socket
        import ctypes

        return ctypes.WinError(code)
    else:
        return OSError(code, os.strerror(code))
