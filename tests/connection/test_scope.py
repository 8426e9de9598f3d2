"""How a connection's scope is left: what the peer hears, how long, what is raised.

The truth table of what leaves is in test_verdict.py.
"""

# ruff: noqa: PT012 - what raises is the end of a block, which has to be there

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing
from wsproto.events import BytesMessage, TextMessage

import trio_ws
from tests.memory import counts_references
from tests.peers.wsproto_peer import (
    BreakableStream,
    WsprotoPeer,
    open_against_peer,
    over,
)
from trio_ws._endpoint.keepalive import Keepalive

SIDES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])

AnyConnection = trio_ws.ClientConnection | trio_ws.ServerConnection


class UserError(Exception):
    """An error of the user's own."""


def stuck_streams() -> tuple[trio.StapledStream, trio.StapledStream]:  # type: ignore[type-arg]
    """Return streams on which a byte is sent only once it is received."""
    return trio.testing.lockstep_stream_pair()


# The body's own exception passes as it is


@SIDES
async def test_traceback_of_the_bodys_error_is_the_users_own(
    client: bool, nursery: trio.Nursery
) -> None:
    scope, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    with pytest.raises(UserError) as caught:
        async with scope:
            raise UserError
    frames = [frame.filename for frame in traceback.extract_tb(caught.tb)]
    assert frames == [__file__]


