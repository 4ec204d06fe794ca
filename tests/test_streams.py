"""What the interface of the streams guarantees, on every engine and with every notifier."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from streamcast.config import Follow, StreamSettings
from streamcast.errors import BadRoom, StartError, StoreError, Unavailable, Unknown
from streamcast.message import MessageId
from streamcast.server.inside import streams_of_others
from streamcast.streams import Publication, RedisStreams, probe
from streamcast.streams.interface import OVERHEAD
from streamcast.streams.tracking import Tracking
from streamcast.streams.writer import IN_FLIGHT
from streamcast.wire import Publish
from tests.followers import MAX_MESSAGE, Publisher, Start, connecting, follow
from tests.load import until
from tests.proxy import Proxy
from tests.stores import Store, lanes


@pytest.fixture
async def start(notifier: str) -> AsyncIterator[Start]:
    async with connecting(notifier) as start:
        yield start


async def test_a_message_costs_one_read(store: Store, start: Start) -> None:
    """Also one that was published here, which is read before the store has told of it."""
    streams = await start(store)
    recorder, publisher = await follow(streams, "room"), Publisher(streams)
    publisher.publish("room", "first")
    await until(lambda: recorder.texts == ["first"])
    before = recorder.reads
    for number in range(20):
        publisher.publish("room", str(number))
        await publisher.ended(number + 2)
        await until(lambda: len(recorder.texts) == len(publisher.outcomes))
    assert recorder.reads == before + 20


async def test_nothing_is_read_before_it_is_added_where_replicas_are_waited_for(
    store: Store, start: Start
) -> None:
    """What is published meanwhile waits at the store; a read behind it would not."""
    streams = await start(store, replicas_ack=1, replicas_timeout=1.0)
    recorder, publisher = await follow(streams, "room"), Publisher(streams)
    publisher.publish("room", "a")
    await until(lambda: recorder.texts == ["a"])
    before = recorder.reads
    publisher.publish("room", "b")
    await until(lambda: recorder.texts == ["a", "b"])
    assert recorder.reads == before + 1
    await publisher.ended(2)


def test_a_publication_counts_all_that_it_holds() -> None:
    done = print
    for key, ref, meta, held in (
        (None, None, None, 0),
        ("key", None, None, 3),
        (None, "ref..", None, 5),
        ("k", 7, None, 1),
        (None, None, "meta", 4),
    ):
        publish = Publish("room", b"abc", True, ref, key, meta)
        assert Publication.of(publish, None, done).size == OVERHEAD + len("abc") + held


@pytest.mark.parametrize(
    ("text", "meta", "fields"),
    [
        (True, None, (b"message", b"abc")),
        (False, None, (b"binary", b"abc")),
        (True, "m\u00e9", (b"message", b"abc", b"meta", b"m\xc3\xa9")),
    ],
)
def test_an_entry_says_what_it_is(text: bool, meta: str | None, fields: tuple[bytes, ...]) -> None:
    publish = Publish("room", b"abc", text, meta=meta)
    assert Publication.of(publish, None, print).fields == fields


async def test_every_entry_is_read_once_and_in_order(store: Store, start: Start) -> None:
    """Whoever added it: this server, another one, or any program; and without an audit."""
    one, other = await start(store), await start(store)
    here, there = await follow(one, "room"), await follow(other, "room")
    publishers = [Publisher(one), Publisher(other)]
    for number in range(300):
        publishers[number % 2].publish("room", str(number))
        if number % 10 == 0:
            store.client.xadd("streamcast:room", {"message": f"foreign {number}"})
            await asyncio.sleep(0)
    for publisher in publishers:
        await publisher.ended(150)
    await until(lambda: len(here.items) == len(there.items) == 330)
    ids = [MessageId.parse(id_) for id_, _ in store.client.xrange("streamcast:room")]
    assert [item.id for item in here.items] == ids == [item.id for item in there.items]
    for publisher in publishers:
        assert publisher.outcomes == sorted(publisher.outcomes)  # type: ignore[type-var]


async def test_one_connection_whatever_the_number_of_rooms(
    store: Store, start: Start, notifier: str
) -> None:
    """With `block` two, and one more for each 256 rooms."""
    streams = await start(store)
    recorders = [await follow(streams, f"room{number}") for number in range(200)]
    assert store.lanes() == lanes(notifier, 200)
    store.client.xadd("streamcast:room77", {"message": "a"})
    await until(lambda: recorders[77].texts == ["a"])


@pytest.mark.parametrize(
    "change",
    [
        ["DEL", "streamcast:room"],
        ["FLUSHALL"],
        ["XTRIM", "streamcast:room", "MAXLEN", "0"],
        ["PEXPIRE", "streamcast:room", "1"],
        ["RENAME", "streamcast:room", "elsewhere"],
    ],
)
async def test_changes_are_told_without_an_audit(
    store: Store, start: Start, notifier: str, change: list[str]
) -> None:
    """By `tracking`, that is; `block` finds them when the room is read next."""
    store.client.xadd("streamcast:room", {"message": "a"})
    streams = await start(store)
    recorder = await follow(streams, "room")
    store.client.execute_command(*change)
    if notifier == "block":
        await until(lambda: change[0] != "PEXPIRE" or not store.client.exists("streamcast:room"))
        store.client.xadd("streamcast:room", {"message": "b"})
        await until(lambda: "b" in recorder.texts)
        assert recorder.texts == (["b"] if change[0] == "XTRIM" else ["gap", "b"])
        return
    if change[0] == "XTRIM":
        await until(lambda: recorder.reads > 1)
        assert recorder.items == []
    else:
        # What expired is only found when somebody looks for it; Redis looks ten times a second.
        await until(lambda: recorder.texts == ["gap"])


async def test_a_large_first_burst_is_no_gap(store: Store, start: Start) -> None:
    """More entries than a read holds, in a room that was empty: all of them, and no gap."""
    recorder = await follow(await start(store), "room")
    with store.client.pipeline(transaction=True) as pipe:
        for number in range(1500):
            pipe.xadd("streamcast:room", {"message": number})
        pipe.execute()
    await until(lambda: len(recorder.items) == 1500)
    assert recorder.texts == [str(number) for number in range(1500)]


async def test_the_audit_reads_every_room_in_turn(store: Store, start: Start) -> None:
    streams = await start(store, audit=0.6)
    recorders = [await follow(streams, f"room{number}") for number in range(7)]
    await until(lambda: all(recorder.reads > 2 for recorder in recorders), within=5)
    assert streams.statistics().audits >= 14
    assert not any(recorder.items for recorder in recorders)


async def test_publishers_are_served_in_turn(store: Store, start: Start) -> None:
    """A flood of one does not stand before another's message; what is under way is bounded."""
    streams = await start(store)
    ended: list[Publisher] = []
    flood, other = Publisher(streams, ended), Publisher(streams, ended)
    for _ in range(200):
        flood.publish("room", "x" * 50_000)
    assert streams._nodes.of(b"").writer.in_flight <= IN_FLIGHT + 51_000
    assert streams.statistics().publishing_bytes > 9_000_000
    other.publish("other", "quick")
    await flood.ended(200)
    assert ended.index(other) <= IN_FLIGHT // 50_000 + 2
    assert all(isinstance(outcome, MessageId) for outcome in flood.outcomes)
    assert streams.statistics().publishing_bytes == 0


