"""The codec compiled and the codec in Python do the same.

Where the one in use isn't compiled, this compares Python with Python.
"""

from __future__ import annotations

import importlib.machinery
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_ws
from tests.peers import wire
from tests.peers.wire import BINARY, CLOSE, CONT, KEY, PING, TEXT
from tests.protocol import both, pure
from tests.protocol.streams import CUTS, PAYLOADS, split, streams
from tests.protocol.violations import VIOLATIONS
from trio_ws._protocol.engine import Engine
from trio_ws._protocol.errors import ProtocolError
from trio_ws._protocol.extensions.base import Extension, Frame
from trio_ws._protocol.frames.codec import codec
from trio_ws._protocol.frames.decoder import Decoder
from trio_ws._protocol.frames.encoder import encode
from trio_ws._protocol.frames.memory import PIECE_SIZE, SPLIT_SIZE


def test_which_is_in_use() -> None:
    if os.environ.get("TRIO_WS_PURE") or sys.implementation.name != "cpython":
        assert codec() == "python"
    elif os.environ.get("TRIO_WS_REQUIRE"):
        assert codec() == "compiled"
    assert pure.load("frames.codec").codec() == "python"
    # All three or none.
    kinds = {type(each) for each in (Engine.pop, Decoder.feed)}
    assert len(kinds) == 1


# As Python 3.13 and later are asked; no free-threaded build is at hand everywhere.
WITHOUT_GIL = """
import pathlib
import sys

sys._is_gil_enabled = lambda: False
import trio_ws

ours = [module for name, module in sys.modules.items() if name.startswith("trio_ws.")]
print(trio_ws.codec(), *{pathlib.Path(module.__file__).suffix for module in ours})
"""


# As PyInstaller does: what is compiled is in folders, where the sources aren't.
FROZEN = """
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import spec_from_file_location

sources, root = sys.argv[1:]


class Finder:
    def __init__(self, path):
        if not path.startswith(root):
            raise ImportError(path)
        self.path = path

    def find_spec(self, name, target=None):
        place = os.path.join(self.path, name.rpartition(".")[2])
        source = os.path.join(sources, os.path.relpath(place, root))
        for suffix in EXTENSION_SUFFIXES:
            if os.path.exists(place + suffix):
                return spec_from_file_location(name, place + suffix)
        if os.path.isdir(source):
            return spec_from_file_location(
                name, source + "/__init__.py", submodule_search_locations=[place]
            )
        if os.path.exists(source + ".py"):
            return spec_from_file_location(name, source + ".py")


sys.path_hooks.insert(0, Finder)
sys.path.insert(0, root)
import trio_ws

assert trio_ws.__path__ == [os.path.join(root, "trio_ws")]
print(trio_ws.codec())
"""

PACKAGE = pathlib.Path(trio_ws.__file__).parent


def run_pure(code: str, *args: object) -> str:
    """Run a program where Python is wanted; return what it prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TRIO_WS_PURE": "1"},
    )
    return result.stdout.strip()


def test_a_frozen_program_has_what_was_frozen(tmp_path: pathlib.Path) -> None:
    kind = "python"
    for source in PACKAGE.rglob("*.py"):
        target = tmp_path / source.relative_to(PACKAGE.parent).parent
        target.mkdir(parents=True, exist_ok=True)
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            compiled = source.with_suffix(suffix)
            if compiled.exists():
                kind = "compiled"
                shutil.copy(compiled, target)
    assert run_pure(FROZEN, PACKAGE.parent, tmp_path) == kind


def test_a_zip_file_has_the_sources(tmp_path: pathlib.Path) -> None:
    archive = tmp_path / "app.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        for source in PACKAGE.rglob("*"):
            file.write(source, source.relative_to(PACKAGE.parent))
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import trio_ws
assert trio_ws.__file__.startswith(sys.argv[1])
print(trio_ws.codec())
"""
    assert run_pure(code, archive) == "python"


def test_nothing_compiled_is_imported_where_it_would_turn_the_gil_on() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_GIL],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["python", ".py"]


