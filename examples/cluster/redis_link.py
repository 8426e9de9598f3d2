"""What rooms.py needs of Redis 7, or a Redis Cluster, beyond coredis; to copy with it.

coredis' own subscriptions to sharded channels end for all nodes when one is lost. These
have a connection for each node, keep trying, and say when they are back.
"""

import logging
from binascii import crc_hqx
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar

import trio
from coredis import Redis, RedisCluster
from coredis.connection import BaseConnection, TCPLocation
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

T = TypeVar("T")
Id = tuple[int, ...]
RETRY = 0.25  # seconds between attempts
FAILED = (RedisError, OSError)  # a TimeoutError is an OSError
logger = logging.getLogger(__name__)


def parse_id(text: str) -> Id:
    """Return the ID of a message in a stream, which sorts; raise ValueError."""
    return tuple(map(int, text.split("-")))


@asynccontextmanager
async def open_client(url: str) -> AsyncIterator[Any]:
    """Have the client of a Redis, or of the Redis Cluster that it is a node of.

    Raises an exception of coredis, perhaps in a group, if it doesn't answer, and
    RuntimeError if it is older than Redis 7.
    """
    options: Any = {"stream_timeout": 2, "connect_timeout": 2}
    options["retry_policy"] = NoRetryPolicy()
    async with Redis.from_url(url, **options) as client:
        info: Any = await client.info()
    if int(str(info["redis_version"]).split(".")[0]) < 7:
        raise RuntimeError(f"expected Redis 7 or later; got {info['redis_version']}")
    kind: Any = RedisCluster if info["cluster_enabled"] else Redis
    async with kind.from_url(url, **options) as client:
        yield client


async def insist(call: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Ask Redis until it answers."""
    while True:
        try:
            return await call(*args)
        except FAILED as exc:
            logger.debug("Redis: %s", exc)
        await trio.sleep(RETRY)


class Subscriptions:
    """The channels that a process is subscribed to, each at the node that has it.

    Calls ``take(channel, message)``: with None once it is subscribed, and again after
    each loss, in which messages may have been missed.
    """

    def __init__(
        self,
        client: Any,
        nursery: trio.Nursery,
        take: Callable[[str, bytes | None], None],
    ) -> None:
        self._client, self._nursery, self._take = client, nursery, take
        self._places: dict[str, TCPLocation] = {}  # of channels
        self._links: dict[TCPLocation, BaseConnection | None] = {}

    def subscribe(self, channel: str) -> None:
        """Subscribe, or see to it that it is where the cluster has the channel now."""
        with suppress(RedisError):  # no node has it: the next call will tell
            place = self._place(channel)
            if place != self._places.get(channel):
                self._places[channel] = place
                self._tell(place, b"SSUBSCRIBE", channel)
                if place not in self._links:
                    self._links[place] = None
                    self._nursery.start_soon(self._keep, place)

    def unsubscribe(self, channel: str) -> None:
        """Take no more of a channel."""
        if place := self._places.pop(channel, None):
            self._tell(place, b"SUNSUBSCRIBE", channel)

    def _place(self, channel: str) -> TCPLocation:
        pool = self._client.connection_pool
        if not isinstance(self._client, RedisCluster):
            location: TCPLocation = pool.location
            return location
        tag = channel.partition("{")[2].partition("}")[0] or channel
        node = pool.cluster_layout.node_for_slot(crc_hqx(tag.encode(), 0) % 16384)
        return TCPLocation(node.host, node.port)

    def _tell(self, place: TCPLocation, command: bytes, channel: str) -> None:
        if link := self._links.get(place):
            with suppress(RedisError):  # lost: when it is made again, all is said again
                link.send_command(command, channel)

    async def _keep(self, place: TCPLocation) -> None:
        """Have a connection to a node; if lost, another within RETRY of its return."""
        lost: float | None = None
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    link = await self._open(place, nursery)
                    if lost:
                        away = trio.current_time() - lost
                        logger.warning("%s is back after %.1f s", place, away)
                    lost = None
                    await self._listen(link)
            except* FAILED as group:
                if not lost:
                    logger.warning("%s is lost: %s", place, group.exceptions[0])
                    lost = trio.current_time()
            self._links[place] = None
            for channel in [c for c, at in self._places.items() if at == place]:
                self.subscribe(channel)  # another node may have it now
            await trio.sleep(RETRY)

    async def _open(self, place: TCPLocation, nursery: trio.Nursery) -> BaseConnection:
        # None of the pool, which counts those that are lost in use as in use.
        pool = self._client.connection_pool
        link: BaseConnection = pool.connection_class(place, **pool.connection_kwargs)
        await nursery.start(link.run)
        nursery.start_soon(self._ping, link)
        self._links[place] = link
        for channel, at in self._places.items():
            if at == place:
                link.send_command(b"SSUBSCRIBE", channel)
        return link

    async def _listen(self, link: BaseConnection) -> None:
        async with aclosing(link.push_messages) as messages:
            message: Any
            async for message in messages:
                kind, channel, rest = message[0], message[1].decode(), message[2]
                if channel not in self._places:
                    continue
                if kind == b"sunsubscribe":  # an earlier one of ours, or it has moved
                    del self._places[channel]
                    self.subscribe(channel)
                else:
                    self._take(channel, rest if kind == b"smessage" else None)

    async def _ping(self, link: BaseConnection) -> None:
        while True:
            await trio.sleep(5)
            await link.create_request(b"PING", timeout=2)
