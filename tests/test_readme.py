"""What README.md claims, compared with what is installed and what was measured."""

from __future__ import annotations

import inspect
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import aiohttp.web
import pytest
import trio_websocket
import websockets.asyncio.client
import websockets.asyncio.connection
import websockets.asyncio.server
import websockets.trio.client
import websockets.trio.connection
import websockets.trio.server

import trio_ws
import trio_ws.testing
from tests.programs.benchmarks import report
from tests.programs.benchmarks.peers import (
    RAW_TRIO,
    TRIO_WEBSOCKET,
    TRIO_WS,
    WEBSOCKETS_TRIO,
)
from tests.programs.rivals import endings, load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RIVALS = (ROOT / "docs/rivals_table.rst").read_text(encoding="utf-8")
MEASURED = json.loads((ROOT / "docs/performance.json").read_text(encoding="utf-8"))


# The table of features

LIBRARIES: dict[str, list[Any]] = {
    "trio_ws": [trio_ws, trio_ws.testing],
    "websockets.trio": [
        websockets.trio.client,
        websockets.trio.server,
        websockets.trio.connection,
    ],
    "websockets.asyncio": [
        websockets.asyncio.client,
        websockets.asyncio.server,
        websockets.asyncio.connection,
    ],
    "trio-websocket": [trio_websocket],
    "aiohttp": [aiohttp, aiohttp.web],
}


def things(modules: list[ModuleType]) -> dict[str, Any]:
    """The public functions, classes and methods of a library, by name."""
    found: dict[str, Any] = {}
    for module in modules:
        public = getattr(module, "__all__", [n for n in dir(module) if n[0] != "_"])
        for name in public:
            found[name] = thing = getattr(module, name)
            if inspect.isclass(thing):
                members = inspect.getmembers(thing)
                found |= {f"{name}.{n}": m for n, m in members if n[0] != "_"}
                if hasattr(thing, "__aiter__"):
                    found[f"{name}.__aiter__"] = thing.__aiter__
    return found


def parameters(thing: object) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(thing).parameters) if callable(thing) else {}
    except ValueError:  # some that are built in have none
        return {}


THINGS = {name: things(modules) for name, modules in LIBRARIES.items()}
OPTIONS = {
    name: {key: p for thing in found.values() for key, p in parameters(thing).items()}
    for name, found in THINGS.items()
}


def option(*names: str) -> Callable[[str], bool]:
    """Whether some function or class of the library takes one of these."""
    return lambda library: bool(set(names) & set(OPTIONS[library]))


def name(pattern: str) -> Callable[[str], bool]:
    """Whether the library has a public name that matches."""
    return lambda library: any(re.fullmatch(pattern, one) for one in THINGS[library])


def web(library: str) -> bool:
    """Whether it has an application to which handlers of paths are added."""
    return "Application.router" in THINGS[library]


def keepalive(library: str) -> bool:
    defaults = (
        OPTIONS[library][one].default
        for one in ("ping_interval", "heartbeat")
        if one in OPTIONS[library]
    )
    return any(value is not None for value in defaults)


def never_waits(library: str) -> bool:
    broadcast = THINGS[library].get("broadcast")
    return broadcast is not None and not inspect.iscoroutinefunction(broadcast)


FEATURES: dict[str, Callable[[str], bool]] = {
    "Compression (RFC 7692)": option("compression", "compress"),
    "Keepalive, by default": keepalive,
    "Client that reconnects": name(r"(re)?connect\.__aiter__"),
    "Client goes through proxies": option("proxy"),
    "A message piece by piece, as it comes": name(r".*\.recv_streaming"),
    "One call sends to many, and never waits": never_waits,
    "HTTP on the same port": lambda one: option("process_request")(one) or web(one),
    "A web framework around it": web,
    "Limits of connections: in all, of an address": option("max_connections_per_ip"),
    "PROXY protocol": option("proxy_protocol"),
    "Figures of connections and of the server": name(r"Server\.statistics"),
    "Network in memory, for tests": name("MemoryNetwork"),
}


def table() -> list[list[str]]:
    lines = re.findall(r"^\| (.*) \|$", README, re.M)
    return [line.strip("| ").split(" | ") for line in lines]


def test_the_columns_and_rows_are_those_compared() -> None:
    head, loops, *rows = table()
    assert head == list(LIBRARIES)
    assert loops[0] == "Event loop"
    assert [row[0] for row in rows] == list(FEATURES)


@pytest.mark.parametrize("feature", FEATURES)
def test_each_cell_is_true(feature: str) -> None:
    said = next(cells for what, *cells in table() if what == feature)
    has = FEATURES[feature]
    assert said == ["yes" if has(library) else "no" for library in LIBRARIES]


RECEIVE: list[Any] = [
    trio_ws.Connection.recv,
    websockets.trio.connection.Connection.recv,
    websockets.asyncio.connection.Connection.recv,
    trio_websocket.WebSocketConnection.get_message,
    aiohttp.ClientWebSocketResponse.receive,
]


def test_the_loops_of_the_table() -> None:
    """By what the module imports in which a connection receives."""
    loops = [
        [
            name
            for name in ("trio", "asyncio")
            if name in inspect.unwrap(receive).__globals__
        ]
        for receive in RECEIVE
    ]
    assert [[said] for said in table()[1][1:]] == loops


# The lines of evidence


def test_the_scenarios_that_pass() -> None:
    rows = re.findall(r"^   \* - (.*)\n((?:     -.*\n)+)", RIVALS, re.M)
    cells = [[key, *re.findall(r"- (.*)", rest)] for key, rest in rows]
    scenarios = {**load.scenarios, **endings.scenarios}
    assert {key: title for key, title, *_ in cells} == {
        key: scenario.title for key, scenario in scenarios.items()
    }
    passed = [
        sum(not row[column].startswith("**") for row in cells) for column in (2, 3, 4)
    ]
    said = re.search(
        r"Of (\d+) scenarios.*?trio_ws passes (\d+), websockets\.trio (\d+) and"
        r" trio-websocket (\d+)",
        README,
        re.S,
    )
    assert said
    assert list(map(int, said.groups())) == [len(cells), *passed]


def test_the_number_of_conformance_cases() -> None:
    expected = ROOT / "tests/programs/conformance/expected.json"
    count = json.loads(expected.read_text(encoding="utf-8"))["count"]
    assert f"All {count} cases" in README


def test_what_is_said_of_speed() -> None:
    measured = MEASURED["results"]["round trip"]["32 B"]
    cpu = {peer: statistics.median(times["cpu"]) for peer, times in measured.items()}
    assert cpu[TRIO_WS] < cpu[RAW_TRIO]
    assert cpu[TRIO_WS] < min(cpu[WEBSOCKETS_TRIO], cpu[TRIO_WEBSOCKET]) / 3


def test_the_picture_is_of_what_was_measured() -> None:
    drawn = (ROOT / "docs/speed.svg").read_text(encoding="utf-8")
    assert drawn == report.summary(MEASURED), (
        "python tests/programs/benchmarks/run.py --report docs/performance.json"
        " --summary docs/speed.svg draws it anew"
    )


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    files = [link for link in links if not link.startswith("https://")]
    assert len(files) > 5
    assert [link for link in files if not (ROOT / link).exists()] == []


def test_its_extras_exist() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    assert set(re.findall(r'"\.\[(\w+)\]"', README)) <= set(extras)
