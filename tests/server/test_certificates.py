"""A new certificate, for a server that runs."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
import trustme

from tests.handlers import echo
from trio_ws import connect, open_server


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_new_certificate_is_for_new_connections(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authority = trustme.CA()
    chain = str(tmp_path / "server.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.maximum_version = version
    client = ssl.create_default_context()
    authority.configure_trust(client)

    def renew() -> str:
        certificate = authority.issue_cert("localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(chain)
        context.load_cert_chain(chain)
        return certificate.cert_chain_pems[0].bytes().decode()

    def presented(port: int) -> str:
        return ssl.get_server_certificate(("127.0.0.1", port))

    first = renew()
    async with open_server(echo, 0, host="127.0.0.1", ssl=context) as server:
        uri = f"wss://localhost:{server.port}/"
        async with connect(uri, ssl=client) as old:
            assert await trio.to_thread.run_sync(presented, server.port) == first
            second = renew()
            assert second != first
            assert await trio.to_thread.run_sync(presented, server.port) == second
            async with connect(uri, ssl=client) as new:
                for ws in old, new:
                    await ws.send("hello")
                    assert await ws.recv() == "hello"
