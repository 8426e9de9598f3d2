"""What leaves the scope of a connection: a table, row by row (R2, R3, R11, R12).

The connection ends one second after the block was entered, however it ends;
all times below are seconds after that entry, on a MockClock. A row says what
the user's side does (the body, and one child in ws.nursery or none), what
leaves the block and when. What the peer got, and the cause, follow from how the
connection ended, except where a row says otherwise.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest
import trio
import trio.testing

import trio_ws
from tests.peers.wsproto_peer import BreakableStream, WsprotoPeer, open_against_peer
from trio_ws._endpoint.options import OptionsDict
from trio_ws.exceptions import ConnectionClosed

END = 1.0


# How the connection ends


class Ending(NamedTuple):
    name: str
    text: str  # of the exception, as in websockets
    cause: type[BaseException] | None
    close_code: int
    got: int | None  # the code of the close frame that the peer got


LOSSES = [
    Ending("eof", "no close frame received or sent", EOFError, 1006, None),
    Ending("reset", "no close frame received or sent", ConnectionError, 1006, None),
    Ending(
        "keepalive",
        "sent 1011 (internal error) keepalive ping timeout; no close frame received",
        TimeoutError,
        1006,
        1011,
    ),
    Ending(
        "violation",
        "sent 1002 (protocol error) ",
        trio_ws.exceptions.ProtocolError,
        1006,
        1002,
    ),
    Ending(
        "1011",
        "received 1011 (internal error); then sent 1011 (internal error)",
        None,
        1011,
        1011,
    ),
    Ending(
        "4000",
        "received 4000 (private use); then sent 4000 (private use)",
        None,
        4000,
        4000,
    ),
]
CLEAN = [
    Ending("1000", "received 1000 (OK); then sent 1000 (OK)", None, 1000, 1000),
    Ending(
        "1001",
        "received 1001 (going away); then sent 1001 (going away)",
        None,
        1001,
        1001,
    ),
    Ending(
        "1005",
        "received 1005 (no status received [internal]); "
        "then sent 1005 (no status received [internal])",
        None,
        1005,
        1005,
    ),
]


async def bring_about(ending: str, peer: WsprotoPeer, stream: BreakableStream) -> None:
    if ending == "eof":
        await peer.send_eof()
    elif ending == "reset":
        stream.reset()
    elif ending == "violation":
        await peer.violate()
    elif ending != "keepalive":  # that one needs a peer that does nothing
        await peer.close(int(ending))


# What the user's side does


class UserError(Exception):
    """An error of the user's own."""


@dataclasses.dataclass
class Run:
    """One run of a row, for what the user's side does and sees in it."""

    ws: trio_ws.ClientConnection | trio_ws.ServerConnection
    start: float
    mine: BaseException = dataclasses.field(default_factory=lambda: UserError("mine"))
    others: UserError = dataclasses.field(default_factory=lambda: UserError("other's"))
    # What was given to the body and to the child, with its context then.
    body_given: list[ConnectionClosed] = dataclasses.field(default_factory=list)
    child_given: list[ConnectionClosed] = dataclasses.field(default_factory=list)
    context: dict[int, BaseException | None] = dataclasses.field(default_factory=dict)

    async def until(self, time: float) -> None:
        await trio.sleep_until(self.start + time)

    async def ask(self, call: Callable[[], Awaitable[object]] | None = None) -> None:
        """Be told, in the body."""
        await self._ask(self.body_given, call or self.ws.recv)

    async def ask_in_child(self) -> None:
        await self._ask(self.child_given, self.ws.recv)

    async def _ask(
        self, given: list[ConnectionClosed], call: Callable[[], Awaitable[object]]
    ) -> None:
        try:
            await call()
        except ConnectionClosed as exc:
            given.append(exc)
            self.context[id(exc)] = exc.__context__
            raise
        raise AssertionError("the call returned")

    def raises(self, exc: BaseException) -> BaseException:
        """Note the context that an exception of the user's gets when raised."""
        try:
            raise exc
        except BaseException as raised:  # noqa: BLE001 - the caller raises it
            self.context[id(raised)] = raised.__context__
            return raised


