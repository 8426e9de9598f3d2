"""The end of a pair's block, whatever tasks it leaves in the nurseries."""

from __future__ import annotations

import trio
import trio.testing
from trio.lowlevel import enable_ki_protection

from .._connection.sides import ClientConnection, ServerConnection

# So many seconds after the block's end no task of it is waited for any more. To find a
# loss, to be told of it and to close takes less, each by its default.
_PATIENCE = 90


class _Exits(trio.abc.Instrument):
    """Tells when a nursery has no tasks any more."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.none_left = trio.Event()
        self.task_exited(None)

    def task_exited(self, task: trio.lowlevel.Task | None) -> None:
        if not self._nursery.child_tasks:
            self.none_left.set()


class LastTasks:
    """What the tasks in the nurseries of a pair wait for when its block has ended.

    The server's side is left first, and waits for its tasks. They may wait for the
    client to close, as an echo does, whose own are done already.
    """

    def __init__(self, client: ClientConnection, server: ServerConnection) -> None:
        self._client = client
        self._server = server
        self._scope = trio.CancelScope()
        self.late: list[str] = []  # tasks that were waited for in vain

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._scope.cancel()

    @enable_ki_protection
    async def watch(self, pair: trio.CancelScope) -> None:
        """Close the client when its tasks are done; cancel what takes long."""
        with self._scope:
            with trio.move_on_after(_PATIENCE):
                if self._server.nursery.child_tasks:
                    await self._close_client()
                await trio.sleep_forever()
            self.late = [
                f"{task.name} in {side}.nursery"
                for side, connection in (
                    ("client", self._client),
                    ("server", self._server),
                )
                for task in connection.nursery.child_tasks
            ]
            if self.late:
                pair.cancel()

    async def _close_client(self) -> None:
        exits = _Exits(self._client.nursery)
        trio.lowlevel.add_instrument(exits)
        try:
            await exits.none_left.wait()
        finally:
            trio.lowlevel.remove_instrument(exits)
        # What the server has received is its to answer.
        await trio.testing.wait_all_tasks_blocked()
        await self._client.aclose()

    def error(self) -> RuntimeError | None:
        """Return what to raise for tasks that were late, None if none was."""
        if not self.late:
            return None
        return RuntimeError(
            f"open_pair(): {_PATIENCE} s after the end of its block these tasks still "
            f"ran, and were cancelled: {', '.join(sorted(self.late))}. Close a side "
            f"for which the other waits, with aclose(), or cancel what never ends."
        )
