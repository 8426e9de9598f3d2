"""A server and a client with TLS.

To run it: python tls.py CERTIFICATE KEY AUTHORITY

All are PEM files: the server's certificate (with its chain) for 127.0.0.1, its
private key, and the certificate of the authority that the client trusts.
"""

import ssl
import sys

import trio

from trio_ws import ServerConnection, connect, open_server


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    certificate, key, authority = sys.argv[1:]
    for_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for_server.load_cert_chain(certificate, key)
    # Without ssl=..., a client trusts the authorities that the system trusts.
    for_client = ssl.create_default_context(cafile=authority)

    async with open_server(echo, 0, host="127.0.0.1", ssl=for_server) as server:
        uri = f"wss://127.0.0.1:{server.port}/"
        async with connect(uri, ssl=for_client) as ws:
            await ws.send("Hello!")
            print(await ws.recv())
        try:
            async with connect(uri):
                print("the system trusts this authority, too")
        except ssl.SSLError as exc:
            print("refused:", exc.reason)


if len(sys.argv) != 4:
    sys.exit(__doc__)
trio.run(main)
