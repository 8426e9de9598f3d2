"""Control-C at random moments of a busy server and its clients, in one process.

python tests/programs/faults/interrupts.py LIBRARY COUNT

Prints the figures of row 16, in JSON.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import trio

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.programs.rivals.adapters import LIBRARIES, Connection, Library, Options

AGAIN = 2.0  # seconds, after which the first was in vain


async def exchange(library: Library, start: Callable[[], None]) -> None:
    """Serve, and have three clients ask without end."""

    async def echo(ws: Connection) -> None:
        while True:
            message = await ws.recv()
            assert isinstance(message, bytes)
            await ws.send(message)

    async def ask(port: int) -> None:
        async with library.connect(port, Options()) as ws:
            while True:
                await ws.send(random.randbytes(random.choice((10, 70_000))))
                await ws.recv()

    async with trio.open_nursery() as nursery:
        port = await nursery.start(library.serve, echo, Options())
        start()  # trio's open_tcp_listeners() can leave a socket
        for _ in range(3):
            nursery.start_soon(ask, port)


def leaves_of(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves_of(each)]
    return [error]


def interrupted(library: Library, delay: float) -> tuple[float, bool]:
    """Return how long a run goes on after SIGINT, and whether that alone ended it."""
    over = threading.Event()
    sent = 0.0

    def interrupt() -> None:
        nonlocal sent
        wait = delay
        while not over.wait(wait):
            sent = sent or time.perf_counter()
            os.kill(os.getpid(), signal.SIGINT)
            wait = AGAIN

    thread = threading.Thread(target=interrupt, daemon=True)
    try:
        trio.run(exchange, library, thread.start)
    except BaseException as error:  # noqa: BLE001 - it is what is asked for
        took = time.perf_counter() - sent
        over.set()
        leaves = leaves_of(error)
        # Where it goes to a handler, clients may be told before they are cancelled.
        expected: tuple[type[BaseException], ...]
        expected = (KeyboardInterrupt, *library.closed)
        clean = all(isinstance(leaf, expected) for leaf in leaves) and any(
            isinstance(leaf, KeyboardInterrupt) for leaf in leaves
        )
        if not clean:
            traceback.print_exception(error)
        return took, clean
    raise AssertionError("it ended without being told to")


def main(library: Library, count: int) -> None:
    # A shell has background jobs ignore it, and so would trio.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    taken: list[float] = []
    others = 0
    complaints: list[object] = []
    sys.unraisablehook = lambda what: complaints.append(f"{what.object}: {what!r}")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(count):
            took, clean = interrupted(library, random.uniform(0.001, 0.06))
            taken.append(took)
            others += not clean
            gc.collect()
    print(*(str(warning.message) for warning in warned), *complaints, file=sys.stderr)
    taken.sort()
    figures = {
        "Control-C: the longest way out": taken[-1],
        "Control-C: other exceptions": others,
        "Control-C: warnings": len(warned) + len(complaints),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(LIBRARIES[sys.argv[1]](), int(sys.argv[2]))
