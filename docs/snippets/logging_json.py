import json
import logging

import trio

from trio_ws import ServerConnection, connect, open_server


class JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = vars(record)
        ws: ServerConnection | None = fields.get("websocket")
        line = {
            "level": record.levelname,
            "shop": fields.get("shop"),
            "connection": fields.get("connection_id"),
            "path": ws and ws.request.path,
            "message": record.getMessage(),
        }
        return json.dumps(line, default=str)


async def handler(ws: ServerConnection) -> None:
    ws.logger.info("an order: %s", await ws.recv())


async def main() -> None:
    output = logging.StreamHandler()
    output.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[output])
    logger = logging.LoggerAdapter(logging.getLogger("shop"), {"shop": "tea"})
    async with open_server(handler, 0, host="127.0.0.1", logger=logger) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/orders") as ws:
            await ws.send("green, 100 g")
            await ws.wait_closed()


trio.run(main)
