"""trio-ws connect in this process: over pipes to a server, and over a screen."""

from __future__ import annotations

import errno
import io
import itertools
import logging
import math
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

import trio_ws
from tests.command.files import Full, Memory, line_from, pipe, until
from tests.handlers import echo
from tests.peers.stream_peer import response_to
from trio_ws import Connection, ServerConnection, open_server
from trio_ws._command import client as client_module
from trio_ws._command.arguments import parse
from trio_ws._command.client import run_connect
from trio_ws._command.notes import Status, UsageError
from trio_ws._command.sinks import Bytes, Lines, Screen, Sink
from trio_ws._command.source import Source
from trio_ws.testing import MemoryNetwork


class Run:
    """The command at work: ``typing`` is what it reads, ``notes`` what it notes."""

    def __init__(self, typing: io.RawIOBase, out: io.RawIOBase) -> None:
        self.typing = typing
        self.out = out
        self.err = Memory()
        self.status: Status | None = None

    @property
    def notes(self) -> str:
        return self.err.text


async def run(
    handler: Callable[[ServerConnection], Awaitable[None]],
    *options: str,
    body: Callable[[Run], Awaitable[None]] | None = None,
    typed: bytes = b"",
    out: io.RawIOBase | None = None,
    kind: type[Sink] = Lines,
) -> Run:
    """Run the command with a server; ``body`` goes on meanwhile.

    Without ``body`` what is ``typed`` is all there is to read.
    """
    with pipe() as (reading, typing), trio.fail_after(60):
        result = Run(typing, Memory() if out is None else out)
        if body is None or typed:
            typing.write(typed)
        if body is None:
            typing.close()
        async with open_server(handler, 0, host="127.0.0.1") as server:
            uri = f"ws://127.0.0.1:{server.port}/"
            arguments = parse(["connect", uri, *options])
            async with trio.open_nursery() as nursery:
                if body is not None:
                    nursery.start_soon(body, result)
                source = Source(reading, binary=arguments.binary)
                sink = kind(result.out, result.err)
                result.status = await run_connect(arguments, source, sink)
                nursery.cancel_scope.cancel()
            if not typing.closed:
                typing.close()
        return result


async def say(ws: ServerConnection, *messages: str | bytes) -> None:
    for message in messages:
        await ws.send(message)


# In a pipe


async def test_lines_out_lines_in() -> None:
    async def handler(ws: ServerConnection) -> None:
        assert [await ws.recv() for _ in range(3)] == ["a", "", "é"]
        await say(ws, "one", "two\nlines", b"\xff")

    result = await run(handler, "-w", "inf", typed="a\n\né".encode())
    assert result.status is Status.OK
    assert isinstance(result.out, Memory)
    assert result.out.text == "one\ntwo lines\nff\n"
    assert result.notes == ""


async def test_closes_once_nothing_comes_any_more(
    mock_clock: trio.testing.MockClock,
) -> None:
    """The clock goes on only by what the test says: no machine is too slow."""
    closed = trio.Event()
    answered = trio.Event()

    async def handler(ws: ServerConnection) -> None:
        await ws.send(await ws.recv())
        with pytest.raises(trio.EndOfChannel):
            await ws.recv()
        assert ws.close_code == 1000
        closed.set()

    async def body(result: Run) -> None:
        result.typing.write(b"a\n")
        result.typing.close()
        assert await line_from(reading) == b"a\n"
        answered.set()

    with pipe() as (reading, writing):
        jumped = 0.0
        async with trio.open_nursery() as nursery:

            async def command() -> None:
                result = await run(handler, body=body, out=writing)
                assert result.status is Status.OK
                assert result.notes == ""

            nursery.start_soon(command)
            await answered.wait()
            while not closed.is_set():
                await trio.testing.wait_all_tasks_blocked(0.01)
                mock_clock.jump(0.25)
                jumped += 0.25
        assert jumped >= 1


@pytest.mark.parametrize("end", [b"\n", b""])
async def test_one_message(end: bytes) -> None:
    async def handler(ws: ServerConnection) -> None:
        assert await ws.recv() == "a"
        await say(ws, "one", "two")
        await ws.wait_closed()
        assert ws.close_code == 1000

    result = await run(handler, "-1", typed=b"a" + end)
    assert result.status is Status.OK
    assert isinstance(result.out, Memory)
    assert result.out.text == "one\n"


async def test_one_message_of_a_server_that_speaks_first() -> None:
    async def handler(ws: ServerConnection) -> None:
        await say(ws, "one", "two")
        await ws.wait_closed()

    result = await run(handler, "--one-message")
    assert isinstance(result.out, Memory)
    assert result.out.text == "one\n"


async def test_one_message_that_does_not_come() -> None:
    result = await run(Connection.wait_closed, "-1", "--wait", "0", typed=b"a\n")
    assert result.status is Status.OK