User = Callable[[Run], Awaitable[None]]


async def ends_at_once(run: Run) -> None:
    pass


async def ends_before(run: Run) -> None:
    await run.until(0.5)


async def ends_untold(run: Run) -> None:
    await run.until(6)


async def ends_late(run: Run) -> None:
    await run.until(101)


async def waits(run: Run) -> None:
    await trio.sleep_forever()


async def asks(run: Run) -> None:
    await run.ask()


async def asks_late(run: Run) -> None:
    await run.until(6)
    await run.ask()


async def sends(run: Run) -> None:
    while True:
        await trio.sleep(0.75)
        try:
            await run.ws.send("x")
        except ConnectionClosed:
            await run.ask(lambda: run.ws.send("x"))


async def pings(run: Run) -> None:
    await run.until(END)
    # Twice: the end may come in the middle of the first.
    try:
        await run.ws.ping()
    except ConnectionClosed:
        pass
    await run.ask(run.ws.ping)


async def asks_and_handles(run: Run) -> None:
    try:
        await run.ask()
    except ConnectionClosed:
        pass


async def iterates(run: Run) -> None:
    async for _ in run.ws:
        pass


async def waits_until_closed(run: Run) -> None:
    await run.ws.wait_closed()


async def handles_and_lingers(run: Run) -> None:
    await asks_and_handles(run)
    await run.until(101)


async def handles_and_waits(run: Run) -> None:
    await asks_and_handles(run)
    await trio.sleep_forever()


async def asks_and_raises_own(run: Run) -> None:
    try:
        await run.ask()
    except ConnectionClosed:
        raise run.raises(run.mine) from run.others


async def raises_own(run: Run) -> None:
    await run.until(6)
    raise run.raises(run.mine)


async def raises_own_before(run: Run) -> None:
    await run.until(0.5)
    raise run.raises(run.mine)


async def swallows(run: Run) -> None:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        pass


async def swallows_and_lingers(run: Run) -> None:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.sleep(3)


async def cut_raises_own(run: Run) -> None:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        raise run.raises(run.mine) from None


async def closes_when_cut(run: Run) -> None:
    try:
        await trio.sleep_forever()
    finally:
        await run.ws.aclose()


async def closes_late(run: Run) -> None:
    await run.until(6)
    await run.ws.aclose()


async def closes_late_and_lingers(run: Run) -> None:
    await run.until(6)
    await run.ws.aclose()
    await run.until(101)


async def closes_late_and_asks(run: Run) -> None:
    await run.until(6)
    await run.ws.aclose()
    await run.ask()


async def raises_interrupt(run: Run) -> None:
    run.mine = KeyboardInterrupt()
    await raises_own(run)


async def raises_interrupt_before(run: Run) -> None:
    run.mine = KeyboardInterrupt()
    await raises_own_before(run)


async def raises_exit_before(run: Run) -> None:
    run.mine = SystemExit(3)
    await raises_own_before(run)


# The same for children, where what they do is not the same


async def child_asks(run: Run) -> None:
    await run.ask_in_child()


async def child_handles(run: Run) -> None:
    try:
        await run.ask_in_child()
    except ConnectionClosed:
        pass


async def child_handles_and_waits(run: Run) -> None:
    await child_handles(run)
    await trio.sleep_forever()


async def child_answers_with_own(run: Run) -> None:
    try:
        await run.ask_in_child()
    except ConnectionClosed:
        raise run.raises(run.mine) from None


async def child_cut_raises_others(run: Run) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise run.others


# What leaves


class Leaves(enum.Enum):
    NOTHING = enum.auto()
    VERDICT = enum.auto()  # a ConnectionClosedError that nobody was given
    BODYS = enum.auto()  # the very exception that the body was given
    CHILDS = enum.auto()
    MINE = enum.auto()  # the user's own exception, the very object
    BOTH = enum.auto()  # a group of the two errors of the user's
    CANCELLED = enum.auto()  # Cancelled of the scope around the block


