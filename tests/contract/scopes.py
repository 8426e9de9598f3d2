"""Whole blocks for the cancellation sweep: connections and servers.

Each is cancelled at each moment from its opening to its end.

Each row is a scenario. What was opened must be closed, and each peer whose
handshake was done must have been told so, as far as that needs no waiting.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from itertools import repeat
from math import inf
from typing import Any

import pytest
import trio
import trio.testing
from werkzeug.routing import Map, Rule

from tests.contract.moments import Moments
from tests.contract.operations import LARGE, make_ends, tcp_pair
from tests.peers.certificates import contexts
from tests.peers.strict_peer import StrictPeer
from trio_ws import (
    Connection,
    Server,
    ServerConnection,
    connect,
    open_server,
    reconnect,
    route,
    serve,
    unix_connect,
    unix_route,
    unix_serve,
)
from trio_ws.testing import open_pair


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A scenario, and the public coroutines that it goes through."""

    name: str
    covers: tuple[str, ...]
    run: Callable[[Moments], Awaitable[None]]
    mock_clock: bool = True
    amortised: bool = True  # also without the checkpoint switch


# -- A connection ------------------------------------------------------------


# The peer acts in tasks of ``helpers``, which aren't cancelled: a send of its
# that is cut short would be a fault of the test.
Body = Callable[[Connection, StrictPeer, trio.Nursery], Awaitable[None]]


async def _talk(ws: Connection, peer: StrictPeer, helpers: trio.Nursery) -> None:
    await ws.send("from us")
    helpers.start_soon(peer.send, "to us")
    assert await ws.recv() == "to us"


async def _leave_data(ws: Connection, peer: StrictPeer, helpers: trio.Nursery) -> None:
    await _talk(ws, peer, helpers)
    helpers.start_soon(peer.send, "not taken")
    await ws.send(bytes(20_000))


async def connection_block(
    moments: Moments,
    *,
    transport: str,
    client: bool,
    piece: int | None = None,
    answers: bool = True,
    body: Body = _talk,
) -> None:
    """Open a connection, use it, leave it; ``piece`` as for StrictPeer.open()."""
    us, peer = make_ends(transport, client=client)
    peer.answers = answers
    opened = False

    async def live() -> None:
        await peer.open(piece)
        await peer.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        with trio.CancelScope() as scope:
            with moments.watch(scope.cancel):
                async with us as ws:
                    opened = True
                    await body(ws, peer, nursery)
        await peer.ended.wait()
    cancelled = scope.cancelled_caught
    if peer.cut:
        # Much was on its way; only a stream that takes all of it always can.
        assert cancelled
        assert body is _leave_data
        assert transport != "memory"
    else:
        _check_goodbye(peer, opened=opened, cancelled=cancelled)


def _check_goodbye(peer: StrictPeer, *, opened: bool, cancelled: bool) -> None:
    assert not peer.cut
    if opened:
        assert peer.faults == []
        assert peer.close is not None
        # A block whose body has ended was going to say 1000.
        assert peer.close.code in ((1000, 1001) if cancelled else (1000,))
    else:
        # Who was about to open it has said nothing but the handshake.
        assert cancelled
        assert peer.close is None
        assert peer.messages == []


async def connect_to_address(moments: Moments, *, kind: str) -> None:
    """Connect to a listener, so that trio's own connecting is part of it.

    ``kind`` is tcp, tls or unix.
    """
    for_client, for_server = contexts()
    tls = kind == "tls"
    ended = trio.Event()
    folder = tempfile.TemporaryDirectory()
    path = os.path.join(folder.name, "socket")
    us: connect
    if kind == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        us = unix_connect(path)
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        us = connect(
            f"{'wss' if tls else 'ws'}://localhost:{listener.getsockname()[1]}/",
            host="127.0.0.1",
            ssl=for_client if tls else None,
        )

    async def live(stream: trio.SocketStream) -> None:
        wrapped: trio.abc.Stream = stream
        if tls:
            wrapped = trio.SSLStream(
                stream, for_server, server_side=True, https_compatible=True
            )
        peer = StrictPeer(wrapped, client=False)
        await peer.open(16)
        await peer.run()
        peers.append(peer)

    async def listen() -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await trio.serve_listeners(
                live, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
            )
        ended.set()

    peers: list[StrictPeer] = []
    scopes: list[trio.CancelScope] = []
    opened = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        with trio.CancelScope() as scope:
            with moments.watch(scope.cancel):
                async with us as ws:
                    opened = True
                    await ws.send("from us")
        while opened and not peers:
            await trio.testing.wait_all_tasks_blocked(0.001)
        await trio.testing.wait_all_tasks_blocked(0.001)
        scopes[0].cancel()
        await ended.wait()
    folder.cleanup()
    if opened:
        _check_goodbye(peers[0], opened=True, cancelled=scope.cancelled_caught)


