"""Closed connections are freed at once: nothing of them is in a reference cycle.

However a connection ends, once its block is left and what was raised is forgotten,
no object of the package is alive any more, though the garbage collector doesn't run.
"""

from __future__ import annotations

import gc
import os
import ssl
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

from tests.contract.garbage import (
    DEBUG,
    QUIET,
    SIDES,
    TLS,
    UserError,
    check,
    dial,
    of_client,
    open_near,
    raw_stream,
    serving,
    uri,
)
from tests.handlers import stubborn
from tests.memory import counts_references
from tests.peers.certificates import contexts
from tests.peers.in_memory import CLOSE, TEXT, RawPeer
from tests.peers.sockets import tcp_pair, trio_stream
from tests.peers.wsproto_peer import BreakableStream
from tests.platforms import needs_linux
from trio_ws import Connection, ConnectionClosed, Server, open_server, reconnect, serve
from trio_ws.testing import open_pair

pytestmark = [counts_references, pytest.mark.sweep]

# Two ends that are both ours


Body = Callable[[Connection], Awaitable[None]]


async def send_back(ws: Connection) -> None:
    async for message in ws:
        await ws.send(message)


async def exchange(ws: Connection) -> None:
    await ws.send("x" * 1000)
    assert await ws.recv() == "x" * 1000


async def greet(ws: Connection) -> None:
    await ws.send("x")
    while True:
        await ws.recv()


async def greet_and_iterate(ws: Connection) -> None:
    await ws.send("x")
    async for _ in ws:
        pass


async def raise_error(ws: Connection) -> None:
    await exchange(ws)
    raise UserError


async def raise_in_task(ws: Connection) -> None:
    ws.nursery.start_soon(raise_error, ws)
    await trio.sleep_forever()


async def raise_beside_a_task(ws: Connection) -> None:
    ws.nursery.start_soon(greet, ws)
    await ws.ping()
    raise UserError


async def ping_and_send(ws: Connection) -> None:
    """Wait for a pong, for room and for a message, all at once."""
    ws.nursery.start_soon(ws.ping)
    ws.nursery.start_soon(greet, ws)
    while True:
        await ws.send(bytes(60_000))


async def be_told_in_task(ws: Connection) -> None:
    async def receive() -> None:
        with pytest.raises(ConnectionClosed):
            await greet(ws)

    ws.nursery.start_soon(receive)


async def close(ws: Connection) -> None:
    await ws.recv()
    await ws.aclose()
    with pytest.raises(ConnectionClosed):
        await ws.recv()


async def close_with_4000(ws: Connection) -> None:
    await ws.recv()
    await ws.aclose(4000, "why")


async def send_what_fails(ws: Connection) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "one"
        raise UserError

    await ws.send(pieces())


async def send_what_is_cancelled(ws: Connection) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "one"
        scope.cancel()
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        await ws.send(pieces())
    await ws.recv()


async def leave_a_message_early(ws: Connection) -> None:
    await ws.send("x")
    async for _ in ws.recv_streaming():
        break
    await exchange(ws)


async def send_in_pieces(ws: Connection) -> None:
    await ws.recv()
    await ws.send(iter(["one", "two", "three"]))
    await send_back(ws)


async def send_too_much(ws: Connection) -> None:
    await ws.recv()
    await ws.send(bytes(2000))
    await ws.recv()


class Way(NamedTuple):
    """How a connection ends: what both ends do, and keywords of the first."""

    near: Body
    far: Body
    options: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it


WAYS = {
    "leave": Way(exchange, send_back),
    "error": Way(raise_error, send_back),
    "error_in_task": Way(raise_in_task, send_back),
    "error_beside_a_task": Way(raise_beside_a_task, send_back),
    "told_in_tasks": Way(ping_and_send, close_with_4000),
    "told_in_task": Way(be_told_in_task, close_with_4000),
    "close": Way(close, greet),
    "close_4000": Way(close_with_4000, greet),
    "peer_closes": Way(greet, close),
    "peer_closes_quietly": Way(greet_and_iterate, close),
    "iterable_fails": Way(send_what_fails, greet_and_iterate),
    "iterable_cancelled": Way(send_what_is_cancelled, greet_and_iterate),
    "streaming": Way(leave_a_message_early, send_in_pieces),
    "too_big": Way(greet, send_too_much, {"max_size": 1000}),
    "debug_logs": Way(greet, close_with_4000, {"logger": DEBUG}),
}


@TLS
@SIDES
@pytest.mark.parametrize("name", WAYS)
async def test_between_two_of_ours(name: str, client: bool, tls: bool) -> None:
    near, far, options = WAYS[name]

    async def scenario() -> None:
        async with serving(
            far if client else near, tls=tls, **({} if client else options)
        ) as server:
            try:
                async with dial(server, tls=tls, **(options if client else {})) as ws:
                    await (near if client else far)(ws)
            except (UserError, ConnectionClosed):
                pass

    await check(scenario)