NOTHING, VERDICT, BODYS, CHILDS, MINE, BOTH, CANCELLED = Leaves


@dataclasses.dataclass(kw_only=True)
class Row:
    body: User
    child: User | None = None
    leaves: Leaves
    at: float
    options: OptionsDict = dataclasses.field(default_factory=OptionsDict)
    cancelled_at: float | None = None  # from outside
    got: int | None = None  # by the peer, if leaving says it and not the ending

    @property
    def id(self) -> str:
        parts = [self.body.__name__]
        if self.child is not None:
            parts.append(f"child_{self.child.__name__.removeprefix('child_')}")
        parts += [f"{name}={value}" for name, value in self.options.items()]
        if self.cancelled_at is not None:
            parts.append(f"cancelled_at_{self.cancelled_at:g}")
        return "-".join(parts)


LOSS_ROWS = [
    # The body alone. It is given the loss, so the scope adds nothing.
    Row(body=asks, leaves=BODYS, at=1),
    Row(body=asks_late, leaves=BODYS, at=6),
    Row(body=sends, leaves=BODYS, at=1.5),
    Row(body=pings, leaves=BODYS, at=1),
    Row(body=asks_and_handles, leaves=NOTHING, at=1),
    Row(body=handles_and_lingers, leaves=NOTHING, at=101),
    # At once, but who waits on the connection is told before, and stops the clock.
    Row(body=handles_and_lingers, options={"loss_grace": 0}, leaves=NOTHING, at=101),
    Row(body=asks_and_raises_own, leaves=MINE, at=1),
    # It isn't.
    Row(body=ends_untold, leaves=VERDICT, at=6),
    Row(body=waits_until_closed, leaves=VERDICT, at=1),
    Row(body=waits, leaves=VERDICT, at=11),
    Row(body=waits, options={"loss_grace": 0}, leaves=VERDICT, at=1),
    Row(body=waits, options={"loss_grace": 2.5}, leaves=VERDICT, at=3.5),
    Row(body=ends_late, options={"loss_grace": None}, leaves=VERDICT, at=101),
    # With or without a keepalive.
    Row(body=waits, options={"ping_interval": None}, leaves=VERDICT, at=11),
    # close_grace is for a close in good order.
    Row(body=waits, options={"close_grace": 1}, leaves=VERDICT, at=11),
    Row(body=raises_own, leaves=MINE, at=6),
    Row(body=cut_raises_own, leaves=MINE, at=11),
    Row(body=swallows, leaves=VERDICT, at=11),
    Row(body=swallows_and_lingers, leaves=VERDICT, at=14),
    # A child, told or not, and a body that isn't.
    Row(body=ends_at_once, child=child_asks, leaves=CHILDS, at=1),
    Row(body=waits, child=child_asks, leaves=CHILDS, at=1),
    Row(body=ends_at_once, child=child_handles, leaves=NOTHING, at=1),
    Row(body=ends_untold, child=child_handles, leaves=NOTHING, at=6),
    Row(body=waits, child=child_handles, leaves=VERDICT, at=11),
    Row(body=ends_at_once, child=child_handles_and_waits, leaves=VERDICT, at=11),
    Row(
        body=ends_late,
        child=child_handles,
        options={"loss_grace": None},
        leaves=NOTHING,
        at=101,
    ),
    Row(body=ends_at_once, child=waits, leaves=VERDICT, at=11),
    Row(body=ends_untold, child=waits, leaves=VERDICT, at=11),
    Row(body=ends_before, child=waits, options={"loss_grace": 0}, leaves=VERDICT, at=1),
    Row(body=waits, child=waits, leaves=VERDICT, at=11),
    Row(body=waits, child=child_answers_with_own, leaves=MINE, at=1),
    Row(body=waits, child=raises_own, leaves=MINE, at=6),
    Row(body=raises_own, child=child_handles, leaves=MINE, at=6),
    Row(body=raises_own, child=child_handles_and_waits, leaves=MINE, at=6),
    Row(body=raises_own, child=child_cut_raises_others, leaves=BOTH, at=6),
    # The body told and its child, too, or not. Told, it stops the clock; when
    # it has ended and the child remains, the clock starts again.
    Row(body=asks, child=waits, leaves=BODYS, at=1),
    Row(body=asks_and_handles, child=waits, leaves=NOTHING, at=11),
    Row(
        body=asks_and_handles,
        child=waits,
        options={"loss_grace": 0},
        leaves=NOTHING,
        at=1,
    ),
    Row(
        body=asks_and_handles,
        child=ends_late,
        options={"loss_grace": None},
        leaves=NOTHING,
        at=101,
    ),
    Row(body=handles_and_lingers, child=waits, leaves=NOTHING, at=111),
    Row(body=handles_and_lingers, child=ends_untold, leaves=NOTHING, at=101),
    Row(body=asks_and_handles, child=raises_own, leaves=MINE, at=6),
    Row(body=asks_and_raises_own, child=waits, leaves=MINE, at=1),
    # The user's own aclose(), after the loss: no clock and no verdict.
    Row(body=closes_late, leaves=NOTHING, at=6),
    Row(body=closes_late_and_lingers, leaves=NOTHING, at=101),
    Row(body=closes_late, child=ends_late, leaves=NOTHING, at=101),
    Row(body=closes_late_and_asks, leaves=BODYS, at=6),
    # After the cut it comes too late to be why the connection ended.
    Row(body=closes_when_cut, leaves=VERDICT, at=11),
    # Cancelled from outside: Cancelled passes, close_code tells.
    Row(body=waits, cancelled_at=6, leaves=CANCELLED, at=6),
    Row(
        body=waits,
        child=child_handles_and_waits,
        cancelled_at=6,
        leaves=CANCELLED,
        at=6,
    ),
    Row(body=ends_at_once, child=waits, cancelled_at=6, leaves=CANCELLED, at=6),
    Row(body=handles_and_waits, cancelled_at=6, leaves=CANCELLED, at=6),
    Row(body=swallows, cancelled_at=6, leaves=CANCELLED, at=6),
    Row(body=cut_raises_own, cancelled_at=6, leaves=MINE, at=6),
    # KeyboardInterrupt wins, over the child's error, too.
    Row(body=raises_interrupt, leaves=MINE, at=6),
    Row(body=waits, child=raises_interrupt, leaves=MINE, at=6),
    Row(body=raises_interrupt, child=child_cut_raises_others, leaves=MINE, at=6),
]