async def test_binary() -> None:
    async def handler(ws: ServerConnection) -> None:
        assert await ws.recv() == b"a\n\x00\xff"
        await say(ws, b"\x00\n", "text", b"\xff")

    result = await run(
        handler, "--binary", "-w", "inf", typed=b"a\n\x00\xff", kind=Bytes
    )
    assert isinstance(result.out, Memory)
    assert result.out.data == b"\x00\ntext\xff"


async def test_not_utf8() -> None:
    result = await run(echo, typed=b"a\n\xff\nb\n")
    assert result.status is Status.USAGE
    assert result.notes == (
        "trio-ws: line 2 of stdin isn't UTF-8; --binary sends bytes as they are\n"
    )


async def test_closed_with_an_error() -> None:
    async def handler(ws: ServerConnection) -> None:
        await ws.send("last words")
        await ws.aclose(1011, "no\x1b")

    result = await run(handler, "-w", "inf", typed=b"")
    assert result.status is Status.LOST
    assert isinstance(result.out, Memory)
    assert result.out.text == "last words\n"
    assert result.notes == (
        "trio-ws: closed by the server: 1011 (internal error) no\\x1b\n"
    )


async def test_a_message_that_is_too_big() -> None:
    async def handler(ws: ServerConnection) -> None:
        await ws.send("x" * 11)
        await ws.wait_closed()

    result = await run(handler, "-w", "inf", "--max-size", "10")
    assert result.status is Status.LOST
    assert "; --max-size BYTES allows more\n" in result.notes


async def test_what_came_is_shown_whatever_is_waited_for() -> None:
    class Slow(Memory):
        """A file that takes what it is given once it may."""

        may = threading.Event()

        def write(self, data: object) -> int:
            assert self.may.wait(60)
            return super().write(data)

    async def handler(ws: ServerConnection) -> None:
        await ws.recv()
        await say(ws, *map(str, range(9)))
        await ws.wait_closed()

    async def body(result: Run) -> None:
        result.typing.write(b"go\n")
        result.typing.close()
        # So that closing is due when the first has been written. All the same if not.
        await trio.testing.wait_all_tasks_blocked(0.05)
        Slow.may.set()
        await trio.sleep_forever()

    result = await run(handler, "--wait", "0", body=body, out=Slow())
    assert isinstance(result.out, Memory)
    assert result.out.text == "".join(f"{number}\n" for number in range(9))


async def test_nobody_reads_stdout() -> None:
    codes = []

    async def handler(ws: ServerConnection) -> None:
        await ws.send("a")
        await ws.wait_closed()
        codes.append(ws.close_code)

    result = await run(handler, "-w", "inf", out=Full(errno.EPIPE))
    assert (result.status, result.notes, codes) == (Status.OK, "", [1000])


async def test_stdout_is_full() -> None:
    async def handler(ws: ServerConnection) -> None:
        await ws.send("a")
        await ws.wait_closed()

    result = await run(handler, "-w", "inf", out=Full(errno.ENOSPC))
    assert result.status is Status.LOST
    assert result.notes.startswith("trio-ws: can't write to stdout: ")


async def test_the_server_goes_while_stdin_is_open() -> None:
    async def body(result: Run) -> None:
        await trio.sleep_forever()

    async def handler(ws: ServerConnection) -> None:
        await ws.send("a")

    result = await run(handler, body=body)
    assert result.status is Status.OK
    assert isinstance(result.out, Memory)
    assert result.out.text == "a\n"


async def test_the_server_goes_while_lines_are_sent() -> None:
    async def body(result: Run) -> None:
        try:
            while True:
                await trio.to_thread.run_sync(
                    result.typing.write, b"x" * 1000 + b"\n", abandon_on_cancel=True
                )
        except ValueError:  # it was closed
            pass

    async def handler(ws: ServerConnection) -> None:
        await ws.recv()

    result = await run(handler, body=body)
    assert result.status is Status.OK


async def test_what_was_typed_is_lost_on_closing(
    mock_clock: trio.testing.MockClock,
) -> None:
    """The server takes nothing, for as long as closing may take."""
    done = trio.Event()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    uri = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"
    out, err = Memory(), Memory()

    async def type_and_go(typing: io.RawIOBase) -> None:
        # More than the sockets hold.
        line = io.BytesIO(b"x" * 2**23 + b"\n")
        while chunk := line.read(2**16):
            while chunk:
                written = await trio.to_thread.run_sync(typing.write, chunk)
                chunk = chunk[written:]
        typing.close()

    async def command(reading: io.RawIOBase) -> None:
        arguments = parse(["connect", uri, "--ping-interval", "0"])
        status = await run_connect(arguments, Source(reading), Screen(out, err))
        assert status is Status.LOST
        done.set()

    with pipe() as (reading, typing):
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(command, reading)
            nursery.start_soon(type_and_go, typing)
            async with await listener.accept() as stream:
                request = await stream.receive_some()
                await stream.send_all(response_to(request))
                while not typing.closed:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                while not done.is_set():
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    mock_clock.jump(1)
    assert err.text.splitlines()[-1].startswith("trio-ws: lost: ")


