"""Listening: TCP, Unix sockets, sockets that somebody else has opened."""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import trio

from .._endpoint.options import check_port, checked_host
from .._protocol.uri import host_port
from .._transports.network import current_network
from .._transports.sockets import is_abstract, unix_family
from .acceptor import AnyListener

# What trio's listeners use by default, too: as many as the system allows.
_BACKLOG = 0xFFFF

# So many ports, free in one family, are tried for all where any will do.
_FREE_PORTS = 20

# Where IPv6 is switched off, say, but /etc/hosts has ::1: another address may do.
_NO_SUCH_ADDRESS = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}

# The first descriptor that systemd passes on; see sd_listen_fds(3).
_LISTEN_FDS_START = 3

# What tells a file from one that replaces it.
Identity = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class ListenSpec:
    """Where a server listens: at a port, or with listeners that are there.

    Raises ValueError for arguments that contradict each other.
    """

    port: int | None = None
    host: str | None = None
    backlog: int | None = None
    reuse_port: bool = False
    listeners: Iterable[AnyListener | socket.socket] | None = None

    def __post_init__(self) -> None:
        if self.listeners is None:
            if self.port is None:
                raise ValueError("port: expected a port, or listeners; got neither")
            check_port(self.port, least=0)
            host = checked_host("host", self.host)
            if host and host.endswith(".") and host.split(".")[-2].isdigit():
                host = host.removesuffix(".")  # which getaddrinfo() knows with names
            object.__setattr__(self, "host", host)
            check_backlog(self.backlog)
            if self.reuse_port:
                _reuse_port_option()
            return
        object.__setattr__(self, "listeners", _taken(self.listeners))
        for name in ("port", "host", "backlog", "reuse_port"):
            value = getattr(self, name)
            if value is not None and value is not False:  # port 0 is one
                raise ValueError(f"listeners: expected no {name} with them")

    async def open(self) -> list[AnyListener]:
        """Return listeners that listen.

        Raises OSError. **Cancellation**: nothing is left open.
        """
        if self.listeners is not None:
            return [
                _of_socket(one) if isinstance(one, socket.socket) else one
                for one in self.listeners
            ]
        assert self.port is not None
        network = current_network()
        if network is not None:
            return [network.listen(self.host, self.port)]
        return [
            *await _open_tcp(self.port, self.host, self.backlog, self.reuse_port),
        ]


def _taken(listeners: Iterable[object]) -> Sequence[AnyListener | socket.socket]:
    """Take listeners out of what holds them, an iterator, too; check each."""
    if not isinstance(listeners, Iterable):
        raise TypeError(f"listeners: expected several, in a list; got {listeners!r}")
    taken: list[AnyListener | socket.socket] = []
    for one in listeners:
        if isinstance(one, socket.socket):
            _check_socket(one)
        elif not isinstance(one, trio.abc.Listener):
            raise TypeError(
                f"listeners: expected trio listeners or listening sockets; got {one!r}"
            )
        taken.append(one)
    if not taken:
        raise ValueError("listeners: expected at least one; got none")
    return taken


def _check_socket(sock: socket.socket) -> None:
    """Check what trio.SocketListener would, before any other is taken."""
    problem = None
    if sock.fileno() < 0:
        problem = "it is closed"
    elif sock.type != socket.SOCK_STREAM:
        problem = "it is of another type than SOCK_STREAM"
    else:
        with suppress(OSError):  # macOS doesn't tell
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                problem = "it doesn't listen"
    if problem is not None:
        raise ValueError(
            f"listeners: expected listening sockets; got {sock!r}: {problem}"
        )


def check_backlog(backlog: object) -> None:
    """Check an argument that is to be a backlog, or None."""
    if backlog is None:
        return
    if not isinstance(backlog, int) or isinstance(backlog, bool):
        raise TypeError(f"backlog: expected an int or None; got {backlog!r}")
    if backlog < 0:
        raise ValueError(f"backlog: expected at least 0; got {backlog}")


def _check_mode(mode: object) -> None:
    if mode is not None and (not isinstance(mode, int) or isinstance(mode, bool)):
        raise TypeError(f"mode: expected an int, such as 0o660, or None; got {mode!r}")


def _reuse_port_option() -> int:
    """Return SO_REUSEPORT; raise ValueError where there is none."""
    if sys.platform != "win32" and hasattr(socket, "SO_REUSEPORT"):
        return socket.SO_REUSEPORT
    raise ValueError(f"reuse_port: {sys.platform} has no SO_REUSEPORT")


