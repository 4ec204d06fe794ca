"""A room and one member, step by step.

A room goes on behind the newest entry that it knows and that is still there. Where a failover takes
messages back, a member is told a gap; what it was told before, or did not ask for, is not sent to
it again.
"""

from sys import getsizeof

import pytest

import streamcast.room
from streamcast.cursor import Mark
from streamcast.message import ZERO, Gap, MessageId, as_message
from streamcast.proof import Kind
from streamcast.room import Room
from streamcast.window import BEFORE, ITEM_OVERHEAD, Window
from tests.model import Member, Remembers, Stream

LIMIT = 100_000


@pytest.fixture
def stream() -> Stream:
    """Five entries."""
    return Stream.of(5)


class Follower:
    """A room, and a member at its end."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.room = Room("room", stream.info(), LIMIT)
        self.member = Member(Remembers(), self.room.pause)
        self.room.add(self.member.cursor, self.room.tip)

    def read(self) -> None:
        """Read all that there is, and hand out nothing of it yet."""
        more = True
        while more:
            read = self.room.next_read(announced=True)
            assert read is not None
            more = self.room.received(read, self._stream.answer(read))

    def told(self) -> list[str]:
        """What the member is told of all that there is by now: `gap`, or a message's number."""
        self.read()
        while self.room.hand_out(9):
            pass
        log, self.member.log = self.member.log, []
        return ["gap" if isinstance(item, Gap) else str(item.id.ms) for item in log]


def test_it_goes_on_where_it_was_opened(stream: Stream) -> None:
    """What was said after it was opened is gone, and all that it ever handed out."""
    follower = Follower(stream)
    stream.add()
    assert follower.told() == ["6"]
    stream.roll_back(1)
    stream.add(MessageId.of(7, 0))
    assert follower.told() == ["gap", "7"]


def test_it_goes_on_where_the_last_history_began(stream: Stream) -> None:
    """Two failovers, each of which takes back what came since the one before."""
    follower = Follower(stream)
    for number in (6, 7):
        stream.add(MessageId.of(number, 0))
        assert follower.told()[-1] == str(number)
        stream.roll_back(1)
    stream.add(MessageId.of(8, 0))
    assert follower.told() == ["gap", "8"]


def test_it_goes_on_behind_what_was_evicted_last(stream: Stream) -> None:
    follower = Follower(stream)
    stream.add()
    assert follower.told() == ["6"]
    follower.room.shrink()
    stream.add()
    assert follower.told() == ["7"]
    stream.roll_back(1)
    stream.add(MessageId.of(8, 0))
    assert follower.told() == ["gap", "8"]


def test_it_begins_anew_where_none_is_there_any_more(stream: Stream) -> None:
    follower = Follower(stream)
    stream.delete()
    stream.add(MessageId.of(5, 0))
    stream.add()
    assert follower.told() == ["gap", "5", "6"]


def test_one_that_is_ahead_of_what_was_handed_out_waits_for_it(stream: Stream) -> None:
    """Its last message is read, but this room has not got so far with handing out."""
    follower = Follower(stream)
    stream.add()
    stream.add()
    follower.read()
    ahead = Member(Remembers(), follower.room.pause)
    follower.room.add(ahead.cursor, Mark(BEFORE, MessageId.of(6, 0), None, 0))
    for _ in range(2):
        read = follower.room.catch_up(ahead.cursor)
        assert read is not None
        assert (read.kind, read.start) == (Kind.EXAMINE, MessageId.of(6, 0))
        mark = ahead.cursor.mark
        assert mark is not None
        follower.room.caught(ahead.cursor, mark, 0, stream.answer(read))
        assert ahead.log == []
    assert follower.told() == ["6", "7"]
    assert follower.room.catch_up(ahead.cursor) is None
    assert [str(item.id) for item in ahead.log] == ["7-0"]
    assert follower.room.is_live(ahead.cursor)


class Behind:
    """A member for whom all is to be read from the store."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.room = Room("room", stream.info(), LIMIT)
        self.room.shrink()
        self.room.measure(stream.entries)
        self.member = Member(Remembers(), self.room.pause)
        self.room.add(self.member.cursor, Mark(BEFORE, ZERO, None, 0, told=ZERO))
        self.entries_read = 0

    @property
    def is_live(self) -> bool:
        return self.room.is_live(self.member.cursor)

    def catch_up(self, writes: int = 10**9) -> list[list[int]]:
        """Read a page for it; return which messages came with which write, of `writes` it takes."""
        self.member.pauses_after, self.member.writable = writes, True
        written = len(self.member.dialect.batches)
        read, mark = self.room.catch_up(self.member.cursor), self.member.cursor.mark
        assert read is not None
        assert mark is not None
        reply = self._stream.answer(read)
        self.entries_read += len(reply.entries)
        self.room.caught(self.member.cursor, mark, 0, reply)
        return [[item.id.ms for item in batch] for batch in self.member.dialect.batches[written:]]


@pytest.fixture
def behind(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> Behind:
    """One of whose pages a piece has two messages."""
    monkeypatch.setattr(streamcast.room, "PIECE_BYTES", 2 * (ITEM_OVERHEAD + 1))
    return Behind(stream)


def test_a_page_is_written_in_pieces(behind: Behind) -> None:
    assert behind.catch_up() == [[1, 2], [3, 4], [5]]
    assert behind.is_live


def test_what_a_member_does_not_take_of_a_page_is_read_again(behind: Behind) -> None:
    """Nothing is encoded that would only wait for it."""
    assert behind.catch_up(writes=1) == [[1, 2]]
    assert behind.catch_up() == [[3, 4], [5]]
    assert behind.is_live


def test_one_that_leaves_in_the_middle_of_a_page_is_gone(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does whom a batch closes."""
    monkeypatch.setattr(behind.member, "pause", lambda: behind.room.remove(behind.member.cursor))
    assert behind.catch_up(writes=1) == [[1, 2]]
    assert behind.member.cursor.mark is None
    assert not behind.room.members


@pytest.mark.parametrize("size", [10, 1000, 5000, 20_000])
def test_a_member_that_takes_little_has_little_read_for_it(size: int) -> None:
    """What it does not take of a page is for nothing."""
    stream = Stream(padding=size)
    for _ in range(1000):
        stream.add()
    behind = Behind(stream)
    while len(behind.member.log) < 1000:
        behind.catch_up(writes=1)
    behind.member.writable = True
    assert behind.room.catch_up(behind.member.cursor) is None
    assert behind.is_live
    assert [item.id.ms for item in behind.member.log] == list(range(1, 1001))
    assert behind.entries_read < 6000


@pytest.mark.parametrize("count", [100, 10_000])
def test_a_window_knows_what_foreign_entries_cost(count: int) -> None:
    """However small their fields are."""
    fields = [b"%d" % number for number in range(count)]
    window = Window(ZERO, None)
    entry = as_message(MessageId.of(1, 0), fields, 10**6)
    window.append([entry])
    own = as_message(MessageId.of(1, 0), [b"message", b""], 10**6)
    beside = Window(ZERO, None)
    beside.append([own])
    held = getsizeof(fields) + sum(map(getsizeof, fields))
    assert 0.8 * held < window.size - beside.size < 1.2 * held
    window.evict(0, window.end)
    assert window.size == 0
