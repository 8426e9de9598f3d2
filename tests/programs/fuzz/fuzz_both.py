"""Fuzz the codec in use and its copy in Python with the same bytes.

    python tests/programs/fuzz/fuzz_both.py -max_total_time=60

Cut in the same places, they give the same messages, errors, answers and states.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[3]))

# The compiled code can't be instrumented; the paths of its copy stand for both.
with atheris.instrument_imports(include=["pure_protocol"]):
    from tests.protocol import both, pure

    for module in ("engine", "extensions.deflate"):
        pure.load(module)

from trio_ws import codec

# What is done between two pieces, by the byte that says so.
BETWEEN: list[both.Step] = [
    ("take",),
    ("pop",),
    ("discard_messages",),
    ("act_on_violation",),
    ("send", 1, b"text", True),
    ("send", 2, b"long " * 100, False),
    ("ping", b"ping"),
    ("write", 100, 7),
    ("close", 1000, "bye"),
    ("receive_eof",),
]


def test_one_input(data: bytes) -> None:
    if len(data) < 3:
        return
    flags, size, between = data[0], data[1] or 1, data[2]
    how = "put" if flags & 8 else "receive"
    stream = data[3:]
    steps: list[both.Step] = []
    for i in range(0, len(stream), size):
        steps.append((how, stream[i : i + size]))
        if between:
            steps.append(BETWEEN[(between + i) % len(BETWEEN)])
    both.compare(
        [*steps, ("act_on_violation",), ("receive_eof",)],
        client=flags & 1 == 1,
        max_size=None if flags & 2 else 300,
        deflate=flags & 4 == 4,
    )


if __name__ == "__main__":
    print("comparing the code in Python with that in use, which is", codec())
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
