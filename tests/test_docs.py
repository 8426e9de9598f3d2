"""The documentation: its code runs, and what it says of the API is all there.

``make docs`` builds it; here is what doesn't need Sphinx.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest
import trio

import trio_ws
import trio_ws.extensions
import trio_ws.testing
from docs._ext.snippets import (
    DOCS,
    SNIPPETS,
    Outcome,
    Use,
    normalised,
    problems,
    run,
    shown,
    uses,
)
from trio_ws import exceptions

if TYPE_CHECKING:
    import symtable

PAGES = sorted(DOCS.glob("*.rst"))
TEXT = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
USES = {use.name: [u for u in uses() if u.name == use.name] for use in uses()}

# About how many seconds of real time a snippet waits.
REALTIME = {
    "anyio_app.py": 0.1,
    "keepalive.py": 1.3,
    "lost_asleep.py": 0.1,
    "patterns_requests.py": 0.1,
    "recv_timeout.py": 0.1,
}


# Code


def marked(name: str) -> Any:
    marks = [pytest.mark.realtime(seconds=REALTIME[name])] if name in REALTIME else []
    return pytest.param(name, marks=marks)


# What the oldest trio that is supported doesn't have, and what only make docs installs,
# which runs the snippets, too.
LACKING = {"safe_channel.py"} if not hasattr(trio, "as_safe_channel") else set()
if importlib.util.find_spec("anyio") is None:
    LACKING.add("anyio_app.py")
RUN = [name for name in USES if name not in LACKING]


@pytest.mark.parametrize("name", [marked(name) for name in RUN])
def test_a_snippet_does_what_the_text_says(name: str) -> None:
    outcome = run(name)
    for use in USES[name]:
        assert problems(use, outcome) == []
    # Nothing of this machine ends up in the pages.
    assert not re.search(r'File "/|site-packages|/tmp|0x[0-9a-f]+', outcome.output)


@pytest.mark.cpython("it asks CPython's compiler which names are whose")
@pytest.mark.parametrize("name", USES)
def test_what_is_shown_is_complete(name: str) -> None:
    import symtable

    code = shown(name)
    table = symtable.symtable(code, name, "exec")
    assert list(missing_names(table, {s.get_name() for s in bound(table)})) == []


def bound(table: symtable.SymbolTable) -> Iterator[symtable.Symbol]:
    return (s for s in table.get_symbols() if s.is_assigned() or s.is_imported())


def missing_names(table: symtable.SymbolTable, known: set[str]) -> Iterator[str]:
    """Yield the names that no part of the code itself defines."""
    for symbol in table.get_symbols():
        name = symbol.get_name()
        outside = symbol.is_global() or table.get_type() == "module"
        if outside and symbol.is_referenced() and name not in known:
            if not hasattr(builtins, name) and name != "__name__":
                yield name
    for child in table.get_children():
        yield from missing_names(child, known)


def test_each_snippet_is_in_a_page() -> None:
    used = set(USES) | set(re.findall(r":: snippets/(\S+)", "".join(TEXT.values())))
    assert used == {p.name for p in SNIPPETS.iterdir() if p.is_file()} - {"_peer.py"}


@pytest.mark.parametrize("page", TEXT)
def test_no_code_but_what_is_run(page: str) -> None:
    text = TEXT[page]
    for included in re.findall(r"literalinclude:: (\S+\.py)", text):
        assert included.startswith("../examples/")  # which tests run as they stand
        assert (DOCS / included).is_file()
    assert set(re.findall(r"code-block:: (\S+)", text)) <= {"sh"}
    assert ">>>" not in text
    # A paragraph that ends with a double colon makes a block, too.
    assert not re.search(r"^(?!\.\.).*::$", text, re.MULTILINE)


def test_what_fails_a_build() -> None:
    use = Use("page.rst", "x.py", ("one", "two"), 1)
    assert problems(use, Outcome(1, "one\ntwo\n")) == []
    assert "exit code 0, expected 1" in problems(use, Outcome(0, "one\ntwo\n"))[0]
    assert "not in the output: 'two'" in problems(use, Outcome(1, "one\n"))[0]


def test_the_directives_are_found_as_sphinx_finds_them() -> None:
    found = uses()
    assert len(found) == sum(t.count(".. run:: ") for t in TEXT.values())
    options = sum(t.count(":expect:") for t in TEXT.values())
    assert sum(bool(use.expect) for use in found) == options
    assert sum(use.exit for use in found) == sum(
        t.count(":exit: 1") for t in TEXT.values()
    )


def test_what_differs_from_run_to_run_is_replaced() -> None:
    text = (
        "('127.0.0.1', 40123) 127.0.0.1:40124 127.0.0.1:40123\n"
        "0badcafe > PING 'aB3x' [4 bytes]\n"
        "0badcafe < PONG 'aB3x' [4 bytes]\n"
        "0badcafe latency 12.34 ms\n"
        "deadbeef lost: EOFError\n"
        "deadbeef 127.0.0.1:40125 > Sec-WebSocket-Key: aGVsbG8gd29ybGQhIQ==\n"
        "deadbeef 127.0.0.1:40125 < Date: Tue, 01 Dec 2026 07:08:09 GMT\n"
        '"01234567-89ab-cdef-0123-456789abcdef"\n'
    )
    assert normalised(text) == (
        "('127.0.0.1', 8765) 127.0.0.1:50001 127.0.0.1:8765\n"
        "7d0c23a1 > PING 'k3Xp' [4 bytes]\n"
        "7d0c23a1 < PONG 'k3Xp' [4 bytes]\n"
        "7d0c23a1 latency 0.4 ms\n"
        "e95b10f4 lost: EOFError\n"
        "e95b10f4 127.0.0.1:50002 > Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
        "e95b10f4 127.0.0.1:50002 < Date: Mon, 30 Nov 2026 12:00:00 GMT\n"
        '"7d0c23a1-1c9e-4d0b-9b7e-2f6a5c8e4d10"\n'
    )


def test_the_configurations_of_proxies_are_those_that_are_tried() -> None:
    tried = (DOCS.parent / "tests/interop/proxy.py").read_text(encoding="utf-8")
    for name, directives in {
        "nginx.conf": (
            "map $http_upgrade $connection_upgrade {",
            "default upgrade;",
            "proxy_http_version 1.1;",
            "proxy_set_header Upgrade $http_upgrade;",
            "proxy_set_header Connection $connection_upgrade;",
            "proxy_read_timeout ",
        ),
        "haproxy.cfg": (
            "mode http",
            "timeout client ",
            "timeout server ",
            "timeout tunnel ",
        ),
    }.items():
        text = (SNIPPETS / name).read_text(encoding="utf-8")
        for directive in directives:
            assert directive in text
            assert directive in tried.replace("{{", "{").replace("}}", "}")


# The reference


def public_names() -> set[str]:
    names = {f"trio_ws.{name}" for name in trio_ws.__all__}
    names |= {f"trio_ws.testing.{name}" for name in trio_ws.testing.__all__}
    names |= {f"trio_ws.extensions.{name}" for name in trio_ws.extensions.__all__}
    # Most of them are public in trio_ws, too, and have their entry there.
    outside = set(exceptions.__all__) - set(trio_ws.__all__)
    return names | {f"trio_ws.exceptions.{name}" for name in outside}


def test_each_public_name_has_an_entry() -> None:
    entries = re.findall(
        r"^\.\. auto\w+:: ([\w.]+)", TEXT["reference.rst"], re.MULTILINE
    )
    assert sorted(entries) == sorted(public_names())


def test_the_members_of_classes_are_listed() -> None:
    for name in ("Server", "Connection", "MessageStream", "Headers"):
        entry = rf"auto\w+:: trio_ws\.{name}(\(\))?\n   :members:\n"
        assert re.search(entry, TEXT["reference.rst"]), name


def test_each_public_name_has_a_docstring() -> None:
    # autodoc leaves out a member that has none.
    for name in public_names() - {"trio_ws.__version__", "trio_ws.HeadersLike"}:
        thing = getattr(trio_ws, name.removeprefix("trio_ws."), None)
        if not inspect.isclass(thing):
            continue
        for member, value in vars(thing).items():
            plain = isinstance(value, FunctionType | property | classmethod)
            if plain and not member.startswith("_"):
                assert inspect.getdoc(value), f"{name}.{member}"


# The table of cancellations

SPELT = {
    "Attempt": "async with attempt",
    "Connection.__anext__": "async for message in ws",
    "MessageStream.__anext__": "async for piece in ws.recv_streaming()",
    "reconnect.__anext__": "async for attempt in reconnect(...)",
}


def public_coroutines() -> Iterator[tuple[str, object]]:
    for module in (trio_ws, trio_ws.testing):
        for name in module.__all__:
            thing = getattr(module, name)
            if is_coroutine(thing):
                yield f"{name}()", thing
            if not inspect.isclass(thing):
                continue
            # A connection is a block, too, but that is trio.abc.AsyncResource's.
            if not issubclass(thing, trio.abc.AsyncResource):
                if is_coroutine(getattr(thing, "__aenter__", None)):
                    key = f"async with {name}(...)"
                    yield SPELT.get(name, key), thing
            for member, value in vars(thing).items():
                key = f"{name}.{member}"
                if key in SPELT:
                    yield SPELT[key], value
                elif is_coroutine(value) and not member.startswith("_"):
                    yield f"{key}()", value


def is_coroutine(value: object) -> bool:
    return (
        inspect.iscoroutinefunction(inspect.unwrap(value)) if callable(value) else False
    )


def documented(thing: object) -> str:
    """Return what the docstring says of a cancellation, in the table's form."""
    found = re.search(
        r"\*\*Cancellation\*\*:?(.*?)(?:\n\n|\Z)",
        inspect.getdoc(thing) or "",
        re.DOTALL,
    )
    assert found, f"{thing} has no line on **Cancellation**"
    return plain(found[1])


