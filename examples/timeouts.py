"""Timeouts of a client: each is a cancel scope around what it limits."""

import trio

from trio_ws import ClientConnection, ServerConnection, connect, open_server


async def slow(ws: ServerConnection) -> None:
    async for message in ws:
        if message == "hurry":
            await ws.send("here you are")


async def ask(ws: ClientConnection, question: str, seconds: float) -> str | bytes:
    """Ask and wait for the answer; raise trio.TooSlowError if it takes longer."""
    with trio.fail_after(seconds):
        await ws.send(question)
        return await ws.recv()


async def main() -> None:
    async with open_server(slow, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"

        # open_timeout limits DNS, TCP, TLS and the opening handshake together;
        # close_timeout what leaving the block takes.
        async with connect(uri, open_timeout=5, close_timeout=5) as ws:
            try:
                print(await ask(ws, "take your time", 0.1))
            except trio.TooSlowError:
                print("no answer in time")
            # The connection is as it was before.
            print(await ask(ws, "hurry", 10))

        # A limit for everything: from the look-up of the name to the close.
        with trio.move_on_after(0.2) as everything:
            async with connect(uri) as ws:
                async for message in ws:
                    print(message)
        print("cut off:", everything.cancelled_caught)


trio.run(main)
