"""Unix sockets: their files, their modes, who may connect."""

from __future__ import annotations

import errno
import logging
import os
import pathlib
import socket
import ssl
import stat
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests import logs
from tests.handlers import echo
from tests.peers.certificates import contexts
from tests.platforms import needs_linux, needs_unix_sockets
from tests.server.serving import content, is_socket, tls_contexts, unix_connected
from trio_ws._server.listening import open_unix

pytestmark = needs_unix_sockets


async def check_echo(ws: trio_ws.ClientConnection) -> None:
    await ws.send("round")
    assert await ws.recv() == "round"


def exists(path: pathlib.Path) -> bool:
    return path.exists()


def mode_of(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("kind", [str, pathlib.Path])
async def test_a_unix_socket(
    path: pathlib.Path, nursery: trio.Nursery, kind: Callable[[Any], Any]
) -> None:
    requests = []

    async def handler(ws: trio_ws.ServerConnection) -> None:
        requests.append((ws.request.headers["Host"], ws.request.path))
        await echo(ws)

    server: trio_ws.Server = await nursery.start(
        partial(trio_ws.unix_serve, handler, kind(path))
    )
    async with trio_ws.unix_connect(kind(path)) as ws:
        assert ws.remote_address == str(path)
        await check_echo(ws)
    async with trio_ws.unix_connect(kind(path), "ws://name.example:1/a?b") as ws:
        await check_echo(ws)
    await server.aclose()
    assert requests == [("localhost", "/"), ("name.example:1", "/a?b")]
    assert not exists(path)


async def test_tls_on_a_unix_socket(path: pathlib.Path, nursery: trio.Nursery) -> None:
    server_context, client_context = tls_contexts("name.example")
    server: trio_ws.Server = await nursery.start(
        partial(trio_ws.unix_serve, echo, path, ssl=server_context)
    )
    for uri, name in (
        ("wss://name.example/", None),
        ("wss://other.example/", "name.example"),
    ):
        async with trio_ws.unix_connect(
            path, uri, ssl=client_context, server_hostname=name
        ) as ws:
            await check_echo(ws)
    by_default: list[tuple[str | None, str]] = [(None, "localhost")]
    for wrong, name in [("wss://other.example/", "other.example"), *by_default]:
        with pytest.raises(ssl.SSLCertVerificationError, match=name) as caught:
            async with trio_ws.unix_connect(path, wrong, ssl=client_context):
                pytest.fail("the name was not checked")
        assert caught.value.__notes__ == [
            f"TLS handshake with {name}:443 at {str(path)!r}"
        ]
    await server.aclose()


async def test_nobody_on_a_unix_socket(path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await unix_connected(path)
    assert caught.value.__notes__ == [f"connecting to {str(path)!r}"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        with pytest.raises(ConnectionRefusedError):
            await unix_connected(path)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777])
async def test_the_mode_of_a_unix_socket(path: pathlib.Path, mode: int) -> None:
    listener, _ = await open_unix(str(path), mode, None)
    async with listener:
        assert mode_of(path) == mode


async def test_the_mode_is_set_before_anybody_can_connect(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def chmod(*args: Any) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            refused.append(sock.connect_ex(str(path)))

    monkeypatch.setattr(os, "chmod", chmod)
    listener, _ = await open_unix(str(path), 0o600, None)
    async with listener:
        assert refused == [errno.ECONNREFUSED]


async def test_a_server_has_the_mode_it_was_given(
    path: pathlib.Path, nursery: trio.Nursery
) -> None:
    before = os.umask(0o027)
    try:
        for mode, expected in ((None, 0o750), (0o666, 0o666)):
            server: trio_ws.Server = await nursery.start(
                partial(trio_ws.unix_serve, echo, path, mode=mode)
            )
            assert mode_of(path) == expected
            await server.aclose()
    finally:
        os.umask(before)


async def test_a_stale_socket_is_replaced(
    path: pathlib.Path, nursery: trio.Nursery
) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
    # A process that was killed leaves it like this.
    assert is_socket(path)
    server: trio_ws.Server = await nursery.start(
        partial(trio_ws.unix_serve, echo, path)
    )
    await unix_connected(path)
    await server.aclose()
    assert not exists(path)


def make_file(path: pathlib.Path) -> None:
    path.write_text("precious")


def make_fifo(path: pathlib.Path) -> None:
    os.mkfifo(path)


def make_link(path: pathlib.Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def make_link_to_stale(path: pathlib.Path) -> None:
    other = path.with_name("elsewhere")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(other))
    path.symlink_to(other)


@pytest.mark.parametrize(
    "make", [make_file, pathlib.Path.mkdir, make_fifo, make_link, make_link_to_stale]
)
async def test_what_is_no_socket_is_left_alone(
    path: pathlib.Path, make: Callable[[pathlib.Path], None]
) -> None:
    make(path)
    before = os.lstat(path)
    with pytest.raises(FileExistsError, match="socket") as caught:
        await trio_ws.unix_serve(echo, path)
    assert caught.value.filename == str(path)
    assert os.lstat(path) == before


async def test_a_socket_of_another_user_is_left_alone(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(FileExistsError, match="of this user's"):
        await trio_ws.unix_serve(echo, path)
    assert is_socket(path)


async def test_a_socket_in_use_is_left_alone(
    path: pathlib.Path, nursery: trio.Nursery
) -> None:
    server: trio_ws.Server = await nursery.start(
        partial(trio_ws.unix_serve, echo, path)
    )
    with pytest.raises(OSError, match="nobody to listen") as caught:
        await trio_ws.unix_serve(echo, path)
    assert caught.value.errno == errno.EADDRINUSE
    await unix_connected(path)
    await server.aclose()


async def test_a_socket_whose_backlog_is_full_is_in_use(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(0)
        clients = fill_backlog(path)
        with pytest.raises(OSError, match="nobody to listen"):
            await trio_ws.unix_serve(echo, path)
        for client in clients:
            client.close()
    assert is_socket(path)


def fill_backlog(path: pathlib.Path) -> list[socket.socket]:
    """Connect until a listener that doesn't accept has enough."""
    clients: list[socket.socket] = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        if client.connect_ex(str(path)) != 0:
            client.close()
            return clients
        clients.append(client)


async def test_the_backlog_of_a_unix_socket(path: pathlib.Path) -> None:
    listener, _ = await open_unix(str(path), None, 3)
    async with listener:
        clients = fill_backlog(path)
        for client in clients:
            client.close()
    assert len(clients) in (3, 4)  # Linux lets one more in


async def test_a_unix_socket_that_cannot_be_opened_leaves_no_file(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chmod(*args: Any) -> None:
        raise PermissionError(errno.EPERM, "not today")

    monkeypatch.setattr(os, "chmod", chmod)
    with pytest.raises(PermissionError, match="not today"):
        await trio_ws.unix_serve(echo, path, mode=0o600)
    assert not exists(path)


async def test_a_unix_socket_in_no_directory(path: pathlib.Path) -> None:
    below = path / "below" / "nothing"
    with pytest.raises(FileNotFoundError) as caught:
        await trio_ws.unix_serve(echo, below)
    assert caught.value.__notes__ == [f"listening on {str(below)!r}"]


async def test_a_path_that_is_too_long(path: pathlib.Path) -> None:
    long = str(path) + "x" * 100
    with pytest.raises(OSError, match="path too long") as caught:
        await trio_ws.unix_serve(echo, long)
    assert caught.value.__notes__ == [f"listening on {long!r}"]
    with pytest.raises(OSError, match="path too long") as caught:
        await unix_connected(long)
    assert caught.value.__notes__ == [f"connecting to {long!r}"]


@needs_linux
async def test_an_abstract_name(path: pathlib.Path, nursery: trio.Nursery) -> None:
    name = f"\0{path}"
    server: trio_ws.Server = await nursery.start(
        partial(trio_ws.unix_serve, echo, name)
    )
    await unix_connected(name)
    with pytest.raises(OSError, match="in use") as caught:
        await trio_ws.unix_serve(echo, name)
    assert caught.value.__notes__ == [f"listening on {name!r}"]
    await server.aclose()
    with pytest.raises(ConnectionRefusedError) as refused:
        await unix_connected(name)
    assert refused.value.__notes__ == [f"connecting to {name!r}"]
    with pytest.raises(ValueError, match="mode: expected none with an abstract name"):
        await trio_ws.unix_serve(echo, name, mode=0o600)


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ("", ValueError, "path: expected a path; got ''"),
        ("a\0b", ValueError, r"path: expected no NUL in it; got 'a\\x00b'"),
        (b"a", TypeError, "path: expected a str or a path; got b'a'"),
        (None, TypeError, "path: expected a str or a path; got None"),
        (5, TypeError, "path: expected a str or a path; got 5"),
        ("\0a", ValueError, r"path: abstract names are Linux's alone; got '\\x00a'"),
    ],
)
async def test_paths_that_are_none(
    wrong: Any, error: type[Exception], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "freebsd14")
    with pytest.raises(error, match=match):
        trio_ws.unix_connect(wrong)
    with pytest.raises(error, match=match):
        await trio_ws.unix_serve(echo, wrong)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"open_timeout": -1}, ValueError),
        ({"no_such_option": 1}, TypeError),
        ({"ssl": "yes"}, TypeError),
        ({"handler": "echo"}, TypeError),
        ({"mode": "660"}, TypeError),
        ({"mode": True}, TypeError),
        ({"handler_nursery": 5}, TypeError),
    ],
)
async def test_wrong_arguments_leave_no_file(
    path: pathlib.Path, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        await trio_ws.unix_serve(**{"handler": echo, "path": path, **arguments})
    assert not exists(path)


async def test_a_cancelled_server_removes_its_file(path: pathlib.Path) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio_ws.unix_serve, echo, path))
        assert is_socket(path)
        nursery.cancel_scope.cancel()
    assert not exists(path)


