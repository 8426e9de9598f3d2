"""TLS in which the server knows its clients by their certificates.

To run it: python mutual_tls.py SERVER CLIENT AUTHORITY

All are PEM files: the server's certificate for 127.0.0.1 and the client's, each with
its chain and its private key in one file, and the certificate of the authority that
both trust. docs/deployment.rst says how to make them by openssl.
"""

import ssl
import sys

import trio

from trio_ws import (
    ClientConnection,
    Request,
    Response,
    ServerConnection,
    connect,
    open_server,
)


def names_of(ws: ServerConnection) -> list[str]:
    """Return what the client's certificate is for."""
    certificate = ws.ssl_object and ws.ssl_object.getpeercert()
    return [name for _, name in (certificate or {}).get("subjectAltName", ())]


def let_in(ws: ServerConnection, request: Request) -> Response | None:
    # That the authority has signed the certificate is checked by then.
    if names_of(ws) == ["alice.clients.example"]:
        return None
    return ws.respond(403, "Not you.\n")


async def greet(ws: ServerConnection) -> None:
    await ws.send(f"Hello, {names_of(ws)[0]}!")


async def show(ws: ClientConnection) -> None:
    print(await ws.recv())
    assert ws.ssl_object is not None
    print("by", ws.ssl_object.version())


async def main() -> None:
    server, client, authority = sys.argv[1:]
    for_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    for_server.load_cert_chain(server)
    for_server.verify_mode = ssl.CERT_REQUIRED
    for_client = ssl.create_default_context(cafile=authority)
    for_client.load_cert_chain(client)
    without = ssl.create_default_context(cafile=authority)

    async with open_server(
        greet, 0, host="127.0.0.1", ssl=for_server, process_request=let_in
    ) as running:
        uri = f"wss://127.0.0.1:{running.port}/"
        async with connect(uri, ssl=for_client) as ws:
            await show(ws)
        try:
            async with connect(uri, ssl=without):
                print("let in without a certificate")
        except OSError:
            print("refused without a certificate")


if len(sys.argv) != 4:
    sys.exit(__doc__)
trio.run(main)