# Steps that come between those in which the peer's bytes come.
STEPS: st.SearchStrategy[both.Step] = st.one_of(
    st.tuples(
        st.just("send"),
        st.sampled_from([CONT, TEXT, BINARY]),
        PAYLOADS
        | st.sampled_from([b"long " * 100, bytes(SPLIT_SIZE), bytes(PIECE_SIZE + 9)]),
        st.booleans(),
        st.booleans(),
    ),
    st.tuples(
        st.just("queue_behind"),
        st.integers(0, 500),
        PAYLOADS
        | st.text(max_size=200)
        | st.sampled_from([bytearray(5), None, "\ud800"]),
        st.booleans(),
    ),
    st.tuples(st.just("broadcast"), st.sampled_from([TEXT, BINARY]), PAYLOADS),
    st.tuples(st.just("ping"), st.binary(max_size=125)),
    st.tuples(st.just("send_pong"), st.binary(max_size=125)),
    st.tuples(st.just("write"), st.integers(0, 500), st.integers(0, 200)),
    st.tuples(st.just("limit"), st.integers(1, 5)),
    st.sampled_from(
        [
            ("pop",),
            ("peek",),
            ("go_on",),
            ("take",),
            ("discard_messages",),
            ("act_on_violation",),
            ("close", 1000, "bye"),
            ("close", 999, ""),
            ("fail", 1011, "", None),
            ("lose", ConnectionResetError("reset")),
            ("abandon", False),
            ("receive_eof",),
        ]
    ),
)


@given(
    st.data(),
    st.booleans(),
    st.none() | st.integers(0, 300),
    st.booleans(),
    CUTS,
    st.lists(st.tuples(st.integers(0, 30), STEPS), max_size=10),
)
def test_any_steps(
    data: st.DataObject,
    client: bool,
    max_size: int | None,
    deflate: bool,
    cuts: list[int],
    others: list[tuple[int, both.Step]],
) -> None:
    stream = data.draw(streams(not client))
    steps: list[both.Step] = [("receive", piece) for piece in split(stream, cuts)]
    for at, step in others:
        steps.insert(at, step)
    both.compare(steps, client=client, max_size=max_size, deflate=deflate)


@given(
    st.data(), st.booleans(), st.booleans(), CUTS, st.integers(1, 4), st.integers(0, 99)
)
def test_any_stream_in_steps(
    data: st.DataObject,
    client: bool,
    deflate: bool,
    cuts: list[int],
    frames: int,
    waiting: int,
) -> None:
    stream = data.draw(streams(not client))
    steps: list[both.Step] = [("limit", frames)]
    for piece in split(stream, cuts):
        steps += [("receive", piece), ("go_on",), ("pop",), ("go_on",)]
    # All that is left, a frame or a message at a time.
    steps += [("go_on",), ("pop",)] * 30
    steps.append(("receive_eof",))
    both.compare(steps, client=client, max_waiting=waiting, deflate=deflate)


@given(st.data(), st.booleans(), CUTS, st.integers(1, 4), st.integers(0, 99))
def test_in_steps_or_at_once_is_the_same(
    data: st.DataObject, client: bool, cuts: list[int], frames: int, waiting: int
) -> None:
    pieces = split(data.draw(streams(not client)), cuts)
    at_once = both.Run(both.in_use, client=client)
    in_steps = both.Run(both.in_use, client=client, max_waiting=waiting)
    in_steps.limit(frames)
    messages = []
    for piece in pieces:
        at_once.engine.receive(piece)
        in_steps.engine.receive(piece)
        while True:
            messages += [in_steps.pop() for _ in range(len(in_steps.engine.messages))]
            if not in_steps.engine.backlog:
                break
            assert in_steps.engine.decoder.stopped
            in_steps.go_on()
    assert messages == list(at_once.engine.messages)
    # In steps, a ping is answered before what follows it is read.
    for way in ("received", "sent"):
        assert [one for one in in_steps.traced if one[0] == way] == [
            one for one in at_once.traced if one[0] == way
        ]
    assert in_steps.engine.decoder.where() == at_once.engine.decoder.where()
    for name in ("phase", "rcvd", "violation"):
        one, other = getattr(in_steps.engine, name), getattr(at_once.engine, name)
        assert both.comparable(one) == both.comparable(other)


# Frames that are received where their payload stays, and what may come between.
LONG = st.tuples(
    st.sampled_from([CONT, CONT, BINARY, TEXT]),
    st.integers(32 * 1024 - 1, 80_000) | st.just(300_000),
    st.booleans(),
)
LONG_CUTS = st.lists(st.integers(0, 400_000), max_size=12)


