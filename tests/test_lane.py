"""A lane on a socket whose other end is the test's own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from streamcast.config import StreamSettings
from streamcast.fanout import TURN
from streamcast.streams.lane import LOOKS, Lane, LaneLost, pack
from streamcast.streams.link import Link

SILENCE = 0.8
LOOK = SILENCE / LOOKS
PACE = 0.001


class Node:
    """Answers every command that comes in one piece, until it is told to fall silent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers = True
        self.received = b""
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(ConnectionError):
            while data := await reader.read(1000):
                self.received += data
                if self.answers:
                    writer.write(b"+OK\r\n" * data.count(b"*"))
        writer.close()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path / "s")
    async with await asyncio.start_unix_server(node.serve, node.path):
        yield node
        for writer in node.writers:
            writer.close()


Open = Callable[[Callable[[str], None]], Awaitable[Lane]]


@pytest.fixture
async def connect(node: Node) -> AsyncIterator[Open]:
    lanes: list[Lane] = []

    async def connected(on_lost: Callable[[str], None]) -> Lane:
        make = lambda: Lane(SILENCE, lambda _: None, on_lost)  # noqa: E731
        loop = asyncio.get_running_loop()
        lanes.append((await loop.create_unix_connection(make, str(node.path)))[1])
        return lanes[-1]

    yield connected
    for lane in lanes:
        lane.close()
        await lane.closed


async def test_silence_is_noticed_whenever_it_begins(node: Node, connect: Open) -> None:
    """On lanes that nobody uses; wherever between two looks of theirs the node falls silent."""
    loop = asyncio.get_running_loop()
    noticed: list[float] = []
    for _ in range(10):
        await connect(lambda _: noticed.append(loop.time()))
        await asyncio.sleep(LOOK / 10)
    await asyncio.sleep(SILENCE + LOOK)
    assert not noticed, "a node that answers was given up"
    node.answers = False
    silent_since = loop.time()
    await asyncio.sleep(SILENCE + 3 * LOOK)
    took = [when - silent_since for when in noticed]
    assert len(took) == 10
    assert min(took) > SILENCE - LOOK
    assert max(took) < SILENCE + 2 * LOOK
    assert max(took) - min(took) > LOOK / 2, "all lanes looked at one time"


async def test_what_was_not_sent_can_not_have_run(node: Node, connect: Open) -> None:
    """Up to the very moment in which the connection ends, whoever ends it."""
    told: list[Any] = []
    lane = await connect(lambda _: None)
    lane.call(pack(("GET", "sent")), told.append)
    await asyncio.sleep(0)
    lane.call(pack(("GET", "unsent")), told.append)
    lane.close()
    assert not lane.is_open
    lane.call(pack(("GET", "unsent")), told.append)
    await lane.closed
    lane.call(pack(("GET", "late")), told.append)
    assert [type(reply) for reply in told] == [LaneLost] * 4
    assert [reply.sent for reply in told] == [True, False, False, False]
    assert b"unsent" not in node.received


async def test_a_node_that_says_goodbye(node: Node, connect: Open) -> None:
    lost: list[str] = []
    told: list[Any] = []
    lane = await connect(lost.append)
    lane.call(pack(("PING",)), told.append)
    while not told:
        await asyncio.sleep(0)
    for writer in node.writers:
        writer.close()
    await lane.closed
    assert lost == ["the store closed the connection"]


async def test_a_lane_outlives_a_fault_of_whoever_gathers(node: Node, connect: Open) -> None:
    lane = await connect(lambda _: None)
    faults: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    fault = ValueError()

    def fail() -> None:
        raise fault

    lane.gather = fail
    lane.call(pack(("FIRST",)), None)
    await asyncio.sleep(0)
    assert faults == [fault]
    lane.gather = None
    assert await lane.ask("SECOND") == b"OK"
    assert node.received == pack(("FIRST",)) + pack(("SECOND",))


async def test_what_is_gathered_goes_behind_what_was_called(node: Node, connect: Open) -> None:
    """In one write."""
    lane = await connect(lambda _: None)
    lane.gather = lambda: lane.call(pack(("SECOND",)), None)
    for _ in range(2):
        assert await lane.ask("FIRST") == b"OK"
    assert node.received == 2 * (pack(("FIRST",)) + pack(("SECOND",)))
    lane.gather = None
    lane.flush_soon()
    assert await lane.ask("THIRD") == b"OK"


class Time:
    """A clock that only `sleep` and the test move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def paced_by(time: Time, sleep: Callable[[float], object] | None = None) -> Lane:
    """Return a lane that is still to be connected; `sleep`: instead of the time's."""
    lane = Lane(SILENCE, lambda _: None, lambda _: None, lambda: time.now, sleep or time.sleep)
    lane.pace = PACE
    return lane


@pytest.fixture
async def paced(node: Node) -> AsyncIterator[tuple[Lane, Time]]:
    time = Time()
    loop = asyncio.get_running_loop()
    _, lane = await loop.create_unix_connection(lambda: paced_by(time), str(node.path))
    yield lane, time
    lane.close()
    await lane.closed


