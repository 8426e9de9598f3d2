"""What goes wrong in other libraries, over real sockets.

`make rivals` runs such scenarios against them; here ours has to pass. Each has a
file of its own elsewhere in which it is taken apart.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws import (
    ClientConnection,
    ConnectionClosed,
    ServerConnection,
    connect,
    open_server,
)

LOCAL = "127.0.0.1"


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def test_full_duplex_never_deadlocks() -> None:
    # The client sends far more than all buffers hold before the server's
    # answers are read to the end, and reads in another task.
    messages = [bytes([i % 256]) * 65_536 for i in range(400)]
    messages += [bytes([i % 256]) * 1_000_000 for i in range(60)]

    async def send_all(ws: ClientConnection) -> None:
        for message in messages:
            await ws.send(message)

    with trio.fail_after(120):
        async with open_server(echo, 0, host=LOCAL, compression=None) as server:
            uri = f"ws://{LOCAL}:{server.port}/"
            async with connect(uri, compression=None) as ws:
                ws.nursery.start_soon(send_all, ws)
                for message in messages:
                    assert await ws.recv() == message


async def test_leaving_with_unread_messages_is_no_wait() -> None:
    async def flood(ws: ServerConnection | ClientConnection) -> None:
        for i in range(200):
            await ws.send(str(i))

    async def flood_and_wait(ws: ServerConnection) -> None:
        await flood(ws)
        await ws.wait_closed()

    async def leave_at_once(ws: ServerConnection) -> None:
        await ws.recv()

    with trio.fail_after(60):
        # On the client's side, with a close_timeout that would be noticed.
        async with open_server(flood_and_wait, 0, host=LOCAL) as server:
            uri = f"ws://{LOCAL}:{server.port}/"
            async with connect(uri, close_timeout=100) as ws:
                await ws.recv()
        # On the server's side.
        async with open_server(
            leave_at_once, 0, host=LOCAL, close_timeout=100
        ) as server:
            async with connect(f"ws://{LOCAL}:{server.port}/") as ws:
                try:
                    await flood(ws)
                except ConnectionClosed:
                    pass
                await ws.wait_closed()
                assert ws.close_code == 1000


async def test_a_cancelled_send_to_a_slow_reader_tears_nothing() -> None:
    read_on = trio.Event()
    received: list[bytes | str] = []

    async def slow(ws: ServerConnection) -> None:
        await read_on.wait()
        async for message in ws:
            received.append(message)

    size = 8 * 2**20
    with trio.fail_after(120):
        async with open_server(
            slow, 0, host=LOCAL, max_size=None, max_queue=0, compression=None
        ) as server:
            uri = f"ws://{LOCAL}:{server.port}/"
            async with connect(uri, compression=None) as ws:
                accepted: list[bytes | str] = []
                while True:
                    message = bytes([len(accepted)]) * size
                    with trio.CancelScope() as scope:
                        # Cancelled as soon as it has to wait.
                        ws.nursery.start_soon(cancel_when_blocked, scope)
                        await ws.send(message)
                    if scope.cancelled_caught:
                        break
                    accepted.append(message)
                read_on.set()
                await ws.send("whole")
    assert received == [*accepted, "whole"]


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def test_a_server_that_is_cancelled_says_so_to_each_client() -> None:
    codes: list[int | None] = []

    async def client(port: int, task_status: trio.TaskStatus[None]) -> None:
        async with connect(f"ws://{LOCAL}:{port}/") as ws:
            task_status.started()
            assert [message async for message in ws] == []
            codes.append(ws.close_code)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with open_server(echo, 0, host=LOCAL) as server:
                    for _ in range(5):
                        await nursery.start(client, server.port)
                    scope.cancel()
                    await trio.sleep_forever()
    assert codes == [1001] * 5


async def test_one_handlers_exception_harms_nobody_else() -> None:
    async def handler(ws: ServerConnection) -> None:
        async for message in ws:
            if message == "fail":
                raise ValueError("a bug of the user's")
            await ws.send(message)

    with trio.fail_after(60):
        async with open_server(handler, 0, host=LOCAL) as server:
            uri = f"ws://{LOCAL}:{server.port}/"
            async with connect(uri) as one, connect(uri) as other:
                await other.send("fail")
                with pytest.raises(ConnectionClosed, match="received 1011"):
                    await other.recv()
                await one.send("still here")
                assert await one.recv() == "still here"
                async with connect(uri) as late:
                    await late.send("and new ones")
                    assert await late.recv() == "and new ones"
