"""How changes are learned: which way `auto` takes, and the connections of `block`."""

import asyncio
from collections.abc import AsyncIterator
from unittest.mock import Mock

import pytest

from streamcast.config import Follow, RelaySettings, ServerSettings, StreamSettings
from streamcast.errors import StartError
from streamcast.message import MessageId
from streamcast.proof import Kind, Read, Reply, StreamInfo
from streamcast.relay import Relay
from streamcast.server.context import MAX_REFUSALS, Context
from streamcast.streams import RedisStreams
from streamcast.streams.block import Watched
from tests.deaf import without_pushes
from tests.followers import Publisher, Start, connecting, follow
from tests.load import until
from tests.stores import Store, lanes


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with connecting("block") as start:
        yield start


def url_without(store: Store, *commands: str) -> str:
    """The URL for a user who may do everything but these commands."""
    denied = [f"-{command}" for command in commands]
    rules = {"keys": "*", "channels": "*", "commands": ["+@all", *denied]}
    store.client.acl_setuser("limited", enabled=True, nopass=True, **rules)
    return store.url.replace("unix://", "unix://limited:any@")


async def test_auto_waits_for_changes_where_the_store_does_not_push(store: Store) -> None:
    url = url_without(store, "client|tracking")
    with pytest.raises(StartError, match="NOPERM"):
        await RedisStreams(StreamSettings(redis=url, follow=Follow.TRACKING), 1000).start()
    streams = RedisStreams(StreamSettings(redis=url), 1000)
    await streams.start()
    try:
        recorder = await follow(streams, "room")
        assert store.lanes() == lanes("block", 1)
        store.client.xadd("streamcast:room", {"message": "a"})
        await until(lambda: recorder.texts == ["a"])
        assert not store.client.keys("*probe*")
    finally:
        await streams.close()


async def test_what_is_added_here_is_read_right_behind(store: Store) -> None:
    """Behind it on the way there, not when the store tells of it, as it does here no more."""
    async with connecting("tracking") as start:
        streams = await start(store)
        recorder, publisher = await follow(streams, "room"), Publisher(streams)
        [node] = streams._nodes.all()
        assert node.read_lane is not None
        await node.read_lane.ask("CLIENT", "TRACKING", "OFF")
        before = recorder.reads
        for number in range(20):
            publisher.publish("room", str(number))
            await publisher.ended(number + 1)
            await until(lambda: recorder.reads - before == len(publisher.outcomes))
            assert len(recorder.texts) == number + 1


async def test_messages_have_keys_where_their_marks_are_watched_all_the_same(store: Store) -> None:
    """As for a user who may not say that they are not to be; the store refuses that once."""
    streams = RedisStreams(StreamSettings(redis=url_without(store, "client|caching")), 1000)
    await streams.start()
    try:
        recorder, publisher = await follow(streams, "room"), Publisher(streams)
        store.client.acl_log_reset()
        for number, key in enumerate("aab"):
            publisher.publish("room", key, key=key)
            await publisher.ended(number + 1)
        first, again, other = publisher.outcomes
        assert first == again != other
        assert [entry["count"] for entry in store.client.acl_log()] == [1]
        await until(lambda: recorder.texts == ["a", "b"])
        assert store.lanes() == lanes("tracking", 1)
    finally:
        await streams.close()


async def test_auto_does_not_believe_in_pushes_before_one_came(store: Store) -> None:
    """As behind a proxy that says OK and drops them."""
    async with without_pushes(store) as url:
        streams = RedisStreams(StreamSettings(redis=url), 1000)
        await streams.start()
        try:
            recorder = await follow(streams, "room")
            store.client.xadd("streamcast:room", {"message": "a"})
            await until(lambda: recorder.texts == ["a"])
            assert store.lanes() == lanes("block", 1)
        finally:
            await streams.close()


async def test_a_store_that_tells_of_no_changes_at_all(store: Store) -> None:
    url = url_without(store, "client|tracking", "xread")
    with pytest.raises(StartError, match=r"neither by pushes .* nor to those who wait"):
        await RedisStreams(StreamSettings(redis=url), 1000).start()


async def test_auto_takes_pushes_where_they_come(store: Store) -> None:
    streams = RedisStreams(StreamSettings(redis=store.url), 1000)
    await streams.start()
    try:
        recorder = await follow(streams, "room")
        assert store.lanes() == lanes("tracking", 1)
        store.client.xadd("streamcast:room", {"message": "a"})
        await until(lambda: recorder.texts == ["a"])
        assert not store.client.keys("*probe*")
    finally:
        await streams.close()


