"""The store goes away and comes back, under load: real servers and stores, signals and a proxy."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.conftest import ENGINES
from tests.load import Load, Peers, until
from tests.proxy import Proxy
from tests.stores import Server, Store, lanes

NOTICED_WITHIN = 5.0
"""Seconds until publishers are told of a store that is silent."""
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
UNTRIMMED = ("--history", "0")

Serve = Callable[..., Server]


@pytest.fixture
def proxy(store: Store) -> Iterator[Proxy]:
    """What the server takes for its store."""
    with Proxy(store.path) as proxy:
        yield proxy


@asynccontextmanager
async def loaded(server: Server) -> AsyncIterator[Load]:
    """Messages flow; afterwards none may be missing anywhere."""
    async with Peers(server.url) as peers:
        load = Load(peers)
        await load.start()
        yield load


async def test_killed_and_started_again(own_store: Callable[..., Store], serve: Serve) -> None:
    """Again and again: what was acknowledged is there, and comes to everybody, once."""
    store = own_store(*ALWAYS)
    async with loaded(serve(store, *UNTRIMMED)) as load:
        for stopped_before in (False, False, True):
            if stopped_before:
                # So that many are on their way to it for sure.
                store.signal(signal.SIGSTOP)
                await until(lambda: load.unanswered > 50)
            await asyncio.to_thread(store.kill)
            refused = load.count("unavailable")
            await until(lambda: load.count("unavailable") > refused + 100)  # noqa: B023 - ends here
            await asyncio.to_thread(store.start)
            await load.flows()
        await load.end()
        load.check(store)
        assert load.count("unknown") > 10


async def test_stopped_for_ten_seconds() -> None:
    """Publishes time out, and are told so; those with a key are retried, and stored once.

    What was under way when it stopped runs when it goes on, and is delivered as well.
    """
    store = Store(ENGINES["valkey"])
    store.start()
    server = Server("--redis", store.url, *UNTRIMMED)
    try:
        async with loaded(server) as load:
            store.signal(signal.SIGSTOP)
            await until(store.is_stopped)
            began = time.monotonic()
            await until(lambda: load.count("unknown") > 0, within=NOTICED_WITHIN)
            await until(lambda: load.count("unavailable") > 100)
            await asyncio.sleep(began + 10 - time.monotonic())
            assert store.is_stopped()
            store.signal(signal.SIGCONT)
            await load.flows()
            await load.end()
            load.check(store)
            # All of these may run when it goes on; it reads as far as its buffer holds.
            unknown = {text for text, told in load.outcomes.items() if told == "unknown"}
            assert unknown & {told["data"] for told in load.members[0].told}
            assert ["unknown", "unavailable"] in [told[:2] for told in load.careful.values()]
    finally:
        code, logged = server.stop()
        store.close()
    assert code == 0
    assert '"fault"' not in logged


async def test_cut(store: Store, proxy: Proxy, serve: Serve) -> None:
    """Meanwhile others change the store: what they did is found by the proof of each position."""
    server = serve(proxy, *UNTRIMMED)
    async with loaded(server) as load, Peers(server.url) as peers:
        rooms = ("added", "trimmed", "untouched", "absent")
        bystander = await peers.open()
        for room in rooms:
            if room != "absent":
                store.client.xadd(f"streamcast:{room}", {"message": "before"})
            await bystander.ask(type="join", room=room)
        links, before = proxy.links, len(proxy.attempts)
        cut = time.monotonic()
        proxy.cut()
        await until(lambda: load.count("unknown") + load.count("unavailable") > 100)
        ids = [add(store, "added") for _ in range(2)]
        lost = add(store, "trimmed")
        store.client.xtrim("streamcast:trimmed", maxlen=0, approximate=False)
        refused = await bystander.ask(type="join", room="new")
        assert (refused["type"], refused["code"]) == ("error", "unavailable")
        await asyncio.sleep(cut + 1.6 - time.monotonic())
        attempts = [when - cut for when in proxy.attempts[before:]]
        proxy.heal()
        await load.flows()
        await load.end()
        load.check(store)
        await until(lambda: len(bystander.told) >= 3)
    # Even pauses would make twenty in each half of that time.
    assert sum(when < 0.4 for when in attempts) >= 2 * links
    assert sum(when > 0.8 for when in attempts) <= 2 * links
    told = {room: [each for each in bystander.told if each["room"] == room] for room in rooms}
    assert [each.get("id") for each in told["added"]] == ids
    [gap] = told["trimmed"]
    assert (gap["type"], gap["earliest"], gap["latest"]) == ("gap", None, lost)
    assert told["untouched"] == told["absent"] == []


def add(store: Store, room: str) -> str:
    """XADD, as another program does."""
    added: bytes = store.client.xadd(f"streamcast:{room}", {"message": "behind"})
    return added.decode()


async def test_half_open(store: Store, proxy: Proxy, serve: Serve, notifier: str) -> None:
    """Noticed in time by a server under load, and by one whose connections are idle."""
    first, *_ = [add(store, "old") for _ in range(3)]
    server, quiet = serve(proxy, *UNTRIMMED), serve(proxy)
    async with loaded(server) as load, Peers(server.url) as peers, Peers(quiet.url) as idle:
        member, publisher = await peers.open(), await idle.open()
        assert (await member.ask(type="join", room="old"))["type"] == "joined"
        links, began = proxy.links, time.monotonic()
        proxy.hang()
        passed = proxy.to_store.passed, proxy.to_server.passed
        # Each needs an answer of the store: where the room stands, or what it had before.
        joining = [
            peers.run((await peers.open()).ask(type="join", **join))
            for join in (
                {"room": "new"},
                {"room": "old", "last": 2},
                {"room": "old", "after": first},
            )
        ]
        await asyncio.sleep(began + NOTICED_WITHIN / 2 - time.monotonic())
        assert await publisher.publish("other", "into the void") == "unknown"
        assert await publisher.publish("other", "known to be lost") == "unavailable"
        await until(lambda: load.count("unknown") > 0)
        await until(lambda: load.count("unavailable") > 0)
        for join in joining:
            assert (await join)["code"] == "unavailable"
        assert time.monotonic() - began < NOTICED_WITHIN
        # All of them hang, and so do those that try to take their place.
        await until(lambda: proxy.links >= 2 * links)
        assert passed == (proxy.to_store.passed, proxy.to_server.passed)
        proxy.heal()
        await load.flows()
        await load.end()
        load.check(store)
        await until(lambda: quiet.logged().count("store back") >= len(lanes(notifier, 0)))
        assert "-" in await publisher.publish("other", "stored")
        [(_, fields)] = store.client.xrange("streamcast:other")
        assert fields[b"message"] == b"stored"


async def test_late(store: Store, proxy: Proxy, serve: Serve) -> None:
    """200 ms in each direction: nobody waits for more than that, and nothing is given up."""
    server = serve(proxy, *UNTRIMMED)
    proxy.to_store.delay_ms = proxy.to_server.delay_ms = 200
    async with loaded(server) as load:
        began = time.monotonic()
        await load.flows()
        took = time.monotonic() - began
        await load.end()
        load.check(store)
        assert len(load.outcomes) == load.acked
        longest = max(publisher.longest for publisher in load.publishers)
    assert longest > 0.4
    assert took < 3
    assert "store lost" not in server.logged()


async def test_byte_by_byte(store: Store, proxy: Proxy, serve: Serve) -> None:
    proxy.to_store.step = proxy.to_server.step = 1
    server = serve(proxy, *UNTRIMMED)
    async with loaded(server) as load:
        await until(lambda: load.acked > 300)
        await load.end()
        load.check(store)
        assert len(load.outcomes) == load.acked
    assert proxy.to_store.sends == proxy.to_store.passed > 10_000
    assert proxy.to_server.sends == proxy.to_server.passed > 10_000
    assert "store lost" not in server.logged()


async def test_a_retry_with_a_key(store: Store, proxy: Proxy, serve: Serve) -> None:
    """The store ran it, its answer did not come: the retry gets the ID of the first."""
    server = serve(proxy)
    async with Peers(server.url) as peers:
        peer = await peers.open()
        await peer.ask(type="join", room="live")
        assert "-" in await peer.publish("live", "before")
        proxy.to_server.delay_ms = 60_000
        publishing = peers.run(peer.publish("live", "once", key="k"))
        await until(lambda: store.client.xlen("streamcast:live") == 2)
        proxy.cut()
        assert await publishing == "unknown"
        proxy.to_server.delay_ms = 0
        proxy.heal()
        while (outcome := await peer.publish("live", "once", key="k")) == "unavailable":
            await asyncio.sleep(0.01)
        entries = store.client.xrange("streamcast:live")
        assert [fields[b"message"] for _, fields in entries] == [b"before", b"once"]
        assert entries[1][0].decode() == outcome
        await until(lambda: len(peer.told) == 2)
        assert [told["data"] for told in peer.told] == ["before", "once"]
        assert peer.told[1]["id"] == outcome


async def test_a_full_store(own_store: Callable[..., Store], serve: Serve) -> None:
    """Publishers are told, readers go on; and all is well when there is room again."""
    store = own_store("--maxmemory-policy", "noeviction")
    store.client.set("ballast", "x" * 20_000_000)
    server = serve(store, *UNTRIMMED)
    async with loaded(server) as load, Peers(server.url) as peers:
        limit = store.client.info("memory")["used_memory"] + 20_000
        store.client.config_set("maxmemory", limit)
        await until(lambda: load.count("unavailable") > 100)
        # A little is freed now and then, so that one more finds room: not while this looks.
        store.client.config_set("maxmemory", 1)
        ids = [id_.decode() for id_, _ in store.client.xrange("streamcast:live")]
        await told_at_once(peers, ids, after="0")
        await told_at_once(peers, ids[-5:], last=5)
        await told_at_once(peers, ids[-5:], after=ids[-6])
        reader = await peers.open()
        assert (await reader.ask(type="join", room="another"))["type"] == "joined"
        assert await reader.publish("another", "full", key="k") == "unavailable"
        assert store.client.info("errorstats")["errorstat_OOM"]["count"] > 100
        store.client.delete("ballast")
        store.client.config_set("maxmemory", limit)
        assert "-" in await reader.publish("another", "full", key="k")
        await load.flows()
        await load.end()
        load.check(store)
        await until(lambda: [told["data"] for told in reader.told] == ["full"])


async def told_at_once(peers: Peers, ids: list[str], **start: object) -> None:
    """Join, and be told these messages."""
    reader = await peers.open()
    assert (await reader.ask(type="join", room="live", **start))["type"] == "joined"
    await until(lambda: len(reader.told) == len(ids))
    assert [told["id"] for told in reader.told] == ids


async def test_a_key_that_is_no_stream(store: Store, serve: Serve) -> None:
    """Members of other rooms notice nothing, on the same connection either."""
    store.client.set("streamcast:odd", "a string")
    async with loaded(serve(store, *UNTRIMMED)) as load:
        member = load.members[0]
        for _ in range(20):
            joined = await member.ask(type="join", room="odd", last=10)
            assert (joined["type"], joined["code"]) == ("error", "bad_room")
            assert await member.publish("odd", "a") == "bad_room"
            assert await member.publish("odd", "a", key="k") == "bad_room"
        await load.end()
        load.check(store)
        assert len(load.outcomes) == load.acked
        assert store.client.get("streamcast:odd") == b"a string"
        store.client.delete("streamcast:odd")
        assert (await member.ask(type="join", room="odd"))["type"] == "joined"
        assert "-" in await member.publish("odd", "a")