@TLS
async def test_a_client_is_cancelled(tls: bool) -> None:
    async def scenario() -> None:
        async with serving(send_back, tls=tls) as server:
            with trio.CancelScope() as scope:
                async with dial(server, tls=tls) as ws:
                    await exchange(ws)
                    scope.cancel()
                    await trio.sleep_forever()

    await check(scenario)


@TLS
@pytest.mark.parametrize("timeout", [None, 0], ids=["aclose", "aclose_in_a_hurry"])
async def test_a_server_is_closed(timeout: float | None, tls: bool) -> None:
    handler = send_back if timeout is None else stubborn

    async def scenario() -> None:
        async with serving(handler, tls=tls) as server, trio.open_nursery() as nursery:
            async with dial(server, tls=tls) as ws:
                nursery.start_soon(partial(server.aclose, timeout=timeout))
                async for _ in ws:
                    pass

    await check(scenario)


@TLS
async def test_a_server_is_cancelled(tls: bool) -> None:
    context = contexts()[1] if tls else None
    call = partial(serve, stubborn, 0, host="127.0.0.1", ssl=context, logger=QUIET)

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(call)
            async with dial(server, tls=tls) as ws:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    assert [_ async for _ in ws] == []

    await check(scenario)


# Other blocks


async def leave_quickly(ws: Connection) -> None:
    pass


BODIES = pytest.mark.parametrize(
    "body", [leave_quickly, exchange, raise_error, raise_in_task, greet]
)


def reconnecting(server: Server, *, tls: bool) -> reconnect:
    options = of_client(tls=tls, reconnect_delays=lambda: repeat(0.0))
    return reconnect(uri(server, tls=tls), **options)


@TLS
@BODIES
async def test_reconnecting(body: Body, tls: bool) -> None:
    handler = close_with_4000 if body is greet else send_back

    async def scenario() -> None:
        async with serving(handler, tls=tls) as server:
            attempts = reconnecting(server, tls=tls)
            for _ in range(2):
                try:
                    async with await anext(attempts) as ws:
                        await body(ws)
                except UserError:
                    pass

    await check(scenario)


@TLS
async def test_attempts_are_not_used(tls: bool) -> None:
    async def scenario() -> None:
        async with serving(send_back, tls=tls) as server:
            attempts = reconnecting(server, tls=tls)
            await anext(attempts)  # closed by the next
            attempt = await anext(attempts)  # dropped
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                del attempt, attempts

    await check(scenario)


@BODIES
async def test_a_pair(body: Body) -> None:
    far = close_with_4000 if body is greet else send_back

    async def scenario() -> None:
        try:
            async with open_pair() as (client, server):
                server.nursery.start_soon(far, server)
                await body(client)
                await client.aclose()
        except (UserError, ConnectionClosed):
            pass

    await check(scenario)


@BODIES
async def test_an_open_server(body: Body) -> None:
    handler = close_with_4000 if body is greet else send_back

    async def scenario() -> None:
        try:
            async with open_server(
                handler, 0, host="127.0.0.1", logger=QUIET
            ) as server:
                async with dial(server, tls=False) as ws:
                    await body(ws)
        except (UserError, ConnectionClosed):
            pass

    await check(scenario)


class BadListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener that raises what no server expects."""

    async def accept(self) -> trio.abc.Stream:
        raise UserError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("body", ["leaves", "waits", "raises"])
async def test_a_server_fails(body: str) -> None:
    async def scenario() -> None:
        try:
            async with open_server(send_back, listeners=[BadListener()], logger=QUIET):
                if body == "waits":
                    await trio.sleep_forever()
                if body == "raises":
                    raise UserError
        except* UserError:
            pass

    await check(scenario)


# The other end is a test's: it vanishes, is silent, or breaks the rules


class RudePeer(RawPeer):
    """The other end, which can end the connection with a reset."""

    def __init__(
        self, stream: trio.abc.Stream, reset: Callable[[], None], *, client: bool
    ) -> None:
        super().__init__(client=client, streams=(stream, stream))
        self.reset = reset

    async def open(self) -> None:
        """Do the opening handshake."""
        if self._client:
            await self.ask()
            await self.skip_response()
        else:
            await self.answer()


Peer = Callable[[RudePeer], Awaitable[None]]


async def reset(peer: RudePeer) -> None:
    await peer.read()
    peer.reset()


async def end(peer: RudePeer) -> None:
    await peer.read()
    await peer.stream.aclose()


async def be_silent(peer: RudePeer) -> None:
    while await peer.read() is not None:
        pass


async def end_after_close_frame(peer: RudePeer) -> None:
    while (frame := await peer.read()) is not None:
        if frame[0] & 0x0F == CLOSE:
            break


async def violate(peer: RudePeer) -> None:
    await peer.put(b"\xff\xff")
    await end_after_close_frame(peer)


async def violate_behind_a_message(peer: RudePeer) -> None:
    await peer.send(TEXT, b"x")
    await violate(peer)


async def send_and_sleep(ws: Connection) -> None:
    await ws.send("x")
    await trio.sleep_forever()


async def just_leave(ws: Connection) -> None:
    pass


KEEPALIVE = {"ping_interval": 20}

RAW_WAYS: dict[str, tuple[Body, Peer, dict[str, Any]]] = {
    "reset": (greet, reset, {}),
    "end": (greet, end, {}),
    "violation": (greet, violate, {}),
    "violation_behind_a_message": (greet, violate_behind_a_message, {}),
    "keepalive": (greet, end_after_close_frame, KEEPALIVE),
    "keepalive_asleep": (send_and_sleep, end_after_close_frame, KEEPALIVE),
    "reset_asleep": (send_and_sleep, reset, {}),
    "reset_asleep_without_grace": (send_and_sleep, reset, {"loss_grace": 0}),
    "no_close_frame": (just_leave, be_silent, {}),
    "end_in_place_of_close_frame": (just_leave, end, {}),
}


TRANSPORTS = pytest.mark.parametrize("transport", ["tcp", "tls", "stream"])


@TRANSPORTS
@SIDES
@pytest.mark.parametrize("name", RAW_WAYS)
async def test_the_peer_does_something_else(
    name: str, client: bool, transport: str, autojump_clock: trio.testing.MockClock
) -> None:
    body, act, options = RAW_WAYS[name]
    tls = transport == "tls"

    async def scenario() -> None:
        async def live() -> None:
            if transport == "stream":
                peer = RudePeer(theirs, near.reset, client=not client)
            else:
                stream = await raw_stream(sock, client=not client, tls=tls)
                peer = RudePeer(stream, stream.reset, client=not client)
            async with peer.stream:
                await peer.open()
                await act(peer)

        near: Any
        if transport == "stream":
            ours, theirs = trio.testing.memory_stream_pair()
            near = BreakableStream(ours)
        else:
            our_sock, sock = tcp_pair()
            near = trio_stream(our_sock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            try:
                async with open_near(near, client=client, tls=tls, **options) as ws:
                    await body(ws)
            except ConnectionClosed:
                pass

    await check(scenario)


@TLS
@SIDES
async def test_writing_meets_a_reset(client: bool, tls: bool) -> None:
    async def scenario() -> None:
        async def live() -> None:
            stream = await raw_stream(theirs, client=not client, tls=tls)
            streams.append(stream)
            await RudePeer(stream, stream.reset, client=not client).open()

        ours, theirs = tcp_pair()
        streams: list[Any] = []
        near = open_near(trio_stream(ours), client=client, tls=tls)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(live)
                async with near as ws:
                    while nursery.child_tasks:
                        await trio.lowlevel.checkpoint()
                    streams[0].reset()
                    ws.send_nowait("x")
                    await ws.recv()
        except* ConnectionClosed:
            pass

    await check(scenario)


@SIDES
async def test_tls_is_broken(client: bool) -> None:
    async def scenario() -> None:
        async def live() -> None:
            async with await raw_stream(theirs, client=not client, tls=True) as stream:
                peer = RudePeer(stream, stream.reset, client=not client)
                await peer.open()
                stream.send_below_tls(b"this is no record of TLS")
                with suppress(ssl.SSLError):  # it is told so by an alert
                    await end(peer)

        ours, theirs = tcp_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            try:
                async with open_near(trio_stream(ours), client=client, tls=True) as ws:
                    await ws.recv()
            except ConnectionClosed:
                pass

    await check(scenario)


# What it is good for


BALLAST = 500_000  # objects
GROWTH = 10 * 1024 * 1024  # bytes


def resident() -> int:
    """Return how many bytes of memory this process takes."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


async def open_and_close(server: Server, count: int) -> None:
    for _ in range(count):
        async with dial(server, tls=False) as ws:
            await exchange(ws)
            gc.collect(1)  # it becomes as old as one that lasts


async def grow() -> None:
    """Print by how much connections make a process grow that has much else."""
    ballast: list[list[object]] = [[] for _ in range(BALLAST)]
    async with serving(send_back, tls=False) as server:
        await open_and_close(server, 50)
        before = resident()
        await open_and_close(server, 1500)
        print(resident() - before)
    assert len(ballast) == BALLAST


@needs_linux
async def test_connections_one_after_the_other_take_no_memory() -> None:
    # Where much is alive, the collector rarely looks at what is old. In a process of
    # its own, since this one may have memory that is free.
    code = f"import trio; from {__name__} import grow; trio.run(grow)"
    done = await trio.run_process(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_stdout=True,
    )
    assert int(done.stdout) < GROWTH
