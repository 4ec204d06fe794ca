"""The relay on a real store, its members in this very process."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest

from streamcast.config import Follow, RelaySettings, StreamSettings
from streamcast.cursor import Cursor
from streamcast.fanout import SLICE
from streamcast.message import Gap, Message, MessageId
from streamcast.relay import Relay
from streamcast.streams import Publication, RedisStreams
from streamcast.wire import Publish, Start
from tests.model import Member, Remembers
from tests.stores import Store

MEMBERS = 3000
SMALL_ROOMS = 20


class RoomMember(Member):
    """A member of any room, that knows when it joined and left."""

    def __init__(self, dialect: Remembers, relay: Relay, room: str) -> None:
        super().__init__(dialect, relay.pause)
        self.cursor.room = room


@pytest.fixture
async def relay(store: Store, notifier: str) -> AsyncIterator[Relay]:
    streams = RedisStreams(StreamSettings(redis=store.url, follow=Follow(notifier)), 65536)
    await streams.start()
    relay = Relay(streams, RelaySettings())
    yield relay
    await relay.close()
    await streams.close()


async def until(condition: Callable[[], bool], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


def publish(relay: Relay, room: str, text: str) -> None:
    def done(publication: Publication, outcome: object) -> None:
        assert isinstance(outcome, MessageId), outcome

    relay.publish(Publication.of(Publish(room, text.encode(), True), "publisher", done))


def join(relay: Relay, room: str, dialect: Remembers) -> RoomMember:
    member = RoomMember(dialect, relay, room)
    relay.join(member.cursor, Start())
    return member


async def test_members_that_come_go_and_stall_between_slices(
    store: Store, relay: Relay, notifier: str
) -> None:
    """A room of thousands and 20 small ones: every member sees every ID once, in order."""
    chance = random.Random(1)
    dialect = Remembers()
    large = [join(relay, "large", dialect) for _ in range(MEMBERS)]
    small = [join(relay, f"small{n}", dialect) for n in range(SMALL_ROOMS) for _ in range(5)]
    await until(lambda: all(member.head is not None for member in large + small))
    gone: list[RoomMember] = []
    between_slices = stalled_in_round = small_between = served_before = 0
    same_round = None
    for number in range(400):
        publish(relay, "large", str(number))
        publish(relay, f"small{number % SMALL_ROOMS}", str(number))
        await asyncio.sleep(0)
        room = relay._rooms["large"].room
        if room._round and any(0 < row.next < row.stop for row in room._rows):
            between_slices += 1
            # In the very round that was between two slices when the loop last turned.
            served = sum(relay._rooms[f"small{n}"].room.delivered for n in range(SMALL_ROOMS))
            small_between += room._round is same_round and served > served_before
            same_round, served_before = room._round, served
        for _ in range(5):
            member = chance.choice(large)
            if member.writable:
                member.pause()
                in_round = bool(room._round) and member.cursor.mark is room._round_start
                stalled_in_round += in_round
            else:
                member.writable = True
                relay.resume(member.cursor)
        left = large.pop(chance.randrange(len(large)))
        relay.leave(left.cursor)
        gone.append(left)
        large.append(join(relay, "large", dialect))
    assert between_slices > 20, "the room was hardly ever between two slices"
    if notifier == "tracking":
        # With `block`, rooms that wait together are read together, before a round and not in it.
        assert small_between > 0
    assert stalled_in_round > 0, "nobody ever stalled while a round had still to reach it"
    for member in large:
        member.writable = True
        relay.resume(member.cursor)
    entries = {
        room: [MessageId.parse(id_) for id_, _ in store.client.xrange(f"streamcast:{room}")]
        for room in ["large", *(f"small{n}" for n in range(SMALL_ROOMS))]
    }
    assert len(entries["large"]) == 400
    await until(
        lambda: all(seen(member, entries[member.cursor.room][-1]) for member in large + small)
    )
    for member in large + small + gone:
        check_whole(member, entries[member.cursor.room], is_gone=member in gone)


def seen(member: RoomMember, last: MessageId) -> bool:
    return member.head == last or bool(member.log and member.log[-1].id == last)


def check_whole(member: RoomMember, ids: list[MessageId], *, is_gone: bool) -> None:
    assert not any(isinstance(item, Gap) for item in member.log)
    assert member.head is not None
    expected = [id_ for id_ in ids if id_ > member.head]
    got = [item.id for item in member.log if isinstance(item, Message)]
    assert got == (expected[: len(got)] if is_gone else expected)


async def test_a_batch_is_encoded_once_and_written_once(store: Store, relay: Relay) -> None:
    """Not once a member: the cost of a message does not grow with who hears it."""
    dialect = Remembers()
    members = [join(relay, "room", dialect) for _ in range(5 * SLICE)]
    await until(lambda: all(member.head is not None for member in members))
    with store.client.pipeline(transaction=True) as pipe:
        for number in range(10):
            pipe.xadd("streamcast:room", {"message": number})
        pipe.execute()
    await until(lambda: all(len(member.log) == 10 for member in members))
    assert len(dialect.batches) == 1
    assert {member.writes for member in members} == {1}


async def test_a_storm_of_joins_reads_the_store_once_for_all(store: Store, relay: Relay) -> None:
    ids = [store.client.xadd("streamcast:room", {"message": n}) for n in range(100)]
    store.client.config_resetstat()
    dialect = Remembers()
    members = []
    for number in range(500):
        member = RoomMember(dialect, relay, "room")
        relay.join(member.cursor, Start(after=MessageId.parse(ids[number % 100])))
        members.append(member)
    await until(lambda: all(member.head is not None for member in members))
    stats = store.client.info("commandstats")
    # A few pages, the first of them small, for 500 joins.
    assert stats["cmdstat_xrevrange"]["calls"] <= 4
    assert stats.get("cmdstat_xrange", {"calls": 0})["calls"] <= 4
    for number, member in enumerate(members):
        assert [item.id for item in member.log] == [
            MessageId.parse(id_) for id_ in ids[number % 100 + 1 :]
        ]


async def left_behind(store: Store, relay: Relay) -> tuple[RoomMember, list[MessageId]]:
    """Return a paused member whom the window has left behind, and the IDs that it is to get."""
    dialect = Remembers()
    slow, quick = join(relay, "room", dialect), join(relay, "room", dialect)
    await until(lambda: slow.head is not None and quick.head is not None)
    slow.pause()
    ids = []
    for _ in range(20):
        with store.client.pipeline(transaction=False) as pipe:
            for _ in range(50):
                pipe.xadd("streamcast:room", {"message": "x" * 1000})
            ids += [MessageId.parse(id_) for id_ in pipe.execute()]
        await until(lambda: len(quick.log) == len(ids))  # noqa: B023 - awaited at once
    assert relay._rooms["room"].room.window.start > 0, "the window still has everything"
    assert [item.id for item in quick.log] == ids
    assert relay.statistics().behind == 1
    return slow, ids


async def test_a_member_left_far_behind_is_served_from_the_store(
    store: Store, relay: Relay
) -> None:
    """The window has long gone on; what is still kept comes page by page, in order."""
    slow, ids = await left_behind(store, relay)
    slow.writable = True
    relay.resume(slow.cursor)
    await until(lambda: bool(slow.log) and slow.log[-1].id == ids[-1])
    assert [item.id for item in slow.log] == ids
    assert relay.statistics().behind == 0


async def test_one_that_pauses_while_a_page_is_read_does_not_have_to_wait_later(
    store: Store, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page was for nothing, but nothing is wrong with the store."""
    monkeypatch.setattr("streamcast.relay.RETRY", 1000.0)
    slow, ids = await left_behind(store, relay)
    slow.writable = True
    relay.resume(slow.cursor)
    slow.pause()
    await until(lambda: slow.cursor.work is None)
    assert slow.log == []
    slow.writable = True
    relay.resume(slow.cursor)
    await until(lambda: bool(slow.log) and slow.log[-1].id == ids[-1])
    assert [item.id for item in slow.log] == ids


