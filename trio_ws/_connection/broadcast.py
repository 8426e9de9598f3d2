"""broadcast(): one message for many connections, without waiting for any."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from trio.lowlevel import enable_ki_protection

from .._endpoint.budget import check_run
from .._endpoint.messages import Data, encode_message
from .._protocol.frames.outbox import Encoded
from .connection import Connection


@enable_ki_protection
def broadcast(
    connections: Iterable[Connection],
    message: Data,
    *,
    text: bool | None = None,
    slow: Literal["skip", "close"] = "skip",
) -> list[Connection]:
    """Send a message to many connections at once.

    Never waits: a connection that ``write_limit`` bytes wait for already, or
    that is in the middle of a fragmented message, is left out or, with
    ``slow="close"``, failed with 1008. Returns those. Connections that aren't
    open are passed over.

    The frame is built once, and compressed once for all connections that have
    agreed on the same window. ``text`` is that of Connection.send().

    Raises TypeError for what isn't a message; an iterable is none. UnicodeError as
    send() does, ValueError for another ``slow``.
    """
    if slow not in ("skip", "close"):
        raise ValueError(f'slow: expected "skip" or "close"; got {slow!r}')
    budget = check_run(None, "broadcast")
    opcode, payload = encode_message(message, text)
    cache: dict[int, Encoded] = {}
    left_out: list[Connection] = []
    for connection in connections:
        try:
            writer = connection._writer
        except AttributeError:  # isinstance() of an abstract class costs more
            raise TypeError(
                f"connections: expected connections; got {connection!r}"
            ) from None
        if not writer.share(opcode, payload, cache, budget):
            left_out.append(connection)
            if slow == "close":
                writer.host.fail(1008, "reads too slowly", None)
    return left_out
