# shown:
from trio_ws import ConnectionClosedOK, ServerConnection


class TextConnection(ServerConnection):
    async def recv_text(self) -> str:
        """Return the next message; close with 1003 (unsupported data) if it's bytes.

        **Cancellation** loses nothing, as of recv().
        """
        message = await self.recv()
        if isinstance(message, bytes):
            await self.aclose(1003, "text only")
            message = str(await self.recv())  # raises ConnectionClosedOK
        return message


async def handler(ws: TextConnection) -> None:
    try:
        while True:
            await ws.send((await ws.recv_text()).upper())
    except ConnectionClosedOK:
        pass  # either side has closed


# end

if __name__ == "__main__":
    import trio

    from trio_ws import ConnectionClosedError, connect, open_server

    async def main() -> None:
        async with open_server(
            handler, 0, host="127.0.0.1", create_connection=TextConnection
        ) as server:
            try:
                async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                    for message in "hello", b"\x00":
                        await ws.send(message)
                        print(await ws.recv())
            except ConnectionClosedError:
                print(ws.close_code, ws.close_reason)

    trio.run(main)