async def test_cancelled_before_it_begins(path: pathlib.Path) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await trio_ws.unix_serve(echo, path)
    assert scope.cancelled_caught
    assert not exists(path)


async def test_a_file_that_somebody_else_has_removed(
    path: pathlib.Path, nursery: trio.Nursery
) -> None:
    server: trio_ws.Server = await nursery.start(
        partial(trio_ws.unix_serve, echo, path)
    )
    os.unlink(path)
    await server.aclose()
    assert not exists(path)


async def test_a_file_that_was_replaced_stays(
    path: pathlib.Path, nursery: trio.Nursery
) -> None:
    server: trio_ws.Server = await nursery.start(
        partial(trio_ws.unix_serve, echo, path)
    )
    os.unlink(path)
    make_file(path)
    await server.aclose()
    assert content(path) == "precious"


async def test_a_successor_starts_while_the_last_handlers_end(
    path: pathlib.Path,
) -> None:
    """Its file may well get the inode that ours had."""
    end = trio.Event()

    async def slow(ws: trio_ws.ServerConnection) -> None:
        await end.wait()

    async def be_client() -> None:
        async with trio_ws.unix_connect(path) as ws:
            await ws.wait_closed()

    async def run_first(task_status: trio.TaskStatus[trio_ws.Server]) -> None:
        await trio_ws.unix_serve(slow, path, task_status=task_status)
        assert is_socket(path)

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as first:
            server: trio_ws.Server = await first.start(run_first)
            first.start_soon(be_client)
            while not server.connections:
                await trio.lowlevel.checkpoint()
            first.start_soon(partial(server.aclose, timeout=None))
            await trio.testing.wait_all_tasks_blocked()
            successor: trio_ws.Server = await nursery.start(
                partial(trio_ws.unix_serve, echo, path)
            )
            end.set()
        await unix_connected(path)
        await successor.aclose()
    assert not exists(path)