async def _open_tcp(
    port: int, host: str | None, backlog: int | None, reuse_port: bool
) -> list[trio.SocketListener]:
    """Open listeners on all addresses of a host, with one port."""
    try:
        found = await trio.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        exc.add_note(f"listening on {host_port(host or 'all interfaces', port)}")
        raise
    addresses = list(dict.fromkeys((family, name) for family, *_, name in found))
    options = [socket.SO_REUSEADDR] if sys.platform != "win32" else []
    if reuse_port:
        options.append(_reuse_port_option())
    for last in (False,) * (_FREE_PORTS - 1) + (True,):
        with ExitStack() as stack:
            try:
                sockets = _bind_all(addresses, options, stack)
                for sock in sockets:
                    sock.listen(_BACKLOG if backlog is None else backlog)
                listeners = [_of_socket(sock) for sock in sockets]
            except OSError as exc:
                # A port that was free in one family needn't be so in another.
                if last or port != 0 or exc.errno != errno.EADDRINUSE:
                    raise
            else:
                stack.pop_all()
                return listeners
    raise AssertionError("the last one returns or raises")


def _bind_all(
    addresses: Sequence[tuple[int, Any]], options: list[int], stack: ExitStack
) -> list[socket.socket]:
    """Bind sockets to addresses, as far as there are such; port 0 is one for all."""
    sockets: list[socket.socket] = []
    errors: list[OSError] = []
    port = 0
    for family, name in addresses:
        host, given, *rest = name
        try:
            sock = _bind(family, (host, given or port, *rest), options)
        except OSError as exc:
            scope = rest[1:] and rest[1]  # the zone of an IPv6 address, as a number
            shown = f"{host}%{scope}" if scope else host
            exc.add_note(f"listening on {host_port(shown, given)}")
            if exc.errno not in _NO_SUCH_ADDRESS:
                raise
            errors.append(exc)
        else:
            sockets.append(stack.enter_context(sock))
            port = sock.getsockname()[1]
    if not sockets:
        raise errors[0]
    return sockets


def _bind(family: int, name: Any, options: list[int]) -> socket.socket:
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(name)
        stack.pop_all()
    return sock


async def open_unix(
    path: str, mode: int | None, backlog: int | None
) -> tuple[trio.SocketListener, Identity | None]:
    """Open a listener on a Unix socket; return what tells its file from another.

    An abstract name has no file, and nothing that tells it.

    A file that is there is replaced if it is a socket of this user's on which
    nobody listens, as a process that was killed leaves it. ``mode`` is that of
    the new file.

    Raises OSError: FileExistsError for any other file, EADDRINUSE for a socket
    in use. RuntimeError where there are no Unix sockets. **Cancellation**: nothing
    is left open.
    """
    family = unix_family("path")
    _check_mode(mode)
    check_backlog(backlog)
    if is_abstract(path) and mode is not None:
        raise ValueError("mode: expected none with an abstract name, which has no file")
    try:
        return await _open_unix(path, family, mode, backlog)
    except OSError as exc:
        exc.add_note(f"listening on {path!r}")
        raise


async def _open_unix(
    path: str, family: int, mode: int | None, backlog: int | None
) -> tuple[trio.SocketListener, Identity | None]:
    if not is_abstract(path):
        _remove_stale(path, family)
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.bind(path)
        try:
            if mode is not None:
                os.chmod(path, mode)  # before listen(): nobody can have connected
            sock.listen(_BACKLOG if backlog is None else backlog)
            known = None if is_abstract(path) else _identity(path)
            return trio.SocketListener(sock), known
        except BaseException:
            if not is_abstract(path):
                os.unlink(path)
            raise
    except BaseException:
        sock.close()
        raise


def _identity(path: str) -> Identity:
    """Return what tells the file at ``path`` from one that replaces it."""
    # Once our socket is closed, a replacement can be given the same inode.
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_mtime_ns


def remove_unix(path: str, known: Identity) -> None:
    """Remove the file of a socket, unless it has been replaced."""
    with suppress(OSError):
        if _identity(path) == known:
            os.unlink(path)


def _remove_stale(path: str, family: int) -> None:
    """Remove a socket that nobody uses; raise OSError for any other file."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    own = sys.platform != "win32" and status.st_uid == os.geteuid()
    if not own or not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(
            errno.EEXIST, "expected no file, or a socket of this user's", path
        )
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
    raise OSError(errno.EADDRINUSE, "expected nobody to listen on it", path)


def open_systemd_listeners() -> list[trio.SocketListener]:
    """Take over the sockets that systemd has opened for this process.

    Socket activation, sd_listen_fds(3): for ``serve(handler,
    listeners=open_systemd_listeners())``. The environment variables are
    removed, so that child processes don't take them for theirs.

    Raises RuntimeError if there are none, as on Windows, which has no systemd.
    """
    if os.name == "nt":
        raise RuntimeError(f"open_systemd_listeners: {sys.platform} has no systemd")
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal() or int(count) < 1:
        raise RuntimeError(
            f"expected sockets from systemd; got LISTEN_PID={pid!r}, "
            f"LISTEN_FDS={count!r} in process {os.getpid()}"
        )
    descriptors = range(_LISTEN_FDS_START, _LISTEN_FDS_START + int(count))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(fileno=fd)) for fd in descriptors]
        listeners = [_of_socket(sock) for sock in sockets]
        stack.pop_all()
    return listeners


def _of_socket(sock: socket.socket) -> trio.SocketListener:
    sock.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))
