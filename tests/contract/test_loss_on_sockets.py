"""A peer that vanishes, over sockets of the system."""

# ruff: noqa: PT012 - what raises is the end of a block, which has to be there

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.contract.losses import (
    ANSWER_SIZE,
    ROLES,
    Role,
    by_role,
    check_loss,
    check_opening,
    cuts,
)
from tests.leaks import living_tasks, open_descriptors
from tests.peers.sockets import (
    answer_in_thread,
    recv_until,
    reset,
    tcp_pair,
    trio_stream,
)
from tests.peers.stream_peer import REQUEST, URI, response_to
from tests.peers.wire import BINARY, KEY, TEXT, close_frame, frame
from tests.platforms import by_reset, needs_unix_sockets
from trio_ws import Connection, ServerConnection, accept, connect, open_server
from trio_ws._endpoint.reader import OFFERED
from trio_ws._transports.sockets import SocketTransport
from trio_ws.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidMessage,
)

pytestmark = pytest.mark.usefixtures("each_way")


def key_of(role: Role) -> bytes | None:
    """Return what the peer masks its frames with, if it is a client."""
    return KEY if role == "server" else None


def opened_on(
    role: Role, ours: socket.socket, theirs: socket.socket
) -> connect | accept:
    stream = trio_stream(ours)
    if role == "server":
        theirs.sendall(REQUEST)
        return accept(stream)
    answer_in_thread(theirs)
    return connect(URI, stream=stream)


async def hurry(ws: Connection, role: Role, theirs: socket.socket) -> None:
    """Send messages quickly, until receivers read."""
    while ws._endpoint.reader.by is not OFFERED:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.recv)
            await trio.testing.wait_all_tasks_blocked()
            theirs.sendall(frame(TEXT, b"quick", key=key_of(role)))


@pytest.mark.sweep
@pytest.mark.usefixtures("all_is_quick")
@pytest.mark.parametrize("quick", [False, True], ids=["", "receivers-read"])
@pytest.mark.parametrize("name", ["text", "16-bit", "fragments", "ping", "close"])
@pytest.mark.parametrize("way", ["end", by_reset])
@by_role
async def test_socket_vanishes_at_each_byte_of_a_frame(
    role: Role, way: str, name: str, quick: bool
) -> None:
    # What is in the middle of a large frame differs in nothing but the number.
    sample = [cut for cut in cuts(role, name) if len(cut.data) < 60]
    tasks, descriptors = living_tasks(), open_descriptors()
    for cut in sample:
        ours, theirs = tcp_pair()
        messages = []
        with pytest.raises(ConnectionClosed) as caught:
            async with opened_on(role, ours, theirs) as ws:
                if quick:
                    await hurry(ws, role, theirs)
                theirs.sendall(cut.data)
                # Whether a reset destroys what came before it is the kernel's
                # affair: we read first.
                for _ in cut.messages:
                    messages.append(await ws.recv())
                if way == "reset":
                    reset(theirs)
                else:
                    theirs.shutdown(socket.SHUT_WR)
                await ws.recv()
        theirs.close()
        assert messages == cut.messages
        check_loss(caught.value, way, cut.eof)
    assert living_tasks() == tasks
    assert open_descriptors() == descriptors


