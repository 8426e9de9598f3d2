"""Steps that fail, once, as where memory is short."""

from __future__ import annotations

from typing import Any


def fails_at(call: Any, number: int, error: BaseException) -> Any:
    """Wrap a function, which raises when it is called for this time."""
    left = number

    def wrapper(*args: Any, **keywords: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise error
        return call(*args, **keywords)

    return wrapper
