# shown:
import trio

from trio_ws import connect


async def ask(uri: str) -> None:
    async with connect(uri) as ws:
        await ws.send("are you there?")
        with trio.move_on_after(5):
            print(await ws.recv())
            return
        await trio.aclose_forcefully(ws)
    print("no answer; closed with", ws.close_code)


# end

if __name__ == "__main__":
    from trio.testing import MockClock

    from trio_ws import ServerConnection, serve
    from trio_ws.testing import MemoryNetwork

    async def main() -> None:
        with MemoryNetwork() as network:

            async def handler(ws: ServerConnection) -> None:
                network.freeze()
                await ws.wait_closed()

            async with trio.open_nursery() as nursery:
                await nursery.start(serve, handler, 8000)
                started = trio.current_time()
                await ask("ws://localhost:8000/")
                print(f"took {trio.current_time() - started:g} s")
                nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
