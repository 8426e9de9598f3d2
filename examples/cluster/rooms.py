"""Rooms whose members are on several processes and hosts, by Redis 7 and coredis.

To copy. A message is in the stream of its room before anybody has it; from there it is
published, and each process that has members of the room broadcasts it to them.
"""

import logging
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal
from urllib.parse import quote

import trio
from coredis import PureToken

from trio_ws import Connection, broadcast

from .redis_link import Id, Subscriptions, insist, open_client, parse_id

Slow = Literal["skip", "close"]
BEAT, KEPT = 20, 3600  # seconds: between signs of life; what nobody uses
logger = logging.getLogger(__name__)

PUBLISH = """
local had = tonumber(redis.call('GET', KEYS[3]) or '0')
for i = 4, #ARGV do
  if ARGV[1] + i - 4 > had then
    local n = redis.call('INCR', KEYS[2])
    local text, limit = ARGV[i], ARGV[2]
    local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', limit, '*', 'n', n, 't', text)
    redis.call('SPUBLISH', KEYS[1], id .. ' ' .. n .. ' ' .. text)
  end
end
redis.call('SET', KEYS[3], ARGV[1] + #ARGV - 4)
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
"""


class Room:
    """What a process knows of a room: its members here, its last messages."""

    def __init__(self, name: str, history: int, waiting: int) -> None:
        self.key = f"ws:{{{quote(name, safe='')}}}"  # one slot of a Redis Cluster
        self.origin = uuid.uuid4().hex
        self.members: dict[Connection, str] = {}
        self.users = 0  # members, and those who are about to be
        self.log: deque[tuple[Id, str]] = deque(maxlen=history)
        self.last = self.newest = parse_id("0")  # delivered; known to be in the stream
        self.count: int | None = None  # of the last that was delivered
        self.behind = self.stale = False
        self.ready, self.changed = trio.Event(), trio.Event()
        self.outbox, self.unsent = trio.open_memory_channel[str](waiting)

    async def send(self, text: str) -> None:
        """Send to all in the room, on all processes, once, in order, by Redis.

        Waits while ``waiting`` of this process do. **Cancellation**: it isn't sent.
        """
        await self.outbox.send(text)


