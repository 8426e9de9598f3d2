"""Reads for many connections in one task, by an epoll of our own.

trio's own wait for a socket is for once: each costs a system call and a switch to the
task that waited, and both cost more the more sockets there are. An epoll object can
itself be waited for. So one task waits for those of all connections, and goes from one
to the next of those that have something. Its registrations last, since the kernel tells
of a socket again as long as anything is left in it (it is level-triggered).

The reading itself is done before that task has its step, right after trio has waited:
who receives has the message in the same turn of the loop, not in the next one. But code
of the user's, as of an extension or a log, is called in a task.
"""

from __future__ import annotations

import errno
import select
import sys
from contextlib import suppress
from contextvars import Context
from time import perf_counter
from typing import Any, Protocol

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from .counter import SECONDS

# So many connections are read, or for so long, before others have their turn.
_BATCH = 64

# As a receiver that reads does, this task looks again after one turn of the loop, which
# costs less than to wait. After a look in vain it waits once before the next, after
# further ones 3 times, 7, up to so many.
_MOST_WAITS = 15

# Of so few connections that are busy the receivers read: a round trip takes a third
# less. With more of them, those that look in vain, or nap, make the others wait.
_FEW = 16

# Where the system is short of what it takes to wait: what has come stays where it is.
_SHORTAGES = (errno.ENOMEM, errno.ENOSPC)
_SHORTAGE_SLEEP = 0.1


class Readable(Protocol):
    """What is read for: a Reader."""

    calls_user: bool  # to read may be to call code of the user's

    def read_on(self, few: bool) -> None:
        """Read what is there. Raises nothing."""

    def wake(self) -> None:
        """Have it read for itself."""


class Poller(trio.abc.Instrument):
    """Waits for the sockets of a server's connections, and has them read."""

    __slots__ = (
        "_calling_user",
        "_context",
        "_epoll",
        "_errors",
        "_events",
        "_found",
        "_readers",
        "_ready",
        "_scope",
        "_stale",
        "standing_by",
    )

    def __init__(self) -> None:
        self._epoll: Any = None  # a select.epoll, while this runs
        self._events = 0  # what it is to tell of
        self._readers: dict[int, Readable] = {}
        self._stale = False  # the epoll may know of what can't be unregistered
        self._ready: list[tuple[int, int]] = []  # those to be read, the next one last
        self._found: bool | None = None  # whether any were, if this turn has looked
        self._context = Context()  # of the task
        self._calling_user = 0  # how many of the readers do
        self._errors: list[BaseException] = []  # that the task is to raise
        # What ends the connections, and waits for them, says when this ends.
        self._scope = trio.CancelScope(shield=True)
        self.standing_by = 0  # how many connections' receivers read

    def add(self, fd: int, reader: Readable) -> bool:
        """Read for a connection from now on; return whether that is possible."""
        if self._epoll is None or fd < 0:
            return False
        if fd in self._readers:
            # Somebody has closed that one's descriptor: its number is another's.
            self._readers[fd].wake()
        try:
            self._epoll.register(fd, self._events)
        except OSError:  # the system has a limit, for instance
            return False
        self._readers[fd] = reader
        self._calling_user += reader.calls_user
        self._install()
        return True

    def remove(self, fd: int) -> None:
        """Read no longer for it."""
        self._calling_user -= self._readers.pop(fd).calls_user
        self._install()
        if self._epoll is None:
            return
        try:
            self._epoll.unregister(fd)
        except OSError:
            # Somebody has closed the descriptor, or the epoll's. If there is a copy of
            # the former, as in a process that was forked, it would be told of for ever.
            self._stale = True
            trio.lowlevel.notify_closing(self._epoll)  # begin anew, that is

    @enable_ki_protection
    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Read until stop(); connections that are left then read for themselves.

        Where there is no epoll, or none to be had, they do so from the beginning.
        """
        try:
            with suppress(OSError):  # there may be too many descriptors
                self._open()
            task_status.started()
            # Where start() was cancelled it waits for this, and nobody calls stop().
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._epoll is not None:
                self._context = trio.lowlevel.current_task().context
                with self._scope:
                    await self._read_on()
        finally:
            self._close()
            self._install()
            for reader in list(self._readers.values()):
                reader.wake()

    def _install(self) -> None:
        """Be an instrument while that is of use: it costs each turn of the loop."""
        if self._epoll is not None and self._readers and not self._calling_user:
            trio.lowlevel.add_instrument(self)  # again is nothing
        else:
            with suppress(KeyError):  # it is none
                trio.lowlevel.remove_instrument(self)

    def _open(self) -> None:
        if sys.platform == "linux":
            self._events = select.EPOLLIN
            self._epoll = select.epoll()

    def _close(self) -> None:
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
            trio.lowlevel.notify_closing(epoll)  # trio may know its number
            with suppress(OSError):  # somebody may have closed it
                epoll.close()

    def stop(self) -> None:
        """End run()."""
        self._scope.cancel()

    async def _read_on(self) -> None:
        while True:
            try:
                await self._read()
                self._begin_anew()
            except trio.ClosedResourceError:
                continue  # of a socket that had its number, which somebody has closed
            except trio.BusyResourceError:
                return  # somebody has closed the epoll: its number is another's
            except (OSError, MemoryError) as exc:
                if isinstance(exc, OSError) and exc.errno not in _SHORTAGES:
                    return  # the same, or there are too many descriptors
                await trio.sleep(_SHORTAGE_SLEEP)

    def _begin_anew(self) -> None:
        """Make another epoll, of what is read for and nothing else."""
        assert sys.platform == "linux"  # which has had the one before
        self._close()
        self._open()
        for fd, reader in list(self._readers.items()):
            try:
                self._epoll.register(fd, self._events)
            except OSError:
                reader.wake()
        self._stale = False

    async def _read(self) -> None:
        """Read until the epoll is stale."""
        epoll = self._epoll
        waits = vain_waits = 0
        while not self._stale:
            if self._errors:
                raise self._errors.pop()
            looks = not waits
            if looks:
                await checkpoint()
            else:
                waits -= 1
                await trio.lowlevel.wait_readable(epoll)
            found, self._found = self._found, None
            if found is None:
                found = self._look()
            if self._ready:  # in the next turn
                waits = vain_waits = 0
            elif looks:
                more = min(2 * vain_waits + 1, _MOST_WAITS)
                waits = vain_waits = 0 if found else more

    @enable_ki_protection
    def after_io_wait(self, timeout: float) -> None:
        """Read before tasks have their steps, as trio's instrument."""
        self._found = None
        if self._epoll is not None:
            try:
                self._found = self._context.run(self._look)
            except (OSError, MemoryError):
                pass  # the task meets with it, too
            except BaseException as exc:  # noqa: BLE001 - raised in the task
                # Of a handler of a signal, say. trio would log it and go on.
                self._errors.append(exc)
                trio.lowlevel.notify_closing(self._epoll)

    def _look(self) -> bool:
        """Read for those that have something; return whether there were any."""
        if not self._ready:
            self._ready = self._epoll.poll(0, _BATCH)
        ready, readers = self._ready, self._readers
        found = bool(ready)
        few = len(ready) + self.standing_by <= _FEW
        until = perf_counter() + SECONDS
        while ready:
            fd, _ = ready.pop()
            reader = readers.get(fd)
            if reader is None:
                continue  # removed since
            reader.read_on(few)
            if perf_counter() >= until:
                break  # the rest has its turn before those that are read have another
        return found
