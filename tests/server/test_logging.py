"""Handlers of the log that raise: what a client gets, and whether the server lives."""

from __future__ import annotations

import errno
import logging
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests import logs
from tests.handlers import echo, stubborn
from tests.peers import raw_http
from tests.peers.certificates import contexts
from tests.peers.in_memory import MemoryListener, RawPeer
from tests.server.serving import serving
from trio_ws import (
    ConnectionClosedError,
    InvalidStatus,
    Request,
    Response,
    ServerConnection,
    accept,
    connect,
    open_server,
)
from trio_ws._endpoint.identity import Identity


class Bug(Exception):
    """What a handler of the log raises."""


class Calls(logging.Handler):
    """Calls a function for each record."""

    def __init__(self, function: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self._function = function

    def emit(self, record: logging.LogRecord) -> None:
        self._function(record)


class Log(logging.Logger):
    """A logger with two handlers: one raises, where it is told to; one keeps."""

    def __init__(self, level: int) -> None:
        super().__init__("a log of the user's", level)
        self.raises: Callable[[logging.LogRecord], bool] = lambda record: False
        self.raised: list[Bug] = []
        self.kept: list[logging.LogRecord] = []
        self.addHandler(Calls(self._raise))
        self.addHandler(Calls(self.kept.append))

    def _raise(self, record: logging.LogRecord) -> None:
        if self.raises(record):
            self.raised.append(Bug(record.getMessage()))
            raise self.raised[-1]

    def raise_at(self, number: int) -> None:
        """Raise for the record that is this one of those to come."""
        left = number

        def at(record: logging.LogRecord) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        self.raises = at

    def raise_for(self, text: str) -> None:
        """Raise for each record that has this in it."""
        self.raises = lambda record: text in record.getMessage()

    def causes(self) -> Iterator[BaseException]:
        """Each exception that was logged, and what had led to it."""
        for record in self.kept:
            exc = record.exc_info[1] if record.exc_info else None
            while exc is not None:
                yield exc
                exc = exc.__context__


async def check_lives(listener: MemoryListener) -> None:
    with trio.fail_after(5):
        async with connect("ws://x/", stream=listener.connect()) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


async def ask(listener: MemoryListener, request: bytes) -> bytes:
    """Send a request; return all that comes."""
    stream = listener.connect()
    await stream.send_all(request)
    peer = RawPeer(client=True, streams=(stream, stream))
    with trio.move_on_after(5):
        answer = bytes(await stream.receive_some())
        if answer.startswith(b"HTTP/1.1 101 "):
            await peer.close(1000)
        async for data in stream:
            answer += bytes(data)
    return answer


# Once

CHAT = raw_http.request()


def hook(ws: ServerConnection, *_: object) -> None:
    if ws.request.path == "/chat":
        raise RuntimeError("a bug of the hook's")


def create(endpoint: Any) -> ServerConnection:
    if endpoint.request.path == "/chat":
        raise RuntimeError("a bug of the connection's")
    return ServerConnection(endpoint)


@pytest.mark.parametrize(
    ("level", "request_", "status", "options"),
    [
        (logging.DEBUG, CHAT, 101, {}),
        (logging.DEBUG, raw_http.request(without=b"Upgrade"), 426, {}),
        (logging.DEBUG, b"SSH-2.0\r\n\r\n", 400, {}),
        (logging.DEBUG, raw_http.request(b"Origin: x"), 403, {"origins": [None]}),
        (logging.DEBUG, CHAT, 500, {"process_request": hook}),
        (logging.DEBUG, CHAT, 500, {"process_response": hook}),
        (logging.DEBUG, CHAT, 500, {"create_connection": create}),
        (logging.INFO, b"SSH-2.0\r\n\r\n", 400, {}),
        (logging.ERROR, CHAT, 500, {"process_request": hook}),
        (logging.ERROR, CHAT, 500, {"create_connection": create}),
    ],
)
async def test_a_handler_of_the_log_raises_once(
    level: int,
    request_: bytes,
    status: int,
    options: dict[str, Any],
    autojump_clock: MockClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = Log(level)
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], logger=log, **options) as server:
        number, answer = 0, b""
        # Until it raises no more, or not before it is open.
        while len(log.raised) == number and not answer.startswith(b"HTTP/1.1 101 "):
            number += 1
            log.raise_at(number)
            answer = await ask(listener, request_)
            await trio.testing.wait_all_tasks_blocked()
            log.raises = lambda record: False
            assert int(answer.split()[1]) in (status, 500)
            assert not server.connections
            await check_lives(listener)
    assert number > 1
    assert int(answer.split()[1]) == status
    # Each is told to the user: in the log, or where there is nobody else to log it.
    printed = capsys.readouterr().err
    logged = set(log.causes())
    for bug in log.raised:
        assert (bug in logged) != (f"Bug: {bug}\n" in printed)


