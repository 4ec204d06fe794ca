"""The seats of live members, and rounds along them."""

import pytest

from streamcast.cursor import Mark
from streamcast.message import MessageId
from streamcast.room import Room
from streamcast.row import FEW, Row
from streamcast.wire import Batch, Close
from streamcast.wire.close import Code
from tests.model import Member, Remembers, Stream

LIMIT = 100_000
BATCH = Batch(b"0;")


def live(room: Room, count: int, dialect: Remembers) -> list[Member]:
    members = [Member(dialect, room.pause) for _ in range(count)]
    for member in members:
        room.add(member.cursor, room.tip)
    return members


def a_room() -> tuple[Stream, Room]:
    stream = Stream.of(5)
    return stream, Room("room", stream.info(), LIMIT)


def read(stream: Stream, room: Room) -> None:
    more = True
    while more:
        asked = room.next_read(announced=True)
        assert asked is not None
        more = room.received(asked, stream.answer(asked))


def seated(count: int) -> tuple[Row, list[Member]]:
    dialect = Remembers()
    dialect.batches.append([])
    row = Row(dialect)
    members = [Member(dialect, row.leave) for _ in range(count)]
    for member in members:
        row.sit(member.cursor)
    return row, members


def writes(members: list[Member]) -> list[int]:
    return [member.writes for member in members]


def test_a_round_reaches_those_who_sat_when_it_began() -> None:
    row, members = seated(5)
    row.begin()
    assert row.hand_out(BATCH, 2) == 2
    assert [row.is_to_come(member.cursor) for member in members] == [False] * 2 + [True] * 3
    late = Member(row.dialect, lambda _: None)  # type: ignore[arg-type]
    row.sit(late.cursor)
    assert not row.is_to_come(late.cursor)
    row.leave(members[3].cursor)
    assert row.hand_out(BATCH, 9) == 2
    assert row.is_done
    assert writes([*members, late]) == [1, 1, 1, 0, 1, 0]


def test_empty_seats_are_done_away_with_once_they_are_many() -> None:
    """However many come and go, whether anything is handed out or not."""
    row, members = seated(1)
    for number in range(1000):
        if number % 100 == 0:
            row.begin()
            row.hand_out(BATCH, 9999)
        other = Member(row.dialect, lambda _: None)  # type: ignore[arg-type]
        row.sit(other.cursor)
        row.leave(other.cursor)
        assert len(row.outlets) == len(row.cursors) <= 2 * (FEW + 3)
    row.begin()
    assert row.hand_out(BATCH, 9999) == 1
    assert writes(members) == [11]
    assert row.cursors[members[0].cursor.seat] is members[0].cursor


def test_a_round_closes_up_before_it_begins() -> None:
    row, members = seated(100)
    for member in members[:-1]:
        row.leave(member.cursor)
    row.begin()
    assert row.stop == 1
    assert not row._is_mostly_empty
    assert row.hand_out(BATCH, 1) == 1
    assert writes(members) == [0] * 99 + [1]


def test_nothing_is_encoded_for_nobody() -> None:
    """Where those who spoke a dialect are gone, or take nothing just now."""
    stream, room = a_room()
    dialects = Remembers(), Remembers()
    stays, goes, paused = (live(room, 3, dialect) for dialect in (*dialects, dialects[1]))
    for member in goes:
        room.remove(member.cursor)
    for member in paused:
        member.pause()
    stream.add()
    read(stream, room)
    room.hand_out(99)
    assert writes(stays) == [1] * 3
    assert [len(dialect.batches) for dialect in dialects] == [1, 0]
    assert room.delivered == 3


def test_what_was_handed_out_is_kept_by_the_window_alone() -> None:
    stream, room = a_room()
    live(room, 3, Remembers())
    stream.add()
    read(stream, room)
    room.hand_out(2)
    assert any(row.batch is not None for row in room._rows)
    room.hand_out(1)
    assert not any(row.batch is not None for row in room._rows)


