"""The configurations of docs/deployment.rst, as they are but for ports and paths."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_ws
from tests.handlers import wait
from tests.interop.peer import HOST, LIMIT
from tests.interop.proxy import required, running, said
from tests.interop.test_health_checks import health_check

SNIPPETS = Path(__file__).parents[2] / "docs/snippets"
STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@asynccontextmanager
async def serving(**options: Any) -> AsyncGenerator[trio_ws.Server, None]:
    with trio.fail_after(LIMIT):
        async with trio_ws.open_server(wait, 0, host=HOST, **options) as server:
            yield server


def configured(name: str, server: trio_ws.Server, **changes: str) -> str:
    text = (SNIPPETS / name).read_text(encoding="utf-8")
    for before, after in {"127.0.0.1:8765": f"{HOST}:{server.port}", **changes}.items():
        assert before in text
        text = text.replace(before, after)
    return text


@asynccontextmanager
async def nginx(
    name: str, listen: str, server: trio_ws.Server, folder: Path, **changes: str
) -> AsyncGenerator[int, None]:
    """Run nginx with one of them, and two connections of an address; give its port."""
    program = required("nginx")
    with socket.socket() as reserved:
        for option in socket.SO_REUSEADDR, socket.SO_REUSEPORT:
            reserved.setsockopt(socket.SOL_SOCKET, option, True)
        reserved.bind((HOST, 0))
        port: int = reserved.getsockname()[1]
        limited = {"limit_conn addresses 20;": "limit_conn addresses 2;"}
        here = {listen: f"listen {HOST}:{port} reuseport;"}
        text = configured(name, server, **limited, **here, **changes)
        head = (
            "daemon off; master_process off; error_log stderr notice;\n"
            f"pid {folder}/nginx.pid;\n"
        )
        configuration = folder / name
        configuration.write_text(head + text)
        command: list[str | Path] = [
            program,
            "-e",
            "stderr",
            "-p",
            folder,
            "-c",
            configuration,
        ]
        async with running(command) as process:
            await said(process, b"getrlimit")
            yield port


async def test_nginx(tmp_path: Path) -> None:
    kinds = "client_body", "proxy", "fastcgi", "uwsgi", "scgi"
    paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    changes = {"http {": f"http {{ access_log off; {paths}"}
    async with (
        serving() as server,
        nginx("nginx.conf", "listen 8080;", server, tmp_path, **changes) as port,
    ):
        uri = f"ws://{HOST}:{port}/"
        async with trio_ws.connect(uri), trio_ws.connect(uri):
            addresses = [
                ws.request.headers["X-Forwarded-For"] for ws in server.connections
            ]
            assert addresses == [HOST, HOST]
            with pytest.raises(trio_ws.InvalidStatus, match="429"):
                async with trio_ws.connect(uri):
                    pass


@pytest.mark.skipif(not STREAM.exists(), reason="nginx can't pass TCP on here")
async def test_nginx_that_passes_tcp_on(tmp_path: Path) -> None:
    changes = {"events {}": f"load_module {STREAM}; events {{}}"}
    name = "nginx_stream.conf"
    async with (
        serving(proxy_protocol=True) as server,
        nginx(name, "listen 443;", server, tmp_path, **changes) as port,
    ):
        uri = f"ws://{HOST}:{port}/"
        async with trio_ws.connect(uri) as one, trio_ws.connect(uri) as other:
            ours = {ws.remote_address for ws in server.connections}
            assert ours == {one.local_address, other.local_address}
            # It closes, which is a reset if the request is there by then.
            with pytest.raises((trio_ws.InvalidMessage, ConnectionResetError)):
                async with trio_ws.connect(uri):
                    pass


async def test_haproxy_that_passes_tcp_on(tmp_path: Path) -> None:
    """Its checks are answered, and count as nothing else."""
    program = required("haproxy")
    checks, checked = 0, trio.Event()

    def hook(
        ws: trio_ws.ServerConnection, request: trio_ws.Request
    ) -> trio_ws.Response | None:
        nonlocal checks
        checks += request.path == "/healthz"
        if checks == 3:
            checked.set()
        return health_check(ws, request)

    with socket.create_server((HOST, 0)) as listening:
        async with serving(proxy_protocol=True, process_request=hook) as server:
            changes = {
                "bind :443": f"bind fd@{listening.fileno()}",
                " check ": " check inter 50ms ",
            }
            configuration = tmp_path / "haproxy.cfg"
            configuration.write_text(configured("haproxy_tcp.cfg", server, **changes))
            command: list[str | Path] = [program, "-db", "-f", configuration]
            async with running(command, [listening.fileno()]):
                uri = f"ws://{HOST}:{listening.getsockname()[1]}/chat"
                async with trio_ws.connect(uri) as ws:
                    (ours,) = server.connections
                    assert ours.remote_address == ws.local_address
                    await checked.wait()
                    now = server.statistics()
                    assert now.answered > 0
                    assert now.refused == {}
