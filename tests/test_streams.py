"""What the interface of the streams guarantees, on every engine and with every notifier."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from streamcast.config import Follow, StreamSettings
from streamcast.errors import BadRoom, CodedError, StartError, StoreError, Unavailable, Unknown
from streamcast.message import ZERO, Gap, Item, Message, MessageId, own_fields
from streamcast.proof import Kind, Position, Read, Reply, next_read, progress
from streamcast.streams import Publication, RedisStreams, probe
from streamcast.streams.interface import Outcome
from streamcast.streams.writer import IN_FLIGHT
from tests.load import until
from tests.proxy import Proxy
from tests.stores import Store, lanes

NEVER = 3600.0
MAX_MESSAGE = 65536

Start = Callable[..., Awaitable[RedisStreams]]


class Recorder:
    """A follower that keeps all that it reads."""

    def __init__(self) -> None:
        self.position: Position | None = None
        self.items: list[Item] = []
        self.reads = 0
        self.error: CodedError | None = None
        self._again: Read | None = None

    def next_read(self, *, announced: bool) -> Read:
        if self.position is None:
            return Read(Kind.RESOLVE, ZERO, 1)
        return self._again or next_read(self.position, 100, announced=announced)

    def received(self, read: Read, reply: Reply) -> bool:
        self.reads += 1
        if self.position is None:
            assert reply.info is not None
            self.position = Position.at_end(reply.info)
            return False
        known = {item.id: item.fingerprint for item in self.items if isinstance(item, Message)}
        went = progress(self.position, read, reply, lambda: known)
        self._again, self.position = went.again, went.position
        self.items += went.items
        return went.more or went.again is not None

    def failed(self, error: CodedError) -> None:
        self.error = error

    @property
    def is_open(self) -> bool:
        return self.position is not None

    @property
    def texts(self) -> list[str]:
        return [
            "gap" if isinstance(item, Gap) else (item.data or b"").decode() for item in self.items
        ]


@pytest.fixture
async def start(notifier: str) -> AsyncIterator[Start]:
    """Starts streams on a store; without an audit unless asked for."""
    started: list[RedisStreams] = []

    async def connect(store: Store, **more: object) -> RedisStreams:
        settings = StreamSettings(redis=store.url, follow=Follow(notifier), audit=NEVER, retain=0.0)
        streams = RedisStreams(replace(settings, **more), MAX_MESSAGE)  # type: ignore[arg-type]
        await streams.start()
        started.append(streams)
        return streams

    yield connect
    for streams in started:
        await streams.close()


async def follow(streams: RedisStreams, room: str) -> Recorder:
    recorder = Recorder()
    streams.follow(room, recorder)
    await until(lambda: recorder.is_open or recorder.error)
    return recorder


class Publisher:
    """Publishes, and keeps how each ended, in the order in which they did."""

    def __init__(self, streams: RedisStreams, everybody: "list[Publisher] | None" = None) -> None:
        self.streams = streams
        self.outcomes: list[Outcome] = []
        self.by_text: dict[str, Outcome] = {}
        # Whose publications ended, of all that share the list.
        self.everybody = [] if everybody is None else everybody

    def publish(self, room: str, text: str, key: str | None = None) -> None:
        fields = own_fields(text.encode(), text=True, meta=None)
        self.streams.publish(Publication(room, fields, self, self._done, key=key))

    def _done(self, publication: Publication, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.by_text[publication.fields[1].decode()] = outcome
        self.everybody.append(self)

    async def ended(self, count: int, within: float = 10.0) -> list[Outcome]:
        await until(lambda: len(self.outcomes) >= count, within)
        assert len(self.outcomes) == count
        return self.outcomes


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


async def test_two_connections_whatever_the_number_of_rooms(
    store: Store, start: Start, notifier: str
) -> None:
    """And with `block`, one more for each 256 rooms."""
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
        await until(lambda: change[0] != "PEXPIRE" or not alive(store, "room"))
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
    assert streams._writer.in_flight <= IN_FLIGHT + 51_000
    assert streams.statistics().publishing_bytes > 9_000_000
    other.publish("other", "quick")
    await flood.ended(200)
    assert ended.index(other) <= IN_FLIGHT // 50_000 + 2
    assert all(isinstance(outcome, MessageId) for outcome in flood.outcomes)
    assert streams.statistics().publishing_bytes == 0


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
    own_store: Callable[..., Store], start: Start
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
    await until(lambda: streams.statistics().reconnects == 2)
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
    await until(lambda: streams.statistics().reconnects >= 1, within=20)
    publisher.publish("room", "c")
    assert isinstance((await publisher.ended(3))[2], MessageId)
    # The first one was on its way: the store runs it when it wakes.
    await until(lambda: recorder.texts == ["a", "c"])


@pytest.mark.parametrize("name", ["streamcast-read", "streamcast-write"])
async def test_a_connection_that_is_lost_at_the_start(
    own_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """One sentence says why it does not start; it is not taken for a store that can't push."""
    monkeypatch.setattr(probe, "TIMEOUT", 0.5)
    store = own_store()
    with Proxy(store.path) as proxy:
        proxy.to_server.delay_ms = 100
        streams = RedisStreams(StreamSettings(redis=proxy.url), MAX_MESSAGE)
        starting = asyncio.create_task(streams.start())
        await until(lambda: streams._reading.lane is not None)
        [lost] = [client for client in store.client.client_list() if client["name"] == name]
        store.client.client_kill_filter(_id=lost["id"])
        with pytest.raises(StartError, match="the connection"):
            await starting


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


