"""Closing in a hurry: what is said, heard and thrown away without waiting (R11).

None of this may stop the loop for long, whatever the peer sends: it is done where
connections are cancelled, often many at once.
"""

from __future__ import annotations

from time import perf_counter

import trio

from .._protocol.closing import DEAF, FINAL
from .._protocol.engine import Engine
from .._transports.base import Transport
from .budget import current_budget
from .reader import Reader
from .writer import BROKEN, Writer

# A stream of the user's may need turns of the loop, though no time, to write.
_TURNS = 16

# Reads, to discard: as much as a system's buffer holds.
_LAST_READS = 64

# Of a peer that can be told nothing, more is heard than any buffer holds by default.
_HEARD_OUT = 256


async def take_leave(
    engine: Engine, reader: Reader, writer: Writer, transport: Transport
) -> None:
    """Write what goes without waiting, hear what came, end our stream.

    **Cancellation**: none.
    """
    writer.write_some()
    for _ in range(_TURNS):
        if writer.flushed or writer.state is BROKEN:
            break
        await trio.lowlevel.cancel_shielded_checkpoint()
    hear(engine, reader)
    if writer.flushed:
        transport.shutdown()


def hear(engine: Engine, reader: Reader) -> None:
    """Take in what the peer has said already: a close frame of its own, perhaps.

    No more than is fair: behind a flood nobody looks for it.
    """
    budget = current_budget()
    start = perf_counter()
    while engine.phase not in DEAF:
        if not reader.read_now() or perf_counter() - start > budget.seconds:
            break


def hear_out(engine: Engine, reader: Reader) -> None:
    """Take in what came before an error of writing: all that has room (R2, R10).

    What is left of it then waits for who receives.
    """
    for _ in range(_HEARD_OUT):
        if engine.phase in FINAL or not reader.read_now() or engine.decoder.room < 0:
            break


async def discard(reader: Reader) -> None:
    """Throw away what is unread, for which the engine is deaf. **Cancellation**: none.

    Closing a socket with bytes unread sends a reset, which destroys what was said.
    """
    budget = current_budget()
    with trio.CancelScope(shield=True):
        for _ in range(_LAST_READS):
            if not reader.read_now():
                break
            if budget.spend():
                await budget.yield_()
