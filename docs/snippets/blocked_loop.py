import hashlib

import trio

from trio_ws import ServerConnection, connect, open_server


def fingerprint(password: bytes) -> str:
    return hashlib.pbkdf2_hmac("sha256", password, b"salt", 10_000).hex()


async def handler(ws: ServerConnection) -> None:
    async for message in ws:
        password = str(message).encode()
        # Not fingerprint(password): nothing else would run meanwhile.
        await ws.send(await trio.to_thread.run_sync(fingerprint, password))


async def main() -> None:
    async with open_server(handler, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("secret")
            print(len(await ws.recv()))


trio.run(main)