class Rooms:
    """All rooms of a process; open_rooms() makes it."""

    def __init__(
        self, client: Any, nursery: trio.Nursery, sizes: tuple[int, int], slow: Slow
    ) -> None:
        self.client, self.nursery, self.sizes, self.slow = client, nursery, sizes, slow
        self.script = client.register_script(PUBLISH)
        self.rooms: dict[str, Room] = {}  # by their keys
        self.subscriptions = Subscriptions(client, nursery, self._take)
        self.lost = self.slow_clients = 0  # in all

    @asynccontextmanager
    async def join(
        self, ws: Connection, name: str, who: str, since: Id = (0,)
    ) -> AsyncIterator[Room]:
        """Have a connection be in a room while a block runs.

        It is sent the last ``history`` messages, of those after ``since``, and all that
        come, once and in order, as "ID TEXT". Who comes back, to any process, gives the
        last ID it has. Waits for Redis if nobody here is in the room yet.
        """
        last, new = since, Room(name, *self.sizes)
        room = self.rooms.setdefault(new.key, new)
        room.users += 1
        if room is new:
            for task in self._publish, self._beat:
                self.nursery.start_soon(task, room)
        try:
            await room.ready.wait()
            while missed := [item for item in room.log if item[0] > last]:
                for last, frame in missed:  # noqa: B007 - the while uses it
                    await ws.send(frame)
                if room.log[0][0] > last:  # what it would be sent next is gone
                    await ws.aclose(1008, "reads too slowly")
            room.members[ws] = who  # nothing came since the last look
            room.changed.set()
            yield room
        finally:
            room.members.pop(ws, None)
            room.changed.set()
            room.users -= 1
            if not room.users:
                del self.rooms[room.key]  # who comes next has a new one
                room.outbox.close()
                self.subscriptions.unsubscribe(room.key)

    async def here(self, room: Room) -> set[str]:
        """Return who is in a room, on any process; who was killed, for 3 BEATs more."""
        key, now = f"{room.key}:here", time.time()
        names = await self.client.zrange(key, now, "+inf", sortby=PureToken.BYSCORE)
        return {name.decode().rpartition(" ")[0] for name in names}

    async def _publish(self, room: Room) -> None:
        """Publish once, though an answer may be lost: the script had their numbers."""
        number = 1  # of the next
        keys = [room.key, f"{room.key}:count", f"{room.key}:by:{room.origin}"]
        async for text in room.unsent:
            batch = [text]
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                while len(batch) < 100:
                    batch.append(room.unsent.receive_nowait())
            await insist(self.script, keys, [number, self.sizes[0], KEPT, *batch])
            number += len(batch)

    async def _beat(self, room: Room) -> None:
        """Tell Redis who is here, again and again, since it may forget."""
        key, shown = f"{room.key}:here", set[str]()
        while room.users or shown:
            room.changed = trio.Event()
            if room.users:
                self.subscriptions.subscribe(room.key)  # a cluster may have moved it
            names = {f"{who} {room.origin}" for who in room.members.values()}
            if gone := shown - names:
                await insist(self.client.zrem, key, gone)
            if new := dict.fromkeys(names - shown or names, time.time() + 3 * BEAT):
                await insist(self.client.zadd, key, new)
                await insist(self.client.expire, key, KEPT)
            shown = names
            with trio.move_on_after(BEAT):
                await room.changed.wait()

    def _take(self, key: str, message: bytes | None) -> None:
        """Deliver what comes in order; see to the rest by the stream."""
        if (room := self.rooms.get(key)) is None:
            return
        if message is None:
            room.stale = True
        else:
            id_, count, text = message.decode().split(" ", 2)
            if parse_id(id_) <= room.last:
                return
            if not room.behind and int(count) - 1 == room.count:
                self._deliver(room, id_, count, text)
                return
            room.newest = parse_id(id_)
        if not room.behind:
            room.behind = True
            self.nursery.start_soon(self._catch_up, room)

    async def _catch_up(self, room: Room) -> None:
        """Deliver from the stream what pub/sub didn't bring, once, in order."""
        while room.stale or room.newest > room.last:
            aim, room.stale = room.newest, False
            start = "(" + "-".join(map(str, room.last))
            for entry in await insist(self.client.xrange, room.key, start, "+"):
                parts = entry.identifier, *entry.field_values.values()
                self._deliver(room, *(part.decode() for part in parts))
                await trio.lowlevel.checkpoint()  # lets it be written
            room.last = max(room.last, aim)  # which Redis may have forgotten
            room.ready.set()
        room.behind = False

    def _deliver(self, room: Room, id_: str, count: str, text: str) -> None:
        """Broadcast to the members here; count and log what can't be had any more."""
        if room.count is not None and int(count) != room.count + 1:
            self.lost += (lost := max(int(count) - room.count - 1, 0))
            where = room.key, lost, room.count, count
            logger.error("%s: %d lost between messages %d and %s", *where)
        room.count, room.last = int(count), parse_id(id_)
        room.log.append((room.last, frame := f"{id_} {text}"))
        self.slow_clients += len(broadcast(room.members, frame, slow=self.slow))


@asynccontextmanager
async def open_rooms(
    url: str, history: int = 100, waiting: int = 1000, slow: Slow = "close"
) -> AsyncIterator[Rooms]:
    """Have rooms while a block runs, of a Redis or a Redis Cluster alike.

    ``history`` is how many messages a room keeps; ``waiting``, how many of it may wait
    for Redis; ``slow`` is that of broadcast(). Raises what open_client() does.
    """
    async with open_client(url) as client, trio.open_nursery() as nursery:
        yield Rooms(client, nursery, (history, waiting), slow)
        nursery.cancel_scope.cancel()