async def test_added_and_deleted_at_once_is_a_gap(store: Store, start: Start) -> None:
    """Where the store tells of it; one who waits for additions hears nothing (`block`)."""
    recorder = await follow(await start(store, follow=Follow.TRACKING), "room")
    with store.client.pipeline(transaction=True) as pipe:
        pipe.xadd("streamcast:room", {"message": "a"})
        pipe.delete("streamcast:room")
        pipe.execute()
    await until(lambda: recorder.texts == ["gap"])
    store.client.xadd("streamcast:room", {"message": "b"})
    await until(lambda: recorder.texts == ["gap", "b"])


async def test_a_new_room_interrupts_the_wait(store: Store, start: Start) -> None:
    """Rooms that are new join those that wait at once, and all hear."""
    streams = await start(store)
    first = await follow(streams, "first")
    await until(lambda: store.client.info("clients")["blocked_clients"] == 1)
    store.client.config_resetstat()
    second = await follow(streams, "second")
    for room in ("second", "first"):
        store.client.xadd(f"streamcast:{room}", {"message": "a"})
    await until(lambda: first.texts == second.texts == ["a"])
    assert store.client.info("commandstats")["cmdstat_client|unblock"]["calls"] >= 1


async def test_a_wait_that_can_not_be_interrupted_is_waited_out(store: Store) -> None:
    """For a room that is new; then it waits with the others."""
    url = url_without(store, "client|unblock")
    streams = RedisStreams(StreamSettings(redis=url, follow=Follow.BLOCK), 1000)
    await streams.start()
    try:
        first = await follow(streams, "first")
        await until(lambda: store.client.info("clients")["blocked_clients"] == 1)
        second = await follow(streams, "second")
        for room in ("second", "first"):
            store.client.xadd(f"streamcast:{room}", {"message": "a"})
        await until(lambda: first.texts == second.texts == ["a"])
    finally:
        await streams.close()


async def test_a_key_that_is_no_stream_is_looked_at_now_and_then(
    store: Store, start: Start
) -> None:
    """By itself and by the audit, and no more often the longer it lasts."""
    store.client.xadd("streamcast:room", {"message": "a"})
    streams = await start(store, audit=0.2, silence=0.4)
    recorder = await follow(streams, "room")
    store.client.set("streamcast:room", "a string")
    await until(lambda: recorder.texts == ["gap"])
    before = streams.statistics().reads
    await asyncio.sleep(2)
    assert 5 < streams.statistics().reads - before < 40


async def test_connections_that_wait_come_and_go_with_the_rooms(store: Store, start: Start) -> None:
    """And rooms that move to another connection miss nothing."""
    streams = await start(store, follow=Follow.BLOCK)
    recorders = {f"room{number}": await follow(streams, f"room{number}") for number in range(600)}
    assert store.lanes() == lanes("block", 600)
    # These are files, which clients then may not have.
    server = Context(Relay(streams, RelaySettings()), ServerSettings(), RelaySettings(), files=300)
    assert server.capacity == 300 - MAX_REFUSALS - 5
    for number in range(550):
        streams.unfollow(f"room{number}")
        if number % 10 == 0:
            # The last one, which has not moved yet, or just has.
            store.client.xadd("streamcast:room599", {"message": number})
            await asyncio.sleep(0)
    await until(lambda: len(store.lanes()) == 3)
    for number in range(550, 600):
        store.client.xadd(f"streamcast:room{number}", {"message": "last"})
    await until(
        lambda: all(recorders[f"room{number}"].texts[-1:] == ["last"] for number in range(550, 600))
    )
    expected = [*(str(number) for number in range(0, 550, 10)), "last"]
    assert recorders["room599"].texts == expected
    assert not recorders["room0"].items


def test_a_wait_is_behind_what_was_read_and_not_behind_what_was_only_heard_of() -> None:
    """Else what is added below a newest ID that a failover took back would not end it."""
    watched = Watched(Mock(), b"key", Mock(), Mock())
    head, lost = MessageId.of(5, 0), MessageId.of(9, 0)
    info = StreamInfo(length=1, last=lost, added=2, first=head)
    read = Read(Kind.EXAMINE, head, 10, fingerprint=1)
    watched.received(read, Reply((), complete=True, info=info, continues=True))
    assert watched.seen == "5-0"
    watched.received(read, Reply((), complete=True, info=info))
    assert watched.seen == "9-0"
    watched.received(Read(Kind.RANGE, head, 10, fingerprint=1), Reply((), True, continues=True))
    assert watched.seen == "5-0"
