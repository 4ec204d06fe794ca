"""Trimming and expiry, on every engine.

How changes are learned makes no difference, but to who says that a room is followed.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from streamcast.config import StreamSettings
from streamcast.message import MessageId
from streamcast.streams import RedisStreams
from streamcast.streams.keeper import CHECK_EVERY_PUBLISHES, FORGET_AFTER, Keeper
from tests.followers import MAX_MESSAGE, Publisher, Start, connecting, follow
from tests.load import until
from tests.stores import Store


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with connecting("tracking") as start:
        yield start


async def test_a_burst_is_never_trimmed_below_history(store: Store, start: Start) -> None:
    """However many servers trim at one moment."""
    servers = [await start(store, history=1000, young=0.0) for _ in range(2)]
    with store.client.pipeline(transaction=True) as pipe:
        for number in range(1000):
            pipe.xadd("streamcast:room", {"message": number}, id=f"{number + 1}-0")
        pipe.execute()
    publishers = [Publisher(streams) for streams in servers]
    for _ in range(10):
        for publisher in publishers:
            for _ in range(450):
                publisher.publish("room", "x")
        await until(lambda: all(s.statistics().publishing == 0 for s in servers))
        assert store.client.xlen("streamcast:room") >= 1000
    assert store.client.xlen("streamcast:room") <= 1200


async def test_two_servers_trim_only_what_is_neither_new_nor_young(
    store: Store, start: Start
) -> None:
    """One publishes a thousand a second, the other a few: both bounds hold at every moment."""
    history, young = 100, 1.0
    fast = await start(store, history=history, young=young)
    slow = await start(store, history=history, young=young)
    publishers = [Publisher(fast), Publisher(slow)]
    count = 0
    trimmed = False
    began = time.monotonic()
    while time.monotonic() - began < 4:
        for _ in range(10):
            publishers[0].publish("room", "x")
        if count % 100 == 0:
            publishers[1].publish("room", "y")
        count += 10
        await asyncio.sleep(0.01)
        length, oldest = store.client.xlen("streamcast:room"), oldest_age(store)
        acked = sum(len(publisher.outcomes) for publisher in publishers)
        trimmed |= length < acked
        assert length >= min(history, acked)
        if length < acked:
            assert oldest > young - 0.05
    assert trimmed
    await publishers[0].ended(count)
    await asyncio.sleep(young + 0.2)
    for number in range(3):
        publishers[1].publish("room", "z")
        await asyncio.sleep(1.05)
        assert number < 2 or history <= store.client.xlen("streamcast:room") <= history + 200


def oldest_age(store: Store) -> float:
    """How old the oldest entry is, by the store's own clock, in seconds."""
    seconds, microseconds = store.client.time()
    [(id_, _)] = store.client.xrange("streamcast:room", count=1)
    return float(seconds + microseconds / 1e6 - MessageId.parse(id_).ms / 1000)


async def test_rooms_expire_only_when_nobody_is_in(store: Store, start: Start) -> None:
    streams = await start(store, retain=1.0)
    recorder, publisher = await follow(streams, "occupied"), Publisher(streams)
    for room in ("occupied", "empty", "left"):
        publisher.publish(room, "a")
    await publisher.ended(3)
    left = await follow(streams, "left")
    store.client.xadd("streamcast:foreign", {"message": "a"})
    foreign = await follow(streams, "foreign")
    await asyncio.sleep(2.5)
    exists = {room for room in ("occupied", "left", "foreign") if alive(store, room)}
    assert exists == {"occupied", "left", "foreign"}
    assert not alive(store, "empty")
    streams.unfollow("left")
    await asyncio.sleep(1.5)
    assert not alive(store, "left")
    assert alive(store, "occupied")
    assert 0 < store.client.pttl("streamcast:foreign") <= 1000
    assert recorder.texts == ["a"]
    assert not left.items + foreign.items