def plain(text: str) -> str:
    text = " ".join(text.replace("`", "").split())
    return text[:1].upper() + text[1:]


def rows() -> dict[str, str]:
    cells = re.findall(
        r"^   \* - (.*)\n     - (.*(?:\n       .*)*)",
        TEXT["cancellation.rst"],
        re.MULTILINE,
    )
    return {plain(call): plain(text) for call, text in cells[1:]}


def test_the_table_of_cancellations() -> None:
    assert rows() == {plain(c): documented(thing) for c, thing in public_coroutines()}


# Keywords and figures


def keywords() -> set[str]:
    modules = (trio_ws, trio_ws.extensions, trio_ws.testing)
    things = [getattr(module, name) for module in modules for name in module.__all__]
    callables = [thing for thing in things if inspect.isroutine(thing)]
    for thing in things:
        if inspect.isclass(thing):
            callables += [m for m in vars(thing).values() if inspect.isroutine(m)]
    return {
        name
        for one in callables
        if isinstance(one, FunctionType)
        for name in inspect.signature(one).parameters
    }


# What else these take, the types of options have.
ENTRANCES = (
    *(trio_ws.connect, trio_ws.unix_connect, trio_ws.reconnect, trio_ws.accept),
    *(trio_ws.serve, trio_ws.unix_serve, trio_ws.open_server),
    *(trio_ws.route, trio_ws.unix_route),
)
OPTIONS = (
    *(trio_ws.Options, trio_ws.ClientOptions, trio_ws.ServerOptions, trio_ws.Limits),
    *(trio_ws.ConnectionStatistics, trio_ws.ServerStatistics),
)


