"""What an answer of the store proves, case by case; see test_room_properties for all of them."""

import pytest

from streamcast.message import ZERO, Gap, MessageId
from streamcast.proof import Kind, Position, Progress, next_read, page, progress
from tests.model import Stream


def ids(*numbers: int) -> list[MessageId]:
    return [MessageId.of(number, 0) for number in numbers]


@pytest.fixture
def stream() -> Stream:
    """Five entries, 1 to 5."""
    return Stream.of(5)


def read(stream: Stream, at: Position, *, announced: bool = True, count: int = 10) -> Progress:
    """Read on from a position until something is proved."""
    asked = next_read(at, count, announced=announced)
    known = {entry.id: entry.fingerprint for entry in stream.histories[0]}
    known = {id_: value for id_, value in known.items() if id_ <= at.id}
    while True:
        went = progress(at, asked, stream.answer(asked), lambda: known)
        if went.again is None:
            return went
        asked = went.again


def shown(went: Progress) -> list[object]:
    return [item if isinstance(item, Gap) else item.id for item in went.items]


def test_a_plain_read_is_enough_while_its_entry_is_there(stream: Stream) -> None:
    at = Position.at_end(stream.info())
    stream.add()
    asked = next_read(at, 10, announced=True)
    assert (asked.kind, asked.start) == (Kind.RANGE, at.id)
    went = progress(at, asked, stream.answer(asked), dict)
    assert shown(went) == ids(6)
    assert went.position == Position.at_end(stream.info())


def test_the_first_message_of_a_room(stream: Stream) -> None:
    empty = Stream()
    at = Position.at_end(empty.info())
    empty.add()
    went = read(empty, at)
    assert shown(went) == ids(1)
    assert (went.position.id, went.position.added) == (MessageId.of(1, 0), 1)


def test_nothing_is_missed_where_only_the_seen_is_trimmed(stream: Stream) -> None:
    at = Position.at_end(stream.info())
    stream.trim(0)
    assert shown(read(stream, at)) == []
    stream.add()
    assert shown(read(stream, at)) == ids(6)


def test_nothing_is_missed_where_the_newest_was_deleted(stream: Stream) -> None:
    """Even if more came than a read holds: the exchange is made again, large enough."""
    at = Position.at_end(stream.info())
    stream.delete_entry(-1)
    for _ in range(30):
        stream.add()
    went = read(stream, at, count=10)
    assert shown(went) == ids(*range(6, 36))


def test_trimmed_before_it_was_read(stream: Stream) -> None:
    at = Position.at_end(stream.info())
    for _ in range(10):
        stream.add()
    stream.trim(4)
    gap = Gap(MessageId.of(5, 0), MessageId.of(12, 0), MessageId.of(15, 0), MessageId.of(5, 0))
    assert shown(read(stream, at)) == [gap, *ids(12, 13, 14, 15)]
    stream.trim(0)
    gap = Gap(MessageId.of(5, 0), None, MessageId.of(15, 0), MessageId.of(5, 0))
    assert shown(read(stream, at)) == [gap]


def test_the_count_is_known_again_after_a_gap_larger_than_a_read(stream: Stream) -> None:
    at = Position.at_end(stream.info())
    for _ in range(100):
        stream.add()
    stream.trim(30)
    went = read(stream, at, count=10)
    assert isinstance(went.items[0], Gap)
    assert went.more
    assert went.position.added is None
    while went.more:
        went = read(stream, went.position, count=10)
        assert not any(isinstance(item, Gap) for item in went.items)
    assert went.position == Position.at_end(stream.info())


def test_added_and_deleted_unseen() -> None:
    """Only an announcement tells; an audit that finds nothing proves nothing was there."""
    empty = Stream()
    at = Position.at_end(empty.info())
    assert shown(read(empty, at, announced=False)) == []
    assert shown(read(empty, at, announced=True)) == [Gap(ZERO, None, ZERO, ZERO)]


def test_another_history_with_the_same_id(stream: Stream) -> None:
    at = Position.at_end(stream.info())
    stream.delete()
    stream.add(MessageId.of(5, 0))
    went = read(stream, at)
    gap = Gap(MessageId.of(5, 0), MessageId.of(5, 0), MessageId.of(5, 0), ZERO)
    assert shown(went) == [gap, MessageId.of(5, 0)]
    assert went.reset


def test_one_rolled_back_entry_does_not_bring_back_all(stream: Stream) -> None:
    at = Position.at_end(stream.info())
    stream.roll_back(2)
    gap = Gap(MessageId.of(5, 0), None, MessageId.of(3, 0), MessageId.of(3, 0))
    went = read(stream, at)
    assert shown(went) == [gap]
    assert went.position == Position.at_end(stream.info())
    stream.add()
    assert shown(read(stream, at)) == [
        replace_gap(gap, earliest=MessageId.of(4, 0), latest=MessageId.of(4, 0)), MessageId.of(4, 0)
    ]  # fmt: skip


def replace_gap(gap: Gap, **changes: MessageId) -> Gap:
    return gap._replace(**changes)


def test_fewer_were_added_than_were_seen(stream: Stream) -> None:
    """IDs by the clock go up over a reset; the count does not."""
    at = Position.at_end(stream.info())
    stream.delete()
    stream.add(MessageId.of(9, 0))
    went = read(stream, at)
    assert went.reset
    assert shown(went)[1:] == ids(9)


def test_a_page_for_one_who_only_knows_an_id(stream: Stream) -> None:
    def ask(ms: int) -> tuple[Gap | None, list[MessageId]]:
        asked = next_read(Position(MessageId.of(ms, 0), None, None), 10, announced=False)
        gap, entries = page(MessageId.of(ms, 0), None, stream.answer(asked))
        return gap, [entry.id for entry in entries]

    assert ask(0) == (None, ids(1, 2, 3, 4, 5))
    assert ask(3) == (None, ids(4, 5))
    assert ask(5) == (None, [])
    stream.trim(2)
    gap = Gap(ZERO, MessageId.of(4, 0), MessageId.of(5, 0), ZERO)
    assert ask(0) == (gap, ids(4, 5))
    assert ask(2) == (gap._replace(after=MessageId.of(2, 0), resume=MessageId.of(2, 0)), ids(4, 5))
    assert ask(9)[0] == Gap(MessageId.of(9, 0), None, MessageId.of(5, 0), ZERO)
    stream.delete_entry(-1)
    assert ask(5) == (None, [])
