"""Listening and connecting: Unix sockets, sockets of others, ports, names."""

from __future__ import annotations

import errno
import logging
import os
import pathlib
import resource
import socket
import ssl
import stat
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

import trio_ws
from tests import raw_http
from tests._protocol import wire
from tests.in_memory import MemoryListener
from trio_ws._server.listening import ListenSpec, open_unix

if TYPE_CHECKING:
    from collections.abc import Iterator


async def echo(ws: trio_ws.ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def check_echo(ws: trio_ws.ClientConnection) -> None:
    await ws.send("round")
    assert await ws.recv() == "round"


async def connected(uri: str, **options: Any) -> None:
    """Connect, and see that a server answers."""
    async with trio_ws.connect(uri, **options) as ws:
        await check_echo(ws)


async def unix_connected(path: str | pathlib.Path) -> None:
    async with trio_ws.unix_connect(path) as ws:
        await check_echo(ws)


def tls_contexts(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="::1 is absent")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
needs_reuse_port = pytest.mark.skipif(
    not hasattr(socket, "SO_REUSEPORT"), reason="SO_REUSEPORT is absent"
)


# Unix sockets


# A look at a file doesn't block, whatever the linter says of async functions.


def exists(path: pathlib.Path) -> bool:
    return path.exists()


def is_socket(path: pathlib.Path) -> bool:
    return path.is_socket()


def mode_of(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def content(path: pathlib.Path) -> str:
    return path.read_text()


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "socket"


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
    with pytest.raises(ssl.SSLCertVerificationError):
        async with trio_ws.unix_connect(
            path, "wss://other.example/", ssl=client_context
        ):
            pytest.fail("the name was not checked")
    await server.aclose()


async def test_nobody_on_a_unix_socket(path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        await unix_connected(path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        with pytest.raises(ConnectionRefusedError):
            await unix_connected(path)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777])
async def test_the_mode_of_a_unix_socket(path: pathlib.Path, mode: int) -> None:
    listener = await open_unix(str(path), mode, None)
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
    async with await open_unix(str(path), 0o600, None):
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


def make_link(path: pathlib.Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def make_link_to_stale(path: pathlib.Path) -> None:
    other = path.with_name("elsewhere")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(other))
    path.symlink_to(other)


@pytest.mark.parametrize(
    "make", [make_file, pathlib.Path.mkdir, os.mkfifo, make_link, make_link_to_stale]
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
    async with await open_unix(str(path), None, 3):
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
    with pytest.raises(FileNotFoundError):
        await trio_ws.unix_serve(echo, path / "below" / "nothing")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"open_timeout": -1}, ValueError),
        ({"no_such_option": 1}, TypeError),
        ({"ssl": "yes"}, TypeError),
        ({"handler": "echo"}, TypeError),
    ],
)
async def test_wrong_arguments_leave_no_file(
    path: pathlib.Path, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
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


# Listeners and sockets of the user's


async def test_listeners_of_all_kinds_at_once(tmp_path: pathlib.Path) -> None:
    server_context, client_context = tls_contexts("127.0.0.1")
    memory = MemoryListener()
    (tcp,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    (behind_tls,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    tls = trio.SSLListener(behind_tls, server_context, https_compatible=True)
    plain = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "unix"))
    unix.listen()
    ports = [one.getsockname()[1] for one in (tcp.socket, behind_tls.socket, plain)]
    async with trio_ws.open_server(
        echo, listeners=[memory, tcp, tls, plain, unix]
    ) as server:
        assert server.port == ports[0]
        assert [one.getsockname() for one in server.sockets] == [
            ("127.0.0.1", ports[0]),
            ("127.0.0.1", ports[2]),
            str(tmp_path / "unix"),
        ]
        await connected("ws://h/", stream=memory.connect())
        await connected(f"ws://127.0.0.1:{ports[0]}/")
        await connected(f"wss://127.0.0.1:{ports[1]}/", ssl=client_context)
        await connected(f"ws://127.0.0.1:{ports[2]}/")
        await unix_connected(tmp_path / "unix")
    assert memory.closed
    for port in ports:
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    with pytest.raises(ConnectionRefusedError):
        await unix_connected(tmp_path / "unix")
    # What others have made, others remove.
    assert is_socket(tmp_path / "unix")


VIOLATION = wire.frame(3, key=wire.KEY)


@pytest.mark.parametrize("more", [0, 300_000])
async def test_the_last_word_to_who_comes_by_an_ssl_listener_arrives(more: int) -> None:
    server_context, client_context = tls_contexts("127.0.0.1")
    (tcp,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = tcp.socket.getsockname()[1]
    listener = trio.SSLListener(tcp, server_context, https_compatible=True)

    async def told(data: bytes) -> bytes:
        async with trio.SSLStream(
            await trio.open_tcp_stream("127.0.0.1", port),
            client_context,
            server_hostname="127.0.0.1",
            https_compatible=True,
        ) as stream:
            await stream.send_all(data + bytes(more))
            return await raw_http.read_to_end(stream)

    async with trio_ws.open_server(closes, listeners=[listener]):
        for _ in range(10):
            answer = raw_http.parse(await told(raw_http.request(without=b"Upgrade")))
            assert answer.status == 426
            answer = raw_http.parse(await told(raw_http.request() + VIOLATION))
            (close,) = wire.parse_stream(answer.rest, masked=False)
            assert close.data[:2] == b"\x03\xea"


async def closes(ws: trio_ws.ServerConnection) -> None:
    with pytest.raises(trio_ws.ConnectionClosedError):
        await ws.recv()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_a_socket_that_does_not_listen(kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(ValueError, match=r"(?i)listening|SOCK_STREAM"):
            await trio_ws.serve(echo, listeners=[sock])


def test_where_refuses_what_contradicts_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = MemoryListener()
    for arguments, match in (
        ({}, "port: expected a port, or listeners"),
        ({"host": "localhost"}, "port: expected a port, or listeners"),
        ({"listeners": []}, "listeners: expected at least one"),
        ({"listeners": [listener], "port": 0}, "no port"),
        ({"listeners": [listener], "host": ""}, "no host"),
        ({"listeners": [listener], "backlog": 5}, "no backlog"),
        ({"listeners": [listener], "reuse_port": True}, "no reuse_port"),
    ):
        with pytest.raises(ValueError, match=match):
            ListenSpec(**arguments)
    with pytest.raises(TypeError, match=r"listeners: .*got 8765"):
        ListenSpec(listeners=[8765])  # type: ignore[list-item]
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    ListenSpec(8765)
    with pytest.raises(ValueError, match="this platform doesn't have it"):
        ListenSpec(8765, reuse_port=True)


# Socket activation


def run(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parent.parent,
        **options,
    )


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop a process by the end of its input, and see that it takes it well."""
    try:
        yield
    finally:
        process.communicate(timeout=30)
    assert process.returncode == 0


# What serves until its standard input ends.
SERVING = """
    import os, sys, trio, trio_ws

    async def tell(ws):
        await ws.send(str(os.getpid()))

    async def serve(**options):
        async with trio_ws.open_server(tell, **options):
            print("ready", flush=True)
            await trio.to_thread.run_sync(sys.stdin.read)
"""


async def ask_pid(uri: str) -> int:
    async with trio_ws.connect(uri) as ws:
        pid = await ws.recv(decode=True)
    return int(pid)


async def test_sockets_from_systemd(tmp_path: pathlib.Path) -> None:
    code = """
        # As systemd does it: the sockets are descriptors 3 and 4.
        fds = [os.dup(int(fd)) for fd in sys.argv[1:]]
        for i, fd in enumerate(fds):
            os.dup2(fd, 3 + i)
            os.set_inheritable(3 + i, True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2")
        os.environ["LISTEN_FDNAMES"] = "web:local"
        listeners = trio_ws.open_systemd_listeners()
        assert not [name for name in os.environ if name.startswith("LISTEN_")]
        assert not os.get_inheritable(3) and not os.get_inheritable(4)
        trio.run(lambda: serve(listeners=listeners))
    """
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(tmp_path / "unix"))
            unix.listen()
            port = tcp.getsockname()[1]
            fds = (tcp.fileno() + 100, unix.fileno() + 100)  # not 3 and 4
            os.dup2(tcp.fileno(), fds[0])
            os.dup2(unix.fileno(), fds[1])
            try:
                process = run(
                    textwrap.dedent(SERVING) + textwrap.dedent(code),
                    *fds,
                    pass_fds=fds,
                )
            finally:
                for fd in fds:
                    os.close(fd)
    with ended(process):
        assert await ask_pid(f"ws://127.0.0.1:{port}/") == process.pid
        async with trio_ws.unix_connect(tmp_path / "unix") as ws:
            assert await ws.recv() == str(process.pid)


@pytest.mark.parametrize(
    ("pid", "count"),
    [
        (None, None),
        (None, "1"),
        ("mine", None),
        ("mine", "0"),
        ("mine", "-1"),
        ("mine", "two"),
        ("mine", ""),
        ("1", "1"),
        ("", "1"),
    ],
)
def test_no_sockets_from_systemd(
    monkeypatch: pytest.MonkeyPatch, pid: str | None, count: str | None
) -> None:
    for name, value in (("LISTEN_PID", pid), ("LISTEN_FDS", count)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(os.getpid()) if value == "mine" else value)
    with pytest.raises(RuntimeError, match="expected sockets from systemd"):
        trio_ws.open_systemd_listeners()
    # No child takes them for its own.
    assert "LISTEN_PID" not in os.environ
    assert "LISTEN_FDS" not in os.environ


# Ports


@needs_reuse_port
async def test_two_processes_on_one_port() -> None:
    code = """
        port = int(sys.argv[1])
        trio.run(lambda: serve(port=port, host="127.0.0.1", reuse_port=True))
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))  # keeps the port for them
        port = sock.getsockname()[1]
        program = textwrap.dedent(SERVING) + textwrap.dedent(code)
        one, other = run(program, port), run(program, port)
        with ended(one), ended(other):
            for process in (one, other):
                assert process.stdout is not None
                line = await trio.to_thread.run_sync(process.stdout.readline)
                assert line == "ready\n"
            # The kernel draws by the client's port: a coin, sixty times.
            pids = {await ask_pid(f"ws://127.0.0.1:{port}/") for _ in range(60)}
            assert pids == {one.pid, other.pid}


@needs_reuse_port
async def test_a_port_is_shared_only_with_who_shares_it() -> None:
    async with trio_ws.open_server(
        echo, 0, host="127.0.0.1", reuse_port=True
    ) as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        await connected(uri)
        where = {"port": server.port, "host": "127.0.0.1"}
        with pytest.raises(OSError, match="in use") as caught:
            await trio_ws.serve(echo, **where)  # type: ignore[arg-type]
        assert caught.value.__notes__ == [
            f"listening on port {server.port}, host 127.0.0.1"
        ]
        async with trio_ws.open_server(echo, **where, reuse_port=True):  # type: ignore[arg-type]
            for _ in range(10):
                await connected(uri)


class Resolver(trio.abc.HostnameResolver):
    """Makes of every name the addresses it is given."""

    def __init__(self, *addresses: tuple[int, tuple[Any, ...]]) -> None:
        self.addresses = addresses

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return [
            (family, socket.SOCK_STREAM, 0, "", address)
            for family, address in self.addresses
        ]

    async def getnameinfo(self, *args: Any) -> Any:
        raise AssertionError("not asked for")

    def install(self) -> None:
        """Be the resolver of this run of trio."""
        trio.socket.set_custom_hostname_resolver(self)


NO_FAMILY = 100


@needs_reuse_port
async def test_a_family_that_is_not_supported_is_passed_over() -> None:
    Resolver((NO_FAMILY, ("x", 0)), (socket.AF_INET, ("127.0.0.1", 0))).install()
    async with trio_ws.open_server(
        echo, 0, host="name.example", reuse_port=True
    ) as server:
        await connected(f"ws://127.0.0.1:{server.port}/")


@needs_reuse_port
async def test_no_family_is_supported() -> None:
    Resolver((NO_FAMILY, ("x", 0)), (NO_FAMILY, ("y", 0))).install()
    with pytest.raises(OSError, match="not supported") as caught:
        await trio_ws.serve(echo, 0, host="name.example", reuse_port=True)
    assert caught.value.errno == errno.EAFNOSUPPORT


@needs_reuse_port
async def test_an_address_that_fails_closes_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[socket.socket] = []
    real = trio.socket.socket

    def remember(family: int, *args: Any) -> Any:
        if family == NO_FAMILY:
            raise OSError(errno.EMFILE, "too many")
        sock = real(family, *args)
        opened.append(sock)  # type: ignore[arg-type]
        return sock

    monkeypatch.setattr(trio.socket, "socket", remember)
    # Not of this machine: TEST-NET-1 (RFC 5737).
    for last in ((socket.AF_INET, ("192.0.2.1", 0)), (NO_FAMILY, ())):
        Resolver((socket.AF_INET, ("127.0.0.1", 0)), last).install()
        with pytest.raises(OSError, match=r"assign|too many"):
            await trio_ws.serve(echo, 0, host="name.example", reuse_port=True)
    assert len(opened) == 3
    assert [one.fileno() for one in opened] == [-1, -1, -1]


@needs_linux
@pytest.mark.parametrize("reuse_port", [False, True])
@pytest.mark.parametrize("backlog", [5, None])
async def test_the_backlog_of_a_port(reuse_port: bool, backlog: int | None) -> None:
    maximum = int(content(pathlib.Path("/proc/sys/net/core/somaxconn")))
    where = ListenSpec(0, "127.0.0.1", backlog, reuse_port)
    (listener,) = await where.open()
    assert isinstance(listener, trio.SocketListener)
    async with listener:
        info = listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        # tcpi_sacked of a socket that listens is its backlog.
        (size,) = struct.unpack_from("I", info, 28)
        assert size == min(maximum, 0xFFFF) if backlog is None else backlog


@pytest.mark.parametrize(
    "reuse_port", [False, pytest.param(True, marks=needs_reuse_port)]
)
@needs_ipv6
async def test_ipv6(reuse_port: bool) -> None:
    async with trio_ws.open_server(
        echo, 0, host="::1", reuse_port=reuse_port
    ) as server:
        uri = f"ws://[::1]:{server.port}/"
        async with trio_ws.connect(uri) as ws:
            assert ws.request.headers["Host"] == f"[::1]:{server.port}"
            assert ws.remote_address[:2] == ("::1", server.port)
            await check_echo(ws)


@pytest.mark.parametrize(
    "reuse_port", [False, pytest.param(True, marks=needs_reuse_port)]
)
@needs_ipv6
async def test_all_interfaces_of_both_families(reuse_port: bool) -> None:
    async with trio_ws.open_server(echo, 0, reuse_port=reuse_port) as server:
        assert {one.family for one in server.sockets} == {
            socket.AF_INET,
            socket.AF_INET6,
        }
        for one in server.sockets:
            host = "[::1]" if one.family == socket.AF_INET6 else "127.0.0.1"
            await connected(f"ws://{host}:{one.getsockname()[1]}/")


# Names


async def test_a_name_whose_first_address_is_dead() -> None:
    async with trio_ws.open_server(echo, 0, host="127.0.0.1") as server:
        with socket.socket() as dead:
            dead.bind(("127.0.0.1", 0))  # and doesn't listen
            Resolver(
                (socket.AF_INET, dead.getsockname()),
                (socket.AF_INET, ("127.0.0.1", server.port)),
            ).install()
            async with trio_ws.connect("ws://name.example/") as ws:
                assert ws.remote_address == ("127.0.0.1", server.port)
                assert ws.request.headers["Host"] == "name.example"
                await check_echo(ws)


@needs_linux
@pytest.mark.realtime(seconds=0.3)
async def test_a_name_whose_first_address_is_silent() -> None:
    """Happy eyeballs: another is tried before the first has failed (RFC 8305)."""
    async with trio_ws.open_server(echo, 0, host="127.0.0.1") as server:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
            # Linux ignores a SYN for which the backlog has no room.
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(silent.getsockname())
            Resolver(
                (socket.AF_INET, silent.getsockname()),
                (socket.AF_INET, ("127.0.0.1", server.port)),
            ).install()
            with trio.fail_after(5):
                await connected("ws://name.example/")
            for filler in fillers:
                filler.close()


async def test_a_name_of_which_all_addresses_are_dead() -> None:
    with socket.socket() as dead, socket.socket() as dead_too:
        for one in (dead, dead_too):
            one.bind(("127.0.0.1", 0))
        Resolver(
            (socket.AF_INET, dead.getsockname()),
            (socket.AF_INET, dead_too.getsockname()),
        ).install()
        with pytest.raises(OSError, match=r"name\.example") as caught:
            await connected("ws://name.example/")
        assert isinstance(caught.value.__cause__, BaseExceptionGroup)
        assert len(caught.value.__cause__.exceptions) == 2


async def test_host_and_port_go_before_those_of_the_uri() -> None:
    server_context, client_context = tls_contexts("name.example")
    async with trio_ws.open_server(
        echo, 0, host="127.0.0.1", ssl=server_context
    ) as server:
        # TLS checks, and the Host header says, what the URI says.
        async with trio_ws.connect(
            "wss://name.example:1/",
            host="127.0.0.1",
            port=server.port,
            ssl=client_context,
        ) as ws:
            assert ws.request.headers["Host"] == "name.example:1"
            await check_echo(ws)
        await connected(
            f"wss://name.example:{server.port}/", host="127.0.0.1", ssl=client_context
        )
        Resolver((socket.AF_INET, ("127.0.0.1", server.port))).install()
        await connected("wss://name.example:1/", port=server.port, ssl=client_context)


async def test_local_address() -> None:
    seen = []

    async def handler(ws: trio_ws.ServerConnection) -> None:
        seen.append(ws.remote_address[0])
        await echo(ws)

    async with trio_ws.open_server(handler, 0, host="127.0.0.1") as server:
        for local in ("127.0.0.1", "127.0.0.2"):
            try:
                await connected(f"ws://127.0.0.1:{server.port}/", local_address=local)
            except OSError:  # pragma: no cover - macOS has the first alone
                pytest.skip(f"{local} is absent")
    assert seen == ["127.0.0.1", "127.0.0.2"]


# Accepting


class Steps(trio.abc.Instrument):
    """Counts how often the tasks that accept had their turn."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if "_accept_sockets" in task.name:
            self.count += 1


async def nothing(ws: trio_ws.ServerConnection) -> None:
    pass


async def test_what_waits_is_accepted_in_batches() -> None:
    steps = Steps()
    async with trio_ws.open_server(nothing, 0, host="127.0.0.1") as server:
        await trio.testing.wait_all_tasks_blocked()
        address = ("127.0.0.1", server.port)
        clients = [socket.create_connection(address) for _ in range(200)]
        trio.lowlevel.add_instrument(steps)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(steps)
        assert len(server._sessions) == 200
        for client in clients:
            client.close()
    # Three full batches and the rest; one turn to wait for each.
    assert steps.count <= 8


@pytest.mark.realtime(seconds=0.4)
async def test_no_descriptors_left(caplog: pytest.LogCaptureFixture) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    steps = Steps()
    async with trio_ws.open_server(echo, 0, host="127.0.0.1") as server:
        address = ("127.0.0.1", server.port)
        async with trio_ws.connect("ws://{}:{}/".format(*address)) as ws:
            waiting = [socket.create_connection(address) for _ in range(3)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            try:
                trio.lowlevel.add_instrument(steps)
                start = trio.current_time()
                turns = 0
                # Those who are connected notice nothing.
                while trio.current_time() < start + 0.35:
                    await check_echo(ws)
                    turns += 1
                trio.lowlevel.remove_instrument(steps)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert turns > 10
            assert steps.count <= 2 * (trio.current_time() - start) / 0.1 + 2
            errors = [one for one in caplog.records if one.levelno >= logging.ERROR]
            assert len(errors) == 1
            assert "accepting no connections for now" in errors[0].getMessage()
            # And who waits is served as soon as there are some.
            for sock in waiting:
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
                await connected("ws://h/", stream=stream)
