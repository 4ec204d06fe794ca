"""The reader over a lane that the test itself answers for."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
import pytest

from streamcast.errors import Unavailable
from streamcast.message import ZERO
from streamcast.proof import Read
from streamcast.streams.interface import Follower
from streamcast.streams.lane import LaneLost
from streamcast.streams.probe import Probe
from streamcast.streams.reader import HISTORY_AT_ONCE, Reader
from tests.followers import Recorder


class Lane:
    """Keeps who waits for the answers to what was sent."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[Any], None]] = []
        self.sent = hiredis.Reader()
        self.gather: Callable[[], None] = lambda: None
        self._flushing = False

    def call(self, command: bytes, callback: Callable[[Any], None]) -> None:
        self.calls(command, (callback,))

    def calls(self, commands: bytes, callbacks: Sequence[Callable[[Any], None]]) -> None:
        self.sent.feed(commands)
        # What is in front of a read that is examined is not for him who waits for it.
        in_front = commands.startswith(b"*1\r\n$5\r\nMULTI")
        self.waiting += callbacks[-1:] if in_front else callbacks

    @property
    def keys(self) -> list[bytes]:
        """What was read, of all that was sent since this was asked for before."""
        found = []
        while command := self.sent.gets():
            if command[0] == b"XRANGE":
                found.append(command[1])
        return found

    def flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self.gather()
        self._flushing = False

    def answer(self, reply: Any) -> None:
        [waiting], self.waiting = self.waiting, []
        waiting(reply)


class Asked(Recorder):
    """Counts how often it was asked for a read; `fault`: what it raises then."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.fault: Exception | None = None

    def next_read(self, announced: bool) -> Read:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return super().next_read(announced=announced)


def nowhere_else(key: bytes, error: hiredis.ReplyError, announced: bool) -> bool:
    return False


NO_SUCH_KEY = hiredis.ReplyError("ERR no such key")


async def reading(follower: Follower, key: bytes = b"room") -> tuple[Reader, Any]:
    """Follow a key; its first read is under way on the lane."""
    reader, lane = Reader(1000, nowhere_else), Lane()
    reader.connected(cast("Any", lane))
    reader.follow(key, follower)
    await asyncio.sleep(0)
    return reader, lane


async def both_open(room: Follower, other: Follower) -> tuple[Reader, Any]:
    """Follow two keys; their first reads are answered."""
    reader, lane = await reading(room)
    lane.answer(NO_SUCH_KEY)
    reader.follow(b"other", other)
    await asyncio.sleep(0)
    lane.answer(NO_SUCH_KEY)
    return reader, lane


INFO = {b"length": 1, b"last-generated-id": b"5-0", b"entries-added": 1}
INFO |= {b"last-entry": (b"5-0", [b"message", b"0"]), b"recorded-first-entry-id": b"5-0"}


def entries(*texts: bytes) -> list[tuple[bytes, list[bytes]]]:
    """The entry that INFO knows, and others behind it."""
    return [(b"%d-0" % (5 + n), [b"message", text]) for n, text in enumerate((b"0", *texts))]


async def plainly_read(*followers: Follower) -> tuple[Reader, Any]:
    """Follow keys whose streams can be read on from where they are."""
    reader, lane = Reader(1000, nowhere_else), Lane()
    reader.connected(cast("Any", lane))
    for number, follower in enumerate(followers):
        reader.follow(b"room%d" % number, follower)
    await asyncio.sleep(0)
    waiting, lane.waiting = lane.waiting, []
    for answered in waiting:
        answered(INFO)
    assert not lane.keys
    return reader, lane


async def test_reads_of_one_turn_are_answered_each_to_its_own() -> None:
    """Also where one of them fails, or has nothing to ask."""
    first, fails, last = Asked(), Asked(), Asked()
    reader, lane = await plainly_read(first, fails, last)
    fails.fault = ValueError()
    reader.announce([b"room0", b"room1", b"room2"])
    await asyncio.sleep(0)
    assert lane.keys == [b"room0", b"room2"]
    waiting, lane.waiting = lane.waiting, []
    for answered, text in zip(waiting, (b"a", b"c"), strict=True):
        answered(entries(text))
    assert (first.texts, fails.texts, last.texts) == (["a"], [], ["c"])
    fails.fault = None
    reader.mark(b"room1")
    await asyncio.sleep(0)
    lane.answer(entries(b"b"))
    assert fails.texts == ["b"]
    assert (reader.reads, reader.empty_reads) == (6, 3)


async def test_reads_of_one_turn_that_are_lost_are_read_again() -> None:
    followers = Recorder(), Recorder()
    reader, lane = await plainly_read(*followers)
    reader.announce([b"room0", b"room1"])
    await asyncio.sleep(0)
    reader.disconnected()
    waiting, lane.waiting = lane.waiting, []
    for answered in waiting:
        answered(LaneLost(sent=True))
    assert reader.is_announced(b"room0")
    assert reader.is_announced(b"room1")
    after: Any = Lane()
    reader.connected(after)
    await asyncio.sleep(0)
    assert after.keys == [b"room0", b"room1"]
    for answered in after.waiting:
        answered(entries(b"a"))
    assert [follower.texts for follower in followers] == [["a"], ["a"]]


async def test_one_that_is_followed_anew_before_it_was_read_is_read_once() -> None:
    gone, new = Asked(), Asked()
    reader, lane = await plainly_read(gone)
    asked = gone.asked
    reader.mark(b"room0")
    reader.unfollow(b"room0")
    reader.follow(b"room0", new)
    await asyncio.sleep(0)
    assert (gone.asked, new.asked) == (asked, 1)
    assert len(lane.waiting) == 1


@pytest.mark.parametrize("when", ["before the read", "while it is read"])
async def test_what_was_announced_outlives_the_lane(when: str) -> None:
    """A key that was absent, was told to have changed, and is absent: that is a gap.

    Also where the connection was lost before the read that would have found out was answered, or
    the key goes to another node.
    """
    recorder = Recorder()
    reader, before = await reading(recorder)
    before.answer(NO_SUCH_KEY)
    reader.mark(b"room", announced=when == "before the read")
    await asyncio.sleep(0)
    assert reader.is_announced(b"room") == (when == "before the read")
    if when == "while it is read":
        reader.announce([b"room"])
    assert reader.is_announced(b"room")
    reader.disconnected()
    before.answer(LaneLost(sent=True))
    assert reader.is_announced(b"room")
    after: Any = Lane()
    reader.connected(after)
    await asyncio.sleep(0)
    after.answer([NO_SUCH_KEY, []])
    assert recorder.texts == ["gap"]
    assert not reader.is_announced(b"room")


async def test_what_is_told_before_a_read_is_answered_came_before_it() -> None:
    """So it is not read again; but an absent key that was told to have changed is a gap."""
    recorder = Recorder()
    reader, lane = await reading(recorder)
    lane.answer(NO_SUCH_KEY)
    reader.mark(b"room")
    await asyncio.sleep(0)
    reader.announce([b"room"])
    lane.answer([NO_SUCH_KEY, []])
    assert recorder.texts == ["gap"]
    await asyncio.sleep(0)
    assert not lane.waiting
    # Behind the answer, it is news.
    reader.announce([b"room"])
    await asyncio.sleep(0)
    lane.answer([NO_SUCH_KEY, []])
    assert recorder.texts == ["gap", "gap"]


async def test_what_may_have_changed_while_it_was_read_is_read_again() -> None:
    """As after FLUSHALL, which tells of no key, and so not in order with a key's reads."""
    recorder = Recorder()
    reader, lane = await reading(recorder)
    reader.mark_all()
    lane.answer(NO_SUCH_KEY)
    await asyncio.sleep(0)
    lane.answer([NO_SUCH_KEY, []])
    await asyncio.sleep(0)
    assert recorder.reads == 2
    assert not lane.waiting


