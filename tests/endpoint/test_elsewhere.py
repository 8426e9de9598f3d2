"""Who writes what another library has is told what there is here."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio

import trio_ws
from tests.handlers import echo
from trio_ws import (
    ClientConnection,
    ConnectionClosed,
    Server,
    ServerConnection,
    open_server,
    serve,
)
from trio_ws._endpoint.elsewhere import CLOSED, CONNECTION, KEYWORDS, SERVER
from trio_ws.testing import open_pair

KINDS: list[tuple[type, dict[str, str]]] = [
    (ClientConnection, CONNECTION),
    (ServerConnection, CONNECTION),
    (Server, SERVER),
    (ConnectionClosed, CLOSED),
]


@pytest.mark.parametrize("kind", [ClientConnection, ServerConnection])
async def test_an_attribute_of_others(kind: type, autojump_clock: object) -> None:
    async with open_pair() as ends:
        ws: Any = ends[kind is ServerConnection]
        with pytest.raises(AttributeError) as caught:
            ws.send_message("hello")
        assert str(caught.value) == (
            f"'{kind.__name__}' object has no attribute 'send_message'; see send()"
        )
        assert (caught.value.name, caught.value.obj) == ("send_message", ws)
        with pytest.raises(AttributeError, match=r"'close'; see aclose\(\)$"):
            await ws.close()
        # What nobody has is as ever.
        with pytest.raises(AttributeError, match=r"'nothing'$"):
            ws.nothing  # noqa: B018


async def test_they_are_no_attributes() -> None:
    async with open_pair() as (client, _):
        assert not any(hasattr(client, name) for name in CONNECTION)
        assert not set(CONNECTION) & set(dir(client))
        assert {"send", "aclose", "id", "__class__"} <= set(dir(client))


async def test_a_class_of_the_users_may_have_them() -> None:
    class Named(ClientConnection):
        closed = "by nobody"

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.path: str = "/mine"

    async with open_pair({"create_connection": Named}) as (client, _):
        assert isinstance(client, Named)
        assert (client.closed, client.path) == ("by nobody", "/mine")
        assert {"closed", "path"} <= set(dir(client))
        assert not hasattr(client, "get_message")


async def test_an_attribute_of_other_errors() -> None:
    async with open_pair() as (client, _):
        await client.aclose()
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
    error: Any = caught.value
    for name in CLOSED:
        assert not hasattr(error, name)
        with pytest.raises(AttributeError, match=rf"; see rcvd\.{name} and sent"):
            getattr(error, name)
    assert not set(CLOSED) & set(dir(error))
    assert {"rcvd", "sent", "args"} <= set(dir(error))


async def test_an_attribute_of_other_servers() -> None:
    async def handler(ws: ServerConnection) -> None: ...

    async with open_server(handler, 0, host="127.0.0.1") as server:
        nameless: Any = server
        with pytest.raises(AttributeError, match=r"^'Server' object .*; see aclose"):
            nameless.close()
        assert not set(SERVER) & set(dir(server))


@pytest.mark.parametrize(("kind", "table"), KINDS)
def test_the_table_has_nothing_that_is_there(kind: type, table: dict[str, str]) -> None:
    assert not any(hasattr(kind, name) for name in table)
    options: set[str] = set()
    for one in (trio_ws.ClientOptions, trio_ws.ServerOptions):
        options |= set(one.__dataclass_fields__)
    assert not set(KEYWORDS) & options


@pytest.mark.parametrize(("kind", "table"), [*KINDS, (trio_ws, KEYWORDS)])
def test_what_is_named_is_there(kind: Any, table: dict[str, str]) -> None:
    options = {
        **trio_ws.ClientOptions.__dataclass_fields__,
        **trio_ws.ServerOptions.__dataclass_fields__,
        **dict.fromkeys(
            [
                "handler_nursery",
                "host",
                "listeners",
                "local_address",
                "ssl",
                "stream",
                "uri",
            ]
        ),  # of the calls themselves
    }
    instance = {"rcvd", "request", "response", "json", "isinstance", "async", "await"}
    for hint in table.values():
        named = re.match(r"see ([a-z_]+)", hint)
        if named and named[1] not in instance:
            name = named[1]
            known = hasattr(kind, name) or hasattr(trio_ws, name) or name in options
            assert known, hint


@pytest.mark.parametrize("keyword", sorted(KEYWORDS))
def test_a_keyword_of_others(keyword: str) -> None:
    keywords: dict[str, Any] = {keyword: None}
    said = re.escape(f"'{keyword}'; {KEYWORDS[keyword]}") + "$"
    if keyword != "path":
        with pytest.raises(TypeError, match=rf"^unix_connect\(\) got .*{said}"):
            trio_ws.unix_connect("path", **keywords)
    if not keyword.startswith("proxy"):
        with pytest.raises(TypeError, match=rf"^connect\(\) got .*{said}"):
            trio_ws.connect("ws://localhost/", **keywords)
    with pytest.raises(TypeError, match=rf"^open_server\(\) got .*{said}"):
        trio_ws.open_server(echo, 0, **keywords)
    with pytest.raises(TypeError, match=rf"^accept\(\) got .*{said}"):
        trio_ws.accept(trio.testing.memory_stream_pair()[0], **keywords)


async def test_a_context_for_tls_by_its_place() -> None:
    call: Any = serve
    with pytest.raises(TypeError, match=r"host='localhost', ssl=\.\.\.\)$"):
        call(print, "localhost", 8765, object())
    with pytest.raises(TypeError, match=r"serve\(print, 8765, host=None\)$"):
        call(print, None, 8765, None)