def test_what_can_not_be_encoded_is_not_delivered() -> None:
    row, members = seated(2)
    row.begin()
    for member in members:
        member.close = lambda how: None  # type: ignore[method-assign]
    assert row.hand_out(Batch(b"", Close(Code.INTERNAL, "")), 9) == 0
    assert row.is_done


def test_nobody_moves_in_a_round() -> None:
    row, members = seated(100)
    row.begin()
    assert row.hand_out(BATCH, 10) == 10
    for member in members[5:99]:
        row.leave(member.cursor)
    late = Member(row.dialect, lambda _: None)  # type: ignore[arg-type]
    row.sit(late.cursor)
    assert row.hand_out(BATCH, 90) == 1
    assert row.is_done
    assert writes([*members, late]) == [1] * 10 + [0] * 89 + [1, 0]


def test_a_batch_that_closes_closes_all_whom_it_reaches() -> None:
    """Also those who leave their seats for that, and also behind what is written."""
    closed: list[int] = []
    row, members = seated(4)
    for number, member in enumerate(members):

        def close(how: Close, number: int = number, member: Member = member) -> None:
            assert how.code == Code.GAP
            closed.append(number)
            row.leave(member.cursor)

        member.close = close  # type: ignore[method-assign]
    row.leave(members[2].cursor)
    row.begin()
    row.hand_out(Batch(b"0;", Close(Code.GAP, "")), 1)
    assert closed == [0]
    row.hand_out(Batch(b"0;", Close(Code.GAP, "")), 9)
    assert closed == [0, 1, 3]
    assert writes(members) == [1, 1, 0, 1]


def test_a_slice_is_no_longer_for_two_dialects() -> None:
    stream, room = a_room()
    members = [member for _ in range(2) for member in live(room, 3, Remembers())]
    stream.add()
    read(stream, room)
    reached, more = [], True
    while more:
        more = room.hand_out(2)
        reached.append(sum(writes(members)))
    assert reached == [2, 4, 6]
    assert room.delivered == 6


@pytest.mark.parametrize("others", [2, 0])
def test_a_slice_that_ends_with_a_row(others: int) -> None:
    """There is more to hand out if somebody sits in another one, and only then."""
    stream, room = a_room()
    first, second = live(room, 2, Remembers()), live(room, 2, Remembers())
    for member in second[others:]:
        room.remove(member.cursor)
    stream.add()
    read(stream, room)
    assert room.hand_out(2) == bool(others)
    assert writes([*first, *second]) == [1, 1, 0, 0]
    assert not room.hand_out(2)
    assert writes([*first, *second]) == [1, 1, *[1] * others, *[0] * (2 - others)]


def test_one_that_joins_while_it_takes_nothing_is_not_live() -> None:
    stream, room = a_room()
    member = Member(Remembers(), room.pause)
    member.writable = False
    room.add(member.cursor, room.tip)
    assert not room.is_live(member.cursor)
    stream.add()
    read(stream, room)
    room.hand_out(9)
    member.writable = True
    assert room.catch_up(member.cursor) is None
    assert [item.id for item in member.log] == [MessageId.of(6, 0)]
    assert room.is_live(member.cursor)


def test_the_tip_is_never_of_a_history_that_is_gone() -> None:
    """A round that is under way when the history ends is handed out first."""
    stream, room = a_room()
    members = live(room, 5, Remembers())
    stream.add()
    read(stream, room)
    room.hand_out(2)
    stream.roll_back(1)
    stream.add(MessageId.of(7, 0))
    read(stream, room)
    assert writes(members) == [1] * 5
    assert room.tip.history == room.history == 1


def test_a_place_that_was_left_stays() -> None:
    """Though the tip that it was moves on."""
    stream, room = a_room()
    early, late = live(room, 2, Remembers())
    stream.add()
    read(stream, room)
    room.hand_out(1)
    late.pause()
    early.pause()
    places: list[Mark | None] = [early.cursor.mark, late.cursor.mark]
    for _ in range(3):
        stream.add()
        read(stream, room)
        room.hand_out(9)
    assert [place and place.id.ms for place in places] == [6, 5]
