# shown:
import trio

from trio_ws import connect


async def watch(uri: str) -> None:
    try:
        async with connect(uri) as ws:
            while True:
                with trio.fail_after(60):
                    print(await ws.recv())
    except trio.TooSlowError:
        print("no message for a minute; closed with", ws.close_code)


# end

if __name__ == "__main__":
    from trio.testing import MockClock

    from trio_ws import ServerConnection, serve
    from trio_ws.testing import MemoryNetwork

    async def feed(ws: ServerConnection) -> None:
        await ws.send("news")
        await ws.wait_closed()  # and forgets about it

    async def main() -> None:
        with MemoryNetwork():
            async with trio.open_nursery() as nursery:
                await nursery.start(serve, feed, 8000)
                await watch("ws://localhost:8000/")
                nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