async def test_keys_do_not_wait_for_each_other() -> None:
    """One read of a key is under way, and meanwhile those of others are sent."""
    reader, lane = await reading(Recorder())
    reader.mark(b"room")
    reader.follow(b"another", Recorder())
    await asyncio.sleep(0)
    assert len(lane.waiting) == 2
    [first, second], lane.waiting = lane.waiting, []
    second(NO_SUCH_KEY)
    await asyncio.sleep(0)
    assert not lane.waiting
    first(NO_SUCH_KEY)
    await asyncio.sleep(0)
    assert len(lane.waiting) == 1


async def test_an_announcement_of_another_node_outlives_the_read_under_way() -> None:
    """It says nothing of the order, so the key is read again, as one that was told of."""
    recorder = Recorder()
    reader, lane = await reading(recorder)
    reader.mark(b"room", announced=True)
    reader.mark(b"room")
    assert reader.is_announced(b"room")
    lane.answer(NO_SUCH_KEY)
    assert reader.is_announced(b"room")
    await asyncio.sleep(0)
    lane.answer([NO_SUCH_KEY, []])
    assert recorder.texts == ["gap"]


async def test_another_follower_of_the_key_is_not_told_what_was_asked_for_before() -> None:
    one, other = Recorder(), Recorder()
    reader, lane = await reading(one)
    reader.unfollow(b"room")
    reader.follow(b"room", other)
    await asyncio.sleep(0)
    [first, second] = lane.waiting
    first(NO_SUCH_KEY)
    assert reader.is_opening(b"room")
    assert one.position is other.position is None
    second(NO_SUCH_KEY)
    assert not reader.is_opening(b"room")
    assert other.position is not None


async def test_a_fault_in_one_follower_is_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """The others are read, and it is asked again when its key changes."""
    faulty, other = Asked(), Asked()
    reader, lane = await both_open(faulty, other)
    faulty.fault = ValueError("a fault")
    reader.mark(b"room")
    reader.mark(b"other")
    await asyncio.sleep(0)
    lane.answer([NO_SUCH_KEY, []])
    assert (faulty.reads, other.reads) == (1, 2)
    assert len(caplog.records) == 1
    faulty.fault = None
    reader.mark(b"room")
    await asyncio.sleep(0)
    lane.answer([NO_SUCH_KEY, []])
    assert (faulty.reads, other.reads) == (2, 2)


