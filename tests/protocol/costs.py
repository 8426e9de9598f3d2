"""How what a call costs grows, whatever the machine's speed."""

from __future__ import annotations

import time
from collections.abc import Callable


def grows_with_the_square(call: Callable[[int], object], size: int) -> bool:
    """Tell whether sixteen times ``size`` costs much more than sixteen times as much.

    It costs 16 times as much where the growth is linear, 256 times where it isn't;
    the limit between them is as far from both. The least of some times is compared,
    since whatever else the machine does only adds to them.
    """
    return _least(call, 16 * size) > 64 * _least(call, size)


def _least(call: Callable[[int], object], size: int) -> int:
    times: list[int] = []
    for _ in range(5):
        before = time.process_time_ns()
        call(size)
        times.append(time.process_time_ns() - before)
    return min(times)