@given(
    st.booleans(),
    st.none() | st.sampled_from([70_000, 2**20]),
    st.lists(LONG, min_size=1, max_size=4),
    LONG_CUTS,
    st.sampled_from(["put", "receive"]),
    st.lists(st.tuples(st.integers(0, 15), STEPS), max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_any_steps_in_long_messages(
    client: bool,
    max_size: int | None,
    frames: list[tuple[int, int, bool]],
    cuts: list[int],
    how: str,
    others: list[tuple[int, both.Step]],
    key: int,
) -> None:
    mask = None if client else key.to_bytes(4, "big")
    stream = b""
    for opcode, size, fin in frames:
        payload = bytes(range(97, 122)) * (size // 25 + 1)
        stream += wire.frame(opcode, payload[:size], fin=fin, key=mask)
        stream += wire.frame(PING, b"p", key=mask)
    steps: list[both.Step] = [(how, piece) for piece in split(stream, cuts)]
    for at, step in others:
        steps.insert(at, step)
    both.compare(steps, client=client, max_size=max_size)


@pytest.mark.parametrize(
    ("masked", "max_size", "stream"),
    [pytest.param(*each.values[:3], id=each.id) for each in VIOLATIONS],
)
def test_each_violation(masked: bool, max_size: int | None, stream: bytes) -> None:
    end: list[both.Step] = [("act_on_violation",), ("receive_eof",)]
    for size in (1, len(stream)):
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        steps = [("receive", piece) for piece in pieces[-200:]]
        both.compare([*steps, *end], client=not masked, max_size=max_size)


class Text(str):
    pass


class Bytes(bytes):
    pass


LIMITS = [0, 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30]


@pytest.mark.parametrize("max_size", LIMITS)
def test_any_limit(max_size: int) -> None:
    stream = wire.frame(TEXT, b"a", fin=False, key=KEY)
    stream += wire.header(CONT, 2**63 - 1, extended=8, key=KEY)
    steps = [("receive", stream[: len(stream) - left]) for left in (5, 0)]
    both.compare(steps, client=False, max_size=max_size)
    both.compare(steps, client=False, max_size=max_size, deflate=True)


@pytest.mark.parametrize("kind", [Bytes, bytearray, memoryview])
def test_other_kinds_of_bytes(kind: Any) -> None:
    stream = wire.frame(BINARY, b"abc") + wire.frame(PING, b"p") + b"\x81\x03ab"
    steps: list[both.Step] = [
        ("receive", kind(stream)),
        ("receive", kind(b"c")),
        ("send", BINARY, kind(b"abc"), True),
        ("send", BINARY, kind(b"abc" * 100), True),
        ("send", BINARY, kind(bytes(SPLIT_SIZE)), True),
        ("close", 1000, Text("bye")),
    ]
    both.compare(steps, client=True)
    target = Decoder(masked=False, max_size=None)
    items = target.feed(kind(stream)) + target.feed(kind(b"c"))
    assert items == [b"abc", (PING, b"p"), "abc"]
    assert [type(item) for item in items] == [bytes, tuple, str]
    frame = encode(BINARY, kind(bytes(SPLIT_SIZE)), True, masked=False)
    assert [type(each) for each in frame] == [bytes, bytes]


@pytest.mark.parametrize("load", [both.in_use, pure.load], ids=["in use", "python"])
@pytest.mark.parametrize("kind", [Bytes, bytearray, memoryview])
def test_an_extension_that_makes_other_kinds(load: both.Load, kind: Any) -> None:
    class Odd(Extension):
        name = "odd"

        def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
            return Frame(frame.opcode, kind(frame.data), frame.fin)

        def encode(self, frame: Frame) -> Frame:
            return Frame(frame.opcode, kind(frame.data), frame.fin)

    side = load("engine").Engine(client=True, max_size=100)
    side.extend([Odd()])
    text = "é€".encode()
    side.receive(wire.frame(TEXT, text) + wire.frame(BINARY, b"abc"))
    side.receive(wire.frame(TEXT, text[:1], fin=False) + wire.frame(CONT, text[1:]))
    assert list(side.messages) == ["é€", b"abc", "é€"]
    assert {type(each) for each in side.messages} == {str, bytes}
    side.receive(wire.frame(PING, b"p") + wire.frame(CLOSE, b"\x03\xe8bye"))
    assert side.violation is None
    assert str(side.rcvd) == "1000 (OK) bye"


def test_errors_have_their_cause() -> None:
    for load in (both.in_use, pure.load):
        (error,) = (
            load("frames.decoder")
            .Decoder(masked=False, max_size=None)
            .feed(b"\x81\x01\xff")
        )
        assert isinstance(error.__cause__, UnicodeDecodeError)
    # The copy has classes of its own.
    assert not isinstance(error, ProtocolError)
