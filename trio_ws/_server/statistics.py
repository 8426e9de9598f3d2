"""What a server's connections have carried and how they ended, in one place."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from .._endpoint.endpoint import Endpoint
from .._endpoint.statistics import ConnectionStatistics, statistics_of
from .._protocol.closing import OPEN
from .admission import Admission

# What goes on being true of a connection that has ended.
_TOTALS = (
    "messages_received",
    "messages_sent",
    "bytes_received",
    "bytes_sent",
    "broadcasts_skipped",
)

# What is true while it is open.
_WAITING = ("messages_waiting", "bytes_waiting", "bytes_unsent", "tasks_waiting_send")


@dataclasses.dataclass(frozen=True, slots=True)
class ServerStatistics:
    """What a server has done since it started, and what it does now.

    * ``connections``: that are open now; ``handshakes``: that are under way now.
    * ``places_taken``: of ``max_connections``, by handshakes that aren't refused and by
      connections until their handlers end, which may be long after they are closed.
    * ``accepted``: by the listeners, ``opened``: as WebSockets, since the start.
    * ``answered``: plain HTTP requests by ``process_request``, with a status below 400
      and to the end.
    * ``refused``: those that weren't opened, by why: ``"HTTP 401"`` for what a hook or
      a limit answered, ``"Unanswered"`` for what was closed without such an answer,
      since many others waited for theirs or TLS wasn't up, ``"Cancelled"`` for what the
      end of the server cut off, else the name of the exception, such as
      ``"InvalidOrigin"``, ``"OpenTimeoutError"`` or ``"SSLError"``. What was accepted
      is in one of these four: under way, opened, answered, refused.
    * ``closed``: those that a close frame ended, by who sent the first, and its code:
      ``("received", 1001)``, ``("sent", 1000)``. ``lost``: those that broke while they
      were open, by the name of the cause, such as ``"ConnectionResetError"``, or
      ``"TimeoutError"`` of the keepalive. Once its handler has ended, each that was
      opened is in one of these two, whatever the handler has seen and done.
    * ``messages_received``, ``messages_sent``, ``bytes_received``, ``bytes_sent``,
      ``broadcasts_skipped``: as of :class:`~trio_ws.ConnectionStatistics`, of all that
      are or were open.
    * ``messages_waiting``, ``bytes_waiting``, ``bytes_unsent``, ``tasks_waiting_send``:
      the same, of those that are open.
    """

    connections: int
    handshakes: int
    places_taken: int
    accepted: int
    opened: int
    answered: int
    refused: Mapping[str, int]
    closed: Mapping[tuple[Literal["received", "sent"], int], int]
    lost: Mapping[str, int]
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int
    broadcasts_skipped: int
    messages_waiting: int
    bytes_waiting: int
    bytes_unsent: int
    tasks_waiting_send: int


class Tally:
    """What a server counts."""

    def __init__(self) -> None:
        self.accepted = self.opened = self.answered = 0
        self.refused: Counter[str] = Counter()
        self._closed: Counter[tuple[Literal["received", "sent"], int]] = Counter()
        self._lost: Counter[str] = Counter()
        self._totals = dict.fromkeys(_TOTALS, 0)  # of those that have ended

    def ended(self, endpoint: Endpoint) -> None:
        """Count one that has ended."""
        engine = endpoint.engine
        if engine.rcvd is not None and engine.rcvd_then_sent is not False:
            self._closed["received", engine.rcvd.code] += 1
        elif engine.sent is None or endpoint.ending.broke:
            self._lost[type(engine.cause).__name__] += 1
        else:
            self._closed["sent", engine.sent.code] += 1
        self._add(self._totals, statistics_of(endpoint))

    def _add(self, sums: dict[str, int], one: ConnectionStatistics) -> None:
        for name in sums:
            sums[name] += getattr(one, name)

    def statistics(
        self, admission: Admission, endpoints: Iterable[Endpoint]
    ) -> ServerStatistics:
        """Add up what has ended and what is open."""
        totals, waiting = self._totals.copy(), dict.fromkeys(_WAITING, 0)
        connections = 0
        for endpoint in endpoints:
            one = statistics_of(endpoint)
            self._add(totals, one)
            if endpoint.engine.phase is OPEN:
                self._add(waiting, one)
                connections += 1
        return ServerStatistics(
            connections=connections,
            handshakes=admission.under_way,
            places_taken=admission.connections,
            accepted=self.accepted,
            opened=self.opened,
            answered=self.answered,
            refused=dict(self.refused),
            closed=dict(self._closed),
            lost=dict(self._lost),
            **totals,
            **waiting,
        )
