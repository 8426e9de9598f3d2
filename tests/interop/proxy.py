"""Proxies in the foreground, with what they need in a folder of the test.

nginx and HAProxy stand in front of a server; tinyproxy (HTTP) and microsocks (SOCKS)
before a client.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.interop.peer import HOST

#: A header that the proxy sets to the target of each request that it sees; a
#: request without it has been smuggled past the proxy.
SEEN = "X-Seen-By-Proxy"

#: Runs the proxy in front of a port; gives its own port.
Proxy = Callable[[int, Path], AbstractAsyncContextManager[int]]

# As each project's documentation has it for WebSockets.
_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{
        listen {host}:{port} reuseport;
        location = /last {{ return 204; }}
        location / {{
            proxy_pass http://{host}:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header {seen} $request_uri;
            proxy_read_timeout {idle}s;
        }}
    }}
}}
"""

_HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    timeout tunnel {idle}s
listen websockets
    bind fd@{descriptor}
    http-request return status 204 if {{ path /last }}
    http-request set-header {seen} %[pathq]
    server only {host}:{upstream}
"""

# TLS, and all else, passes through; the server is told whose each connection is, and
# which are HAProxy's own, to see whether it lives.
_HAPROXY_TCP = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
listen websockets
    bind fd@{descriptor}
    server only {host}:{upstream} check inter 100ms
"""

_TINYPROXY = """
Listen {host}
Port {port}
LogLevel Info
MaxClients 8
BasicAuth {user} {password}
ConnectPort {upstream}
"""

#: What the proxies of clients want to know.
USER, PASSWORD = "user", "secret"

_APACHE = """
ServerName {host}
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
ErrorLog /dev/stderr
Listen {host}:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
User www-data
Group www-data
StartServers 1
ThreadsPerChild 25
ProxyPass /last !
Redirect 204 /last
ProxyPass / http://{host}:{upstream}/ upgrade=websocket timeout={idle}
RequestHeader set {seen} expr=%{{REQUEST_URI}}
RequestHeader set {seen} \\
    expr=%{{REQUEST_URI}}?%{{QUERY_STRING}} "expr=-n %{{QUERY_STRING}}"
"""

_CADDY = """
{{
    admin off
    auto_https off
}}
http://:{port} {{
    bind {host}
    respond /last 204
    request_header {seen} {{uri}}
    reverse_proxy {host}:{upstream}
}}
"""

# Seconds without traffic after which a proxy ends a connection.
IDLE = 2


def required(program: str) -> str:
    """Return the path of a program, or skip the test."""
    folders = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib/nagios/plugins"]
    path = shutil.which(program, path=os.pathsep.join(folders))
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


@asynccontextmanager
async def running(
    command: Sequence[str | Path], descriptors: Sequence[int] = ()
) -> AsyncGenerator[trio.Process, None]:
    """Run a program while a block does; its stderr is a pipe."""
    process = await trio.lowlevel.open_process(
        [os.fspath(part) for part in command],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=descriptors,
    )
    assert process.stderr is not None
    async with process.stderr:
        try:
            yield process
            assert process.poll() is None, "it has ended by itself"
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()


async def said(process: trio.Process, last: bytes) -> None:
    """Wait until a process has said something."""
    assert process.stderr is not None
    said = b""
    while last not in said:
        more = await process.stderr.receive_some()
        assert more, said.decode()
        said += more


@asynccontextmanager
async def _on_a_port(
    command: Sequence[str | Path], configuration: Path, template: str, ready: bytes
) -> AsyncGenerator[int, None]:
    """Run it on a port of its own; ``ready`` are its last words before it serves."""
    # The port is kept from others, and yet free for the proxy, by a socket that is
    # bound and doesn't listen.
    with socket.socket() as reserved:
        for option in socket.SO_REUSEADDR, socket.SO_REUSEPORT:
            reserved.setsockopt(socket.SOL_SOCKET, option, True)
        reserved.bind((HOST, 0))
        port: int = reserved.getsockname()[1]
        text = template.replace("{port}", str(port))
        await trio.Path(configuration).write_text(text)
        async with running([*command, configuration]) as process:
            await said(process, ready)
            yield port


