"""Export a server's statistics to Prometheus, on the port of the server itself."""

import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trio_ws import Request, Response, Server, ServerConnection, connect, open_server

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
    """Asks a server for its statistics whenever Prometheus asks for them."""

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
        for (frame, code), count in now.closed.items():
            closed.add_metric([frame, str(code)], count)
        lost = CounterMetricFamily("trio_ws_lost", "by cause", labels=["cause"])
        for cause, count in now.lost.items():
            lost.add_metric([cause], count)
        return [*metrics, refused, closed, lost]


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    registry = CollectorRegistry()

    def metrics(ws: ServerConnection, request: Request) -> Response | None:
        if request.path != "/metrics":
            return None
        body = generate_latest(registry)
        return ws.respond(200, body, content_type=CONTENT_TYPE_LATEST)

    async with open_server(
        echo, 0, host="127.0.0.1", process_request=metrics
    ) as server:
        registry.register(ServerCollector(server))
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("Hello!")
            await ws.recv()
            await show(server.port)
        await show(server.port)


async def show(port: int) -> None:
    """Ask as Prometheus does, and print what isn't zero."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = b"".join([chunk async for chunk in stream]).decode()
    for line in response.splitlines():
        if line.startswith("trio_ws_") and not line.endswith(" 0.0"):
            print(line)


trio.run(main)
