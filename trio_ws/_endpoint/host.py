"""What the parts of an endpoint tell it."""

from __future__ import annotations

from typing import Protocol


class Host(Protocol):
    """An endpoint, as its parts know it."""

    def changed(self) -> None:
        """Act on what a step of the engine brought."""

    def lost(self, exc: OSError) -> None:
        """Take note that the transport is broken."""

    def write_failed(self, exc: OSError) -> None:
        """Act on an error that writing met with."""

    def after_flush(self) -> None:
        """Act on there being nothing to write, after the end of the connection."""

    def fail(self, code: int, reason: str, cause: BaseException | None) -> None:
        """Give the connection up."""