@pytest.fixture
async def end() -> AsyncIterator[tuple[Lane, Time, socket.socket]]:
    """A lane, and the other end's socket, which only the test reads."""
    ours, other = socket.socketpair()
    time = Time()
    loop = asyncio.get_running_loop()
    _, lane = await loop.create_unix_connection(lambda: paced_by(time), sock=ours)
    with other:
        yield lane, time, other
        lane.close()
        await lane.closed


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_a_lane_has_written_when_it_rests(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """So the node answers meanwhile; on either event loop."""
    came: list[bytes] = []

    async def write_twice() -> None:
        ours, other = socket.socketpair()
        sleep = lambda _: came.append(other.recv(1000, socket.MSG_DONTWAIT))  # noqa: E731
        loop = asyncio.get_running_loop()
        _, lane = await loop.create_unix_connection(lambda: paced_by(Time(), sleep), sock=ours)
        with other:
            for word in (b"first", b"second"):
                lane.call(word, None)
                await asyncio.sleep(0)
            lane.close()
            await lane.closed

    run(write_twice())
    assert came == [b"firstsecond"]


async def test_what_a_node_does_not_take_at_once_goes_later_and_in_order(
    end: tuple[Lane, Time, socket.socket],
) -> None:
    """And nobody rests over it."""
    lane, time, other = end
    came = b""

    def make_room() -> None:
        """Between the event loop's look for sockets that take more, and the lane's write."""
        nonlocal came
        came += other.recv(100_000)

    parts = [bytes([number]) * 300_000 for number in range(9)]
    for part in parts:
        lane.gather = make_room if part is not parts[0] else None
        lane.call(part, None)
        await asyncio.sleep(0)
    assert time.slept == []
    lane.gather = None
    loop = asyncio.get_running_loop()
    other.setblocking(False)
    async with asyncio.timeout(5):
        while len(came) < len(parts) * 300_000:
            came += await loop.sock_recv(other, 1_000_000)
    assert came == b"".join(parts)
    for word in (b"all", b"of", b"it"):
        lane.call(word, None)
        await asyncio.sleep(0)
    assert other.recv(1000) == b"allofit"
    assert time.slept == [PACE, PACE]


async def test_a_lane_rests_between_two_writes(node: Node, paced: tuple[Lane, Time]) -> None:
    """For what is left of a pace, and right behind the write, while that is being answered."""
    lane, time = paced
    assert await lane.ask("FIRST") == b"OK"
    assert time.slept == []
    time.now += 0.2 * PACE
    assert await lane.ask("SECOND") == b"OK"
    assert time.slept == [pytest.approx(0.8 * PACE)]
    assert await lane.ask("THIRD") == b"OK"
    assert time.slept[1:] == [PACE]
    assert node.received == b"".join(pack((word,)) for word in ("FIRST", "SECOND", "THIRD"))


async def test_a_lane_that_has_something_else_to_do_does_not_rest(
    paced: tuple[Lane, Time],
) -> None:
    """Nor one that has nothing to write, or writes now and then."""
    lane, time = paced
    for _ in range(3):
        assert await lane.ask("PING") == b"OK"
        time.now += 1.01 * PACE
        lane.flush_soon()
        await asyncio.sleep(0)
    assert time.slept == []


async def test_a_lane_without_a_pace_never_rests(paced: tuple[Lane, Time]) -> None:
    lane, time = paced
    lane.pace = 0.0
    for _ in range(3):
        assert await lane.ask("PING") == b"OK"
    assert time.slept == []


async def test_lanes_rest_for_no_more_than_a_pace_together(node: Node) -> None:
    """In one turn, whichever of them wrote in the one before."""
    time = Time()
    loop = asyncio.get_running_loop()
    path = str(node.path)
    lanes = [(await loop.create_unix_connection(lambda: paced_by(time), path))[1] for _ in range(3)]
    for writing in (lanes, lanes[::-1], lanes[:1], lanes[1:], lanes):
        before = time.now
        for lane in writing:
            lane.call(pack(("PING",)), None)
        await asyncio.sleep(0)
        assert time.now - before <= 1.001 * PACE
    assert time.slept == [PACE] * 3
    for lane in lanes:
        lane.close()
        await lane.closed


def test_nobody_rests_between_two_slices_of_a_large_room() -> None:
    assert StreamSettings().pace <= TURN


async def test_what_is_asked_for_in_one_turn_rests_once(paced: tuple[Lane, Time]) -> None:
    lane, time = paced
    for _ in range(2):
        await asyncio.gather(*(lane.ask("PING") for _ in range(10)))
    assert len(time.slept) == 1


async def test_a_link_opens_one_lane(node: Node, connect: Open) -> None:
    """However often it is to be opened: while it is open, and while it is being opened."""
    lanes: list[Lane] = []

    async def open_lane(_: str, on_lost: Callable[[str], None]) -> Lane:
        lanes.append(await connect(on_lost))
        return lanes[-1]

    link = Link("rooms", node.path, open_lane, lambda _: None, lambda: None)
    link.open_soon()
    link.open_soon()
    while link.lane is None:
        await asyncio.sleep(0.001)
    link.open_soon()
    await asyncio.sleep(0.05)
    assert len(lanes) == 1
    await link.close()


async def test_a_fault_in_what_is_done_with_a_reply_is_that_replys_alone(
    node: Node, connect: Open, caplog: pytest.LogCaptureFixture
) -> None:
    lane = await connect(lambda _: None)
    replies: list[Any] = []

    def fail(reply: Any) -> None:
        raise ZeroDivisionError

    for callback in (replies.append, fail, None, replies.append):
        lane.call(pack(("PING",)), callback)
    async with asyncio.timeout(5):
        while len(replies) < 2:
            await asyncio.sleep(0.01)
    assert lane.is_open
    assert [record.message for record in caplog.records if "ZeroDivision" in str(vars(record))]
