"""The examples, and the code in README.md, run as they stand."""

from __future__ import annotations

import ast
import functools
import itertools
import json
import logging
import os
import re
import runpy
import signal
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography import x509
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.interop import chromium_peer
from tests.interop.proxy import required
from tests.platforms import needs_posix, needs_resets, needs_unix_sockets
from tests.processes import STRICT, ran
from trio_ws import (
    ClientConnection,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidStatus,
    Server,
    connect,
    open_server,
    unix_connect,
    unix_serve,
)
from trio_ws.testing import MemoryNetwork, open_pair

ROOT = Path(__file__).parents[1]
PORT = "8765"


def command(code: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", code]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def blocks(text: str) -> list[str]:
    """Return the blocks of Python in a Markdown text."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return str(sock.getsockname()[1])


@asynccontextmanager
async def running(server_code: str) -> AsyncIterator[str]:
    """Run a server on a port of our own, which is given, while a block runs."""
    port = free_port()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            run = functools.partial(
                trio.run_process,
                command(server_code.replace(PORT, port)),
                env=ENVIRONMENT,
                check=False,
            )
            server = await nursery.start(run)
            while True:
                try:
                    await (await trio.open_tcp_stream("localhost", int(port))).aclose()
                    break
                except OSError:
                    await trio.sleep(0.05)
            yield port
            server.terminate()


async def run_pair(server_code: str, client_code: str) -> str:
    """Run a server and then a client; return what the client prints."""
    async with running(server_code) as port:
        result = await trio.run_process(
            command(client_code.replace(PORT, port)),
            env=ENVIRONMENT,
            capture_stdout=True,
        )
    return result.stdout.decode().replace(os.linesep, "\n")


@pytest.mark.realtime(seconds=1)
async def test_the_readmes_server_and_client() -> None:
    server, client, *_ = blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    assert await run_pair(server, client) == "Hello!\n"


@pytest.mark.realtime(seconds=1)
async def test_echo_examples() -> None:
    server = (ROOT / "examples/echo_server.py").read_text(encoding="utf-8")
    client = (ROOT / "examples/echo_client.py").read_text(encoding="utf-8")
    assert await run_pair(server, client) == "Hello!\n"


def run_example(name: str, *arguments: str) -> list[str]:
    """Run an example that ends by itself; return the lines it prints."""
    result = ran(*STRICT, ROOT / "examples" / name, *arguments, env=ENVIRONMENT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    return result.stdout.splitlines()


def failing(
    name: str, *arguments: str, environment: Mapping[str, str] = {}, folder: Path = ROOT
) -> list[str]:
    """Run an example that fails; return what it says of that."""
    program = ROOT / "examples" / name
    result = ran(
        *STRICT, program, *arguments, env=ENVIRONMENT | dict(environment), cwd=folder
    )
    assert result.returncode == 1
    return result.stderr.splitlines()


@pytest.mark.realtime(seconds=0.3)
def test_timeouts() -> None:
    assert run_example("timeouts.py") == [
        "no answer in time",
        "here you are",
        "cut off: True",
    ]


def test_custom_connection() -> None:
    assert run_example("custom_connection.py") == ["[lobby] alice: hello"]


def test_push() -> None:
    # Who is first to see the close is no promise.
    assert sorted(run_example("push.py")) == [
        "the client has left",
        "the handler ends",
        "the only news of the day",
    ]


@needs_unix_sockets
def test_unix_socket() -> None:
    assert run_example("unix_socket.py") == ["Hello!", "the file is gone: True"]


def test_basic_auth() -> None:
    assert run_example("basic_auth.py") == [
        "hello, alice",
        "server rejected WebSocket connection: HTTP 401",
        'Basic realm="greetings", charset="UTF-8"',
    ]


def test_routing() -> None:
    first, *others = run_example("routing.py")
    assert re.fullmatch(r"see ws://localhost:[0-9]+/rooms/tea/2", first)
    assert others == [
        "a table for 2 in the tea room",
        "server rejected WebSocket connection: HTTP 404",
    ]


def test_health_check() -> None:
    assert run_example("health_check.py") == [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 505 HTTP Version Not Supported",
        "Hello!",
    ]


def test_metrics() -> None:
    lines = run_example("metrics.py")
    assert "trio_ws_connections 1.0" in lines
    assert "trio_ws_opened_total 2.0" in lines
    assert "trio_ws_messages_received_total 1.0" in lines
    assert "trio_ws_bytes_sent_total 12.0" in lines
    assert 'trio_ws_closed_total{code="1000",frame="received"} 1.0' in lines


async def ask(port: int, path: str) -> str:
    """Ask in HTTP; return the whole answer."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return b"".join([chunk async for chunk in stream]).decode()


async def test_the_metrics_of_a_full_server_behind_a_proxy(
    mock_clock: MockClock,
) -> None:
    example = runpy.run_path(str(ROOT / "examples/metrics.py"))
    codes = 3001, 3002, 4001, 1001
    async with (
        open_server(
            *(example["echo"], 0),
            host="127.0.0.1",
            proxy_protocol=True,
            max_connections=len(codes),
        ) as server,
        example["serve_metrics"](server, 0) as metrics,
    ):
        async with AsyncExitStack() as stack:
            for code in codes:
                stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                await stream.send_all(b"PROXY UNKNOWN\r\n")
                uri = f"ws://127.0.0.1:{server.port}/"
                ws = await stack.enter_async_context(connect(uri, stream=stream))
                stack.push_async_callback(ws.aclose, code)
                await ws.send("Hello!")
                assert await ws.recv() == "Hello!"
            full = await ask(metrics.port, "/metrics")
            assert "\ntrio_ws_connections 4.0\n" in full
        await server.aclose()
        assert await ask(metrics.port, "/metrics") == full  # it is no second later
        mock_clock.jump(1)
        ended = await ask(metrics.port, "/metrics")
        for label, count in ("3xxx", 2), ("4xxx", 1), ("1001", 1):
            sample = (
                f'trio_ws_closed_total{{code="{label}",frame="received"}} {count}.0'
            )
            assert sample in ended
        assert (await ask(metrics.port, "/")).startswith("HTTP/1.1 404 ")


def test_access_log() -> None:
    opened, refused = [json.loads(line) for line in run_example("access_log.py")]
    for line in opened, refused:
        assert re.fullmatch(r"[0-9]{4}-[0-9-]{5}T[0-9:]{8}Z", line.pop("time"))
    duration = opened.pop("duration")
    assert 0 < duration < 100
    assert opened == {
        "address": "127.0.0.1",
        "path": "/chat",
        "code": 1000,
        "bytes_received": 6 + 6 + 6 + 2,
        "bytes_sent": 2 + 6 + 2 + 2,
    }
    assert refused.pop("bytes_sent") > 0
    assert refused == {
        "address": "127.0.0.1",
        "path": "/chat?x=1",
        "code": 403,
        "duration": 0,
        "bytes_received": 0,
    }


@needs_posix
def test_an_access_log_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = ran(
        *STRICT,
        ROOT / "examples/access_log.py",
        env=ENVIRONMENT,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("BrokenPipeError: ") == 2


@needs_unix_sockets
async def test_the_access_log_of_a_unix_socket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "access")
    example = runpy.run_path(str(ROOT / "examples/access_log.py"))
    path = tmp_path / "socket"
    async with trio.open_nursery() as nursery:
        hook = functools.partial(example["log_response"], nursery)
        start = functools.partial(
            unix_serve, example["echo"], path, origins=[None], process_response=hook
        )
        server: Server = await nursery.start(start)
        with pytest.raises(InvalidStatus, match="403"):
            async with unix_connect(path, origin="https://example.org"):
                pass
        async with unix_connect(path) as ws:
            await ws.send("Hello!")
            assert await ws.recv() == "Hello!"
        await server.aclose()
    messages = [record.message for record in caplog.records if record.name == "access"]
    lines = [json.loads(message) for message in messages]
    assert [(line["address"], line["code"]) for line in lines] == [
        ("", 403),
        ("", 1000),
    ]


def test_embedding_h11() -> None:
    first, *both, last = run_example("embedding_h11.py")
    assert (first, last) == ("HTTP/1.1 200 OK", "Hello!")
    assert set(both) == {  # the server's line and its client's
        "refused: missing Connection header",
        "HTTP/1.1 426 Upgrade Required",
    }


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (b"GET / HTTP/1.1", b"200 OK", True),
        (b"HEAD / HTTP/1.1", b"200 OK", False),
        (b"CONNECT / HTTP/1.1", b"405 Method Not Allowed", False),
        (b"not HTTP", b"", False),
    ],
)
async def test_the_answers_of_embedding_h11(
    request_: bytes, status: bytes, body: bool
) -> None:
    example = definitions("embedding_h11.py")
    client, server = memory_stream_pair()
    await client.send_all(request_ + b"\r\nHost: x\r\n\r\n")
    await example["serve"](server)
    got = b"".join([chunk async for chunk in client])
    assert got.startswith(b"HTTP/1.1 " + status if status else b"")
    assert got.endswith(example["PAGE"]) == body