async def pair_block(moments: Moments) -> None:
    """Open both ends at once; a stream that is left open is noticed by its end."""
    near, far = trio.testing.memory_stream_pair()
    begun = False
    with trio.CancelScope() as scope:
        with moments.watch(scope.cancel):
            async with open_pair(streams=(near, far)) as (client, server):
                begun = True
                await client.send("there")
                await server.send(await server.recv())
                assert await client.recv() == "there"
    assert begun or scope.cancelled_caught
    for stream in (near, far):
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"")


async def reconnect_block(moments: Moments, *, sockets: bool = False) -> None:
    """Cancel a loop of attempts: refused, not used, closed by the peer, left."""
    peers: list[StrictPeer] = []
    entered: list[StrictPeer] = []
    calls = 0

    async def live(peer: StrictPeer) -> None:
        await peer.open()
        await peer.run()

    async def open_stream(*_: object) -> trio.abc.Stream:
        nonlocal calls
        await trio.lowlevel.checkpoint()
        calls += 1
        if calls == 1:
            raise ConnectionRefusedError
        ours: trio.abc.Stream
        theirs: trio.abc.Stream
        ours, theirs = tcp_pair() if sockets else trio.testing.memory_stream_pair()
        peers.append(StrictPeer(theirs, client=False))
        nursery.start_soon(live, peers[-1])
        return ours

    delay = 0.001 if sockets else 1.0
    loop = reconnect("ws://localhost/", reconnect_delays=lambda: repeat(delay))
    left = False
    async with trio.open_nursery() as nursery:
        with pytest.MonkeyPatch.context() as patch, trio.CancelScope() as scope:
            patch.setattr("trio_ws._client.dialer.open_tcp", open_stream)
            with moments.watch(scope.cancel):
                async for attempt in loop:
                    peer = peers[-1]
                    if len(peers) == 1:
                        continue
                    async with attempt as ws:
                        entered.append(peer)
                        await ws.send("from us")
                        if len(peers) == 3:
                            left = True
                            break
                        nursery.start_soon(peer.send_close, 1012)
                        await ws.recv()
        for peer in peers:
            await peer.ended.wait()
    cancelled = scope.cancelled_caught
    assert cancelled or left
    for peer in peers:
        assert not peer.cut
        assert peer.faults == []
        if peer not in entered:
            # It was closed as one that never got its block.
            assert peer.close is None
            assert peer.messages == []
            continue
        assert peer.close is not None
        codes = [1000] if len(entered) == 2 and peer is entered[1] else [1012]
        assert peer.close.code in ([*codes, 1001] if cancelled else codes)


# -- A server ----------------------------------------------------------------


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener over memory streams, for servers under MockClock."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](inf)

    def connect(self, *, lockstep: bool = False) -> trio.abc.Stream:
        make = (
            trio.testing.lockstep_stream_pair
            if lockstep
            else trio.testing.memory_stream_pair
        )
        near, far = make()
        self._send.send_nowait(far)
        return near

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        while True:
            try:
                await trio.aclose_forcefully(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.ClosedResourceError):
                break
        await self._receive.aclose()


class SocketConnector:
    """What MemoryListener.connect() is, for a listening socket."""

    def __init__(self) -> None:
        sock = trio.socket.from_stdlib_socket(socket.create_server(("127.0.0.1", 0)))
        self.listener = trio.SocketListener(sock)
        self._address = sock.getsockname()

    def connect(self, *, lockstep: bool = False) -> trio.abc.Stream:
        sock = socket.create_connection(self._address)
        return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


class Clients:
    """Clients of a server, one in each phase of a connection."""

    def __init__(self, connect: Callable[..., trio.abc.Stream]) -> None:
        self.idle = StrictPeer(connect(), client=True)
        # Reads no more once its handler has begun to send.
        self.flooded = StrictPeer(connect(lockstep=True), client=True)
        # Its handler has returned; it doesn't answer the close frame.
        self.closing = StrictPeer(connect(), client=True)
        self.closing.answers = False
        self.halfway = StrictPeer(connect(), client=True)  # through the handshake
        self.all = (self.idle, self.flooded, self.closing, self.halfway)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._talk, self.idle, "hello")
            nursery.start_soon(self._talk, self.flooded, "flood")
            nursery.start_soon(self._talk, self.closing, "leave")
            await self.halfway.write(self.halfway.request()[:40])
            nursery.start_soon(self.halfway.receive_rest)

    async def _talk(self, peer: StrictPeer, word: str) -> None:
        await peer.open()
        if peer is self.flooded:
            peer.hold()
        await peer.send(word)
        await peer.run()

    async def ended(self) -> None:
        self.flooded.release()
        for peer in self.all:
            await peer.ended.wait()

    def check(self) -> None:
        """Check that each was told what it could be told (R11)."""
        for peer in (self.idle, self.closing):
            assert not peer.cut
            if peer.opened:
                assert peer.faults == []
                assert peer.close is not None
                expected = (1000, 1001) if peer is self.closing else (1001,)
                assert peer.close.code in expected
        if self.flooded.opened:
            assert self.flooded.faults == []