async def in_thread(call: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(call)


@pytest.mark.parametrize("way", ["end", by_reset])
async def test_socket_vanishes_in_the_opening_handshake(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    # The client's side. Each 10th byte: each one is above, on memory streams.
    tasks, descriptors = living_tasks(), open_descriptors()
    for size in range(0, ANSWER_SIZE, 10):
        listener = socket.create_server(("127.0.0.1", 0))

        def answer(listener: socket.socket = listener, size: int = size) -> None:
            theirs, _ = listener.accept()
            answer = response_to(recv_until(theirs, b"\r\n\r\n"))
            theirs.sendall(answer[:size])
            if way == "reset":
                reset(theirs)
            theirs.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, answer)
            with pytest.raises((InvalidMessage, ConnectionResetError)) as caught:
                async with connect(f"ws://127.0.0.1:{listener.getsockname()[1]}/"):
                    raise AssertionError("entered")
        listener.close()
        check_opening(caught.value, way)
    assert living_tasks() == tasks
    assert open_descriptors() == descriptors


@pytest.mark.parametrize("way", ["end", by_reset])
async def test_server_outlives_clients_that_vanish_in_the_opening_handshake(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")
    handled = 0

    async def handler(ws: ServerConnection) -> None:
        nonlocal handled
        handled += 1
        async for message in ws:
            await ws.send(message)

    sizes = range(0, len(REQUEST), 10)
    async with open_server(handler, 0, host="127.0.0.1") as server:
        await trio.testing.wait_all_tasks_blocked()  # it listens
        tasks, descriptors = living_tasks(), open_descriptors()
        for size in sizes:
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(REQUEST[:size])
            if way == "reset":
                await trio.testing.wait_all_tasks_blocked()
                reset(client)
            client.close()
        while caplog.text.count("opening handshake failed") < len(sizes):
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert living_tasks() == tasks
        assert open_descriptors() == descriptors
        assert {record.levelname for record in caplog.records} == {"INFO"}
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("still there?")
            assert await ws.recv() == "still there?"
    assert handled == 1


@pytest.mark.parametrize("role", ROLES)
async def test_reset_under_a_send_loses_nothing_that_came(role: Role) -> None:
    # The write side fails first, with the peer's last words still unread. One
    # segment: a reset destroys what the peer's kernel has not sent yet.
    key = key_of(role)
    ours, theirs = tcp_pair()
    with pytest.raises(ConnectionClosedError) as caught:
        async with opened_on(role, ours, theirs) as ws:
            messages = [bytes([i]) * 100 for i in range(100)]
            theirs.sendall(b"".join(frame(BINARY, m, key=key) for m in messages))
            reset(theirs)
            for _ in range(2):  # nothing has been read: there was no checkpoint
                with contextlib.suppress(ConnectionClosedError):
                    ws.send_nowait("anybody there?")
            received = [await ws.recv() for _ in range(100)]
            await ws.recv()
    assert received == messages
    check_loss(caught.value, "reset", "")


@by_role
@pytest.mark.parametrize("code", [1000, 1011])
async def test_close_frame_that_lies_unread_when_a_send_fails(
    role: Role, code: int
) -> None:
    # It says more than the failure to write does.
    key = key_of(role)
    ours, theirs = tcp_pair()
    closed: type[ConnectionClosed]
    closed = ConnectionClosedOK if code == 1000 else ConnectionClosedError
    with pytest.raises(closed) as caught:
        async with opened_on(role, ours, theirs) as ws:
            theirs.sendall(frame(TEXT, b"goodbye", key=key))
            theirs.sendall(close_frame(code, b"bye", key=key))
            reset(theirs)
            with contextlib.suppress(ConnectionClosed):
                ws.send_nowait("you as well")
                ws.send_nowait("and thanks")
            assert await ws.recv() == "goodbye"
            await ws.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == code
    assert ws.close_code == code


async def test_send_fails_while_reading_is_paused() -> None:
    # Many messages, more than max_queue, are unread: all are still delivered.
    ours, theirs = tcp_pair()
    with pytest.raises(ConnectionClosedError):
        async with opened_on("client", ours, theirs) as ws:
            for i in range(20):
                theirs.sendall(frame(TEXT, b"%d" % i))
            while len(ws._engine.messages) < 20:
                await trio.lowlevel.checkpoint()
            theirs.sendall(frame(TEXT, b"20"))
            await trio.testing.wait_all_tasks_blocked()
            theirs.sendall(b"".join(frame(TEXT, b"%d" % i) for i in range(21, 200)))
            reset(theirs)
            for _ in range(2):
                with contextlib.suppress(ConnectionClosedError):
                    ws.send_nowait("anybody there?")
            received = [await ws.recv() for _ in range(200)]
            await ws.recv()
    assert received == [str(i) for i in range(200)]


@needs_unix_sockets
async def test_peer_that_has_stopped_reading_and_floods_holds_nobody() -> None:
    # On a Unix socket writes fail with EPIPE as soon as the peer has shut down
    # its reading side, while it can go on sending: what is read after that
    # failure must have an end.
    ours, theirs = socket.socketpair()
    payload = frame(BINARY, b"f" * 60_000)
    fed = 0

    class Flood(socket.socket):
        """Our socket, to which the peer sends whenever something is read."""

        def recv(self, size: int, flags: int = 0) -> bytes:
            nonlocal fed
            assert fed < 100_000_000, "reads without end"
            with contextlib.suppress(BlockingIOError):
                while True:
                    fed += theirs.send(payload[fed % len(payload) :])
            return super().recv(size, flags)

    answer_in_thread(theirs)
    with pytest.raises(ConnectionClosedError):
        async with connect(URI, stream=trio_stream(ours)) as ws:
            transport = ws._endpoint.transport
            assert isinstance(transport, SocketTransport)
            transport._sock = Flood(fileno=transport._sock.detach())
            theirs.setblocking(False)
            theirs.shutdown(socket.SHUT_RD)
            with contextlib.suppress(ConnectionClosedError):
                ws.send_nowait("anybody there?")
            while True:
                await ws.recv()
    theirs.close()


@pytest.mark.parametrize("way", ["end", by_reset])
@by_role
async def test_loss_wakes_senders_that_wait_for_a_socket(role: Role, way: str) -> None:
    ours, theirs = tcp_pair()
    errors = []

    async def send(ws: Connection) -> None:
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.send(b"waits")
        errors.append(caught.value)

    async with opened_on(role, ours, theirs) as ws:
        with contextlib.suppress(trio.WouldBlock):
            while True:
                ws.send_nowait(bytes(1_000_000))  # more than write_limit
                await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(send, ws)
            await trio.testing.wait_all_tasks_blocked()
            if way == "end":
                theirs.shutdown(socket.SHUT_WR)
            else:
                reset(theirs)
        theirs.close()
        with pytest.raises(ConnectionClosedError):  # the body is told as well
            await ws.send(b"too late")
    assert len(errors) == 3
    for error in errors:
        check_loss(error, way, "stream ended between two messages")
