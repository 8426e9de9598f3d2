# shown:
import trio

from trio_ws import ServerConnection


async def handler(ws: ServerConnection) -> None:
    while True:
        with trio.fail_after(60):  # the page says "alive" every 20 seconds
            message = await ws.recv()
        if message != "alive":
            await ws.send(f"got {message!s}")


# end


async def main() -> None:
    try:
        async with open_pair() as (client, server):
            server.nursery.start_soon(handler, server)
            for _ in range(10):
                await trio.sleep(20)
                await client.send("alive")
            await client.send("work")
            print(await client.recv())
            await trio.sleep_forever()
    except trio.TooSlowError:
        print(f"ended after {trio.current_time() - start:.0f} s")


if __name__ == "__main__":
    from trio.testing import MockClock

    from trio_ws.testing import open_pair

    clock = MockClock(autojump_threshold=0)
    start = clock.current_time()
    trio.run(main, clock=clock)