async def handler(ws: ServerConnection) -> None:
    async for message in ws:
        if message == "leave":
            return
        while message == "flood":
            await ws.send(LARGE)


URLS = Map([Rule("/", endpoint=handler)])


class Status(trio.TaskStatus[Server]):
    """Takes the Server that serve() starts."""

    server: Server | None = None

    def started(self, value: object = None) -> None:
        assert isinstance(value, Server)
        self.server = value


async def _settled() -> None:
    """Wait until the clients are in their phases; without sockets, exactly."""
    await trio.testing.wait_all_tasks_blocked()


def _connector(sockets: bool) -> tuple[trio.abc.Listener[Any], Clients]:
    if sockets:
        connector = SocketConnector()
        return connector.listener, Clients(connector.connect)
    listener = MemoryListener()
    return listener, Clients(listener.connect)


Serving = Callable[..., Awaitable[None]]

SERVE = functools.partial(serve, handler)
UNIX_SERVE = functools.partial(unix_serve, handler)


async def serve_block(
    moments: Moments,
    *,
    serving: Serving = SERVE,
    sockets: bool = False,
) -> None:
    """Cancel serve() itself, or route(); else another task closes the server."""
    listener, clients = _connector(sockets)
    status = Status()

    async def close() -> None:
        await _settled()
        assert status.server is not None
        await status.server.aclose(timeout=CLOSING_TIME)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(clients.run)
        with trio.CancelScope() as scope:
            with moments.watch(scope.cancel):
                async with trio.open_nursery() as inner:
                    inner.start_soon(close)
                    await serving(listeners=[listener], task_status=status)
        assert status.server is None or not status.server.connections
        await _is_closed(listener)
        await clients.ended()
    clients.check()


async def server_aclose(moments: Moments, *, sockets: bool = False) -> None:
    """Cancel Server.aclose(): serve() ends all the same, and soon."""
    listener, clients = _connector(sockets)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clients.run)
        served = trio.Event()

        async def run(*, task_status: trio.TaskStatus[Server]) -> None:
            await serve(handler, listeners=[listener], task_status=task_status)
            served.set()

        server: Server = await nursery.start(run)
        await _settled()
        with trio.CancelScope() as scope:
            with moments.watch(scope.cancel):
                await server.aclose(timeout=CLOSING_TIME, spread=0.01)
        began = trio.current_time()
        await served.wait()
        if not sockets and scope.cancelled_caught:
            assert trio.current_time() == began
        await _is_closed(listener)
        await clients.ended()
    clients.check()


async def server_aclose_on_signal(moments: Moments) -> None:
    """Cancel Server.aclose_on_signal(): the server goes on until the signal came."""
    listener, clients = _connector(False)
    # Of the signals that a cancellation leaves.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clients.run)
            start = functools.partial(serve, handler, listeners=[listener])
            server: Server = await nursery.start(start)
            told = False

            async def interrupt() -> None:
                nonlocal told
                await _settled()
                told = not scope.cancel_called
                signal.raise_signal(signal.SIGINT)

            with trio.CancelScope() as scope:
                nursery.start_soon(interrupt)
                with moments.watch(scope.cancel):
                    await server.aclose_on_signal(timeout=CLOSING_TIME, spread=0.01)
            assert told or scope.cancelled_caught
            if not told:
                await _settled()
                assert clients.idle.opened
                assert clients.idle.close is None
            await server.aclose(timeout=CLOSING_TIME)
            await _is_closed(listener)
            await clients.ended()
    finally:
        signal.signal(signal.SIGINT, before)
    clients.check()


async def open_server_block(moments: Moments) -> None:
    """Cancel a block with a server, from its opening to its end."""
    listener, clients = _connector(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clients.run)
        with trio.CancelScope() as scope:
            with moments.watch(scope.cancel):
                async with open_server(handler, listeners=[listener]):
                    await _settled()
        await _is_closed(listener)
        await clients.ended()
    clients.check()


