"""The pages on migration: each name of the other library has its row, and no other.

A row says "the same" where trio_ws has the name, and of a parameter the default, too.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import trio_websocket
import websockets.asyncio.client
import websockets.asyncio.router
import websockets.asyncio.server
import websockets.exceptions
import websockets.frames
import websockets.trio.client
import websockets.trio.router
import websockets.trio.server

import trio_ws
from docs._ext.snippets import DOCS
from trio_ws._endpoint.elsewhere import CONNECTION, KEYWORDS, SERVER

ASYNCIO = (
    websockets.asyncio.client,
    websockets.asyncio.server,
    websockets.asyncio.router,
)
TRIO = (
    websockets.trio.client,
    websockets.trio.server,
    websockets.trio.router,
)


# What the libraries have


def parameters(*callables: Callable[..., Any]) -> set[str]:
    return {
        name
        for one in callables
        for name, parameter in inspect.signature(one).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    } - {"self", "args"}


def assigned(cls: type) -> set[str]:
    """The attributes that a class of the library's gives to its instances."""
    found = set()
    for base in cls.__mro__:
        if base.__module__.startswith(("websockets.", "trio_websocket.")):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
            found |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            }
    return found


def attributes(*classes: type) -> set[str]:
    found: set[str] = set()
    for cls in classes:
        found |= set(dir(cls)) | assigned(cls)
    return {name for name in found if not name.startswith("_")}


def of_methods(internal: Iterable[str], *classes: type) -> set[str]:
    """The parameters of methods, each as ``method(parameter)``."""
    found = set()
    for cls in classes:
        for name in attributes(cls) - set(internal):
            method = inspect.getattr_static(cls, name, None)
            if inspect.isfunction(method):
                found |= {f"{name}({one})" for one in parameters(method)}
    return found


def in_both(name: str) -> list[Any]:
    modules = (*ASYNCIO, *TRIO)
    return [getattr(module, name) for module in modules if hasattr(module, name)]


def of_websockets(internal: set[str]) -> dict[str, set[str]]:
    connections = in_both("ClientConnection") + in_both("ServerConnection")
    servers = in_both("Server")
    public = {name for module in (*ASYNCIO, *TRIO) for name in module.__all__}
    return {
        "Names": public,
        "Opening a connection": parameters(*in_both("connect"))
        | parameters(*in_both("unix_connect")),
        "Serving": parameters(*in_both("serve"), *in_both("unix_serve")),
        "Connections": attributes(*connections),
        "Parameters of a connection's methods": of_methods(internal, *connections),
        "Servers": attributes(*servers),
        "Parameters of a server's methods": of_methods(internal, *servers),
        "Parameters of functions": {
            f"{name}({one})"
            for name in ("broadcast", "basic_auth", "route", "unix_route")
            for function in in_both(name)
            for one in parameters(function)
        },
        "Exceptions": set(websockets.exceptions.__all__),
    }


