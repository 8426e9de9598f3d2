"""Server.aclose() with many connections: nobody is lost, nobody holds it up.

In memory, on a clock that stands still while anything can run, each peer is a
RawPeer, so that what it saw is what was on the wire.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.peers.in_memory import (
    BINARY,
    CLOSE,
    REQUEST,
    TEXT,
    MemoryListener,
    RawPeer,
    close_frame,
)
from tests.platforms import needs_posix
from trio_ws import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Response,
    Server,
    ServerConnection,
    State,
    connect,
    serve,
)

ROOT = Path(__file__).parents[2]

MANY = 500
SOME = 200  # where more would show nothing more

Handler = Callable[[ServerConnection], Awaitable[object]]


async def wait(ws: ServerConnection) -> None:
    await ws.wait_closed()


async def stubborn(ws: ServerConnection) -> None:
    await trio.sleep_forever()


class Crowd:
    """A server with clients, each of which takes note of its close frame."""

    def __init__(self, server: Server, listener: MemoryListener) -> None:
        self.server = server
        self.listener = listener
        self.peers: list[RawPeer] = []
        self.said_at: list[float] = []  # when the close frames came
        self.frames: set[tuple[int, bytes]] = set()  # what they were

    async def join(self, peer: RawPeer | None = None) -> RawPeer:
        """Let one more client connect."""
        peer = peer or RawPeer(client=True)
        self.peers.append(peer)
        self.listener.add(peer.theirs)
        await peer.ask()
        assert (await peer.skip_response()).startswith(b"HTTP/1.1 101 ")
        return peer

    async def polite(self, peer: RawPeer) -> None:
        """Answer the close frame of the server."""
        await self.mute(peer)
        await peer.close(1001)
        assert await peer.read() is None

    async def mute(self, peer: RawPeer) -> None:
        """Read the close frame of the server and go on saying nothing."""
        said = await peer.read()
        assert said is not None
        self.said_at.append(trio.current_time())
        self.frames.add(said)


@asynccontextmanager
async def crowd(handler: Handler, count: int, **options: Any) -> AsyncIterator[Crowd]:
    """Run a server to which many are connected; nothing may be left in the end."""
    before = trio.lowlevel.current_statistics().tasks_living
    # With the clock that jumps, what would hang fails at once.
    with trio.fail_after(1000):
        async with _crowd(handler, count, options) as made:
            yield made
    assert made.server.connections == set()
    assert trio.lowlevel.current_statistics().tasks_living == before


@asynccontextmanager
async def _crowd(
    handler: Handler, count: int, options: dict[str, Any]
) -> AsyncIterator[Crowd]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        run = functools.partial(serve, handler, listeners=[listener], **options)
        server: Server = await nursery.start(run)
        made = Crowd(server, listener)
        async with trio.open_nursery() as joining:
            for _ in range(count):
                joining.start_soon(made.join)
        await trio.testing.wait_all_tasks_blocked()
        yield made


def most_within(moments: list[float], width: float) -> int:
    """Return how many of the moments at most lie in a window of this width."""
    moments = sorted(moments)
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= width:
            first += 1
        most = max(most, last - first + 1)
    return most


# When what happens


async def test_close_frames_are_spread_evenly(autojump_clock: MockClock) -> None:
    async with crowd(wait, MANY) as made:
        async with trio.open_nursery() as clients:
            for peer in made.peers:
                clients.start_soon(made.polite, peer)
            await made.server.aclose(reason="update", spread=10)
            assert trio.current_time() <= 10
    assert made.frames == {close_frame(1001, "update")}
    assert len(made.said_at) == MANY
    mean = MANY * 0.1 / 10
    assert most_within(made.said_at, 0.1) <= 3 * mean
    # Over all of the time, not the beginning of it.
    assert min(made.said_at) < 0.1
    assert 9.8 < max(made.said_at) < 10


async def test_a_busy_machine_does_not_stretch_the_spread(
    autojump_clock: MockClock,
) -> None:
    async def busy(ws: ServerConnection) -> None:
        await ws.wait_closed()
        autojump_clock.jump(0.005)  # what the end of a handler takes

    async with crowd(busy, 200) as made:
        async with trio.open_nursery() as clients:
            for peer in made.peers:
                clients.start_soon(made.polite, peer)
            # One each 10 ms, half of which something else takes.
            await made.server.aclose(spread=2)
            assert trio.current_time() <= 2.01
    assert most_within(made.said_at, 0.1) <= 30


async def test_a_slow_loop_does_not_stretch_the_spread(mock_clock: MockClock) -> None:
    async def slow_down() -> None:
        # What floods on other connections, for one, takes of each turn of the loop.
        while True:
            mock_clock.jump(0.05)
            await trio.lowlevel.checkpoint()

    async with crowd(wait, 200) as made:
        async with trio.open_nursery() as slow, trio.open_nursery() as clients:
            for peer in made.peers:
                clients.start_soon(made.polite, peer)
            slow.start_soon(slow_down)
            start = trio.current_time()
            await made.server.aclose(spread=1)
            slow.cancel_scope.cancel()
    # One close frame a turn would take ten seconds.
    assert max(made.said_at) - start < 1.5


async def test_all_at_once_without_a_spread(autojump_clock: MockClock) -> None:
    async with crowd(wait, SOME) as made:
        async with trio.open_nursery() as clients:
            for peer in made.peers:
                clients.start_soon(made.polite, peer)
            await made.server.aclose()
    assert made.said_at == [0] * SOME


async def test_no_waiting_for_the_place_of_those_that_have_gone(
    autojump_clock: MockClock,
) -> None:
    async def leave(peer: RawPeer, delay: float) -> None:
        await trio.sleep(delay)
        await peer.close(1000)
        while await peer.read() is not None:
            pass

    async with crowd(wait, SOME) as made:
        async with trio.open_nursery() as clients:
            for number, peer in enumerate(made.peers):
                clients.start_soon(leave, peer, 4 * number / SOME)
            await made.server.aclose(spread=100, timeout=50)
            assert trio.current_time() == 4 * (SOME - 1) / SOME


async def test_handlers_that_end_on_their_own_meanwhile(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def short(ws: ServerConnection) -> None:
        await trio.sleep(3)

    async with crowd(short, SOME) as made:
        async with trio.open_nursery() as clients:
            for peer in made.peers:
                clients.start_soon(made.polite, peer)
            await made.server.aclose(spread=6, timeout=50)
            assert trio.current_time() == 3
    # Half of them closed by the server, half by the end of their handler.
    assert made.frames == {close_frame(1001), close_frame(1000)}
    assert made.said_at.count(3) == pytest.approx(SOME / 2, abs=1)
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == []


async def test_the_last_one_is_not_waited_for_longer_than_the_timeout(
    autojump_clock: MockClock,
) -> None:
    # Its place is the first: the time of the handlers begins there.
    async with crowd(stubborn, 1) as made:
        async with trio.open_nursery() as clients:
            clients.start_soon(made.polite, made.peers[0])
            await made.server.aclose(spread=30, timeout=5)
            assert trio.current_time() == 5


@pytest.mark.parametrize("spread", [0, 4])
async def test_handlers_are_cut_at_the_timeout(
    autojump_clock: MockClock, spread: float
) -> None:
    ended: list[float] = []

    async def slow(ws: ServerConnection) -> None:
        try:
            await ws.wait_closed()
            await trio.sleep(next(durations))
        finally:
            ended.append(trio.current_time())

    durations = iter([1, 100] * MANY)
    async with crowd(slow, MANY) as made:
        async with trio.open_nursery() as clients:
            for peer in made.peers:
                clients.start_soon(made.polite, peer)
            await made.server.aclose(spread=spread, timeout=6)
            assert spread + 5.9 < trio.current_time() <= spread + 6
    assert len(ended) == MANY
    # Those that needed a second had it.
    assert sum(moment <= spread + 1 for moment in ended) == MANY / 2
    assert ended.count(max(ended)) == MANY / 2


@pytest.mark.parametrize(
    ("close_timeout", "timeout", "last"),
    [(2, 10, 2), (10, 3, 3), (None, 3, 3), (2, None, 2)],
)
@pytest.mark.parametrize("spread", [0, 5])
async def test_clients_that_answer_nothing(
    autojump_clock: MockClock,
    close_timeout: float | None,
    timeout: float | None,
    last: float,
    spread: float,
) -> None:
    async with crowd(wait, 300, close_timeout=close_timeout) as made:
        async with trio.open_nursery() as clients:
            for number, peer in enumerate(made.peers):
                clients.start_soon(made.mute if number % 3 else made.polite, peer)
            await made.server.aclose(spread=spread, timeout=timeout)
            assert trio.current_time() <= spread + last
    assert made.frames == {close_frame(1001)}


@pytest.mark.parametrize(
    ("close_timeout", "timeout"), [(2, 10), (10, 3), (None, 3), (2, None)]
)
async def test_clients_that_read_nothing(
    autojump_clock: MockClock, close_timeout: float | None, timeout: float | None
) -> None:
    async def push(ws: ServerConnection) -> None:
        while True:
            await ws.send(bytes(50_000))

    async with crowd(push, 0, close_timeout=close_timeout) as made:
        for _ in range(50):
            streams = trio.testing.lockstep_stream_pair()
            await made.join(RawPeer(client=True, streams=streams))
        await trio.testing.wait_all_tasks_blocked()
        await made.server.aclose(spread=1, timeout=timeout)
        limits = [limit for limit in (close_timeout, timeout) if limit is not None]
        assert trio.current_time() <= 1 + min(limits)


async def test_handshakes_under_way_may_have_time(autojump_clock: MockClock) -> None:
    async with crowd(wait, 1) as made:
        opens, silent = RawPeer(client=True), RawPeer(client=True)
        for peer in opens, silent:
            made.listener.add(peer.theirs)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as clients:
            close = functools.partial(made.server.aclose, open_grace=3)
            clients.start_soon(close)
            await trio.sleep(1)
            await opens.ask()
            answer = await opens.skip_response()
            assert answer.startswith(b"HTTP/1.1 101 ")
            clients.start_soon(made.polite, opens)
            clients.start_soon(made.polite, made.peers[0])
            answer = await silent.skip_response()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert trio.current_time() == 3
            await silent.stream.aclose()
    assert made.said_at == [3, 3]


async def test_time_that_no_handshake_needs_is_not_waited(
    autojump_clock: MockClock,
) -> None:
    async with crowd(wait, 1) as made:
        opens = RawPeer(client=True)
        made.listener.add(opens.theirs)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as clients:
            close = functools.partial(made.server.aclose, open_grace=30)
            clients.start_soon(close)
            clients.start_soon(made.polite, made.peers[0])
            await trio.sleep(2)
            assert made.said_at == []
            await opens.ask()
            await opens.skip_response()
            clients.start_soon(made.polite, opens)
    assert made.said_at == [2, 2]


# What becomes of messages


async def test_nothing_that_was_accepted_is_lost(autojump_clock: MockClock) -> None:
    """What a handler got it can finish, what it sent arrives."""
    taken: dict[str, list[str]] = {}
    finished: dict[str, list[str]] = {}
    answered: dict[str, list[bytes]] = {}
    heard: dict[str, list[bytes]] = {}

    async def work(ws: ServerConnection) -> None:
        name = str(await ws.recv())
        taken[name], finished[name], answered[name] = [], [], []
        async for message in ws:
            taken[name].append(str(message))
            await trio.sleep(0.07)
            finished[name].append(str(message))
            for part in range(3):
                answer = f"{message!s} {part}".encode()
                try:
                    await ws.send(answer)
                except ConnectionClosedOK:
                    return
                answered[name].append(answer)

    async def talk(peer: RawPeer) -> None:
        for number in range(SOME):
            try:
                await peer.send(TEXT, str(number).encode())
            except trio.BrokenResourceError:
                return  # the server has closed
            await trio.sleep(0.05)

    async def visit(name: str, peer: RawPeer) -> None:
        heard[name] = []
        async with trio.open_nursery() as talking:
            await peer.send(TEXT, name.encode())
            talking.start_soon(talk, peer)
            while True:
                said = await peer.read()
                assert said is not None, "no close frame came"
                if said[0] & 0x0F == CLOSE:
                    break
                assert said[0] == 0x80 | BINARY
                heard[name].append(said[1])
            talking.cancel_scope.cancel()
        assert said == close_frame(1001)
        await peer.close(1001)
        assert await peer.read() is None

    async with crowd(work, SOME) as made:
        async with trio.open_nursery() as clients:
            for number, peer in enumerate(made.peers):
                clients.start_soon(visit, str(number), peer)
            await trio.sleep(0.5)
            await made.server.aclose(spread=1, timeout=5)
    assert len(taken) == SOME
    assert finished == taken
    assert heard == answered
    # Each was cut in the middle of its work, and had done some before.
    assert all(3 <= len(messages) <= 22 for messages in taken.values())
    # Some closed between a message and its answers.
    assert any(len(answered[name]) < 3 * len(taken[name]) for name in taken)


async def test_what_waits_for_a_slow_client_arrives(
    autojump_clock: MockClock,
) -> None:
    sent = received = 0

    async def push(ws: ServerConnection) -> None:
        nonlocal sent
        while True:
            await ws.send(bytes(10_000))  # ends with ConnectionClosedOK
            sent += 1

    async def read_slowly(peer: RawPeer) -> None:
        nonlocal received
        while True:
            await trio.sleep(0.1)
            said = await peer.read()
            assert said is not None
            if said[0] & 0x0F == CLOSE:
                break
            received += 1
        await peer.close(1001)

    async with crowd(push, 0, compression=None) as made:
        for _ in range(30):
            streams = trio.testing.lockstep_stream_pair()
            await made.join(RawPeer(client=True, streams=streams))
        async with trio.open_nursery() as clients:
            for peer in made.peers:
                clients.start_soon(read_slowly, peer)
            await trio.sleep(1)
            await made.server.aclose(spread=1)
    assert received == sent > 300


async def test_a_loss_meanwhile_is_still_a_loss(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever was lost before its turn is told so, in the time that it has."""
    told: list[str] = []
    cut: list[float] = []

    async def late(ws: ServerConnection) -> None:
        if ws.request.path == "/asleep":
            try:
                await trio.sleep_forever()
            finally:
                cut.append(trio.current_time())
        await trio.sleep(7)
        try:
            await ws.recv()
        except ConnectionClosed as exc:
            told.append(type(exc).__name__)

    async with crowd(late, 0, loss_grace=8) as made:
        for path in "/asleep", "/late":
            for _ in range(10):
                peer = RawPeer(client=True)
                made.listener.add(peer.theirs)
                await peer.put(REQUEST.replace(b"/chat", path.encode()))
                await peer.skip_response()
                made.peers.append(peer)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                functools.partial(made.server.aclose, spread=5, timeout=20)
            )
            await trio.testing.wait_all_tasks_blocked()
            for peer in made.peers:
                await peer.stream.aclose()
    # One of the twenty had its turn before: the first one comes at once.
    assert cut.count(8) >= 9  # by the clock of the loss
    assert told.count(ConnectionClosedError.__name__) >= 9
    assert len(cut) == len(told) == 10


