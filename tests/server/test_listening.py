"""Listening: sockets and listeners of the user's, and ports."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
import struct
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.handlers import echo
from tests.peers import raw_http, wire
from tests.peers.in_memory import MemoryListener
from tests.platforms import (
    needs_linux,
    needs_posix,
    needs_reuse_port,
    needs_unix_sockets,
)
from tests.server.serving import (
    Resolver,
    content,
    is_socket,
    tls_contexts,
    unix_connected,
)
from trio_ws._server.listening import ListenSpec

if TYPE_CHECKING:
    from collections.abc import Iterator


async def check_echo(ws: trio_ws.ClientConnection) -> None:
    await ws.send("round")
    assert await ws.recv() == "round"


async def connected(uri: str, **options: Any) -> None:
    """Connect, and see that a server answers."""
    async with trio_ws.connect(uri, **options) as ws:
        await check_echo(ws)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="::1 is absent")


# Listeners and sockets of the user's


@needs_unix_sockets
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
        good = MemoryListener()
        match = "than SOCK_STREAM$" if kind == socket.SOCK_DGRAM else "doesn't listen$"
        with pytest.raises(ValueError, match=f"^listeners: expected .*{match}"):
            trio_ws.open_server(echo, listeners=[good, sock])
    with pytest.raises(ValueError, match=r"^listeners: expected .*it is closed$"):
        trio_ws.open_server(echo, listeners=[good, sock])


async def test_listeners_out_of_an_iterator() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        async with trio_ws.open_server(echo, listeners=iter([sock])) as server:
            assert server.port == port
            await connected(f"ws://127.0.0.1:{port}/")


@pytest.mark.parametrize("nursery", [5, "x"])
async def test_a_wrong_nursery(nursery: Any) -> None:
    with pytest.raises(TypeError, match=r"^handler_nursery: expected a trio\.Nurs"):
        await trio_ws.serve(echo, 0, handler_nursery=nursery)


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
    with pytest.raises(TypeError, match=r"^listeners: expected several, .*got 8765"):
        ListenSpec(listeners=8765)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="listeners: expected at least one; got none"):
        ListenSpec(listeners=iter([]))
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    ListenSpec(8765)
    with pytest.raises(ValueError, match=r"reuse_port: .* has no SO_REUSEPORT"):
        ListenSpec(8765, reuse_port=True)


def run(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
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


# Socket activation


@needs_unix_sockets
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


def test_no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whose sockets are no descriptors, as others may have them.
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", "nt")
        patched.setattr(sys, "platform", "win32")
        with pytest.raises(RuntimeError) as caught:
            trio_ws.open_systemd_listeners()
    assert str(caught.value) == "open_systemd_listeners: win32 has no systemd"


@needs_posix
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


def test_a_socket_from_systemd_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = 200
    monkeypatch.setattr("trio_ws._server.listening._LISTEN_FDS_START", first)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        os.dup2(tcp.fileno(), first)
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            os.dup2(udp.fileno(), first + 1)
        with pytest.raises(ValueError, match="SOCK_STREAM"):
            trio_ws.open_systemd_listeners()
    for descriptor in (first, first + 1):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


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
        where: Any = {"port": server.port, "host": "127.0.0.1"}
        with pytest.raises(OSError, match="in use") as caught:
            await trio_ws.serve(echo, **where)
        assert caught.value.__notes__ == [f"listening on 127.0.0.1:{server.port}"]
        async with trio_ws.open_server(echo, **where, reuse_port=True):
            for _ in range(10):
                await connected(uri)


NO_FAMILY = 100


by_reuse = pytest.mark.parametrize(
    "reuse_port", [False, pytest.param(True, marks=needs_reuse_port)]
)

# Not of this machine: TEST-NET-1 (RFC 5737).
NOT_OURS = (socket.AF_INET, ("192.0.2.1", 0))


@by_reuse
@pytest.mark.parametrize("other", [(NO_FAMILY, ("x", 0)), NOT_OURS])
async def test_an_address_that_cannot_be_one_is_passed_over(
    reuse_port: bool, other: tuple[int, Any]
) -> None:
    Resolver(other, (socket.AF_INET, ("127.0.0.1", 0)), other).install()
    async with trio_ws.open_server(
        echo, 0, host="name.example", reuse_port=reuse_port
    ) as server:
        assert len(server.sockets) == 1
        await connected(f"ws://127.0.0.1:{server.port}/")


@by_reuse
@pytest.mark.parametrize(
    ("address", "match", "code"),
    [
        ((NO_FAMILY, ("x", 0)), "not supported", errno.EAFNOSUPPORT),
        (NOT_OURS, "assign", errno.EADDRNOTAVAIL),
    ],
)
async def test_no_address_can_be_one(
    reuse_port: bool, address: tuple[int, Any], match: str, code: int
) -> None:
    Resolver(address).install()
    with pytest.raises(OSError, match=match) as caught:
        await trio_ws.serve(echo, 0, host="name.example", reuse_port=reuse_port)
    assert caught.value.errno == code
    assert caught.value.__notes__ == [f"listening on {address[1][0]}:0"]


@needs_linux
@by_reuse
async def test_an_address_in_use_closes_the_others(
    reuse_port: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        name = ("127.0.0.1", port)
        Resolver(
            (socket.AF_INET, ("127.0.0.2", port)), (socket.AF_INET, name)
        ).install()
        with pytest.raises(OSError, match="in use") as caught:
            await trio_ws.serve(echo, port, host="name.example", reuse_port=reuse_port)
        assert caught.value.__notes__ == [f"listening on 127.0.0.1:{port}"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))


@needs_linux
async def test_port_0_is_one_port_of_all_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Resolver(
        *[(socket.AF_INET, (f"127.0.0.{number}", 0)) for number in (1, 2, 3, 2)]
    ).install()
    taken: list[socket.socket] = []
    real = socket.socket.bind

    def bind(sock: socket.socket, address: Any) -> None:
        """Let somebody else have the port in another family, twice."""
        if len(taken) < 2 and address[1]:
            taken.append(socket.socket())
            real(taken[-1], address)
        real(sock, address)

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "bind", bind)
        async with trio_ws.open_server(echo, 0, host="name.example") as server:
            assert [sock.getsockname() for sock in server.sockets] == [
                (f"127.0.0.{number}", server.port) for number in (1, 2, 3)
            ]
            assert len(taken) == 2
            assert server.port not in [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()


async def test_no_port_is_free_in_all_families(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(*[(socket.AF_INET, (f"127.0.0.{one}", 0)) for one in (1, 2)]).install()

    def bind(sock: socket.socket, address: Any) -> None:
        if address[1]:
            raise OSError(errno.EADDRINUSE, "in use")
        real(sock, address)

    real = socket.socket.bind
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "bind", bind)
        with pytest.raises(OSError, match="in use") as caught:
            await trio_ws.serve(echo, 0, host="name.example")
    assert caught.value.__notes__ == ["listening on 127.0.0.2:0"]


async def test_localhost_where_there_is_no_ipv6(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Resolver(
        (socket.AF_INET6, ("::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0))
    ).install()
    real = socket.socket.bind

    def bind(sock: socket.socket, address: Any) -> None:
        if address[0] == "::1":
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        real(sock, address)

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "bind", bind)
        async with trio_ws.open_server(echo, 0, host="localhost") as server:
            assert server.sockets[0].getsockname() == ("127.0.0.1", server.port)


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


async def test_a_literal_with_a_final_dot() -> None:
    async with trio_ws.open_server(echo, 0, host="127.0.0.1.") as server:
        await connected(f"ws://127.0.0.1.:{server.port}/")


async def test_a_host_that_isnt_found() -> None:
    class Nowhere(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        async def getnameinfo(self, *_: Any) -> Any:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(Nowhere())
    with pytest.raises(socket.gaierror) as caught:
        await trio_ws.serve(echo, 8765, host="name.example")
    assert caught.value.__notes__ == ["listening on name.example:8765"]


async def test_a_zone_is_told() -> None:
    Resolver((socket.AF_INET6, ("fe80::1234", 8765, 0, 1))).install()
    with pytest.raises(OSError, match=r"assign|support") as caught:
        await trio_ws.serve(echo, 8765, host="name.example")
    assert caught.value.__notes__ == ["listening on [fe80::1234%1]:8765"]
