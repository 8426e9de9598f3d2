"""What a peer may take of memory and time, besides the size of its messages."""

from __future__ import annotations

import dataclasses

# As much as C counts.
_MOST = 2**31 - 1

# With less than one of these nothing can be said.
_AT_LEAST_ONE = ("header_line", "headers", "head")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is taken of a peer at most, besides its messages (``max_size``).

    Of the opening handshake; sizes are in bytes:

    * ``header_line``: of a header line, and of the request or status line.
    * ``headers``: how many headers a request or a response may have.
    * ``head``: of all their lines together.
    * ``request_body``: of the body of a request that ``process_request`` is to see.
    * ``response_body``: of the body of a response that refuses; the rest of it is cut
      off.
    * ``redirects``: how many a client follows in a row.

    And afterwards:

    * ``short_fragments``: how many of a message's fragments may be shorter than 16
      bytes.

    Raises TypeError for what isn't an int, ValueError for one that is negative, more
    than 2,147,483,647, or, of the first three, 0.
    """

    header_line: int = 8192
    headers: int = 100
    head: int = 32768
    request_body: int = 65536
    response_body: int = 65536
    redirects: int = 10
    short_fragments: int = 4096

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(
                    f"limits: expected an int as {field.name}; got {value!r}"
                )
            least = int(field.name in _AT_LEAST_ONE)
            if not least <= value <= _MOST:
                raise ValueError(
                    f"limits: expected {least} to {_MOST} as {field.name}; got {value}"
                )


DEFAULT_LIMITS = Limits()


def setting(name: str) -> str:
    """Say how a limit is moved, for an error."""
    return f"(limits=Limits({name}=...))"
