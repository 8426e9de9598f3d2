"""Connecting to Unix sockets."""

from __future__ import annotations

import socket

import trio

from .._connection.opener import Stage
from .._transports.sockets import unix_family

# Between two attempts to connect to a server whose backlog is full, in seconds.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.1


async def open_unix(path: str, stage: Stage) -> socket.socket:
    """Connect to a Unix socket; wait for a server that is busy.

    Raises OSError. **Cancellation**: nothing is left open.
    """
    stage.name = f"connecting to {path!r}"
    pause = _FIRST_PAUSE
    while True:
        await trio.lowlevel.checkpoint()
        sock = socket.socket(unix_family("path"), socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
        except BlockingIOError:
            # Linux connects at once or not at all: a backlog that is full has room
            # later, and nothing tells when (connect(2)).
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
        stage.name = f"connecting to {path!r}, whose backlog is full"
        await trio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