# Who comes meanwhile


async def test_openings_under_way_get_503(autojump_clock: MockClock) -> None:
    async def hook(ws: ServerConnection, request: object) -> Response | None:
        await asked.wait()
        return None

    asked = trio.Event()
    asked.set()
    async with crowd(wait, 10, process_request=hook) as made:
        asked = trio.Event()
        asking = []
        for start in (b"", REQUEST[:50], REQUEST):
            for _ in range(100):
                stream = made.listener.connect()
                if start:
                    await stream.send_all(start)
                asking.append(stream)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as clients:
            for peer in made.peers:
                clients.start_soon(made.polite, peer)
            clients.start_soon(functools.partial(made.server.aclose, spread=9))
            await trio.testing.wait_all_tasks_blocked()
            assert made.listener.closed
            asked.set()
            for stream in asking:
                answer = bytes(await stream.receive_some())
                assert answer.startswith(b"HTTP/1.1 503 ")
            assert trio.current_time() == 0  # not when all has ended
            with pytest.raises(trio.BrokenResourceError):
                made.listener.connect()


async def test_a_second_and_impatient_closing(autojump_clock: MockClock) -> None:
    async with crowd(stubborn, 100) as made:
        async with trio.open_nursery() as clients:
            for peer in made.peers:
                clients.start_soon(made.polite, peer)
            clients.start_soon(
                functools.partial(made.server.aclose, spread=60, timeout=60)
            )
            await trio.sleep(6)
            assert 10 <= len(made.said_at) <= 11
            await made.server.aclose(timeout=2)
            assert trio.current_time() == 8
    assert len(made.said_at) == 100