def alive(store: Store, room: str) -> bool:
    return bool(store.client.exists(f"streamcast:{room}"))


async def test_an_active_room_that_nobody_is_in_lives_on(store: Store, start: Start) -> None:
    publisher = Publisher(await start(store, retain=1.0))
    publisher.publish("room", "first")
    for _ in range(6):
        await asyncio.sleep(0.4)
        publisher.publish("room", "again")
    await publisher.ended(7)
    assert store.client.xlen("streamcast:room") == 7


@pytest.mark.parametrize("notifier", ["tracking", "block"])
@pytest.mark.parametrize("replicas_ack", [0, 1])
async def test_each_publish_to_a_room_that_nobody_is_in_sees_to_its_time(
    store: Store, notifier: str, replicas_ack: int
) -> None:
    """Where somebody is, the audits do."""
    async with connecting(notifier) as start:
        streams = await start(store, retain=60.0, replicas_ack=replicas_ack, replicas_timeout=0.01)
        await follow(streams, "occupied")
        publisher = Publisher(streams)
        publisher.publish("occupied", "first")
        await until(lambda: store.client.pttl("streamcast:occupied") > 0)
        for room, expected in (("occupied", 0), ("empty", 5)):
            store.client.config_resetstat()
            before = len(publisher.outcomes)
            for number in range(5):
                publisher.publish(room, str(number))
            await until(lambda b=before: len(publisher.outcomes) == b + 5)  # type: ignore[misc]
            ran = store.client.info("commandstats").get("cmdstat_pexpire", {"calls": 0})
            assert ran["calls"] == expected


async def test_nothing_is_trimmed_or_expired_with_an_empty_prefix(store: Store) -> None:
    settings = StreamSettings(redis=store.url, prefix="")
    assert (settings.kept, settings.retained) == (0, 0.0)
    streams = RedisStreams(settings, MAX_MESSAGE)
    await streams.start()
    try:
        store.client.config_resetstat()
        recorder, publisher = await follow(streams, "room"), Publisher(streams)
        for number in range(250):
            publisher.publish("room", str(number))
        await publisher.ended(250)
        await until(lambda: len(recorder.items) == 250)
        ran = store.client.info("commandstats")
        assert not {"cmdstat_xtrim", "cmdstat_pexpire", "cmdstat_expire"} & set(ran)
    finally:
        await streams.close()


class Kept:
    """A keeper with a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sent = 0
        self.young = 10.0
        settings = StreamSettings(redis="redis://x", history=100, young=self.young, retain=0.0)
        self.keeper = Keeper(settings, self._send, lambda: self.now)

    def _send(self, command: bytes, callback: object) -> None:
        assert b"XTRIM" in command
        self.sent += 1

    def publish(self, times: int = 1, key: bytes = b"a") -> int:
        """Return how often it was looked after for that."""
        before = self.sent
        for _ in range(times):
            self.keeper.published(key, MessageId.of(10**12, 0))
        return self.sent - before


def test_a_stream_is_looked_after_when_it_is_added_to_but_not_each_time() -> None:
    kept = Kept()
    for _ in range(3):
        assert kept.publish() == 1
        kept.now += kept.young * 0.6
        assert kept.publish() == 0
        kept.now += kept.young * 0.6
    assert kept.publish(key=b"another") == 1


def test_a_stream_that_is_added_to_often_is_looked_after_more_often() -> None:
    kept = Kept()
    assert kept.publish() == 1
    for _ in range(3):
        assert kept.publish(CHECK_EVERY_PUBLISHES - 1) == 0
        assert kept.publish() == 1


def test_streams_that_are_quiet_are_forgotten() -> None:
    kept = Kept()
    kept.publish(key=b"quiet")
    kept.now += FORGET_AFTER - 1
    kept.publish(key=b"busy")
    kept.now += 2
    kept.keeper.forget_quiet()
    assert list(kept.keeper._seen) == [b"busy"]
