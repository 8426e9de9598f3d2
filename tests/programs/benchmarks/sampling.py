"""Whose code the CPU is in: samples of the frame that runs, by a timer of CPU time.

A call into C is part of the line that makes it. So system calls are told by the
text of their lines, of which there are few: in trio and in trio_ws/_transports. The
standard library counts as part of whoever called it, but for TLS.
"""

from __future__ import annotations

import linecache
import re
import signal
import sysconfig
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

TRIO_WS, TRIO, SYSTEM_CALLS, TLS = "trio_ws", "trio", "system calls", "OpenSSL"
BENCHMARK, OTHERS = "the benchmark", "others"

_ROOT: Final = Path(__file__).parents[3]
_STDLIB: Final = sysconfig.get_path("stdlib")
_INSTALLED: Final = sysconfig.get_path("purelib")
_MAKERS: Final = re.compile(r"/trio_ws/_transports/|/trio/(_core/_io_|_socket)")
_CALLS: Final = re.compile(
    r"(?:\b|_)(send|sendmsg|recv|recv_into|poll|modify|accept|shutdown)\("
    r"|\bfn\(self\._sock"
)
# What trio is made with.
_OF_TRIO: Final = ("outcome", "attr", "attrs", "sortedcontainers", "trio")

# Shorter than the tick of most kernels, which is what comes of it.
_INTERVAL: Final = 0.001


class Sampler:
    """Samples while in its block; afterwards shares() tells."""

    def __init__(self) -> None:
        self._samples: Counter[str] = Counter()

    def __enter__(self) -> Sampler:
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, _INTERVAL, _INTERVAL)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def _sample(self, signum: int, frame: FrameType | None) -> None:
        while frame is not None:
            owner = owner_of(frame.f_code.co_filename, frame.f_lineno)
            if owner is not None:
                break
            frame = frame.f_back
        else:
            owner = OTHERS
        self._samples[owner] += 1

    def shares(self) -> dict[str, float]:
        """Return the share of each owner in all samples."""
        total = self._samples.total()
        return {name: count / total for name, count in self._samples.most_common()}


def owner_of(filename: str, line: int) -> str | None:
    """Return whose a line is; None: its caller's."""
    if _MAKERS.search(filename) and _CALLS.search(linecache.getline(filename, line)):
        return SYSTEM_CALLS
    path = Path(filename)
    if path.is_relative_to(_INSTALLED):
        package = path.relative_to(_INSTALLED).parts[0]
        return TRIO if package in _OF_TRIO else package
    if path.is_relative_to(_ROOT / "trio_ws"):
        return TRIO_WS
    if path.is_relative_to(_ROOT):
        return BENCHMARK
    if filename == f"{_STDLIB}/ssl.py":
        return TLS
    return None