async def test_embedding_h11_without_its_client() -> None:
    example = definitions("embedding_h11.py")
    client, server = memory_stream_pair()
    await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.aclose()
    await example["serve"](server)  # one client's loss isn't the server's


@pytest.mark.realtime(seconds=0.4)
def test_reconnecting() -> None:
    assert run_example("reconnecting.py") == [
        "rain",
        "more rain",
        "closed with 1001",
        "sunshine",
    ]


def test_market_data() -> None:
    lines = run_example("market_data.py")
    assert [line for line in lines if not re.match("MILK|TEA", line)] == [
        "disconnected: 1006",
        "nothing for 15 s",
        "disconnected: 1006",
        "disconnected: 1012",
        "at the end: [('MILK', 104), ('TEA', 104)]",
    ]
    assert lines[:2] == ["MILK 101", "TEA 101"]


STREAMED = [
    "upload: stored",
    "download: cut off after 1.00 MiB",
    "download: all of it: True",
]


def test_large_file() -> None:
    assert run_example("large_file.py", "2") == STREAMED


async def recv_until_closed(ws: ClientConnection) -> None:
    while True:
        await ws.recv()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (["get ../large.bin"], 1008),
        (["get large.bin", "abc"], 1008),
        (["get large.bin", b"0"], 1008),
        (["put small.bin", "no checksum"], 1008),
        (["get small.bin"], 4404),
    ],
)
async def test_what_large_file_refuses(
    said: list[str | bytes], code: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "large.bin").write_bytes(b"x")
    example = runpy.run_path(str(ROOT / "examples/large_file.py"))
    serve_files = functools.partial(example["files"], tmp_path)
    async with open_server(serve_files, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            for message in said:
                await ws.send(message)
            with pytest.raises(ConnectionClosedError):
                await recv_until_closed(ws)
            assert ws.close_code == code
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("tls.py", []),
        ("mutual_tls.py", ["one"]),
        ("new_certificate.py", []),
        ("large_file.py", ["abc"]),
        ("large_file.py", ["1", "2"]),
        ("screenshot.py", ["-h"]),
        ("screenshot.py", ["1", "2", "3"]),
    ],
)
def test_wrong_arguments(name: str, arguments: list[str]) -> None:
    code = (ROOT / "examples" / name).read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(code), clean=False)
    assert docstring is not None
    assert "\n".join(failing(name, *arguments)) == docstring


