"""Pairs of sockets, and what a peer does with one of them."""

from __future__ import annotations

import socket
import struct
import threading

import trio

from tests.peers.stream_peer import response_to


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    # What Nagle's rule holds back a reset would destroy.
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    return ours, theirs


def trio_stream(sock: socket.socket) -> trio.SocketStream:
    sock.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


def recv_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        chunk = sock.recv(65536)
        assert chunk, data
        data += chunk
    return data


def answer_in_thread(sock: socket.socket) -> None:
    """Be a server for the opening handshake, without a task."""

    def answer() -> None:
        sock.sendall(response_to(recv_until(sock, b"\r\n\r\n")))

    threading.Thread(target=answer).start()


def reset(sock: socket.socket) -> None:
    """Close a socket with a reset instead of the end of its stream."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
