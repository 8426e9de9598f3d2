"""One side of a connection, watched: where its code is, and what it sees."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType

import trio

from ... import Connection
from .code import LINES

#: A line of the functions that the page shows: a name, and a number from 0 on.
Line = tuple[str, int]

#: What is told of a side: a kind, a text, word for word, and which function saw that.
Tell = Callable[[str, str, str], None]


class Side:
    """The server's or the client's side of a lane.

    ``tell`` is called with all that its code sees, when it does.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._task: trio.lowlevel.Task | None = None
        self.ws: Connection | None = None
        self.raised: list[Line] = []  # where the exception went through
        self.ended = False
        self._end = "closed"

    @property
    def state(self) -> str:
        """The connection's state as one sees it from this side."""
        if self.ended:
            return self._end
        if self.ws is None:
            return "opening"
        return "open" if self.ws.state.name == "OPEN" else "closing"

    @contextmanager
    def watching(self, name: str) -> Iterator[None]:
        """Tell how a block ends that calls a function of that name; hide nothing."""
        self._task = trio.lowlevel.current_task()
        try:
            yield
            self._tell("returned", f"{name}() returned", name)
        except BaseException as exc:
            self._end = "lost" if isinstance(exc, Exception) else "cancelled"
            self.raised = [*_lines_of(exc)]
            self.saw(exc, name)
            raise
        finally:
            self._task = None
            self.ended = True

    def saw(self, exc: BaseException, name: str) -> None:
        """Tell what a function of that name raises, and what it was raised from."""
        self._tell("raised", said(exc), name)
        cause = exc.__cause__
        while cause is not None:
            self._tell("cause", said(cause), name)
            cause = cause.__cause__

    @property
    def tasks(self) -> list[trio.lowlevel.Task]:
        """The tasks that run in its block, the block's own first."""
        tasks = [] if self._task is None else [self._task]
        return [*tasks, *(self.ws.nursery.child_tasks if self.ws is not None else ())]

    def here(self) -> list[Line]:
        """Return the lines that its tasks are at; those of its end once it is over."""
        if self._task is None:
            return self.raised
        found = (
            _line(frame.f_code, number)
            for task in self.tasks
            for frame, number in task.iter_await_frames()
        )
        return [line for line in found if line is not None]


def _line(code: CodeType, number: int) -> Line | None:
    if code not in LINES:
        return None
    name, first = LINES[code]
    return name, number - first


def _lines_of(exc: BaseException) -> Iterator[Line]:
    for frame, number in traceback.walk_tb(exc.__traceback__):
        if (line := _line(frame.f_code, number)) is not None:
            yield line


def said(exc: BaseException) -> str:
    """Return an exception as the last line of its traceback has it."""
    return traceback.format_exception_only(exc)[0].strip()


class TellingHandler(logging.Handler):
    """Tells each line of a log: its first, and behind it what belongs to it."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell
        self.setFormatter(logging.Formatter("%(levelname)s:%(name)s:%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Tell a line of the log."""
        self._tell("log", self.format(record), "")


def logger_that_tells(tell: Tell) -> logging.Logger:
    """Return a logger of its own, so that no other has its lines, nor it theirs."""
    # Not one of getLogger()'s, which every lane would have in common.
    logger = logging.Logger("trio_ws.server", logging.INFO)  # noqa: LOG001
    logger.addHandler(TellingHandler(tell))
    return logger
