"""close_notify: no end of a TLS connection looks like one that was cut short."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.peers.sockets import tcp_pair, trio_stream
from tests.peers.stream_peer import REQUEST, response_to
from tests.peers.wire import CLOSE, KEY, close_frame, frame
from tests.transports.test_tls import by_version, client_context, server_context
from trio_ws import (
    ConnectionClosedError,
    InvalidHandshake,
    OpenTimeoutError,
    accept,
    connect,
)


class Peer:
    """The other end, for which an end of stream without close_notify is an error."""

    def __init__(self, role: str, version: ssl.TLSVersion) -> None:
        ours, theirs = tcp_pair()
        client, server = client_context(), server_context(version=version)
        self.role = role  # of ours
        self.stream = trio.SSLStream(
            trio_stream(theirs),
            server if role == "client" else client,
            server_hostname="localhost",
            server_side=role == "client",
        )
        if role == "client":
            self.ours: Callable[..., connect | accept] = lambda **options: connect(
                "wss://localhost/", stream=trio_stream(ours), ssl=client, **options
            )
        else:
            self.ours = lambda **options: accept(
                trio_stream(ours), ssl=server, **options
            )

    async def open(self) -> None:
        if self.role == "client":
            await self.stream.send_all(response_to(await self.head()))
        else:
            await self.stream.send_all(REQUEST)
            await self.head()

    async def head(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self.stream.receive_some()
        return data

    @property
    def key(self) -> bytes | None:
        return None if self.role == "client" else KEY

    async def read_all(self) -> bytes:
        """Read to the end: raises unless a close_notify came before it."""
        data = b""
        while more := await self.stream.receive_some():
            data += more
        return data


class OurError(Exception):
    """What the user's code raises."""


async def leave(manager: connect | accept) -> None:
    async with manager:
        pass


async def aclose(manager: connect | accept) -> None:
    async with manager as ws:
        await ws.aclose()


async def leave_by_error(manager: connect | accept) -> None:
    with pytest.raises(OurError):
        async with manager:
            raise OurError


async def receive(manager: connect | accept) -> None:
    async with manager as ws:
        async for _ in ws:
            pass


async def meet_a_violation(manager: connect | accept) -> None:
    with pytest.raises(ConnectionClosedError):
        await receive(manager)


async def be_cancelled(manager: connect | accept) -> None:
    with trio.CancelScope() as scope:
        async with manager:
            scope.cancel()
            await trio.sleep_forever()


@pytest.mark.parametrize(
    "end",
    [leave, aclose, leave_by_error, receive, meet_a_violation, be_cancelled],
)
@pytest.mark.parametrize("role", ["client", "server"])
@by_version
async def test_each_way_of_ending(
    version: ssl.TLSVersion,
    role: str,
    end: Callable[[connect | accept], Awaitable[None]],
    nursery: trio.Nursery,
) -> None:
    peer = Peer(role, version)

    async def other_end() -> None:
        await peer.open()
        if end is receive:
            await peer.stream.send_all(close_frame(1000, key=peer.key))
        elif end is meet_a_violation:
            await peer.stream.send_all(frame(0x3, b"", key=peer.key))
        data = bytes(await peer.stream.receive_some())
        assert data[0] == 0x80 | CLOSE
        if end in (leave, aclose, leave_by_error):
            await peer.stream.send_all(close_frame(1000, key=peer.key))
        if role == "client":
            # RFC 6455, section 7.1.1: a client waits for the server to end TCP.
            if end not in (meet_a_violation, be_cancelled):
                await peer.stream.aclose()
                done.set()
                return
        assert await peer.read_all() == b""
        await peer.stream.aclose()
        done.set()

    done = trio.Event()
    nursery.start_soon(other_end)
    await end(peer.ours())
    await done.wait()


@pytest.mark.parametrize("role", ["client", "server"])
@by_version
async def test_a_client_says_it_although_the_server_ends_tcp(
    version: ssl.TLSVersion, role: str, nursery: trio.Nursery
) -> None:
    peer = Peer(role, version)

    async def other_end() -> None:
        await peer.open()
        await peer.stream.receive_some()
        await peer.stream.send_all(close_frame(1000, key=peer.key))
        # unwrap() sends a close_notify and waits for the other one.
        stream, _ = await peer.stream.unwrap()
        await stream.aclose()
        done.set()

    done = trio.Event()
    nursery.start_soon(other_end)
    await leave(peer.ours())
    await done.wait()


@pytest.mark.parametrize("role", ["client", "server"])
@by_version
async def test_a_handshake_that_is_refused(
    version: ssl.TLSVersion, role: str, nursery: trio.Nursery
) -> None:
    peer = Peer(role, version)

    async def other_end() -> None:
        if role == "client":
            await peer.head()
            await peer.stream.send_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        else:
            await peer.stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await peer.read_all()
        await peer.stream.aclose()
        done.set()

    done = trio.Event()
    nursery.start_soon(other_end)
    with pytest.raises(InvalidHandshake):
        async with peer.ours():
            raise AssertionError("entered")
    await done.wait()


@pytest.mark.parametrize("role", ["client", "server"])
@by_version
async def test_a_handshake_that_takes_too_long(
    version: ssl.TLSVersion,
    role: str,
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
) -> None:
    peer = Peer(role, version)

    async def other_end() -> None:
        if role == "client":
            await peer.head()
        else:
            await peer.stream.send_all(b"GET")
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(11)
        assert await peer.read_all() == b""
        await peer.stream.aclose()
        done.set()

    done = trio.Event()
    nursery.start_soon(other_end)
    with pytest.raises(OpenTimeoutError):
        async with peer.ours(open_timeout=10):
            raise AssertionError("entered")
    await done.wait()