async def test_a_room_that_nobody_is_in_is_not_followed(store: Store, relay: Relay) -> None:
    member = join(relay, "room", Remembers())
    await until(lambda: member.head is not None)
    assert relay.streams.statistics().followed == 1
    relay.leave(member.cursor)
    assert relay.streams.statistics().followed == 0
    assert relay.statistics().rooms == 0


class Closes(RoomMember):
    """A member whose connection ends as it is told that it has joined."""

    def __init__(self, relay: Relay, dialect: Remembers, room: str) -> None:
        super().__init__(dialect, relay, room)
        self.relay = relay

    def joined(self, cursor: Cursor, head: MessageId, *, resumed: bool) -> None:
        self.relay.leave(self.cursor)


async def test_one_that_leaves_in_being_placed_does_not_close_the_room_for_others(
    store: Store, relay: Relay
) -> None:
    leaves = Closes(relay, Remembers(), "room")
    relay.join(leaves.cursor, Start())
    stays = join(relay, "room", Remembers())
    await until(lambda: stays.head is not None)
    store.client.xadd("streamcast:room", {"message": "new"})
    await until(lambda: len(stays.log) == 1)


async def test_a_room_that_was_parted_with_grows_no_more(store: Store, relay: Relay) -> None:
    """Its last members may leave in the very step that takes in an answer."""
    member = join(relay, "room", Remembers())
    await until(lambda: member.head is not None)
    publish(relay, "room", "a")
    await until(lambda: relay.statistics().window_bytes > 0)
    await until(lambda: not relay._rooms["room"].queued)
    open_room = relay._rooms["room"]
    relay.leave(member.cursor)
    relay.grown(open_room)
    assert not open_room.queued
    assert relay.statistics().window_bytes == 0