def test_each_keyword_and_option_is_described() -> None:
    given = {
        name
        for one in ENTRANCES
        for name, parameter in inspect.signature(one).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    } - {"task_status"}  # as of all that nursery.start() calls
    given |= {field.name for one in OPTIONS for field in dataclasses.fields(one)}
    said = "".join(inspect.getdoc(one) or "" for one in (*ENTRANCES, *OPTIONS))
    assert {name for name in given if f"``{name}``" not in said} == set()


def test_the_keywords_exist() -> None:
    named = set(re.findall(r"``[^`\n]*?\b([a-z]\w*)=", "".join(TEXT.values())))
    assert named
    assert named <= keywords()


def test_the_deadlines_are_those_of_the_code() -> None:
    table = re.findall(r"^``(\w+)``\s+(\S+)  ", TEXT["scope.rst"], re.MULTILINE)
    options = trio_ws.Options()
    assert {name: ast.literal_eval(value) for name, value in table} == {
        name: getattr(options, name)
        for name in (
            "open_timeout",
            "ping_interval",
            "ping_timeout",
            "close_timeout",
            "loss_grace",
            "close_grace",
        )
    }


def test_the_limits_against_peers_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^     - ``((?:Limits\.)?\w+)``\n     - (\w+)$", TEXT["security.rst"], re.M
    )
    table = {name: ast.literal_eval(value) for name, value in rows}
    options, limits = trio_ws.ServerOptions(), dataclasses.asdict(trio_ws.Limits())
    known = {f"Limits.{name}": value for name, value in limits.items()}
    assert table == known | {
        name: getattr(options, name) for name in table if name not in known
    }
    assert {"max_size", "max_queue", "write_limit", "max_connections"} < table.keys()


@pytest.mark.parametrize(
    ("said", "is_so"),
    [
        ("``write_limit`` bytes (64 KiB)", lambda o: o.write_limit == 64 * 1024),
        ("``max_queue`` messages (16)", lambda o: o.max_queue == 16),
        (
            "``max_size`` bytes (1 MiB)",
            lambda o: o.max_size == 1024 * 1024,
        ),
        ("(40 where either is None)", lambda o: o.stall_timeout == 40),
    ],
)
def test_the_limits_are_those_of_the_code(
    said: str, is_so: Callable[[trio_ws.Options], bool]
) -> None:
    assert said in " ".join(TEXT["scope.rst"].split())
    assert is_so(trio_ws.Options())
