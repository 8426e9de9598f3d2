"""Bad links between two networks of this process, over which the kernel speaks TCP."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path

import trio

from tests.programs.faults.emulator import Weather
from tests.programs.faults.harness import Child, Skipped, child

CLIENT, SERVER = 0, 1
SIDES = CLIENT, SERVER

# unshare(2)
NEW_NETWORK, NEW_USER = 0x4000_0000, 0x1000_0000
OWN = "/proc/thread-self/ns/net"
# linux/if_tun.h, linux/sockios.h, linux/if.h
TUNSETIFF, TUN_WITHOUT_HEADER = 0x4004_54CA, 0x1001
SET_FLAGS, SET_ADDRESS, SET_MASK = 0x8914, 0x8916, 0x891C
UP_AND_RUNNING = 0x41
CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")


class Networks:
    """Two networks that nothing else can reach, and that end with this process.

    The process is moved into one of them, the clients', so it has to be the only
    thread still; raises Skipped where the system doesn't allow all that.
    """

    def __init__(self) -> None:
        self._numbers = count(1)
        try:
            self._client = self._new(NEW_USER if os.geteuid() else 0)
            self._server = self._new()
            self._enter(self._client)
            for end in self.link()[1]:  # whether that is allowed
                os.close(end)
        except OSError as exc:
            raise Skipped(
                f"it needs network namespaces and TUN devices: {exc}"
            ) from None

    def _new(self, others: int = 0) -> int:
        _call("unshare", NEW_NETWORK | others)
        request("lo", SET_FLAGS, struct.pack("H", UP_AND_RUNNING))
        # What fills queues, and is in every kernel.
        CONGESTION.write_text("reno", encoding="ascii")
        return os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)

    def _enter(self, network: int) -> None:
        _call("setns", network, NEW_NETWORK)

    @contextlib.contextmanager
    def servers(self) -> Iterator[None]:
        """Be in the servers' network; without a checkpoint."""
        self._enter(self._server)
        try:
            yield
        finally:
            self._enter(self._client)

    def link(self) -> tuple[str, tuple[int, int]]:
        """Make two devices; return the server's address, and both descriptors."""
        number = next(self._numbers)
        client = device(f"tun{number}", f"10.77.{number}.1")
        try:
            address = f"10.77.{number}.2"
            with self.servers():
                return address, (client, device(f"tun{number}", address))
        except OSError:
            os.close(client)
            raise


def _call(name: str, *arguments: int) -> None:
    """Call what Python 3.12 has in os."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def request(name: str, what: int, value: bytes) -> None:
    """Change something of an interface: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        ioctl(any_socket.fileno(), what, struct.pack("16s24s", name.encode(), value))


def ioctl(number: int, what: int, value: bytes) -> None:
    import fcntl  # not everywhere, while rows are listed everywhere

    fcntl.ioctl(number, what, value)


def device(name: str, address: str) -> int:
    """Make a TUN device, which is there for as long as its descriptor is open."""
    number = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = struct.pack("16sH22x", name.encode(), TUN_WITHOUT_HEADER)
        ioctl(number, TUNSETIFF, kind)
        for what, ip in ((SET_ADDRESS, address), (SET_MASK, "255.255.255.252")):
            parts = struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(ip))
            request(name, what, parts)
        request(name, SET_FLAGS, struct.pack("H", UP_AND_RUNNING))
    except OSError:
        os.close(number)
        raise
    return number


class Tunnel:
    """A link whose weather, and whose end, is told it."""

    def __init__(self, networks: Networks, host: str, emulator: Child) -> None:
        self.host = host
        self._networks = networks
        self._emulator = emulator

    async def weather(self, weather: Weather, *sides: int) -> None:
        """Change what happens to what these sides send; to all, if none is named."""
        given = asdict(weather)
        await self._emulator.ask("weather", sides=sides or SIDES, **given)

    async def cut(self, side: int) -> None:
        """Take the device of one side away, as a machine does that has no power."""
        await self._emulator.ask("cut", side=side)

    async def seen(self) -> Counter[str]:
        """Return what became of packets so far."""
        return Counter(await self._emulator.ask())

    def listen(self) -> trio.SocketListener:
        """Listen at the servers' side."""
        with self._networks.servers():
            listening = socket.socket()  # which stays where it was made
        try:
            listening.bind((self.host, 0))
            listening.listen(100)
            return trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        except BaseException:
            listening.close()
            raise


@contextlib.asynccontextmanager
async def tunnel(networks: Networks) -> AsyncIterator[Tunnel]:
    """Make a link, moved by emulator.py."""
    host, ends = networks.link()
    async with contextlib.AsyncExitStack() as stack:
        try:
            process = child("emulator.py", *map(str, ends), keeps=ends)
            emulator = await stack.enter_async_context(process)
        finally:
            for end in ends:
                os.close(end)
        yield Tunnel(networks, host, emulator)
