"""The benchmark measures what it says; how fast anything is, is not tested."""

from __future__ import annotations

import json
import re
import socket
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from math import inf
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import trio

import trio_ws
from tests.programs.benchmarks import (
    compare,
    deflate,
    open_loop,
    report,
    sampling,
    targets,
    texts,
    worker,
)
from tests.programs.benchmarks.load import Clients
from tests.programs.benchmarks.peers import (
    AIOHTTP,
    RAW_TRIO,
    TRIO_WS,
    End,
    Options,
    WrongData,
    at,
)
from tests.programs.benchmarks.peers.raw_trio import RawTrio
from tests.programs.benchmarks.peers.trio_ws import TrioWs
from tests.programs.benchmarks.run import Driver, Worker
from tests.programs.benchmarks.workloads import ROUND_TRIP, SATURATED, WORKLOADS
from tests.programs.progress import Progress
from trio_ws._transports.base import STEP_SIZE
from trio_ws._transports.sockets import SocketTransport

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Any]]:
    """What two small workloads give, in processes as always."""
    progress = Progress(1, "workloads")
    driver = Driver([RAW_TRIO, TRIO_WS], rounds=2, seconds=0.001, progress=progress)
    try:
        found: dict[str, Any] = {ROUND_TRIP: {}, SATURATED: {}}
        for workload in WORKLOADS:
            if workload.group in found and not workload.case.endswith("iB"):
                found[workload.group][workload.case] = driver.measure(workload)
        assert driver.failures == []
        yield {
            "about": report.about(driver.about, 2) | {"minutes": 0},
            "results": found,
        }
    finally:
        driver.close()


def test_each_peer_measures_each_round(results: dict[str, Any]) -> None:
    for group, case in (ROUND_TRIP, "32 B"), (SATURATED, "32 connections, 64 B"):
        found = results["results"][group][case]
        assert list(found) == [RAW_TRIO, TRIO_WS]
        for times in found.values():
            assert times["count"] >= 1
            assert [value > 0 for value in times["cpu"]] == [True, True]
            assert [value > 0 for value in times["wall"]] == [True, True]


def test_the_report_has_all_of_it(results: dict[str, Any]) -> None:
    text = report.markdown(json.loads(json.dumps(results)))
    assert re.search(rf"^\| {TRIO_WS} \| [\d.,]+ \([\d.,]+\) / [\d.,]+ \|$", text, re.M)
    assert re.search(rf"round trip 32 B / {RAW_TRIO} \| at most 0.8 \| [\d.]+ \|", text)
    assert "round trip 1 KiB" not in text
    assert re.search(r"Not measured: \d+\.", text)
    picture = ElementTree.fromstring(report.picture(results, ROUND_TRIP, "32 B"))
    labels = [element.text for element in picture.iter() if element.text]
    assert {TRIO_WS, RAW_TRIO} <= set(labels)


def test_a_library_can_be_taken_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "trio_ws.py").write_text("raise ImportError('the one in the folder')")
    worker = Worker(at(TRIO_WS, tmp_path))
    try:
        assert worker.greeting == {"missing": "the one in the folder"}
    finally:
        worker.kill()


def test_ratios_of_two_revisions() -> None:
    now, before = [3.0, 2.0, 4.0], [2.0, 4.0, 2.0]
    assert compare.row("case", now, before) == ["case", "2.00", "2.00", "1.00", "1.50"]


def test_tails_are_compared_at_rates_that_both_carry() -> None:
    group, case = "latency, 100 connections", "10,000/s"
    fast: dict[str, list[float]] = {open_loop.STRETCHES: [200.0], "backlog": [False]}
    slow: dict[str, list[float]] = {open_loop.STRETCHES: [400.0], "backlog": [False]}
    lost: dict[str, list[float]] = {open_loop.STRETCHES: [9000.0], "backlog": [True]}

    def measured(ours: Any, theirs: Any) -> float:
        results = {"results": {group: {case: {TRIO_WS: ours, AIOHTTP: theirs}}}}
        return targets.tail(group, case, AIOHTTP)(results)

    assert measured(fast, slow) == 0.5
    assert measured(lost, slow) == inf
    with pytest.raises(targets.Missing):
        measured(fast, lost)
    with pytest.raises(targets.Missing):
        targets.tail(group, case, AIOHTTP)({"results": {}})


