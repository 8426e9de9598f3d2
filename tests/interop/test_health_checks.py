"""Health checks and plain requests as programs make them: one hook answers them all."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import trio_ws
from tests.interop.peer import HOST, LIMIT
from tests.interop.proxy import PROXIES, required, running, said
from trio_ws import Request, Response, ServerConnection

CONFIGURATION = Path(__file__).parents[2] / "docs/snippets/haproxy.cfg"


def health_check(ws: ServerConnection, request: Request) -> Response | None:
    if request.path in ("/", "/healthz"):
        return ws.respond(200, "OK\n")
    return None


async def never(ws: ServerConnection) -> None:
    raise AssertionError("a plain request was accepted")


@asynccontextmanager
async def checked() -> AsyncGenerator[int, None]:
    """Run a server; give its port."""
    with trio.fail_after(LIMIT):
        async with trio_ws.open_server(
            never, 0, host=HOST, process_request=health_check
        ) as server:
            yield server.port


async def output(name: str, *arguments: str, folder: Path | None = None) -> str:
    """Run a command that has to succeed, in a folder; return what it says."""
    result = await trio.run_process(
        [required(name), *arguments],
        cwd=folder,
        capture_stdout=True,
        capture_stderr=True,
    )
    return (result.stdout + result.stderr).decode()


# By HAProxy

FORMS = {
    "as documented": None,
    "nothing said": "option httpchk",
    "uri": "option httpchk /healthz",
    "method": "option httpchk HEAD /healthz",
    "version": "option httpchk GET /healthz HTTP/1.1",
    "host": "option httpchk OPTIONS * HTTP/1.1\\r\\nHost:\\ app",
    "body": (
        "option httpchk\n"
        "    http-check send meth POST uri /healthz ver HTTP/1.1 hdr Host app body {}"
    ),
}

# Checks each 50 ms, one of which decides.
QUICK = "timeout connect 5s\n    default-server inter 50ms rise 1 fall 1"


@pytest.mark.realtime(seconds=0.2)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_haproxy(form: str | None, tmp_path: Path) -> None:
    """A server that says 503 first gets no connections until it says 200."""
    program = required("haproxy")
    came: list[Request] = []

    def check(ws: ServerConnection, request: Request) -> Response:
        came.append(request)
        return ws.respond(503 if len(came) == 1 else 200, "as it is\n")

    async def greet(ws: ServerConnection) -> None:
        await ws.send("welcome")

    def hook(ws: ServerConnection, request: Request) -> Response | None:
        return None if "Upgrade" in request.headers else check(ws, request)

    configuration = tmp_path / "haproxy.cfg"
    text = await trio.Path(CONFIGURATION).read_text(encoding="utf-8")
    text = text.replace("timeout connect 5s", QUICK)
    if form is not None:
        text = re.sub(r"option httpchk\n.*", lambda _: form, text)
    with trio.fail_after(LIMIT), socket.create_server((HOST, 0)) as listening:
        port = listening.getsockname()[1]
        async with trio_ws.open_server(
            greet, 0, host=HOST, process_request=hook
        ) as server:
            text = text.replace("bind :8080", f"bind fd@{listening.fileno()}")
            text = text.replace("127.0.0.1:8765", f"{HOST}:{server.port}")
            configuration.write_text(text)
            async with running(
                [program, "-db", "-f", configuration], [listening.fileno()]
            ) as haproxy:
                await said(haproxy, b"is DOWN, reason: Layer7 wrong status, code: 503")
                await said(haproxy, b"is UP, reason: Layer7 check passed, code: 200")
                async with trio_ws.connect(f"ws://{HOST}:{port}/") as ws:
                    assert await ws.recv() == "welcome"
    if form is None:
        assert (came[0].method, came[0].path) == ("GET", "/healthz")
        assert came[0].headers["Host"] == "app"
    if form == FORMS["body"]:
        assert (came[0].method, came[0].body) == ("POST", b"{}")


# By others


async def test_wget() -> None:
    async with checked() as port:
        said = await output("wget", "--spider", "-t", "1", f"http://{HOST}:{port}/")
    assert "200 OK" in said


async def test_check_http() -> None:
    async with checked() as port:
        path = "check_http", "-I", HOST, "-p", str(port), "-u"
        assert "HTTP OK" in await output(*path, "/healthz")
        assert "HTTP OK" in await output(*path, "/healthz", "-j", "HEAD")
        with_body = await output(*path, "/healthz", "-P", "a=b", "-s", "OK")
    assert "HTTP OK" in with_body


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["-I"], "HTTP/1.1 200 OK\r\n"),
        (["--http1.0"], "OK\n"),
        (["-X", "OPTIONS", "-H", "Access-Control-Request-Method: POST"], "OK\n"),
        (["-H", "Content-Type: application/json", "-d", '{"a": 1}'], "OK\n"),
        (["-T", "FILE"], "OK\n"),
        (["-T", "FILE", "--http1.0"], "OK\n"),
        (["-H", "Transfer-Encoding: chunked", "-T", "FILE", "-i"], "HTTP/1.1 501 "),
        (["-T", "LARGE", "-i"], "HTTP/1.1 413 "),
        (["-T", "LARGE", "-i", "-H", "Expect:"], "HTTP/1.1 413 "),
    ],
)
async def test_curl(options: list[str], answer: str, tmp_path: Path) -> None:
    for name, size in ("FILE", 65536), ("LARGE", 65537):
        (tmp_path / name).write_bytes(bytes(size))
    async with checked() as port:
        said = await output(
            "curl", "-sS", *options, f"http://{HOST}:{port}/healthz", folder=tmp_path
        )
    assert said.startswith(answer) or f"\r\n\r\n{answer}" in said


@pytest.mark.parametrize("name", sorted(PROXIES))
async def test_through_a_proxy(name: str, tmp_path: Path) -> None:
    required(name)
    async with checked() as port, PROXIES[name](port, tmp_path) as proxied:
        uri = f"http://{HOST}:{proxied}/healthz"
        assert await output("curl", "-sS", uri, uri) == "OK\nOK\n"
        assert await output("curl", "-sS", "-d", "{}", uri, uri) == "OK\nOK\n"
        assert "200 OK" in await output("curl", "-sS", "-I", uri)