@pytest.mark.cpython("it measures memory")
def test_a_large_file_takes_no_more_memory() -> None:
    code = (ROOT / "examples/large_file.py").read_text(encoding="utf-8")
    result = subprocess.run(
        [
            *command(f"{MEASURED}\n{code}\nprint(tracemalloc.get_traced_memory()[1])"),
            "32",
        ],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
    )
    *lines, peak = result.stdout.splitlines()
    assert lines == [STREAMED[0], "download: cut off after 16.00 MiB", STREAMED[2]]
    # Both ends together: at each wait less than twice max_size and one read, however
    # slow the disk is.
    assert int(peak) < 8 * 2**20


# What is imported isn't of interest.
MEASURED = "import ssl, trio, trio_ws, tracemalloc; tracemalloc.start()"


def test_json_rpc() -> None:
    lines = run_example("json_rpc.py")
    lines.remove("server: gives up waiting")  # at the same time as what follows
    assert lines == [
        "client: 3",
        "client: hello, alice",
        "client: -32601 no method 'subtract'",
        "client: -32602 missing a required argument: 'two'",
        "client: the server is waiting",
        "client: 7",
    ]


def definitions(name: str) -> dict[str, Any]:
    """Return what an example defines, without running it."""
    code = (ROOT / "examples" / name).read_text(encoding="utf-8")
    *defined, last = code.rpartition("\ntrio.run(main)\n")
    assert last == ""
    names: dict[str, Any] = {"__name__": name}
    exec(compile("".join(defined[:-1]), name, "exec"), names)
    return names


