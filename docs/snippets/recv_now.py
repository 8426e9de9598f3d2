import trio

from trio_ws import connect


async def main() -> None:
    async with connect("ws://127.0.0.1:8765/greet") as ws:
        await ws.ping()  # the server greeted before it answered this

        with trio.move_on_after(0) as scope:
            await ws.recv()
        print("move_on_after(0) timed out:", scope.cancelled_caught)

        print("recv_nowait() returned:", ws.recv_nowait())
        try:
            ws.recv_nowait()
        except trio.WouldBlock as exc:
            print("recv_nowait() raised:", repr(exc))


trio.run(main)