async def test_it_is_no_block(path: pathlib.Path) -> None:
    said = r"write: server = await nursery\.start\(unix_serve, handler, path\)$"
    with pytest.raises(TypeError, match=said):
        async with trio_ws.unix_serve(echo, path):  # type: ignore[attr-defined]
            pass
    assert not exists(path)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_name_of_a_client_that_no_log_may_show_as_it_is(
    path: pathlib.Path,
    nursery: trio.Nursery,
    tls: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")
    shown: list[tuple[str, str]] = []

    async def handler(ws: trio_ws.ServerConnection) -> None:
        shown.append((ws.remote_address, repr(ws)))
        await echo(ws)

    for_client, for_server = contexts()
    server: trio_ws.Server = await nursery.start(
        partial(trio_ws.unix_serve, handler, path, ssl=for_server if tls else None)
    )
    name = str(path.with_name("a\nERROR disk is full\x1b[31m\u2028"))
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(name)
    await sock.connect(str(path))
    context = for_client if tls else None
    uri = "wss://localhost/" if tls else "ws://localhost/"
    stream = trio.SocketStream(sock)
    async with trio_ws.connect(uri, stream=stream, ssl=context) as ws:
        await check_echo(ws)
        assert repr(ws).isprintable()
    await server.aclose()
    ((address, text),) = shown
    assert address == name
    assert text.isprintable()
    assert "a\\nERROR disk is full\\x1b[31m\\u2028" in text
    for line in ("connection open", "connection closed"):
        (record,) = [r for r in caplog.records if line in logs.plain(r)]
        assert vars(record)["remote_address"].isprintable()
