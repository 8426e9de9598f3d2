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
by_reset = pytest.param("reset", marks=needs_resets)


# Tests that go step by step, by wait_all_tasks_blocked(), have what one end of a pair
# has written be there for the other at the next turn of the loop. Over TCP, of which
# Windows makes its pairs, it comes when it comes.
_PROMPT = hasattr(socket, "AF_UNIX")
_LATER = "what a pair of sockets carries arrives later"

needs_prompt_sockets = pytest.mark.skipif(not _PROMPT, reason=_LATER)


def require_prompt_sockets() -> None:
    """Skip the test whose fixture asks: the same as the mark."""
    if not _PROMPT:
        pytest.skip(_LATER)
