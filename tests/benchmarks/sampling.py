"""Whose code the CPU is in: samples of the frame that runs, by a timer of CPU time.

A call into C counts as part of the line that makes it, so the lines that make
system calls are told apart by their text.
"""

from __future__ import annotations

import linecache
import re
import signal
import sysconfig
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Final

INTERVAL: Final = 0.001
SYSTEM, OTHERS = "system calls", "other Python"
_CALLS: Final = re.compile(
    r"\b(send|sendmsg|recv|recv_into|poll|accept|shutdown|close)\("
)
_MAKERS: Final = re.compile(r"/trio_ws/_transports/|/trio/_(core/_io_|socket)")
_LIBRARIES: Final = {
    sysconfig.get_path("purelib"),
    sysconfig.get_path("platlib"),
    str(Path(__file__).parents[2]),
}


class Sampler:
    """A context manager; afterwards shares() tells."""

    def __init__(self) -> None:
        self._samples: Counter[tuple[str, int]] = Counter()

    def __enter__(self) -> Sampler:
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def _sample(self, signum: int, frame: FrameType | None) -> None:
        if frame is not None:
            self._samples[frame.f_code.co_filename, frame.f_lineno] += 1

    def shares(self) -> Mapping[str, float]:
        """Return the share of each package, and of system calls."""
        packages: Counter[str] = Counter()
        for (filename, line), count in self._samples.items():
            packages[package(filename, line)] += count
        total = self._samples.total()
        return {name: count / total for name, count in packages.most_common()}


def package(filename: str, line: int) -> str:
    if _MAKERS.search(filename) and _CALLS.search(linecache.getline(filename, line)):
        return SYSTEM
    for folder in _LIBRARIES:
        if filename.startswith(folder):
            return filename.removeprefix(folder).split("/")[1].removesuffix(".py")
    return OTHERS