class Liar(TrioWs):
    def echo_server(self, options: Options) -> AbstractAsyncContextManager[int]:
        async def lie(end: End) -> None:
            await end.recv()
            await end.send(b"trutH")

        return self.server(lie, options)


async def test_a_wrong_byte_is_a_failure() -> None:
    async with Liar().round_trips(Options(5), [b"truth"]) as drive:
        with pytest.raises(WrongData):
            await drive(1)


@pytest.mark.parametrize("from_client", [True, False])
async def test_one_way_each_way(from_client: bool) -> None:
    peer = TrioWs()
    async with peer.one_way(Options(5), b"truth", from_client=from_client) as drive:
        await drive(3)
        await drive(2)


def test_a_target_is_met_or_not_or_not_measured() -> None:
    def missing(results: targets.Results) -> float:
        raise targets.Missing

    most = targets.Target("x", 0.5, lambda results: 0.5)
    assert most.row({}) == ["x", "at most 0.5", "0.50", "met"]
    least = targets.Target("x", 0.5, lambda results: 0.4, at_least=True)
    assert least.row({}) == ["x", "at least 0.5", "0.40", "**not met**"]
    assert targets.Target("x", 0.5, missing).row({})[2:] == ["", ""]


# The open loop


def test_the_schedule_is_made_beforehand() -> None:
    due, where = open_loop.schedule(1000.0, 5000, 3)
    assert (due, where) == open_loop.schedule(1000.0, 5000, 3)
    assert due == sorted(due)
    assert 4 < due[-1] < 6
    assert set(where) == {0, 1, 2}


@pytest.mark.parametrize("upgrade", [True, False])
async def test_messages_go_when_they_are_due(upgrade: bool) -> None:
    peer = TrioWs() if upgrade else RawTrio()
    clients = Clients()
    async with peer.echo_server(Options(64)) as port:
        await trio.to_thread.run_sync(clients.open, port, 3, upgrade)
        found = await trio.to_thread.run_sync(clients.paced, 1e5, 200, 64, upgrade)
        clients.close()
    assert 0 < found["p50"] <= found["p90"] <= found["p99"] <= found["p99.9"]
    assert found["carried"] >= 0
    assert found["late"] >= 0