def _filled(template: str, upstream: int, folder: Path, **more: str) -> str:
    return template.format(
        folder=folder,
        host=HOST,
        port="{port}",
        upstream=upstream,
        seen=SEEN,
        idle=IDLE,
        **more,
    )


def nginx(upstream: int, folder: Path) -> AbstractAsyncContextManager[int]:
    return _on_a_port(
        [required("nginx"), "-e", "stderr", "-p", folder, "-c"],
        folder / "nginx.conf",
        _filled(_NGINX, upstream, folder),
        b"getrlimit",
    )


def apache2(upstream: int, folder: Path) -> AbstractAsyncContextManager[int]:
    return _on_a_port(
        [required("apache2"), "-DFOREGROUND", "-f"],
        folder / "apache.conf",
        _filled(_APACHE, upstream, folder, modules="/usr/lib/apache2/modules"),
        b"resuming normal operations",
    )


def caddy(upstream: int, folder: Path) -> AbstractAsyncContextManager[int]:
    return _on_a_port(
        # What it keeps, it keeps in these.
        [
            *("env", f"XDG_CONFIG_HOME={folder}", f"XDG_DATA_HOME={folder}"),
            *(required("caddy"), "run", "--adapter", "caddyfile", "--config"),
        ],
        folder / "Caddyfile",
        _filled(_CADDY, upstream, folder),
        b"serving initial configuration",
    )


@asynccontextmanager
async def haproxy(
    upstream: int, folder: Path, send_proxy: str = ""
) -> AsyncGenerator[int, None]:
    """Run HAProxy; with ``send_proxy``, which says how, for TCP alone."""
    template = f"{_HAPROXY_TCP.rstrip()} {send_proxy}\n" if send_proxy else _HAPROXY
    program = required("haproxy")
    configuration = folder / "haproxy.cfg"
    # It inherits a socket that listens already: who connects early waits there.
    with socket.create_server((HOST, 0)) as listening:
        port: int = listening.getsockname()[1]
        configuration.write_text(
            template.format(
                descriptor=listening.fileno(),
                host=HOST,
                upstream=upstream,
                seen=SEEN,
                idle=IDLE,
            )
        )
        async with running([program, "-db", "-f", configuration], [listening.fileno()]):
            yield port


def _reserved() -> socket.socket:
    """Keep a port from others that is free for who sets SO_REUSEADDR, too."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    reserved.bind((HOST, 0))
    return reserved


@asynccontextmanager
async def tinyproxy(upstream: int, folder: Path) -> AsyncGenerator[int, None]:
    program = required("tinyproxy")
    configuration = folder / "tinyproxy.conf"
    with _reserved() as reserved:
        port: int = reserved.getsockname()[1]
        configuration.write_text(
            _TINYPROXY.format(
                host=HOST, port=port, user=USER, password=PASSWORD, upstream=upstream
            )
        )
        # It says what it does on its standard output.
        script = 'exec "$0" -d -c "$1" >&2'
        shell = ["/bin/sh", "-c", script, program, os.fspath(configuration)]
        async with running(shell) as process:
            await said(process, b"Accepting connections")
            yield port


@asynccontextmanager
async def microsocks(_: int, __: Path) -> AsyncGenerator[int, None]:
    """Run microsocks, which doesn't say when it listens: that takes real time."""
    program = required("microsocks")
    with _reserved() as reserved:
        port: int = reserved.getsockname()[1]
        command = [program, "-i", HOST, "-p", f"{port}", "-u", USER, "-P", PASSWORD]
        async with running(command):
            while not await _listens(port):  # noqa: ASYNC110 - of another process
                await trio.sleep(0.01)
            yield port


async def _listens(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream(HOST, port)
    except OSError:
        return False
    await stream.aclose()
    return True


#: Those of clients, by the schemes of their URLs.
FORWARD: dict[str, Proxy] = {
    "http": tinyproxy,
    "socks5": microsocks,
    "socks5h": microsocks,
}
PROXIES: dict[str, Proxy] = {"haproxy": haproxy, "nginx": nginx}

#: For `make interop`.
MORE_PROXIES: dict[str, Proxy] = {"apache2": apache2, "caddy": caddy}

#: The names of all, as parameters of a test.
NAMES = [
    *sorted(PROXIES),
    *(pytest.param(name, marks=pytest.mark.interop) for name in MORE_PROXIES),
]