async def test_accept_raises_it(autojump_clock: MockClock) -> None:
    log = Log(logging.DEBUG)
    log.raise_for("GET /chat")
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(CHAT)
    with pytest.raises(Bug) as caught:
        async with accept(ours, logger=log):
            raise AssertionError("entered")
    assert caught.value is log.raised[0]
    assert (await raw_http.read_answer(theirs)).status == 500


# Always


async def fails(ws: ServerConnection) -> None:
    async for message in ws:
        if message == "fail":
            raise ValueError("mine")
        await ws.send(message)


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize(
    ("level", "failed"),
    [(logging.DEBUG, "< GET /chat"), (logging.INFO, "a bug of the hook's")],
)
async def test_a_handler_of_the_log_raises_always(
    level: int,
    failed: str,
    shown: bool,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", shown)
    log = Log(level)
    listener = MemoryListener()
    async with open_server(
        fails, listeners=[listener], logger=log, process_request=hook
    ):
        async with connect("ws://x/", stream=listener.connect()) as good:
            log.raises = lambda record: good.id.hex[:8] not in record.getMessage()
            for request in (CHAT, b"SSH-2.0\r\n\r\n"):
                answer = await ask(listener, request)
                assert int(answer.split()[1]) in (400, 500)
            log.raise_for("connection handler failed")
            async with connect("ws://x/", stream=listener.connect()) as bad:
                await bad.send("fail")
                with pytest.raises(ConnectionClosedError, match="received 1011"):
                    await bad.recv()
            await good.send("x")
            assert await good.recv() == "x"
    printed = capsys.readouterr().err
    assert ("--- Logging error ---" in printed) == shown
    # With what couldn't be logged for it.
    for text in (failed, "ValueError: mine", r"Bug: \w+ connection handler failed"):
        assert (re.search(text, printed) is not None) == shown


async def test_a_shortage_cannot_be_logged(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(logging.INFO)
    log.raise_for("accepting no connections for now")
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], logger=log):
        listener.fail(OSError(errno.EMFILE, "too many"))
        await check_lives(listener)
    assert "OSError: [Errno 24] too many" in capsys.readouterr().err