async def test_a_closing_that_is_cancelled_in_the_middle(
    autojump_clock: MockClock,
) -> None:
    async with crowd(stubborn, 100) as made:
        async with trio.open_nursery() as clients:
            for peer in made.peers:
                clients.start_soon(made.mute, peer)
            with trio.move_on_after(5) as scope:
                await made.server.aclose(spread=10)
            assert scope.cancelled_caught
    # crowd() waits for the server, which has ended all the same.
    assert trio.current_time() == 5
    assert len(made.said_at) == 100
    assert made.frames == {close_frame(1001)}


@pytest.mark.parametrize("spread", [None, float("inf"), float("nan")])
async def test_a_spread_without_an_end(autojump_clock: MockClock, spread: Any) -> None:
    async with crowd(wait, 1) as made:
        with pytest.raises(ValueError, match="spread: expected"):
            await made.server.aclose(spread=spread)
        # As if nothing had been asked.
        assert [ws.state for ws in made.server.connections] == [State.OPEN]
        async with trio.open_nursery() as clients:
            clients.start_soon(made.polite, await made.join())
            clients.start_soon(made.polite, made.peers[0])
            await made.server.aclose()


# Over real sockets


async def answer(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.mark.realtime(seconds=0.5)
async def test_with_real_sockets() -> None:
    """Here two hundred clients are closed, and a new one is refused."""
    codes: list[int | None] = []
    echoes: list[str | bytes] = []

    async def visit(task_status: trio.TaskStatus[None]) -> None:
        async with connect(uri) as ws:
            await ws.send("here")
            await ws.send("and here")
            assert await ws.recv() == "here"
            task_status.started()
            await closing.wait()
            echoes.extend([message async for message in ws])
            codes.append(ws.close_code)

    closing = trio.Event()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            start = functools.partial(serve, answer, 0, host="127.0.0.1")
            server: Server = await nursery.start(start)
            uri = f"ws://127.0.0.1:{server.port}/"
            for _ in range(200):
                await nursery.start(visit)
            silent = await trio.open_tcp_stream("127.0.0.1", server.port)
            await trio.testing.wait_all_tasks_blocked(0.01)
            closing.set()
            async with trio.open_nursery() as stopping:
                stopping.start_soon(
                    functools.partial(server.aclose, spread=0.3, timeout=30)
                )
                async with silent:
                    assert bytes(await silent.receive_some())[:12] == b"HTTP/1.1 503"
                with pytest.raises(OSError, match="all attempts to connect"):
                    await trio.open_tcp_stream("127.0.0.1", server.port)
    assert codes == [1001] * 200
    assert echoes == ["and here"] * 200


SERVER = """
    import signal
    import trio
    from trio_ws import serve

    ended = 0

    async def answer(ws):
        global ended
        async for message in ws:
            await ws.send(message)
        await trio.sleep(0.1)  # something to finish
        ended += 1

    async def main():
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                server = await nursery.start(
                    lambda task_status: serve(
                        answer, 0, host="127.0.0.1", task_status=task_status
                    )
                )
                print(server.port, flush=True)
                async for _ in signals:
                    print(len(server.connections))
                    await server.aclose(spread=0.2, timeout=30)
                    break
        print(ended)

    trio.run(main)
"""


@pytest.mark.realtime(seconds=0.5)
@needs_posix
async def test_sigterm() -> None:
    async def visit(task_status: trio.TaskStatus[None]) -> None:
        async with connect(uri) as ws:
            for number in range(10):
                await ws.send(str(number))
            task_status.started()
            received.append([message async for message in ws])
            codes.append(ws.close_code)

    codes: list[int | None] = []
    received: list[list[str | bytes]] = []
    with subprocess.Popen(  # noqa: ASYNC220 - starting it takes no time
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SERVER)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            uri = f"ws://127.0.0.1:{process.stdout.readline().strip()}/"
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for _ in range(100):
                        await nursery.start(visit)
                    process.send_signal(signal.SIGTERM)
                output, errors = await trio.to_thread.run_sync(process.communicate)
        finally:
            process.kill()
    assert (output.split(), errors) == (["100", "100"], "")
    assert process.returncode == 0
    assert codes == [1001] * 100
    # What came back is a beginning of what was sent: no gaps.
    sent = [str(number) for number in range(10)]
    assert all(messages == sent[: len(messages)] for messages in received)
    assert any(re.fullmatch(r"\d", str(m)) for messages in received for m in messages)