JSON_RPC = definitions("json_rpc.py")


@pytest.mark.parametrize(
    ("sent", "id_", "code"),
    [
        ("{", None, -32700),
        ("[" * 100_000, None, -32700),
        ('[{"id": 2, "method": "add"}]', None, -32600),
        ('{"id": [2], "method": "add"}', None, -32600),
        ('{"id": 1, "method": "wait"}', None, -32600),  # that one is running
        ('{"id": "x", "method": "nothing"}', "x", -32601),
        ('{"id": "x", "method": "add", "params": 5}', "x", -32602),
        ('{"id": 2, "method": "add", "params": {"one": 1, "three": 3}}', 2, -32602),
        ('{"id": 2, "method": "add", "params": [1, "two"]}', 2, -32603),
        ('{"method": "$/cancelRequest", "params": {"id": 1}}', 1, -32800),
    ],
)
async def test_what_json_rpc_refuses(
    sent: str, id_: str | int | None, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with waiting() as client:
        await client.send(sent)
        answer = json.loads(await client.recv())
        assert (answer["id"], answer["error"]["code"]) == (id_, code)
        await client.aclose()
    assert [record.getMessage() for record in caplog.records] == (
        ["add failed"] if code == -32603 else []
    )


@asynccontextmanager
async def waiting() -> AsyncIterator[ClientConnection]:
    """A client that has called, as number 1, what waits for ever."""
    async with open_pair() as (client, server):
        server.nursery.start_soon(JSON_RPC["serve"], server)
        await client.send('{"id": 1, "method": "wait"}')
        assert json.loads(await client.recv())["method"] == "progress"
        yield client


async def only_progress(ws: ClientConnection) -> None:
    async for message in ws:
        assert json.loads(message)["method"] == "progress"


async def test_json_rpc_has_no_more_handlers_than_it_may() -> None:
    async with waiting() as client:
        for id_ in range(2, JSON_RPC["MAX_HANDLERS"] + 2):
            await client.send(json.dumps({"id": id_, "method": "wait"}))
        with pytest.raises(ConnectionClosedError, match="too many calls at once"):
            await only_progress(client)
        assert client.close_code == 1008


async def test_the_end_of_json_rpc() -> None:
    async with open_pair() as (client, server):
        peer = JSON_RPC["Peer"](client)
        client.nursery.start_soon(peer.run)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose)
            with pytest.raises(trio.EndOfChannel):
                await peer.call("add", 1, 2)
        with pytest.raises(ConnectionClosedOK):
            await peer.call("add", 1, 2)
        await peer.run()


async def test_the_loss_of_json_rpc(autojump_clock: MockClock) -> None:
    async def call(peer: Any) -> None:
        with pytest.raises(trio.EndOfChannel), trio.fail_after(60):
            await peer.call("wait")

    async def lose(nursery: trio.Nursery) -> None:
        async with connect("ws://localhost:8765/") as ws:
            peer = JSON_RPC["Peer"](ws)
            peers.append(peer)
            ws.nursery.start_soon(peer.run)
            nursery.start_soon(call, peer)
            await wait_all_tasks_blocked()
            network.link(ws).reset()
            await trio.sleep_forever()

    peers: list[Any] = []
    with MemoryNetwork() as network:
        async with (
            open_server(JSON_RPC["serve"], 8765) as server,
            trio.open_nursery() as outside,
        ):
            with pytest.raises(ConnectionClosedError):
                await lose(outside)
            with pytest.raises(ConnectionClosedError):
                await peers[0].call("wait")
            await server.aclose()


@pytest.mark.parametrize("wrong", ["no", None, {"code": 1}, {"code": [], "message": 2}])
async def test_an_error_that_json_rpc_does_not_know(wrong: Any) -> None:
    async with open_pair() as (client, server):
        peer = JSON_RPC["Peer"](client)
        client.nursery.start_soon(peer.run)
        await server.send(json.dumps({"id": 1, "error": wrong}))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(JSON_RPC["RPCError"], match="no error of JSON-RPC"):
                    await peer.call("add")

        await client.aclose()