@SIDES
async def test_traceback_of_a_loss_shows_the_call_and_not_the_exit(
    client: bool, nursery: trio.Nursery
) -> None:
    scope, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    with pytest.raises(trio_ws.ConnectionClosedError) as caught:
        async with scope as ws:
            await peer.send_eof()
            await ws.recv()
    names = [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert names == [
        "test_traceback_of_a_loss_shows_the_call_and_not_the_exit",
        "recv",
    ]


@SIDES
@pytest.mark.parametrize("result", [None, UserError], ids=["normal", "error"])
async def test_the_exit_suppresses_nothing_of_what_it_did_not_cause(
    result: type[Exception] | None, client: bool, nursery: trio.Nursery
) -> None:
    scope, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    await scope.__aenter__()
    error = None if result is None else result()
    answer = await scope.__aexit__(result, error, None)
    assert answer is (result is None)


# Nested scopes: an inner connection's loss is the outer's user error


@SIDES
@pytest.mark.parametrize("told", [True, False])
async def test_inner_loss_is_an_error_for_the_outer_scope(
    told: bool,
    client: bool,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    outer, _, outer_peer = open_against_peer(client=client)
    inner, _, inner_peer = open_against_peer(client=client)
    nursery.start_soon(outer_peer.run)
    nursery.start_soon(inner_peer.run)
    with pytest.raises(trio_ws.ConnectionClosedError) as caught:
        async with outer:
            try:
                async with inner as ws:
                    await inner_peer.send_eof()
                    if told:
                        await ws.recv()
                    await trio.sleep_forever()
            except trio_ws.ConnectionClosedError as exc:
                raised = exc
                raise
    assert caught.value is raised
    await trio.testing.wait_all_tasks_blocked()
    assert outer_peer.close_code == 1011


@SIDES
async def test_inner_close_in_good_order_is_an_error_for_the_outer_scope(
    client: bool, nursery: trio.Nursery
) -> None:
    outer, _, outer_peer = open_against_peer(client=client)
    inner, _, inner_peer = open_against_peer(client=client)
    nursery.start_soon(outer_peer.run)
    nursery.start_soon(inner_peer.run)
    with pytest.raises(trio_ws.ConnectionClosedOK):
        async with outer, inner as ws:
            await inner_peer.close(1000)
            await ws.recv()
    await trio.testing.wait_all_tasks_blocked()
    assert outer_peer.close_code == 1011


@SIDES
async def test_inner_close_in_good_order_in_a_child_is_not_absorbed(
    client: bool, nursery: trio.Nursery
) -> None:
    # It isn't the outer connection that was closed in good order.
    outer, _, outer_peer = open_against_peer(client=client)
    inner, _, inner_peer = open_against_peer(client=client)
    nursery.start_soon(outer_peer.run)
    nursery.start_soon(inner_peer.run)

    async def child() -> None:
        async with inner as ws:
            await inner_peer.close(1000)
            await ws.recv()

    with pytest.raises(trio_ws.ConnectionClosedOK):
        async with outer as ws:
            ws.nursery.start_soon(child)
    await trio.testing.wait_all_tasks_blocked()
    assert outer_peer.close_code == 1011


@SIDES
async def test_outer_loss_tells_nobody_inside_an_inner_scope(
    client: bool, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    # The outer clock cancels the body of the inner scope like any other code.
    outer, _, outer_peer = open_against_peer(client=client)
    inner, _, inner_peer = open_against_peer(client=client)
    nursery.start_soon(outer_peer.run)
    nursery.start_soon(inner_peer.run)
    with pytest.raises(trio_ws.ConnectionClosedError) as caught:
        async with outer as outer_ws, inner:
            start = trio.current_time()
            await outer_peer.send_eof()
            await trio.sleep_forever()
    assert trio.current_time() - start == 10
    assert caught.value.connection is outer_ws
    assert isinstance(caught.value.__cause__, EOFError)
    await trio.testing.wait_all_tasks_blocked()
    assert inner_peer.close_code == 1001


@SIDES
async def test_both_lost_and_the_inner_raised(
    client: bool, nursery: trio.Nursery
) -> None:
    # The outer scope's verdict gives way to the inner's error.
    outer, _, outer_peer = open_against_peer(client=client)
    inner, _, inner_peer = open_against_peer(client=client)
    nursery.start_soon(outer_peer.run)
    nursery.start_soon(inner_peer.run)
    with pytest.raises(trio_ws.ConnectionClosedError) as caught:
        async with outer, inner as ws:
            await outer_peer.send_eof()
            await inner_peer.send_eof()
            await ws.recv()
    assert caught.value.connection is ws


# Groups (R12)


async def both_told(ws: AnyConnection, *more: BaseException) -> None:
    """Raise a group of the user's, of two losses of ws and what is added."""
    losses: list[BaseException] = []
    for _ in range(2):
        try:
            await ws.recv()
        except trio_ws.ConnectionClosed as exc:
            losses.append(exc)
    raise BaseExceptionGroup("the user's", [*losses, *more])


@SIDES
async def test_group_of_this_connections_losses_alone_is_reduced(
    client: bool, nursery: trio.Nursery
) -> None:
    scope, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    with pytest.raises(trio_ws.ConnectionClosedError) as caught:
        async with scope as ws:
            await peer.send_eof()
            try:
                await both_told(ws)
            except BaseExceptionGroup as group:
                members = group.exceptions
                raise
    assert any(caught.value is exc for exc in members)


@SIDES
async def test_of_several_losses_in_a_group_an_error_is_raised(
    client: bool, nursery: trio.Nursery
) -> None:
    scope, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    with pytest.raises(trio_ws.ConnectionClosedError):
        async with scope as ws:
            await peer.send_eof()
            with pytest.raises(trio_ws.ConnectionClosedError) as first:
                await ws.recv()
            await ws.aclose()
            with pytest.raises(trio_ws.ConnectionClosedOK) as second:
                await ws.recv()
            raise ExceptionGroup("the user's", [second.value, first.value])


@SIDES
@pytest.mark.parametrize("body", [True, False], ids=["body", "child"])
@pytest.mark.parametrize(
    "more",
    [UserError("and this"), KeyboardInterrupt()],
    ids=["user_error", "keyboard_interrupt"],
)
async def test_other_group_of_the_users_is_untouched(
    more: BaseException, body: bool, client: bool, nursery: trio.Nursery
) -> None:
    scope, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    raised: list[BaseException] = []

    async def raise_group(ws: AnyConnection) -> None:
        try:
            await both_told(ws, more)
        except BaseExceptionGroup as group:
            raised.append(group)
            raised.extend(group.exceptions)
            raise

    with pytest.raises(BaseExceptionGroup) as caught:
        async with scope as ws:
            await peer.send_eof()
            if body:
                await raise_group(ws)
            else:
                ws.nursery.start_soon(raise_group, ws)
    if body:
        assert caught.value is raised[0]
        frames = traceback.extract_tb(caught.tb)
        assert "__aexit__" not in [frame.name for frame in frames]
    # A nursery copies the groups of its tasks, with the same members.
    assert list(caught.value.exceptions) == raised[1:]
    assert caught.value.message == "the user's"


@SIDES
async def test_group_of_an_inner_connections_losses_is_untouched(
    client: bool, nursery: trio.Nursery
) -> None:
    outer, _, outer_peer = open_against_peer(client=client)
    inner, _, inner_peer = open_against_peer(client=client)
    nursery.start_soon(outer_peer.run)
    nursery.start_soon(inner_peer.run)
    raised: list[BaseException] = []
    with pytest.raises(ExceptionGroup) as caught:
        async with outer:
            try:
                async with inner as ws:
                    await inner_peer.send_eof()
                    await both_told(ws, UserError())
            except ExceptionGroup as group:
                raised.append(group)
                losses, _ = group.split(trio_ws.ConnectionClosed)
                assert losses is not None
                raise losses from None
    assert len(caught.value.exceptions) == 2
    assert caught.value.message == "the user's"


@SIDES
async def test_nursery_of_the_users_in_the_body(
    client: bool, nursery: trio.Nursery
) -> None:
    # Two tasks of a nested nursery fail: trio's own group, untouched.
    scope, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    raised: list[BaseException] = []

    async def fail() -> None:
        raise UserError

    with pytest.raises(ExceptionGroup) as caught:
        async with scope:
            try:
                async with trio.open_nursery() as inner:
                    inner.start_soon(fail)
                    inner.start_soon(fail)
            except ExceptionGroup as group:
                raised.append(group)
                raise
    assert caught.value is raised[0]
    await trio.testing.wait_all_tasks_blocked()
    assert peer.close_code == 1011


@SIDES
async def test_loss_in_a_nursery_of_the_users_comes_out_bare(
    client: bool, nursery: trio.Nursery
) -> None:
    # What everyone who reads in a nested nursery hopes for: except
    # ConnectionClosedError around the scope just works.
    scope, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    with pytest.raises(trio_ws.ConnectionClosedError) as caught:
        async with scope as ws:
            async with trio.open_nursery() as inner:
                inner.start_soon(ws.recv)
                await peer.send_eof()
    assert isinstance(caught.value.__cause__, EOFError)


@SIDES
async def test_two_errors_of_the_users_come_out_as_one_group(
    client: bool, nursery: trio.Nursery
) -> None:
    scope, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    first, second = UserError("first"), UserError("second")

    async def child(error: Exception) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    async def told(ws: AnyConnection) -> None:
        await ws.recv()

    with pytest.raises(ExceptionGroup) as caught:
        async with scope as ws:
            ws.nursery.start_soon(child, first)
            ws.nursery.start_soon(child, second)
            ws.nursery.start_soon(told, ws)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_eof()
            await trio.sleep_forever()
    # Neither the loss nor the body's Cancelled is in it.
    assert set(caught.value.exceptions) == {first, second}


# How long leaving takes, and what it raises (R11)


@SIDES
@pytest.mark.parametrize("error", [False, True])
async def test_close_timeout_bounds_leaving(
    error: bool,
    client: bool,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    scope, stream, peer = open_against_peer(client=client, options={"close_timeout": 7})
    peer.answers_close = False
    nursery.start_soon(peer.run)
    try:
        async with scope as ws:
            start = trio.current_time()
            if error:
                raise UserError
    except UserError:
        assert error
    assert trio.current_time() - start == 7
    assert stream.closed
    assert ws.close_code == 1006
    assert peer.close_code == (1011 if error else 1000)


@SIDES
@pytest.mark.parametrize("how", ["eof", "reset", "violation"])
async def test_how_the_peer_takes_the_close_frame_is_no_error(
    how: str,
    client: bool,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    scope, stream, peer = open_against_peer(client=client)
    peer.answers_close = False
    nursery.start_soon(peer.run)

    async def answer() -> None:
        await trio.sleep_until(start + 2)
        if how == "eof":
            await peer.send_eof()
        elif how == "reset":
            stream.reset()
        else:
            await peer.violate()

    async with scope as ws:
        start = trio.current_time()
        nursery.start_soon(answer)
        await ws.send("flushed")
    assert trio.current_time() - start == 2
    assert ws.close_code == 1006
    assert peer.close_code == 1000
    assert [type(event) for event in peer.events[1:-1]] == [TextMessage]


@SIDES
@pytest.mark.parametrize("how", ["silence", "reset"])
@pytest.mark.parametrize("by_aclose", [True, False], ids=["aclose", "exit"])
async def test_flush_that_fails_is_an_error(
    by_aclose: bool,
    how: str,
    client: bool,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = stuck_streams()
    scope, stream, peer = over(BreakableStream(ours), theirs, client=client)
    nursery.start_soon(peer.run)

    async def reset() -> None:
        await trio.sleep_until(start + 2)
        if how == "reset":
            stream.reset()

    with pytest.raises(trio_ws.ConnectionClosedError) as caught:
        async with scope as ws:
            await peer.wait_open()
            await trio.testing.wait_all_tasks_blocked()
            peer.stop_reading()
            await ws.send(b"x" * 2**16)
            await trio.testing.wait_all_tasks_blocked()
            await ws.send(b"y" * 100_000)
            start = trio.current_time()
            nursery.start_soon(reset)
            if by_aclose:
                await ws.aclose()
    assert trio.current_time() - start == (2 if how == "reset" else 10)
    assert caught.value.rcvd is None
    cause = ConnectionResetError if how == "reset" else TimeoutError
    assert isinstance(caught.value.__cause__, cause)
    assert ws.close_code == 1006
    await peer.aclose()


@SIDES
async def test_user_error_wins_over_a_flush_that_fails(
    client: bool, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ours, theirs = stuck_streams()
    scope, _, peer = over(BreakableStream(ours), theirs, client=client)
    nursery.start_soon(peer.run)
    error = UserError()
    with pytest.raises(UserError) as caught:
        async with scope as ws:
            await peer.wait_open()
            await trio.testing.wait_all_tasks_blocked()
            peer.stop_reading()
            await ws.send(b"x" * 2**16)
            await ws.send(b"y" * 100_000)
            start = trio.current_time()
            raise error
    assert caught.value is error
    assert trio.current_time() - start == 10
    await peer.aclose()


@SIDES
@pytest.mark.parametrize("error", [False, True])
async def test_cancelled_while_leaving(
    error: bool,
    client: bool,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    # Cancelled passes; an error of the user's stays, as it would in a nursery.
    scope, stream, peer = open_against_peer(client=client)
    peer.answers_close = False
    nursery.start_soon(peer.run)
    start = trio.current_time()
    caught: UserError | None = None
    with trio.move_on_after(3) as outer:
        try:
            async with scope as ws:
                if error:
                    raise UserError
        except UserError as exc:
            caught = exc
    assert trio.current_time() - start == 3
    assert (caught is not None) == error
    assert outer.cancelled_caught == (not error)
    assert stream.closed
    assert peer.close_code == (1011 if error else 1000)
    assert ws.close_code == 1006


@SIDES
async def test_scope_left_in_a_cancelled_scope_takes_no_time(
    client: bool, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    scope, stream, peer = open_against_peer(client=client)
    peer.answers_close = False
    nursery.start_soon(peer.run)
    start = trio.current_time()
    with trio.CancelScope() as outer:
        async with scope as ws:
            await ws.send("accepted")
            outer.cancel()
            await trio.sleep_forever()
    assert outer.cancelled_caught
    assert trio.current_time() == start
    assert stream.closed
    await trio.testing.wait_all_tasks_blocked()
    assert peer.close_code == 1001
    assert [e.data for e in peer.events if isinstance(e, TextMessage)] == ["accepted"]


# After the user's own aclose()


@SIDES
@pytest.mark.parametrize("answers", [True, False])
async def test_after_aclose_calls_raise_ok_and_nothing_else_happens(
    answers: bool,
    client: bool,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    scope, _, peer = open_against_peer(
        client=client, options={"loss_grace": 0, "close_grace": 0}
    )
    peer.answers_close = answers
    nursery.start_soon(peer.run)
    async with scope as ws:
        start = trio.current_time()
        await ws.aclose(4321, "enough")
        assert trio.current_time() - start == (0 if answers else 10)
        for call in (
            ws.recv,
            ws.receive,
            ws.ping,
            ws.pong,
            lambda: ws.send("x"),
            lambda: anext(ws.recv_streaming()),
        ):
            with pytest.raises(trio_ws.ConnectionClosedOK):
                await call()
        with pytest.raises(trio_ws.ConnectionClosedOK):
            ws.recv_nowait()
        with pytest.raises(trio_ws.ConnectionClosedOK):
            ws.send_nowait("x")
        assert [message async for message in ws] == []
        await ws.aclose()
        await ws.wait_closed()
        await trio.sleep(1000)
    assert (peer.close_code, peer.close_reason) == (4321, "enough")
    assert ws.close_code == (4321 if answers else 1006)


@SIDES
@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_loss_while_the_user_closes_is_no_loss(
    how: str,
    client: bool,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    scope, stream, peer = open_against_peer(client=client, options={"loss_grace": 0})
    peer.answers_close = False
    nursery.start_soon(peer.run)

    async def lose() -> None:
        await trio.sleep_until(start + 2)
        if how == "eof":
            await peer.send_eof()
        else:
            stream.reset()

    async with scope as ws:
        start = trio.current_time()
        nursery.start_soon(lose)
        await ws.aclose()
        assert trio.current_time() - start == 2
        await trio.sleep(100)
        with pytest.raises(trio_ws.ConnectionClosedOK):
            await ws.recv()
    assert ws.close_code == 1006


@SIDES
async def test_closed_is_closed_and_keeps_answering(
    client: bool, nursery: trio.Nursery
) -> None:
    scope, _, peer = open_against_peer(client=client)
    peer.answers_pings = False
    nursery.start_soon(peer.run)
    raised: list[BaseException] = []

    async def ping(ws: AnyConnection) -> None:
        with pytest.raises(trio_ws.ConnectionClosedError) as caught:
            await ws.ping()
        raised.append(caught.value)

    async with scope as ws:
        before = (ws.local_address, ws.remote_address)
        ws.nursery.start_soon(ping, ws)
        ws.nursery.start_soon(ping, ws)
        await trio.testing.wait_all_tasks_blocked()
        await peer.close(4000, "go")
    first, second = raised
    assert first is not second  # fresh for each
    assert (ws.close_code, ws.close_reason) == (4000, "go")
    assert (ws.local_address, ws.remote_address) == before


# What came before a loss is delivered


@SIDES
async def test_messages_before_a_loss_are_delivered_in_order_then_each_call_raises(
    client: bool, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    scope, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    async with scope as ws:
        await peer.wait_open()
        await peer.send(TextMessage(data="one"))
        await peer.send(BytesMessage(data=b"two"))
        await peer.send(TextMessage(data="torn", message_finished=False))
        await peer.send_eof()
        await trio.sleep(1)
        assert await ws.recv() == "one"
        assert ws.recv_nowait() == b"two"
        raised: list[BaseException] = []
        for _ in range(2):
            with pytest.raises(trio_ws.ConnectionClosedError) as caught:
                await ws.recv()
            raised.append(caught.value)
        with pytest.raises(trio_ws.ConnectionClosedError) as caught:
            await ws.send("x")
        raised.append(caught.value)
        assert len({id(exc) for exc in raised}) == 3


# The tasks of the connection


@SIDES
@pytest.mark.parametrize(
    ("task", "user"),
    [
        (task, user)
        for task in ("reader", "flusher", "keepalive")
        for user in ("waits", "leaves", "raises", "interrupts")
        # The keepalive ends with the block.
        if (task, user) != ("keepalive", "leaves")
    ],
)
async def test_bug_in_a_service_task_does_not_pass_unseen(
    user: str,
    task: str,
    client: bool,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bug = RuntimeError("a bug")

    async def buggy(*args: object) -> None:
        await trio.sleep(1)
        raise bug

    def buggy_step(*args: object) -> None:
        raise bug

    if task == "reader":
        monkeypatch.setattr("trio_ws._endpoint.reader.Reader.run", buggy)
    elif task == "flusher":
        monkeypatch.setattr("trio_ws._endpoint.writer.Writer._run_flusher", buggy)
    else:
        monkeypatch.setattr(Keepalive, "step", buggy_step)
    scope, stream, peer = open_against_peer(
        client=client, options={"ping_interval": 1 if task == "keepalive" else None}
    )
    peer.answers_close = False  # so that the block is still being left
    nursery.start_soon(peer.run)
    error: BaseException = KeyboardInterrupt() if user == "interrupts" else UserError()
    with pytest.raises(BaseException) as caught:
        async with scope as ws:
            await ws.send("x")
            if user != "leaves":
                try:
                    await trio.sleep_forever()
                finally:
                    if user != "waits":
                        raise error
    if user == "raises":
        # Two errors, so a group: neither hides the other.
        assert isinstance(caught.value, ExceptionGroup)
        assert set(caught.value.exceptions) == {bug, error}
    elif user == "interrupts":
        assert caught.value is error
    else:
        assert caught.value is bug
    assert stream.closed
    await peer.aclose()


# No garbage that only the collector finds


@contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def leave_with_bodys_error(peer: WsprotoPeer, ws: AnyConnection) -> None:
    raise UserError


async def leave_with_childs_error(peer: WsprotoPeer, ws: AnyConnection) -> None:
    ws.nursery.start_soon(leave_with_bodys_error, peer, ws)


async def leave_told(peer: WsprotoPeer, ws: AnyConnection) -> None:
    await peer.send_eof()
    await ws.recv()


@counts_references
@SIDES
@pytest.mark.parametrize(
    "body", [leave_with_bodys_error, leave_with_childs_error, leave_told]
)
async def test_what_leaves_is_in_no_cycle(
    body: object, client: bool, nursery: trio.Nursery
) -> None:
    assert callable(body)
    scope, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    with no_collector():
        try:
            async with scope as ws:
                await body(peer, ws)
        except (UserError, trio_ws.ConnectionClosedError) as exc:
            gone = weakref.ref(exc)
        else:
            pytest.fail("nothing was raised")
        assert gone() is None
