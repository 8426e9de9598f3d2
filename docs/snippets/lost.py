import trio

from trio_ws import connect


async def main() -> None:
    async with connect("ws://127.0.0.1:8765/killed") as ws:
        async for message in ws:
            print(message)


trio.run(main)
