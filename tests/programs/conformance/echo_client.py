"""Run each case of the Autobahn fuzzing server, echoing every message.

python echo_client.py URL AGENT exits with 1 if anything but the loss of a
connection ended a case; the verdict on the cases is the suite's.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

import trio

from trio_ws import ConnectionClosed, connect

# 9.* send messages of up to 16 MiB.
MAX_SIZE = 2**25
# Seconds; the suite gives up long before on a client that answers.
CASE_TIMEOUT = 120

logger = logging.getLogger(__name__)


async def case_count(url: str) -> int:
    async with connect(f"{url}/getCaseCount") as ws:
        count = await ws.recv()
    return int(count)


async def run_case(url: str, case: int, agent: str) -> None:
    uri = f"{url}/runCase?case={case}&agent={agent}"
    with suppress(ConnectionClosed):  # what the suite provokes is no failure here
        async with connect(uri, max_size=MAX_SIZE) as ws:
            async for message in ws:
                await ws.send(message)


async def main(url: str, agent: str) -> int:
    failed = False
    for case in range(1, await case_count(url) + 1):
        try:
            with trio.fail_after(CASE_TIMEOUT):
                await run_case(url, case, agent)
        except Exception:
            logger.exception("case number %d", case)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(trio.run(main, sys.argv[1], sys.argv[2]))
