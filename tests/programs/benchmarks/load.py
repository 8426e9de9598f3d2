"""The load generator: a process of plain sockets, the same for every server.

The worker of a peer starts it and tells it, a line of JSON at a time, what to do;
it answers with a line. It stays the same whoever the server is, and it knows of
WebSocket only what it needs: a handshake, frames of one kind, what must come back.
"""

from __future__ import annotations

import base64
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .open_loop import LIMIT, OpenLoop

HOST = "127.0.0.1"
AT_ONCE = 64  # handshakes

REQUEST = (
    "GET / HTTP/1.1\r\n"
    f"Host: {HOST}\r\n"
    "Upgrade: websocket\r\n"
    "Connection: Upgrade\r\n"
    "Sec-WebSocket-Key: {key}\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "{more}\r\n"
)
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


# What the worker sees ------------------------------------------------------------


class Load:
    """The process, started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, what: str, **arguments: object) -> Any:
        """Have it done; return the answer. Waits: for a thread."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=Path(__file__).parents[3],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([what, arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load generator failed at {what!r}")
        return json.loads(line)


# Frames --------------------------------------------------------------------------


def client_frame(payload: bytes, *, opcode: int = 0x82) -> bytes:
    """Return a frame with a mask."""
    mask = os.urandom(4)
    size = len(payload)
    head = header(size, opcode, 0x80)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    masked = (int.from_bytes(payload) ^ key).to_bytes(size)
    return head + mask + masked


def server_frame(payload: bytes, *, opcode: int = 0x82) -> bytes:
    return header(len(payload), opcode, 0) + payload


def frames(size: int, masked: bool) -> tuple[bytes, bytes]:
    """Return a message and its echo, as they are on the wire."""
    payload = os.urandom(size)
    if not masked:  # nor framed
        return payload, payload
    return client_frame(payload), server_frame(payload)


def header(size: int, opcode: int, mask: int) -> bytes:
    if size < 126:
        return bytes([opcode, mask | size])
    if size < 1 << 16:
        return bytes([opcode, mask | 126]) + size.to_bytes(2)
    return bytes([opcode, mask | 127]) + size.to_bytes(8)


def spinning(poll: select.epoll) -> list[tuple[int, int]]:
    """Return what there is, once there is something; ask all the time."""
    end = time.perf_counter() + LIMIT
    while not (events := poll.poll(0)) and time.perf_counter() < end:
        pass
    return events


# What it does --------------------------------------------------------------------


