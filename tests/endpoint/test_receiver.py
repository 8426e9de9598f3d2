"""Receivers: what they get, what a cancellation costs, what they are told."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.endpoint.link import (
    Link,
    MakeLink,
    as_caller,
    as_last_caller,
    naps_over,
    passed,
    reading,
    receiver_in,
    receiving,
)
from tests.peers.in_memory import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawPeer,
    close_frame,
    connected,
    frame,
)
from trio_ws import (
    ClientConnection,
    ConcurrencyError,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    State,
    accept,
    connect,
)
from trio_ws._endpoint import writer as _writing
from trio_ws._endpoint.reader import _NAP, OFFERED, PAUSED, RECEIVER, TASK
from trio_ws.testing import open_pair

pytestmark = pytest.mark.usefixtures("each_way")

FIN = 0x80


# Cancellation


@pytest.mark.parametrize("next_one", ["receiver", "reader"])
@pytest.mark.parametrize("last", [False, True], ids=["caller", "last_caller"])
async def test_a_receiver_that_is_cancelled_loses_nothing(
    either_link: Link,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    last: bool,
    next_one: str,
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        for _ in range(3):
            await link.hurry(ws)
            receiver = (
                await as_last_caller(nursery, ws, mock_clock)
                if last
                else await as_caller(nursery, ws)
            )
            receiver.scope.cancel()
            await wait_all_tasks_blocked()
            assert receiver.ended
            assert not receiver.got
            assert reading(ws) is (TASK if last else OFFERED)
            await link.text("x", "y")
            if next_one == "receiver":
                assert [await ws.recv(), await ws.recv()] == ["x", "y"]
            else:
                await naps_over(mock_clock)
                assert reading(ws) is TASK
                assert [ws.recv_nowait(), ws.recv_nowait()] == ["x", "y"]


async def test_a_receiver_cancelled_as_a_message_comes(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    # Both happen between two turns of the loop, in either order.
    async with link.standing_by() as ws:
        for cancelled_first in (True, False) * 3:
            receiver = await as_caller(nursery, ws)
            if cancelled_first:
                receiver.scope.cancel()
                link.sock.send(frame(TEXT, b"x"))
            else:
                link.sock.send(frame(TEXT, b"x"))
                receiver.scope.deadline = trio.current_time()
            await wait_all_tasks_blocked()
            assert receiver.ended
            if not receiver.got:
                assert await ws.recv() == "x"
            await link.hurry(ws)


async def test_a_receiver_cancelled_at_each_byte_of_a_fragmented_message(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    data = (
        frame(TEXT, b"one \xe2\x82", fin=False)
        + frame(PING, b"?")
        + frame(CONT, b"\xac", fin=False)
        + frame(CONT, b" two")
    )
    async with link.standing_by() as ws:
        for i in range(len(data)):
            receiver = await as_caller(nursery, ws)
            await link.peer.put(data[i : i + 1])
            if i < len(data) - 1:
                await wait_all_tasks_blocked()
                receiver.scope.cancel()
            await wait_all_tasks_blocked()
            assert receiver.ended
        assert receiver.got == ["one \u20ac two"]
        # The same, and the reader comes in between.
        for i in range(len(data)):
            receiver = await receiving(nursery, ws)
            await link.peer.put(data[i : i + 1])
            if i < len(data) - 1:
                await passed(mock_clock, i % 3 * _NAP)
                receiver.scope.cancel()
            await wait_all_tasks_blocked()
            assert receiver.ended
        assert receiver.got == ["one \u20ac two"]


async def test_receivers_that_are_cancelled_again_and_again(
    link: Link, mock_clock: MockClock
) -> None:
    # Each is a caller, none reads anything; and the reader gets its turn.
    async with link.standing_by() as ws:
        for _ in range(20):
            with trio.move_on_after(_NAP / 5):
                async with trio.open_nursery() as inner:
                    inner.start_soon(ws.recv)
                    await wait_all_tasks_blocked()
                    mock_clock.jump(_NAP / 5)
            if reading(ws) is TASK:
                break
        else:
            raise AssertionError("the reader never goes on")
        await link.text("x")
        await wait_all_tasks_blocked()
        assert ws.recv_nowait() == "x"


async def test_two_tasks_that_take_turns(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with link.standing_by() as ws:
        for i in range(5):
            first = await as_caller(nursery, ws)
            first.scope.cancel()
            await wait_all_tasks_blocked()
            second = await as_caller(nursery, ws)
            await link.text(str(i))
            await wait_all_tasks_blocked()
            assert second.got == [str(i)]
            third = await as_caller(nursery, ws)
            await link.text("again")
            await wait_all_tasks_blocked()
            assert third.got == ["again"]


LOSSES = {
    "reset": (None, "no close frame received or sent", ConnectionResetError),
    "eof": (None, "no close frame received or sent", EOFError),
    "violation": (
        frame(3),
        r"sent 1002 \(protocol error\) unknown opcode 0x3; no close frame received",
        Exception,
    ),
    "close": (
        frame(CLOSE, b"\x03\xf3oh"),
        r"received 1011 \(internal error\) oh; then sent 1011",
        None,
    ),
}


# The end


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("messages", [0, 3])
async def test_loss(
    make_link: MakeLink,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    loss: str,
    messages: int,
) -> None:
    link = make_link(tcp=True)
    data, match, cause = LOSSES[loss]
    expected = [str(i) for i in range(messages)]
    async with link.connected(ping_interval=None) as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        link.sock.send(b"".join(frame(TEXT, m.encode()) for m in expected))
        if loss == "reset":
            # What has come and isn't read is lost with a reset.
            await wait_all_tasks_blocked()
            link.reset()
        elif loss == "eof":
            link.sock.shutdown(socket.SHUT_WR)
        else:
            assert data is not None
            link.sock.send(data)
        if state == "standby":
            await receiver.receive(100)
        else:
            await wait_all_tasks_blocked()
        assert receiver.ended
        if not (loss == "reset" and state == "standby"):
            assert receiver.got == expected
        with pytest.raises(ConnectionClosedError, match=match) as caught:
            await ws.recv()
        assert isinstance(caught.value.__cause__, cause or type(None))
        assert str(receiver.error) == str(caught.value)
    assert ws.state is State.CLOSED


@pytest.mark.parametrize("loss", ["reset", "eof", "violation"])
async def test_loss_that_a_body_asleep_is_cut_for(
    make_link: MakeLink,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    loss: str,
) -> None:
    # Found after the naps; from then on it has loss_grace.
    link = make_link(tcp=True)
    ended: list[float] = []

    async def body() -> None:
        with pytest.raises(ConnectionClosedError):  # noqa: PT012 - raised as it is left
            async with link.connected(ping_interval=None, loss_grace=5) as ws:
                await link.hurry(ws)
                cut.set()
                try:
                    await trio.sleep_forever()
                finally:
                    ended.append(trio.current_time())
                    assert ws.close_code == 1006

    cut = trio.Event()
    nursery.start_soon(body)
    await cut.wait()
    if loss == "reset":
        link.reset()
    elif loss == "eof":
        link.sock.shutdown(socket.SHUT_WR)
    else:
        link.sock.send(frame(3))
    await wait_all_tasks_blocked()
    await naps_over(mock_clock)
    found = trio.current_time()
    await passed(mock_clock, 4.9)
    assert not ended
    await passed(mock_clock, 0.1)
    assert ended == [found + 5]


@pytest.mark.parametrize("how", ["aclose", "cancelled", "cut"])
async def test_the_connection_is_closed_under_a_receiver(
    either_link: Link,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    how: str,
) -> None:
    link = either_link
    with trio.CancelScope() as scope:
        async with link.standing_by() as ws:
            receiver = await receiver_in(state, ws.nursery, link, ws, mock_clock)
            if how == "aclose":
                nursery.start_soon(link.close)
                await ws.aclose()
            elif how == "cancelled":
                scope.cancel()
                await trio.sleep_forever()
            else:
                with trio.CancelScope() as inner:
                    inner.cancel()
                    await ws.aclose()
            if state == "standby":
                await receiver.receive(1)
    if state != "standby" or how != "cancelled":
        assert receiver.ended
        assert not receiver.got
    if how != "cancelled":
        assert isinstance(receiver.error, ConnectionClosedOK)
    assert ws.state is State.CLOSED


async def test_a_body_that_ends_waits_for_a_task_that_reads(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        receiver = await as_caller(ws.nursery, ws, 2)

        async def send_two() -> None:
            for _ in range(2):
                await wait_all_tasks_blocked()
                assert not receiver.ended
                assert ws.state is State.OPEN
                await link.text("x")
            await wait_all_tasks_blocked()
            await link.close()

        link.closes = False
        nursery.start_soon(send_two)
    assert receiver.got == ["x", "x"]
    assert ws.close_code == 1000


async def test_a_goodbye_that_a_receiver_is_told_of(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws, 10)
        await link.text("a", "b")
        await link.peer.send(CLOSE, b"\x03\xe9bye")
        await wait_all_tasks_blocked()
        assert receiver.got == ["a", "b"]
        assert isinstance(receiver.error, ConnectionClosedOK)
        assert await link.peer.read() == close_frame(1001, "bye")


async def test_a_close_frame_is_answered_though_nobody_receives(
    either_link: Link, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        await link.text("a")
        await link.peer.send(CLOSE, b"\x03\xe9bye")
        await naps_over(mock_clock)
        assert await link.peer.read() == close_frame(1001, "bye")
        assert await ws.recv() == "a"
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()


@pytest.mark.parametrize("loss", ["reset", "close"])
async def test_a_write_that_fails_under_a_receiver(
    make_link: MakeLink,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    loss: str,
) -> None:
    link = make_link(tcp=True)
    async with link.connected(ping_interval=None) as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        # Without a turn of the loop: writing is the first to notice.
        if loss == "close":
            link.sock.send(frame(TEXT, b"a") + frame(CLOSE, b"\x03\xe9bye"))
        link.reset()
        for _ in range(3):
            with suppress(ConnectionClosed):
                ws.send_nowait("x")
        assert ws.close_code == (1001 if loss == "close" else 1006)
        if state == "standby":
            await receiver.receive(10)
        await wait_all_tasks_blocked()
        assert receiver.ended
        assert receiver.got == ["a"] * (loss == "close")
        if loss == "reset":
            assert type(receiver.error) is ConnectionClosedError
            assert isinstance(receiver.error.__cause__, ConnectionResetError)
        else:
            assert type(receiver.error) is ConnectionClosedOK


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("ways", ["aclose", "send", "cancel"])
async def test_the_end_in_each_turn_beside_a_receiver(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock, turns: int, ways: str
) -> None:
    # The nap's end, a message and what another task does, all at about once.
    async with link.connected() as ws:
        for i in range(6):
            await link.hurry(ws)
            receiver = await as_caller(nursery, ws, 2)
            if i % 2:
                mock_clock.jump(_NAP)
            link.sock.send(frame(TEXT, b"x"))
            if i % 3:
                mock_clock.jump(_NAP)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            if ways == "aclose" and i == 5:
                nursery.start_soon(link.close)
                await ws.aclose()
                await wait_all_tasks_blocked()
                assert isinstance(receiver.error, ConnectionClosedOK)
                break
            if ways == "send":
                ws._endpoint.reader.keep_reading()
            receiver.scope.cancel()
            await wait_all_tasks_blocked()
            link.sock.send(frame(TEXT, b"y"))
            got = receiver.got
            while len(got) < 2:
                got.append(await ws.recv())
            assert got == ["x", "y"]


async def test_messages_in_front_of_a_violation_are_answered(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link

    async def echo(ws: ClientConnection) -> None:
        with suppress(ConnectionClosedError):
            while True:
                await ws.send(await ws.recv())

    async with link.standing_by() as ws:
        nursery.start_soon(echo, ws)
        await wait_all_tasks_blocked()
        assert reading(ws) is RECEIVER
        await link.peer.put(
            frame(TEXT, b"1"), frame(PING, b"2"), frame(TEXT, b"3"), frame(3)
        )
        got = [await link.peer.read() for _ in range(4)]
        assert [one for one in got[:3] if one != (FIN | PONG, b"2")] == [
            (FIN | TEXT, b"1"),
            (FIN | TEXT, b"3"),
        ]
        assert got[3] == close_frame(1002, "unknown opcode 0x3")
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


@pytest.mark.parametrize("unwrapped", [True, False], ids=["close_notify", "cut"])
async def test_tls_ends_under_a_receiver(
    make_link: MakeLink,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    unwrapped: bool,
) -> None:
    link = make_link(tls=True)
    async with link.standing_by(ping_interval=None) as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        await link.text("a")
        if unwrapped:
            await link.peer.stream.aclose()
        else:
            link.stream.socket.close()
        if state == "standby":
            await receiver.receive(10)
        await wait_all_tasks_blocked()
        assert receiver.ended
        assert receiver.got == ["a"]
        assert type(receiver.error) is ConnectionClosedError


# Piece by piece


async def test_pieces_for_a_receiver_that_reads(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    # Cut in the middle of a character, and of a frame.
    data = frame(TEXT, "one \u20ac two \U0001f600".encode(), fin=False)
    data += frame(CONT, b"", fin=False) + frame(CONT, " three \u00e9".encode())
    async with link.standing_by() as ws:
        for turn in range(3):
            pieces: list[str | bytes] = []

            async def collect(pieces: list[str | bytes] = pieces) -> None:
                async for piece in ws.recv_streaming():
                    pieces.append(piece)
                pieces.append("end")

            nursery.start_soon(collect)
            came = ""
            for i in range(len(data)):
                await link.peer.put(data[i : i + 1])
                await passed(mock_clock, _NAP if turn == 1 else 0)
                assert "".join(map(str, pieces)).startswith(came)
                came = "".join(map(str, pieces))
                if turn != 1 and i < len(data) - 1:
                    assert reading(ws) is RECEIVER
            assert came == "one \u20ac two \U0001f600 three \u00e9end"
            assert len(pieces) > 10
            await link.hurry(ws)


@pytest.mark.parametrize("left", ["break", "cancelled"])
async def test_pieces_that_are_left(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, left: str
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        for turn in range(3):
            scope = trio.CancelScope()

            async def begin(scope: trio.CancelScope = scope) -> None:
                with scope:
                    async for _ in ws.recv_streaming():
                        if left == "break":
                            break

            nursery.start_soon(begin)
            await wait_all_tasks_blocked()
            await link.peer.send(TEXT, b"one", fin=False)
            await wait_all_tasks_blocked()
            scope.cancel()
            await wait_all_tasks_blocked()
            await link.peer.send(CONT, b"two", fin=False)
            if turn == 1:
                await naps_over(mock_clock)
            await link.peer.send(CONT, b"three")
            await link.text("next")
            assert await ws.recv() == "next"
            await link.hurry(ws)


async def test_a_violation_in_the_middle_of_pieces(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    pieces: list[str | bytes] = []
    async with link.standing_by() as ws:

        async def collect() -> None:
            with pytest.raises(ConnectionClosedError, match="unknown opcode"):  # noqa: PT012 - it iterates
                async for piece in ws.recv_streaming():
                    pieces.append(piece)
            pieces.append("end")

        nursery.start_soon(collect)
        await wait_all_tasks_blocked()
        assert reading(ws) is RECEIVER
        await link.peer.put(frame(TEXT, b"one", fin=False), frame(3))
        await wait_all_tasks_blocked()
        assert pieces == ["one", "end"]


async def test_a_stream_that_nobody_reads_on_pauses_reading(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link

    async def send_large() -> None:
        for _ in range(100):
            await link.peer.send(CONT, bytes(10_000), fin=False)
        await link.peer.send(CONT)

    async with link.standing_by() as ws:
        stream = ws.recv_streaming()
        await link.peer.send(BINARY, b"begin", fin=False)
        size = len(await anext(stream))
        nursery.start_soon(send_large)
        for _ in range(5):
            await passed(mock_clock, _NAP)
        assert reading(ws) is PAUSED
        assert ws._engine.decoder.partial_size < 3 * 2**16
        async for piece in stream:
            size += len(piece)
        assert size == 5 + 100 * 10_000


async def test_a_receiver_that_is_cancelled_gets_nothing_whatever_a_write_finds(
    link: Link, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    # What was held back is written as the receiver comes, which fails, and so
    # what the peer said before is read.
    async with link.connected() as ws:
        monkeypatch.setattr(_writing, "perf_counter", lambda: 1000.0)
        ws.send_nowait("1")
        ws.send_nowait("2")
        assert ws._endpoint.writer._outbox.size
        link.sock.send(frame(TEXT, b"x"))
        link.stream.socket.close()
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.recv()
        assert scope.cancelled_caught
        assert await ws.recv() == "x"
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


# What is received, and in which order


@pytest.mark.parametrize(
    ("opcode", "payload", "decode", "expected"),
    [
        (TEXT, b"caf\xc3\xa9", None, "caf\u00e9"),
        (TEXT, b"caf\xc3\xa9", True, "caf\u00e9"),
        (TEXT, b"caf\xc3\xa9", False, b"caf\xc3\xa9"),
        (BINARY, b"caf\xc3\xa9", None, b"caf\xc3\xa9"),
        (BINARY, b"caf\xc3\xa9", True, "caf\u00e9"),
        (BINARY, b"caf\xc3\xa9", False, b"caf\xc3\xa9"),
        (TEXT, b"", None, ""),
        (BINARY, b"", None, b""),
    ],
)
async def test_recv(
    nursery: trio.Nursery,
    opcode: int,
    payload: bytes,
    decode: Any,
    expected: str | bytes,
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        for _ in range(2):
            await peer.send(opcode, payload)
        await peer.send(opcode, payload[:4], fin=False)
        await peer.send(CONT, payload[4:])
        assert await ws.recv(decode) == expected
        assert ws.recv_nowait(decode) == expected
        assert await ws.recv(decode=decode) == expected
        with pytest.raises(trio.WouldBlock):
            ws.recv_nowait()
        await peer.close()


async def test_what_cannot_be_decoded_is_not_lost() -> None:
    async with open_pair() as (client, server):
        await server.send(b"\xff")
        for _ in range(2):
            with pytest.raises(UnicodeDecodeError):
                await client.recv(decode=True)
        with pytest.raises(UnicodeDecodeError):
            client.recv_nowait(decode=True)
        assert await client.recv() == b"\xff"


async def test_one_task_receives() -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.recv)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            with pytest.raises(ConcurrencyError, match="already receiving"):
                await client.recv()
            with pytest.raises(trio.BusyResourceError, match="already receiving"):
                client.recv_nowait()
            with pytest.raises(ConcurrencyError, match="already receiving"):
                await anext(client.recv_streaming())
            with pytest.raises(ConcurrencyError, match="already receiving"):
                await anext(client)
        # The task that receives never notices.
        await server.send("x")


async def test_a_cancelled_recv_loses_nothing(autojump_clock: MockClock) -> None:
    async with open_pair() as (client, server):
        with trio.move_on_after(1):
            await client.recv()
        # The deadline and the message in the same turn of the loop.
        for i in range(50):
            server.nursery.start_soon(_send_at, server, trio.current_time() + 1, str(i))
            received = None
            with trio.move_on_after(1):
                received = await client.recv()
            await trio.testing.wait_all_tasks_blocked()
            assert (received or client.recv_nowait()) == str(i)


async def _send_at(ws: Connection, when: float, message: str) -> None:
    await trio.sleep_until(when)
    await ws.send(message)


async def test_a_deadline_that_is_over_returns_no_message() -> None:
    async with open_pair() as (client, server):
        await server.send("x")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0) as scope:
            await client.recv()
        assert scope.cancelled_caught
        assert client.recv_nowait() == "x"


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_a_close_in_good_order_comes_after_the_messages(
    nursery: trio.Nursery, code: int | None
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        await peer.send(TEXT, b"1")
        await peer.send(TEXT, b"2")
        await peer.send(CLOSE, b"" if code is None else code.to_bytes(2, "big"))
        await peer.end()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionClosedOK):
            await ws.send("too late")
        assert [message async for message in ws] == ["1", "2"]
        assert [message async for message in ws] == []
        for _ in range(2):
            with pytest.raises(ConnectionClosedOK) as caught:
                await ws.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == (code or 1005)
        with pytest.raises(ConnectionClosedOK):
            ws.recv_nowait()


async def test_a_loss_comes_after_the_messages(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        await peer.stream.send_all(
            frame(TEXT, b"1") + frame(TEXT, b"2") + b"\x81\x05he"
        )
        await peer.stream.aclose()
        assert await ws.recv() == "1"
        assert await anext(ws) == "2"
        with pytest.raises(ConnectionClosedError) as caught:
            await anext(ws)
        assert str(caught.value) == "no close frame received or sent"
        assert isinstance(caught.value.__cause__, EOFError)
        assert "2 of the 5 bytes" in str(caught.value.__cause__)
        # A fresh exception each time: tracebacks don't grow.
        with pytest.raises(ConnectionClosedError) as again:
            await ws.recv()
        assert again.value is not caught.value
        for call in (ws.send, ws.ping, ws.pong):
            with pytest.raises(ConnectionClosedError):
                await call(b"x")
        with pytest.raises(ConnectionClosedError):
            ws.send_nowait("x")
        with pytest.raises(ConnectionClosedError):
            ws.recv_nowait()
        with pytest.raises(ConnectionClosedError):
            await anext(ws.recv_streaming())


async def test_what_came_with_the_handshake_is_received() -> None:
    peer = RawPeer(client=True)
    await peer.ask(frame(TEXT, b"early", masked=True))
    async with accept(peer.theirs) as ws:
        assert await ws.recv() == "early"
        await peer.skip_response()
        await peer.close()


async def test_a_violation_that_came_with_the_handshake(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    nursery.start_soon(peer.answer, frame(TEXT, b"early"), frame(3))
    async with connect("ws://testing/", stream=peer.theirs) as ws:
        assert await ws.recv() == "early"
        with pytest.raises(ConnectionClosedError, match="unknown opcode 0x3"):
            await ws.recv()