async def test_what_is_announced_while_it_is_read_goes_with_the_key() -> None:
    """Where that read finds out that the key is another node's."""
    told: list[bool] = []

    def elsewhere(key: bytes, *_: object) -> bool:
        told.append(reader.is_announced(key))
        return True

    reader, lane = await reading(Recorder())
    lane.answer(NO_SUCH_KEY)
    reader.mark(b"room")
    await asyncio.sleep(0)
    reader.mark(b"room", announced=True)
    reader._redirected = elsewhere
    lane.answer([hiredis.ReplyError("MOVED 1 somewhere"), hiredis.ReplyError("MOVED 1 somewhere")])
    assert told == [True]


async def test_nothing_is_read_behind_while_nothing_can_be_read() -> None:
    reader, lane = await reading(Recorder())
    lane.answer(NO_SUCH_KEY)
    reader.follow(b"another", Recorder())
    await asyncio.sleep(0)
    lane.answer(NO_SUCH_KEY)
    reader.read_behind(b"room")
    await asyncio.sleep(0)
    reader.announce([b"room"])
    lane.answer([hiredis.ReplyError("LOADING it is"), hiredis.ReplyError("LOADING it is")])
    assert reader.is_announced(b"room")
    reader.read_behind(b"another")
    await asyncio.sleep(0)
    assert not lane.waiting


async def test_a_probe_hears_what_is_told_while_it_is_read() -> None:
    """Which its read has seen already; that it is read, as in an audit, tells it nothing."""
    probe = Probe(b"probe")
    reader, lane = await reading(probe, probe.key)
    lane.answer(NO_SUCH_KEY)
    assert not probe.heard.is_set()
    for told in (False, True):
        reader.mark(probe.key)
        await asyncio.sleep(0)
        if told:
            reader.announce([probe.key])
        lane.answer(NO_SUCH_KEY)
        assert probe.heard.is_set() == told


async def test_a_join_while_the_store_is_away_bothers_nobody_else() -> None:
    """It is refused at once; rooms that are open are not asked, however many there are."""
    member, late = Asked(), Asked()
    reader, lane = await reading(member)
    lane.answer(NO_SUCH_KEY)
    reader.disconnected()
    reader.mark(b"room")
    asked = member.asked
    reader.follow(b"another", late)
    await asyncio.sleep(0)
    assert isinstance(late.error, Unavailable)
    assert b"another" not in reader
    assert member.error is None
    assert member.asked == asked


async def test_a_join_is_not_refused_where_a_lane_is_there_in_time() -> None:
    reader, lane = Reader(1000, nowhere_else), Lane()
    joining = Recorder()
    reader.follow(b"room", joining)
    reader.connected(cast("Any", lane))
    await asyncio.sleep(0)
    lane.answer(NO_SUCH_KEY)
    assert joining.error is None
    assert joining.position is not None


async def test_history_is_read_a_few_pages_at_a_time() -> None:
    """Also where those who asked for it went away before it was answered."""
    reader = Reader(1000, nowhere_else)
    lane: Any = Lane()
    reader.connected(lane)
    for _ in range(50):
        asking = asyncio.create_task(reader.before(b"room", ZERO, 10))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert len(lane.waiting) == HISTORY_AT_ONCE
    for waiting in lane.waiting:
        waiting([])
    lane.waiting = []
    asking = asyncio.create_task(reader.before(b"room", ZERO, 10))
    await asyncio.sleep(0)
    lane.answer([])
    assert await asking == []


async def test_what_changes_while_others_are_asked_is_read_next() -> None:
    """The lane is gathering then, and does not hear that it is to."""

    class Changes(Asked):
        def next_read(self, announced: bool) -> Read:
            if self.asked == 1:
                reader.announce([b"other"])
            return super().next_read(announced=announced)

    first, second = Changes(), Asked()
    reader, _ = await both_open(first, second)
    reader.announce([b"room"])
    await asyncio.sleep(0)
    assert (first.asked, second.asked) == (2, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (first.asked, second.asked) == (2, 2)


async def test_what_comes_and_goes_while_there_is_no_lane_leaves_nothing_behind() -> None:
    """The store may be away for hours, and clients try again and again."""
    reader, lane = await reading(Recorder())
    lane.answer(NO_SUCH_KEY)
    reader.disconnected()
    for number in range(10):
        key = b"other%d" % number
        reader.follow(key, Recorder())
        reader.mark(key, announced=True)
        reader.unfollow(key)
    assert not reader._marked
    after: Any = Lane()
    reader.connected(after)
    await asyncio.sleep(0)
    assert after.keys[-1] == b"room"
    assert len(after.waiting) == 1, "the room that is followed still, and no other"