CHAT_ROOM = (ROOT / "examples/chat_room.py").read_text(encoding="utf-8")


@pytest.mark.realtime(seconds=0.3)
async def test_chat_room() -> None:
    async with running(CHAT_ROOM) as port:
        uri = f"ws://localhost:{port}/chat"
        async with connect(uri, origin=f"http://localhost:{port}") as first:
            assert await first.recv() == "guest 1 comes in"
            async with connect(uri) as second:
                for ws in first, second:
                    assert await ws.recv() == "guest 2 comes in"
                await second.send("hello")
                for ws in first, second:
                    assert await ws.recv() == "guest 2: hello"
            assert await first.recv() == "guest 2 has left"
        with pytest.raises(InvalidStatus, match="403"):
            async with connect(uri, origin="http://elsewhere.example"):
                pass
        with pytest.raises(InvalidStatus, match="404"):
            async with connect(f"{uri}/private"):
                pass


async def test_the_end_of_the_chat_room(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with MemoryNetwork() as network:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(definitions("chat_room.py")["main"])
            await wait_all_tasks_blocked()
            uri = "ws://localhost:8765/chat"
            async with connect(uri) as first:
                assert await first.recv() == "guest 1 comes in"
                async with connect(uri) as second:
                    assert await second.recv() == "guest 2 comes in"
                    network.link(second).reset()
                    with pytest.raises(ConnectionClosedError):
                        await second.recv()
                assert await first.recv() == "guest 2 comes in"
                assert await first.recv() == "guest 2 has left"
                signal.raise_signal(signal.SIGINT)
                assert [line async for line in first] == []
                assert first.close_code == 1001
    assert [record for record in caplog.records if record.exc_info] == []


# What the page shows, once it is so many lines.
SHOWN = """
new Promise(resolve => {
    const look = () => {
        const lines = [...document.querySelectorAll("li")].map(li => li.textContent);
        lines.length < %d ? setTimeout(look, 10) : resolve(lines);
    };
    look();
})
"""

# Until the page has opened its connection.
OPENED = """
new Promise(resolve => {
    const look = () => {
        const open = typeof ws !== "undefined" && ws.readyState === 1;
        open ? resolve(ws.readyState) : setTimeout(look, 10);
    };
    look();
})
"""

# What a user does who writes a line and presses the return key.
WRITE = """
document.querySelector("input").value = %r;
document.querySelector("form").requestSubmit();
document.querySelector("input").value
"""


@pytest.mark.realtime(seconds=0.3)
async def test_the_page_of_the_chat_room(tmp_path: Path) -> None:
    with chromium_peer.chromium(required("chromium"), tmp_path) as browser:
        async with running(CHAT_ROOM) as port:
            async with chromium_peer.page(browser) as page:
                await page.command("Page.navigate", url=f"http://localhost:{port}/")
                assert await page.evaluate(SHOWN % 1) == ["guest 1 comes in"]
                async with connect(f"ws://localhost:{port}/chat") as ws:
                    assert await ws.recv() == "guest 2 comes in"
                    assert await page.evaluate(WRITE % "hello") == ""
                    assert await ws.recv() == "guest 1: hello"
                    await ws.send("<b>good</b> day")
                    assert (await page.evaluate(SHOWN % 4))[1:] == [
                        "guest 2 comes in",
                        "guest 1: hello",
                        "guest 2: <b>good</b> day",
                    ]
                    # More than the room allows in a line.
                    await page.evaluate(WRITE % ("x" * 1001))
                    assert await ws.recv() == "guest 2: <b>good</b> day"
                    assert await ws.recv() == "guest 1 has left"
                    assert (await page.evaluate(SHOWN % 5))[4].startswith(
                        "closed: 1009 "
                    )


@pytest.mark.realtime(seconds=0.3)
async def test_the_page_of_the_tutorial(tmp_path: Path) -> None:
    chat = (ROOT / "examples/tutorial/chat.py").read_text(encoding="utf-8")
    with chromium_peer.chromium(required("chromium"), tmp_path) as browser:
        async with running(chat.replace("8000", PORT)) as port:
            async with chromium_peer.page(browser) as page:
                await page.command("Page.navigate", url=f"http://localhost:{port}/")
                assert await page.evaluate(OPENED) == 1
                assert await page.evaluate(WRITE % "token of alice") == ""
                assert await page.evaluate(SHOWN % 1) == ["alice comes in"]
                async with connect(f"ws://localhost:{port}/rooms/tea") as bob:
                    await bob.send("token of bob")
                    assert await bob.recv() == "bob comes in"
                    assert await page.evaluate(WRITE % "<b>hello</b>") == ""
                    assert await bob.recv() == "alice: <b>hello</b>"
            async with chromium_peer.page(browser) as page:
                await page.command("Page.navigate", url=f"http://localhost:{port}/")
                assert await page.evaluate(OPENED) == 1
                await page.evaluate(WRITE % "my guess")
                assert await page.evaluate(SHOWN % 1) == ["closed: 4401 log in first"]


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key, root = (str(tmp_path / name) for name in ("chain", "key", "root"))
    authority.cert_pem.write_to_path(root)
    certificate.private_key_pem.write_to_path(key)
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    assert run_example("tls.py", chain, key, root) == [
        "Hello!",
        "refused: CERTIFICATE_VERIFY_FAILED",
    ]


@pytest.mark.parametrize(
    "kinds",
    list(itertools.product((trustme.KeyType.ECDSA, trustme.KeyType.RSA), repeat=2)),
)
def test_new_certificate(
    kinds: tuple[trustme.KeyType, trustme.KeyType], tmp_path: Path
) -> None:
    authority = trustme.CA()
    paths = [str(tmp_path / name) for name in ("old", "new", "root")]
    authority.cert_pem.write_to_path(paths[-1])
    serials = []
    for path, kind in zip(paths, kinds, strict=False):
        issued = authority.issue_cert("127.0.0.1", key_type=kind)
        issued.private_key_and_cert_chain_pem.write_to_path(path)
        pem = issued.cert_chain_pems[0].bytes()
        serials.append(f"{x509.load_pem_x509_certificate(pem).serial_number:X}")
    shown = [
        line.removeprefix("Hello! ")
        for line in run_example("new_certificate.py", *paths)
    ]
    assert [serial.lstrip("0") for serial in shown] == [*serials, serials[-1]]


def test_mutual_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    server, client, root = (str(tmp_path / name) for name in ("s", "c", "root"))
    authority.cert_pem.write_to_path(root)
    for path, name in ((server, "127.0.0.1"), (client, "alice.clients.example")):
        authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(path)
    lines = run_example("mutual_tls.py", server, client, root)
    assert lines == [
        "Hello, alice.clients.example!",
        "by TLSv1.3",
        "refused without a certificate",
    ]


if sys.platform == "win32":
    STOPS = [signal.SIGINT, signal.SIGBREAK]
    # There a console sends them to all of its programs, this one among them, and Wine
    # has none here. So the program gets them from a thread of its own.
    SIGNALLED = """
import signal, sys, threading
def signalled():
    signal.raise_signal(int(sys.stdin.readline()))
threading.Thread(target=signalled, daemon=True).start()
"""
else:
    STOPS = [signal.SIGINT, signal.SIGTERM]
    SIGNALLED = ""


def send_signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    if sys.platform == "win32":
        assert process.stdin is not None
        process.stdin.write(f"{number:d}\n")
        process.stdin.flush()
    else:
        process.send_signal(number)


@pytest.mark.parametrize("number", STOPS)
async def test_graceful_stop(number: signal.Signals) -> None:
    port = free_port()
    code = (ROOT / "examples/graceful_stop.py").read_text(encoding="utf-8")
    code = SIGNALLED + code.replace(PORT, port)
    with subprocess.Popen(  # noqa: ASYNC220 - starting it takes no time
        command(code),
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "serving\n"
            with trio.fail_after(60):
                async with connect(f"ws://127.0.0.1:{port}/") as ws:
                    await ws.send("here")
                    assert await ws.recv() == "here"
                    send_signal(process, number)
                    assert [message async for message in ws] == []
                    assert ws.close_code == 1001
            output, _ = await trio.to_thread.run_sync(process.communicate)
        finally:
            process.kill()
    assert output.splitlines() == ["a handler has ended", "stopped"]
    assert process.returncode == 0


def png_pixel(png: bytes) -> tuple[int, ...]:
    """Return the first pixel of a picture in RGB, or RGBA."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    position, data, depth = 8, b"", 0
    while position < len(png):
        size, kind = struct.unpack_from(">I4s", png, position)
        body = png[position + 8 : position + 8 + size]
        if kind == b"IHDR":
            depth = {2: 3, 6: 4}[body[9]]
        elif kind == b"IDAT":
            data += body
        position += 12 + size
    # Before it is the filter of its row, which leaves the very first pixel as it is.
    return tuple(zlib.decompress(data)[1 : 1 + depth])


def test_screenshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "CHROMIUM", required("chromium"))
    path = tmp_path / "page.png"
    assert run_example("screenshot.py", str(path)) == [f"written: {path}"]
    assert png_pixel(path.read_bytes())[:3] == (0x00, 0x66, 0xCC)
    page = "data:text/html,<body bgcolor='red'>"
    assert run_example("screenshot.py", str(path), page) == [f"written: {path}"]
    assert png_pixel(path.read_bytes())[:3] == (0xFF, 0, 0)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"PATH": "", "CHROMIUM": ""},
            "no Chromium found: install one, or name it, as CHROMIUM=/",
        ),
        ({"CHROMIUM": "nowhere"}, "nowhere: "),
        # It has other options.
        ({"CHROMIUM": sys.executable}, f"{sys.executable}: it doesn't start: "),
    ],
    ids=["none", "nowhere", "another"],
)
def test_no_screenshot_without_chromium(
    environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    (line,) = failing("screenshot.py", environment=environment, folder=tmp_path)
    assert line.startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_a_screenshot_that_goes_nowhere(tmp_path: Path) -> None:
    environment = {"CHROMIUM": required("chromium")}
    path = str(tmp_path / "nowhere" / "page.png")
    (line,) = failing("screenshot.py", path, environment=environment)
    assert line.startswith("[Errno ")
    assert repr(path) in line


# A Chromium that ends as it gets its first command.
DYING = """#!%s
import os, sys, trio
from trio_ws import open_server

async def die(ws):
    await ws.recv()
    os._exit(1)

async def main():
    async with open_server(die, 0, host="127.0.0.1") as server:
        print(f"DevTools listening on ws://127.0.0.1:{server.port}/", file=sys.stderr)
        await trio.sleep_forever()

trio.run(main)
"""


@needs_posix
def test_no_screenshot_of_a_chromium_that_dies(tmp_path: Path) -> None:
    program = tmp_path / "dying"
    program.write_text(DYING % sys.executable, encoding="utf-8")
    program.chmod(0o700)
    environment = {"CHROMIUM": str(program)}
    (line,) = failing("screenshot.py", environment=environment, folder=tmp_path)
    assert line.startswith(f"{program}: ")
    assert list(tmp_path.iterdir()) == [program]


EXAMPLES = {path.name for path in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize("page", ["examples/README.md", "docs/examples.rst"])
def test_every_example_is_listed(page: str) -> None:
    listed = re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / page).read_text("utf-8"))
    assert sorted(listed) == sorted({*EXAMPLES, "tutorial/", "cluster/"})


def test_every_example_is_in_these_tests() -> None:
    assert {
        "access_log.py",
        "basic_auth.py",
        "metrics.py",
        "routing.py",
        "chat_room.py",
        "custom_connection.py",
        "demo.py",
        "echo_client.py",
        "echo_server.py",
        "embedding_h11.py",
        "graceful_stop.py",
        "health_check.py",
        "json_rpc.py",
        "large_file.py",
        "market_data.py",
        "mutual_tls.py",
        "new_certificate.py",
        "push.py",
        "reconnecting.py",
        "screenshot.py",
        "systemd.py",  # which tests/server/test_restarting.py runs, as workers.py
        "timeouts.py",
        "tls.py",
        "unix_socket.py",
        "workers.py",
    } == EXAMPLES


def test_the_rest_of_the_readmes_code_is_complete() -> None:
    for block in blocks((ROOT / "README.md").read_text(encoding="utf-8"))[2:]:
        exec(compile(block, "README.md", "exec"), {})


@needs_resets
@pytest.mark.realtime(seconds=2)
def test_demo() -> None:
    result = ran(*STRICT, ROOT / "examples/demo.py", env=ENVIRONMENT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "EXPECTED" not in result.stdout
    assert result.stdout.endswith("All as it should be.\n")