def paced_by(
    answer: Callable[[socket.socket], None], rate: float, count: int
) -> dict[str, Any]:
    """Run the open loop on one connection, beside a thread that answers."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as executor:
        answering = executor.submit(answer, theirs)
        try:
            return open_loop.OpenLoop([ours], b"ping", b"pong").run(rate, count)
        finally:
            ours.close()
            answering.result()


def test_who_lets_messages_pile_up_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_loop, "MOST_UNDER_WAY", 1e-3)

    def answer(theirs: socket.socket) -> None:
        # None before there are too many; then some in two pieces.
        assert theirs.recv(4 * 11, socket.MSG_WAITALL) == b"ping" * 11
        theirs.sendall(b"pongpo")
        theirs.sendall(b"ng" + b"pong" * 9)
        while theirs.recv(4, socket.MSG_WAITALL):
            theirs.sendall(b"pong")

    found = paced_by(answer, rate=1e4, count=1000)
    assert found["backlog"] is True


def test_a_wrong_echo_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="wrong data"):
        paced_by(lambda theirs: theirs.sendall(theirs.recv(4)), rate=1e4, count=1)


def test_latency_in_the_report() -> None:
    times: dict[str, list[float]] = {
        name: [float(number)] for number, name in enumerate(open_loop.PERCENTILES, 1)
    } | {
        open_loop.STRETCHES: [2.5],
        "late": [5],
        "carried": [9000],
        "backlog": [False],
        "pinned": [True],
    }
    found = {TRIO_WS: times, RAW_TRIO: times | {"backlog": [True]}}
    table = report.latency("latency, 100 connections", {"10,000/s": found})
    assert table.rows == [
        [TRIO_WS, "1.00 / 2.00 / 3.00 (2.50) / 4.00"],
        [RAW_TRIO, "a backlog grows: 9,000/s"],
    ]
    assert "each on a core of its own" in table.note
    lost = {RAW_TRIO: times | {"pinned": [False], "backlog": [True]}}
    table = report.latency("latency, 100 connections", {"10,000/s": lost})
    assert "not pinned" in table.note


# Compression


def test_how_libraries_compress_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(compressobj=zlib.compressobj)
    monkeypatch.setattr(worker, "MADE", [])
    assert worker.settings() == {}
    worker.watch(module, "zlib", 6)
    for arguments in {"wbits": 15}, {"wbits": -9, "memLevel": 5}, {"wbits": -12}:
        assert module.compressobj(**arguments).compress(b"x") is not None
    module.compressobj(1, zlib.DEFLATED, -12)
    assert worker.settings() == {
        "deflate": "zlib level 6, window 512 B, memLevel 5; "
        "zlib level 6, window 4 KiB, memLevel 8; "
        "zlib level 1, window 4 KiB, memLevel 8"
    }


def test_how_libraries_compress_is_shown() -> None:
    found = {
        TRIO_WS: {"cpu": [1.0], "wall": [1.0], "deflate": "zlib level 6, memLevel 5"},
        RAW_TRIO: {"cpu": [2.0], "wall": [2.0]},
    }
    cases = {"1 KiB": found}
    table = report.timed("compressed JSON", cases, True)
    assert table.head == ["", "1 KiB", "compresses with"]
    assert table.rows == [
        [TRIO_WS, "1.00", "zlib level 6, memLevel 5"],
        [RAW_TRIO, "2.00", ""],
    ]
    picture = report.picture(
        {"results": {"compressed JSON": cases}}, "compressed JSON", "1 KiB"
    )
    assert "1.00, zlib level 6<" in picture


@pytest.mark.parametrize("kind", texts.TEXTS)
def test_texts_are_the_same_each_time(kind: str) -> None:
    made, again = (texts.TEXTS[kind](5) for _ in range(2))
    assert made == again
    assert len(set(made)) == 5


def test_codecs_are_measured() -> None:
    message = b"0123456789abcdef" * 100
    found = deflate.work(deflate.CODECS["zlib"], [message] * 3, rounds=2)
    assert 0 < found.ratio < 0.1
    assert found.compress > 0 < found.decompress


def test_codecs_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = deflate.Codec("tests.no_such_codec", 1)
    monkeypatch.setitem(deflate.CODECS, "missing", missing)
    deflate.print_codecs(count=2, rounds=1)
    printed = capsys.readouterr().out
    assert len(re.findall(r"^\w+ +of +\d+ bytes zlib ", printed, re.M)) == 4
    assert "missing" not in printed


# The profiler


def test_whose_a_line_is() -> None:
    assert sampling.owner_of(trio_ws.__file__, 1) == "trio_ws"
    assert sampling.owner_of(__file__, 1) == "the benchmark"
    assert sampling.owner_of(pytest.__file__, 1) == "pytest"
    assert sampling.owner_of(re.__file__, 1) is None


def test_system_calls_are_told_apart() -> None:
    lines: dict[str, tuple[str, int]] = {}

    def profile(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and isinstance(function.__self__, socket.socket):
            lines[function.__name__] = frame.f_code.co_filename, frame.f_lineno

    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = SocketTransport(ours)
        theirs.send(b"read")
        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            transport.write([b"one"])
            transport.write([bytes(STEP_SIZE), b"another"])
            transport.read(2)
            transport.read_into(memoryview(bytearray(2)))
            transport.shutdown()
        finally:
            sys.setprofile(before)
    for name in ("send", "sendmsg", "recv", "recv_into", "shutdown"):
        assert sampling.owner_of(*lines[name]) == "system calls"


# The page of the documentation


def test_what_the_page_shows_was_measured() -> None:
    text = (ROOT / "docs/performance.rst").read_text(encoding="utf-8")
    measured = json.loads((ROOT / "docs/performance.json").read_text(encoding="utf-8"))
    tables = report.tables(measured, brief=True)
    shown = re.findall(r"^\.\. measured:: (.+)\n(?:   :pictures: (.+))?", text, re.M)
    assert len(shown) > 10
    for name, cases in shown:
        assert name == "about" or tables[name].rows
        for case in filter(None, cases.split("; ")):
            ElementTree.fromstring(report.picture(measured, name, case))
