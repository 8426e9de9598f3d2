"""What a system may lack: marks for the tests that need it.

A mark asks the system whether it has a thing, and not for its name, where that can be
asked. Where all is required (see conftest.py), what is lacking fails.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.peers.sockets import reset, tcp_pair

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")

needs_posix = pytest.mark.skipif(os.name != "posix", reason="asks a POSIX system")

needs_unix_sockets = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="Unix sockets are absent"
)

needs_reuse_port = pytest.mark.skipif(
    not hasattr(socket, "SO_REUSEPORT"), reason="SO_REUSEPORT is absent"
)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork() is absent")

needs_limits = pytest.mark.skipif(
    importlib.util.find_spec("resource") is None, reason="setrlimit() is absent"
)

needs_proc = pytest.mark.skipif(
    os.name != "posix" or not Path("/proc/self/fd").exists(), reason="/proc is absent"
)


@cache
def tells_of_resets() -> bool:
    """Whether a reset is one to who reads; Wine makes it an end of stream."""
    ours, theirs = tcp_pair()
    with ours:
        reset(theirs)
        try:
            ours.recv(1)
        except ConnectionResetError:
            return True
    return False


needs_resets = pytest.mark.skipif(
    not tells_of_resets(), reason="a reset looks like an end of stream"
)


@cache
def fills_up() -> bool:
    """Whether a socket takes a part of what has no room; Windows takes all or none."""
    ours, theirs = tcp_pair()
    with ours, theirs:
        ours.setblocking(False)
        size = 2**26
        return ours.send(bytes(size)) < size


needs_partial_writes = pytest.mark.skipif(
    not fills_up(), reason="a socket takes all that it is given at once"
)
