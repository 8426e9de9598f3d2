# shown:
from trio_ws import reconnect

wanted = {"tea", "milk"}  # what to follow; the program changes it


async def follow(uri: str) -> None:
    async for attempt in reconnect(uri):
        async with attempt as ws:
            for subject in sorted(wanted):
                await ws.send(f"subscribe {subject}")
            async for message in ws:
                print(message)
                if message == "the end":
                    return
        print("closed with", ws.close_code)


# end

if __name__ == "__main__":
    import trio
    from trio.testing import MockClock

    from trio_ws import ServerConnection, serve
    from trio_ws.testing import MemoryNetwork

    visits = 0

    async def server(ws: ServerConnection) -> None:
        global visits
        visits += 1
        for _ in wanted:
            await ws.send(f"{await ws.recv()!s}: done")
        if visits == 2:
            await ws.send("the end")
            await ws.wait_closed()
        await ws.aclose(1012, "restart")

    async def main() -> None:
        with MemoryNetwork():
            async with trio.open_nursery() as nursery:
                await nursery.start(serve, server, 8000)
                await follow("ws://localhost:8000/")
                nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
