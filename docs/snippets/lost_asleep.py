import trio

from trio_ws import ConnectionClosedError, connect


async def main() -> None:
    try:
        async with connect("ws://127.0.0.1:8765/killed", loss_grace=0.1) as ws:
            print(await ws.recv())
            await trio.sleep_forever()
    except ConnectionClosedError as exc:
        print("the block raised", repr(exc))
        print("because of", repr(exc.__cause__))


trio.run(main)