async def test_one_who_was_quiet_goes_before_those_who_flood(store: Store, start: Start) -> None:
    """Whatever their number: only what is under way already is before it."""
    streams = await start(store)
    ended: list[Publisher] = []
    floods = [Publisher(streams, ended) for _ in range(40)]
    for _ in range(10):
        for flood in floods:
            flood.publish("room", "x" * 20_000)
    # Each had its first turn by then.
    await until(lambda: len(ended) > 100)
    other, before = Publisher(streams, ended), len(ended)
    other.publish("other", "quick")
    for flood in floods:
        await flood.ended(10)
    assert ended.index(other) - before <= IN_FLIGHT // 20_000 + 1


async def test_a_key_stores_once(store: Store, start: Start) -> None:
    one, other = await start(store), await start(store)
    publishers = [Publisher(one), Publisher(one), Publisher(other)]
    for publisher in publishers:
        publisher.publish("room", "a", key="k")
    ids = {(await publisher.ended(1))[0] for publisher in publishers}
    assert len(ids) == 1
    assert store.client.xlen("streamcast:room") == 1
    assert 0 < store.client.pttl("{streamcast:room}:sent:k") <= 120_000
    publishers[0].publish("room", "b", key="another")
    await publishers[0].ended(2)
    assert store.client.xlen("streamcast:room") == 2