async def unix_serve_block(moments: Moments, *, serving: Serving = UNIX_SERVE) -> None:
    """Cancel unix_serve(), or unix_route(): its file is removed as well."""
    status = Status()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")

        async def visit() -> None:
            while status.server is None:
                await trio.lowlevel.checkpoint()
                if scope.cancelled_caught:
                    return
            try:
                stream = await trio.open_unix_socket(path)
            except OSError:  # cancelled already
                return
            peer = StrictPeer(stream, client=True)
            peers.append(peer)
            await peer.open()
            await peer.send("hello")
            helpers.start_soon(status.server.aclose)
            await peer.run()

        peers: list[StrictPeer] = []
        async with trio.open_nursery() as helpers:
            with trio.CancelScope() as scope:
                helpers.start_soon(visit)
                with moments.watch(scope.cancel):
                    await serving(path=path, task_status=status)
            assert os.listdir(folder) == []
        for peer in peers:
            if peer.opened:
                assert peer.faults == []
                assert peer.close is not None
                assert peer.close.code == 1001


async def _is_closed(listener: trio.abc.Listener[Any]) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


# A peer that doesn't read holds its handler; over sockets this is real time.
CLOSING_TIME = 0.01


# -- The table ---------------------------------------------------------------

CONNECT = ("connect.__aenter__", "connect.__aexit__")
ACCEPT = ("accept.__aenter__", "accept.__aexit__")
RECONNECT = ("reconnect.__anext__", "Attempt.__aenter__", "Attempt.__aexit__")


def _connection_blocks() -> Iterator[Block]:
    for client, covers in ((True, CONNECT), (False, ACCEPT)):
        for transport in ("memory", "lockstep", "tcp", "tls"):
            mock_clock = transport in ("memory", "lockstep")
            ways: dict[str, dict[str, Any]] = {
                "": {},
                "-in-pieces": {"piece": 1 if transport == "memory" else 40},
                "-leaving-data": {"body": _leave_data},
            }
            if mock_clock:  # which lets close_timeout pass
                ways["-silent-peer"] = {"answers": False}
            for name, more in ways.items():
                yield Block(
                    name=f"{covers[0].split('.')[0]}-{transport}{name}",
                    covers=covers,
                    run=functools.partial(
                        connection_block, transport=transport, client=client, **more
                    ),
                    mock_clock=mock_clock,
                    amortised=mock_clock and "piece" not in more,
                )


BLOCKS = [
    *_connection_blocks(),
    Block(
        name="connect-by-uri",
        covers=CONNECT,
        run=functools.partial(connect_to_address, kind="tcp"),
        mock_clock=False,
        amortised=False,
    ),
    Block(
        name="connect-by-uri-tls",
        covers=CONNECT,
        run=functools.partial(connect_to_address, kind="tls"),
        mock_clock=False,
        amortised=False,
    ),
    Block(
        name="unix_connect",
        covers=CONNECT,
        run=functools.partial(connect_to_address, kind="unix"),
        mock_clock=False,
        amortised=False,
    ),
    Block(
        name="unix_serve",
        covers=("unix_serve",),
        run=unix_serve_block,
        mock_clock=False,
        amortised=False,
    ),
    Block(
        name="unix_route",
        covers=("unix_route", "Router.handler"),
        run=functools.partial(
            unix_serve_block, serving=functools.partial(unix_route, URLS)
        ),
        mock_clock=False,
        amortised=False,
    ),
    Block(name="reconnect", covers=RECONNECT, run=reconnect_block),
    Block(
        name="reconnect-tcp",
        covers=RECONNECT,
        run=functools.partial(reconnect_block, sockets=True),
        mock_clock=False,
        amortised=False,
    ),
    Block(
        name="open_pair",
        covers=("open_pair.__aenter__", "open_pair.__aexit__"),
        run=pair_block,
    ),
    Block(name="serve", covers=("serve",), run=serve_block),
    Block(
        name="serve-tcp",
        covers=("serve",),
        run=functools.partial(serve_block, sockets=True),
        mock_clock=False,
        amortised=False,
    ),
    Block(
        name="route",
        covers=("route", "Router.handler"),
        run=functools.partial(serve_block, serving=functools.partial(route, URLS)),
    ),
    Block(
        name="Server.aclose_on_signal",
        covers=("Server.aclose_on_signal",),
        run=server_aclose_on_signal,
    ),
    Block(name="Server.aclose", covers=("Server.aclose",), run=server_aclose),
    Block(
        name="Server.aclose-tcp",
        covers=("Server.aclose",),
        run=functools.partial(server_aclose, sockets=True),
        mock_clock=False,
        amortised=False,
    ),
    Block(
        name="open_server",
        covers=("open_server.__aenter__", "open_server.__aexit__"),
        run=open_server_block,
    ),
]