def of_trio_websocket(internal: set[str]) -> dict[str, set[str]]:
    t = trio_websocket
    public = {
        name
        for name, value in vars(t).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    clients: list[Any] = [t.open_websocket, t.open_websocket_url, t.wrap_client_stream]
    clients += [t.connect_websocket, t.connect_websocket_url]
    details = {
        f"{kind.__name__}.{name}"
        for kind in (t.ConnectionClosed, t.ConnectionRejected, t.CloseReason)
        for name in attributes(kind) - set(dir(Exception))
    } | {f"Endpoint.{name}" for name in attributes(t.Endpoint)}
    return {
        "Names": public,
        "Opening a connection": parameters(*clients),
        "Serving": parameters(t.serve_websocket, t.wrap_server_stream),
        "WebSocketConnection": attributes(t.WebSocketConnection),
        "Parameters of its methods": of_methods(internal, t.WebSocketConnection),
        "WebSocketServer": attributes(t.WebSocketServer)
        | of_methods(internal, t.WebSocketServer),
        "WebSocketRequest": attributes(t.WebSocketRequest)
        | of_methods(internal, t.WebSocketRequest),
        "Exceptions and details": details,
    }


# What the pages say


def tables(page: str) -> dict[str, dict[str, str]]:
    """Return the cells by the title of the table and the names in the first one."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = {}
    for title, body in re.findall(
        r"^\.\. list-table:: (.+)\n((?:   .*\n|\n)*)", text, re.MULTILINE
    ):
        rows = re.findall(
            r"^   \* - (.*(?:\n {7}.*)*)\n     - (.*(?:\n {7}.*)*)", body, re.MULTILINE
        )
        cells = found.setdefault(title, {})
        for names, here in rows[1:]:  # the first is the header
            for name in re.findall(r"``(.+?)``", names):
                assert name not in cells, f"{title}: {name} has two rows"
                cells[name] = " ".join(here.split())
    return found


def internal_to(page: str) -> set[str]:
    """The names of which the page says that they are the library's own business."""
    return {
        name
        for cells in tables(page).values()
        for name, here in cells.items()
        if here.startswith("nothing: internal")
    }


PAGES = {"websockets.rst": of_websockets, "trio_websocket.rst": of_trio_websocket}
EXPECTED = {page: make(internal_to(page)) for page, make in PAGES.items()}
TABLES = [(page, title) for page, made in EXPECTED.items() for title in made]


@pytest.mark.parametrize(("page", "title"), TABLES)
def test_each_name_has_a_row_and_each_row_a_name(page: str, title: str) -> None:
    rows = set(tables(page)[title])
    expected = EXPECTED[page][title]
    assert rows - expected == set(), "rows that name nothing"
    assert expected - rows == set(), "names without a row"


@pytest.mark.parametrize("page", PAGES)
def test_each_table_is_compared(page: str) -> None:
    assert set(tables(page)) == set(EXPECTED[page])


# What a row says


CONNECTIONS = (trio_ws.ClientConnection, trio_ws.ServerConnection)


def defaults(*callables: Callable[..., Any]) -> dict[str, object]:
    return {
        name: parameter.default
        for one in callables
        for name, parameter in inspect.signature(one).parameters.items()
    }


HERE: dict[str, dict[str, object]] = {
    "Opening a connection": defaults(
        trio_ws.ClientOptions, trio_ws.unix_connect, trio_ws.connect
    ),
    "Serving": defaults(
        trio_ws.ServerOptions, trio_ws.unix_serve, trio_ws.serve, trio_ws.accept
    ),
}


def dir_of(*owners: Any) -> set[str]:
    """What instances have, also what __init__ sets; a nursery is annotated."""
    return {"request", "logger", "nursery"} | {
        name for owner in owners for name in dir(owner) if hasattr(owner, name)
    }


def has(title: str, name: str) -> bool:
    """Tell whether trio_ws has the name, where the table says "the same"."""
    method, _, parameter = name.removesuffix(")").partition("(")
    if title in HERE:
        return name in HERE[title]
    owners: tuple[Any, ...] = (trio_ws, trio_ws.Server, *CONNECTIONS)
    if title in ("Servers", "Parameters of a server's methods", "WebSocketServer"):
        owners = (trio_ws.Server,)
    elif "onnection" in title or title == "Parameters of its methods":
        owners = CONNECTIONS
    if not parameter:
        return name in dir_of(*owners)
    named = [getattr(owner, method, None) for owner in owners]
    return parameter in parameters(*filter(callable, named))


@pytest.mark.parametrize(("page", "title"), TABLES)
def test_what_is_the_same_is_there(page: str, title: str) -> None:
    for name, here in tables(page)[title].items():
        if here == "the same":
            assert has(title, name), name


def test_defaults_are_the_same() -> None:
    for title, names in {
        "Opening a connection": ("connect",),
        "Serving": ("serve",),
    }.items():
        theirs = defaults(*(one for name in names for one in in_both(name)))
        same = [
            n
            for n, here in tables("websockets.rst")[title].items()
            if here == "the same"
        ]
        assert same
        for name in same:
            if name in theirs:
                assert HERE[title][name] == theirs[name], name


HINTS = {
    "Opening a connection": (KEYWORDS, HERE["Opening a connection"]),
    "Serving": (KEYWORDS, HERE["Serving"]),
    "Connections": (CONNECTION, dir_of(*CONNECTIONS)),
    "WebSocketConnection": (CONNECTION, dir_of(*CONNECTIONS)),
    "WebSocketRequest": (CONNECTION, dir_of(*CONNECTIONS)),
    "Servers": (SERVER, dir_of(trio_ws.Server)),
    "WebSocketServer": (SERVER, dir_of(trio_ws.Server)),
}


@pytest.mark.parametrize("page", PAGES)
def test_who_writes_a_name_of_theirs_is_told_ours(page: str) -> None:
    for title, cells in tables(page).items():
        if title in HINTS:
            hints, here = HINTS[title]
            told = set(hints) | set(here)
            missing = {
                name
                for name, said in cells.items()
                if "(" not in name and not said.startswith("nothing")
            }
            assert missing - told == set(), title


def test_the_texts_of_a_close_are_the_same() -> None:
    theirs, ours = websockets.exceptions.ConnectionClosed, trio_ws.ConnectionClosed
    kinds: list[Any] = [websockets.frames.Close, trio_ws.Close]
    closes: list[Any] = [(c, r) for c in range(1000, 5000) for r in ("", "why")]
    for close in [None, *closes]:
        for sent in (None, (1000, "")):
            for first in (True, False):
                a, b = (
                    tuple(one and kind(*one) for one in (close, sent)) for kind in kinds
                )
                order = first if None not in (close, sent) else None
                assert str(theirs(a[0], a[1], order)) == str(ours(b[0], b[1], order))
