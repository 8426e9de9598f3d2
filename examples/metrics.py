"""Export a server's statistics to Prometheus, on a port of their own.

That port is for those who may see them, here this machine alone. It answers when the
server is full, too, and where the server's own port expects the PROXY protocol.
"""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trio_ws import Request, Response, Server, ServerConnection, connect, open_server

CACHED = 1  # seconds; to ask a server takes some microseconds for each connection

GAUGES = [
    "connections",
    "handshakes",
    "places_taken",
    "messages_waiting",
    "bytes_waiting",
    "bytes_unsent",
    "tasks_waiting_send",
]
COUNTERS = [
    "accepted",
    "opened",
    "answered",
    "messages_received",
    "messages_sent",
    "bytes_received",
    "bytes_sent",
    "broadcasts_skipped",
]


class ServerCollector(Collector):
    """Asks a server for its statistics whenever prometheus_client asks for them."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> list[Metric]:
        """Return them in the form of prometheus_client."""
        now = self._server.statistics()
        metrics: list[Metric] = []
        for name in GAUGES:
            metrics.append(
                GaugeMetricFamily(f"trio_ws_{name}", name, value=getattr(now, name))
            )
        for name in COUNTERS:
            metrics.append(
                CounterMetricFamily(f"trio_ws_{name}", name, value=getattr(now, name))
            )
        refused = CounterMetricFamily("trio_ws_refused", "by reason", labels=["reason"])
        for reason, count in now.refused.items():
            refused.add_metric([reason], count)
        closed = CounterMetricFamily(
            "trio_ws_closed", "by who closed, and the code", labels=["frame", "code"]
        )
        by_label: Counter[tuple[str, str]] = Counter()
        for (frame, code), count in now.closed.items():
            by_label[frame, code_label(code)] += count
        for labels, count in by_label.items():
            closed.add_metric(labels, count)
        lost = CounterMetricFamily("trio_ws_lost", "by cause", labels=["cause"])
        for cause, count in now.lost.items():
            lost.add_metric([cause], count)
        return [*metrics, refused, closed, lost]


def code_label(code: int) -> str:
    """Return one label for all of a kind that a client can choose 1,000 codes of."""
    return f"{code // 1000}xxx" if code >= 3000 else str(code)


@asynccontextmanager
async def serve_metrics(server: Server, port: int) -> AsyncGenerator[Server, None]:
    """Answer GET /metrics while a block runs."""
    registry = CollectorRegistry()
    registry.register(ServerCollector(server))
    body, stale = b"", trio.current_time()

    def answer(ws: ServerConnection, request: Request) -> Response:
        nonlocal body, stale
        if request.path != "/metrics":
            return ws.respond(404, "Not found.\n")
        if trio.current_time() >= stale:
            body, stale = generate_latest(registry), trio.current_time() + CACHED
        return ws.respond(200, body, content_type=CONTENT_TYPE_LATEST)

    # Nothing becomes a WebSocket there.
    async with open_server(echo, port, host="127.0.0.1", process_request=answer) as own:
        yield own


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with (
        open_server(echo, 0, host="127.0.0.1") as server,
        serve_metrics(server, 0) as metrics,
    ):
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri) as ws:
            await ws.send("Hello!")
            await ws.recv()
        async with connect(uri):
            await show(metrics.port)


async def show(port: int) -> None:
    """Ask as Prometheus does, and print what isn't zero."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = b"".join([chunk async for chunk in stream]).decode()
    for line in response.splitlines():
        if line.startswith("trio_ws_") and not line.endswith(" 0.0"):
            print(line)


if __name__ == "__main__":
    trio.run(main)
