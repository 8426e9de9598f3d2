"""Cancellations while other things happen: other tasks, a loss, the whole block."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing

from tests.contract.moments import Moments, sweep
from tests.contract.operations import LARGE, make_ends
from tests.peers.strict_peer import StrictPeer
from trio_ws import (
    ConcurrencyError,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
)
from trio_ws.testing import full_checkpoints

pytestmark = pytest.mark.sweep

SIDES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])


async def live(peer: StrictPeer) -> None:
    await peer.open()
    await peer.run()


async def recv_for_ever(ws: Connection) -> None:
    while True:
        await ws.recv()


@SIDES
def test_recv_is_cancelled_while_another_task_sends(client: bool) -> None:
    async def scenario(moments: Moments) -> None:
        us, peer = make_ends("lockstep", client=client)
        received = []
        with full_checkpoints():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(live, peer)
                async with us as ws:
                    ws.nursery.start_soon(ws.send, LARGE)
                    ws.nursery.start_soon(ws.send, ["one ", "two ", "three"])
                    nursery.start_soon(peer.send, LARGE)
                    with trio.CancelScope() as scope:
                        with moments.watch(scope.cancel):
                            received.append(await ws.recv())
                    if not received:
                        received.append(await ws.recv())
                    await peer.wait_message(LARGE)
                    await peer.wait_message("one two three")
        assert received == [LARGE]
        assert sorted(map(str, peer.messages)) == [LARGE, "one two three"]
        assert peer.faults == []
        assert peer.close is not None
        assert peer.close.code == 1000

    assert sweep(scenario, mock_clock=True) > 3


@SIDES
def test_a_cancelled_sender_leaves_the_queue_of_senders(client: bool) -> None:
    """The one behind it sends, whichever of the three it is that holds the turn."""

    async def scenario(moments: Moments) -> None:
        us, peer = make_ends("lockstep", client=client, options={"write_limit": 1})
        accepted = []
        with full_checkpoints():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(live, peer)
                async with us as ws:

                    async def send(message: str) -> None:
                        await ws.send(message)
                        accepted.append(message)

                    peer.hold()
                    await send("in the socket")
                    await trio.testing.wait_all_tasks_blocked()
                    ws.nursery.start_soon(send, "in front")
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(release, peer)
                    with trio.CancelScope() as scope:
                        with moments.watch(scope.cancel):
                            async with trio.open_nursery() as senders:
                                senders.start_soon(send, "a")
                                senders.start_soon(send, "b")
                                senders.start_soon(send, "c")
                    with trio.fail_after(60):
                        await send("behind")
        assert accepted[-1] == "behind"
        assert peer.messages == accepted
        assert peer.faults == []

    assert sweep(scenario, mock_clock=True) > 3


async def release(peer: StrictPeer) -> None:
    await trio.testing.wait_all_tasks_blocked()
    peer.release()


@SIDES
def test_a_ping_that_ends_forgets_itself_alone(client: bool) -> None:
    """Between a pong and the task it wakes, another may ping with the same data."""

    async def scenario() -> None:
        us, peer = make_ends("memory", client=client, options={"ping_interval": None})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live, peer)
            async with us as ws:
                with trio.fail_after(600):
                    async with trio.open_nursery() as pingers:
                        pingers.start_soon(ping_often, ws)
                        pingers.start_soon(ping_often, ws)

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


async def ping_often(ws: Connection) -> None:
    answered = 0
    while answered < 50:
        try:
            await ws.ping(b"the same")
            answered += 1
        except ConcurrencyError:
            await trio.lowlevel.checkpoint()


@SIDES
@pytest.mark.parametrize("first", ["cancel", "loss"])
@pytest.mark.parametrize("call", ["recv", "send", "fragments", "ping", "aclose"])
def test_cancel_and_loss_in_one_turn(client: bool, first: str, call: str) -> None:
    async def operation(ws: Connection) -> None:
        if call == "recv":
            await ws.recv()
        elif call == "send":
            await ws.send(LARGE)
            await ws.send("more")
        elif call == "fragments":
            await ws.send([LARGE, "more"])
        elif call == "ping":
            await ws.ping()
        else:
            await ws.aclose()

    async def scenario(moments: Moments) -> None:
        us, peer = make_ends("memory", client=client, options={"write_limit": 1})
        peer.answers = call == "aclose"
        stream = peer.stream
        assert isinstance(stream, trio.StapledStream)

        def lose() -> None:
            # As an abortive close does: nothing more comes, nothing more goes.
            stream.send_stream.close()
            stream.receive_stream.close()

        def act() -> None:
            if first == "loss":
                lose()
            scope.cancel()
            if first == "cancel":
                lose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(live, peer)
            # The body is told of it, so leaving the block says nothing.
            async with us as ws:
                with trio.CancelScope() as scope:
                    with moments.watch(act), suppress(ConnectionClosed):
                        await operation(ws)
                if not moments.fired:
                    lose()
                with trio.fail_after(60):
                    with pytest.raises(ConnectionClosed):
                        await recv_for_ever(ws)
                    with pytest.raises(ConnectionClosed):
                        await ws.send("late")
                    try:
                        await ws.aclose()
                    except ConnectionClosedError:
                        # What its own cancelled aclose() couldn't write is told
                        # once; else the body was told of the loss already.
                        assert call == "aclose"
                    await ws.aclose()
                    await ws.wait_closed()
                assert not ws._endpoint.pings._pending

    assert sweep(scenario, mock_clock=True) >= 1


@SIDES
@pytest.mark.parametrize("transport", ["memory", "tcp"])
def test_the_whole_block_is_cancelled(client: bool, transport: str) -> None:
    """All tasks of a busy connection at once; the peer hears 1001 and the end."""

    async def scenario(moments: Moments) -> None:
        us, peer = make_ends(transport, client=client)
        sent = 0
        received: list[str | bytes] = []
        told = False
        on_tcp = transport == "tcp"

        async def sending(ws: Connection) -> None:
            nonlocal sent
            while True:
                await ws.send(str(sent))
                sent += 1

        async def receiving(ws: Connection) -> None:
            async for message in ws:
                received.append(message)

        async def pinging(ws: Connection) -> None:
            while True:
                await ws.ping()

        async def feeding() -> None:
            # What comes to a socket just as it is closed resets it, and what the kernel
            # had not sent is lost: no test of that, which takes luck.
            while not (peer.ended.is_set() or (on_tcp and scope.cancel_called)):
                await peer.send(str(len(peer.sent)))
                await trio.lowlevel.checkpoint()

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live, peer)
            with scope:
                async with us as ws:
                    nursery.start_soon(feeding)
                    ws.nursery.start_soon(sending, ws)
                    ws.nursery.start_soon(receiving, ws)
                    ws.nursery.start_soon(pinging, ws)
                    with moments.watch(scope.cancel):
                        for _ in range(20):
                            await trio.lowlevel.checkpoint()
                    told = not scope.cancel_called
                    scope.cancel()
                    await trio.sleep_forever()
            assert scope.cancelled_caught
        assert told or moments.fired
        assert received == peer.sent[: len(received)]
        assert peer.messages == [str(n) for n in range(len(peer.messages))]
        # What was being handed over as the cancellation came is still sent.
        assert len(peer.messages) == sent
        assert peer.faults == []
        assert not peer.cut
        assert peer.close is not None
        assert peer.close.code == 1001

    assert sweep(scenario, mock_clock=transport == "memory") > 20
