import trio

from trio_ws import connect


async def main() -> None:
    async with connect("ws://127.0.0.1:8765/") as ws:
        # An exception if nothing comes in time:
        try:
            with trio.fail_after(0.1):
                print(await ws.recv())
        except trio.TooSlowError:
            print("nothing came within 0.1 s")

        # The connection is as it was.
        await ws.send("still here")
        with trio.move_on_after(10) as scope:
            print(await ws.recv())
        print("timed out:", scope.cancelled_caught)


trio.run(main)