async def test_a_master_that_becomes_a_replica(
    own_store: Callable[..., Store], start: Start
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
    await until(lambda: streams.statistics().reconnects == 2)
    publisher.publish("room", "b")
    assert isinstance((await publisher.ended(2))[1], MessageId)
    await until(lambda: recorder.texts == ["b"])


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


async def test_nothing_is_trimmed_or_expired_with_an_empty_prefix(
    store: Store, notifier: str
) -> None:
    settings = StreamSettings(redis=store.url, prefix="", follow=Follow(notifier))
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


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on what comes, but turn tracking off where it was to be turned on."""
    while data := await source.read(65536):
        sink.write(data.replace(b"TRACKING\r\n$2\r\nON", b"TRACKING\r\n$3\r\nOFF"))
    sink.close()
    await sink.wait_closed()


async def test_auto_does_not_believe_in_pushes_before_one_came(store: Store) -> None:
    """As behind a proxy that says OK and drops them."""

    passing: list[asyncio.Task[None] | None] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing.append(asyncio.current_task())
        from_store, to_store = await asyncio.open_unix_connection(str(store.path))
        await asyncio.gather(pump(reader, to_store), pump(from_store, writer))

    path = store.folder / "proxy"
    async with await asyncio.start_unix_server(pass_on, path):
        streams = RedisStreams(StreamSettings(redis=f"unix://{path}"), 1000)
        await streams.start()
        try:
            recorder = await follow(streams, "room")
            store.client.xadd("streamcast:room", {"message": "a"})
            await until(lambda: recorder.texts == ["a"])
            assert store.lanes() == lanes("block", 1)
        finally:
            await streams.close()
            await asyncio.gather(*(task for task in passing if task is not None))


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


async def test_connections_that_wait_come_and_go_with_the_rooms(store: Store, start: Start) -> None:
    """And rooms that move to another connection miss nothing."""
    streams = await start(store, follow=Follow.BLOCK)
    recorders = {f"room{number}": await follow(streams, f"room{number}") for number in range(600)}
    assert store.lanes() == lanes("block", 600)
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


async def test_it_leaves_nothing_open(store: Store, notifier: str) -> None:
    settings = StreamSettings(redis=store.url, follow=Follow(notifier))
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    streams = RedisStreams(settings, MAX_MESSAGE)
    await streams.start()
    await streams.close()
    assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208
    await until(lambda: store.lanes() == [])
