"""How a connection is closed: amid a message, behind data, and how long it takes."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import Any, Literal

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.peers.in_memory import MemoryListener, RawPeer
from tests.peers.stream_peer import URI, StreamPeer, server_peer
from tests.peers.wire import CLOSE, CONT, KEY, PING, PONG, TEXT, close_frame, frame
from trio_ws import (
    Connection,
    ServerConnection,
    State,
    accept,
    broadcast,
    connect,
    open_server,
)
from trio_ws._endpoint.reader import PAUSED
from trio_ws.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
)
from trio_ws.testing import open_pair

# ruff: noqa: PT012 - what raises is the end of a block, which has to be there

Role = Literal["client", "server"]
by_role = pytest.mark.parametrize("role", ["client", "server"])

LARGE = 300_000


def key_of(role: Role) -> bytes | None:
    return KEY if role == "server" else None


def peer_for(role: Role) -> StreamPeer:
    return StreamPeer() if role == "client" else server_peer()


def opened(role: Role, peer: StreamPeer, **options: Any) -> connect | accept:
    if role == "client":
        return connect(URI, stream=peer, compression=None, **options)
    return accept(peer, compression=None, **options)


def answer_close(peer: StreamPeer, role: Role) -> None:
    def answer() -> None:
        peer.feed(close_frame(1000, key=key_of(role)))
        peer.end()

    peer.on_close = answer


def close_code(peer: StreamPeer) -> int:
    last = peer.frames[-1]
    assert last.opcode == CLOSE
    return int.from_bytes(last.data[:2], "big")


# Amid the fragmented message of another task (R6)


async def fragments(seconds: float) -> AsyncIterator[str]:
    yield "one "
    await trio.sleep(seconds)
    yield "two"


async def send_slowly(ws: Connection, seconds: float, seen: list[object]) -> None:
    try:
        await ws.send(fragments(seconds))
        seen.append("sent")
    except ConnectionClosed as exc:
        seen.append(type(exc))


WAYS = ["aclose", "leaving", "by block"]


async def close_by(ws: Connection, way: str, code: int) -> None:
    if way == "aclose":
        await ws.aclose(code)
    elif way == "by block":
        async with ws:
            pass


@by_role
@pytest.mark.parametrize("way", WAYS)
async def test_a_message_under_way_is_completed_in_time(
    role: Role, way: str, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    answer_close(peer, role)
    seen: list[object] = []
    async with trio.open_nursery() as nursery:
        async with opened(role, peer, close_timeout=5) as ws:
            nursery.start_soon(send_slowly, ws, 3, seen)
            await trio.testing.wait_all_tasks_blocked()
            await close_by(ws, way, 4000)
    assert seen == ["sent"]
    data = [each.data for each in peer.frames if each.opcode != CLOSE]
    assert b"".join(data) == b"one two"
    assert close_code(peer) == (4000 if way == "aclose" else 1000)
    assert trio.current_time() == 3


@by_role
@pytest.mark.parametrize("way", WAYS)
async def test_a_message_that_takes_longer_is_given_up(
    role: Role, way: str, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    answer_close(peer, role)
    seen: list[object] = []
    async with trio.open_nursery() as nursery:
        async with opened(role, peer, close_timeout=5) as ws:
            nursery.start_soon(send_slowly, ws, 100, seen)
            await trio.testing.wait_all_tasks_blocked()
            await close_by(ws, way, 4000)
            if way != "leaving":
                assert trio.current_time() < 7
        assert trio.current_time() < 7
    assert close_code(peer) == 1011
    assert seen in ([ConnectionClosedError], [ConnectionClosedOK])


@by_role
@pytest.mark.parametrize("way", ["aclose", "leaving"])
async def test_cancelled_amid_a_message_says_1011_at_once(
    role: Role, way: str, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    seen: list[object] = []
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with opened(role, peer) as ws:
                nursery.start_soon(send_slowly, ws, 7, seen)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                if way == "aclose":
                    await ws.aclose()
                await trio.sleep_forever()
        assert trio.current_time() == 0
        assert close_code(peer) == 1011
    assert len(seen) == 1


@pytest.mark.parametrize(("seconds", "code"), [(3, 1001), (100, 1011)])
async def test_a_server_that_closes_amid_a_message(
    seconds: float, code: int, autojump_clock: MockClock
) -> None:
    async def handler(ws: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await ws.send(fragments(seconds))

    listener = MemoryListener()
    said: list[object] = []
    async with open_server(
        handler, listeners=[listener], close_timeout=5, compression=None
    ) as server:
        peer = RawPeer(client=True)
        listener.add(peer.theirs)
        await peer.ask()
        await peer.skip_response()
        assert await peer.read() == (TEXT, b"one ")

        async def be_polite() -> None:
            while (item := await peer.read()) is not None:
                said.append(item)
                if item[0] == 0x80 | CLOSE:
                    with contextlib.suppress(trio.BrokenResourceError):
                        await peer.close(1000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_polite)
            await server.aclose(timeout=6)
            assert trio.current_time() <= 6
    last = said[-1]
    assert isinstance(last, tuple)
    assert int.from_bytes(last[1][:2], "big") == code


async def closed_ok(call: Callable[[], object]) -> None:
    """See that a call says at once that the connection is closed in good order."""
    before = trio.current_time()
    with pytest.raises(ConnectionClosedOK):
        outcome = call()
        if inspect.isawaitable(outcome):
            await outcome
    assert trio.current_time() == before


@by_role
@pytest.mark.parametrize("way", WAYS)
async def test_nothing_new_begins_while_a_message_is_completed(
    role: Role, way: str, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    answer_close(peer, role)
    seen: list[object] = []
    ended: list[object] = []

    async def queues(message: str | list[str]) -> None:
        with pytest.raises(ConnectionClosed):
            await ws.send(message)
        ended.append("queued")

    async def iterate() -> None:
        assert [message async for message in ws] == []

    async def others() -> None:
        await trio.sleep(1)
        assert ws.state is State.CLOSING
        assert ws.close_code is None
        for call in (
            lambda: ws.send("x"),
            lambda: ws.send(["x"]),
            lambda: ws.send(fragments(0)),
            lambda: ws.send_nowait("x"),
            ws.recv,
            ws.recv_nowait,
            ws.ping,
            ws.pong,
        ):
            await closed_ok(call)
        await iterate()
        assert broadcast([ws], "x", slow="close") == []
        peer.feed(frame(PING, b"still", key=key_of(role)))
        peer.feed(frame(TEXT, b"too late", key=key_of(role)))
        await trio.sleep(1)
        await closed_ok(ws.recv_nowait)

    async with trio.open_nursery() as nursery:
        async with opened(role, peer, close_timeout=5) as ws:
            nursery.start_soon(send_slowly, ws, 3, seen)
            await trio.testing.wait_all_tasks_blocked()
            for message in ("x", ["x", "y"], "z"):
                nursery.start_soon(queues, message)
            nursery.start_soon(others)
            peer.feed(frame(TEXT, b"nobody takes it", key=key_of(role)))
            await trio.testing.wait_all_tasks_blocked()
            await close_by(ws, way, 1000)
    assert seen == ["sent"]
    assert ended == ["queued"] * 3
    assert [(each.opcode, each.data) for each in peer.frames] == [
        (TEXT, b"one "),
        (PONG, b"still"),
        (CONT, b"two"),
        (CONT, b""),
        (CLOSE, b"\x03\xe8"),
    ]
    assert trio.current_time() == 3


@by_role
async def test_who_waits_is_told_before_a_message_is_completed(
    role: Role, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    answer_close(peer, role)
    seen: list[object] = []
    told: list[float] = []

    async def waits(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(ConnectionClosedOK):
            await call()
        told.append(trio.current_time())

    async with opened(role, peer, close_timeout=5) as ws:
        ws.nursery.start_soon(send_slowly, ws, 3, seen)
        ws.nursery.start_soon(waits, ws.recv)
        ws.nursery.start_soon(waits, ws.ping)
        await trio.testing.wait_all_tasks_blocked()
        await ws.aclose()
        assert told == [0, 0]
        assert trio.current_time() == 3
    assert seen == ["sent"]


@by_role
async def test_closing_amid_a_message_wakes_a_reader_that_paused(
    role: Role, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    answer_close(peer, role)
    async with opened(role, peer, max_queue=1, close_timeout=5) as ws:
        for _ in range(9):
            peer.feed(frame(TEXT, b"x", key=key_of(role)))
            await trio.testing.wait_all_tasks_blocked()
        assert ws._endpoint.reader.by is PAUSED
        ws.nursery.start_soon(send_slowly, ws, 3, [])
        await trio.testing.wait_all_tasks_blocked()
        ws.nursery.start_soon(ws.aclose)
        peer.feed(frame(PING, b"there?", key=key_of(role)))
        await trio.sleep(1)
        assert PONG in [each.opcode for each in peer.frames]
    assert trio.current_time() == 3


@by_role
@pytest.mark.parametrize("way", WAYS)
async def test_senders_of_fragments_that_queue_put_no_close_off(
    role: Role, way: str, autojump_clock: MockClock
) -> None:
    # Which task is first after a message's end is up to the scheduler.
    for _ in range(10):
        peer = peer_for(role)
        answer_close(peer, role)
        seen: list[object] = []
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            async with opened(role, peer, close_timeout=5) as ws:
                for _ in range(4):
                    nursery.start_soon(send_slowly, ws, 2, seen)
                await trio.sleep(1)
                await close_by(ws, way, 1000)
        assert seen[0] == "sent"
        assert len(seen) == 4
        assert set(seen[1:]) <= {ConnectionClosedOK, ConnectionClosedError}
        assert b"".join(each.data for each in peer.frames[:-1]) == b"one two"
        assert close_code(peer) == 1000
        assert trio.current_time() == start + 2


@by_role
@pytest.mark.parametrize("seconds", [5, None])
async def test_what_follows_a_message_has_the_time_that_is_left(
    role: Role, seconds: float | None, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)  # which answers nothing
    seen: list[object] = []
    async with opened(role, peer, close_timeout=seconds) as ws:
        ws.nursery.start_soon(send_slowly, ws, 3 if seconds else 300, seen)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1000):
            await ws.aclose()
    assert seen == ["sent"]
    assert close_code(peer) == 1000
    assert trio.current_time() == (seconds or 1000)


@by_role
@pytest.mark.parametrize("way", ["aclose", "by block"])
@pytest.mark.parametrize("after", ["goes on", "ends"])
async def test_an_iterable_that_closes_doesnt_wait_for_itself(
    role: Role, way: str, after: str, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    answer_close(peer, role)

    async def closing() -> AsyncIterator[str]:
        yield "one "
        await close_by(ws, way, 1000)
        if after == "goes on":
            yield "two"

    async with opened(role, peer, close_timeout=5) as ws:
        with pytest.raises(ConnectionClosedOK):
            await ws.send(closing())
    assert [(each.opcode, each.data[:2]) for each in peer.frames] == [
        (TEXT, b"on"),
        (CLOSE, b"\x03\xf3"),
    ]
    assert trio.current_time() == 0


@by_role
async def test_an_iterable_that_closes_beside_another_task(
    role: Role, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    answer_close(peer, role)

    async def closing() -> AsyncIterator[str]:
        yield "one "
        await trio.sleep(1)
        await ws.aclose()

    async with opened(role, peer, close_timeout=5) as ws:
        ws.nursery.start_soon(ws.send, closing())
        await trio.testing.wait_all_tasks_blocked()
        await ws.aclose(4000)
        assert trio.current_time() == 1
    assert close_code(peer) == 1011


@by_role
async def test_an_iterable_that_closes_before_it_has_begun(
    role: Role, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    answer_close(peer, role)

    async def closing() -> AsyncIterator[str]:
        await ws.aclose(4000)
        yield "never"

    async with opened(role, peer, close_timeout=5) as ws:
        with pytest.raises(ConnectionClosedOK):
            await ws.send(closing())
    assert [each.opcode for each in peer.frames] == [CLOSE]
    assert close_code(peer) == 4000


@by_role
@pytest.mark.parametrize("fails", ["cancelled", "raises"])
async def test_a_message_that_fails_while_somebody_closes(
    role: Role, fails: str, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    answer_close(peer, role)

    async def failing() -> AsyncIterator[str]:
        yield "one "
        await trio.sleep(1)
        raise UserError

    async def send() -> None:
        with trio.move_on_after(1 if fails == "cancelled" else inf):
            with contextlib.suppress(UserError):
                await ws.send(fragments(9) if fails == "cancelled" else failing())

    async with opened(role, peer, close_timeout=5) as ws:
        ws.nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        await ws.aclose()
        assert trio.current_time() == 1
    assert close_code(peer) == 1011


@by_role
async def test_a_message_under_way_waits_for_room_while_somebody_closes(
    role: Role, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    answer_close(peer, role)
    async with opened(role, peer, close_timeout=5, write_limit=10) as ws:
        peer.takes = 0
        ws.nursery.start_soon(ws.send, ["a" * 20_000, "b" * 20_000, "c"])
        await trio.testing.wait_all_tasks_blocked()
        ws.nursery.start_soon(ws.aclose)
        await trio.sleep(1)
        peer.take(inf)
    data = [each.data for each in peer.frames if each.opcode != CLOSE]
    assert b"".join(data) == b"a" * 20_000 + b"b" * 20_000 + b"c"
    assert close_code(peer) == 1000


# By its own block (R11)


class UserError(Exception):
    pass


EG = ExceptionGroup


@pytest.mark.parametrize("number", [0, 1], ids=["client", "server"])
@pytest.mark.parametrize(
    ("how", "code"),
    [("normally", 1000), ("error", 1011), ("cancelled", 1001), ("inner", 1011)],
)
async def test_what_leaving_the_connections_own_block_says(
    number: int, how: str, code: int, autojump_clock: MockClock
) -> None:
    async with open_pair() as pair:
        ws, other = pair[number], pair[1 - number]
        with trio.CancelScope() as scope, contextlib.suppress(UserError, EG):
            async with ws:
                if how == "error":
                    raise UserError
                if how == "inner":
                    raise ExceptionGroup("users", [UserError()])
                if how == "cancelled":
                    scope.cancel()
                    await trio.sleep_forever()
        with pytest.raises(ConnectionClosed) as caught:
            await other.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == code


@by_role
async def test_two_that_close_amid_a_message(
    role: Role, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    answer_close(peer, role)
    seen: list[object] = []
    async with trio.open_nursery() as nursery:
        async with opened(role, peer, close_timeout=50) as ws:
            nursery.start_soon(send_slowly, ws, 3, seen)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as closing:
                closing.start_soon(ws.aclose)
                closing.start_soon(ws.aclose)
            assert trio.current_time() == 3
    assert close_code(peer) == 1000


@by_role
@pytest.mark.parametrize("how", ["close", "end", "reset"])
async def test_a_connection_that_ends_while_closing_waits_for_a_message(
    role: Role, how: str, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    seen: list[object] = []
    async with trio.open_nursery() as nursery:
        async with opened(role, peer, close_timeout=50) as ws:
            nursery.start_soon(send_slowly, ws, 100, seen)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ws.aclose)
            await trio.sleep(1)
            if how == "reset":
                peer.reset()
            else:
                if how == "close":
                    peer.feed(close_frame(1000, key=key_of(role)))
                peer.end()
            await ws.wait_closed()
            assert trio.current_time() == 1
        assert trio.current_time() == 1


# Data that waits when the peer closes


async def with_data(role: Role, peer: StreamPeer, ws: Connection) -> None:
    peer.takes = 0
    for _ in range(3):
        with contextlib.suppress(trio.WouldBlock):
            ws.send_nowait(bytes(50_000))
    await trio.testing.wait_all_tasks_blocked()
    assert ws._engine.data_waits


BODIES = ["sleeping", "receiving", "leaving", "aclose"]


async def be_busy(ws: Connection, body: str) -> None:
    if body == "sleeping":
        await trio.sleep(1)
    elif body == "receiving":
        with contextlib.suppress(ConnectionClosedOK):
            await ws.recv()
    elif body == "aclose":
        await ws.aclose()


@by_role
@pytest.mark.parametrize("body", BODIES)
async def test_data_for_a_peer_that_closes_in_good_order_is_dropped(
    role: Role, body: str, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)

    async def close_soon() -> None:
        await trio.sleep(0.5)
        peer.feed(close_frame(1000, key=key_of(role)))
        peer.take(inf)
        peer.end()

    async with trio.open_nursery() as nursery:
        async with opened(role, peer) as ws:
            await with_data(role, peer, ws)
            nursery.start_soon(close_soon)
            await be_busy(ws, body)
    assert ws.close_code == 1000
    assert trio.current_time() <= 1
    assert peer.frames[-1].opcode == CLOSE
    assert len(peer.frames) <= 3


@by_role
@pytest.mark.parametrize("body", BODIES)
async def test_data_for_a_peer_that_fails_is_lost(
    role: Role, body: str, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)

    async def fail_soon() -> None:
        await trio.sleep(0.5)
        peer.feed(close_frame(1011, key=key_of(role)))
        peer.take(inf)
        peer.end()

    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectionClosedError) as caught:
            async with opened(role, peer) as ws:
                await with_data(role, peer, ws)
                nursery.start_soon(fail_soon)
                await be_busy(ws, body)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1011


@by_role
@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_loss_tells_how_much_was_never_sent(
    role: Role, how: str, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    with pytest.raises(ConnectionClosedError) as caught:
        async with opened(role, peer) as ws:
            await with_data(role, peer, ws)
            waits = ws._engine.outbox.size
            peer.vanish(how)
            await ws.recv()
    cause = caught.value.__cause__
    assert isinstance(cause, (OSError, EOFError))
    assert cause.__notes__ == [f"{waits} waiting bytes were never sent"]


@by_role
@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_loss_without_data_that_waits_has_no_note(
    role: Role, how: str, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    with pytest.raises(ConnectionClosedError) as caught:
        async with opened(role, peer) as ws:
            await ws.send("x")
            await trio.testing.wait_all_tasks_blocked()
            peer.vanish(how)
            await ws.recv()
    assert not hasattr(caught.value.__cause__, "__notes__")


# How long a client is patient with a server that doesn't end TCP


@pytest.mark.parametrize("close_timeout", [1, 10, None])
@pytest.mark.parametrize("first", ["client", "server"])
async def test_a_client_waits_two_seconds_for_the_end_of_tcp(
    close_timeout: float | None, first: str, autojump_clock: MockClock
) -> None:
    peer = StreamPeer()
    async with opened("client", peer, close_timeout=close_timeout) as ws:
        if first == "server":
            peer.feed(close_frame(1000))
            with pytest.raises(ConnectionClosedOK):
                await ws.recv()
        else:
            peer.on_close = lambda: peer.feed(close_frame(1000))
    assert ws.close_code == 1000
    assert trio.current_time() == (1 if close_timeout == 1 else 2)


# Pongs (R7)


@by_role
async def test_pings_are_answered_until_the_peer_closes(
    role: Role, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    async with trio.open_nursery() as nursery:
        async with opened(role, peer) as ws:
            await with_data(role, peer, ws)
            nursery.start_soon(ws.aclose)
            await trio.testing.wait_all_tasks_blocked()
            peer.feed(frame(PING, b"late", key=key_of(role)))
            await trio.sleep(1)
            answer_close(peer, role)
            peer.take(inf)
    kinds = [each.opcode for each in peer.frames]
    assert PONG in kinds
    assert kinds[-1] == CLOSE


@by_role
async def test_who_takes_no_pongs_is_read_slowly(
    role: Role, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    with trio.move_on_after(30):
        async with opened(role, peer, ping_interval=None) as ws:
            peer.takes = 0
            for i in range(100_000):
                peer.feed(frame(PING, b"%0100d" % i, key=key_of(role)))
            before = peer.reads
            await trio.sleep(1)
            # One each 0.02 s, at most; steps of parsing wait as well.
            assert peer.reads - before <= 51
            await trio.sleep(20)
            assert peer.reads - before >= 1
            await ws.wait_closed()


async def test_answered_pings_of_the_keepalive_are_forgotten(
    autojump_clock: MockClock,
) -> None:
    async with open_pair({"ping_interval": 1}, {"ping_interval": 1}) as pair:
        await trio.sleep(100.5)
        assert not any(ws._endpoint.pings.waiting for ws in pair)
        assert all(ws.latency >= 0 for ws in pair)


@by_role
async def test_closing_that_waits_for_nobody(
    role: Role, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)  # which never answers
    async with opened(role, peer, close_timeout=0) as ws:
        await ws.send("x")
    assert trio.current_time() == 0
    assert (ws.close_code, ws.state) == (1006, State.CLOSED)
    assert [each.opcode for each in peer.frames] == [TEXT, CLOSE]


@by_role
@pytest.mark.parametrize("takes", [0, 100])
async def test_closing_that_waits_for_nobody_and_tells_what_was_lost(
    role: Role, takes: int, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    with pytest.raises(ConnectionClosedError):
        async with opened(role, peer, close_timeout=0, write_limit=LARGE + 1) as ws:
            peer.take(takes)
            await ws.send("x" * LARGE)
    assert trio.current_time() == 0


@by_role
async def test_an_answer_to_a_close_frame_goes_though_nobody_waits(
    role: Role, autojump_clock: MockClock
) -> None:
    peer = peer_for(role)
    async with opened(role, peer, close_timeout=0) as ws:
        peer.feed(close_frame(1000, key=key_of(role)))
        assert [message async for message in ws] == []
    assert trio.current_time() == 0
    assert [each.opcode for each in peer.frames] == [CLOSE]
    assert (ws.close_code, ws.state) == (1000, State.CLOSED)