CLEAN_ROWS = [
    # Those who ask are told so; ConnectionClosedOK out of the body passes.
    Row(body=asks, leaves=BODYS, at=1),
    Row(body=asks_late, leaves=BODYS, at=6),
    Row(body=sends, leaves=BODYS, at=1.5),
    Row(body=pings, leaves=BODYS, at=1),
    Row(body=asks_and_handles, leaves=NOTHING, at=1),
    Row(body=asks_and_raises_own, leaves=MINE, at=1),
    Row(body=iterates, leaves=NOTHING, at=1),
    Row(body=waits_until_closed, leaves=NOTHING, at=1),
    # Nothing is cancelled.
    Row(body=ends_late, leaves=NOTHING, at=101),
    Row(body=ends_late, options={"loss_grace": 0}, leaves=NOTHING, at=101),
    Row(body=ends_at_once, child=ends_late, leaves=NOTHING, at=101),
    Row(body=handles_and_lingers, child=ends_untold, leaves=NOTHING, at=101),
    # Except for those who asked for it.
    Row(body=waits, options={"close_grace": 3}, leaves=NOTHING, at=4),
    Row(body=waits, options={"close_grace": 0}, leaves=NOTHING, at=1),
    Row(
        body=ends_at_once, child=waits, options={"close_grace": 3}, leaves=NOTHING, at=4
    ),
    Row(body=swallows, options={"close_grace": 3}, leaves=NOTHING, at=4),
    Row(body=cut_raises_own, options={"close_grace": 3}, leaves=MINE, at=4),
    # Only a ConnectionClosedError stops the clock.
    Row(body=handles_and_waits, options={"close_grace": 3}, leaves=NOTHING, at=4),
    # But the user's own aclose() does.
    Row(
        body=closes_late_and_lingers,
        options={"close_grace": 9},
        leaves=NOTHING,
        at=101,
    ),
    Row(body=closes_when_cut, options={"close_grace": 3}, leaves=NOTHING, at=4),
    # A child's ConnectionClosedOK is absorbed where the body ended normally.
    Row(body=ends_at_once, child=child_asks, leaves=NOTHING, at=1),
    Row(body=waits, child=child_asks, leaves=CHILDS, at=1),
    Row(body=ends_untold, child=child_handles, leaves=NOTHING, at=6),
    # The user's errors, and the rest of the world's.
    Row(body=raises_own, leaves=MINE, at=6),
    Row(body=waits, child=child_answers_with_own, leaves=MINE, at=1),
    Row(body=raises_own, child=child_cut_raises_others, leaves=BOTH, at=6),
    Row(body=waits, cancelled_at=6, leaves=CANCELLED, at=6),
    Row(body=swallows, cancelled_at=6, leaves=CANCELLED, at=6),
    Row(body=raises_interrupt, leaves=MINE, at=6),
    Row(body=waits, child=raises_interrupt, leaves=MINE, at=6),
    Row(body=closes_late_and_asks, leaves=BODYS, at=6),
]