# What is said of opening


async def test_the_request() -> None:
    requests = []

    async def handler(ws: ServerConnection) -> None:
        requests.append(ws.request)

    await run(
        handler,
        *("-H", "A: b", "-H", "A: c", "--origin", "http://d", "--subprotocol", "e"),
        *("--subprotocol", "f", "-w", "inf"),
    )
    headers = requests[0].headers
    assert headers.get_all("A") == ["b", "c"]
    assert headers["Origin"] == "http://d"
    assert headers["Sec-WebSocket-Protocol"] == "e, f"


async def connect_alone(*options: str) -> tuple[Status, str]:
    err = Memory()
    arguments = parse(["connect", *options])
    with trio.fail_after(60):
        status = await run_connect(arguments, Source(None), Lines(None, err))
    return status, err.text


async def test_nobody_listens() -> None:
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        status, notes = await connect_alone(f"ws://127.0.0.1:{port}/")
    assert status is Status.UNREACHABLE
    assert notes == (
        f"trio-ws: can't connect: connecting to 127.0.0.1:{port}: refused: no server "
        f"listens there\n"
    )


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["http://user:secret@a/?secret"], "isn't a valid URI"),
        (["ws://a", "--proxy", "ftp://user:secret@b"], "isn't a valid proxy"),
        (["ws://a", "--insecure"], "need a URI that begins with wss://"),
        (["wss://a", "--key", "k"], "--key needs --cert FILE"),
        (["wss://a", "--ca", "nowhere.pem"], "--ca: no certificates there: No such"),
        (["wss://a", "--cert", "nowhere.pem"], "--cert: no certificate with its key"),
        (["ws://a", "-H", "Upgrade: secret"], "no header that the handshake makes"),
        (["ws://a", "--subprotocol", "a b"], "expected a token"),
        (["ws://a", "--origin", "\n"], "rigin"),
    ],
)
async def test_wrong_usage(options: list[str], what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        await connect_alone(*options)
    assert "secret" not in str(caught.value)


async def test_tls(tmp_path: Path) -> None:
    """With a certificate of its own the client is let in, without one it isn't."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.maximum_version = ssl.TLSVersion.TLSv1_2  # which refuses in the handshake
    authority.issue_cert("127.0.0.1").configure_cert(server)
    ca, cert, key = (str(tmp_path / name) for name in ("ca", "cert", "key"))
    authority.cert_pem.write_to_path(ca)
    own = authority.issue_cert("client.example")
    own.private_key_pem.write_to_path(key)
    own.cert_chain_pems[0].write_to_path(cert)

    async def handler(ws: ServerConnection) -> None:
        pass

    async with open_server(handler, 0, host="127.0.0.1", ssl=server) as running:
        uri = f"wss://127.0.0.1:{running.port}/"
        status, notes = await connect_alone(uri)
        assert status is Status.UNREACHABLE
        assert "; --ca FILE trusts another authority" in notes
        for options in ["--ca", ca], ["--insecure"]:
            assert await connect_alone(uri, *options) == (Status.OK, "")
        authority.configure_trust(server)
        server.verify_mode = ssl.CERT_REQUIRED
        status, notes = await connect_alone(uri, "--ca", ca)
        assert status is Status.UNREACHABLE
        assert "TLS" in notes
        options = ["--ca", ca, "--cert", cert, "--key", key]
        assert await connect_alone(uri, *options) == (Status.OK, "")


async def test_the_log_has_no_secrets() -> None:
    async def handler(ws: ServerConnection) -> None:
        await ws.recv()

    with pipe() as (reading, typing):
        typing.write(b"a\n")
        typing.close()
        async with open_server(handler, 0, host="127.0.0.1") as server:
            uri = f"ws://user:secret@127.0.0.1:{server.port}/"
            keys = [
                f"X-Key: {value}" for value in ("secret", "secret\t1", "secret" * 99)
            ]
            headers = [word for key in keys for word in ("-H", key)]
            arguments = parse(["connect", uri, "-v", *headers])
            err = Memory()
            with trio.fail_after(60):
                await run_connect(arguments, Source(reading), Lines(None, err))
    assert err.text.count("> X-Key: [secret]\n") == 3
    assert "> TEXT 'a' [1 byte]\n" in err.text
    assert "secret" not in err.text.replace("[secret]", "")
    assert not logging.getLogger("trio_ws.client").handlers


# Again and again


@pytest.fixture
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    real = trio_ws.reconnect

    def reconnect(*args: object, **options: object) -> object:
        options["reconnect_delays"] = lambda: iter([0, 0, 0])
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(client_module, "reconnect", reconnect)


@pytest.mark.usefixtures("no_delays")
async def test_reconnecting() -> None:
    """Each line gets to a server, until stdin ends."""
    came: list[str | bytes] = []

    async def handler(ws: ServerConnection) -> None:
        came.append(await ws.recv())
        await ws.aclose(1011 if came[-1] == "a" else 1000)

    async def body(result: Run) -> None:
        for number, line in enumerate(["a", "b", "c"], 1):
            result.typing.write(line.encode() + b"\n")
            # What is sent while the close frame is on its way would be lost.
            while result.notes.count("; next attempt in") < number:
                await trio.testing.wait_all_tasks_blocked(0.001)
        result.typing.close()

    result = await run(handler, "--reconnect", "--wait", "0", body=body)
    assert came == ["a", "b", "c"]
    assert result.status is Status.OK
    assert result.notes.count("closed by the server: 1011") == 1
    assert "; next attempt in 0.0 s" in result.notes


async def test_reconnecting_to_what_refuses() -> None:
    def refuse(ws: ServerConnection, request: object) -> object:
        return ws.respond(404, "not here\n")

    async with open_server(echo, 0, host="127.0.0.1", process_request=refuse) as server:  # type: ignore[arg-type]
        status, notes = await connect_alone(
            f"ws://127.0.0.1:{server.port}/", "--reconnect"
        )
    assert status is Status.UNREACHABLE
    assert notes == (
        "trio-ws: can't connect: server rejected WebSocket connection: HTTP 404 Not "
        "Found: not here\n"
    )


async def test_reconnecting_to_nobody_ends_with_stdin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = trio_ws.reconnect
    refused_often = trio.Event()
    statuses: list[Status] = []

    def delays() -> Iterator[float]:
        yield from itertools.repeat(0, 20)
        refused_often.set()
        yield from itertools.repeat(0.001)

    monkeypatch.setattr(
        client_module,
        "reconnect",
        lambda *args, **options: real(*args, reconnect_delays=delays, **options),
    )
    with pipe() as (reading, typing), trio.fail_after(60), MemoryNetwork():
        arguments = parse(["connect", "ws://nobody/", "--reconnect"])
        source, err = Source(reading), Memory()

        async def command() -> None:
            statuses.append(await run_connect(arguments, source, Lines(None, err)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(command)
            typing.write(b"a")  # which is left to send
            typing.close()
            await refused_often.wait()
            assert statuses == []
            assert await source.next() == b"a"
            source.sent()
    assert statuses == [Status.UNREACHABLE]
    assert "can't connect: " in err.text


# On a terminal; test_main.py has a real one


async def test_typing() -> None:
    came: list[str | bytes] = []

    async def handler(ws: ServerConnection) -> None:
        async for message in ws:
            came.append(message)
            await ws.send(message)

    async def body(result: Run) -> None:
        async def shown(text: str) -> None:
            wanted = text.encode()
            await until(reading, lambda data: wanted in data)

        await shown("> ")
        result.typing.write(b"hello\n")
        await shown("< hello")
        result.typing.write(b"//slash\n")
        await shown("< /slash")
        result.typing.write(b"/ping\n")
        while "pong after" not in result.notes:
            await trio.testing.wait_all_tasks_blocked(0.001)
        result.typing.write(b"/what\n")
        result.typing.write(b"end\n")
        await shown("< end")
        result.typing.close()

    with pipe() as (reading, writing):
        result = await run(handler, body=body, out=writing, kind=Screen)
    assert came == ["hello", "/slash", "end"]
    assert result.status is Status.OK
    connected, pong, help_, closed = result.notes.splitlines()
    assert connected.startswith("trio-ws: connected; ")
    assert pong.endswith(" ms")
    assert "begins with two" in help_
    assert closed == "trio-ws: closed: 1000 (OK)"


async def test_the_server_closes_while_the_user_types() -> None:
    async def body(result: Run) -> None:
        await trio.sleep_forever()

    async def handler(ws: ServerConnection) -> None:
        await ws.aclose(1001, "good night")

    result = await run(handler, body=body, kind=Screen)
    assert result.status is Status.OK
    assert result.notes.endswith(
        "trio-ws: closed by the server: 1001 (going away) good night\n"
    )


async def test_the_terminal_goes() -> None:
    async def body(result: Run) -> None:
        await trio.sleep_forever()

    result = await run(
        Connection.wait_closed, body=body, out=Full(errno.EPIPE), kind=Screen
    )
    assert result.status is Status.OK


def test_forever_is_what_wait_inf_means() -> None:
    assert parse(["connect", "ws://a", "-w", "inf"]).wait == math.inf
