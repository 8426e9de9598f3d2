"""What compression costs and saves: bytes, memory and CPU time.

    python tests/programs/benchmarks/deflate.py

The first table is of parameters.

Two ends, as the factories negotiate them, send each other JSON as an application
may: records with the same keys and changing values. Bytes are those of payloads;
memory is what an end allocates that has sent and received; CPU time is that of
compressing a message and decompressing it, the best of some rounds.

The second table is of codecs, as trio_ws would use them by default, on several texts:
what is left of a message, and CPU time of compressing and of decompressing one.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any, NamedTuple

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.programs.benchmarks.texts import TEXTS, json_texts
from trio_ws._protocol.extensions.deflate import COMPRESS_SETTINGS, WINDOW_BITS
from trio_ws.extensions import (
    ClientPerMessageDeflateFactory,
    Extension,
    Frame,
    ServerPerMessageDeflateFactory,
)

#: What the documentation's table has a line for: the keywords of both factories.
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "without context takeover": {
        "server_no_context_takeover": True,
        "client_no_context_takeover": True,
    },
    "9 bits, memLevel 1": {
        "server_max_window_bits": 9,
        "client_max_window_bits": 9,
        "compress_settings": {"memLevel": 1},
    },
    "15 bits, memLevel 8": {
        "server_max_window_bits": 15,
        "client_max_window_bits": 15,
        "compress_settings": {"memLevel": 8},
    },
}

TEXT = 1


class Cost(NamedTuple):
    """What one message costs on average, and one end of a connection."""

    size: float  # bytes, compressed
    client_memory: float  # KiB
    server_memory: float
    time: float  # microseconds, of both ends together


def ends(settings: dict[str, Any]) -> tuple[Extension, Extension]:
    """Negotiate; return the client's end and the server's."""
    client_factory = ClientPerMessageDeflateFactory(**settings)
    server_factory = ServerPerMessageDeflateFactory(**settings)
    offer = client_factory.get_request_params()
    answer, server = server_factory.process_request_params(offer, [])
    return client_factory.process_response_params(answer, []), server


def exchange(client: Extension, server: Extension, texts: list[bytes]) -> int:
    """Send messages each way; return the bytes that went."""
    size = 0
    for text in texts:
        for sender, receiver in (client, server), (server, client):
            frame = sender.encode(Frame(TEXT, text))
            size += len(frame.data)
            if receiver.decode(frame).data != text:
                raise AssertionError("not what was sent")
    return size


def memory(settings: dict[str, Any], text: bytes, *, client: bool) -> float:
    """Return how many KiB one end allocates."""
    ours, theirs = (0, 1) if client else (1, 0)
    received = ends(settings)[theirs].encode(Frame(TEXT, text))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        end = ends(settings)[ours]
        end.encode(Frame(TEXT, text))
        end.decode(received)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / 1024


def measure(settings: dict[str, Any], *, rounds: int = 5) -> Cost:
    """Measure one set of parameters."""
    texts = [text.encode() for text in json_texts(200, rows=10)]
    size, best = 0, float("inf")
    for _ in range(rounds):
        pair = ends(settings)
        start = time.process_time()
        size = exchange(*pair, texts)
        best = min(best, time.process_time() - start)
    count = 2 * len(texts)
    return Cost(
        size / count,
        memory(settings, texts[0], client=True),
        memory(settings, texts[0], client=False),
        best / count * 1e6,
    )


# Codecs --------------------------------------------------------------------------


class Codec(NamedTuple):
    """A module with zlib's names, and the level to use."""

    module: str
    level: int


CODECS = {
    "zlib": Codec("zlib", 6),
    "zlib-ng": Codec("zlib_ng.zlib_ng", 6),
    "ISA-L": Codec("isal.isal_zlib", 1),
}


class Work(NamedTuple):
    """What a codec makes of a message, on average."""

    ratio: float  # of what is left
    compress: float  # microseconds
    decompress: float


def work(codec: Codec, texts: list[bytes], *, rounds: int = 5) -> Work:
    """Measure a codec on messages of one stream; raises ImportError without it."""
    module: Any = importlib.import_module(codec.module)
    times: list[tuple[float, float]] = []
    size = 0
    for _ in range(rounds):
        deflater = module.compressobj(
            level=codec.level, wbits=-WINDOW_BITS, **COMPRESS_SETTINGS
        )
        inflater = module.decompressobj(wbits=-WINDOW_BITS)
        start = time.process_time()
        compressed = [
            deflater.compress(text) + deflater.flush(module.Z_SYNC_FLUSH)
            for text in texts
        ]
        between = time.process_time()
        came = [inflater.decompress(data) for data in compressed]
        times.append((between - start, time.process_time() - between))
        if came != texts:
            raise AssertionError("not what was sent")
        size = sum(len(data) - 4 for data in compressed)  # the end isn't sent
    compress, decompress = (
        min(column) / len(texts) * 1e6 for column in zip(*times, strict=True)
    )
    return Work(size / sum(map(len, texts)), compress, decompress)


def print_codecs(count: int = 200, rounds: int = 5) -> None:
    """Print a table of what each codec makes of each kind of text."""
    for kind, make in TEXTS.items():
        texts = [text.encode() for text in make(count)]
        size = sum(map(len, texts)) / count
        for name, codec in CODECS.items():
            try:
                found = work(codec, texts, rounds=rounds)
            except ImportError:
                continue
            print(
                f"{kind:4} of {size:5.0f} bytes {name:8} {found.ratio:6.3f}"
                f" {found.compress:6.1f} us {found.decompress:6.1f} us"
            )


def main() -> None:
    """Print both tables."""
    texts = [text.encode() for text in json_texts(200, rows=10)]
    print(
        f"{platform.python_implementation()} {platform.python_version()},"
        f" zlib {zlib.ZLIB_RUNTIME_VERSION}"
    )
    print("with ISA-L" if importlib.util.find_spec("isal") else "without ISA-L")
    print(f"messages of {sum(map(len, texts)) / len(texts):.0f} bytes")
    for name, settings in SETTINGS.items():
        cost = measure(settings)
        print(
            f"{name:26} {cost.size:5.0f} bytes {cost.client_memory:5.0f} KiB"
            f" {cost.server_memory:5.0f} KiB {cost.time:5.0f} us"
        )
    print()
    print_codecs()


if __name__ == "__main__":
    main()
