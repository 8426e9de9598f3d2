"""Exchange a server's certificate while it runs, whatever kind of key it has.

To run it: python new_certificate.py OLD NEW AUTHORITY

OLD and NEW are PEM files, each with a private key, and its certificate for 127.0.0.1;
AUTHORITY is the certificate of the authority that the client trusts.
"""

import ssl
import sys

import trio

from trio_ws import ServerConnection, connect, open_server


class Certificate:
    """A context for a server, and the certificate that it shows."""

    def __init__(self, path: str) -> None:
        self.load(path)
        self.context = self._newest
        self.context.sni_callback = self._choose

    def load(self, path: str) -> None:
        """Show another one to those who connect from now on.

        Raises OSError if the file, or the key in it, is wrong; the old one stays then.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path)
        self._newest = context

    def _choose(
        self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> None:
        tls.context = self._newest


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    old, new, authority = sys.argv[1:]
    certificate = Certificate(old)
    client = ssl.create_default_context(cafile=authority)

    async def show_certificate() -> None:
        async with connect(f"wss://127.0.0.1:{server.port}/", ssl=client) as ws:
            await ws.send("Hello!")
            assert ws.ssl_object is not None
            shown = ws.ssl_object.getpeercert() or {}
            print(await ws.recv(), shown["serialNumber"])

    async with open_server(
        echo, 0, host="127.0.0.1", ssl=certificate.context
    ) as server:
        await show_certificate()
        certificate.load(new)
        await show_certificate()
        try:
            certificate.load(authority)
        except OSError:  # there is no key in it
            await show_certificate()


if len(sys.argv) != 4:
    sys.exit(__doc__)
trio.run(main)
