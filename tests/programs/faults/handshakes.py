"""Row 6: requests that are wrong, and what proxies make of them."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import trio

from tests.programs.faults.harness import OURS, Bound, Figures, Rows, Size, victim
from tests.programs.rivals.adapters import HOST
from tests.server.test_bad_requests import CASES

rows = Rows()

ROOT = Path(__file__).parents[3]
BEHIND = ("tests/interop/test_smuggling.py", "tests/interop/test_proxies.py")


async def answer(port: int, data: bytes) -> int:
    """Send a request; return the status, if all that came is one answer."""
    came = b""
    with trio.move_on_after(5):
        async with await trio.open_tcp_stream(HOST, port) as stream:
            try:
                await stream.send_all(data)
                async for part in stream:
                    came += part
            except trio.BrokenResourceError:
                pass
    answers = re.findall(rb"(?m)^HTTP/1\.1 (\d{3}) ", came)  # a text may say HTTP/1.1
    return int(answers[0]) if len(answers) == 1 else 0


async def behind_proxies() -> Figures:
    """Run the tests that have a proxy in front of the server."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        await trio.run_process(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *("-n", "2", "-m", "interop or not interop", f"--junitxml={report}"),
                *BEHIND,
            ],
            cwd=ROOT,
            env={**os.environ, "TRIO_WS_REQUIRE": ""},
            check=False,
            stdout=sys.stderr.fileno(),
        )
        (suite,) = ET.parse(report).getroot().iter("testsuite")
    count = {name: int(suite.get(name, 0)) for name in ("tests", "skipped")}
    bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    return {
        "exchanges behind proxies": count["tests"] - count["skipped"],
        "of these, not as they have to be": bad,
    }


@rows.add(
    "6",
    f"{len(CASES)} requests that are wrong, each in one way; and the tests behind "
    "nginx, HAProxy, Apache and Caddy, as far as they are installed, in which no byte "
    "of one request may count for another",
    Bound("get one answer", least=len(CASES)),
    Bound("of these, the right one", least=len(CASES)),
    Bound("exchanges behind proxies", least=1),
    Bound("of these, not as they have to be", 0),
    seconds=150,
)
async def wrong_requests(library: str, size: Size) -> Figures:
    async with victim(library, open_timeout=5) as server:
        answers = [(case, await answer(server.port, case.data)) for case in CASES]
    figures: Figures = {
        "get one answer": sum(status > 0 for _, status in answers),
        "of these, the right one": sum(case.status == got for case, got in answers),
    }
    if library == OURS and size is not Size.QUICK:
        figures |= await behind_proxies()
    return figures
