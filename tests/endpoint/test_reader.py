"""Who reads, the reader or a receiver that comes back quickly, and how much."""

from __future__ import annotations

import math
import os
import socket
from typing import Self

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.endpoint.link import (
    Link,
    MakeLink,
    MakeSockets,
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
    connected,
    frame,
)
from tests.peers.sockets import trio_stream
from trio_ws import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ServerConnection,
    accept,
    connect,
    open_server,
)
from trio_ws._endpoint import counter as _counter
from trio_ws._endpoint import reader as _reading
from trio_ws._endpoint.counter import CALLS
from trio_ws._endpoint.reader import (
    _IN_A_ROW,
    _NAP,
    _OFTEN,
    _QUICK,
    OFFERED,
    PAUSED,
    RECEIVER,
    RECEIVER_LAST,
    TASK,
    Reader,
)
from trio_ws._transports.base import READ_SIZE
from trio_ws.extensions import (
    ClientExtensionFactory,
    Extension,
    ExtensionParameter,
    Frame,
    ServerExtensionFactory,
)
from trio_ws.testing import open_pair

pytestmark = pytest.mark.usefixtures("each_way")

FIN = 0x80


class ReadersSteps(trio.abc.Instrument):
    """Counts the steps of readers."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name == "trio_ws reader"


# Who reads


async def test_receivers_read_where_they_come_often(
    either_link: Link,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_reading, "_IN_A_ROW", _IN_A_ROW)
    monkeypatch.setattr(_reading, "_OFTEN", _OFTEN)
    link = either_link
    async with link.connected() as ws:
        # The first is no quick one; nor is the last of these, so they begin anew.
        for number in range(2 * _IN_A_ROW):
            receiver = await receiving(nursery, ws)
            late = number == _IN_A_ROW - 1
            await passed(mock_clock, (1.25 if late else 0.75) * _QUICK)
            assert reading(ws) is TASK
            await link.reaches(receiver, "x")
        for count in (_OFTEN, _OFTEN, _OFTEN - 1):
            assert reading(ws) is OFFERED
            for _ in range(count):
                await link.reaches(await as_caller(nursery, ws), "x")
            await passed(mock_clock, _NAP)
        assert reading(ws) is TASK


async def test_a_receiver_that_waits_reads_on_where_they_come_often(
    either_link: Link,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_reading, "_OFTEN", _OFTEN)
    link = either_link
    async with link.connected() as ws:
        for _ in range(2):
            await link.reaches(await receiving(nursery, ws), "x")
        assert reading(ws) is OFFERED
        receiver = await as_caller(nursery, ws)
        for count, then in ((_OFTEN, RECEIVER), (_OFTEN - 1, RECEIVER_LAST)):
            for _ in range(count):
                await link.reaches(receiver, "x")
                receiver = await as_caller(nursery, ws)
            await passed(mock_clock, _NAP)
            assert reading(ws) is then
        await link.reaches(receiver, "x")
        assert reading(ws) is TASK


async def test_the_second_quick_message_makes_the_reader_step_aside(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.connected() as ws:
        # None of these is delivered to somebody who waits for it.
        await link.text("a", "b", "c")
        await wait_all_tasks_blocked()
        assert [await ws.recv() for _ in range(3)] == ["a", "b", "c"]
        assert reading(ws) is TASK
        for expected in (TASK, OFFERED):
            receiver = await receiving(nursery, ws)
            assert reading(ws) is TASK
            await link.reaches(receiver, "x")
            assert reading(ws) is expected
        for _ in range(3):
            receiver = await as_caller(nursery, ws)
            await link.reaches(receiver, "y")
            assert reading(ws) is OFFERED


async def test_slow_traffic_is_the_readers(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with link.connected() as ws:
        for _ in range(10):
            receiver = await receiving(nursery, ws)
            await passed(mock_clock, 0.01)  # a hundred a second
            assert reading(ws) is TASK
            await link.reaches(receiver, "x")
            assert reading(ws) is TASK


async def test_from_quick_to_slow_and_back(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        # Who waits for a nap is the last to read; then it is the reader's turn.
        receiver = await as_last_caller(nursery, ws, mock_clock)
        with ReadersSteps() as steps:
            for _ in range(3):
                await passed(mock_clock, _NAP)
        assert not steps.count
        assert reading(ws) is RECEIVER_LAST
        with ReadersSteps() as its_steps:
            await link.text("x")
            await wait_all_tasks_blocked()
        assert its_steps.count
        assert receiver.got == ["x"]
        assert reading(ws) is TASK
        for _ in range(3):
            receiver = await receiving(nursery, ws)
            await passed(mock_clock, 2 * _QUICK)
            await link.reaches(receiver, "x")
            assert reading(ws) is TASK
        receiver = await receiving(nursery, ws)
        await link.reaches(receiver, "x")
        assert reading(ws) is OFFERED


async def test_who_reads_now_and_then_in_each_nap_goes_on_reading(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws, 20)
        for i in range(20):
            await passed(mock_clock, 0.6 * _NAP)
            assert reading(ws) is RECEIVER
            await link.text(str(i))
            await wait_all_tasks_blocked()
            assert len(receiver.got) == i + 1


async def test_a_receiver_that_finds_messages_needs_not_wait(
    either_link: Link, ways: list[str], mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        ways.clear()
        for _ in range(100):
            await link.put_unread(frame(TEXT, b"x"))
            assert await ws.recv() == "x"
        assert ways == ["look"] * 100


async def test_a_receiver_that_finds_nothing_looks_less_and_less(
    link: Link, nursery: trio.Nursery, ways: list[str], mock_clock: MockClock
) -> None:
    async with link.standing_by() as ws:
        for _ in range(2):
            ways.clear()
            for _ in range(200):
                await link.reaches(await as_caller(nursery, ws), "x")
            expected: list[str] = []
            for waits in (1, 3, 7, 15, 31, 63, 63, 63):
                expected += ["look"] + ["wait"] * waits
            assert ways == expected[: len(ways)]
            assert ways.count("wait") == 200
            # It looks again at each message as soon as one was there.
            while ways[-1] != "look":
                await link.put_unread(frame(TEXT, b"y"))
                assert await ws.recv() == "y"


async def test_a_look_in_vain_is_no_sign_of_quick_messages(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock, ways: list[str]
) -> None:
    async with link.standing_by() as ws:
        ways.clear()
        await as_last_caller(nursery, ws, mock_clock)
        assert ways == ["look", "wait"]


async def test_the_reader_sleeps_while_receivers_read(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    # This is what it is all for.
    link = either_link
    async with link.standing_by(ping_interval=None) as ws:
        receiver = await as_caller(nursery, ws, 100)
        with ReadersSteps() as steps:
            for _ in range(100):
                await link.text("x")
                await wait_all_tasks_blocked()
        assert len(receiver.got) == 100
        assert not steps.count


async def test_the_reader_goes_on_if_nobody_comes(
    either_link: Link, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        await link.text("x")
        await wait_all_tasks_blocked()
        assert not ws._engine.messages
        assert reading(ws) is OFFERED
        await naps_over(mock_clock)
        assert reading(ws) is TASK
        assert ws.recv_nowait() == "x"
        await link.text("y")
        await wait_all_tasks_blocked()
        assert ws.recv_nowait() == "y"


@pytest.mark.parametrize("naps", [0.4, 0.9, 1.4, 1.9])
async def test_a_receiver_that_comes_back_during_the_naps(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock, naps: float
) -> None:
    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws)
        await link.reaches(receiver, "x")
        await link.text("y")
        await passed(mock_clock, naps * _NAP)
        assert await ws.recv() == "y"
        await link.text("z")
        assert await ws.recv() == "z"


async def test_only_sockets_are_read_by_receivers(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    # A stream of the user's may lose something if its receiver is cancelled.
    peer = RawPeer(client=False)
    nursery.start_soon(peer.answer)
    async with connect("ws://testing/", stream=peer.theirs) as ws:
        for _ in range(5):
            receiver = await receiving(nursery, ws)
            await peer.send(TEXT, b"x")
            await wait_all_tasks_blocked()
            assert receiver.got == ["x"]
            assert reading(ws) is TASK
        nursery.start_soon(peer.close)
    # In tests of applications nothing may depend on what is quick.
    ours, theirs = map(trio_stream, socket.socketpair())
    async with open_pair(streams=(ours, theirs)) as (client, server):
        for _ in range(5):
            receiver = await receiving(nursery, client)
            await server.send("x")
            await wait_all_tasks_blocked()
            assert receiver.got == ["x"]
            assert reading(client) is TASK


async def test_the_side_of_a_server(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    ours, theirs = map(trio_stream, socket.socketpair())
    peer = RawPeer(client=True, streams=(ours, theirs))
    await peer.ask()
    async with accept(ours) as ws:
        await peer.skip_response()
        got = []
        for _ in range(4):
            await receiving(nursery, ws)
            await peer.send(TEXT, b"x")
            await wait_all_tasks_blocked()
            got.append(reading(ws))
        nursery.start_soon(peer.close)
    assert got == [TASK, OFFERED, OFFERED, OFFERED]
    await theirs.aclose()


# How much is read


async def test_reading_pauses_where_receivers_have_read(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    messages = [i.to_bytes(4, "big") * 5000 for i in range(200)]

    async def flood() -> None:
        for message in messages:
            await link.peer.send(BINARY, message)

    async with link.standing_by(max_queue=4) as ws:
        for _ in range(3):
            nursery.start_soon(flood)
            got = [await ws.recv() for _ in range(20)]
            for _ in range(10):
                await passed(mock_clock, _NAP)
                waiting = len(ws._engine.messages)
                assert waiting <= 4 + READ_SIZE // 20_000 + 1
            assert reading(ws) is PAUSED
            got += [await ws.recv() for _ in range(150)]
            # As slow as it goes: what waits is taken one by one.
            while len(got) < 200:
                await passed(mock_clock, _NAP)
                got.append(await ws.recv())
            assert got == messages
            await naps_over(mock_clock)
            await link.hurry(ws)


async def test_a_look_for_a_message_while_nobody_reads(
    either_link: Link, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        for number in range(3):
            with pytest.raises(trio.WouldBlock):
                ws.recv_nowait()
            await link.text(f"{number}", "more")
            await wait_all_tasks_blocked()
            assert reading(ws) is OFFERED
            assert ws.recv_nowait() == f"{number}"
            assert ws.recv_nowait() == "more"
        # Which doesn't keep the reader from going on.
        await naps_over(mock_clock)
        assert reading(ws) is TASK
        await link.text("read by the reader")
        await wait_all_tasks_blocked()
        assert ws.recv_nowait() == "read by the reader"
        await link.hurry(ws)
        await link.peer.send(CLOSE, b"\x03\xe8")
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionClosedOK):
            ws.recv_nowait()


async def test_a_look_for_a_message_in_front_of_a_violation(
    either_link: Link, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        await link.peer.put(frame(TEXT, b"question") + frame(3))
        await wait_all_tasks_blocked()
        assert ws.recv_nowait() == "question"
        await ws.send("answer")
        await wait_all_tasks_blocked()
        assert await link.peer.read() == (FIN | TEXT, b"answer")
        assert await link.peer.read() == (FIN | CLOSE, b"\x03\xeaunknown opcode 0x3")
        with pytest.raises(ConnectionClosedError):
            ws.recv_nowait()


@pytest.mark.parametrize("fin", [True, False], ids=["whole", "fragments"])
async def test_a_large_payload_that_comes_in_pieces(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, fin: bool
) -> None:
    link = either_link
    payload = os.urandom(150_001)
    data = frame(BINARY, payload, fin=fin)
    data += frame(PING, b"between") + (b"" if fin else frame(CONT, b"end"))
    async with link.standing_by() as ws:
        for turn in range(3):
            receiver = await as_caller(nursery, ws)
            position = 0
            for size in (5, 11, 40_001, 80_000, len(data)):
                assert receiver.got == []
                await link.peer.put(data[position : position + size])
                position += size
                await wait_all_tasks_blocked()
                if turn == 1:
                    await passed(mock_clock, _NAP)
                if turn == 2 and position < len(data):
                    # Nothing that has come is lost.
                    receiver.scope.cancel()
                    await wait_all_tasks_blocked()
                    receiver = await receiving(nursery, ws)
            assert receiver.got == [payload + (b"" if fin else b"end")]
            await link.hurry(ws)


async def test_a_loss_in_the_middle_of_a_large_payload(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws)
        data = frame(BINARY, bytes(100_000))
        await link.peer.put(data[: len(data) - 1])
        await wait_all_tasks_blocked()
        await trio.aclose_forcefully(link.peer.stream)
        await wait_all_tasks_blocked()
        assert isinstance(receiver.error, ConnectionClosedError)
        assert "99999 of the 100000 bytes" in str(receiver.error.__cause__)
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


async def test_pieces_of_a_large_payload(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    payload = os.urandom(200_000)
    data = frame(BINARY, payload)
    pieces: list[str | bytes] = []

    async def collect() -> None:
        async for piece in ws.recv_streaming():
            pieces.append(piece)
        pieces.append("end")

    async with link.standing_by() as ws:
        await link.peer.put(data[:50_000])
        await wait_all_tasks_blocked()
        nursery.start_soon(collect)
        for at in range(50_000, len(data), 50_000):
            await link.peer.put(data[at : at + 50_000])
            await wait_all_tasks_blocked()
            assert sum(map(len, pieces)) >= at - 10
        assert pieces.pop() == "end"
        assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == (
            payload
        )


async def test_reads_that_fill_their_buffer(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    # After these nothing says that there is more, or that there isn't.
    link = either_link
    if isinstance(link.peer.stream, trio.SSLStream):
        buffer = 2**20
        link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    async with link.standing_by(max_size=None) as ws:
        for size in (1, 2, 3):
            for more in (-1, 0, 1):
                total = size * READ_SIZE + more
                receiver = await as_caller(nursery, ws, 3)
                head = len(frame(BINARY, bytes(total - 14))) - (total - 14)
                data = frame(BINARY, bytes(total - 14))
                assert head in (4, 10)
                data += frame(TEXT, bytes(total - len(data) - 2))
                assert len(data) == total
                await link.peer.put(data)
                await wait_all_tasks_blocked()
                assert len(receiver.got) == 2
                assert reading(ws) is RECEIVER
                await link.text("x")
                await wait_all_tasks_blocked()
                assert receiver.got[2] == "x"


@pytest.mark.parametrize("in_passing", [True, False])
@pytest.mark.parametrize("exactly", [True, False])
async def test_a_full_read_leaves_nobody_waiting_for_what_tls_has(
    make_link: MakeLink,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    exactly: bool,
    in_passing: bool,
) -> None:
    # Of it the socket says nothing.
    link = make_link(tls=True)
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    async with link.connected() as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        if state == "standby":
            receiver = await as_caller(nursery, ws, 100)
        # Of a large record all but its end, then the end and many small ones.
        begin = (READ_SIZE - 1) % 512 + 1 + 30 * 512 + (not exactly)
        total = begin + 110 * 512
        message = frame(TEXT, bytes(total - 10))
        parts = [message[i : i + 512] for i in range(begin, total, 512)]
        large = await link.encoded(message[:begin])
        rest = large[-100:]
        for part in parts:
            rest += await link.encoded(part)
        assert len(rest) < READ_SIZE
        got = len(receiver.got)
        link.sock.send(large[:-100])
        await wait_all_tasks_blocked()
        assert link.sock.send(rest) == len(rest)
        if in_passing:
            count = ws._endpoint.reader.read_now() or 0
            assert count == READ_SIZE
        await wait_all_tasks_blocked()
        assert receiver.got[got:] == ["\0" * (total - 10)]
        receiver.scope.cancel()


async def test_a_receiver_behind_a_full_read_can_be_cancelled(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws)
        large = frame(BINARY, bytes(3 * READ_SIZE))
        nursery.start_soon(link.peer.put, frame(TEXT, b"x") + large)
        await wait_all_tasks_blocked()
        assert receiver.got == ["x"]
        assert ws._endpoint.reader.full
        for _ in range(3):
            received = ws._endpoint.reader.bytes_received
            with trio.CancelScope() as scope:
                scope.cancel()
                await ws.recv()
            assert scope.cancelled_caught
            assert ws._endpoint.reader.bytes_received == received
        assert await ws.recv() == bytes(3 * READ_SIZE)


async def test_a_large_message_lets_others_run(
    either_link: Link,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    mock_clock: MockClock,
) -> None:
    # Each look at the clock takes a second, so each read is followed by a rest.
    now = iter(range(10**6))
    monkeypatch.setattr(_counter, "perf_counter", lambda: next(now))
    link = either_link
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**21)
    turns = reads = 0
    read_some = Reader.read_some

    def counting(reader: Reader) -> int | None:
        nonlocal reads
        count: int | None = read_some(reader)
        reads += bool(count)
        return count

    monkeypatch.setattr(Reader, "read_some", counting)
    async with link.standing_by() as ws:

        async def others() -> None:
            nonlocal turns
            while not receiver.ended:
                await trio.lowlevel.checkpoint()
                turns += 1

        receiver = await as_caller(nursery, ws)
        nursery.start_soon(others)
        reads = turns = 0
        await link.peer.put(frame(BINARY, bytes(10 * READ_SIZE)))
        while not receiver.ended:
            await trio.lowlevel.checkpoint()
        assert reads > 2
        assert turns >= reads - 1  # tasks of a turn in any order


async def test_a_firehose_lets_others_run(
    either_link: Link,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    mock_clock: MockClock,
) -> None:
    # However fast the machine: the budget's clock stands still.
    monkeypatch.setattr(_counter, "perf_counter", lambda: 1000.0)
    link = either_link
    received = most = since = 0

    async def others() -> None:
        nonlocal most, since
        while received < 5000:
            await trio.lowlevel.checkpoint()
            most, since = max(most, since), 0

    async def firehose() -> None:
        data = frame(TEXT, b"x") * 1000
        for _ in range(5):
            await link.peer.put(data)

    async with link.standing_by() as ws:
        nursery.start_soon(firehose)
        nursery.start_soon(others)
        while received < 5000:
            await ws.recv()
            received += 1
            since += 1
        await wait_all_tasks_blocked()
        assert 0 < most <= 2 * CALLS  # tasks of a turn run in any order
        await link.hurry(ws)


class Fragile(Extension):
    """Breaks on one message."""

    name = "x-fragile"

    def encode(self, frame: Frame) -> Frame:
        return frame

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.data == b"break":
            raise ZeroDivisionError
        return frame


class FragileFactory(ClientExtensionFactory):
    name = "x-fragile"

    def get_request_params(self) -> list[ExtensionParameter]:
        return []

    def process_response_params(self, params: object, accepted: object) -> Fragile:
        return Fragile()


class PlainFactory(ServerExtensionFactory):
    name = "x-fragile"

    def process_request_params(
        self, params: object, accepted: object
    ) -> tuple[list[ExtensionParameter], Extension]:
        extension = Fragile()
        extension.decode = lambda frame, *, max_size=None: frame  # type: ignore[method-assign]
        return [], extension


# A bug in parsing


@pytest.mark.parametrize("reader", ["keeper", "caller"])
async def test_an_extension_that_breaks_ends_the_connection_whoever_reads(
    reader: str, mock_clock: MockClock
) -> None:
    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    told: list[ConnectionClosedError] = []
    async with open_server(
        echo, 0, host="127.0.0.1", extensions=[PlainFactory()], compression=None
    ) as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - raised as it is left
            async with connect(
                uri, extensions=[FragileFactory()], compression=None
            ) as ws:
                for _ in range(3 if reader == "caller" else 0):
                    await ws.send("x")
                    assert await ws.recv() == "x"
                assert reading(ws) is (OFFERED if reader == "caller" else TASK)
                await ws.send("break")
                with pytest.raises(ConnectionClosedError) as caught:
                    await ws.recv()
                told.append(caught.value)
    assert len(told) == 1


async def test_what_comes_behind_a_bug_in_parsing_is_not_parsed(
    link: Link, mock_clock: MockClock
) -> None:
    # Before the reader had its turn, a write that fails reads what is there. The
    # decoder is in the middle of a message that will never be complete.
    with pytest.raises(ZeroDivisionError) as caught:  # noqa: PT012 - raised as it is left
        async with link.connected() as ws:
            endpoint = ws._endpoint
            endpoint.engine.extend([Fragile()])
            link.sock.send(frame(TEXT, b"break") + frame(TEXT, b"lost"))
            assert endpoint.reader.read_some()
            link.sock.send(frame(TEXT, b"behind"))
            assert endpoint.reader.read_now() == len(frame(TEXT, b"behind"))
            assert not endpoint.engine.messages
            assert endpoint.engine.violation is None
            with pytest.raises(ConnectionClosedError) as told:
                await ws.recv()
            assert told.value.__cause__ is endpoint.engine.cause
    assert told.value.__cause__ is caught.value
    # A bug is the user's to find: it has its traceback.
    assert caught.traceback[-1].name == "decode"


# Pauses


async def test_reading_pauses_and_goes_on(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    async with connected(nursery, both.peer, max_queue=4, max_size=100_000) as ws:
        sizes = [1] * 20 + [90_000] * 10 + [1] * 20

        async def send() -> None:
            for size in sizes:
                await both.peer.send(BINARY, bytes(size))

        nursery.start_soon(send)
        received = [len(await ws.recv())]
        await trio.testing.wait_all_tasks_blocked()
        received += [len(await ws.recv()) for _ in sizes[1:]]
        assert received == sizes
        await both.peer.close()


async def test_reading_goes_on_before_the_queue_is_empty(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    async with connected(nursery, both.peer, max_queue=None, max_size=100_000) as ws:
        for _ in range(11):  # of which the last is left where it is
            await both.peer.send(BINARY, bytes(11_000))
            await trio.testing.wait_all_tasks_blocked()
        paused = [ws._endpoint.reader.by is PAUSED]
        for _ in range(8):
            await ws.recv()
            paused.append(ws._endpoint.reader.by is PAUSED)
        # Until 22,000 bytes wait, less than a quarter.
        assert paused == [True] * 8 + [False]
        await both.peer.close()


async def test_messages_without_a_byte_pause_reading(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    frames = frame(TEXT) * 1000
    async with connected(nursery, peer, max_queue=None) as ws:
        sent = 0
        while ws._endpoint.reader.by is not PAUSED and sent < 100_000:
            await peer.put(frames)
            sent += 1000
            await trio.testing.wait_all_tasks_blocked()
        assert 65_536 < sent <= 67_000
        nursery.start_soon(peer.read)
        await peer.close()
        assert len([message async for message in ws]) == sent


@pytest.mark.parametrize("limit", [{"max_queue": 0}, {"max_size": 10}])
async def test_closing_wakes_a_reader_that_paused(
    sockets: MakeSockets, nursery: trio.Nursery, limit: dict[str, int]
) -> None:
    both = sockets()
    async with connected(nursery, both.peer, **limit) as ws:
        for _ in range(10):
            await both.peer.send(BINARY, bytes(8))
            await trio.testing.wait_all_tasks_blocked()
        assert ws._endpoint.reader.by is PAUSED
        nursery.start_soon(both.peer.close)
        await ws.aclose()
        assert ws.close_code == 1000


async def test_a_queue_that_is_full_pauses_reading(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False, streams=trio.testing.lockstep_stream_pair())
    async with connected(nursery, peer, max_queue=4) as ws:
        await trio.testing.wait_all_tasks_blocked()
        sent = 0

        async def send() -> None:
            nonlocal sent
            for i in range(100):
                await peer.send(TEXT, b"%d" % i)
                sent += 1
            nursery.start_soon(peer.read)
            await peer.close()

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert 5 <= sent <= 7
        assert [message async for message in ws] == [str(i) for i in range(100)]


async def test_closing_wakes_a_reader_that_paused_without_a_queue(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer, max_queue=0, close_timeout=math.inf) as ws:
        for _ in range(10):
            await peer.send(TEXT, b"x")
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ws.aclose)
        await peer.read()
        await peer.close()
        await peer.stream.aclose()
        await ws.wait_closed()
        assert ws.close_code == 1000


async def test_no_memory_to_read_in_a_receive_call(
    link: Link, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the socket gave away is lost: nothing behind it may be taken for a message.
    def fails(*_: object) -> bytes | None:
        raise MemoryError

    async with link.standing_by() as ws:
        monkeypatch.setattr(type(ws._endpoint.transport), "read", fails)
        await link.peer.send(TEXT, b"lost")
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert isinstance(caught.value.__cause__, MemoryError)
        monkeypatch.undo()
        link.closes = False
        await link.close()
    assert ws.close_code == 1006


async def test_receiving_right_behind_a_close_reads_nothing(
    link: Link, mock_clock: MockClock
) -> None:
    # The reader, which that woke, acts on what it reads; a receiver would not.
    async with link.connected() as ws:
        closes = frame(CLOSE, b"\x0f\xa1")
        await link.peer.put(frame(TEXT, bytes(50)) * 100 + frame(PING, b"p") + closes)
        await wait_all_tasks_blocked()
        assert ws._engine.backlog
        ws._endpoint.close(1000, "")
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        await wait_all_tasks_blocked()
        assert await link.peer.read() == (0x80 | CLOSE, b"\x03\xe8")
        assert await link.peer.read() == (0x80 | PONG, b"p")
        link.closes = False
        link.sock.shutdown(socket.SHUT_WR)
    assert ws.close_code == 4001