async def test_the_mark_of_a_key_is_no_news(
    store: Store, start: Start, notifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store tells of the room alone, and goes on telling of it."""
    told: list[bytes] = []
    take_in = Tracking.pushed

    def pushed(tracking: Tracking, push: list[Any]) -> None:
        told.extend(push[1])
        take_in(tracking, push)

    monkeypatch.setattr(Tracking, "pushed", pushed)
    streams = await start(store)
    recorder, publisher = await follow(streams, "room"), Publisher(streams)
    for number in range(20):
        publisher.publish("room", str(number), key=f"{number}")
        publisher.publish("room", "again", key=f"{number}")
        await publisher.ended(2 * number + 2)
    store.client.xadd("streamcast:room", {"message": "from elsewhere"})
    await until(lambda: recorder.texts == [*map(str, range(20)), "from elsewhere"])
    assert set(told) == ({b"streamcast:room"} if notifier == "tracking" else set())


async def test_a_key_that_is_no_stream(store: Store, start: Start) -> None:
    streams = await start(store)
    store.client.set("streamcast:odd", "a string")
    odd, even = await follow(streams, "odd"), await follow(streams, "even")
    assert isinstance(odd.error, BadRoom)
    publisher = Publisher(streams)
    publisher.publish("odd", "a")
    publisher.publish("even", "a")
    refused, stored = await publisher.ended(2)
    assert isinstance(refused, BadRoom)
    assert isinstance(stored, MessageId)
    await until(lambda: even.texts == ["a"])


async def test_a_stream_that_becomes_something_else(store: Store, start: Start) -> None:
    store.client.xadd("streamcast:room", {"message": "a"})
    recorder = await follow(await start(store), "room")
    store.client.set("streamcast:room", "a string")
    await until(lambda: recorder.texts == ["gap"])
    store.client.delete("streamcast:room")
    store.client.xadd("streamcast:room", {"message": "b"})
    await until(lambda: recorder.texts == ["gap", "b"])


async def test_a_full_store_refuses(own_store: Callable[..., Store], start: Start) -> None:
    store = own_store("--maxmemory-policy", "noeviction")
    streams = await start(store)
    recorder, publisher = await follow(streams, "room"), Publisher(streams)
    publisher.publish("room", "a")
    store_full = await publisher.ended(1)
    assert isinstance(store_full[0], MessageId)
    store.client.config_set("maxmemory", 1)
    publisher.publish("room", "b")
    publisher.publish("room", "c", key="k")
    refused = (await publisher.ended(3))[1:]
    assert [type(outcome) for outcome in refused] == [Unavailable, Unavailable]
    store.client.config_set("maxmemory", 0)
    publisher.publish("room", "d")
    assert isinstance((await publisher.ended(4))[3], MessageId)
    await until(lambda: recorder.texts == ["a", "d"])


async def test_a_store_that_is_killed_and_comes_back(
    own_store: Callable[..., Store], start: Start, notifier: str
) -> None:
    """What was acknowledged is read, once, in order; nothing is stored twice."""
    store = own_store("--appendonly", "yes", "--appendfsync", "always")
    streams = await start(store)
    recorder, publisher = await follow(streams, "room"), Publisher(streams)
    for number in range(2000):
        publisher.publish("room", str(number))
        if number == 1000:
            await until(lambda: len(publisher.outcomes) > 200)
            store.kill()
        if number % 20 == 0:
            await asyncio.sleep(0)
    await publisher.ended(2000)
    # What waited ends before what was under way, so each is known by its text.
    outcomes = publisher.by_text.copy()
    assert len(outcomes) == 2000
    store.start()
    await until(lambda: streams.statistics().reconnects == len(lanes(notifier, 0)))
    publisher.publish("room", "last")
    await publisher.ended(2001)
    await until(lambda: "last" in recorder.texts)
    stored = [fields[b"message"].decode() for _, fields in store.client.xrange("streamcast:room")]
    assert recorder.texts == stored
    assert len(set(stored)) == len(stored)
    for text, outcome in outcomes.items():
        if isinstance(outcome, MessageId):
            assert text in stored
        elif isinstance(outcome, Unavailable):
            assert text not in stored
        else:
            assert isinstance(outcome, Unknown)
    assert any(isinstance(outcome, StoreError) for outcome in outcomes.values()), "nothing was lost"


async def test_a_store_that_stands_still_is_noticed(
    own_store: Callable[..., Store], start: Start
) -> None:
    store = own_store()
    streams = await start(store, silence=1.0)
    recorder, publisher = await follow(streams, "room"), Publisher(streams)
    store.signal(signal.SIGSTOP)
    publisher.publish("room", "a")
    began = time.monotonic()
    [outcome] = await publisher.ended(1)
    assert isinstance(outcome, Unknown)
    assert time.monotonic() - began < 5
    publisher.publish("room", "b")
    assert isinstance((await publisher.ended(2))[1], Unavailable)
    store.signal(signal.SIGCONT)
    [node] = streams._nodes.all()
    await until(lambda: node.write_lane, within=20)
    publisher.publish("room", "c")
    assert isinstance((await publisher.ended(3))[2], MessageId)
    # The first one was on its way: the store runs it when it wakes.
    await until(lambda: recorder.texts == ["a", "c"])


async def lose_at_the_start(streams: RedisStreams, store: Store, name: str) -> None:
    """Begin to connect, and lose the connection of that name while it is tried what it tells."""
    starting = asyncio.create_task(streams.start())
    await until(lambda: streams._nodes.of(b"")._reading.lane is not None)
    [lost] = [client for client in store.client.client_list() if client["name"] == name]
    store.client.client_kill_filter(_id=lost["id"])
    await starting


@pytest.mark.parametrize("replicas", [0, 1])
async def test_a_connection_that_is_lost_at_the_start(
    own_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, replicas: int
) -> None:
    """One sentence says why it does not start; it is not taken for a store that can't push."""
    monkeypatch.setattr(probe, "TIMEOUT", 0.5)
    store = own_store()
    with Proxy(store.path) as proxy:
        proxy.to_server.delay_ms = 100
        streams = RedisStreams(StreamSettings(redis=proxy.url, replicas_ack=replicas), MAX_MESSAGE)
        with pytest.raises(StartError, match="the connection"):
            await lose_at_the_start(
                streams, store, "streamcast-read" if replicas else "streamcast-rooms"
            )


async def test_a_connection_that_writes_is_lost_at_the_start(
    own_store: Callable[..., Store],
) -> None:
    """It is opened again, and the store is still known for one that pushes."""
    store = own_store()
    with Proxy(store.path) as proxy:
        proxy.to_server.delay_ms = 100
        streams = RedisStreams(StreamSettings(redis=proxy.url, replicas_ack=1), MAX_MESSAGE)
        await lose_at_the_start(streams, store, "streamcast-write")
        await until(lambda: store.lanes() == ["streamcast-read", "streamcast-write"])
        await until(lambda: streams.statistics().reconnects == 1)
        await streams.close()


async def test_every_publication_ends_when_the_store_is_lost(
    own_store: Callable[..., Store], start: Start
) -> None:
    """Once, however many wait; and nothing stays counted as under way."""
    store = own_store()
    streams = await start(store, silence=1.0)
    store.signal(signal.SIGSTOP)
    publishers = [Publisher(streams) for _ in range(5)]
    for number in range(5000):
        publishers[number % 5].publish("room", "x" * 1000)
    for publisher in publishers:
        await publisher.ended(1000)
    assert streams.statistics().publishing == streams.statistics().publishing_bytes == 0
    assert {type(outcome) for outcome in publishers[0].outcomes} == {Unknown, Unavailable}
    store.signal(signal.SIGCONT)


async def test_a_master_that_becomes_a_replica(
    own_store: Callable[..., Store], start: Start, notifier: str
) -> None:
    """Nothing counts that a replica says; when it is a master again, everything is proved anew."""
    store = own_store()
    streams = await start(store)
    recorder, publisher = await follow(streams, "room"), Publisher(streams)
    store.client.replicaof("127.0.0.1", 1)
    publisher.publish("room", "a")
    assert isinstance((await publisher.ended(1))[0], Unavailable)
    await until(lambda: store.lanes() == [])
    store.client.replicaof("NO", "ONE")
    await until(lambda: streams.statistics().reconnects == len(lanes(notifier, 0)))
    publisher.publish("room", "b")
    assert isinstance((await publisher.ended(2))[1], MessageId)
    await until(lambda: recorder.texts == ["b"])


async def test_it_leaves_nothing_open(store: Store, notifier: str) -> None:
    settings = StreamSettings(redis=store.url, follow=Follow(notifier))
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    streams = RedisStreams(settings, MAX_MESSAGE)
    await streams.start()
    await streams.close()
    assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208
    await until(lambda: store.lanes() == [])


async def test_who_serves_rests_and_who_has_its_only_client_inside_does_not(store: Store) -> None:
    serving = RedisStreams(StreamSettings(redis=store.url), 1000)
    inside = streams_of_others(store.url, "streamcast:", 1000)
    for streams, pace in ((serving, StreamSettings().pace), (inside, 0.0)):
        await streams.start()
        [node] = streams._nodes.all()
        assert {lane.pace for lane in node.lanes} == {pace}
        await streams.close()
    assert StreamSettings().pace > 0
