"""How what a call costs grows, whatever the machine's speed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


def grows_with_the_square(call: Callable[[int], object], size: int) -> bool:
    """Tell whether sixteen times ``size`` costs much more than sixteen times as much.

    It costs 16 times as much where the growth is linear, 256 times where it isn't;
    the limit between them is as far from both. The least of some times is compared,
    since whatever else the machine does only adds to them.
    """
    return _least(call, 16 * size) > 64 * _least(call, size)


# Windows looks at a process's time 64 times a second, whatever it says of that clock's
# resolution. Of the other clock, too, the least of some times is taken.
_clock = time.perf_counter_ns if os.name == "nt" else time.process_time_ns


def _least(call: Callable[[int], object], size: int) -> int:
    times: list[int] = []
    for _ in range(5):
        before = _clock()
        call(size)
        times.append(_clock() - before)
    return min(times)