async def test_it_cannot_be_logged_that_closing_failed(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(logging.INFO)
    log.raise_for("closing failed")
    listener = MemoryListener()
    async with open_server(
        stubborn, listeners=[listener], logger=log, close_timeout=2, loss_grace=0
    ) as server:
        peer = RawPeer(client=True, streams=trio.testing.lockstep_stream_pair())
        listener.add(peer.theirs)
        await peer.ask()
        await peer.skip_response()
        async with connect("ws://x/", stream=listener.connect()) as ws:
            for connection in server.connections:
                await connection.send(bytes(100_000))
            await server.aclose(timeout=5)
            assert len([message async for message in ws]) == 1
            assert ws.close_code == 1001
    (bug,) = log.raised
    assert f"Bug: {bug}\n" in capsys.readouterr().err


@pytest.mark.parametrize(("offered", "lines"), [(["a"], 1), (None, 0)])
async def test_no_subprotocol_selected(
    caplog: pytest.LogCaptureFixture, offered: list[str] | None, lines: int
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")
    async with serving() as listener:
        async with connect("ws://h/", stream=listener.connect(), subprotocols=offered):
            pass
    told = [line for line in caplog.messages if "offered subprotocol" in line]
    assert len(told) == lines


# Who it is about


async def rejecting(ws: ServerConnection, request: Request) -> Response | None:
    ws.logger.warning("looked at %s", request.path, extra={"mine": 1})
    return ws.respond(403, "no\n") if request.path == "/no" else None


async def test_each_record_names_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.server")
    seen: list[ServerConnection] = []

    async def handler(ws: ServerConnection) -> None:
        seen.append(ws)
        await ws.recv()
        raise ValueError("mine")

    async with open_server(
        handler, 0, host="127.0.0.1", process_request=rejecting
    ) as server:
        uri = f"ws://127.0.0.1:{server.port}"
        async with connect(f"{uri}/yes") as ws:
            await ws.send("x")
            with pytest.raises(ConnectionClosedError):
                await ws.recv()
            yes = ws.local_address
        with pytest.raises(InvalidStatus):
            async with connect(f"{uri}/no"):
                raise AssertionError("entered")
    assert "listening on" in caplog.messages[0]
    by_address: dict[Any, list[logging.LogRecord]] = {}
    for record in caplog.records[1:]:
        by_address.setdefault(record.__dict__["remote_address"], []).append(record)
    rejected, accepted = by_address, by_address.pop(yes)
    prefix = f"{seen[0].id.hex[:8]} 127.0.0.1:{yes[1]} "
    for record in accepted:
        assert record.getMessage().startswith(prefix)
        assert record.__dict__["connection_id"] == seen[0].id
    assert {one.__dict__["websocket"] for one in accepted} <= {None, seen[0]}
    lines = [logs.plain(one) for one in accepted if one.levelno >= logging.INFO]
    assert lines == [
        "looked at /yes",
        "connection open",
        "connection closed: sent 1011 (internal error); then received 1011 "
        "(internal error)",
        "connection handler failed",
    ]
    hook = next(one for one in accepted if "looked at" in one.msg)
    assert (hook.__dict__["websocket"], hook.__dict__["mine"]) == (seen[0], 1)
    assert (hook.filename, hook.funcName) == ("test_logging.py", "rejecting")
    [(address, records)] = rejected.items()
    assert len({record.__dict__["connection_id"] for record in records}) == 1
    for record in records:
        assert f" 127.0.0.1:{address[1]} " in record.getMessage()
    assert logs.plain(records[-1]) == "connection rejected: HTTP 403"


async def test_of_an_ipv6_zone_and_a_percent_sign() -> None:
    log = Log(logging.INFO)
    identity = Identity(log, ("fe80::1%eth0", 80, 0, 2), None)
    identity.log.info("one")
    identity.log.info("100 %s", "%")
    name = identity.id.hex[:8]
    assert [record.getMessage() for record in log.kept] == [
        f"{name} [fe80::1]:80 one",
        f"{name} [fe80::1]:80 100 %",
    ]


# What a client or a proxy sends that is set up for another port.
ASTRAY = (
    b"\x16\x03\x01\x02\0\1",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


async def test_what_has_gone_astray_isnt_a_strangers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    _, server = contexts()
    async with open_server(echo, 0, host="127.0.0.1", ssl=server) as wss:
        for said in (*ASTRAY[1:], CHAT, b"SSH-2.0-x\r\n" * 2, b"\0" * 20):
            async with await trio.open_tcp_stream("127.0.0.1", wss.port) as stream:
                await stream.send_all(said)
                await stream.send_eof()
                with suppress(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
    kinds = [record.name for record in logs.told(caplog)[1:]]
    main, strangers = "trio_ws.server", "trio_ws.server.strangers"
    assert kinds == [main] * 4 + [strangers] * 2


async def test_a_preconnect_that_a_closing_server_refuses(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as listener:
        silent, begun = listener.connect(), listener.connect()
        await begun.send_all(b"GET / HT")
        await trio.testing.wait_all_tasks_blocked()
    told = [(one.name, logs.plain(one)) for one in logs.told(caplog)]
    said = "connection rejected: HTTP 503"
    assert sorted(told) == [
        ("trio_ws.server", said),
        ("trio_ws.server.strangers", said),
    ]
    await silent.aclose()
    await begun.aclose()


async def test_one_format_for_all_lines_and_an_adapter(
    autojump_clock: MockClock,
) -> None:
    lines: list[str] = []
    form = logging.Formatter("%(name)s %(mine)s %(connection_id)s %(message)s")
    logger = logging.getLogger("tests.one_format")
    handler = Calls(lambda record: lines.append(form.format(record)))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    adapter = logging.LoggerAdapter(logger, {"mine": 1})
    ids = []

    async def tells(ws: ServerConnection) -> None:
        ids.append(ws.id)
        ws.logger.info("of a handler's", extra={"theirs": ws})

    listener = MemoryListener()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        name = sock.getsockname()
        async with open_server(
            tells, listeners=[listener, sock], logger=adapter
        ) as server:
            server.logger.info("of the user's")
            async with connect(
                "ws://x/", stream=listener.connect(), logger=adapter
            ) as ws:
                await ws.wait_closed()
            await listener.connect().aclose()
            await trio.testing.wait_all_tasks_blocked()
    logger.removeHandler(handler)
    [name_of] = ids
    prefix = f"{logger.name} 1 {name_of} {name_of.hex[:8]} "
    stranger = lines.pop()
    assert stranger.startswith("tests.one_format.strangers 1 ")
    assert lines == [
        f"{logger.name} 1 None listening on {name}",
        f"{logger.name} 1 None of the user's",
        f"{prefix}connection open",
        f"{prefix}of a handler's",
        f"{prefix}connection closed: sent 1000 (OK); then received 1000 (OK)",
    ]


@pytest.mark.parametrize("given", [False, True])
async def test_strangers_have_a_logger_of_their_own(
    given: bool, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO)
    name = "mine" if given else "trio_ws.server"
    options: dict[str, Any] = {"logger": logging.getLogger(name)} if given else {}
    async with serving(**options) as listener:
        for said, status in (
            (b"", None),  # goes at once
            (b"SSH-2.0-x\r\n", 400),
            (b"RFB 003.008\n", 400),
            (b"220 mail.example ESMTP\r\n", 400),
            (b"\r\n\r\nHELP\r\n", 400),
            (b"\0\0\0\0\0", 400),
            *((one, 505 if one.startswith(b"PRI") else 400) for one in ASTRAY),
            (b"GET / HTTP/1.0\r\n\r\n", 505),
            (raw_http.request(line=b"POST / HTTP/1.1"), 405),
            (raw_http.request(without=b"Upgrade"), 426),
        ):
            stream = listener.connect()
            if said:
                await stream.send_all(said)
                assert (await raw_http.read_answer(stream)).status == status
            await stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
        stream = listener.connect()  # and says nothing, as a preconnect of a browser
        await trio.sleep(100)
        await stream.aclose()
    names = [record.name.removeprefix(name) for record in logs.told(caplog)]
    ours = [""] * (len(ASTRAY) + 3)
    assert names == [".strangers"] * 6 + ours + [".strangers"]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


@pytest.mark.parametrize("kind", ["unregistered", "adapter"])
async def test_a_logger_that_has_no_children(kind: str) -> None:
    log = Log(logging.INFO)
    given: Any = log if kind == "unregistered" else logging.LoggerAdapter(log, {})
    async with serving(logger=given) as listener:
        await ask(listener, b"SSH-2.0-x\r\n")
    assert [logs.plain(record)[:24] for record in log.kept] == [
        "opening handshake failed"
    ]


async def test_each_connection_is_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with serving() as listener:
        async with connect("ws://x/", stream=listener.connect()):
            pass
        await trio.testing.wait_all_tasks_blocked()
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:

            async def be_client() -> None:
                async with connect("ws://x/", stream=theirs) as ws:
                    await ws.wait_closed()

            nursery.start_soon(be_client)
            async with accept(ours) as ws:
                await ws.aclose(1001, "bye\u2028")
    assert [logs.plain(record) for record in caplog.records] == [
        "connection open",
        "connection closed: received 1000 (OK); then sent 1000 (OK)",
        "connection open",
        r"connection closed: sent 1001 (going away) bye\u2028; "
        r"then received 1001 (going away) bye\u2028",
    ]