class Clients:
    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.newest: list[socket.socket] = []
        self.window = 15  # bits, that the server allows

    def open(
        self, port: int, count: int, upgrade: bool = True, deflate: bool = False
    ) -> None:
        """Connect so many more, and shake hands."""
        start = len(self.sockets)
        while count > 0:
            new = [
                socket.create_connection((HOST, port), LIMIT)
                for _ in range(min(count, AT_ONCE))
            ]
            for sock in new:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                if upgrade:
                    key = base64.b64encode(os.urandom(16)).decode()
                    more = OFFER if deflate else ""
                    sock.sendall(REQUEST.format(key=key, more=more).encode())
            for sock in new:
                if upgrade:
                    self._read_response(sock, deflate)
            self.sockets += new
            count -= len(new)
        self.newest = self.sockets[start:]

    def _read_response(self, sock: socket.socket, deflate: bool) -> None:
        response = b""
        while not response.endswith(b"\r\n\r\n"):
            data = sock.recv(1)  # nothing of what follows
            assert data, response
            response += data
        assert response.startswith(b"HTTP/1.1 101 "), response
        assert deflate == (b"permessage-deflate" in response), response
        bits = re.search(rb"client_max_window_bits=(\d+)", response)
        self.window = int(bits[1]) if bits else 15

    def pin(self, core: int) -> None:
        os.sched_setaffinity(0, {core})

    def paced(self, rate: float, count: int, size: int, masked: bool) -> dict[str, Any]:
        """Send so many messages a second, whatever comes; return their latencies."""
        return OpenLoop(self.sockets, *frames(size, masked)).run(rate, count)

    def echo(
        self,
        count: int,
        size: int,
        masked: bool,
        busy: int | None = None,
        spins: bool = False,
    ) -> None:
        """Send messages and wait for their echoes: one under way a connection.

        ``busy`` says on how many connections; by default on all. One that spins does
        not wait, so that the server has nobody to wake.
        """
        sockets = self.sockets[:busy]
        frame, expected = frames(size, masked)
        by_fd = {sock.fileno(): sock for sock in sockets}
        parts: dict[int, bytes] = {}
        poll = select.epoll()
        for sock in sockets:
            sock.setblocking(False)
            poll.register(sock, select.EPOLLIN)
        to_send, to_come = count, count
        for sock in sockets[:count]:
            sock.send(frame)
            to_send -= 1
        while to_come:
            events = spinning(poll) if spins else poll.poll(LIMIT)
            assert events, "the server says nothing"
            for fd, _ in events:
                sock = by_fd[fd]
                data = sock.recv(65536)
                if data != expected:
                    assert data, "the server has closed"
                    data = parts.pop(fd, b"") + data
                    if len(data) < len(expected):
                        parts[fd] = data
                        continue
                    assert data == expected, "wrong data"
                to_come -= 1
                if to_send > 0:
                    to_send -= 1
                    sock.send(frame)
        poll.close()

    def read(self, count: int, size: int, masked: bool) -> None:
        """Read so many messages of zeros on each connection."""
        payload = bytes(size)
        expected = (server_frame(payload) if masked else payload) * count
        for sock in self.sockets:
            sock.settimeout(LIMIT)
            data = b""
            while len(data) < len(expected):
                more = sock.recv(len(expected) - len(data))
                assert more, "the server has closed"
                data += more
            assert data == expected, "wrong data"

    def deflated(self, text: str) -> None:
        """Send a compressed message on each new connection, read its echo."""
        for sock in self.newest:
            compress = zlib.compressobj(wbits=-self.window)
            data = compress.compress(text.encode())
            data += compress.flush(zlib.Z_SYNC_FLUSH)
            sock.sendall(client_frame(data.removesuffix(b"\0\0\xff\xff"), opcode=0xC1))
        for sock in self.newest:
            opcode, size = sock.recv(2, socket.MSG_WAITALL)
            assert opcode == 0xC1, "the server doesn't compress"
            if size == 126:
                size = int.from_bytes(sock.recv(2, socket.MSG_WAITALL))
            data = sock.recv(size, socket.MSG_WAITALL) + b"\0\0\xff\xff"
            data = zlib.decompressobj(wbits=-15).decompress(data)
            assert data.decode() == text, "wrong data"

    def flood(self, seconds: float, size: int) -> int:
        """Send messages of zeros as fast as the server takes them."""
        frames = client_frame(bytes(size)) * (1 + 65536 // size)
        sent = dict.fromkeys(self.sockets, 0)

        def step(sock: socket.socket) -> None:
            sent[sock] += sock.send(memoryview(frames)[sent[sock] % len(frames) :])

        self._while(seconds, select.EPOLLOUT, step)
        for sock in self.sockets:  # no torn frame
            sock.setblocking(True)
            sock.sendall(memoryview(frames)[sent[sock] % len(frames) :])
        return sum(sent.values()) // (len(frames) // (1 + 65536 // size))

    def drain(self, seconds: float, size: int) -> int:
        """Read what a server sends without end: messages of zeros."""
        frame = server_frame(bytes(size))
        frames = frame * (2 + 65536 // size)
        came = dict.fromkeys(self.sockets, 0)

        def step(sock: socket.socket) -> None:
            data = sock.recv(65536)
            start = came[sock] % len(frame)
            assert data == frames[start : start + len(data)], "wrong data"
            came[sock] += len(data)

        self._while(seconds, select.EPOLLIN, step)
        return sum(came.values()) // len(frame)

    def _while(
        self, seconds: float, event: int, step: Callable[[socket.socket], None]
    ) -> None:
        by_fd = {sock.fileno(): sock for sock in self.sockets}
        end = time.perf_counter() + seconds
        with select.epoll() as poll:
            for sock in self.sockets:
                sock.setblocking(False)
                poll.register(sock, event)
            while time.perf_counter() < end:
                for fd, _ in poll.poll(0.1):
                    step(by_fd[fd])

    def pieces(self, count: int, size: int, step: int) -> None:
        """Send a message in so many fragments, and all of it ``step`` bytes at once.

        Without a step as much at once as the socket takes. Read its echo.
        """
        payload = os.urandom(count * size)
        frames = bytearray()
        for number in range(count):
            opcode = 0x02 if number == 0 else 0
            fin = 0x80 if number == count - 1 else 0
            part = payload[number * size : (number + 1) * size]
            frames += client_frame(part, opcode=fin | opcode)
        sock = self.sockets[0]
        sock.setblocking(True)
        for start in range(0, len(frames), step or len(frames)):
            sock.sendall(frames[start : start + (step or len(frames))])
        expected = server_frame(payload)
        assert sock.recv(len(expected), socket.MSG_WAITALL) == expected, "wrong data"

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()


def main() -> None:
    clients = Clients()
    while line := sys.stdin.readline():
        what, arguments = json.loads(line)
        print(json.dumps(getattr(clients, what)(**arguments)), flush=True)


if __name__ == "__main__":
    main()