# The block ends before the connection does: the peer is told how (R11).
FIRST_ROWS = [
    Row(body=ends_before, leaves=NOTHING, at=0.5, got=1000),
    Row(body=raises_own_before, leaves=MINE, at=0.5, got=1011),
    Row(body=ends_before, child=ends_at_once, leaves=NOTHING, at=0.5, got=1000),
    Row(body=waits, child=raises_own_before, leaves=MINE, at=0.5, got=1011),
    Row(body=waits, cancelled_at=0.5, leaves=CANCELLED, at=0.5, got=1001),
    # The user's side ended normally, though what follows can't.
    Row(body=swallows, cancelled_at=0.5, leaves=CANCELLED, at=0.5, got=1000),
    Row(
        body=ends_at_once,
        child=waits,
        cancelled_at=0.5,
        leaves=CANCELLED,
        at=0.5,
        got=1001,
    ),
    Row(body=cut_raises_own, cancelled_at=0.5, leaves=MINE, at=0.5, got=1011),
    Row(body=raises_interrupt_before, leaves=MINE, at=0.5, got=1001),
    Row(body=raises_exit_before, leaves=MINE, at=0.5, got=1001),
    Row(body=waits, child=raises_interrupt_before, leaves=MINE, at=0.5, got=1001),
    Row(body=waits, child=raises_exit_before, leaves=MINE, at=0.5, got=1001),
]


@dataclasses.dataclass
class Outcome:
    run: Run
    left: BaseException | None
    elapsed: float
    cancelled: bool  # the scope around the block caught Cancelled
    peer: WsprotoPeer
    stream: BreakableStream


async def play(row: Row, ending: Ending | None, *, client: bool) -> Outcome:
    options: OptionsDict = {**row.options}
    if ending is not None and ending.name == "keepalive":
        options |= {"ping_interval": END / 2, "ping_timeout": END / 2}
    scope, stream, peer = open_against_peer(client=client, options=options)
    left: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)

        async def end_it() -> None:
            await peer.wait_open()
            peer.answers_pings = ending is None or ending.name != "keepalive"
            await trio.sleep_until(start + END)
            if ending is not None:
                await bring_about(ending.name, peer, stream)

        start = trio.current_time()
        nursery.start_soon(end_it)
        with trio.CancelScope() as outer:
            if row.cancelled_at is not None:
                outer.deadline = start + row.cancelled_at
            try:
                async with scope as ws:
                    run = Run(ws, start)
                    if row.child is not None:
                        ws.nursery.start_soon(row.child, run)
                        # The child is the first to be told where both are.
                        await trio.testing.wait_all_tasks_blocked()
                    await row.body(run)
            except BaseException as exc:
                left = exc
                if isinstance(exc, trio.Cancelled):
                    raise
            # Nothing of the connection is left (R1).
            assert stream.closed
            assert not ws.nursery.child_tasks
        elapsed = trio.current_time() - start
    return Outcome(run, left, elapsed, outer.cancelled_caught, peer, stream)


def check(row: Row, ending: Ending, outcome: Outcome) -> None:
    run, left = outcome.run, outcome.left
    assert outcome.elapsed == pytest.approx(row.at)
    assert outcome.cancelled == (row.leaves is CANCELLED)
    if row.leaves is CANCELLED:
        assert isinstance(left, trio.Cancelled)
    elif row.leaves is NOTHING:
        assert left is None
    elif row.leaves is VERDICT:
        assert type(left) is trio_ws.ConnectionClosedError
        assert all(left is not exc for exc in run.body_given + run.child_given)
        assert left.__context__ is None
        check_exception(left, ending)
    elif row.leaves is BODYS:
        assert left is run.body_given[-1]
    elif row.leaves is CHILDS:
        assert left is run.child_given[-1]
    elif row.leaves is MINE:
        assert left is run.mine
        told = [exc for exc in run.body_given if row.body is asks_and_raises_own]
        if told:
            assert left.__cause__ is run.others
            assert left.__context__ is told[-1]
    else:
        assert type(left) is ExceptionGroup
        assert set(left.exceptions) == {run.mine, run.others}
    if left is not None and id(left) in run.context and row.leaves is not CANCELLED:
        assert left.__context__ is run.context[id(left)]
    in_order = ending in CLEAN or "closes" in row.body.__name__
    for exc in run.body_given + run.child_given:
        if in_order:
            assert type(exc) is trio_ws.ConnectionClosedOK
        else:
            assert type(exc) is trio_ws.ConnectionClosedError
        check_exception(exc, ending)


def check_exception(exc: BaseException, ending: Ending) -> None:
    assert str(exc).startswith(ending.text)
    if type(exc) is trio_ws.ConnectionClosedError:
        if ending.cause is None:
            assert exc.__cause__ is None
        else:
            assert isinstance(exc.__cause__, ending.cause)


SIDES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])


@SIDES
@pytest.mark.parametrize("ending", LOSSES, ids=lambda ending: ending.name)
@pytest.mark.parametrize("row", LOSS_ROWS, ids=lambda row: row.id)
async def test_loss(
    row: Row, ending: Ending, client: bool, autojump_clock: trio.testing.MockClock
) -> None:
    outcome = await play(row, ending, client=client)
    check(row, ending, outcome)
    assert outcome.run.ws.close_code == ending.close_code
    assert outcome.peer.close_code == ending.got
    if ending.got is not None:
        assert outcome.peer.close_came_at == pytest.approx(outcome.run.start + END)


@SIDES
@pytest.mark.parametrize("ending", CLEAN, ids=lambda ending: ending.name)
@pytest.mark.parametrize("row", CLEAN_ROWS, ids=lambda row: row.id)
async def test_clean_close(
    row: Row, ending: Ending, client: bool, autojump_clock: trio.testing.MockClock
) -> None:
    outcome = await play(row, ending, client=client)
    check(row, ending, outcome)
    assert outcome.run.ws.close_code == ending.close_code
    assert outcome.peer.close_code == ending.got
    assert outcome.peer.close_came_at == pytest.approx(outcome.run.start + END)


@SIDES
@pytest.mark.parametrize("row", FIRST_ROWS, ids=lambda row: row.id)
async def test_block_ends_first(
    row: Row, client: bool, autojump_clock: trio.testing.MockClock
) -> None:
    outcome = await play(row, None, client=client)
    check(row, CLEAN[0], outcome)
    assert outcome.peer.close_code == row.got
    assert outcome.peer.close_reason in ("", None)
    # Said in a hurry, nobody waits for the answer.
    answered = row.got in (1000, 1011) and row.cancelled_at is None
    assert outcome.run.ws.close_code == (row.got if answered else 1006)
